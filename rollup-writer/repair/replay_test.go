package repair_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/replay"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// replay runs the command with settings, and returns its report and its lines.
func (b *bench) replay(set ...func(*replay.Config)) (*replay.Report, string) {
	b.T.Helper()
	what := replay.DefaultConfig()
	what.Where = "1"
	for _, s := range set {
		s(&what)
	}
	if err := what.Validate(); err != nil {
		b.T.Fatal(err)
	}
	var out bytes.Buffer
	report, err := repair.ReplayRejected(context.Background(), b.cfg.Config, what, b.Log, &out)
	if err != nil {
		b.T.Fatal(err)
	}
	return report, out.String()
}

func where(s string) func(*replay.Config) { return func(c *replay.Config) { c.Where = s } }

func patch(t *testing.T, changes ...string) func(*replay.Config) {
	return func(c *replay.Config) {
		for _, s := range changes {
			if err := c.Patch.Set(s); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// raws are the records of raw, in no order.
func (b *bench) raws() []event.RawEvent {
	b.T.Helper()
	ends, err := b.Admin.ListEndOffsets(context.Background(), topic.Raw)
	if err != nil {
		b.T.Fatal(err)
	}
	var all []event.RawEvent
	for p := range int32(partitions) {
		end, _ := ends.Lookup(topic.Raw, p)
		if end.Offset == 0 {
			continue
		}
		cl, err := kgo.NewClient(kgo.SeedBrokers(b.Kafka.ListenAddrs()...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic.Raw: {p: kgo.NewOffset().At(0)}}))
		if err != nil {
			b.T.Fatal(err)
		}
		for n := int64(0); n < end.Offset; {
			cl.PollFetches(context.Background()).EachRecord(func(r *kgo.Record) {
				n++
				var e event.RawEvent
				if err := b.Codec.DecodeRaw(r.Value, &e); err != nil {
					b.T.Error(err)
				}
				if want := topic.Partition(topic.RawKey(nil, e.AppID, e.UserID, e.AnonymousID, e.AccountID), partitions); r.Partition != want {
					b.T.Errorf("message %s is in partition %d, want %d", e.MessageID, r.Partition, want)
				}
				all = append(all, e)
			})
		}
		cl.Close()
	}
	return all
}

// reject puts records of rejected into the log.
func (b *bench) reject(list ...event.Rejected) {
	b.T.Helper()
	for i := range list {
		b.Produce(topic.Rejected, 0, b.Codec.AppendRejected(nil, &list[i]))
	}
}

// What an enricher rejected goes into raw once, mended, under its message id.
func TestReplayRejectedIntoRaw(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	received := event.FromTime(time.Date(2026, 11, 20, 8, 0, 0, 123000, time.UTC))
	var list []event.Rejected
	add := func(code, id string, change func(*event.RawEvent)) {
		e := event.RawEvent{
			AppID: "dev", Kind: "dance", Event: "Danced", MessageID: id, UserID: "u-" + id, ReceivedAt: received, Quantity: 1,
			Properties: []byte(`{"big":"xxxx","n": 1.50}`), Protocol: "segment",
		}
		change(&e)
		list = append(list, event.Rejected{
			AppID: "dev", Stage: event.StageEnricher, Code: code, MessageID: e.MessageID, ReceivedAt: received, RejectedAt: received,
			SourceOffset: int64(len(list)), Original: b.Codec.AppendRaw(nil, &e),
		})
	}
	for i := range 300 { // more than a page
		add("unknown_kind", fmt.Sprint("m-", i), func(*event.RawEvent) {})
	}
	add("unknown_kind", "m-7", func(*event.RawEvent) {}) // the client sent it twice
	add("bad_timestamp", "m-late", func(e *event.RawEvent) { e.Kind, e.ReceivedAt = "track", 0 })
	add("missing_field", "", func(e *event.RawEvent) { e.Kind = "track" })
	list = append(list,
		event.Rejected{AppID: "dev", Stage: event.StageEnricher, Code: "undecodable", ReceivedAt: received, Original: []byte("x")},
		event.Rejected{Stage: event.StageEnricher, Code: "undecodable", Field: "links", ReceivedAt: received, Original: []byte("x")},
	)
	b.reject(list...)
	stored := &event.EnrichedEvent{AppID: "dev", Kind: "track", MessageID: "m-9", ActorID: "u-9", ReceivedAt: received, EventTime: received}
	b.Send([]*event.EnrichedEvent{stored})
	b.AwaitSettled()

	kind := patch(t, `kind=track`, `properties.big=null`)
	unknown := where("code = 'unknown_kind' -- of one kind")
	report, lines := b.replay(unknown, kind, func(c *replay.Config) { c.DryRun = true })
	if report.Sent["raw"] != 299 || strings.Count(lines, "\n") != 299 || len(b.raws()) != 0 {
		t.Fatalf("dry run: %+v, %d lines, %d in raw", report, strings.Count(lines, "\n"), len(b.raws()))
	}
	var line struct {
		To        string
		MessageID string `json:"message_id"`
		Event     struct{ Kind string }
	}
	if err := json.Unmarshal([]byte(lines[:strings.IndexByte(lines, '\n')]), &line); err != nil || line.To != "raw" || line.MessageID != "m-0" || line.Event.Kind != "track" {
		t.Errorf("dry run: %v in %s", err, lines[:200])
	}
	report, _ = b.replay(unknown, kind, func(c *replay.Config) { c.Limit = 250 })
	if want := map[string]int{"events has its message id": 1}; report.Sent["raw"] != 249 || !report.More || !maps.Equal(report.Skipped, want) {
		t.Errorf("the first 250: %+v", report)
	}
	// The rest, and what the client sent twice: for enrichers it is a duplicate.
	// Then nothing.
	for _, want := range []int{51, 0} {
		report, _ = b.replay(unknown, kind)
		if report.Selected != 301 || report.Sent["raw"] != want || report.Skipped["sent before"] != 300-want {
			t.Errorf("again: %+v", report)
		}
	}
	report, _ = b.replay(where("code != 'unknown_kind'"))
	if want := map[string]int{"its bytes are no raw record, or were cut": 1}; report.Sent["raw"] != 2 || !maps.Equal(report.Skipped, want) {
		t.Errorf("the others: %+v", report)
	}

	got := map[string]event.RawEvent{}
	for _, e := range b.raws() {
		if _, ok := got[e.MessageID]; ok && e.MessageID != "m-7" {
			t.Errorf("message %s is in raw twice", e.MessageID)
		}
		got[e.MessageID] = e
	}
	if e := got["m-8"]; e.Kind != "track" || string(e.Properties) != `{"n":1.50}` || e.ReceivedAt != received || e.UserID != "u-m-8" {
		t.Errorf("mended: %+v", e)
	}
	if e := got["m-late"]; e.ReceivedAt != received {
		t.Errorf("received at %d, want %d", e.ReceivedAt, received)
	}
	named := 0
	for id := range got {
		if strings.HasPrefix(id, "rejected-") {
			named++
		}
	}
	if _, ok := got["m-9"]; ok || named != 1 || len(got) != 301 {
		t.Errorf("%d messages in raw, %d of them named by us, m-9 among them: %t", len(got), named, ok)
	}
	if n := b.Number("SELECT count() FROM replayed_events FINAL"); n != int64(len(b.raws())) {
		t.Errorf("%d are marked of %d that were sent", n, len(b.raws()))
	}
	w.End()
}

// What a gateway rejected goes to a gateway, by its protocol, under the id that
// it has or that the gateway had given it.
func TestReplayRejectedToGateway(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	received := event.FromTime(time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC))
	for _, r := range [][3]string{
		{"segment", "given-1", `{"type":"track","event":"A","userId":"u","timestamp":"soon"}`},
		{"segment", "own-2", `{"type":"track","event":"B","userId":"u","messageId":"own-2","timestamp":"2026-11-20T07:00:00Z"}`},
		{"segment", "own-3", `{"type":"track","event":"still bad","userId":"u","messageId":"own-3"}`},
		{"posthog", "given-4", `{"event":"C","distinct_id":"u"}`},
		{"amplitude", "given-5", `{"event_type":"D","user_id":"u"}`},
		{"mixpanel", "given-6", `{"event":"E","properties":{"distinct_id":"u"}}`},
		{"csb", "given-7", `{"account_id":"a","user_id":"u","type":"track"}`},
		{"segment", "given-8", `{"type":"track","ev`},
		{"otlp", "given-9", `{"eventName":"F"}`},
		{"csb", "given-10", `{"account_id":"a","feature_id":"still bad","total":1.5,"timestamp":"soon"}`},
		{"csb", "given-11", `{"account_id":"a","user_id":"u","event":"User Login","type":"track"}`},
		{"csb", "given-12", `{"account_id":"a","invoice_id":"i","subscription_id":"s"}`},
		{"csb", "given-13", `{"account_id":"a","subscription_id":"s"}`},
		{"csb", "given-14", `{"account_id":"a","user_id":"u","plan":"pro"}`},
		{"csb", "given-15", `{"account_id":"a","plan":"pro"}`},
		{"moesif", "given-16", `{"action_name":"G","user_id":"u","request":{"uri":"/x"}}`},
		{"moesif", "given-17", `{"request":{"verb":"GET","uri":"/x","time":"2026-11-20T07:00:00Z"},"transaction_id":"own-17"}`},
		{"moesif", "given-18", `{"request":{"uri":"/x"}}`},
		{"moesif", "given-19", `{"user_id":"u","company_id":"c","metadata":{}}`},
		{"moesif", "given-20", `{"company_id":"c"}`},
		{"moesif", "given-21", `{"company_id":"c","subscription_id":"s"}`},
		{"cloudevents", "shop own-22", `{"id":"own-22","source":"shop","type":"H","subject":"a"}`},
		{"cloudevents", "given-23", `{"source":"shop","type":"H","subject":"a","time":"2026-11-20T07:00:00Z"}`},
		{"gainsightpx", "own-24", `{"eventName":"I","eventId":"own-24","identifyId":"u"}`},
		{"gainsightpx", "given-25", `{"identifyId":"u","accountId":"a"}`},
		{"gainsightpx", "given-26", `{"accountId":"a","email":"m"}`},
	} {
		b.reject(event.Rejected{
			AppID: "dev", Stage: event.StageGateway, Code: "bad_event", MessageID: r[1], Protocol: r[0], ReceivedAt: received,
			SourcePartition: -1, SourceOffset: -1, Original: []byte(r[2]),
		})
	}
	b.reject(event.Rejected{
		AppID: "dev", Stage: event.StageGateway, Code: "bad_event", Field: "id", Detail: "unknown: not created here: corner-shop", MessageID: "given-27",
		Protocol: "gainsightpx", ReceivedAt: received, SourcePartition: -1, SourceOffset: -1, Original: []byte(`{"name":"Corner Shop"}`),
	})
	b.AwaitSettled()
	var mu sync.Mutex // covers got and busy
	got := map[string]string{}
	busy := 1
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		if busy > 0 {
			busy--
			rw.Header().Set("Retry-After", "1")
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		key, _, _ := req.BasicAuth()
		for _, name := range []string{"X-Moesif-Application-Id", "X-APTRINSIC-API-KEY", "Idempotency-Key"} {
			if v := req.Header.Get(name); v != "" {
				key = strings.TrimSpace(key + " " + v)
			}
		}
		if req.Method == http.MethodPut {
			key += " PUT"
		}
		got[string(body)] = req.URL.Path + " " + key
		switch {
		case strings.HasPrefix(req.URL.Path, "/gainsightpx/v1/users") && req.Method == http.MethodPost:
			rw.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(rw, `{"message":"exists already"}`)
			return
		case strings.HasPrefix(req.URL.Path, "/gainsightpx/v1/accounts"):
			rw.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(rw, `{"message":"too_long: 300 bytes"}`)
			return
		case strings.Contains(string(body), "still bad") && req.URL.Path != "/v1/batch":
			_, _ = io.WriteString(rw, `{"success":true,"warning":"bad_quantity: must be a whole number"}`)
			return
		}
		if strings.Contains(string(body), "still bad") {
			_, _ = io.WriteString(rw, `{"success":false,"accepted":0,"rejected":[{"index":0,"message_id":"own-3","code":"too_long","field":"event","detail":""}]}`)
			return
		}
		_, _ = io.WriteString(rw, `{"success":true}`)
	}))
	defer server.Close()
	to := func(c *replay.Config) { c.Gateway, c.WriteKey = server.URL, "key-1" }
	change := patch(t, `{"timestamp":null}`)
	report, _ := b.replay(change)
	if report.Skipped["it was rejected by a gateway: see -gateway"] != 26 {
		t.Errorf("without a gateway: %+v", report)
	}
	report, _ = b.replay(change, to)
	want := map[string]string{
		`{"batch":[{"event":"A","messageId":"given-1","timestamp":"2026-11-20T08:00:00Z","type":"track","userId":"u"}]}`:       "/v1/batch key-1",
		`{"batch":[{"event":"B","messageId":"own-2","timestamp":"2026-11-20T08:00:00Z","type":"track","userId":"u"}]}`:         "/v1/batch key-1",
		`{"batch":[{"event":"still bad","messageId":"own-3","timestamp":"2026-11-20T08:00:00Z","type":"track","userId":"u"}]}`: "/v1/batch key-1",
		`{"api_key":"key-1","batch":[{"distinct_id":"u","event":"C","timestamp":"2026-11-20T08:00:00Z","uuid":"given-4"}]}`:    "/batch ",
		`{"api_key":"key-1","events":[{"event_type":"D","insert_id":"given-5","time":1795161600000,"user_id":"u"}]}`:           "/2/httpapi ",
		`[{"event":"E","properties":{"$insert_id":"given-6","distinct_id":"u","time":1795161600000}}]`:                         "/import key-1",
		`{"account_id":"a","feature_id":"still bad","timestamp":"2026-11-20T08:00:00Z","total":1.5}`:                           "/csb/api/v1_1/feature key-1 given-10",
		`{"account_id":"a","event":"User Login","timestamp":"2026-11-20T08:00:00Z","type":"track","user_id":"u"}`:              "/csb/api/v1_1/login key-1 given-11",
		`{"account_id":"a","invoice_id":"i","subscription_id":"s","timestamp":"2026-11-20T08:00:00Z"}`:                         "/csb/api/v1_1/invoice key-1 given-12",
		`{"account_id":"a","subscription_id":"s","timestamp":"2026-11-20T08:00:00Z"}`:                                          "/csb/api/v1_1/subscription key-1 given-13",
		`{"account_id":"a","plan":"pro","timestamp":"2026-11-20T08:00:00Z","user_id":"u"}`:                                     "/csb/api/v1_1/user key-1 given-14",
		`{"account_id":"a","plan":"pro","timestamp":"2026-11-20T08:00:00Z"}`:                                                   "/csb/api/v1_1/account key-1 given-15",
		`{"action_name":"G","request":{"time":"2026-11-20T08:00:00Z","uri":"/x"},"transaction_id":"given-16","user_id":"u"}`:   "/moesif/v1/actions key-1",
		`{"request":{"time":"2026-11-20T07:00:00Z","uri":"/x","verb":"GET"},"transaction_id":"own-17"}`:                        "/moesif/v1/events key-1",
		`{"company_id":"c","metadata":{},"modified_time":"2026-11-20T08:00:00Z","transaction_id":"given-19","user_id":"u"}`:    "/moesif/v1/users key-1",
		`{"company_id":"c","modified_time":"2026-11-20T08:00:00Z","transaction_id":"given-20"}`:                                "/moesif/v1/companies key-1",
		`{"company_id":"c","modified_time":"2026-11-20T08:00:00Z","subscription_id":"s","transaction_id":"given-21"}`:          "/moesif/v1/subscriptions key-1",
		`{"id":"own-22","source":"shop","subject":"a","time":"2026-11-20T08:00:00Z","type":"H"}`:                               "/cloudevents key-1",
		`{"id":"given-23","source":"shop","subject":"a","time":"2026-11-20T07:00:00Z","type":"H"}`:                             "/cloudevents key-1",
		`{"date":1795161600000,"eventId":"own-24","eventName":"I","identifyId":"u"}`:                                           "/gainsightpx/v1/events/custom key-1",
		`{"accountId":"a","identifyId":"u","lastModifiedDate":1795161600000}`:                                                  "/gainsightpx/v1/users/update key-1 given-25 PUT",
		`{"id":"corner-shop","lastModifiedDate":1795161600000,"name":"Corner Shop"}`:                                           "/gainsightpx/v1/accounts key-1 given-27",
	}
	mu.Lock()
	if !maps.Equal(got, want) {
		t.Errorf("the gateway got %v,\nwant %v", got, want)
	}
	clear(got)
	mu.Unlock()
	skipped := map[string]int{
		"rejected again by the gateway: too_long event":                                                                                     1,
		"rejected again by the gateway: too_long":                                                                                           1,
		"rejected again by the gateway: bad_quantity":                                                                                       1,
		"its bytes are no JSON object, or were cut":                                                                                         1,
		"nothing in it tells a login from a logout: patch its event":                                                                        1,
		"nothing in it tells an action from an API call: patch its action_name, or its request.verb":                                        1,
		"nothing in it tells what of gainsightpx it is: patch its eventName, its identifyId, or, of an account, its id":                     1,
		"a log record of otlp is kept without the resource and scope around it, which may say whose it is: have its exporter send it again": 1,
	}
	if report.Sent["gateway"] != 19 || !maps.Equal(report.Skipped, skipped) {
		t.Errorf("sent: %+v", report)
	}
	if report, _ = b.replay(change, to); report.Sent["gateway"] != 0 || report.Skipped["sent before"] != 19 {
		t.Errorf("again: %+v", report)
	}
	w.End()
}
