package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/keys"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
)

const (
	testKey    = "dev-write-key"
	partsCount = 4
)

// newCluster is a Kafka of one broker with the topics.
func newCluster(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	layout := topic.SingleLayout()
	layout.Partitions = partsCount
	if err := topic.Unprefixed.Ensure(context.Background(), kadm.NewClient(cl), layout); err != nil {
		t.Fatal(err)
	}
	return c
}

// running is a gateway that runs.
type running struct {
	*Gateway
	t       testing.TB
	url     string
	reg     *prometheus.Registry
	health  *ops.Health
	logs    *lockedBuffer
	keyFile string
	stop    context.CancelFunc
	kill    context.CancelCauseFunc
	result  chan error
}

type lockedBuffer struct {
	mu sync.Mutex // covers b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func keyFile(extra string, key string) string {
	return fmt.Sprintf("apps:\n  - id: dev\n    keys: ['%s']\n    ip: full\n%s\n...\n", keys.HashOf(key), extra)
}

func testConfig(t testing.TB, brokers []string, extra string) (Config, Dependencies) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Addr = "127.0.0.1:0"
	cfg.Kafka.Brokers = brokers
	cfg.Keys = filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(cfg.Keys, []byte(keyFile(extra, testKey)), 0o600); err != nil {
		t.Fatal(err)
	}
	return cfg, Dependencies{Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Health: &ops.Health{}}
}

// startGateway runs a gateway before the brokers. extra are lines of the key
// file for the app, indented by four.
func startGateway(t testing.TB, brokers []string, extra string, change func(*Config, *Dependencies)) *running {
	t.Helper()
	cfg, deps := testConfig(t, brokers, extra)
	r := &running{t: t, reg: prometheus.NewRegistry(), health: deps.Health, logs: &lockedBuffer{}, keyFile: cfg.Keys, result: make(chan error, 1)}
	deps.Logger, deps.Metrics = slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelInfo})), r.reg
	if change != nil {
		change(&cfg, &deps)
	}
	var err error
	if r.Gateway, err = New(cfg, deps); err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + r.Addr()
	killCtx, kill := context.WithCancelCause(context.Background())
	stopCtx, stop := context.WithCancel(killCtx)
	r.stop, r.kill = stop, kill
	go func() { r.result <- r.Run(process.Signals{Stop: stopCtx, Kill: killCtx}) }()
	t.Cleanup(func() {
		r.kill(process.ErrCutShort)
		r.stop()
		select {
		case err := <-r.result:
			if err != nil && !errors.Is(err, process.ErrCutShort) {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the gateway does not stop")
		}
		if t.Failed() {
			t.Log(r.logs.String())
		}
	})
	return r
}

// stopped stops the gateway and returns what Run did.
func (r *running) stopped() error {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.result:
		r.result <- err
		return err
	case <-time.After(60 * time.Second):
		r.t.Fatal("the gateway does not stop")
		return nil
	}
}

// await waits for a condition.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *running) awaitReady() {
	r.t.Helper()
	await(r.t, "the gateway is ready", func() bool { return len(r.health.Ready()) == 0 })
}

// reply is an HTTP reply, read.
type reply struct {
	status int
	header http.Header
	body   string
	err    error
	closed bool // the gateway ends the connection
}

type verdict struct {
	Success bool `json:"success"`
	Error   struct {
		Code, Setting, Detail string
	}
	Accepted int
	Rejected []struct {
		Index       int
		MessageID   string `json:"message_id"`
		Code, Field string
		Detail      string
	}
	Unstored []struct {
		Index     int
		MessageID string `json:"message_id"`
	}
}

func (p reply) verdict(t testing.TB) verdict {
	t.Helper()
	var v verdict
	if err := json.Unmarshal([]byte(p.body), &v); err != nil {
		t.Fatalf("reply %d %q: %v", p.status, p.body, err)
	}
	return v
}

func (r *running) do(method, path string, body io.Reader, header ...string) reply {
	req, err := http.NewRequest(method, r.url+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	req.SetBasicAuth(testKey, "")
	for i := 0; i+1 < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b), err, resp.Close}
}

func (r *running) post(path, body string, header ...string) reply {
	return r.do("POST", path, bytes.NewReader([]byte(body)), header...)
}

func basicAuth(key string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(key+":"))
}

func track(id, user string) string {
	return fmt.Sprintf(`{"type":"track","event":"Item Scanned","userId":%q,"messageId":%q,"properties":{"sku":"4006381333931"}}`, user, id)
}

func batchOf(events ...string) string {
	var b bytes.Buffer
	b.WriteString(`{"batch":[`)
	for i, e := range events {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(e)
	}
	b.WriteString(`]}`)
	return b.String()
}

// stored is what a topic holds.
type stored struct {
	events   []event.RawEvent
	rejected []event.Rejected
	records  []*kgo.Record
}

// ids counts the message ids of the raw events.
func (s stored) ids() map[string]int {
	ids := map[string]int{}
	for _, e := range s.events {
		ids[e.MessageID]++
	}
	return ids
}

// readLog reads raw and rejected to their ends.
func readLog(t testing.TB, brokers []string) stored {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic.Unprefixed.Raw, topic.Unprefixed.Rejected), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic.Unprefixed.Raw, topic.Unprefixed.Rejected)
	if err != nil {
		t.Fatal(err)
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	var s stored
	codec := event.NewCodec()
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			left--
			s.records = append(s.records, rec)
			if rec.Topic == topic.Unprefixed.Raw {
				var e event.RawEvent
				if err := codec.DecodeRaw(rec.Value, &e); err != nil {
					t.Error(err)
				}
				s.events = append(s.events, e)
				return
			}
			var r event.Rejected
			if err := codec.DecodeRejected(rec.Value, &r); err != nil {
				t.Error(err)
			}
			s.rejected = append(s.rejected, r)
		})
	}
	return s
}

// metric reads one value of the registry by name and labels.
func (r *running) metric(name string, labels ...string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metrics:
		for _, m := range f.GetMetric() {
			for i := 0; i+1 < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !found {
					continue metrics
				}
			}
			switch {
			case m.Counter != nil:
				return m.Counter.GetValue()
			case m.Gauge != nil:
				return m.Gauge.GetValue()
			case m.Histogram != nil:
				return float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return 0
}

// idle asserts that nothing is left in flight.
func (r *running) idle() {
	r.t.Helper()
	await(r.t, "nothing is in flight", func() bool {
		return r.bytes.used.Load() == 0 && r.producer.inflight.used.Load() == 0
	})
}

var _ ingest.Authenticator = (*keys.Store)(nil)
