package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/segment"
)

// sample is an event as a Node SDK sends it, 617 bytes; %08d makes ids.
const sample = `{"type":"track","event":"Item Scanned","userId":"user-%08d","anonymousId":"6f1c2a3b-9d4e-4c56-8f70-1a2b3c4d5e6f","messageId":"node-next-1764000000000-7f3b2c1d-0a9b-4c8d-b7e6-%08d1d0","timestamp":"2026-11-21T10:11:12.345Z","properties":{"sku":"4006381333931","price":12.5,"currency":"EUR","aisle":"B 12","loyal":true,"basket":{"id":"b-991","items":14},"note":"at till"},"context":{"groupId":"acct-311","library":{"name":"@segment/analytics-node","version":"3.1.0"},"page":{"path":"/checkout","title":"Checkout - MyPOS"},"locale":"de-DE"},"integrations":{},"_metadata":{"nodeVersion":"24.1.0","jsRuntime":"node"}}`

// benchmarkGateway sends requests of n events over 64 connections. cpu-ns/event
// is of the whole process: gateway, the Kafka in memory and this client.
func benchmarkGateway(b *testing.B, n int, protocols ...ingest.Protocol) {
	cluster := newCluster(b, kfake.BlackholeProduce())
	g := startGateway(b, cluster.ListenAddrs(), "", func(c *Config, d *Dependencies) {
		c.Kafka.ClientID, d.Protocols = "bench", protocols
	})
	g.awaitReady()
	const connections = 64
	var sent atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.SetBytes(int64(n * len(fmt.Sprintf(sample, 0, 0))))
	b.ResetTimer()
	began := cpuTime()
	for w := range connections {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := net.Dial("tcp", g.Addr())
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			var events []string
			for i := range n {
				events = append(events, fmt.Sprintf(sample, w*1000+i, w*1000+i))
			}
			path, body := "/v1/track", events[0]
			if n > 1 {
				path, body = "/v1/batch", `{"batch":[`+strings.Join(events, ",")+`],"sentAt":"2026-11-21T10:11:13.000Z"}`
			}
			out := []byte(request("POST "+path, body, "Content-Type: application/json", "User-Agent: bench/1"))
			br := bufio.NewReader(c)
			for sent.Add(1) <= int64(b.N) {
				if _, err := c.Write(out); err != nil {
					b.Error(err)
					return
				}
				if err := readReply(br); err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-began)/float64(b.N*n), "cpu-ns/event")
}

// readReply reads one reply and expects {"success":true}.
func readReply(br *bufio.Reader) error {
	status, err := br.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(status), "HTTP/1.1 200") {
		return fmt.Errorf("got %q", status)
	}
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
	}
	_, err = io.CopyN(io.Discard, br, int64(len(`{"success":true}`)))
	return err
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkGateway1(b *testing.B)   { benchmarkGateway(b, 1) }
func BenchmarkGateway100(b *testing.B) { benchmarkGateway(b, 100) }

// BenchmarkNative is what the protocols beside the native one cost it: nothing,
// says benchstat -col /protocols.
func BenchmarkNative(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("events=%d/protocols=segment", n), func(b *testing.B) { benchmarkGateway(b, n, segment.New()) })
		b.Run(fmt.Sprintf("events=%d/protocols=all", n), func(b *testing.B) { benchmarkGateway(b, n, Protocols()...) })
	}
}
