package console

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/rollup-writer/console/question"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/sqltest"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

// today of the tests: an instant in the middle of a day.
var today = time.Date(2026, 11, 20, 15, 30, 0, 0, time.UTC)

type stage struct {
	t    *testing.T
	c    *Console
	conn driver.Conn
	h    http.Handler
}

func start(t *testing.T, change ...func(*Config, *Dependencies)) *stage {
	t.Helper()
	addr, db := sqltest.Database(t)
	cfg := clickhouse.DefaultConfig()
	cfg.Addr, cfg.Database = addr, db
	conn := sqltest.Open(t, &cfg)
	own := DefaultConfig()
	own.ClickHouse, own.Addr, own.TokenFile = cfg, "127.0.0.1:0", filepath.Join(t.TempDir(), "token")
	own.QueryTimeout = 5 * time.Minute // no test depends on the speed of a machine
	own.ProxyPeers, own.ProxySecret = setting.Strings{"10.1.0.0/16"}, "a secret of the proxy"
	deps := Dependencies{Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Now: func() time.Time { return today }}
	for _, f := range change {
		f(&own, &deps)
	}
	c, err := New(own, deps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.ln.Close(); c.conns.Close() })
	return &stage{t: t, c: c, conn: conn, h: c.handler(t.Context())}
}

// usage is one event of a test.
type usage struct {
	account, kind, actor, feature, event string
	at                                   time.Time
}

func (s *stage) insert(events ...usage) {
	s.t.Helper()
	b, err := s.conn.PrepareBatch(s.t.Context(), "INSERT INTO events (app_id, kind, event, message_id, actor_id, actor_kind, account_id, account_source, feature_id, module_id, product_id, event_time, received_at, quantity, source_offset)")
	if err != nil {
		s.t.Fatal(err)
	}
	for i, e := range events {
		module, product := "", ""
		if e.feature != "" {
			module, product = "billing", "sales"
		}
		if err := b.Append("dev", "track", e.event, fmt.Sprintf("m%d", i), e.actor, e.kind, e.account, "event", e.feature, module, product, e.at, today.Add(-time.Minute), int64(1), int64(i)); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := b.Send(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) do(change func(*http.Request), target string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Host = s.c.access.hosts[0]
	r.Header.Set("Authorization", "Bearer "+s.c.access.token)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, r)
	return w
}

func (s *stage) page(target string) string {
	s.t.Helper()
	w := s.do(nil, target)
	if w.Code != http.StatusOK {
		s.t.Fatalf("%s: got %d\n%s", target, w.Code, w.Body)
	}
	return w.Body.String()
}

type answer struct {
	Closed bool `json:"period_is_closed"`
	Rows   []map[string]any
}

func (s *stage) ask(name, query string) answer {
	s.t.Helper()
	var a answer
	if err := json.Unmarshal([]byte(s.page("/api/v1/"+name+"?app=dev&"+query)), &a); err != nil {
		s.t.Fatal(err)
	}
	return a
}

// random events of 70 days, with ties, visitors, events of the account itself and
// events without a feature.
func random(seed uint64) []usage {
	rnd := rand.New(rand.NewPCG(seed, 7))
	var events []usage
	for range 600 {
		e := usage{
			account: fmt.Sprintf("acct-%d", rnd.IntN(6)), kind: "user", actor: fmt.Sprintf("user-%d", rnd.IntN(25)),
			feature: fmt.Sprintf("feature_%d", rnd.IntN(5)), event: "Some Event",
			at: today.Add(-time.Duration(rnd.IntN(70*24)) * time.Hour).Add(time.Duration(rnd.IntN(3600)) * time.Second),
		}
		switch rnd.IntN(10) {
		case 0:
			e.kind, e.actor = "anonymous", fmt.Sprintf("user-%d", rnd.IntN(4)) // a visitor's id may be a user's
		case 1:
			e.kind, e.actor = "account", ""
		case 2:
			e.feature, e.event = "", "Odd Event"
		case 3:
			e.account = ""
		}
		if e.at.After(today) {
			e.at = today
		}
		events = append(events, e)
	}
	return events
}

// The numbers of the summary, of the days, of the lifecycle and of retention are
// those that a loop over the events counts.
func TestNumbersAreWhatTheEventsSay(t *testing.T) {
	s := start(t)
	events := random(1)
	s.insert(events...)
	for _, zone := range []string{"UTC", "America/New_York", "Pacific/Auckland"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		const days = 14
		local := today.In(loc)
		midnight := func(back int) time.Time {
			return time.Date(local.Year(), local.Month(), local.Day()-back, 0, 0, 0, 0, loc)
		}
		from, before, to := midnight(days-1), midnight(2*days-1), midnight(-1)
		type set map[string]bool
		people, peopleBefore, accounts, ever := set{}, set{}, set{}, map[string]time.Time{}
		byDay := map[string]set{}
		count := 0
		for _, e := range events {
			who := e.kind + "/" + e.actor
			in, prior := !e.at.Before(from) && e.at.Before(to), !e.at.Before(before) && e.at.Before(from)
			if in {
				count++
				if e.account != "" {
					accounts[e.account] = true
				}
			}
			if e.kind == "account" {
				continue
			}
			if first, ok := ever[who]; !ok || e.at.Before(first) {
				ever[who] = e.at
			}
			if in {
				people[who] = true
				day := e.at.In(loc).Format(time.DateOnly)
				if byDay[day] == nil {
					byDay[day] = set{}
				}
				byDay[day][who] = true
			}
			if prior {
				peopleBefore[who] = true
			}
		}
		query := fmt.Sprintf("p=%dd&zone=%s", days, url.QueryEscape(zone))
		check := func(what string, got any, want int) {
			t.Helper()
			if n, ok := got.(float64); !ok || int(n) != want {
				t.Errorf("%s, %s: got %v, want %d", zone, what, got, want)
			}
		}
		row := s.ask("summary", query).Rows[0]
		check("people", row["people"], len(people))
		check("people before", row["people_before"], len(peopleBefore))
		check("accounts", row["accounts"], len(accounts))
		check("events", row["events"], count)

		var fresh, returning, resurrected, dormant int
		for who := range people {
			switch {
			case peopleBefore[who]:
				returning++
			case ever[who].Before(before):
				resurrected++
			default:
				fresh++
			}
		}
		for who := range peopleBefore {
			if !people[who] {
				dormant++
			}
		}
		row = s.ask("lifecycle", query).Rows[0]
		check("new", row["new"], fresh)
		check("returning", row["returning"], returning)
		check("resurrected", row["resurrected"], resurrected)
		check("dormant", row["dormant"], dormant)

		rows := s.ask("active_by_day", query).Rows
		if len(rows) != days {
			t.Errorf("%s: %d days, want %d", zone, len(rows), days)
		}
		sum := 0
		for _, r := range rows {
			day := r["day"].(string)[:10]
			check("people on "+day, r["people"], len(byDay[day]))
			sum += len(byDay[day])
		}
		stick := s.ask("stickiness", query).Rows[0]["stickiness"].(float64)
		if want := float64(sum) / days / float64(len(people)); stick < want-1e-9 || stick > want+1e-9 {
			t.Errorf("%s, stickiness: got %v, want %v", zone, stick, want)
		}
		// The page says what the question says.
		html := s.page("/overview?app=dev&" + query)
		if want := fmt.Sprintf("%d accounts and %d people were active", len(accounts), len(people)); !strings.Contains(html, want) {
			t.Errorf("%s: the overview does not say %q", zone, want)
		}
	}
}

// Cohorts, their sizes and who came back.
func TestRetention(t *testing.T) {
	s := start(t)
	events := random(2)
	s.insert(events...)
	monday := func(at time.Time) time.Time {
		d := at.Truncate(24 * time.Hour)
		return d.AddDate(0, 0, -(int(d.Weekday())+6)%7)
	}
	weeks := map[string]map[time.Time]bool{}
	for _, e := range events {
		if e.kind == "account" {
			continue
		}
		who := e.kind + "/" + e.actor
		if weeks[who] == nil {
			weeks[who] = map[time.Time]bool{}
		}
		weeks[who][monday(e.at)] = true
	}
	want := map[string]int{}
	for _, active := range weeks {
		var first time.Time
		for w := range active {
			if first.IsZero() || w.Before(first) {
				first = w
			}
		}
		for w := range active {
			want[fmt.Sprintf("%s %d", first.Format(time.DateOnly), int(w.Sub(first)/week))]++
		}
	}
	got := map[string]int{}
	for _, r := range s.ask("retention", "feature=").Rows {
		got[fmt.Sprintf("%s %d", r["cohort"].(string)[:10], int(r["week_number"].(float64)))] = int(r["people"].(float64))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Whoever was moved away is counted where he is now, at once.
func TestCorrectionsShowAtOnce(t *testing.T) {
	s := start(t)
	at := today.Add(-2 * time.Hour).Truncate(time.Hour)
	s.insert(usage{"shop", "anonymous", "a1", "scan", "Scan", at}, usage{"shop", "user", "maria", "scan", "Scan", at})
	if got := s.ask("summary", "p=7d").Rows[0]["people"]; got != 2.0 {
		t.Fatalf("before: %v people", got)
	}
	for _, row := range []struct {
		kind, actor string
		n           int64
	}{{"anonymous", "a1", -1}, {"user", "maria", 1}} {
		err := s.conn.Exec(t.Context(), "INSERT INTO corrections (app_id, account_id, account_source, actor_id, actor_kind, feature_id, module_id, product_id, event, hour, events, quantity) VALUES ('dev', 'shop', 'event', ?, ?, 'scan', 'billing', 'sales', 'Scan', ?, ?, ?)",
			row.actor, row.kind, at, row.n, row.n)
		if err != nil {
			t.Fatal(err)
		}
	}
	s.c.asker.cache = map[string]*Result{}
	if got := s.ask("summary", "p=7d").Rows[0]["people"]; got != 1.0 {
		t.Errorf("after the visitor was recognised: %v people, want 1", got)
	}
	if html := s.page("/feature?app=dev&feature=scan"); strings.Contains(html, "a1") {
		t.Error("the feature's page still shows the visitor")
	}
}

// A number opens what it is made of: what arrived, what corrections brought and took
// away, and the events as they count today.
func TestANumberIsExplained(t *testing.T) {
	s := start(t)
	at := today.Add(-2 * time.Hour).Truncate(time.Hour)
	s.insert(usage{"shop", "anonymous", "a1", "scan", "Scan", at}, usage{"shop", "user", "maria", "scan", "Scan", at}, usage{"shop", "user", "joan", "scan", "Scan", at})
	for i, row := range []struct {
		kind, actor string
		n           int64
	}{{"anonymous", "a1", -1}, {"user", "maria", 1}, {"user", "joan", -1}, {"erased", "", 1}} {
		err := s.conn.Exec(t.Context(), "INSERT INTO corrections (app_id, account_id, account_source, actor_id, actor_kind, feature_id, module_id, product_id, event, hour, events, quantity, source_offset, control_id, corrected_at, row) VALUES ('dev', 'shop', 'event', ?, ?, 'scan', 'billing', 'sales', 'Scan', ?, ?, ?, ?, 'c', ?, ?)",
			row.actor, row.kind, at, row.n, row.n, int64(5), at.Add(time.Minute), uint32(i+1))
		if err != nil {
			t.Fatal(err)
		}
	}
	for person, want := range map[string][4]int64{"maria": {1, 1, 0, 2}, "joan": {1, 0, 1, 0}, "a1": {1, 0, 1, 0}, "": {3, 2, 2, 3}} {
		query := "p=7d&account=shop&feature=scan&person=" + person
		got := [4]int64{}
		for _, r := range s.ask("explain_parts", query).Rows {
			i := int(r["part"].(string)[0] - '1')
			got[i] = int64(r["events"].(float64))
			if i == 2 {
				got[i] = -got[i]
			}
		}
		if got != want {
			t.Errorf("%q: got %v, want %v", person, got, want)
		}
		if n := int64(len(s.ask("explain_events", query).Rows)); n != want[3] {
			t.Errorf("%q: %d events, want %d", person, n, want[3])
		}
		html := s.page("/explain?app=dev&" + query)
		if !strings.Contains(html, "The parts add up to what is counted.") {
			t.Errorf("%q: the parts do not add up:\n%s", person, html)
		}
	}
	moves := s.ask("explain_moves", "p=7d&person=maria").Rows
	if len(moves) != 1 || moves[0]["reason"] != "link" || moves[0]["from_actor_id"] != "a1" || moves[0]["to_actor_id"] != "maria" {
		t.Errorf("moves of maria: %v", moves)
	}
	if moves := s.ask("explain_moves", "p=7d&person=joan").Rows; len(moves) != 1 || moves[0]["reason"] != "erase" || moves[0]["direction"] != "away" {
		t.Errorf("moves of joan: %v", moves)
	}
	if w := s.do(nil, "/explain?app=dev"); w.Code != http.StatusBadRequest && w.Code != http.StatusUnprocessableEntity {
		t.Errorf("without a subject: %d", w.Code)
	}
	if html := s.page("/person?app=dev&person=maria"); !strings.Contains(html, "/explain?account=shop") {
		t.Error("the person's page does not lead to the explanation")
	}
}

// Explore answers what is chosen in its address, in its first line.
func TestExplore(t *testing.T) {
	s := start(t)
	at := today.Add(-3 * time.Hour)
	s.insert(
		usage{"shop", "user", "maria", "scan", "Scan", at}, usage{"shop", "user", "maria", "pay", "Pay", at.Add(time.Minute)},
		usage{"shop", "user", "joan", "scan", "Scan", at}, usage{"shop", "user", "joan", "", "Look <up>", at.Add(time.Minute)},
		usage{"mill", "user", "ann", "scan", "Scan", at}, usage{"mill", "user", "ann", "pay", "Pay", at.Add(2 * time.Hour)},
	)
	for address, want := range map[string][]string{
		"show=funnel": {"Choose two steps or more", `<option>scan</option>`, `<option>event:Look &lt;up&gt;</option>`},
		"show=funnel&step=scan&step=pay&window=3600":                 {"Of 3 people who did scan in the last 7 days, 1 came to pay within 1 hour: 33 %.", "60 s"},
		"show=funnel&step=scan&step=&step=pay":                       {"2 came to pay within 1 day: 67 %."},
		"show=funnel&step=scan&step=pay&unit=account&by=account":     {"Of 2 accounts", "<td>mill<td", "<td>shop<td"},
		"show=funnel&step=pay&step=scan&ordering=any":                {"Of 3 people who did one of the steps in the last 7 days, 2 did all 2 within 1 day: 67 %.", "<td>1 of 2 steps<td", `value="any" selected`},
		"show=funnel&step=scan&step=pay&ordering=strict":             {"2 came to pay with nothing else in between within 1 day: 67 %."},
		"show=funnel&step=scan&step=event:Look+%3Cup%3E&without=pay": {"Of 3 people who did scan in the last 7 days, 1 came to event:Look &lt;up&gt; without pay within 1 day: 33 %."},
		"show=paths&step=scan":                                       {"<td>scan<td", "scan <span class=\"then\">→</span> pay"},
		"show=paths&step=pay&side=before":                            {"Most often there is nothing before pay in a session.", "<td>pay<td"},
		"show=breakdown":                                             {"Name a key"},
		"show=breakdown&path=method":                                 {"0 of 6 events have method"},
		"show=trends&by=feature":                                     {"scan had the most active people in a day"},
		"show=sessions":                                              {"4 sessions began"},
		"show=retention":                                             {"Retention by week"},
		"":                                                           {"sales had the most active people"},
	} {
		html := s.page("/explore?app=dev&p=7d&" + address)
		for _, w := range want {
			if !strings.Contains(html, w) {
				t.Errorf("%s: no %q in\n%s", address, w, html[strings.Index(html, "<main"):])
			}
		}
	}
	// The API answers with the same values.
	if rows := s.ask("funnel", "p=7d&step=scan&step=pay&window=3600").Rows; len(rows) != 2 || rows[1]["reached"] != 1.0 {
		t.Errorf("got %v", rows)
	}
	for address, want := range map[string]string{
		"/explore?app=dev&show=charts":                                      "There is no &#34;charts&#34; under Explore",
		"/explore?app=dev&show=funnel&window=soon":                          "is not a whole number",
		"/explore?app=dev&show=funnel&unit=company":                         "is unknown",
		"/explore?app=dev&show=funnel&ordering=random":                      "ordering=&#34;random&#34; is unknown",
		"/explore?app=dev&show=funnel" + strings.Repeat("&without=scan", 9): "Give at most 8.",
		"/explore?app=dev&by=colour":                                        "is no dimension",
		"/explore?app=dev&show=funnel" + strings.Repeat("&step=scan", 9):    "Give at most 8.",
		"/api/v1/funnel?app=dev":                                            "names no step",
	} {
		if w := s.do(nil, address); w.Code != http.StatusBadRequest && w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: got %d %s, want %q", address, w.Code, w.Body, want)
		}
	}
	if html := s.page("/feature?app=dev&p=7d&feature=scan"); !strings.Contains(html, "What they do after it") || !strings.Contains(html, "event:Look &lt;up&gt;") {
		t.Error("the page of a feature does not show what its people did next")
	}
}

// Every page and every question can be drawn, with and without data, and with
// names that are HTML, SQL or formulas.
func TestEveryPageIsDrawn(t *testing.T) {
	const evil = `<script>alert(1)</script>' OR 1=1 --{{.}}`
	paths := []string{"/overview?app=dev", "/usage?app=dev", "/accounts?app=dev", "/explore?app=dev", "/explore?app=dev&show=funnel&step=scan&step=event:Odd+Event&unit=account&by=account.plan", "/explore?app=dev&show=paths&step=scan", "/explore?app=dev&show=breakdown&path=a.b", "/explore?app=dev&show=sessions", "/live?app=dev", "/quality?app=dev", "/alerts?app=dev", "/health?app=dev", "/search?app=dev&q=a"}
	for _, id := range []string{"shop", evil, "nobody"} {
		q := url.QueryEscape(id)
		paths = append(paths, "/feature?app=dev&feature="+q, "/account?app=dev&account="+q, "/person?app=dev&person="+q, "/overview?app="+q, "/live?app=dev&q="+q, "/search?app=dev&q="+q, "/explore?app=dev&show=retention&feature="+q, "/explore?app=dev&show=funnel&step="+q+"&step=scan&by=account."+q, "/explore?app=dev&show=paths&side=before&step="+q, "/explore?app=dev&show=breakdown&path="+q)
	}
	for _, name := range question.Names() {
		paths = append(paths, "/question?app=dev&name="+name+"&account=shop&person=maria&feature=scan&step=scan&step=feature_1&path=a&by=product", "/api/v1/"+name+"?app=dev&format=csv&account=shop&person=maria&feature=scan&step=scan&step=feature_1&path=a&by=product")
	}
	s := start(t)
	for i := range 2 {
		for _, path := range paths {
			body := s.page(path)
			if !strings.HasPrefix(path, "/api/") && strings.Contains(body, "<script>alert") { // CSV is never shown as a page
				t.Errorf("%s: a name became HTML", path)
			}
			for _, m := range regexp.MustCompile(`(?:src|href|action)="([a-z]+:[^"]*|//[^"]*)"`).FindAllStringSubmatch(body, -1) {
				if !strings.HasPrefix(m[1], "data:") {
					t.Errorf("%s leads to another host: %s", path, m[1])
				}
			}
		}
		if i == 0 {
			s.c.asker.cache = map[string]*Result{}
			events := random(3)
			for _, name := range []string{evil, "=HYPERLINK(1)"} {
				events = append(events, usage{name, "user", name, name, name, today.Add(-time.Hour)}, usage{name, "anonymous", name, "", name, today.Add(-time.Hour)})
			}
			events = append(events, usage{"shop", "user", "maria", "scan", "Scan", today.Add(-time.Hour)})
			s.insert(events...)
			if err := s.conn.Exec(t.Context(), "INSERT INTO rejected_events (app_id, stage, code, field, detail, protocol, received_at, rejected_at, original) VALUES ('dev', 'gateway', 'bad_field', ?, ?, 'segment', ?, ?, ?)",
				evil, evil, today.Add(-time.Minute), today.Add(-time.Minute), evil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if csv := s.page("/api/v1/accounts?app=dev&format=csv"); !strings.Contains(csv, "\n'=HYPERLINK(1)") {
		t.Error("an account's name is a formula in the CSV")
	}
	// The values of a question never become part of its text.
	if rows := s.ask("summary", "p=7d&account="+url.QueryEscape("' OR 1=1 --")).Rows; len(rows) != 1 {
		t.Errorf("%d rows", len(rows))
	}
}

func TestWhoMaySeeIt(t *testing.T) {
	s := start(t)
	without := func(r *http.Request) { r.Header.Del("Authorization") }
	proxied := func(r *http.Request, from, secret string) {
		r.RemoteAddr = from
		r.Header.Set("X-Proxy-Secret", secret)
		r.Header.Set("Remote-User", "maria")
	}
	for name, tt := range map[string]struct {
		change func(*http.Request)
		target string
		want   int
	}{
		"the token":     {nil, "/overview", 200},
		"nothing":       {without, "/overview", 401},
		"data without":  {without, "/api/v1/summary?app=dev", 401},
		"live without":  {without, "/live/events?app=dev", 401},
		"another token": {func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, "/overview", 401},
		"a wrong cookie": {func(r *http.Request) {
			without(r)
			r.AddCookie(&http.Cookie{Name: cookieName, Value: s.c.access.token})
		}, "/overview", 401},
		"the cookie": {func(r *http.Request) {
			without(r)
			r.AddCookie(&http.Cookie{Name: cookieName, Value: s.c.access.cookie()})
		}, "/overview", 200},
		"a proxy's user":                 {func(r *http.Request) { without(r); proxied(r, "10.1.2.3:999", "a secret of the proxy") }, "/overview", 200},
		"a proxy without its secret":     {func(r *http.Request) { without(r); proxied(r, "10.1.2.3:999", "another") }, "/overview", 401},
		"somebody else who names a user": {func(r *http.Request) { without(r); proxied(r, "10.2.2.3:999", "a secret of the proxy") }, "/overview", 401},
		"a name that is bound":           {func(r *http.Request) { r.Host = "evil.example:8088" }, "/overview", 421},
		"no name":                        {func(r *http.Request) { r.Host = "" }, "/overview", 421},
		"a write":                        {func(r *http.Request) { r.Method = http.MethodPost }, "/overview", 403},
		"a write of its own":             {func(r *http.Request) { r.Method = http.MethodPost; r.Header.Set("Origin", "http://"+r.Host) }, "/overview", 405},
		"another method":                 {func(r *http.Request) { r.Method = http.MethodPut }, "/live/test", 405},
		"the printed address":            {without, "/?token=" + s.c.access.token, 302},
		"style needs no token":           {without, "/static/console.css", 200},
		"no files beside it":             {nil, "/static/../console.go", 404},
		"a page that is not":             {nil, "/nope", 404},
		"a period that is none":          {nil, "/overview?p=x", 400},
		"a zone that is none":            {nil, "/overview?zone=Mars", 400},
		"a zone of half hours":           {nil, "/overview?zone=Asia%2FKolkata", 400},
		"a question that is no":          {nil, "/api/v1/x?app=dev", 404},
		"no app":                         {nil, "/api/v1/summary", 400},
	} {
		w := s.do(tt.change, tt.target)
		if w.Code != tt.want && (tt.want != 404 || w.Code != http.StatusTemporaryRedirect) {
			t.Errorf("%s: got %d, want %d", name, w.Code, tt.want)
		}
		if csp := w.Header().Get("Content-Security-Policy"); csp != policy {
			t.Errorf("%s: Content-Security-Policy %q", name, csp)
		}
	}
	w := s.do(without, "/?token="+s.c.access.token)
	c := w.Result().Cookies()
	if len(c) != 1 || c[0].SameSite != http.SameSiteStrictMode || !c[0].HttpOnly || strings.Contains(w.Header().Get("Location"), "token") {
		t.Errorf("got %v, to %s", c, w.Header().Get("Location"))
	}
	if again, err := ReadToken(s.c.cfg.TokenFile); err != nil || again != s.c.access.token {
		t.Errorf("the token did not stay: %v", err)
	}
}

// Feedback on an alert is taken from the Alerts page and from the link of a message, by
// POST from a page of the console only. The link shows its one alert and nothing else.
func TestFeedback(t *testing.T) {
	s := start(t)
	const secret = "a secret of sixteen bytes"
	var got []signal.Acknowledgement
	var fault error
	s.c.cfg.FeedbackSecret = secret
	s.c.acknowledge = func(_ context.Context, f signal.Acknowledgement) error { got = append(got, f); return fault }
	s.h = s.c.handler(t.Context())
	if err := s.conn.Exec(t.Context(), "INSERT INTO "+s.c.cfg.ClickHouse.Schema().Table("signal_log")+` (app_id, signal_use, alert_id, message_id, signal, state, level, subject, severity, owner, title, reason, playbook, valid_from, written_at) VALUES
			('dev', 'alert', 'a1', 'm1', 'silent', 'firing', 'account', 'acme', 'critical', 'cs', 'Gone <i>silent</i>', '0 events in 7d, below 1', 'Call.', '2026-11-19', '2026-11-20'),
			('dev', 'alert', 'a2', 'm2', 'silent', 'firing', 'account', 'beta', 'critical', 'cs', 'Gone silent', 'x', 'Call.', '2026-11-18', '2026-11-19')`); err != nil {
		t.Fatal(err)
	}
	token := signal.Link{App: "dev", AlertID: "a1", Recipient: "cs", Expires: today.Add(time.Hour)}.Sign(secret)
	old := signal.Link{App: "dev", AlertID: "a1", Recipient: "cs", Expires: today}.Sign(secret)
	stranger := func(r *http.Request) { r.Header.Del("Authorization") }

	w := s.do(stranger, "/feedback?link="+token)
	html := w.Body.String()
	for _, want := range []string{"Was this alert useful?", "Gone &lt;i&gt;silent", "acme", `method="post"`, `value="false_positive"`} {
		if w.Code != http.StatusOK || !strings.Contains(html, want) {
			t.Errorf("the link's page: %d, no %q in\n%s", w.Code, want, html)
		}
	}
	if strings.Contains(html, "beta") || strings.Contains(html, `aria-label="Pages"`) {
		t.Error("the link's page shows more than its alert")
	}
	if len(got) != 0 {
		t.Error("opening the link was taken for feedback")
	}

	post := func(path, origin string, signedIn bool, form url.Values) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
		r.Host = s.c.access.hosts[0]
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		if signedIn {
			r.AddCookie(&http.Cookie{Name: cookieName, Value: s.c.access.cookie()})
		}
		w := httptest.NewRecorder()
		s.h.ServeHTTP(w, r)
		return w
	}
	own := "http://" + s.c.access.hosts[0]
	link, button := url.Values{"link": {token}, "answer": {"useful"}, "note": {"called"}, "alert": {"a2"}}, url.Values{"app": {"dev"}, "alert": {"a2"}, "answer": {"false_positive"}}
	for name, tt := range map[string]struct {
		path, origin string
		signedIn     bool
		form         url.Values
		code         int
		want         *signal.Acknowledgement
	}{
		"by the link":                {"/feedback", own, false, link, 303, &signal.Acknowledgement{AlertID: "a1", By: "cs", Feedback: "useful", Note: "called"}},
		"by a button":                {"/alerts/feedback", own, true, button, 303, &signal.Acknowledgement{AlertID: "a2", By: "console", Feedback: "false_positive"}},
		"a button without sign-in":   {"/alerts/feedback", own, false, button, 401, nil},
		"from another site":          {"/alerts/feedback", "https://evil.example", true, button, 403, nil},
		"the link from another site": {"/feedback", "https://evil.example", false, link, 403, nil},
		"an origin that is hidden":   {"/feedback", "null", false, link, 403, nil},
		"from no page":               {"/feedback", "", false, link, 403, nil},
		"an old link":                {"/feedback", own, false, url.Values{"link": {old}}, 410, nil},
		"a forged link":              {"/feedback", own, false, url.Values{"link": {token + "x"}}, 403, nil},
		"no link, signed in":         {"/feedback", own, true, button, 403, nil},
		"an alert of another app":    {"/alerts/feedback", own, true, url.Values{"app": {"other"}, "alert": {"a2"}}, 404, nil},
		"an unknown answer":          {"/alerts/feedback", own, true, url.Values{"app": {"dev"}, "alert": {"a2"}, "answer": {"x"}}, 400, nil},
		"a long note":                {"/feedback", own, false, url.Values{"link": {token}, "note": {strings.Repeat("x", maxNote+1)}}, 400, nil},
		"another page":               {"/overview", own, true, nil, 404, nil},
	} {
		got = nil
		w := post(tt.path, tt.origin, tt.signedIn, tt.form)
		if w.Code != tt.code && (name != "another page" || w.Code != http.StatusMethodNotAllowed) {
			t.Errorf("%s: got %d, want %d: %s", name, w.Code, tt.code, w.Body)
		}
		if tt.want == nil && len(got) > 0 || tt.want != nil && (len(got) != 1 || got[0] != *tt.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
	if html := s.do(stranger, "/feedback?answer=useful&link="+token).Body.String(); !strings.Contains(html, "acknowledged as useful") || strings.Contains(html, "<form class") {
		t.Errorf("afterwards the page does not say what was recorded:\n%s", html)
	}
	if html := s.page("/alerts?app=dev"); !strings.Contains(html, `action="/alerts/feedback"`) {
		t.Error("the Alerts page has no buttons")
	}
	fault = errors.New("no broker")
	if w := post("/feedback", own, false, link); w.Code != http.StatusBadGateway || strings.Contains(w.Body.String(), "no broker") {
		t.Errorf("a log that does not take it: %d %s", w.Code, w.Body)
	}
}

func TestConfigFaultsAreAllNamed(t *testing.T) {
	err := (&Config{Addr: "0.0.0.0:80", Zone: "Nowhere", ProxySecret: "x"}).Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, name := range []string{"console-addr", "console-proxy-secret", "clickhouse-addr", "console-token-file", "console-zone", "console-query-timeout", "console-query-rows"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in %v", name, err)
		}
	}
}

// A question past its bounds is refused in words that people can use.
func TestBoundsAreSaid(t *testing.T) {
	s := start(t)
	s.insert(random(4)...)
	s.c.asker.cfg.QueryRows = 10
	w := s.do(nil, "/overview?app=dev")
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "would read more than 10 rows (console-query-rows).") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	s.c.asker.cfg.QueryRows, s.c.asker.cfg.QueryTimeout, s.c.asker.cfg.QueryMemory = 1<<62, time.Second, 3<<20
	for sql, want := range map[string]string{
		"SELECT sum(sipHash64(number)) FROM numbers(100000000000)": "takes longer than 1s (console-query-timeout)",
		"SELECT length(groupArray(number)) FROM numbers(10000000)": "needs more memory than ClickHouse or the console allows: 3 MiB (console-query-memory)",
	} {
		if _, err := s.c.asker.query(t.Context(), &question.Question{Name: "x", SQL: sql}, nil, today); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", sql, err, want)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // ClickHouse does not stop in time
	defer cancel()
	if _, err := s.c.asker.query(short, &question.Question{Name: "x", SQL: "SELECT sleep(1)"}, nil, today); err == nil || !strings.Contains(err.Error(), "console-query-timeout") {
		t.Errorf("got %v, want a refusal that names console-query-timeout", err)
	}
	// A page never writes, whatever its user may.
	ctx := context.Background()
	_, err := s.c.asker.query(ctx, &question.Question{Name: "x", SQL: "CREATE TABLE x (a UInt8) ENGINE = Memory"}, nil, today)
	if err == nil || !strings.Contains(err.Error(), "readonly") {
		t.Errorf("got %v, want a refusal of readonly mode", err)
	}
}

// What arrives shows in the open live view, each event once.
func TestLiveViewLightsUp(t *testing.T) {
	s := start(t)
	now := func() time.Time { return time.Now() }
	s.c.now, s.c.asker.now = now, func() time.Time { return time.Now().Add(time.Hour * time.Duration(rand.IntN(1e6))) } // nothing is kept
	server := httptest.NewServer(s.h)
	defer server.Close()
	s.c.access.hosts = append(s.c.access.hosts, strings.TrimPrefix(server.URL, "http://"))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/live/events?app=dev", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.c.access.token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := s.conn.Exec(t.Context(), "INSERT INTO events (app_id, kind, event, message_id, actor_id, actor_kind, feature_id, event_time, received_at) VALUES ('dev', 'track', 'First One', 'id-1', 'maria', 'user', 'scan', now64(6), now64(6)), ('dev', 'track', 'Odd', 'id-2', 'maria', 'user', '', now64(6), now64(6))"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	var data []string
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			data = append(data, text)
			break
		}
	}
	var html string
	if len(data) == 0 || json.Unmarshal([]byte(data[0]), &html) != nil {
		t.Fatalf("got %v, %v", data, lines.Err())
	}
	for _, want := range []string{"First One", "● counted", "○ unmapped", "id-2"} {
		if !strings.Contains(html, want) {
			t.Errorf("%q is missing in %s", want, html)
		}
	}
	_ = resp.Body.Close() // the stream has no end of its own
	_, _ = io.Copy(io.Discard, resp.Body)
}

func TestTextsToPaste(t *testing.T) {
	if got := shellQuote("it's"); got != `'it'\''s'` {
		t.Errorf("got %s", got)
	}
	if !slices.IsSorted(question.Names()) {
		t.Error("names are not sorted")
	}
}

// Health, alerts and milestones of an account stand on its page, its score in the
// list, and every alert under Alerts.
func TestSignalsAreShown(t *testing.T) {
	s := start(t)
	s.insert(usage{"acme", "user", "u", "scan", "Scan", today.Add(-time.Hour)})
	schema := s.c.cfg.ClickHouse.Schema()
	rule := `{"id":"first","version":1,"description":"The first <b>scan</b>","owner":"cs","level":"account","of":[{"match":"feature","value":"scan"}],"times":1}`
	for _, q := range []string{
		"INSERT INTO " + schema.Table("signal_log") + ` (app_id, signal_use, alert_id, message_id, signal, state, level, subject, severity, owner, title, reason, playbook, valid_from, written_at) VALUES
			('dev', 'alert', 'a1', 'm1', 'silent', 'firing', 'account', 'acme', 'critical', 'cs', 'Gone <i>silent</i>', '0 events in 7d, below 1', 'Call.', '2026-11-19', '2026-11-20'),
			('dev', 'alert', 'a2', 'm2', 'silent', 'firing', 'account', 'beta', 'critical', 'cs', 'Gone silent', 'x', 'Call.', '2026-11-18', '2026-11-19'),
			('dev', 'alert', 'a2', 'm3', 'silent', 'retracted', 'account', 'beta', 'critical', 'cs', 'Gone silent', 'withdrawn: history was corrected', 'Call.', '2026-11-18', '2026-11-20'),
			('other', 'alert', 'a3', 'm4', 'silent', 'firing', 'account', 'acme', 'critical', 'cs', 'of another app', 'x', '', '2026-11-18', '2026-11-19')`,
		"INSERT INTO " + schema.Table("health_scores") + ` (app_id, health_id, account_id, day, score, band, score_4w, score_12w, reason, priority, parts, written_at) VALUES
			('dev', 'fit', 'acme', '2026-11-19', 41.6, 'fair', 70, 80, 'depth fell', 0.6, [('depth', 'behaviour', 1, 5, 2, 0.2, -30, 'features in 28d: 1, full at 5')], '2026-11-20')`,
		"INSERT INTO " + schema.Table("insight_rules") + " (app_id, version, use, match, key, value, applied_at) VALUES ('dev', 1, 'milestone', 'account', 'first', '" + rule + "', now64(3))",
	} {
		if err := s.conn.Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	for target, want := range map[string][]string{
		"/account?app=dev&account=acme": {"Gone &lt;i&gt;silent&lt;/i&gt;", "0 events in 7d, below 1", "41.6", "fair", "features in 28d: 1, full at 5", "The first &lt;b&gt;scan&lt;/b&gt;", "reached"},
		"/accounts?app=dev":             {`title="fair">42<`, "1 alert<"},
		"/alerts?app=dev":               {"1 alert fires, 1 of them not acknowledged.", "retracted", "withdrawn: history was corrected", "/account?account=acme"},
	} {
		html := s.page(target)
		for _, w := range want {
			if !strings.Contains(html, w) {
				t.Errorf("%s: no %q in\n%s", target, w, html)
			}
		}
		if strings.Contains(html, "of another app") || strings.Contains(html, "<i>silent") {
			t.Errorf("%s shows what it must not", target)
		}
	}
}

// Charts reach to the period's end, also where nothing happened on its last days: else the
// last day with something would stand for the one that is not over.
func TestAxisReachesToThePeriodsEnd(t *testing.T) {
	s := start(t)
	s.insert(usage{"shop", "user", "maria", "scan", "Scan", today.AddDate(0, 0, -5)})
	for _, target := range []string{"/explore?app=dev&p=7d&zone=UTC&show=trends&by=feature", "/explore?app=dev&p=7d&zone=UTC&show=sessions", "/explore?app=dev&p=7d&zone=UTC&show=active"} {
		html := s.page(target)
		if !strings.Contains(html, "Fri 20 Nov 2026\n0 ") || !strings.Contains(html, "Sat 14 Nov 2026\n0 ") || !strings.Contains(html, "Sun 15 Nov 2026\n1 ") {
			t.Errorf("%s: the chart has not all days of the period", target)
		}
	}
	at := func(day string) time.Time {
		d, err := time.Parse(time.DateOnly, day)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	scope := &scope{From: at("2026-10-28"), To: at("2026-11-04"), Zone: time.UTC}
	for grain, want := range map[string][]time.Time{"week": {at("2026-10-19"), at("2026-10-26"), at("2026-11-02")}, "month": {at("2026-10-01"), at("2026-10-19"), at("2026-11-01")}} {
		if got := scope.axis(grain, []time.Time{at("2026-10-19")}); !slices.Equal(got, want) {
			t.Errorf("by %s: got %v, want %v", grain, got, want)
		}
	}
}
