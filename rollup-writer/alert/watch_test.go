package alert

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// watched starts a process that looks often.
func (b *bench) watched(hit func(string) error) (stalls func() float64, s *Service, health *ops.Health, done chan error, cancel func()) {
	b.t.Helper()
	b.t.Setenv("TMPDIR", b.t.TempDir()) // for the stacks
	b.cfg.StallTimeout = 3 * time.Second
	health = &ops.Health{}
	reg := prometheus.NewRegistry()
	s, err := New(b.cfg, Dependencies{Logger: b.Log, Metrics: reg, Now: clock(), Health: health})
	if err != nil {
		b.t.Fatal(err)
	}
	s.hit, s.watchPause = hit, 100*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done = make(chan error, 1)
	go func() { done <- s.Run(process.Signals{Stop: ctx, Kill: ctx}) }() // ends with cancel
	b.t.Cleanup(cancel)
	stalls = func() float64 {
		families, err := reg.Gather()
		if err != nil {
			b.t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "uptake_alerts_stalls_total" {
				return f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		b.t.Fatal("there is no count of stalls")
		return 0
	}
	return stalls, s, health, done, cancel
}

// hanging has a step hang for ever, once.
type hanging struct {
	mu     sync.Mutex // covers both below
	step   string
	hangs  int
	forget chan struct{}
}

func (h *hanging) hit(step string) error {
	h.mu.Lock()
	now := step == h.step
	if now {
		h.step = ""
		h.hangs++
	}
	h.mu.Unlock()
	if now {
		<-h.forget
		return errors.New("it hung")
	}
	return nil
}

// gate lets the connections that there are when it is shut hang: nothing comes in.
type gate struct {
	mu   sync.Mutex // covers shut
	shut chan struct{}
}

func newGate() *gate { return &gate{shut: make(chan struct{})} }

func (g *gate) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return &gated{Conn: c, shut: g.shut, closed: make(chan struct{})}, nil
}

func (g *gate) hang() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.shut)
	g.shut = make(chan struct{})
}

// gated does not even notice deadlines, as a client that hangs would not.
type gated struct {
	net.Conn
	shut, closed chan struct{}
	once         sync.Once
}

func (c *gated) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *gated) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	select {
	case <-c.shut:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

// Clients that hang are replaced: the process is not ready, logs what it knows, and goes
// on, and what was to be said is said once.
func TestHangingClientsAreReplaced(t *testing.T) {
	b := newBench(t)
	g := newGate()
	b.cfg.Kafka.Dial = g.dial
	stalls, _, health, done, cancel := b.watched(func(string) error { return nil })
	b.use("acme", days(20, 9)...)
	first := []string{"regular acme entered: segment regular", "silent acme firing: 0 events in 7d, below 1"}
	b.await(first...)
	g.hang()
	b.use("beta", days(20, 9)...)
	b.Await("the replacement of the clients", func() bool { return stalls() > 0 })
	b.await(append(first, "regular beta entered: segment regular", "silent beta firing: 0 events in 7d, below 1")...)
	b.Await("readiness", func() bool { return len(health.Ready()) == 0 })
	if log := b.Lines.String(); !strings.Contains(log, "work waits without progress; replacing the clients") || !strings.Contains(log, "this step has not ended: ") {
		t.Errorf("the log does not say what hung:\n%s", log)
	}
	said := map[string]bool{}
	for _, r := range b.log() {
		if said[r.AlertID+r.State] {
			t.Errorf("%s of %s was said twice", r.State, r.Subject)
		}
		said[r.AlertID+r.State] = true
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A delivery that hangs beyond its timeout does not keep its target from being reached.
func TestHangingDeliveryIsAbandoned(t *testing.T) {
	b := newBench(t)
	h := &hanging{step: "alerts.after-send", forget: make(chan struct{})}
	defer close(h.forget)
	b.target("timeout: 2s")
	stalls, _, _, done, cancel := b.watched(h.hit)
	b.use("acme", days(20, 9)...)
	b.await("regular acme entered: segment regular", "silent acme firing: 0 events in 7d, below 1")
	if stalls() == 0 || h.hangs != 1 {
		t.Errorf("%d deliveries hung, and the clients were not replaced", h.hangs)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What hangs and does not end when it is cancelled ends the process, which its supervisor
// starts again.
func TestStuckEvaluationEndsTheProcess(t *testing.T) {
	b := newBench(t)
	h := &hanging{step: "alerts.before-decide", forget: make(chan struct{})}
	defer close(h.forget)
	_, s, health, done, _ := b.watched(h.hit)
	s.endWait = time.Second
	b.use("acme", days(20, 9)...)
	select {
	case err := <-done:
		if !errors.Is(err, errStuck) {
			t.Errorf("got %v", err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("it goes on")
	}
	if faults := fmt.Sprint(health.Ready()); !strings.Contains(faults, "evaluate app dev: decide and write") {
		t.Errorf("it is ready: %s", faults)
	}
}

// The group has given the partition to nobody, or to this process, which does not know of
// it: then nobody evaluates.
func TestNobodyEvaluates(t *testing.T) {
	const name = "uptake.alerts.v1"
	for what, tc := range map[string]struct {
		assigned map[string][]string
		want     bool
	}{
		"another evaluates":     {map[string][]string{"own": nil, "other": {name}}, true},
		"nobody is in it":       {nil, false},
		"nobody has it":         {map[string][]string{"own": nil, "other": {"another.topic"}}, false},
		"it is this process's":  {map[string][]string{"own": {name}, "other": nil}, false},
		"it is this one's only": {map[string][]string{"own": {name}}, false},
	} {
		if got := evaluates(tc.assigned, name, "own"); got != tc.want {
			t.Errorf("%s: got %v", what, got)
		}
	}
	var p progress
	at := time.Unix(100, 0)
	p.owner(false, at)
	p.owner(false, at.Add(time.Second))
	if waits, what := p.waits(at.Add(time.Minute)); waits != time.Minute || !strings.Contains(what, "nobody evaluates") {
		t.Errorf("got %s, %q", waits, what)
	}
	p.owner(true, at.Add(time.Minute))
	p.began("cs", at)
	if waits, what := p.waits(at.Add(time.Hour)); waits != time.Hour || !strings.Contains(what, "target cs") {
		t.Errorf("got %s, %q", waits, what)
	}
	p.ended("cs")
	if waits, what := p.waits(at.Add(time.Hour)); waits != 0 {
		t.Errorf("got %s, %q", waits, what)
	}
}
