package importer

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/ingest-gateway/gateway"
	"github.com/uptakehq/uptake/ingest-gateway/keys"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
)

const testKey = "import-test-key"

// target is a real gateway over kfake.
type target struct {
	url     string
	brokers []string
}

func newTarget(t *testing.T) *target {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := topic.Unprefixed.Ensure(t.Context(), kadm.NewClient(client), topic.SingleLayout()); err != nil {
		t.Fatal(err)
	}
	cfg := gateway.DefaultConfig()
	cfg.Addr = "127.0.0.1:0"
	cfg.Kafka.Brokers = cluster.ListenAddrs()
	cfg.Keys = filepath.Join(t.TempDir(), "keys.yaml")
	text := fmt.Sprintf("apps:\n  - id: shop\n    keys: [{hash: '%s', history: true}]\n    account_keys: [company]\n    ip: full\n...\n", keys.HashOf(testKey))
	if err := os.WriteFile(cfg.Keys, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(cfg, gateway.Dependencies{Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Health: &ops.Health{}})
	if err != nil {
		t.Fatal(err)
	}
	kill, cut := context.WithCancelCause(context.Background())
	stop, end := context.WithCancel(kill)
	result := make(chan error, 1)
	go func() { result <- g.Run(process.Signals{Stop: stop, Kill: kill}) }() // ends with stop
	t.Cleanup(func() {
		end()
		if err := <-result; err != nil {
			t.Error(err)
		}
		cut(process.ErrCutShort)
	})
	return &target{url: "http://" + g.Addr(), brokers: cfg.Kafka.Brokers}
}

// each hands every event that raw holds to fn, with its key.
func (g *target) each(t *testing.T, fn func(key []byte, e *event.RawEvent)) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(g.brokers...), kgo.ConsumeTopics(topic.Unprefixed.Raw), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic.Unprefixed.Raw)
	if err != nil {
		t.Fatal(err)
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	for codec := event.NewCodec(); left > 0; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			left--
			var e event.RawEvent
			if err := codec.DecodeRaw(r.Value, &e); err != nil {
				t.Error(err)
				return
			}
			fn(r.Key, &e)
		})
	}
}

// stored returns what raw holds, each in a line, sorted.
func (g *target) stored(t *testing.T) []string {
	t.Helper()
	var got []string
	g.each(t, func(_ []byte, e *event.RawEvent) {
		line := fmt.Sprintf("%s %q id=%s user=%s anonymous=%s account=%s at=%s", e.Kind, e.Event, e.MessageID, e.UserID, e.AnonymousID, e.AccountID,
			event.ToTime(e.Timestamp).Format(time.RFC3339Nano))
		for _, part := range [][]byte{e.Properties, e.Traits} {
			line += " " + string(part)
		}
		if e.IP != "" || e.UserAgent != "" { // of the person, not of the machine that imports
			line += " ip=" + e.IP + e.UserAgent
		}
		if e.TimeNotes != 0 {
			line += fmt.Sprintf(" notes=%d", e.TimeNotes)
		}
		got = append(got, line)
	})
	slices.Sort(got)
	return got
}

func config(t *testing.T, from, gatewayURL, text string) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.From, cfg.Gateway, cfg.Key = from, gatewayURL, testKey
	cfg.File = filepath.Join(t.TempDir(), "export.jsonl")
	cfg.RetryMin, cfg.RetryMax = time.Millisecond, 10*time.Millisecond
	if err := os.WriteFile(cfg.File, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func quiet() Dependencies { return Dependencies{Logger: slog.New(slog.DiscardHandler)} }

func TestFormats(t *testing.T) {
	for _, tc := range []struct {
		from, text string
		result     Result
		want       []string
	}{
		{
			from: "segment",
			text: `{"type":"track","event":"Item Scanned","userId":"maria","messageId":"m-1","originalTimestamp":"2026-01-02T03:04:05.678Z","timestamp":"2026-01-02T03:04:06Z","receivedAt":"2026-01-02T03:04:07Z","context":{"groupId":"corner-shop"},"properties":{"sku":"4006"},"writeKey":"theirs"}
{"type":"identify","userId":"maria","traits":{"plan":"pro"},"timestamp":"2026-01-02T03:04:05Z"}

{"type":"track","userId":"maria","messageId":"m-3"}
not JSON
null
`,
			result: Result{Lines: 6, Sent: 3, Rejected: 1, Skipped: 2},
			want: []string{
				`identify "" id=import-1d5ae3018b16d5be03e1e5912de4b6f4 user=maria anonymous= account= at=2026-01-02T03:04:05Z  {"plan":"pro"}`,
				`track "Item Scanned" id=m-1 user=maria anonymous= account=corner-shop at=2026-01-02T03:04:06Z {"sku":"4006"} `,
			},
		},
		{
			from: "posthog",
			text: `{"uuid":"u-1","event":"Item Scanned","properties":"{\"sku\":\"4006\",\"$groups\":{\"company\":\"corner-shop\"}}","distinct_id":"maria","timestamp":"2026-01-02 03:04:05.678000+00:00","team_id":1,"person_properties":{"now":1}}
{"uuid":"u-2","event":"$identify","properties":{"$anon_distinct_id":"anon-1"},"set":"{\"plan\":\"pro\"}","set_once":null,"distinct_id":"maria","timestamp":"2026-01-02T03:04:05Z"}
{"uuid":"u-3","event":"nobody","properties":{}}
`,
			result: Result{Lines: 3, Sent: 3, Rejected: 1},
			want: []string{
				`alias "$identify" id=u-2:alias user=maria anonymous=anon-1 account= at=2026-01-02T03:04:05Z  `,
				`identify "$identify" id=u-2 user=maria anonymous=anon-1 account= at=2026-01-02T03:04:05Z {"$anon_distinct_id":"anon-1"} {"plan":"pro"}`,
				`track "Item Scanned" id=u-1 user=maria anonymous= account=corner-shop at=2026-01-02T03:04:05.678Z {"sku":"4006","$groups":{"company":"corner-shop"}} `,
			},
		},
		{
			from: "mixpanel",
			text: `{"event":"Item Scanned","properties":{"time":1767323045,"distinct_id":"maria","$insert_id":"i-1","company":"corner-shop"}}
{"event":"Old","properties":{"time":"never","distinct_id":"maria","$insert_id":"i-2"}}
{"event":"No id","properties":{"time":1767323045,"distinct_id":"maria"}}
`,
			result: Result{Lines: 3, Sent: 3, Rejected: 1},
			want: []string{
				`track "Item Scanned" id=i-1 user=maria anonymous= account=corner-shop at=2026-01-02T03:04:05Z {"$insert_id":"i-1","company":"corner-shop","distinct_id":"maria","time":1767323045} `,
				`track "No id" id=import-7c3b5b50e5d501453c6186b04d5dd9b2 user=maria anonymous= account= at=2026-01-02T03:04:05Z {"$insert_id":"import-7c3b5b50e5d501453c6186b04d5dd9b2","distinct_id":"maria","time":1767323045} `,
			},
		},
		{
			from: "amplitude",
			text: `{"$insert_id":"i-1","event_type":"Item Scanned","event_time":"2026-01-02 03:04:05.678000","user_id":"maria","device_id":null,"event_properties":{"sku":"4006"},"user_properties":{"plan":"pro"},"groups":{"company":["corner-shop"]},"ip_address":"198.51.100.7","uuid":"x"}
{"$insert_id":"i-2","event_type":"Paid","event_time":"2026-01-02 03:04:06","user_id":"maria","user_properties":{"plan":"pro"}}
{"uuid":"x-3","event_type":"Paid","event_time":"2026-01-02 03:04:07","user_id":"maria","user_properties":{"plan":"max"}}
{"uuid":"x-4","event_type":"Paid","event_time":"soon","user_id":"maria"}
`,
			result: Result{Lines: 4, Sent: 3, Skipped: 1},
			want: []string{
				`identify "$identify" id=i-1:set user=maria anonymous= account=corner-shop at=2026-01-02T03:04:05.678Z  {"plan":"pro"} ip=198.51.100.7`,
				`identify "$identify" id=x-3:set user=maria anonymous= account= at=2026-01-02T03:04:07Z  {"plan":"max"}`,
				`track "Item Scanned" id=i-1 user=maria anonymous= account=corner-shop at=2026-01-02T03:04:05.678Z {"sku":"4006"}  ip=198.51.100.7`,
				`track "Paid" id=i-2 user=maria anonymous= account= at=2026-01-02T03:04:06Z  `,
				`track "Paid" id=x-3 user=maria anonymous= account= at=2026-01-02T03:04:07Z  `,
			},
		},
	} {
		t.Run(tc.from, func(t *testing.T) {
			g := newTarget(t)
			cfg := config(t, tc.from, g.url, tc.text)
			result, err := Run(t.Context(), cfg, quiet())
			if !unread(&result, err) || result != tc.result {
				t.Errorf("got %+v, %v, want %+v", result, err, tc.result)
			}
			if got := g.stored(t); !slices.Equal(got, tc.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
			// Once more, from the state: nothing is left to do.
			if again, err := Run(t.Context(), cfg, quiet()); !unread(&again, err) || again != tc.result || len(g.stored(t)) != len(tc.want) {
				t.Errorf("again: got %+v, %v", again, err)
			}
			// And without it: the same under the same ids.
			if err := os.Remove(cfg.File + ".import-state.json"); err != nil {
				t.Fatal(err)
			}
			if again, err := Run(t.Context(), cfg, quiet()); !unread(&again, err) || again != tc.result {
				t.Errorf("anew: got %+v, %v", again, err)
			}
			if got := slices.Compact(g.stored(t)); !slices.Equal(got, tc.want) {
				t.Errorf("anew: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

func scans(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"type":"track","event":"Scan","userId":"u%d","messageId":"m-%04d","timestamp":"2026-01-02T03:04:05Z"}`+"\n", i%7, i)
	}
	return b.String()
}

// ids returns the message ids of what is stored.
func ids(lines []string) []string {
	var list []string
	for _, l := range lines {
		_, rest, _ := strings.Cut(l, " id=")
		id, _, _ := strings.Cut(rest, " ")
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}

// TestResume interrupts an import over and over, breaks its requests in every
// way, and finds each event once under its id and none missing.
func TestResume(t *testing.T) {
	const n = 500
	g := newTarget(t)
	u, err := url.Parse(g.url)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(u)
	forward.ErrorLog = log.New(io.Discard, "", 0) // of what the test breaks
	var count atomic.Int64
	var interrupt atomic.Pointer[context.CancelFunc]
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch count.Add(1) % 8 {
		case 1:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		case 3:
			panic(http.ErrAbortHandler) // the connection breaks before
		case 5:
			forward.ServeHTTP(httptest.NewRecorder(), r) // and after it was stored
			panic(http.ErrAbortHandler)
		case 7:
			(*interrupt.Load())()
			forward.ServeHTTP(w, r)
		default:
			forward.ServeHTTP(w, r)
		}
	}))
	defer proxy.Close()
	cfg := config(t, "segment", proxy.URL, scans(n))
	cfg.BatchEvents = 20
	runs := 0
	for {
		ctx, cancel := context.WithCancel(t.Context())
		interrupt.Store(&cancel)
		result, err := Run(ctx, cfg, quiet())
		cancel()
		runs++
		if err == nil {
			if result.Sent != n || result.Lines != n {
				t.Errorf("got %+v, want all of %d", result, n)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if runs > n {
			t.Fatal("it makes no way")
		}
	}
	if runs < 3 {
		t.Errorf("it was interrupted %d times, which tests nothing", runs-1)
	}
	got := ids(g.stored(t))
	if len(got) == n {
		t.Error("nothing was sent twice, which tests nothing")
	}
	if got = slices.Compact(got); len(got) != n || got[0] != "m-0000" || got[n-1] != fmt.Sprintf("m-%04d", n-1) {
		t.Errorf("got %d ids, want %d", len(got), n)
	}
}

// unread reports whether the error is that of an import of which something was skipped
// or rejected, with the reasons of the first of each, if the result says that it was,
// and takes the reasons out of it.
func unread(r *Result, err error) bool {
	skipped, rejected := r.FirstSkipped, r.FirstRejected
	r.FirstSkipped, r.FirstRejected = "", ""
	said := skipped != "" || rejected != ""
	return (skipped != "") == (r.Skipped > 0) && (rejected != "") == (r.Rejected > 0) && errors.Is(err, ErrUnread) == said &&
		(said || err == nil) && (!said || strings.Contains(err.Error(), skipped) && strings.Contains(err.Error(), rejected))
}

func TestFiles(t *testing.T) {
	g := newTarget(t)
	cfg := config(t, "segment", g.url, "")
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := w.Write([]byte(scans(30) + strings.Repeat("x", 5000) + "\n" + strings.TrimSpace(scans(1))))
	if err := errors.Join(err, w.Close(), os.WriteFile(cfg.File, packed.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	cfg.MaxLineBytes, cfg.BatchBytes = 2048, 1024
	result, err := Run(t.Context(), cfg, quiet())
	if want := (Result{Lines: 32, Sent: 31, Skipped: 1}); !unread(&result, err) || result != want {
		t.Errorf("a packed file with a long line: got %+v, %v, want %+v", result, err, want)
	}
	// The state of one import is not that of another.
	cfg.From = "posthog"
	if _, err := Run(t.Context(), cfg, quiet()); err == nil || !strings.Contains(err.Error(), "another import") {
		t.Errorf("another source: got %v", err)
	}
	// Another file under the name of one that was imported is imported.
	cfg.From = "segment"
	if err := os.WriteFile(cfg.File, []byte(scans(2)), 0o600); err != nil {
		t.Fatal(err)
	}
	if result, err := Run(t.Context(), cfg, quiet()); err != nil || result != (Result{Lines: 2, Sent: 2}) {
		t.Errorf("a new file under an old name: got %+v, %v", result, err)
	}
	// One that grew is gone on with; one that changed before its end was reached is not.
	if err := os.WriteFile(cfg.File, []byte(scans(3)), 0o600); err != nil {
		t.Fatal(err)
	}
	if result, err := Run(t.Context(), cfg, quiet()); err != nil || result != (Result{Lines: 3, Sent: 3}) {
		t.Errorf("a file that grew: got %+v, %v", result, err)
	}
	state, err := os.ReadFile(cfg.File + ".import-state.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(cfg.File+".import-state.json", bytes.Replace(state, []byte(`"done": true`), []byte(`"done": false`), 1), 0o600),
		os.WriteFile(cfg.File, []byte("{}\n"+scans(3)), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), cfg, quiet()); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Errorf("a file that changed: got %v", err)
	}
	// The forms of exports.
	one := strings.TrimSpace(scans(1))
	for text, want := range map[string]string{
		"\ufeff" + one + "\r\n" + one: "", "[" + one + "," + one + "]": "", "\ufeff [\n" + one + ",\n  " + strings.ReplaceAll(one, ",", ",\n") + "\n]\n": "",
		"[" + one + "," + one: "EOF", "[" + one + "] x": "follows", "<!DOCTYPE html>": "login page", "PK\x03\x04": "zip", "event,user\na,b\n": "CSV",
		utf16le(one + "\n" + one): "", strings.TrimPrefix(utf16le(one+"\n"+one), "\xff\xfe"): "", "PAR1\x15": "Parquet", "Unable to authenticate": "error message",
		gzipped(t, gzipped(t, one)): "gzip twice", zipped(t, map[string]string{"x.json": "Obj\x01\x04"}): "x.json: is Avro", zipped(t, map[string]string{"p/2.json": one, "p/1.json.gz": gzipped(t, one+"\n"), "__MACOSX/p/1.json": "x", "p/.x": "x"}): "",
	} {
		cfg = config(t, "segment", g.url, text)
		result, err := Run(t.Context(), cfg, quiet())
		if want == "" && (err != nil || result != (Result{Lines: 2, Sent: 2})) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %+v, %v, want %q", text, result, err, want)
		}
	}
	// A refused key ends at once.
	cfg = config(t, "segment", g.url, scans(1))
	cfg.Key = "other"
	if _, err := Run(t.Context(), cfg, quiet()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("a refused key: got %v", err)
	}
	for _, from := range Sources() {
		cfg.From, cfg.Map = from, nil
		if from == "csv" {
			cfg.Map = map[string]string{"event": "a", "userId": "u"}
		}
		cfg.State = filepath.Join(t.TempDir(), "state")
		line := map[string]string{"segment": `{"type":"track"}`, "posthog": `{"event":"a"}`, "mixpanel": `{"event":"a","properties":{}}`, "amplitude": `{"event_type":"a"}`, "csv": "a,u\ne,1\n"}[from]
		if err := os.WriteFile(cfg.File, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Run(t.Context(), cfg, quiet()); err == nil {
			t.Errorf("%s: a refused key gives no error", from)
		}
	}
}

// TestTooLarge sends halves of what the gateway finds too large, down to the one
// event.
func TestTooLarge(t *testing.T) {
	g := newTarget(t)
	u, err := url.Parse(g.url)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(u)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > 150 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	cfg := config(t, "segment", proxy.URL, scans(9)+`{"type":"track","event":"a","userId":"u","properties":{"q":"`+noise(400)+`"}}`)
	result, err := Run(t.Context(), cfg, quiet())
	if want := (Result{Lines: 10, Sent: 9, Skipped: 1}); !unread(&result, err) || result != want {
		t.Errorf("got %+v, %v, want %+v", result, err, want)
	}
	if got := len(g.stored(t)); got != 9 {
		t.Errorf("%d events are stored, want 9", got)
	}
}

// noise is text that does not pack.
func noise(n int) string {
	var b strings.Builder
	x := uint32(1)
	for range n {
		x = x*1664525 + 1013904223
		b.WriteByte('a' + byte(x>>24)%26)
	}
	return b.String()
}

func TestValidate(t *testing.T) {
	var cfg Config
	err := cfg.Validate()
	for _, word := range []string{"from", "file", "gateway", "key", "batch-events", "batch-bytes", "max-line-bytes", "max-age", "progress", "retry-min", "retry-max", "timeout"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("got %v, which does not name %s", err, word)
		}
	}
	cfg = DefaultConfig()
	cfg.From, cfg.File, cfg.Key = "segment", "f", "k"
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

// FuzzFormats: no line makes an import fail or send what is no JSON object.
func FuzzFormats(f *testing.F) {
	f.Add(`{"type":"track","event":"e","properties":"{}"}`)
	f.Add(`{"event":"e","properties":{"time":1}}`)
	f.Add(`{"event_type":"e","event_time":"2026-01-02 03:04:05.678000","user_properties":"{\"a\":1}"}`)
	f.Fuzz(func(t *testing.T, line string) {
		for _, from := range Sources() {
			ev, err := formats[from](newPersons()).event(1, []byte(line), &row{zone: time.UTC})
			var object map[string]json.RawMessage
			if err == nil && (json.Unmarshal(ev, &object) != nil || object == nil) {
				t.Errorf("%s: %q gives %q", from, line, ev)
			}
		}
	})
}

// TestProgress: a long import says how far it is, and from where it goes on.
func TestProgress(t *testing.T) {
	g := newTarget(t)
	cfg := config(t, "segment", g.url, scans(40))
	cfg.BatchEvents = 10
	var text bytes.Buffer
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	deps := Dependencies{Logger: slog.New(slog.NewTextHandler(&text, nil)), Now: func() time.Time { now = now.Add(time.Second); return now }}
	if _, err := Run(t.Context(), cfg, deps); err != nil {
		t.Fatal(err)
	}
	// A line every five of its seconds, one a line of the file.
	if n := strings.Count(text.String(), "msg=importing"); n != 8 {
		t.Errorf("%d lines of progress, want 8:\n%s", n, text.String())
	}
	for _, want := range []string{"lines=10 sent=10 rejected=0 skipped=0 lines_per_second=", "percent=100", "msg=done lines=40 sent=40"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, text.String())
		}
	}
	text.Reset()
	if _, err := Run(t.Context(), cfg, deps); err != nil || !strings.Contains(text.String(), "going on where an earlier run ended") {
		t.Errorf("a second run: %v, says\n%s", err, text.String())
	}
}
