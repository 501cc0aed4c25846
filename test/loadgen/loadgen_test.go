package loadgen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func testConfig() Config {
	c := DefaultConfig(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	c.Events, c.Accounts = 5_000, 40
	return c
}

func newPlan(t *testing.T, c Config) *Plan {
	t.Helper()
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlanIsAFunctionOfItsConfig(t *testing.T) {
	bodies := func(c Config) string {
		p := newPlan(t, c)
		var all []byte
		for n := range p.Requests {
			all = append(all, p.Requests[n].Path...)
			all = p.AppendBody(all, n, time.Unix(0, 0))
		}
		return string(all)
	}
	c := testConfig()
	if once, again := bodies(c), bodies(c); once != again {
		t.Error("two plans of one config differ")
	}
	other := c
	other.Seed++
	if bodies(c) == bodies(other) {
		t.Error("another seed gives the same plan")
	}
}

func TestConfigFaultsAreAllNamed(t *testing.T) {
	_, err := New(Config{Late: 2})
	for _, want := range []string{"Days", "Accounts", "Events", "BatchMax", "Late", "start"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// The plan has what the week is said to have, and the JSON of each request is
// what it claims to be.
func TestPlanHoldsWhatItSays(t *testing.T) {
	c := testConfig()
	c.Bad = 0.02
	p := newPlan(t, c)
	end := c.Start.AddDate(0, 0, c.Days)
	kinds, names, bad := map[string]int{}, map[string]int{}, map[string]int{}
	weekend := 0
	ids := map[string]bool{}
	for i := range p.Events {
		e := &p.Events[i]
		if e.Time.Before(c.Start) || !e.Time.Before(end) {
			t.Fatalf("event %d happens at %v, outside the days", i, e.Time)
		}
		if !e.Time.Equal(e.Time.Truncate(time.Millisecond)) {
			t.Fatalf("event %d happens at %v, which no SDK would send", i, e.Time)
		}
		if ids[e.MessageID] {
			t.Fatalf("message id %s twice", e.MessageID)
		}
		ids[e.MessageID] = true
		if e.Bad != nil {
			bad[e.Bad.Code]++
			continue
		}
		kinds[e.Kind]++
		if PlaceOf(e.Name) != (Place{}) {
			names[e.Name]++
		}
		if d := e.Time.Weekday(); d == time.Saturday {
			weekend++
		}
	}
	for _, k := range []string{kindTrack, kindIdentify, kindGroup, kindAlias, kindPage, kindScreen} {
		if kinds[k] == 0 {
			t.Errorf("no %s call among %v", k, kinds)
		}
	}
	for name := range places {
		if names[name] == 0 {
			t.Errorf("no %s among %v", name, names)
		}
	}
	codes := map[string]bool{}
	for _, b := range badKinds {
		codes[b.Code] = true
	}
	if len(bad) < len(codes)-1 {
		t.Errorf("bad events of %v only", bad)
	}
	if p.Good() < c.Events || p.Good() > c.Events+50 {
		t.Errorf("%d good events, want about %d", p.Good(), c.Events)
	}
	if weekend*7 < p.Good() {
		t.Errorf("%d of %d events on the busiest day", weekend, p.Good())
	}
	packed := map[int32]int{}
	for n := range p.Requests {
		r := &p.Requests[n]
		for _, i := range r.Events {
			packed[i]++
		}
		var body map[string]any
		text := p.AppendBody(nil, n, end)
		hasBad := false
		for _, i := range r.Events {
			hasBad = hasBad || p.Events[i].Bad != nil
		}
		if err := json.Unmarshal(text, &body); err != nil {
			t.Fatalf("request %d: %v\n%s", n, err, text)
		}
		if r.Batch() {
			if got := len(body["batch"].([]any)); got != len(r.Events) {
				t.Fatalf("request %d has %d events, want %d", n, got, len(r.Events))
			}
		} else if hasBad {
			t.Fatalf("request %d is a single bad call: its bytes are not the same each time", n)
		} else if body["messageId"] != p.Events[r.Events[0]].MessageID || "/v1/"+body["type"].(string) != r.Path {
			t.Fatalf("request %d to %s is %s", n, r.Path, text)
		}
	}
	twice := 0
	for i := range p.Events {
		switch n := packed[int32(i)]; {
		case n == 0:
			t.Fatalf("event %d is in no request", i)
		case n > 1:
			twice++
		}
	}
	if twice == 0 {
		t.Error("nothing is sent twice")
	}
}

// Each bad kind's damage is where it says it is and nowhere else.
func TestBadEventsAreBadInOneWay(t *testing.T) {
	good := Event{Kind: kindTrack, Name: ItemScanned, MessageID: "m1", User: "u1", Account: "a1", Time: time.Unix(1, 0).UTC(), Props: `{"a":{"b":1}}`}
	p := &Plan{Events: []Event{good}}
	var want map[string]any
	if err := json.Unmarshal(p.AppendEvent(nil, 0), &want); err != nil {
		t.Fatal(err)
	}
	for i := range badKinds {
		bad := good
		bad.Bad = &badKinds[i]
		p := &Plan{Events: []Event{bad}}
		text := p.AppendEvent(nil, 0)
		var got map[string]any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Errorf("%+v is not even JSON: %v\n%s", bad.Bad, err, text)
			continue
		}
		if bad.Bad.Code == "duplicate_field" {
			if strings.Count(string(text), `"`+bad.Bad.Field+`":`) != 2 {
				t.Errorf("%s: not twice in %s", bad.Bad.Field, text)
			}
			continue
		}
		if reflect.DeepEqual(got, want) {
			t.Errorf("%s of %s changes nothing: %s", bad.Bad.Code, bad.Bad.Field, text)
		}
		field, _, _ := strings.Cut(bad.Bad.Field, ".")
		if bad.Bad.Code == "too_deep" {
			field = "properties"
		}
		delete(got, field)
		rest := map[string]any{}
		for k, v := range want {
			if k != field {
				rest[k] = v
			}
		}
		delete(got, "kind")
		if !reflect.DeepEqual(got, rest) {
			t.Errorf("%s of %s changes more than that field: %s", bad.Bad.Code, bad.Bad.Field, text)
		}
	}
}

// gateway answers as one does that keeps its promises, and counts what it acked.
type gateway struct {
	t     *testing.T
	plan  *Plan
	fail  func(n int) (status int, retryAfter string) // 0: ack
	mu    sync.Mutex                                  // covers all below
	calls int
	acked map[string]int // by message id
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, _, _ := r.BasicAuth()
	if key != "key" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls++
	if g.fail != nil {
		if status, after := g.fail(g.calls); status != 0 {
			if after != "" {
				w.Header().Set("Retry-After", after)
			}
			w.WriteHeader(status)
			return
		}
	}
	var body struct {
		Batch     []map[string]any `json:"batch"`
		MessageID string           `json:"messageId"`
	}
	if err := json.Unmarshal(text, &body); err != nil {
		g.t.Error(err)
	}
	byBytes := map[string]*Bad{}
	for i := range g.plan.Events {
		if b := g.plan.Events[i].Bad; b != nil {
			byBytes[string(g.plan.AppendEvent(nil, int32(i)))] = b
		}
	}
	var verdicts []Verdict
	for i := range body.Batch {
		id, _ := body.Batch[i]["messageId"].(string)
		for text, b := range byBytes {
			if id != "" && strings.Contains(text, `"messageId":"`+id+`"`) {
				verdicts = append(verdicts, Verdict{Index: i, MessageID: id, Code: b.Code, Field: b.Field})
			}
		}
		g.acked[id]++
	}
	if body.MessageID != "" {
		g.acked[body.MessageID]++
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "rejected": verdicts})
}

func serve(t *testing.T, p *Plan, fail func(int) (int, string)) (*gateway, string) {
	g := &gateway{t: t, plan: p, fail: fail, acked: map[string]int{}}
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	return g, s.URL
}

func TestSenderRetriesUntilAcked(t *testing.T) {
	c := testConfig()
	c.Events, c.Bad = 600, 0.02
	p := newPlan(t, c)
	g, url := serve(t, p, func(n int) (int, string) {
		switch n % 7 {
		case 1:
			return 503, "0"
		case 3:
			return 429, ""
		}
		return 0, ""
	})
	l := NewLedger()
	s := Sender{URLs: []string{url}, WriteKey: "key", MaxBackoff: time.Millisecond}
	if err := s.Run(context.Background(), p, l, 0, len(p.Requests)); err != nil {
		t.Fatal(err)
	}
	attempts := 0
	for n := range p.Requests {
		o := l.Outcome(n)
		if !o.Acked {
			t.Fatalf("request %d was given up: %+v", n, o)
		}
		attempts += o.Attempts
	}
	if attempts != g.calls {
		t.Errorf("the ledger has %d attempts, the gateway %d", attempts, g.calls)
	}
	o := NewOracle("dev", AsNamed)
	o.Add(p, l)
	if o.Acked() != p.Good() || o.Unknown() != 0 {
		t.Errorf("the oracle has %d acked and %d unknown, want %d and 0", o.Acked(), o.Unknown(), p.Good())
	}
}

func TestSenderStopsWhereAnSDKWouldNotRetry(t *testing.T) {
	p := newPlan(t, testConfig())
	_, url := serve(t, p, nil)
	s := Sender{URLs: []string{url}, WriteKey: "another"}
	err := s.Run(context.Background(), p, NewLedger(), 0, 20)
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Status != 401 {
		t.Errorf("got %v, want a refusal with 401", err)
	}
}

func TestSenderNoticesWrongVerdicts(t *testing.T) {
	p := newPlan(t, testConfig())
	n := 0
	for !p.Requests[n].Batch() {
		n++
	}
	for name, reply := range map[string]string{
		"a good event is refused": fmt.Sprintf(`{"rejected":[{"index":0,"message_id":%q,"code":"x"}]}`, p.Events[p.Requests[n].Events[0]].MessageID),
		"an event that is none":   `{"rejected":[{"index":5000,"code":"x"}]}`,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, reply) }))
		s := Sender{URLs: []string{srv.URL}, WriteKey: "key"}
		if err := s.Run(context.Background(), p, NewLedger(), n, n+1); err == nil {
			t.Errorf("%s: no error", name)
		}
		srv.Close()
	}
}

// A ledger file lets another process go on, and a request whose outcome the file
// does not have is sent again.
func TestLedgerResumes(t *testing.T) {
	c := testConfig()
	c.Events, c.Bad = 600, 0
	p := newPlan(t, c)
	g, url := serve(t, p, nil)
	path := filepath.Join(t.TempDir(), "ledger")
	s := Sender{URLs: []string{url}, WriteKey: "key"}
	half := len(p.Requests) / 2
	for k, to := range []int{half, len(p.Requests)} {
		l, err := OpenLedger(path, p)
		if err != nil {
			t.Fatal(err)
		}
		if k == 1 && !l.Outcome(half-1).Acked {
			t.Error("the file lost an outcome")
		}
		if err := s.Run(context.Background(), p, l, 0, to); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if g.calls != len(p.Requests) {
		t.Errorf("%d calls for %d requests", g.calls, len(p.Requests))
	}
	c.Seed++
	if _, err := OpenLedger(path, newPlan(t, c)); err == nil {
		t.Error("a ledger of another plan was taken")
	}
}

// What the oracle does not see proves nothing: every kind of difference in what
// a database holds must show.
func TestOracleSeesEveryDifference(t *testing.T) {
	c := testConfig()
	c.Events, c.Bad = 400, 0.05
	p := newPlan(t, c)
	l := NewLedger()
	for n := range p.Requests {
		o := Outcome{Request: n, Attempts: 1, Acked: n%9 != 0}
		if err := l.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	o := NewOracle("dev", AsNamed)
	o.Add(p, l)
	if o.Unknown() == 0 || o.Acked() == 0 {
		t.Fatalf("%d acked, %d unknown: the case is not covered", o.Acked(), o.Unknown())
	}
	// A database that holds every second event of unknown fate.
	k := 0
	present := map[string]bool{}
	for _, id := range sortedKeys(o.unknown) {
		k++
		present[id] = k%2 == 0
	}
	stored := o.stored(func(id string) bool { return present[id] })
	rows := func() map[string][]Row {
		out := map[string][]Row{}
		for id, c := range stored {
			out[id] = []Row{c.row()}
		}
		return out
	}
	if d := compareRows(rows(), stored); d.Wrong != 0 {
		t.Errorf("equal rows differ: %+v", d)
	}
	first := sortedKeys(stored)[0]
	for name, spoil := range map[string]func(map[string][]Row){
		"lost":    func(m map[string][]Row) { delete(m, first) },
		"doubled": func(m map[string][]Row) { m[first] = append(m[first], m[first][0]) },
		"changed": func(m map[string][]Row) { m[first][0].Account = "other" },
		"foreign": func(m map[string][]Row) { m["unknown"] = []Row{{}} },
	} {
		m := rows()
		spoil(m)
		d := compareRows(m, stored)
		if d.Wrong != 1 || (name == "lost" && d.Lost != 1) || (name == "doubled" && d.Doubled != 1) {
			t.Errorf("%s: %+v", name, d)
		}
	}
	for _, r := range Rollups() {
		cells := func() map[string]Sums {
			out := map[string]Sums{}
			for _, c := range stored {
				if !c.usage() {
					continue
				}
				var key []string
				for _, name := range r.Columns {
					key = append(key, c.column(name))
				}
				s := out[strings.Join(key, keySep)]
				out[strings.Join(key, keySep)] = Sums{s.Events + 1, s.Quantity + c.quantity()}
			}
			return out
		}
		if d := compareCells(r, cells(), stored); d.Wrong != 0 || d.Cells == 0 {
			t.Errorf("%s: equal cells differ: %+v", r.Table, d)
		}
		for name, by := range map[string]Sums{"lost": {-1, -1}, "doubled": {1, 1}, "quantity": {0, 1}} {
			m := cells()
			k := sortedKeys(m)[0]
			m[k] = Sums{m[k].Events + by.Events, m[k].Quantity + by.Quantity}
			if d := compareCells(r, m, stored); d.Wrong != 1 || d.Lost != max(0, -by.Events) || d.Doubled != max(0, by.Events) {
				t.Errorf("%s, %s: %+v", r.Table, name, d)
			}
		}
		m := cells()
		m["nobody"] = Sums{1, 1}
		if d := compareCells(r, m, stored); d.Wrong != 1 {
			t.Errorf("%s: a cell too many: %+v", r.Table, d)
		}
	}
	rejected := func() map[RejectedKey]int {
		out := map[RejectedKey]int{}
		for k, c := range o.rejected {
			out[k] = c.Min
		}
		return out
	}
	if d := compareRejected(rejected(), o.rejected); d.Wrong != 0 || d.Cells == 0 {
		t.Errorf("equal rejections differ: %+v", d)
	}
	for k, c := range o.rejected {
		m := rejected()
		m[k] = c.Max + 1
		if d := compareRejected(m, o.rejected); d.Wrong != 1 || d.Doubled != 1 {
			t.Errorf("a rejection too many: %+v", d)
		}
		break
	}
}

func TestProgressOffATerminalIsSparse(t *testing.T) {
	var b strings.Builder
	now := time.Unix(0, 0)
	p := NewProgress(&b, "sending", 1000, func() time.Time { now = now.Add(time.Second); return now })
	for range 1000 {
		p.Add(1)
	}
	if lines := strings.Count(b.String(), "\n"); lines != 10 || !strings.Contains(b.String(), "1000 of 1000") {
		t.Errorf("%d lines:\n%s", lines, b.String())
	}
}
