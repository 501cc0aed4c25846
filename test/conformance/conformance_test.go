package conformance

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
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

// servers are the clients that run on no page.
func servers() []client { return slices.Concat(clients(), goClients(), httpClients()) }

// TestSDKs runs every SDK for Node and Go, and the calls that no SDK makes, through
// every scenario.
func TestSDKs(t *testing.T) {
	s := forTest(t)
	dir, goDir := npm.Folder(t), goSDKs.Folder(t)
	table := results{path: root + "/docs/sources/conformance.md", title: "Conformance", faults: faults}
	s.runAll(t, servers(), &table, func(c client, scenarios []scenario) map[string]outcome {
		if c.language == goLanguage {
			return runGo(t, goDir, c.sdk, scenarios)
		}
		return node(t, dir, c.sdk, scenarios)
	})
	table.check(t)
	checkPages(t, servers())
}

// runAll runs clients through every scenario, those that are not linked in by drive.
func (s *stage) runAll(t *testing.T, all []client, table *results, drive func(client, []scenario) map[string]outcome) {
	t.Helper()
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
			p := newProxy(t, s.url(), fault)
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
				said[i] = drive(c, scenarios)
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

	s.settled(t)
	events, rejected := s.events(t), s.rejected(t)
	for i, c := range all {
		t.Run(c.sdk, func(t *testing.T) {
			app := appOf(c.sdk, callsScenario)
			if o := said[i][callsScenario]; len(o.Errors)+len(o.Crashes) > 0 {
				t.Errorf("calls: the SDK says %s", o)
			}
			table.addCalls(c, compare(t, c, events[app]))
			compareRejected(t, c, rejected[app])
			s.compareTraits(t, c, app)
			if t.Failed() {
				t.Logf("requests: %s", strings.Join(requests[app], ", "))
			}
			for _, f := range c.faultsToMeet() {
				app := appOf(c.sdk, f)
				got := judge(f, said[i][f], events[app])
				expected := c.faults[f]
				if expected == "" {
					expected = once
				}
				if got != expected {
					t.Errorf("%s: got %q, want %q\nthe SDK says %s\nrequests: %s\nstored: %d", f, got, expected, said[i][f], strings.Join(requests[app], ", "), len(events[app]))
				}
				table.addFault(c, f, got)
			}
		})
	}
}

// compare finds for each event that was sent the one that ClickHouse holds, and
// reports those that are missing, there twice, or were never sent.
func compare(t *testing.T, c client, got []stored) []string {
	t.Helper()
	used := make([]bool, len(got))
	var calls []string
	ids := map[string]bool{}
	for _, e := range got {
		if ids[e.id] {
			t.Errorf("message id %q is stored twice", e.id)
		}
		ids[e.id] = true
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
			if e.kind == w.kind && e.event == w.event {
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
			t.Errorf("stored but not expected: %+v", e)
		}
	}
	return calls
}

// compareRejected holds what was put aside against what had to be.
func compareRejected(t *testing.T, c client, got []string) {
	t.Helper()
	if !slices.Equal(got, c.rejected) {
		t.Errorf("put aside: got %q, want %q", got, c.rejected)
	}
}

// compareTraits holds what analysts see of users and accounts against what the
// calls, one after the other, made of them.
func (s *stage) compareTraits(t *testing.T, c client, app string) {
	t.Helper()
	for view, want := range map[string]people{"user": c.users, "account": c.accounts} {
		if want == nil {
			continue
		}
		got := s.traits(t, view, app)
		for id, traits := range want {
			if !maps.Equal(got[id], traits) {
				t.Errorf("traits of %s %s: got %q, want %q", view, id, got[id], traits)
			}
		}
	}
}

// featureOf is the feature that the catalog has for what was sent.
func featureOf(w want) string {
	switch w.event {
	case "Item Scanned", "item.scanned", "scan-item":
		return "item_scanned"
	case "POST /v1/orders/{id}", "POST /api/orders/{id}":
		return "order_placed"
	}
	page, _ := w.context["page"].(obj)
	if w.kind == event.KindPage && (w.properties["path"] == "/cart" || page["path"] == "/cart") {
		return "cart_seen"
	}
	return ""
}

// differs says how a stored event differs from what was sent, "" for not at all.
func differs(w want, c client, e stored) string {
	for _, f := range []struct{ name, got, want string }{
		{"kind", e.kind, w.kind},
		{"event", e.event, w.event},
		{"user", e.user, w.user},
		{"anonymous", e.anonymous, w.anonymous},
		{"account", e.account, w.account},
		{"previous", e.previous, w.previous},
		{"id", e.id, w.id},
		{"protocol", e.protocol, c.protocol},
		{"feature", e.feature, featureOf(w)},
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
	if quantity := max(w.quantity, 1); e.quantity != quantity {
		return fmt.Sprintf("quantity is %d, want %d", e.quantity, quantity)
	}
	switch {
	case w.noTime && !e.at.IsZero():
		return fmt.Sprintf("timestamp is %v, want none", e.at)
	case !w.noTime && e.at.IsZero():
		return "no timestamp"
	case !w.at.IsZero() && !e.at.Equal(w.at):
		return fmt.Sprintf("timestamp is %v, want %v", e.at, w.at)
	case c.sentAt != !e.sent.IsZero():
		return fmt.Sprintf("sent at is %v, want one: %v", e.sent, c.sentAt)
	}
	for _, f := range []struct {
		name string
		got  string
		want obj
	}{{"properties", e.properties, w.properties}, {"traits", e.traits, w.traits}, {"context", e.context, w.context}} {
		var got obj
		if f.got != "" {
			if err := json.Unmarshal([]byte(f.got), &got); err != nil {
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
func judge(fault string, said outcome, got []stored) string {
	rows := map[string]int{} // by user
	for _, e := range got {
		if e.kind == event.KindTrack && e.event == "Retried" {
			rows[e.user]++
		}
	}
	missing := 0
	for i := range n {
		switch rows[fmt.Sprintf("u%d", i)] {
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
	kept        []client // of which the table keeps the rows that it has, since they were not run

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
	old, err := os.ReadFile(r.path)
	if err != nil && (!*update || !errors.Is(err, fs.ErrNotExist)) {
		t.Fatal(err)
	}
	got := r.markdown(string(old))
	if *update {
		if err := os.WriteFile(r.path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(old) != got {
		t.Errorf("%s is not what was seen; run go test ./test/conformance -update", r.path)
	}
}

// markdown returns the page, given the one that is there.
func (r *results) markdown(old string) string {
	var b strings.Builder
	b.WriteString("# " + r.title + `

What the real SDKs did against a gateway, and what ClickHouse held afterwards. Written by the tests in test/conformance (` + "`go test ./test/conformance -update`" + `); do not edit.

## Calls

Each call was made once. "stored" means: one row in events, with every field in its column; nothing else of that app is there or was rejected.

| protocol | SDK | call | status |
|---|---|---|---|
`)
	for _, sdk := range r.order {
		for _, call := range r.rows[sdk].calls {
			fmt.Fprintf(&b, "| %s | %s | %s | stored |\n", r.rows[sdk].client.protocol, r.rows[sdk].client.version, call)
		}
	}
	for _, c := range r.kept {
		for line := range strings.Lines(old) {
			if strings.HasPrefix(line, fmt.Sprintf("| %s | %s |", c.protocol, c.version)) {
				b.WriteString(line)
			}
		}
	}
	if len(r.faults) == 0 {
		return b.String()
	}
	b.WriteString(`
## Faults

The first request with events met a fault: an error 500 of a load balancer, the gateway's own answer to brokers that do not ack (503) and to an app that sends too much (429, in the form the protocol's SDKs retry on), a connection that broke before the request arrived (cut), or after it was stored and before the reply (reply lost), and a reply that never came (no reply). A page that is left (page left) goes elsewhere while events wait to be sent. "once" means that each event is one row in events.

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
