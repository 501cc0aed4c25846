package console

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/verdict"
)

// judge is a log with the part of the enrichers.
type judge struct {
	t  *testing.T
	cl *kgo.Client
}

// startLive starts a console whose live view has verdicts, at a real clock.
func startLive(t *testing.T, change ...func(*Config, *Dependencies)) (*stage, *judge) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.ConsumeTopics(topic.Unprefixed.VerdictRequests))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if err := topic.Unprefixed.Ensure(t.Context(), kadm.NewClient(cl), topic.SingleLayout()); err != nil {
		t.Fatal(err)
	}
	s := start(t, append([]func(*Config, *Dependencies){func(c *Config, d *Dependencies) {
		c.Live, c.Kafka.Brokers, d.Now = true, fake.ListenAddrs(), nil
	}}, change...)...)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.c.verdicts.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return s, &judge{t, cl}
}

// asked waits for a request for verdicts and returns its app.
func (j *judge) asked() string {
	j.t.Helper()
	ctx, cancel := context.WithTimeout(j.t.Context(), 20*time.Second)
	defer cancel()
	fetches := j.cl.PollRecords(ctx, 1)
	if err := fetches.Err(); err != nil {
		j.t.Fatal(err)
	}
	q, err := verdict.DecodeRequest(fetches.Records()[0].Value)
	if err != nil {
		j.t.Fatal(err)
	}
	return q.App
}

func (j *judge) says(records ...verdict.Record) {
	j.t.Helper()
	for _, r := range records {
		if r.App == "" {
			r.App = "dev"
		}
		if r.ReceivedAt == 0 {
			r.ReceivedAt = event.FromTime(time.Now())
		}
		value, err := r.Append(nil)
		if err == nil {
			err = j.cl.ProduceSync(j.t.Context(), &kgo.Record{Topic: topic.Unprefixed.Verdicts, Value: value}).FirstErr()
		}
		if err != nil {
			j.t.Fatal(err)
		}
	}
}

// has waits until the page at target has a text.
func (s *stage) has(target, want string) string {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		html := s.page(target)
		if strings.Contains(html, want) {
			return html
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not have %q:\n%s", target, want, html)
		}
	}
}

// A page, reloaded, has each event once, with the pipeline's verdict and reason, whatever
// the event's texts are; the address limits it.
func TestLiveShowsVerdicts(t *testing.T) {
	s, j := startLive(t)
	s.page("/live?app=dev")
	if app := j.asked(); app != "dev" {
		t.Fatalf("verdicts of %q were asked for", app)
	}
	if err := s.conn.Exec(t.Context(), "INSERT INTO events (app_id, kind, event, message_id, actor_id, actor_kind, feature_id, event_time, received_at) VALUES ('dev', 'track', 'Both', 'id-1', 'maria', 'user', 'scan', now64(6), now64(6)), ('dev', 'track', 'Stored Earlier', 'id-0', 'maria', 'user', 'scan', now64(6), now64(6))"); err != nil {
		t.Fatal(err)
	}
	doc := json.RawMessage(`{"properties":{"plan":{"name":"pro"},"note":"<script>alert(1)</script>"}}`)
	rejected := event.Rejected{AppID: "dev", Stage: event.StageGateway, Code: "missing_field", Field: "event", MessageID: "id-6", ReceivedAt: event.FromTime(time.Now()), SourcePartition: -1, SourceOffset: -1, Original: []byte(`{"odd":true}`)}
	if err := j.cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic.Unprefixed.Rejected, Value: event.NewCodec().AppendRejected(nil, &rejected)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	j.says(
		verdict.Record{Verdict: verdict.Counted, Kind: "track", Name: "Both", MessageID: "id-1", UserID: "maria", ActorID: "maria", ActorKind: "user", AccountID: "shop", AccountSource: "membership", FeatureID: "scan", Event: doc, Conflicts: []string{"properties.n"}},
		verdict.Record{Verdict: verdict.Duplicate, Kind: "track", Name: "Again", MessageID: "id-2", UserID: "maria"},
		verdict.Record{Verdict: verdict.Unmapped, Kind: "track", Name: "<script>alert(2)</script>", MessageID: "id-3", ActorID: "otto", ActorKind: "user", Nearest: "item_scanned", AccountSource: "none"},
		verdict.Record{Verdict: verdict.Rejected, Kind: "track", MessageID: "id-4", Stage: event.StageEnricher, Code: "bad_quantity", Field: "quantity", Detail: "must not be negative (got -1)"},
		verdict.Record{App: "other", Verdict: verdict.Counted, Kind: "track", Name: "Of Another App", MessageID: "id-5"},
		verdict.Record{Verdict: verdict.LeftOut, Count: 1234},
		verdict.Record{Verdict: verdict.OptedOut},
	)
	s.has("/live?app=dev", "– opted out</span>")
	html := s.has("/live?app=dev", "id-6")
	for text, times := range map[string]int{
		"Both": 1, "Stored Earlier": 2, "Of Another App": 0, "<script>alert": 0, "&lt;script&gt;alert(2)": 1,
		"Feature scan; account by membership; kept under conflicts: properties.n":                1,
		"No feature of the catalog has this name, the nearest is item_scanned; no account known": 1,
		"An event with this message id was counted before":                                       1,
		"bad_quantity quantity: must not be negative (got -1)":                                   1,
		"missing_field event": 1,
		"1,234 events were processed without a row here: at most 100 a second are shown.": 1,
		"Opted out or erased: nothing else is kept":                                       1,
	} {
		if got := strings.Count(html, text); got != times {
			t.Errorf("%q is %d times in the page, want %d", text, got, times)
		}
	}
	for query, want := range map[string][2]string{
		"q=id-2":                            {"Again", "Both"},
		"q=maria":                           {"Both", "otto"},
		"key=plan.name":                     {"Both", "Again"},
		"key=properties.plan":               {"Both", "Again"},
		"verdict=duplicate":                 {"Again", "Both"},
		"verdict=rejected":                  {"missing_field event", "Both"},
		"verdict=counted":                   {"Stored Earlier", "Again"},
		"q=" + url.QueryEscape("'; DROP--"): {"No event of dev with &#34;&#39;; DROP--&#34; arrived", "Both"},
	} {
		html := s.page("/live?app=dev&" + query)
		if !strings.Contains(html, want[0]) || strings.Contains(html, want[1]) {
			t.Errorf("%s: has no %q, or has %q", query, want[0], want[1])
		}
	}
	if w := s.do(nil, "/live?app=dev&verdict=odd"); w.Code != http.StatusBadRequest {
		t.Errorf("verdict=odd: got %d", w.Code)
	}
}

// A stream goes on after what its page shows, and gets each verdict once.
func TestLiveStreamOfVerdicts(t *testing.T) {
	s, j := startLive(t)
	s.page("/live?app=dev")
	j.asked()
	j.says(verdict.Record{Verdict: verdict.Duplicate, Kind: "track", Name: "On The Page", MessageID: "id-1"})
	html := s.has("/live?app=dev", "On The Page")
	_, rest, _ := strings.Cut(html, `data-stream="`)
	target, _, _ := strings.Cut(rest, `"`)
	server := httptest.NewServer(s.h)
	defer server.Close()
	s.c.access.hosts = append(s.c.access.hosts, strings.TrimPrefix(server.URL, "http://"))
	open := func(last string) (next func() string, end func()) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+strings.ReplaceAll(target, "&amp;", "&"), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.c.access.token)
		r.Header.Set("Last-Event-ID", last)
		resp, err := http.DefaultClient.Do(r) //nolint:bodyclose // end closes it
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		return func() string {
			id := ""
			for lines.Scan() {
				if n, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
					id = n
				}
				if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
					return id + " " + text
				}
			}
			t.Fatalf("the stream ended: %v", lines.Err())
			return ""
		}, func() { cancel(); resp.Body.Close() }
	}
	next, end := open("")
	j.says(verdict.Record{Verdict: verdict.Duplicate, Kind: "track", Name: "First", MessageID: "id-2"})
	got := next()
	if !strings.Contains(got, "First") || strings.Contains(got, "On The Page") {
		t.Errorf("got %s, want the first event alone", got)
	}
	end()
	id, _, _ := strings.Cut(got, " ")
	j.says(verdict.Record{Verdict: verdict.Duplicate, Kind: "track", Name: "Second", MessageID: "id-3"})
	next, end = open(id)
	if got := next(); !strings.Contains(got, "Second") || strings.Contains(got, "First") {
		t.Errorf("after the connection was lost: got %s, want the second event alone", got)
	}
	end()
}

// A test event goes to the configured gateway, with the key of the form and no other
// address; a page of another origin sends none.
func TestSendTestEvent(t *testing.T) {
	var calls []string
	status := http.StatusOK
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, _, _ := r.BasicAuth()
		var call struct {
			MessageID, Event, UserID string
			Context                  struct{ GroupID string }
		}
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &call); err != nil || !strings.HasPrefix(call.MessageID, "uptake-test-") {
			t.Errorf("got %s", body)
		}
		calls = append(calls, strings.Join([]string{r.URL.Path, key, call.Event, call.UserID, call.Context.GroupID}, " "))
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	defer gateway.Close()
	s := start(t, func(c *Config, _ *Dependencies) { c.GatewayURL = gateway.URL })
	post := func(origin string, form url.Values) (int, string) {
		r := httptest.NewRequest(http.MethodPost, "/live/test", strings.NewReader(form.Encode()))
		r.Host = s.c.access.hosts[0]
		r.Header.Set("Authorization", "Bearer "+s.c.access.token)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		s.h.ServeHTTP(w, r)
		return w.Code, w.Header().Get("Location")
	}
	own := "http://" + s.c.access.hosts[0]
	form := url.Values{"app": {"dev"}, "key": {"secret-key"}, "event": {"Odd <Event>"}, "user": {"maria"}, "account": {"shop"}}
	for _, origin := range []string{"", "null", "http://evil.example"} {
		if code, _ := post(origin, form); code != http.StatusForbidden {
			t.Errorf("origin %q: got %d", origin, code)
		}
	}
	if code, _ := post(own, url.Values{"app": {"dev"}}); code != http.StatusBadRequest {
		t.Errorf("without a key: got %d", code)
	}
	if code, _ := post(own, url.Values{"app": {"dev"}, "key": {strings.Repeat("k", 201)}}); code != http.StatusBadRequest {
		t.Errorf("a key of 201 bytes: got %d", code)
	}
	if len(calls) != 0 {
		t.Fatalf("the gateway was called: %q", calls)
	}
	code, target := post(own, form)
	if code != http.StatusSeeOther || !strings.Contains(target, "q=uptake-test-") || strings.Contains(target, "secret-key") {
		t.Errorf("got %d to %s", code, target)
	}
	if html := s.page(target); !strings.Contains(html, "The gateway accepted the test event") || strings.Contains(html, "secret-key") {
		t.Error("the page does not say that the gateway accepted it, or has the key")
	}
	for _, tc := range []struct {
		status int
		want   string
	}{{http.StatusUnauthorized, "does not know this key"}, {http.StatusServiceUnavailable, "takes no event at present"}, {http.StatusFound, "did not take the test event"}} {
		status = tc.status
		_, target := post(own, form)
		if html := s.page(target); !strings.Contains(html, tc.want) {
			t.Errorf("%d: the page does not say %q", tc.status, tc.want)
		}
	}
	for _, call := range calls {
		if call != "/v1/track secret-key Odd <Event> maria shop" {
			t.Errorf("the gateway got %q", call)
		}
	}
	if len(calls) != 4 {
		t.Errorf("%d calls, want 4", len(calls))
	}
	gateway.Close()
	_, target = post(own, form)
	if html := s.page(target); !strings.Contains(html, "cannot be reached by the console") {
		t.Error("the page does not say that the gateway cannot be reached")
	}
}
