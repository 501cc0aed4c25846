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
	ends, err := b.Admin.ListEndOffsets(context.Background(), topic.Unprefixed.Raw)
	if err != nil {
		b.T.Fatal(err)
	}
	var all []event.RawEvent
	for p := range int32(partitions) {
		end, _ := ends.Lookup(topic.Unprefixed.Raw, p)
		if end.Offset == 0 {
			continue
		}
		cl, err := kgo.NewClient(kgo.SeedBrokers(b.Kafka.ListenAddrs()...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic.Unprefixed.Raw: {p: kgo.NewOffset().At(0)}}))
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
		b.Produce(topic.Unprefixed.Rejected, 0, b.Codec.AppendRejected(nil, &list[i]))
	}
}

// What an enricher rejected goes into raw once, repaired, under its message id.
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
		t.Errorf("repaired: %+v", e)
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
	for _, r := range [][5]string{
		{"segment", "given-1", "POST /v1/track", `{"type":"track","event":"A","userId":"u","timestamp":"soon"}`},
		{"segment", "own-2", "POST /v1/b", `{"type":"track","event":"B","userId":"u","messageId":"own-2","timestamp":"2026-11-20T07:00:00Z"}`},
		{"segment", "own-3", "POST /v1/batch", `{"type":"track","event":"still bad","userId":"u","messageId":"own-3"}`},
		{"posthog", "given-4", "GET /e", `{"event":"C","distinct_id":"u"}`},
		{"amplitude", "given-5", "POST /2/httpapi", `{"event_type":"D","user_id":"u"}`},
		{"mixpanel", "given-6", "POST /track", `{"event":"E","properties":{"distinct_id":"u"}}`},
		{"csb", "given-7", "POST /api/v1_1/logout", `{"account_id":"a","user_id":"u","type":"track"}`},
		{"segment", "given-8", "POST /v1/track", `{"type":"track","ev`},
		{"otlp", "given-9", "POST /v1/logs", `{"eventName":"F"}`, `{"resource":{"attributes":[{"key":"user.id","value":{"stringValue":"u"}}]},"scope":{"name":"s"}}`},
		{"otlp", "given-28", "POST /v1/logs", `{"eventName":"F","timeUnixNano":"1795161600000000000","attributes":[{"key":"log.record.uid","value":{"stringValue":"own-28"}}]}`, `{}`},
		{"otlp", "given-29", "POST /v1/logs", `{"eventName":"F"}`},
		{"csb", "given-10", "POST /api/v1_1/feature", `{"account_id":"a","feature_id":"still bad","total":1.5,"timestamp":"soon"}`},
		{"csb", "given-11", "POST /api/v1_1/login", `{"account_id":"a","user_id":"u","event":"User Login","type":"track"}`},
		{"csb", "given-12", "POST /api/v1_1/invoice", `{"account_id":"a","invoice_id":"i","subscription_id":"s"}`},
		{"csb", "given-13", "POST /api/v1_1/subscription", `{"account_id":"a","subscription_id":"s"}`},
		{"csb", "given-14", "POST /api/v1_1/user", `{"account_id":"a","user_id":"u","plan":"pro"}`},
		{"csb", "given-15", "POST /api/v1_1/account", `{"account_id":"a","plan":"pro"}`},
		{"moesif", "given-16", "POST /v1/actions", `{"action_name":"G","user_id":"u","request":{"uri":"/x"}}`},
		{"moesif", "given-17", "POST /v1/events/batch", `{"request":{"verb":"GET","uri":"/x","time":"2026-11-20T07:00:00Z"},"transaction_id":"own-17"}`},
		{"moesif", "given-18", "POST /v1/events", `{"request":{"uri":"/x"}}`},
		{"moesif", "given-19", "POST /v1/users", `{"user_id":"u","company_id":"c","metadata":{}}`},
		{"moesif", "given-20", "POST /v1/companies/batch", `{"company_id":"c"}`},
		{"moesif", "given-21", "POST /v1/subscriptions", `{"company_id":"c","subscription_id":"s"}`},
		{"cloudevents", "shop own-22", "POST /", `{"id":"own-22","source":"shop","type":"H","subject":"a"}`},
		{"cloudevents", "given-23", "POST /api/v1/events", `{"source":"shop","type":"H","subject":"a","time":"2026-11-20T07:00:00Z"}`},
		{"gainsightpx", "own-24", "POST /v1/events/custom", `{"eventName":"I","eventId":"own-24","identifyId":"u"}`},
		{"gainsightpx", "given-25", "POST /v1/users", `{"identifyId":"u","accountId":"a"}`},
		{"gainsightpx", "given-26", "PUT /v1/users/{id}", `{"accountId":"a","email":"m"}`, `{"id":"o'neil"}`},
		{"mixpanel", "given-30", "POST /engage", `{"$distinct_id":"u","$set":{"plan":"pro"}}`},
		{"amplitude", "given-31", "POST /identify", `{"user_id":"u"}`},
		{"segment", "given-32", "GET /v1/projects/{key}/settings", `{}`},
		{"segment", "given-33", "", `{"type":"track","event":"of version 1","userId":"u"}`},
		{"csb", "given-34", "", `{"account_id":"a","feature_id":"of version 1"}`},
	} {
		b.reject(event.Rejected{
			AppID: "dev", Stage: event.StageGateway, Code: "bad_event", MessageID: r[1], Protocol: r[0], ReceivedAt: received,
			SourcePartition: -1, SourceOffset: -1, Route: r[2], Original: []byte(r[3]), Envelope: []byte(r[4]),
		})
	}
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
	if report.Skipped["it was rejected by a gateway: see -gateway"] != 31 {
		t.Errorf("without a gateway: %+v", report)
	}
	report, _ = b.replay(change, to)
	want := map[string]string{
		`[{"$distinct_id":"u","$set":{"plan":"pro"},"$time":1795161600000}]`:                                                         "/mixpanel/engage key-1 given-30",
		`[{"event":"E","properties":{"$insert_id":"given-6","distinct_id":"u","time":1795161600000}}]`:                               "/import key-1",
		`api_key=key-1&identification=%7B%22insert_id%22%3A%22given-31%22%2C%22time%22%3A1795161600000%2C%22user_id%22%3A%22u%22%7D`: "/amplitude/identify ",
		`{"accountId":"a","email":"m","identifyId":"o'neil","lastModifiedDate":1795161600000}`:                                       "/gainsightpx/v1/users/update key-1 given-26 PUT",
		`{"accountId":"a","identifyId":"u","lastModifiedDate":1795161600000}`:                                                        "/gainsightpx/v1/users/update key-1 given-25 PUT",
		`{"account_id":"a","event":"User Login","timestamp":"2026-11-20T08:00:00Z","type":"track","user_id":"u"}`:                    "/csb/api/v1_1/login key-1 given-11",
		`{"account_id":"a","feature_id":"still bad","timestamp":"2026-11-20T08:00:00Z","total":1.5}`:                                 "/csb/api/v1_1/feature key-1 given-10",
		`{"account_id":"a","invoice_id":"i","subscription_id":"s","timestamp":"2026-11-20T08:00:00Z"}`:                               "/csb/api/v1_1/invoice key-1 given-12",
		`{"account_id":"a","plan":"pro","timestamp":"2026-11-20T08:00:00Z","user_id":"u"}`:                                           "/csb/api/v1_1/user key-1 given-14",
		`{"account_id":"a","plan":"pro","timestamp":"2026-11-20T08:00:00Z"}`:                                                         "/csb/api/v1_1/account key-1 given-15",
		`{"account_id":"a","subscription_id":"s","timestamp":"2026-11-20T08:00:00Z"}`:                                                "/csb/api/v1_1/subscription key-1 given-13",
		`{"account_id":"a","timestamp":"2026-11-20T08:00:00Z","type":"track","user_id":"u"}`:                                         "/csb/api/v1_1/logout key-1 given-7",
		`{"action_name":"G","request":{"time":"2026-11-20T08:00:00Z","uri":"/x"},"transaction_id":"given-16","user_id":"u"}`:         "/moesif/v1/actions key-1",
		`{"api_key":"key-1","batch":[{"distinct_id":"u","event":"C","timestamp":"2026-11-20T08:00:00Z","uuid":"given-4"}]}`:          "/batch ",
		`{"api_key":"key-1","events":[{"event_type":"D","insert_id":"given-5","time":1795161600000,"user_id":"u"}]}`:                 "/2/httpapi ",
		`{"batch":[{"event":"B","messageId":"own-2","timestamp":"2026-11-20T08:00:00Z","type":"track","userId":"u"}]}`:               "/v1/b key-1",
		`{"batch":[{"event":"of version 1","messageId":"given-33","timestamp":"2026-11-20T08:00:00Z","type":"track","userId":"u"}]}`: "/v1/batch key-1",
		`{"batch":[{"event":"still bad","messageId":"own-3","timestamp":"2026-11-20T08:00:00Z","type":"track","userId":"u"}]}`:       "/v1/batch key-1",
		`{"company_id":"c","metadata":{},"modified_time":"2026-11-20T08:00:00Z","transaction_id":"given-19","user_id":"u"}`:          "/moesif/v1/users key-1",
		`{"company_id":"c","modified_time":"2026-11-20T08:00:00Z","subscription_id":"s","transaction_id":"given-21"}`:                "/moesif/v1/subscriptions key-1",
		`{"company_id":"c","modified_time":"2026-11-20T08:00:00Z","transaction_id":"given-20"}`:                                      "/moesif/v1/companies key-1",
		`{"date":1795161600000,"eventId":"own-24","eventName":"I","identifyId":"u"}`:                                                 "/gainsightpx/v1/events/custom key-1",
		`{"event":"A","messageId":"given-1","timestamp":"2026-11-20T08:00:00Z","type":"track","userId":"u"}`:                         "/v1/track key-1",
		`{"id":"given-23","source":"shop","subject":"a","time":"2026-11-20T07:00:00Z","type":"H"}`:                                   "/cloudevents key-1",
		`{"id":"own-22","source":"shop","subject":"a","time":"2026-11-20T08:00:00Z","type":"H"}`:                                     "/cloudevents key-1",
		`{"request":{"time":"2026-11-20T07:00:00Z","uri":"/x","verb":"GET"},"transaction_id":"own-17"}`:                              "/moesif/v1/events key-1",
		`{"request":{"time":"2026-11-20T08:00:00Z","uri":"/x"},"transaction_id":"given-18"}`:                                         "/moesif/v1/events key-1",
		`{"resourceLogs":[{"resource":{"attributes":[{"key":"user.id","value":{"stringValue":"u"}}]},"scopeLogs":[{"logRecords":[{"attributes":[{"key":"log.record.uid","value":{"stringValue":"given-9"}}],"eventName":"F","timeUnixNano":"1795161600000000000"}],"scope":{"name":"s"}}]}]}`: "/v1/logs key-1 given-9",
		`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"attributes":[{"key":"log.record.uid","value":{"stringValue":"own-28"}}],"eventName":"F","timeUnixNano":"1795161600000000000"}]}]}]}`:                                                                                                 "/v1/logs key-1 own-28",
	}
	mu.Lock()
	if !maps.Equal(got, want) {
		t.Errorf("the gateway got %v,\nwant %v", got, want)
	}
	clear(got)
	mu.Unlock()
	skipped := map[string]int{
		"rejected again by the gateway: too_long event":                                                               1,
		"rejected again by the gateway: bad_quantity":                                                                 1,
		"its bytes are no JSON object, or were cut":                                                                   1,
		"events of the route GET /v1/projects/{key}/settings of segment can only be sent by their producer":           1,
		"its record is of an earlier version and does not name the route it came by: have its producer send it again": 1,
		"the resource and scope around it were not kept, which may say whose it is: have its exporter send it again":  1,
	}
	if report.Sent["gateway"] != 27 || !maps.Equal(report.Skipped, skipped) {
		t.Errorf("sent: %+v", report)
	}
	if report, _ = b.replay(change, to); report.Sent["gateway"] != 0 || report.Skipped["sent before"] != 27 {
		t.Errorf("again: %+v", report)
	}
	w.End()
}
