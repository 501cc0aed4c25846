package analytics

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/uptakehq/uptake/rollup-writer/behaviour"
	"github.com/uptakehq/uptake/schemas/catalog"
	catalogsample "github.com/uptakehq/uptake/schemas/catalog/sample"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/insight/sample"
	"github.com/uptakehq/uptake/test/loadgen"
)

var update = flag.Bool("update", false, "rewrite the results in docs/questions.md")

// demo loads a fixed week of the demo's traffic, as the pipeline leaves it, with
// the sample catalog and the sample definitions.
func demo(t *testing.T, s store) (*World, *loadgen.Stories) {
	t.Helper()
	c := loadgen.DefaultConfig(time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC))
	c.Events, c.Accounts, c.Stories = 12_000, 60, true
	p, err := loadgen.New(c)
	if err != nil {
		t.Fatal(err)
	}
	w, err := FromPlan("dev", p)
	if err != nil {
		t.Fatal(err)
	}
	s.load(t, w)
	features, err := catalog.Parse(catalogsample.MyPOS)
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	features.Each(func(p *catalog.Product, m *catalog.Module, f *catalog.Feature) {
		rows = append(rows, tuple(w.App, f.ID, f.Name, m.ID, p.ID, f.Kind, f.Status, 1))
	})
	s.insert(t, s.internal+".catalog_features", "app_id, feature_id, feature_name, module_id, product_id, kind, status, catalog_version", rows)
	d, err := insight.Parse(sample.MyPOS)
	if err != nil {
		t.Fatal(err)
	}
	rows = nil
	for _, r := range d.Rules {
		rows = append(rows, tuple(w.App, 3, r.Use, r.Match, r.Key, r.Value))
	}
	s.insert(t, s.internal+".insight_rules", "app_id, version, use, match, key, value", rows)
	w.Definitions = Definitions{
		ActiveModules: []string{"billing"}, ActiveFeatures: []string{"payment_received"}, ExcludedDomains: []string{"mypos.example"}, ExcludedAccountTrait: [2]string{"plan", "internal"},
		SignupPage: "event:Self Checkout", Signup: "feature:loyalty_program_opt_in", Activation: "feature:item_invoiced", Value: "feature:payment_received", Paid: "feature:invoice_generated",
		Friction: "feature:refund_processed", SessionGap: 30 * time.Minute,
	}
	// An API's calls, which the demo does not send.
	s.exec(t, `INSERT INTO events (app_id, kind, event, message_id, actor_id, actor_kind, user_id, account_id, event_time, received_at, quantity, properties, source_topic_id, source_partition, source_offset)
		SELECT 'api', 'api_call', 'GET /v1/items/{id}', concat('c', toString(number)), concat('u', toString(number % 7)), 'user', concat('u', toString(number % 7)), concat('shop', toString(number % 3)),
			toDateTime64('2026-11-16 09:00:00', 6, 'UTC') + number, now(), 1, concat('{"method":"', if(number % 4 = 0, 'PUT', 'GET'), '","route":"/v1/items/{id}","status":', toString(if(number % 10 = 0, 503, 200)), ',"duration_ms":', toString(5 + number % 40), '}'), 't1', 0, number FROM numbers(200)`)
	// Visitors of a web site, whose clients the demo does not send. Each comes again on the
	// next day, some by another way, and every fourth signs up then.
	s.exec(t, `INSERT INTO events (app_id, kind, event, message_id, anonymous_id, actor_id, actor_kind, feature_id, event_time, received_at, quantity, country, browser, os, device_class, referrer, utm_source, utm_medium, utm_campaign,
			source_topic_id, source_partition, source_offset)
		SELECT 'web', 'page', multiIf(visit = 0, 'Home', visitor % 4 = 0, 'Signed Up', 'Pricing'), concat('w', toString(number)), concat('a', toString(visitor)) AS anonymous, anonymous, 'anonymous', multiIf(visit = 0, '', visitor % 4 = 0, 'sign_up', 'pricing'),
			toDateTime64('2026-11-16 09:00:00', 6, 'UTC') + visitor * 60 + visit * 86400, now(), 1, ['AT', 'DE', 'US', ''][visitor % 4 + 1], ['Chrome', 'Safari', 'Firefox'][visitor % 3 + 1], ['Windows', 'iOS', 'Linux'][visitor % 3 + 1], ['desktop', 'mobile', 'desktop'][visitor % 3 + 1],
			multiIf(visit = 0 AND visitor % 3 = 1, 'search.example', visit = 1 AND visitor % 5 = 0, 'blog.example', ''), if(visit = 0 AND visitor % 3 = 0, 'newsletter', ''), if(visit = 0 AND visitor % 3 = 0, 'email', ''), if(visit = 0 AND visitor % 3 = 0, 'november', ''),
			't1', 0, number
		FROM (SELECT number, intDiv(number, 2) AS visitor, number % 2 AS visit FROM numbers(120))`)
	return w, p.Stories
}

var (
	block   = regexp.MustCompile("(?s)```sql\n(.*?)```\n\n```text\n(.*?)```")
	section = regexp.MustCompile(`(?m)^## (.+)$`)
)

// Every statement of docs/questions.md returns what the page shows on the demo's
// data, and what the oracle says of it.
func TestQuestionsPage(t *testing.T) {
	const page = "../../docs/questions.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	w, stories := demo(t, s)
	for _, unit := range []string{behaviour.Users, behaviour.Accounts} {
		s.cluster(t, w, unit)
	}
	n := 0
	out := block.ReplaceAllStringFunc(string(text), func(b string) string {
		n++
		m := block.FindStringSubmatch(b)
		got, err := s.pretty(t, strings.TrimSuffix(strings.TrimSpace(m[1]), ";"))
		if err != nil {
			t.Errorf("%.800v\nin %s", err, m[1])
			return b
		}
		if got != m[2] && !*update {
			t.Errorf("%s\ngot:\n%s\nthe page has:\n%s", m[1], got, m[2])
		}
		return "```sql\n" + m[1] + "```\n\n```text\n" + got + "```"
	})
	if *update {
		if err := os.WriteFile(page, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if headings := section.FindAllString(string(text), -1); n < 20 || len(headings) > n {
		t.Errorf("%d statements with results under %d headings", n, len(headings))
	}
	o, err := NewOracle(w)
	if err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("(app = '%s', from = '%s', to = '%s', zone = '%s'", w.App, w.From, w.To, w.Zone)
	for _, q := range []question{
		{"SELECT * EXCEPT app_id FROM active_users" + base + ", period = 'day')", o.ActiveUsersBy("day", "")},
		{"SELECT * EXCEPT app_id FROM stickiness" + base + ")", o.Stickiness()},
		{"SELECT * EXCEPT app_id FROM retention" + base + ", period = 'day')", o.Retention("day", "person", nil, nil)},
		{"SELECT * EXCEPT app_id FROM fit" + base + ")", o.Fit()},
		{"SELECT * EXCEPT app_id FROM time_to_value" + base + ")", o.TimeToValue()},
	} {
		compare(t, s, q)
	}
	personas(t, s, w, stories)
	planted(t, s, w, stories)
	bounds(t, s)
	dashboard(t, s)
}

// dashboard runs the queries of the Grafana dashboard on the same data.
func dashboard(t *testing.T, s store) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/grafana/usage.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ RawSQL string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	// What Grafana puts in for its macros and variables.
	fill := strings.NewReplacer("$__fromTime", "toDateTime(1794787200)", "$__toTime", "toDateTime(1795305600)", "${app}", "dev", "${zone}", "Europe/Vienna", "${period}", "day")
	for _, p := range d.Panels {
		if len(p.Targets) != 1 {
			t.Errorf("panel %q has %d queries, want 1", p.Title, len(p.Targets))
			continue
		}
		q := fill.Replace(p.Targets[0].RawSQL)
		rows, err := s.rows(t.Context(), q)
		if err != nil || strings.Contains(q, "$") {
			t.Errorf("panel %q: %.500v in %s", p.Title, err, q)
		}
		if len(rows) == 0 && p.Title != "Left out" {
			t.Errorf("panel %q has no rows: %s", p.Title, q)
		}
	}
	if len(d.Panels) < 10 {
		t.Errorf("the dashboard has %d panels", len(d.Panels))
	}
}

// pretty is a result with a line of names, columns aligned by spaces.
// bounds holds the codes and words of docs/queries.md against what ClickHouse says.
func bounds(t *testing.T, s store) {
	t.Helper()
	page, err := os.ReadFile("../../docs/queries.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		query, words string
		code         int32
	}{
		{"SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1 SETTINGS max_execution_time = 1", "Timeout exceeded: elapsed", 159},
		{"SELECT length(groupArray(number)) FROM numbers(100000000) SETTINGS max_memory_usage = 10000000", "Query memory limit exceeded: would use", 241},
		{"SELECT count() FROM numbers(1000) WHERE number > 1 SETTINGS max_rows_to_read = 10", "Limit for rows (controlled by 'max_rows_to_read' setting) exceeded", 158},
		{"SELECT * FROM behaviour(app = 'dev', from = '2026-11-16', to = '2026-11-23', zone = 'UTC', unit = 'team')", "unit must be person or account", 395},
	} {
		_, err := s.rows(t.Context(), tc.query)
		var e *clickhousego.Exception
		if !errors.As(err, &e) || e.Code != tc.code || !strings.Contains(e.Message, tc.words) {
			t.Errorf("%s: got %v, want code %d and %q", tc.query, err, tc.code, tc.words)
		}
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %d \|.*%s`, tc.code, regexp.QuoteMeta(tc.words))).Match(page) {
			t.Errorf("docs/queries.md has no row of code %d with %q", tc.code, tc.words)
		}
	}
}

var python = regexp.MustCompile("(?s)```python\n(.*?)```")

// The Python of docs/questions.md prints what its SELECT returns. It needs pip and the
// package registry, as the SDKs of test/conformance do.
func TestPythonRecipe(t *testing.T) {
	if sdks := os.Getenv("UPTAKE_SDKS"); sdks != "all" && !slices.Contains(strings.Split(sdks, ","), "Python") {
		t.Skip("UPTAKE_SDKS does not name Python")
	}
	text, err := os.ReadFile("../../docs/questions.md")
	if err != nil {
		t.Fatal(err)
	}
	code := string(python.FindSubmatch(text)[1])
	s := newStore(t)
	demo(t, s)
	host, port, err := net.SplitHostPort(embedded.ForTest(t).HTTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	for old, new := range map[string]string{"'127.0.0.1'": "'" + host + "'", "8123": port, "'uptake_reader'": "'default'", "database='uptake'": "database='" + strings.TrimSuffix(s.internal, "_internal") + "'"} {
		if !strings.Contains(code, old) {
			t.Fatalf("no %s in the recipe", old)
		}
		code = strings.Replace(code, old, new, 1)
	}
	lib := t.TempDir()
	if out, err := exec.Command("python3", "-m", "pip", "install", "--quiet", "--target", lib, "clickhouse-connect==1.12.0").CombinedOutput(); err != nil {
		t.Fatalf("pip: %v\n%s", err, out)
	}
	cmd := exec.Command("python3", "-c", code)
	cmd.Env = append(cmd.Environ(), "PYTHONPATH="+lib)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, recipe, _ := strings.Cut(string(text), "## From other tools")
	_, result, _ := strings.Cut(recipe, "```text\n")
	result, _, _ = strings.Cut(result, "```")
	var want [][]string
	for line := range strings.Lines(result) {
		want = append(want, strings.Fields(line))
	}
	var got [][]string
	for line := range strings.Lines(string(out)) {
		got = append(got, strings.Fields(line))
	}
	if len(got) == 0 || !reflect.DeepEqual(got, want[1:]) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func (s store) pretty(t *testing.T, q string) (string, error) {
	t.Helper()
	names, rows, err := s.table(t.Context(), q)
	if err != nil {
		return "", err
	}
	lines := append([]Row{names}, rows...)
	widths := make([]int, len(lines[0]))
	for _, l := range lines {
		for i, c := range l {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for _, l := range lines {
		cells := slices.Clone(l)
		for i := range cells {
			cells[i] += strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cells[i]))
		}
		b.WriteString(strings.TrimRight(strings.Join(cells, "  "), " ") + "\n")
	}
	return b.String(), nil
}
