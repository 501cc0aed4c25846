package console

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/test/harness/kit"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

// folderEnv names the folder of the screenshots; empty: none are taken.
const folderEnv = "UPTAKE_SCREENSHOTS"

// visit is a page that is opened.
type visit struct {
	Name  string                      `json:"name"`
	URL   string                      `json:"url"`
	Click string                      `json:"click,omitempty"` // selector of what is clicked first
	Await string                      `json:"await,omitempty"` // selector of what must appear
	says  []string                    // that its text must have
	check func(t *testing.T, p *seen) // beyond that
	code  int                         // 200 where zero
}

// look is a way to look at pages: one browser window.
type look struct {
	Name    string   `json:"name"`
	Width   int      `json:"width"`
	Height  int      `json:"height"`
	Scheme  string   `json:"scheme"`
	Phone   bool     `json:"phone"`
	Scripts bool     `json:"scripts"`
	Start   string   `json:"start"`   // opened first: it lets the window in
	Origins []string `json:"origins"` // that pages may ask
	Pages   []visit  `json:"pages"`
}

// seen is what a page showed.
type seen struct {
	Look, Page      string
	Status          int
	Title, Sentence string
	Text            string
	Tables          [][][]string
	Tiles           map[string]string
	Charts          int
	Wider           int // than the window, in pixels
	Errors          []string
	Elsewhere       []string
	Violations      []struct {
		Rule, Help string
		Nodes      []string
	}
}

// sent is what has to be on the pages.
type sent struct {
	people, accounts set[string]
	ofFeature        map[string]*tally
	ofAccount        map[string]*tally
	ofPerson         map[string]*tally
	events, rejected int
}

type set[T comparable] map[T]bool

type tally struct {
	events   int
	people   set[string]
	accounts set[string]
}

func sumUp(o *loadgen.Oracle) *sent {
	s := &sent{people: set[string]{}, accounts: set[string]{}, ofFeature: map[string]*tally{}, ofAccount: map[string]*tally{}, ofPerson: map[string]*tally{}}
	for _, r := range o.Counted() {
		s.events++
		for key, of := range map[string]map[string]*tally{"f" + r.Feature: s.ofFeature, "a" + r.Account: s.ofAccount, "p" + r.Actor: s.ofPerson} {
			if key = key[1:]; key == "" {
				continue
			}
			if of[key] == nil {
				of[key] = &tally{people: set[string]{}, accounts: set[string]{}}
			}
			of[key].events++
			if r.ActorKind != "account" {
				of[key].people[r.ActorKind+r.Actor] = true
			}
			if r.Account != "" {
				of[key].accounts[r.Account] = true
			}
		}
		if r.ActorKind != "account" {
			s.people[r.ActorKind+r.Actor] = true
		}
		if r.Account != "" {
			s.accounts[r.Account] = true
		}
	}
	for _, c := range o.Rejected() {
		s.rejected += c.Max
	}
	return s
}

// most is the key with the most events.
func most(of map[string]*tally) string {
	return slices.MaxFunc(slices.Sorted(maps.Keys(of)), func(a, b string) int { return cmp.Compare(of[a].events, of[b].events) })
}

// whole is a number as pages write it.
func whole(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return whole(n) + " " + many
}

// stage is a standalone with demo data.
type stage struct {
	*stack.Standalone
	token string
	sent  *sent
}

func start(t *testing.T) *stage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
	defer cancel()
	own, err := stack.StartStandalone(ctx, stack.StandaloneConfig{Dir: t.TempDir(), Keep: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(own.Tail(20))
		}
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := loadgen.DefaultConfig(time.Now())
	cfg.Events, cfg.Accounts, cfg.Seed = 6000, 40, 3
	plan, err := loadgen.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ledger := loadgen.NewLedger()
	sender := loadgen.Sender{URLs: []string{"http://" + own.Gateway}, WriteKey: "dev-write-key"}
	if err := sender.Run(ctx, plan, ledger, 0, len(plan.Requests)); err != nil {
		t.Fatal(err)
	}
	oracle := loadgen.NewOracle(stack.App, loadgen.Resolved)
	oracle.Add(plan, ledger)
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{own.ClickHouse}, Auth: clickhouse.Auth{Username: "uptake_reader"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if diff, err := loadgen.AwaitEqual(ctx, conn, stack.Database, oracle); err != nil || !diff.Equal() {
		t.Fatalf("%v\n%s", err, diff)
	}
	token, err := own.ConsoleToken()
	if err != nil {
		t.Fatal(err)
	}
	return &stage{Standalone: own, token: token, sent: sumUp(oracle)}
}

func (s *stage) origin() string { return "http://" + s.Console }

// page is the address of a page.
func (s *stage) page(path string, query ...string) string { return pageOf(s.origin(), path, query...) }

func pageOf(origin, path string, query ...string) string {
	q := url.Values{"app": {stack.App}, "p": {"28d"}, "zone": {"UTC"}}
	for i := 0; i < len(query); i += 2 {
		q.Add(query[i], query[i+1])
	}
	return origin + path + "?" + q.Encode()
}

// do makes a request as a program with the token does.
func (s *stage) do(t *testing.T, method, target string, form url.Values) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	if form != nil {
		r.Header.Set("Origin", s.origin())
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d, %v\n%.400s", target, answer.StatusCode, err, body)
	}
	return body
}

// rows are those of a question as JSON.
func (s *stage) rows(t *testing.T, question string, query ...string) []map[string]any {
	t.Helper()
	var answer struct{ Rows []map[string]any }
	if err := json.Unmarshal(s.do(t, http.MethodGet, s.page("/api/v1/"+question, query...), nil), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Rows
}

// keep saves questions on a board, and an annotation, as people do.
func (s *stage) keep(t *testing.T) (board string) {
	t.Helper()
	form := func(path string, fields ...string) {
		v := url.Values{"app": {stack.App}, "p": {"28d"}, "zone": {"UTC"}}
		for i := 0; i < len(fields); i += 2 {
			v.Set(fields[i], fields[i+1])
		}
		s.do(t, http.MethodPost, s.origin()+path, v)
	}
	form("/annotations", "day", time.Now().UTC().AddDate(0, 0, -5).Format(time.DateOnly), "category", "release", "text", "Release 2.4: new checkout")
	form("/saved", "query", "show=active", "name", "Active people and accounts", "newboard", "Monday")
	board = fmt.Sprint(s.rows(t, "boards")[0]["id"])
	form("/saved", "query", "show=funnel&step="+most(s.sent.ofFeature)+"&step=product_created", "name", "From the first sale to a product", "board", board)
	form("/saved", "query", "show=retention", "name", "Retention", "board", board)
	return board
}

// TestPages opens every page in every way.
func TestPages(t *testing.T) {
	longtest.Only(t)
	chromium, npm := kit.Chromium(t), kit.NPM("console", ".")
	modules := npm.Folder(t)
	s := start(t)
	board := s.keep(t)
	pages := s.pages(board)
	var looks []look
	for _, scheme := range []string{"light", "dark"} {
		looks = append(
			looks,
			look{Name: "desktop-" + scheme, Width: 1280, Height: 800, Scheme: scheme, Scripts: true, Pages: pages},
			look{Name: "phone-" + scheme, Width: 390, Height: 844, Scheme: scheme, Phone: true, Scripts: true, Pages: pages},
		)
	}
	looks = append(looks, look{Name: "without-scripts", Width: 1280, Height: 800, Scheme: "light", Pages: pages[:1]})
	for i := range looks {
		looks[i].Start, looks[i].Origins = s.origin()+"/?token="+s.token, []string{s.origin()}
	}
	looks = append(looks, s.signedIn(t))
	for _, p := range browse(t, modules, chromium, looks) {
		check(t, &p, looks)
	}
	s.jsonIsEqual(t)
}

// pages are all, with what must be on them.
func (s *stage) pages(board string) []visit {
	feature, account, person := most(s.sent.ofFeature), most(s.sent.ofAccount), most(s.sent.ofPerson)
	f, a, p := s.sent.ofFeature[feature], s.sent.ofAccount[account], s.sent.ofPerson[person]
	active := fmt.Sprintf("%s and %s were active", plural(len(s.sent.accounts), "account", "accounts"), plural(len(s.sent.people), "person", "people"))
	return []visit{
		{Name: "overview", URL: s.page("/overview"), says: []string{active + " in the last 28 days", "Release 2.4: new checkout"}, check: func(t *testing.T, p *seen) {
			if got := p.Tiles["Active people"]; p.Tiles != nil && got != whole(len(s.sent.people)) {
				t.Errorf("%s active people, want %d", got, len(s.sent.people))
			}
		}},
		{Name: "usage", URL: s.page("/usage"), check: func(t *testing.T, p *seen) {
			got := map[string][]string{} // people, accounts, events
			for _, table := range p.Tables {
				for _, row := range table[1:] {
					got[strings.Join([]string{row[3], row[6], row[7]}, " ")] = row
				}
			}
			for name, of := range s.sent.ofFeature {
				if want := strings.Join([]string{whole(len(of.people)), whole(len(of.accounts)), whole(of.events)}, " "); got[want] == nil {
					t.Errorf("no row has the people, accounts and events of %s: %s", name, want)
				}
			}
		}},
		{Name: "feature", URL: s.page("/feature", "feature", feature), says: []string{plural(len(f.accounts), "account", "accounts") + " used "}},
		{Name: "accounts", URL: s.page("/accounts"), says: []string{plural(len(s.sent.accounts), "account was", "accounts were") + " active"}, check: func(t *testing.T, p *seen) {
			var got, want []string
			for _, row := range p.Tables[0][1:] {
				if row[6] != "0" {
					got = append(got, row[4]+" "+row[6])
				}
			}
			for _, of := range s.sent.ofAccount {
				want = append(want, whole(len(of.people))+" "+whole(of.events))
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("people and events of accounts are %q, want %q", got, want)
			}
		}},
		{Name: "account", URL: s.page("/account", "account", account), says: []string{plural(len(a.people), "person", "people") + " of "}, check: func(t *testing.T, p *seen) {
			if got := p.Tiles["Active people"]; got != whole(len(a.people)) {
				t.Errorf("%s people, want %d", got, len(a.people))
			}
		}},
		{Name: "person", URL: s.page("/person", "person", person), says: []string{plural(p.events, "event", "events") + " in all"}},
		{Name: "explain", URL: s.page("/explain", "person", person), says: []string{plural(p.events, "event counts", "events count") + " for", "The parts add up to what is counted."}},
		{Name: "alerts", URL: s.page("/alerts")},
		{Name: "explore-trends", URL: s.page("/explore", "show", "trends", "by", "product")},
		{Name: "explore-funnel", URL: s.page("/explore", "show", "funnel", "step", feature, "step", "product_created"), check: func(t *testing.T, p *seen) {
			if got := p.Tables[0][1][2]; got != whole(len(f.people)) {
				t.Errorf("%s reached %s, want %d", got, feature, len(f.people))
			}
		}},
		{Name: "explore-retention", URL: s.page("/explore", "show", "retention")},
		{Name: "explore-paths", URL: s.page("/explore", "show", "paths", "step", feature)},
		{Name: "explore-breakdown", URL: s.page("/explore", "show", "breakdown", "path", "qty")},
		{Name: "explore-sessions", URL: s.page("/explore", "show", "sessions")},
		{Name: "explore-active", URL: s.page("/explore", "show", "active"), says: []string{active}},
		{Name: "boards", URL: s.page("/boards"), says: []string{"1 board", "3 saved questions"}},
		{Name: "board", URL: s.page("/board", "board", board), says: []string{active, "Retention"}},
		{Name: "annotations", URL: s.page("/annotations"), says: []string{"Release 2.4: new checkout"}},
		{Name: "live", URL: s.page("/live"), says: []string{"The newest event of"}},
		{Name: "quality", URL: s.page("/quality"), says: []string{plural(s.sent.rejected, "event was rejected", "events were rejected")}},
		{Name: "health", URL: s.page("/health"), says: []string{"Every accepted event of the last 72 hours is accounted for"}},
		{Name: "search", URL: s.page("/search", "q", account), says: []string{account}},
		{Name: "question", URL: s.page("/question", "name", "accounts"), says: []string{"FROM"}},
		{Name: "looks", URL: s.page("/looks"), says: []string{"holder of the token", person}},
		{Name: "refused", URL: s.page("/overview", "by", "nothing"), code: http.StatusBadRequest, says: []string{"is no dimension"}},
		{Name: "nowhere", URL: s.origin() + "/nowhere", code: http.StatusNotFound, says: []string{"There is no such page."}},
	}
}

// signedIn is a window of somebody who signs in at a provider, and to whom people are not
// shown, at a console of its own.
func (s *stage) signedIn(t *testing.T) look {
	t.Helper()
	provider := newProvider(t, "ana@example.com", "customer-success")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	access := filepath.Join(dir, "access.yaml")
	if err := os.WriteFile(access, []byte("groups:\n  customer-success: {role: viewer, apps: ["+stack.App+"], people: hidden}\n...\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	binary, err := stack.Binary(t.Context(), stack.Writer, stack.Build{})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(
		binary, "console", "-clickhouse-addr", s.ClickHouse, "-clickhouse-user", "uptake_reader", "-console-addr", addr, "-console-token-file", filepath.Join(dir, "token"), "-metrics-addr", "",
		"-console-oidc-issuer", provider.URL, "-console-oidc-client-id", "console", "-console-oidc-client-secret", "s3cret", "-console-url", "http://"+addr, "-console-access-file", access,
	)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it keeps nothing
		_ = cmd.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := stack.Await(ctx, "console", func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	origin, account := "http://"+addr, most(s.sent.ofAccount)
	return look{
		Name: "signed-in", Width: 1280, Height: 800, Scheme: "light", Scripts: true, Start: origin + "/overview", Origins: []string{origin, provider.URL},
		Pages: []visit{
			{Name: "overview", URL: pageOf(origin, "/overview"), says: []string{plural(len(s.sent.people), "person", "people") + " were active", "ana@example.com"}},
			{Name: "account", URL: pageOf(origin, "/account", "account", account), says: []string{"person ", "ana@example.com"}, check: func(t *testing.T, p *seen) {
				for id := range s.sent.ofAccount[account].people {
					if id = strings.TrimPrefix(id, "user"); strings.Contains(p.Text, id) {
						t.Errorf("names %s", id)
					}
				}
			}},
			{Name: "person", URL: pageOf(origin, "/person", "person", "x"), code: http.StatusForbidden, says: []string{"This page is about single people, who are not shown to you."}},
			{Name: "live", URL: pageOf(origin, "/live"), code: http.StatusForbidden, says: []string{"This page is for analysts."}},
		},
	}
}

// jsonIsEqual holds the API's numbers against what was sent.
func (s *stage) jsonIsEqual(t *testing.T) {
	t.Helper()
	of := map[string]int{}
	for _, r := range s.rows(t, "accounts") {
		of[fmt.Sprint(r["account_id"])] = int(r["uses"].(float64))
	}
	for id, want := range s.sent.ofAccount {
		if of[id] != want.events {
			t.Errorf("account %s has %d events as JSON, want %d", id, of[id], want.events)
		}
	}
	if row := s.rows(t, "summary")[0]; int(row["events"].(float64)) != s.sent.events {
		t.Errorf("%v events, want %d", row["events"], s.sent.events)
	}
}

// browse opens the pages.
func browse(t *testing.T, modules, chromium string, looks []look) (all []seen) {
	t.Helper()
	folder := os.Getenv(folderEnv)
	if folder != "" {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	plan, err := json.Marshal(map[string]any{"chromium": chromium, "folder": folder, "looks": looks})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "driver.js")
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(modules, "node_modules"))
	cmd.Stdin = strings.NewReader(string(plan) + "\n")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var p seen
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			t.Error(err)
		}
		all = append(all, p)
	}
	if err := cmd.Wait(); err != nil || lines.Err() != nil {
		t.Errorf("browser: %v, %v\n%s", err, lines.Err(), stderr.String())
	}
	return all
}

// check is what holds for every page, and what its visit says.
func check(t *testing.T, p *seen, looks []look) {
	l := looks[slices.IndexFunc(looks, func(l look) bool { return l.Name == p.Look })]
	v := l.Pages[slices.IndexFunc(l.Pages, func(v visit) bool { return v.Name == p.Page })]
	t.Run(p.Look+"/"+p.Page, func(t *testing.T) {
		if want := cmp.Or(v.code, http.StatusOK); p.Status != want {
			t.Errorf("status %d, want %d", p.Status, want)
		}
		for _, e := range p.Errors {
			if v.code == 0 || !strings.Contains(e, "Failed to load resource") { // what Chromium says of a refused page
				t.Errorf("the browser's console: %s", e)
			}
		}
		if len(p.Elsewhere) > 0 {
			t.Errorf("it asked %q", p.Elsewhere)
		}
		if p.Wider > 0 {
			t.Errorf("it is %d pixels wider than the window", p.Wider)
		}
		for _, found := range p.Violations {
			t.Errorf("%s: %s\n%s", found.Rule, found.Help, strings.Join(found.Nodes, "\n"))
		}
		for _, want := range v.says {
			if !strings.Contains(strings.Join(strings.Fields(p.Text), " "), want) {
				t.Errorf("it does not say %q; its sentence is %q", want, p.Sentence)
			}
		}
		if v.check != nil && p.Status == http.StatusOK {
			v.check(t, p)
		}
	})
}
