package gateway

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// What is asked for at most every second takes one alarm per eighth of the time,
// which never comes early; another deadline, or none, counts at once.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var alarms []time.Time
		d := deadline{set: func(at time.Time) error { alarms = append(alarms, at); return nil }}
		ask := func(in time.Duration) {
			t.Helper()
			due := time.Now().Add(in)
			if err := d.until(due); err != nil {
				t.Fatal(err)
			}
			if late := d.alarm.Sub(due); late < 0 || late > max(in, 0)/8 {
				t.Errorf("asked for %s, the alarm comes %s after that", in, late)
			}
		}
		expect := func(what string, n int) {
			t.Helper()
			if len(alarms) != n {
				t.Errorf("%s: %d alarms were set, want %d", what, len(alarms), n)
			}
		}
		for range 8 * 10 {
			ask(80 * time.Second)
			time.Sleep(time.Second)
		}
		expect("80 requests in 80 s", 8)
		ask(10 * time.Second)
		expect("an earlier one", 9)
		ask(80 * time.Second)
		expect("a later one", 10)
		_ = d.until(time.Time{}) // set returns nil
		_ = d.until(time.Time{})
		expect("none", 11)
		if !alarms[10].IsZero() {
			t.Errorf("without a deadline the alarm is at %s", alarms[10])
		}
		ask(-time.Second)
		expect("one that has passed", 12)
		if !alarms[11].Before(time.Now()) {
			t.Errorf("a deadline that has passed became one at %s", alarms[11])
		}
	})
}

// What the deadlines of a request cost: idle, whole request, reply.
func BenchmarkDeadlines(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	tracked, err := newListener(ln, &Gateway{cfg: DefaultConfig()}).Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer tracked.Close()
	run := func(name string, read, write func(time.Time) error, wait func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if read(time.Now().Add(75*time.Second)) != nil || read(time.Now().Add(15*time.Second)) != nil || write(time.Now().Add(15*time.Second)) != nil || wait() != nil {
					b.Fatal(io.ErrUnexpectedEOF)
				}
			}
		})
	}
	c := tracked.(*conn)
	run("each", c.Conn.SetReadDeadline, c.Conn.SetWriteDeadline, func() error { return nil })
	run("noted", c.SetReadDeadline, c.SetWriteDeadline, func() error {
		if err := c.reads.until(c.reads.want); err != nil {
			return err
		}
		return c.writes.until(c.writes.want)
	})
}
