package conformance

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/test/harness/kit"
)

// leave is the scenario of a page that is left while events wait.
const leave = "page left"

// browserFaults are those that a page's SDK can meet and tell.
var browserFaults = []string{err5, busy, limit, cut, lost, leave}

func browserClients() []client {
	return []client{
		{
			protocol: "segment", sdk: "analytics-next", version: "@segment/analytics-next 1.84.3", sentAt: true,
			users: people{"maria": {"plan": "pro"}}, accounts: people{"corner-shop": {"seats": "3"}},
			calls: []want{
				{call: "track before identify", kind: event.KindTrack, event: "Seen", anonymous: anyID, properties: obj{"where": "home"}},
				{call: "page", kind: event.KindPage, event: "Cart", anonymous: anyID, properties: obj{"q": 1.0, "path": "/"}},
				{call: "identify", kind: event.KindIdentify, user: "maria", anonymous: anyID, traits: obj{"plan": "pro"}},
				{call: "group", kind: event.KindGroup, user: "maria", anonymous: anyID, account: "corner-shop", traits: obj{"seats": 3.0}},
				{call: "track", kind: event.KindTrack, event: "Item Scanned", user: "maria", anonymous: anyID, account: "corner-shop", properties: obj{"sku": "4006"}},
			},
		},
		{
			protocol: "segment", sdk: "rudder-browser", version: "@rudderstack/analytics-js 3.34.1", sentAt: true,
			users: people{"maria": {"plan": "pro"}}, accounts: people{"corner-shop": {"seats": "3"}},
			calls: []want{
				{call: "track before identify", kind: event.KindTrack, event: "Seen", anonymous: anyID, properties: obj{"where": "home"}},
				{call: "page", kind: event.KindPage, event: "Cart", anonymous: anyID, properties: obj{"q": 1.0, "path": "/"}},
				{call: "identify", kind: event.KindIdentify, user: "maria", anonymous: anyID, traits: obj{"plan": "pro"}},
				{call: "group", kind: event.KindGroup, user: "maria", anonymous: anyID, account: "corner-shop", traits: obj{"seats": 3.0}},
				{call: "track", kind: event.KindTrack, event: "Item Scanned", user: "maria", anonymous: anyID, account: "corner-shop", properties: obj{"sku": "4006"}},
				{call: "alias", kind: event.KindAlias, user: "maria-new", previous: "maria", anonymous: anyID},
			},
		},
		{
			protocol: "amplitude", sdk: "amplitude-browser", version: "@amplitude/analytics-browser 2.48.1", sentAt: true,
			users: people{"maria": {"plan": "pro", "first": "1", "logins": "1", "company": "corner-shop"}}, accounts: people{"corner-shop": {"seats": "3"}},
			calls: []want{
				{call: "track before a user", kind: event.KindTrack, event: "Seen", anonymous: anyID, properties: obj{"where": "home"}},
				{call: "identify", kind: event.KindIdentify, event: "$identify", user: "maria", anonymous: anyID, traits: obj{"plan": "pro", "$setOnce": obj{"first": 1.0}, "$add": obj{"logins": 1.0}}},
				{call: "setGroup", kind: event.KindIdentify, event: "$identify", user: "maria", anonymous: anyID, account: "corner-shop", traits: obj{"company": "corner-shop"}},
				{call: "groupIdentify", kind: event.KindGroup, event: "$groupidentify", user: "maria", anonymous: anyID, account: "corner-shop", traits: obj{"seats": 3.0}},
				{call: "track", kind: event.KindTrack, event: "Item Scanned", user: "maria", anonymous: anyID, account: "corner-shop", properties: obj{"sku": "4006"}},
				{call: "revenue", kind: event.KindTrack, event: "revenue_amount", user: "maria", anonymous: anyID, properties: obj{"$price": 2.5, "$quantity": 2.0, "$productId": "p-1"}},
			},
		},
		{
			protocol: "posthog", sdk: "posthog-js", version: "posthog-js 1.449.2", sentAt: true,
			calls: []want{
				{call: "capture before identify", kind: event.KindTrack, event: "Seen", anonymous: anyID, properties: obj{"where": "home"}},
				{call: "$pageview", kind: event.KindPage, event: "$pageview", anonymous: anyID, context: obj{"page": obj{"path": "/"}}},
				{call: "identify", kind: event.KindIdentify, event: "$identify", user: "maria", anonymous: anyID, traits: obj{"plan": "pro", "$set_once": obj{"since": 2020.0}}},
				{call: "identify", kind: event.KindAlias, event: "$identify", user: "maria", anonymous: anyID, previous: anyID},
				{call: "group", kind: event.KindGroup, event: "$groupidentify", user: "maria", anonymous: anyID, account: "corner-shop", traits: obj{"seats": 3.0}},
				{call: "capture", kind: event.KindTrack, event: "Item Scanned", user: "maria", anonymous: anyID, account: "corner-shop", properties: obj{"sku": "4006"}},
				{call: "setPersonProperties", kind: event.KindIdentify, event: "$set", user: "maria", account: "corner-shop", traits: obj{"role": "owner"}},
			},
		},
		{
			protocol: "mixpanel", sdk: "mixpanel-browser", version: "mixpanel-browser 2.83.0",
			faults: map[string]string{cut: silent}, // it takes a broken connection for an end, unless the browser is offline
			calls: []want{
				{call: "track before identify", kind: event.KindTrack, event: "Seen", anonymous: anyID, properties: obj{"where": "home"}},
				{call: "identify", kind: event.KindIdentify, event: "$identify", user: "maria", anonymous: anyID},
				{call: "identify", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$set_once": obj{"$initial_referrer": "$direct"}}},
				{call: "set_group", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"company": []any{"corner-shop"}}},
				{call: "track", kind: event.KindTrack, event: "Item Scanned", user: "maria", anonymous: anyID, account: "corner-shop", properties: obj{"sku": "4006"}},
				{call: "people.set", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"plan": "pro"}},
				{call: "people.increment", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$add": obj{"logins": 1.0}}},
				{call: "group.set", kind: event.KindGroup, event: "$group", account: "corner-shop", noTime: true, traits: obj{"seats": 3.0}},
				{call: "track_pageview", kind: event.KindPage, event: "$mp_web_page_view", user: "maria", anonymous: anyID, account: "corner-shop"},
			},
		},
		{
			protocol: "moesif", sdk: "moesif-browser", version: "moesif-browser-js 1.8.13, batches but for calls",
			users: people{"maria": {"plan": "pro"}}, accounts: people{"corner-shop": {"company_domain": "corner.example", "seats": "3"}},
			noLeave: true, // it has no beacon: what waits may or may not get out
			calls: []want{
				{call: "track before identify", kind: event.KindTrack, event: "Seen", anonymous: anyID, noTime: true, properties: obj{"where": "home"}},
				{call: "init", kind: event.KindIdentify, anonymous: anyID, noTime: true},
				{call: "identifyUser", kind: event.KindIdentify, user: "maria", anonymous: anyID, noTime: true, traits: obj{"plan": "pro"}},
				{call: "identifyCompany", kind: event.KindGroup, account: "corner-shop", noTime: true, traits: obj{"company_domain": "corner.example", "seats": 3.0}},
				{call: "track", kind: event.KindTrack, event: "Item Scanned", user: "maria", account: "corner-shop", noTime: true, properties: obj{"sku": "4006"}},
				{call: "API call", kind: event.KindAPICall, event: "POST /api/orders/{id}", user: "maria", account: "corner-shop", properties: obj{"method": "POST", "status": 201.0}},
			},
		},
	}
}

func (c *client) browserFaults() []string {
	if c.noLeave {
		return browserFaults[:len(browserFaults)-1] // leave is the last
	}
	return browserFaults
}

// TestBrowsers runs the browser SDKs in Chromium, on a page of another origin.
func TestBrowsers(t *testing.T) {
	longtest.Only(t)
	path := kit.Chromium(t)
	dir := npm.Folder(t)
	all := browserClients()
	s := forTest(t)
	site := httptest.NewServer(newSite(filepath.Join(dir, "node_modules")))
	t.Cleanup(site.Close)

	type pageScenario struct {
		scenario
		SDK  string `json:"sdk"`
		Mode string `json:"mode"`
	}
	var scenarios []pageScenario
	proxies := map[string]*proxy{}
	expected := map[string]int{}
	for _, c := range all {
		for _, name := range append([]string{callsScenario}, c.browserFaults()...) {
			fault, mode, count := name, "tracks", n
			switch name {
			case callsScenario:
				fault, mode, count = none, "calls", len(c.calls)
			case leave:
				fault, mode = none, "leave"
			}
			if c.faults[name] == silent {
				count = 0 // nothing to wait for
			}
			app := appOf(c.sdk, name)
			p := newProxy(t, s.url(), fault)
			proxies[app], expected[app] = p, count
			scenarios = append(scenarios, pageScenario{scenario{Name: app, URL: p.URL, Key: keyOf(app), N: n, Fault: fault}, c.sdk, mode})
		}
	}
	said, closePages := browse(t, dir, map[string]any{"chromium": path, "page": site.URL + "/", "scenarios": scenarios})

	// Pages stay open until everything came or an SDK had its time to try again.
	deadline := time.Now().Add(75 * time.Second)
	for {
		events := s.events(t)
		missing := 0
		for app, count := range expected {
			if arrived(events[app], app) < count {
				missing++
			}
		}
		if missing == 0 || time.Now().After(deadline) {
			break
		}
		select {
		case <-t.Context().Done():
		case <-time.After(500 * time.Millisecond): // between looks
		}
	}
	closePages()
	for _, p := range proxies {
		p.Close()
	}
	s.settled(t)
	events, rejected := s.events(t), s.rejected(t)

	table := results{path: root + "/docs/sources/conformance-browsers.md", title: "Conformance in browsers", faults: browserFaults}
	for _, c := range all {
		t.Run(c.sdk, func(t *testing.T) {
			app := appOf(c.sdk, callsScenario)
			if o := said[app]; len(o.Errors)+len(o.Crashes) > 0 {
				t.Errorf("calls: the page says %s", o)
			}
			table.addCalls(c, compare(t, c, events[app]))
			compareRejected(t, c, rejected[app])
			s.compareTraits(t, c, app)
			if t.Failed() {
				t.Logf("requests: %s", strings.Join(proxies[app].seen, ", "))
			}
			for _, f := range c.browserFaults() {
				app := appOf(c.sdk, f)
				got := once
				if have := arrived(events[app], app); have < n {
					got = silent
				} else if have > n {
					got = "twice"
				}
				want := c.faults[f]
				if want == "" {
					want = once
				}
				if got != want {
					t.Errorf("%s: got %q, want %q\nthe page says %s\nrequests: %s\nstored: %d", f, got, want, said[app], strings.Join(proxies[app].seen, ", "), len(events[app]))
				}
				table.addFault(c, f, got)
			}
		})
	}
	table.check(t)
	checkPages(t, all)
}

// arrived counts the rows of an app, in a scenario with a fault those of the
// events that it is about.
func arrived(events []stored, app string) int {
	count := 0
	for _, e := range events {
		if e.event == "Retried" || strings.HasSuffix(app, callsScenario) {
			count++
		}
	}
	return count
}

// newSite serves a page, the SDKs, and an API for pages to call.
func newSite(modules string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/sdk/", http.StripPrefix("/sdk/", http.FileServer(http.Dir(modules))))
	mux.HandleFunc("POST /api/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<!doctype html><title>Shop</title><p>Shop</p>")
	})
	return mux
}

// browse starts the browser and returns what its pages said once each has made
// its calls; closePages ends it.
func browse(t *testing.T, dir string, plan map[string]any) (said map[string]outcome, closePages func()) {
	t.Helper()
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "node", filepath.Join("drivers", "browser.js"))
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write(append(text, '\n')); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "RESULT "); ok {
			if err := json.Unmarshal([]byte(text), &said); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if said == nil {
		err := cmd.Wait()
		t.Fatalf("browser: %v\n%s", err, stderr.String())
	}
	return said, func() {
		_ = stdin.Close() // ends the driver
		if err := cmd.Wait(); err != nil {
			t.Errorf("browser: %v\n%s", err, stderr.String())
		}
	}
}
