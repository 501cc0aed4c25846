package conformance

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
)

var update = flag.Bool("update", false, "write docs/sources/conformance.md from what was seen")

// n is how many events a scenario with a fault sends.
const n = 3

// callsScenario is the scenario without a fault.
const callsScenario = "calls"

// appOf names the app of a scenario.
func appOf(sdk, scenario string) string {
	return sdk + "-" + strings.ReplaceAll(scenario, " ", "-")
}

func (c *client) faultsToMeet() []string {
	if c.noFaults {
		return nil
	}
	return faults
}

// TestSDKs runs every SDK through every scenario.
func TestSDKs(t *testing.T) {
	all := append(clients(), goClients()...)
	var apps []string
	for _, c := range all {
		apps = append(apps, appOf(c.sdk, callsScenario))
		for _, f := range c.faultsToMeet() {
			apps = append(apps, appOf(c.sdk, f))
		}
	}
	s := newStage(t, apps)
	var dir string
	for _, c := range all {
		if c.run == nil {
			dir = sdks(t)
			break
		}
	}

	said := make([]map[string]outcome, len(all))
	var proxies []*proxy
	var seen []string
	var wg sync.WaitGroup
	slots := make(chan struct{}, 3) // SDKs at a time
	for i, c := range all {
		var scenarios []scenario
		for _, name := range append([]string{callsScenario}, c.faultsToMeet()...) {
			fault := name
			if name == callsScenario {
				fault = none
			}
			p := newProxy(t, s.url, fault)
			proxies = append(proxies, p)
			seen = append(seen, appOf(c.sdk, name))
			sc := scenario{
				Name: name, URL: p.URL, Key: keyOf(appOf(c.sdk, name)), Calls: name == callsScenario,
				N: n, Fault: fault, Path: c.path, Batch: c.batch,
			}
			if c.prefix && name == callsScenario {
				sc.URL += "/" + c.protocol
			}
			scenarios = append(scenarios, sc)
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if c.run == nil {
				said[i] = node(t, dir, c.sdk, scenarios)
				return
			}
			said[i] = map[string]outcome{}
			for _, sc := range scenarios {
				said[i][sc.Name] = c.run(sc)
			}
		})
	}
	wg.Wait()
	requests := map[string][]string{}
	for i, p := range proxies {
		p.Close() // waits for what is under way
		requests[seen[i]] = p.seen
	}
	if t.Failed() {
		return
	}

	stored := s.stored(t)
	table := results{path: root + "/docs/sources/conformance.md", title: "Conformance", faults: faults}
	for i, c := range all {
		t.Run(c.sdk, func(t *testing.T) {
			app := appOf(c.sdk, callsScenario)
			if o := said[i][callsScenario]; len(o.Errors)+len(o.Crashes) > 0 {
				t.Errorf("calls: the SDK says %s", o)
			}
			table.addCalls(c, compare(t, c, stored[app]))
			if t.Failed() {
				t.Logf("requests: %s", strings.Join(requests[app], ", "))
			}
			for _, f := range c.faultsToMeet() {
				app := appOf(c.sdk, f)
				got := judge(t, f, said[i][f], stored[app])
				expected := c.faults[f]
				if expected == "" {
					expected = once
				}
				if got != expected {
					t.Errorf("%s: got %q, want %q\nthe SDK says %s\nrequests: %s\nstored: %d", f, got, expected, said[i][f], strings.Join(requests[app], ", "), len(stored[app]))
				}
				table.addFault(c, f, got)
			}
		})
	}
	table.check(t)
}

// compare finds for each event that was sent the one that is stored.
func compare(t *testing.T, c client, got []event.RawEvent) []string {
	t.Helper()
	used := make([]bool, len(got))
	var calls []string
	ids := map[string]bool{}
	for _, e := range got {
		if ids[e.MessageID] {
			t.Errorf("message id %q is stored twice", e.MessageID)
		}
		ids[e.MessageID] = true
	}
	for _, w := range c.calls {
		var near []string
		found := false
		for i, e := range got {
			if used[i] {
				continue
			}
			why := differs(w, c, e)
			if why == "" {
				used[i], found = true, true
				break
			}
			if e.Kind == w.kind && e.Event == w.event {
				near = append(near, why)
			}
		}
		if !found {
			t.Errorf("%s: no %s %q is stored as it was sent; those there are differ: %s", w.call, w.kind, w.event, strings.Join(near, "; "))
			continue
		}
		if len(calls) == 0 || calls[len(calls)-1] != w.call {
			calls = append(calls, w.call)
		}
	}
	for i, e := range got {
		if !used[i] {
			t.Errorf("stored but not expected: %s %q id=%s user=%q anonymous=%q account=%q properties=%s traits=%s context=%s",
				e.Kind, e.Event, e.MessageID, e.UserID, e.AnonymousID, e.AccountID, e.Properties, e.Traits, e.Context)
		}
	}
	return calls
}

// differs says how a stored event differs from what was sent, "" for not at all.
func differs(w want, c client, e event.RawEvent) string {
	quantity := max(w.quantity, 1)
	for _, f := range []struct{ name, got, want string }{
		{"kind", e.Kind, w.kind},
		{"event", e.Event, w.event},
		{"user", e.UserID, w.user},
		{"anonymous", e.AnonymousID, w.anonymous},
		{"account", e.AccountID, w.account},
		{"previous", e.PreviousID, w.previous},
		{"id", e.MessageID, w.id},
		{"protocol", e.Protocol, c.protocol},
	} {
		switch {
		case f.name == "id" && w.id == "":
			if f.got == "" {
				return "no message id"
			}
		case f.want == anyID:
			if f.got == "" {
				return "no " + f.name
			}
		case f.got != f.want:
			return fmt.Sprintf("%s is %q, want %q", f.name, f.got, f.want)
		}
	}
	if e.Quantity != quantity {
		return fmt.Sprintf("quantity is %d, want %d", e.Quantity, quantity)
	}
	switch {
	case w.noTime && e.Timestamp != 0:
		return fmt.Sprintf("timestamp is %v, want none", event.ToTime(e.Timestamp))
	case !w.noTime && e.Timestamp == 0:
		return "no timestamp"
	case !w.at.IsZero() && !event.ToTime(e.Timestamp).Equal(w.at):
		return fmt.Sprintf("timestamp is %v, want %v", event.ToTime(e.Timestamp), w.at)
	}
	for _, f := range []struct {
		name string
		got  []byte
		want obj
	}{{"properties", e.Properties, w.properties}, {"traits", e.Traits, w.traits}, {"context", e.Context, w.context}} {
		var got obj
		if len(f.got) > 0 {
			if err := json.Unmarshal(f.got, &got); err != nil {
				return f.name + ": " + err.Error()
			}
		}
		if why := within(got, f.want); why != "" {
			return f.name + why
		}
		if f.name == "traits" && f.want == nil && len(got) > 0 {
			return fmt.Sprintf("traits are %s, want none", f.got)
		}
	}
	return ""
}

// within says what of want is not in got.
func within(got, want obj) string {
	for k, w := range want {
		if inner, ok := w.(obj); ok {
			if g, ok := got[k].(obj); ok {
				if why := within(g, inner); why != "" {
					return "." + k + why
				}
				continue
			}
		}
		if !reflect.DeepEqual(got[k], w) {
			return fmt.Sprintf(".%s is %v, want %v", k, got[k], w)
		}
	}
	return ""
}

// judge says what became of a scenario's n events.
func judge(t *testing.T, fault string, said outcome, got []event.RawEvent) string {
	t.Helper()
	ids := map[string]map[string]bool{} // by user
	for _, e := range got {
		if e.Kind != event.KindTrack || e.Event != "Retried" {
			continue
		}
		if ids[e.UserID] == nil {
			ids[e.UserID] = map[string]bool{}
		}
		ids[e.UserID][e.MessageID] = true
	}
	missing := 0
	for i := range n {
		switch len(ids[fmt.Sprintf("u%d", i)]) {
		case 0:
			missing++
		case 1:
		default:
			return "twice"
		}
	}
	complained := len(said.Errors)+len(said.Crashes) > 0
	switch {
	case len(said.Crashes) > 0:
		return "the process crashes"
	case missing > 0 && complained:
		return told
	case missing > 0:
		return silent
	case complained:
		return onceTold
	}
	return once
}

// results is the table of the docs.
type results struct {
	path, title string
	faults      []string

	order []string
	rows  map[string]*row
}

type row struct {
	client client
	calls  []string
	faults map[string]string
}

func (r *results) row(c client) *row {
	if r.rows == nil {
		r.rows = map[string]*row{}
	}
	if r.rows[c.sdk] == nil {
		r.order = append(r.order, c.sdk)
		r.rows[c.sdk] = &row{client: c, faults: map[string]string{}}
	}
	return r.rows[c.sdk]
}

func (r *results) addCalls(c client, calls []string) { r.row(c).calls = calls }

func (r *results) addFault(c client, fault, result string) { r.row(c).faults[fault] = result }

// check holds the table against the docs, or writes it.
func (r *results) check(t *testing.T) {
	t.Helper()
	got := r.markdown()
	if *update {
		if err := os.WriteFile(r.path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != got {
		t.Errorf("%s is not what was seen; run go test ./test/conformance -update", r.path)
	}
}

func (r *results) markdown() string {
	var b strings.Builder
	b.WriteString("# " + r.title + `

What the real SDKs did against a gateway, and what the log held afterwards. Written by the tests in test/conformance (` + "`go test ./test/conformance -update`" + `); do not edit.

## Calls

Each call was made once. "stored" means: exactly once, with every field where it belongs.

| protocol | SDK | call | status |
|---|---|---|---|
`)
	for _, sdk := range r.order {
		for _, call := range r.rows[sdk].calls {
			fmt.Fprintf(&b, "| %s | %s | %s | stored |\n", r.rows[sdk].client.protocol, r.rows[sdk].client.version, call)
		}
	}
	b.WriteString(`
## Faults

The first request with events met a fault: an error 500 of a load balancer, the gateway's own answer to brokers that do not ack (503) and to an app that sends too much (429, in the form the protocol's SDKs retry on), a connection that broke before the request arrived (cut), or after it was stored and before the reply (reply lost), and a reply that never came (no reply). A page that is left (page left) goes elsewhere while events wait to be sent. "once" means that every event is there under one message id.

| protocol | SDK |`)
	for _, f := range r.faults {
		b.WriteString(" " + f + " |")
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(r.faults)) + "\n")
	for _, sdk := range r.order {
		row := r.rows[sdk]
		if row.client.noFaults {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s |", row.client.protocol, row.client.version)
		for _, f := range r.faults {
			result := row.faults[f]
			if result == "" {
				result = "–"
			}
			fmt.Fprintf(&b, " %s |", result)
		}
		b.WriteString("\n")
	}
	return b.String()
}
