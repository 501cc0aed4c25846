package catalogcli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/catalog/sample"
	"github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

// world is where commands run: a folder, and a log if they need one.
type world struct {
	t   *testing.T
	dir string
	env map[string]string
}

func newWorld(t *testing.T) *world {
	return &world{t: t, dir: t.TempDir(), env: map[string]string{}}
}

// withLog starts a log.
func (w *world) withLog() *world {
	w.t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "8388608"}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.Close()
	if err := topic.Unprefixed.Ensure(w.t.Context(), kadm.NewClient(cl), topic.SingleLayout()); err != nil {
		w.t.Fatal(err)
	}
	w.env["UPTAKE_KAFKA_BROKERS"] = strings.Join(c.ListenAddrs(), ",")
	return w
}

// file writes a file and returns its path. A YAML file gets the line behind it that
// says it is complete.
func (w *world) file(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if filepath.Ext(name) == ".yaml" && !strings.HasSuffix(text, "\n...\n") {
		text += "\n...\n"
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// run carries out a command.
func (w *world) run(args ...string) (string, error) {
	w.t.Helper()
	var stdout, stderr bytes.Buffer
	program := process.Program{Name: "enricher", Commands: Commands(func() (context.Context, func()) { return context.Background(), func() {} }, &stdout, &stderr, func(name string) (string, bool) {
		v, ok := w.env[name]
		return v, ok
	})}
	err := program.Run(args, &stdout, &stderr)
	return stdout.String(), err
}

func (w *world) must(args ...string) string {
	w.t.Helper()
	out, err := w.run(args...)
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

const first = `catalog: shop
products:
- name: Shop
  owner: shop team
  modules:
  - name: Till
    features:
    - {name: Item Scanned, purpose: p}
    - {name: Drawer Opened, purpose: p}
  - name: Office
    features:
    - {name: Report Printed, purpose: p}
`

const second = `catalog: shop
products:
- name: Shop
  owner: shop team
  modules:
  - name: Till
    features:
    - {name: Item Scanned, purpose: p, aliases: [scan]}
  - name: Office
    features:
    - {name: Report Printed, purpose: p}
    - {name: Drawer Opened, purpose: p}
`

func TestApplyHistoryExport(t *testing.T) {
	w := newWorld(t).withLog()
	one, two := w.file("one.yaml", first), w.file("two.yaml", second)
	out := w.must("catalog", "plan", "-app", "dev", one)
	if !strings.Contains(out, "dev has no catalog yet") || !strings.Contains(out, "+ feature  item_scanned") {
		t.Errorf("plan of the first version: got\n%s", out)
	}
	out = w.must("catalog", "apply", one, "-app", "dev", "-author", "shop team", "-reason", "first one")
	if !strings.Contains(out, "applied version 1 of dev") {
		t.Errorf("apply: got\n%s", out)
	}
	if out = w.must("catalog", "apply", "-app", "dev", "-author", "x", "-reason", "y", one); !strings.Contains(out, "version 1 of dev is equal") {
		t.Errorf("apply again: got\n%s", out)
	}
	if _, err := w.run("catalog", "apply", "-app", "dev", "-author", "x", "-reason", "y", two); err == nil || !strings.Contains(err.Error(), "neither move nor keep of them: drawer_opened") {
		t.Errorf("apply without a word on history: got %v", err)
	}
	if out = w.must("catalog", "plan", "-app", "dev", two); !strings.Contains(out, "NOT DECIDED") {
		t.Errorf("plan without a word on history: got\n%s", out)
	}
	if _, err := w.run("catalog", "apply", "-app", "dev", "-author", "x", "-reason", "y", "-history", "move", "-expect", "3", two); !errors.Is(err, errBeaten) {
		t.Errorf("apply on another version: got %v, want errBeaten", err)
	}
	out = w.must("catalog", "apply", "-app", "dev", "-author", "office team", "-reason", "drawers are ours", "-history", "move", "-expect", "1", two)
	for _, want := range []string{
		"version 1 of dev is in force", "applied version 2 of dev", "every partition applies 2 moves",
		"shop/till/drawer_opened to shop/office/drawer_opened  its history moves", `"scan"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("apply: got\n%swant %q in it", out, want)
		}
	}
	// Another app has versions of its own.
	w.must("catalog", "apply", "-app", "prod", "-author", "x", "-reason", "y", one)
	out = w.must("catalog", "history", "-app", "dev")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 || !strings.Contains(lines[1], "first one") || !strings.Contains(lines[2], "drawers are ours") || !strings.Contains(lines[2], "office team") {
		t.Errorf("history: got\n%s", out)
	}
	for number, want := range map[string]string{"1": first, "0": second} {
		got, err := catalog.Parse([]byte(w.must("catalog", "export", "-app", "dev", "-version", number)))
		if err != nil {
			t.Fatal(err)
		}
		wanted, err := catalog.Parse([]byte(want + "...\n"))
		if err != nil {
			t.Fatal(err)
		}
		if number == "0" {
			wanted.History.Default = "move" // the word of that version
		}
		if same, err := sameCatalog(got, wanted); err != nil || !same {
			t.Errorf("export of version %s: got another catalog, %v", number, err)
		}
	}
	var v catalog.Version
	if err := json.Unmarshal([]byte(w.must("catalog", "export", "-app", "dev", "-format", "json")), &v); err != nil || v.Number != 2 || len(v.HistoryMoves) != 2 {
		t.Errorf("export as JSON: got version %d with %d moves, %v", v.Number, len(v.HistoryMoves), err)
	}
	if _, err := w.run("catalog", "export", "-app", "dev", "-version", "9"); err == nil || !strings.Contains(err.Error(), "no version 9") {
		t.Errorf("export of a version there is not: got %v", err)
	}
}

// TestAppliesAtOnce has several people apply to one version: one comes through.
func TestAppliesAtOnce(t *testing.T) {
	w := newWorld(t).withLog()
	w.must("catalog", "apply", "-app", "dev", "-author", "x", "-reason", "y", w.file("one.yaml", first))
	const people = 4
	var mu sync.Mutex
	var applied, beaten int
	var wg sync.WaitGroup
	for i := range people {
		file := w.file(fmt.Sprintf("%d.yaml", i), strings.Replace(first, "name: Report Printed", fmt.Sprintf("name: Report %d Printed", i), 1))
		wg.Go(func() {
			_, err := w.run("catalog", "apply", "-app", "dev", "-author", fmt.Sprint(i), "-reason", "y", "-expect", "1", file)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				applied++
			case errors.Is(err, errBeaten):
				beaten++
			default:
				t.Errorf("person %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if applied != 1 || beaten != people-1 {
		t.Errorf("got %d applied and %d beaten, want 1 and %d", applied, beaten, people-1)
	}
}

// migrate makes the tables in a database of the shared server.
func migrate(t *testing.T, db string) {
	t.Helper()
	ms, err := clickhouse.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.ForTest(t).Query(t.Context(), "CREATE DATABASE "+clickhouse.Internal(db)); err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		statements, err := m.Statements(clickhouse.Schema{Database: db, Form: clickhouse.SingleForm()})
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range statements {
			if _, err := embedded.ForTest(t).Query(t.Context(), st); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestPlanOnRealEvents(t *testing.T) {
	s := embedded.ForTest(t)
	_, db := embedded.Database(t)
	ctx := t.Context()
	query := func(q string) {
		t.Helper()
		if _, err := s.Query(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	migrate(t, db)
	insert := func(n int, kind, event, properties, feature, age string) {
		t.Helper()
		query(fmt.Sprintf(`INSERT INTO %s.events (app_id, kind, event, message_id, properties, feature_id, received_at, event_time)
			SELECT 'dev', '%s', '%s', concat('%s', toString(number)), '%s', '%s', now() - INTERVAL %s, now() FROM numbers(%d)`, db, kind, event, event+properties, properties, feature, age, n))
	}
	insert(40, "track", "Item Scanned", `{}`, "item_scanned", "1 DAY")
	insert(30, "track", "scan", `{}`, "", "1 DAY")
	insert(20, "track", "Drawer Opened", `{}`, "drawer_opened", "2 DAY")
	insert(10, "track", "Lost", `{}`, "", "2 DAY")
	insert(500, "track", "Lost", `{}`, "", "30 DAY")
	insert(6, "page", "", `{"path":"/reports/1"}`, "", "1 DAY")
	insert(2, "page", "", `{"path":"/about"}`, "", "1 DAY")
	insert(99, "identify", "", `{}`, "", "1 DAY")

	w := newWorld(t).withLog()
	w.must("catalog", "apply", "-app", "dev", "-author", "x", "-reason", "y", w.file("one.yaml", first))
	next := w.file("two.yaml", strings.Replace(strings.Replace(second, "    - {name: Drawer Opened, purpose: p}\n", "", 1), "{name: Report Printed, purpose: p}", `{name: Report Printed, purpose: p, rules: [{path: "/reports/*"}]}`, 1))
	w.env["UPTAKE_CLICKHOUSE_HTTP"] = "http://" + s.HTTPAddr()
	w.env["UPTAKE_CLICKHOUSE_DATABASE"] = db
	out := strings.Join(strings.Fields(w.must("catalog", "plan", "-app", "dev", next)), " ")
	for _, want := range []string{
		`30 track "scan" (unmapped) item_scanned`,
		`20 track "Drawer Opened" drawer_opened (unmapped)`,
		`6 page "" (unmapped) report_printed`,
		"56 events would map to another feature, 52 as they do now, 12 of those to none",
		`10 track "Lost"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("plan: got\n%s\nwant %q in it", out, want)
		}
	}
	// Sampled, the numbers of what is mixed are estimates.
	out = w.must("catalog", "plan", "-app", "dev", "-samples", "3", next)
	if !strings.Contains(out, `"scan"`) || strings.Contains(out, "~30") {
		t.Errorf("plan with 3 samples: what all samples agree on must not be an estimate, got\n%s", out)
	}
	_, err := w.run("catalog", "lint", "-app", "dev", w.file("d.yaml", strings.Replace(first, "{name: Drawer Opened,", "{name: Drawer Opened, status: deprecated,", 1)))
	if !errors.Is(err, ErrFindings) {
		t.Errorf("lint with a deprecated feature in use: got %v, want ErrFindings", err)
	}
	w.env["UPTAKE_CLICKHOUSE_DATABASE"] = "nowhere"
	if _, err := w.run("catalog", "plan", "-app", "dev", next); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("plan on a database there is not: got %v", err)
	}
}

func TestInitAndLint(t *testing.T) {
	w := newWorld(t)
	path, schema := filepath.Join(w.dir, "catalog.yaml"), filepath.Join(w.dir, "schema.json")
	w.must("catalog", "init", "-o", path, "-schema", schema)
	if out := w.must("catalog", "lint", path); out != "" {
		t.Errorf("lint of the sample: got\n%s", out)
	}
	if _, err := w.run("catalog", "init", "-o", path); !errors.Is(err, os.ErrExist) {
		t.Errorf("init over a file: got %v, want it refused", err)
	}
	text, err := os.ReadFile(schema)
	if err != nil || !json.Valid(text) {
		t.Errorf("schema: %v", err)
	}
	if _, err := w.run("catalog", "lint", w.file("bad.yaml", "catalog: [")); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("lint of no YAML: got %v", err)
	}
}

const template = "\ufeffFeature;Module;Product;kind;Owner;Events\r\n" +
	"Item Scanned;Till;Shop;core;till team;Item Scanned|scan\r\n" +
	";;;;;\r\n" +
	"\"Report \"\"Day\"\" Printed\";Office;Shop;Upsell;;\r\n" +
	"Item Scanned;Office;Shop;;;office_scan\r\n" +
	"Login Failed;Office;Cloud;friction;;\r\n"

func TestImportCSV(t *testing.T) {
	w := newWorld(t)
	out := w.must("catalog", "import", "-catalog", "My Shop", w.file("template.csv", template))
	c, err := catalog.Parse([]byte(out))
	if err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	var got []string
	c.Each(func(p *catalog.Product, m *catalog.Module, f *catalog.Feature) {
		got = append(got, strings.Join([]string{p.ID, m.ID, f.ID, f.Kind, f.Owner, strings.Join(f.Names, "|")}, " "))
	})
	want := []string{
		"shop till item_scanned core till team Item Scanned|scan",
		`shop office report_day_printed upsell  Report "Day" Printed`,
		"shop office office_item_scanned core  office_scan",
		"cloud cloud_office login_failed friction  Login Failed",
	}
	if !slices.Equal(got, want) || c.Name != "my_shop" {
		t.Errorf("got %s\n%q\nwant\n%q", c.Name, got, want)
	}
	_, err = w.run("catalog", "import", w.file("bad.csv", "Feature,Module,Product,Kind\nA,,P,core\nB,M,P,odd\nB,M,P,core\nB,M,P,core\n"))
	for _, want := range []string{`line 2: column "Module" is empty`, `line 3: kind must be one of`, `line 5: feature "B" is in module "M" already`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("bad lines: got %v, want %q in it", err, want)
		}
	}
	_, err = w.run("catalog", "import", w.file("worse.csv", "Feature,Colour\nA,red\n"))
	for _, want := range []string{`unknown column "Colour"`, `column "Module" is missing`, `column "Product" is missing`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("bad head: got %v, want %q in it", err, want)
		}
	}
}

// What people fill in a table: one module in three spellings, names that no id can
// be made of, and files that a spreadsheet saved otherwise.
func TestImportCSVOfPeople(t *testing.T) {
	w := newWorld(t)
	out := w.must("catalog", "import", w.file("case.csv", "Feature,Module,Product\nA,Till,Shop\nB,till,shop\nC,TILL,Shop\nD,Till  ,SHOP\nE,Till  2,Shop\n"))
	c, err := catalog.Parse([]byte(out))
	if err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	var got []string
	for _, p := range c.Products {
		for _, m := range p.Modules {
			got = append(got, fmt.Sprintf("%s/%s %d", p.Name, m.Name, len(m.Features)))
		}
	}
	if want := []string{"Shop/Till 4", "Shop/Till  2 1"}; !slices.Equal(got, want) {
		t.Errorf("modules: got %q, want %q", got, want)
	}
	im := newImporter("x", "x")
	if err := im.csv([]byte("Feature,Module,Product\nA,Till,Shop\nB,till,Shop\nC,till,Shop\n")); err != nil {
		t.Fatal(err)
	}
	if want := []string{`duplicate: module "till" is read as "Till"`}; !slices.Equal(im.findings, want) {
		t.Errorf("findings: got %q, want %q", im.findings, want)
	}
	// The same letters composed and with combining marks; a feature twice is a fault.
	im = newImporter("x", "x")
	if err := im.csv([]byte("Feature,Module,Product\nA,Caf\u00e9,Shop\nB,Cafe\u0301,Shop\n")); err != nil || len(im.cat.Products[0].Modules) != 1 {
		t.Errorf("got %v, %+v", err, im.cat.Products)
	}
	if err := newImporter("x", "x").csv([]byte("Feature,Module,Product\nScan,Till,Shop\nSCAN,till,Shop\n")); err == nil || !strings.Contains(err.Error(), `line 3: feature "SCAN" is in module "Till" already, as "Scan"`) {
		t.Errorf("got %v", err)
	}
	wide := func(s string) string {
		b := []byte{0xff, 0xfe}
		for _, c := range utf16.Encode([]rune(s)) {
			b = append(b, byte(c), byte(c>>8))
		}
		return string(b)
	}
	long := strings.Repeat("x", 300)
	for text, want := range map[string]string{
		"Feature,Module,Product\nA,M,P\n🎉,M,P\n":                     `line 3: feature name must have a letter or a digit`,
		"Feature,Module,Product\nA,🎉🎉,P\n":                           `line 2: module name must have a letter or a digit`,
		"Feature,Module,Product,Events\nA,M,P," + long + "\n":        `line 2: names[0]: event name must be 1 to 256 bytes`,
		"Feature,Module,Product\n" + long + ",M,P\n":                 `line 2: name: must be at most 256 bytes`,
		"Feature\tModule\tProduct\nA\tM\tP\n":                        `separated by tabs`,
		wide("Feature,Module,Product\nA,M,P\n"):                      `UTF-16`,
		wide("Feature,Module,Product\nA,M,P\n")[2:]:                  `UTF-16`,
		"Feature,Module,Product\nA,M,P\nR\xe4umung,M,P\n":            `line 3: file is no UTF-8`,
		"Feature,Module,Product\nA,M,P\n\n\nB,\"M\n2\",\U0001F389\n": `line 5: `,
	} {
		if _, err := w.run("catalog", "import", w.file("odd.csv", text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q in it", text, err, want)
		}
	}
}

func TestImportTrackingPlan(t *testing.T) {
	w := newWorld(t)
	for name, text := range map[string]string{
		"byname.json": `{"display_name":"Shop Plan","rules":{"events":[
			{"name":"Order Completed","description":"an order is paid","version":1,"rules":{}},
			{"name":"Order Completed","description":"old","version":0},
			{"name":"Refund Asked","version":1,"labels":{"Module":"Money","kind":"risk","owner":"money team"}}],"identify":{}}}`,
		"bykey.json": `{"data":{"trackingPlan":{"name":"Shop Plan","rules":[
			{"key":"Order Completed","type":"TRACK","version":1,"jsonSchema":{"description":"an order is paid"}},
			{"key":null,"type":"COMMON","version":1,"jsonSchema":{}},
			{"key":"Refund Asked","type":"TRACK","version":1,"jsonSchema":{"labels":{"module":"Money","kind":"risk","owner":"money team"}}}]}}}`,
	} {
		out := w.must("catalog", "import", "-catalog", "shop", "-product", "Shop", w.file(name, text))
		c, err := catalog.Parse([]byte(out))
		if err != nil {
			t.Fatalf("%s: %v in\n%s", name, err, out)
		}
		var got []string
		c.Each(func(p *catalog.Product, m *catalog.Module, f *catalog.Feature) {
			got = append(got, strings.Join([]string{p.Name, m.Name, f.Name, f.Kind, f.Owner, f.Purpose}, "/"))
		})
		if want := []string{"Shop/Shop Plan/Order Completed/core//an order is paid", "Shop/Money/Refund Asked/risk/money team/"}; !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	// A plan of several pages is read whole or refused.
	page := func(key, next string) string {
		return fmt.Sprintf(`{"data":{"rules":[{"key":%q,"type":"TRACK","version":1,"jsonSchema":{}}],"pagination":{"current":"x","next":%q,"totalEntries":2}}}`, key, next)
	}
	for _, text := range []string{
		page("A", "MQ==") + "\n" + page("B", ""), page("B", "") + page("A", "MQ=="), // in any order
		"[" + page("A", "MQ==") + ",\n" + page("B", "") + "]\n", page("A", "MQ==") + page("A", "MQ==") + page("B", ""),
	} {
		both := w.must("catalog", "import", "-catalog", "shop", "-product", "Shop", w.file("pages.json", text))
		if strings.Count(both, "name: A\n") != 1 || strings.Count(both, "name: B\n") != 1 {
			t.Errorf("%s: got\n%s", text, both)
		}
	}
	for name, text := range map[string]string{
		"first.json": page("A", "MQ=="), "second.json": page("B", ""), "twice.json": page("B", "") + page("B", ""), "array.json": "[" + page("A", "MQ==") + "]",
		"nototal.json": `{"data":{"rules":[{"key":"A","type":"TRACK"}]},"pagination":{"next":"MQ=="}}`,
	} {
		if out, err := w.run("catalog", "import", "-catalog", "shop", "-product", "Shop", w.file(name, text)); err == nil || !strings.Contains(err.Error(), "incomplete") {
			t.Errorf("%s: got %v and\n%s", name, err, out)
		}
	}
	if _, err := w.run("catalog", "import", w.file("none.json", `{"rules":{"events":[]}}`)); err == nil {
		t.Error("plan without events: got no error")
	}
}

// TestExchange exports the sample in each form and imports it again.
func TestExchange(t *testing.T) {
	w := newWorld(t).withLog()
	w.must("catalog", "apply", "-app", "dev", "-author", "x", "-reason", "y", w.file("s.yaml", string(sample.MyPOS)))
	places := func(c *catalog.Catalog) map[string]string {
		out := map[string]string{}
		c.Each(func(p *catalog.Product, m *catalog.Module, f *catalog.Feature) {
			for _, n := range f.Names {
				out[n] = strings.Join([]string{p.Name, m.Name, f.Kind, catalog.FeatureOwner(p, m, f), f.Purpose}, "/")
			}
		})
		return out
	}
	original, err := catalog.Parse(sample.MyPOS)
	if err != nil {
		t.Fatal(err)
	}
	for format, name := range map[string]string{"csv": "out.csv", "segment": "out.json"} {
		path := filepath.Join(w.dir, name)
		w.must("catalog", "export", "-app", "dev", "-format", format, "-o", path)
		c, err := catalog.Parse([]byte(w.must("catalog", "import", path)))
		if err != nil {
			t.Fatal(err)
		}
		got, want := places(c), places(original)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got\n%v\nwant\n%v", format, got, want)
		}
	}
}

func TestMetadata(t *testing.T) {
	w := newWorld(t).withLog()
	w.must("metadata", "pin", "properties.price", "float", "-app", "dev", "-author", "shop team", "-reason", "prices have cents")
	w.must("metadata", "pin", "-app", "dev", "-author", "x", "-reason", "y", "properties.cart", "object")
	w.must("metadata", "pin", "-app", "dev", "-author", "x", "-reason", "y", "properties.cart.id", "string")
	out := w.must("metadata", "show", "-app", "dev")
	if !strings.Contains(out, "properties.price    float") || !strings.Contains(out, "prices have cents") || !strings.Contains(out, "properties.cart.id  string") {
		t.Errorf("show: got\n%s", out)
	}
	w.must("metadata", "reset", "-app", "dev", "properties.cart")
	if out = w.must("metadata", "show", "-app", "dev"); strings.Contains(out, "cart") || !strings.Contains(out, "price") {
		t.Errorf("after the reset: got\n%s", out)
	}
	if out = w.must("metadata", "show", "-app", "dev", "-under", "traits"); strings.Contains(out, "price") {
		t.Errorf("show of traits: got\n%s", out)
	}
	if _, err := w.run("metadata", "reset", "-app", "dev", "properties.cart"); err == nil {
		t.Error("reset of a key without a type: got no error")
	}
	// Of many at once those stay that somebody pinned.
	for _, args := range [][]string{{"*"}, {"properties"}, {"properties.pr*"}, {"-source", "3f2a", "*"}} {
		if out := w.must(append([]string{"metadata", "reset", "-app", "dev"}, args...)...); out != "0 keys of dev have no type now; their next values decide\n" {
			t.Errorf("reset %v: got %s", args, out)
		}
	}
	if out = w.must("metadata", "show", "-app", "dev", "-sources"); !strings.Contains(out, "unknown  1") {
		t.Errorf("show of sources: got\n%s", out)
	}
}

func TestPage(t *testing.T) {
	w := newWorld(t).withLog()
	w.must("catalog", "apply", "-app", "dev", "-author", "x", "-reason", "y", w.file("one.yaml", first))
	for _, key := range []string{"properties.email", "properties.total", "traits.plan"} {
		w.must("metadata", "pin", "-app", "dev", "-author", "x", "-reason", "y", key, "string")
	}
	rules := w.file("privacy.yaml", "apps: {dev: {ip: none, retention_days: 400, rules: [{path: properties.email, action: drop}, {path: 'traits.**', detect: [phone], action: mask}]}}")
	out := w.must("catalog", "page", "-app", "dev", "-privacy-file", rules)
	for _, want := range []string{
		"# What dev collects", "### Till", "| Item Scanned | core | p | shop team | `Item Scanned` |", "| `properties.email` | string | dropped |",
		"| `properties.total` | string | kept |", "| `traits.plan` | string | phones found in it masked |", "- IP address: dropped", "- User agent: kept", "removed 400 days after",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("got\n%s\nwant %q in it", out, want)
		}
	}
	if out = w.must("catalog", "page", "-app", "dev"); !strings.Contains(out, "- IP address: kept") || !strings.Contains(out, "until somebody removes them") || strings.Contains(out, "dropped") {
		t.Errorf("without rules: got\n%s", out)
	}
}

func TestUsage(t *testing.T) {
	w := newWorld(t)
	for _, args := range [][]string{
		{},
		{"catalog"},
		{"catalog", "burn"},
		{"catalog", "lint"},
		{"catalog", "lint", "a", "b"},
		{"catalog", "plan", "x.yaml", "-nonsense"},
		{"catalog", "history"},
		{"metadata", "pin", "-app", "dev", "-author", "a", "-reason", "b", "properties.x", "colour"},
		{"metadata", "pin", "-app", "dev", "properties.x", "bool"},
		{"catalog", "apply", "-app", "dev", "x.yaml"},
		{"catalog", "import", w.file("x.txt", "")},
	} {
		if _, err := w.run(args...); !errors.Is(err, process.ErrUsage) {
			t.Errorf("%q: got %v, want ErrUsage", args, err)
		}
	}
	if _, err := w.run("catalog", "apply", "-help"); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-help: got %v, want flag.ErrHelp", err)
	}
}

func TestFlagsFirst(t *testing.T) {
	set := flag.NewFlagSet("t", flag.ContinueOnError)
	set.String("app", "", "")
	set.Bool("json", false, "")
	set.Duration("d", time.Second, "")
	got := flagsFirst(set, []string{"a", "-app", "dev", "-json", "b", "--d=3s", "-", "--", "-c"})
	if want := []string{"-app", "dev", "-json", "--d=3s", "--", "a", "b", "-", "-c"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// plan asks rules of stored events what the enricher asked them when they came.
func TestPlanSeesWhatWasSent(t *testing.T) {
	for _, tc := range []struct{ columns, conflicts, want string }{
		{`{"a":1}`, "", `{"a":1}`},
		{`{"a":1}`, `{"properties.b":"x","traits.c":1}`, `{"a":1,"b":"x"}`},
		{`{"a":{"b":1}}`, `{"properties.a.c":{"$raw":"1e400"}}`, `{"a":{"b":1,"c":1e400}}`},
		{`{"a":1}`, `{"properties.a":"lost its name"}`, `{"a":1}`},
		{`{}`, `{"properties.a":{"$base64":"/w=="}}`, `{}`},
	} {
		if got := string(sentProperties(tc.columns, tc.conflicts)); got != tc.want {
			t.Errorf("%s and conflicts %s: got %s, want %s", tc.columns, tc.conflicts, got, tc.want)
		}
	}
}

// A group of commands lists them, whichever way it is asked.
func TestHelpOfAGroup(t *testing.T) {
	w := newWorld(t)
	for group, commands := range map[string][2]string{"catalog": {"lint", "pin"}, "metadata": {"pin", "lint"}} { // its own and another's
		for _, ask := range []string{"help", "-h", "-help", "--help"} {
			out := w.must(group, ask)
			if !strings.HasPrefix(out, "Usage: enricher "+group+" <command>") || !strings.Contains(out, "\n  "+commands[0]+" ") || strings.Contains(out, "\n  "+commands[1]+" ") {
				t.Errorf("%s %s: got %s", group, ask, out)
			}
		}
	}
}
