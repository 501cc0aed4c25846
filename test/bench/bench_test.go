package bench

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/catalog"
)

func TestBodiesAreUniqueAndValid(t *testing.T) {
	seen := map[string]bool{}
	b := newBodies(3, 1)
	for round := range int64(2) {
		var body struct {
			Batch []struct{ MessageID string }
		}
		if err := json.Unmarshal(b.next(8+round*3), &body); err != nil {
			t.Fatal(err)
		}
		for _, e := range body.Batch {
			if seen[e.MessageID] {
				t.Errorf("message id %s comes twice", e.MessageID)
			}
			seen[e.MessageID] = true
		}
	}
	if len(seen) != 6 || !seen["bench-0000000013"] {
		t.Errorf("message ids: %v", seen)
	}
	if !json.Valid(newBodies(1, 7).next(5)) || !json.Valid(propertiesJSON(nil, 12, 40, 3)) {
		t.Error("an event or its properties are no JSON")
	}
}

// A round has as many links as its name says, each of a visitor who was there
// before, whose visitors and users are the same without links.
func TestSessionsHaveTheirLinks(t *testing.T) {
	cfg := DefaultConfig()
	cfg.PathRate, cfg.PathSeconds = 1000, 10
	for _, links := range []int{0, 10, 100} {
		visitors, users, linked := map[string]int{}, map[string]int{}, 0
		for i := range int64(cfg.PathRate * cfg.PathSeconds) {
			var e struct{ Type, AnonymousID, UserID string }
			if err := json.Unmarshal(sessionEvent(nil, i, links, cfg), &e); err != nil {
				t.Fatal(err)
			}
			switch {
			case e.Type == "identify":
				if linked++; visitors[e.AnonymousID] != linkedVisits || e.UserID == "" {
					t.Fatalf("event %d links %q, of %d events", i, e.AnonymousID, visitors[e.AnonymousID])
				}
				users[e.UserID]++
			case e.UserID != "":
				users[e.UserID]++
			default:
				visitors[e.AnonymousID]++
			}
		}
		if linked != 10*links || len(visitors) != 1000 || len(users) != 1000 {
			t.Errorf("%d of a thousand: %d links of %d visitors to %d users", links, linked, len(visitors), len(users))
		}
	}
}

func TestCPUOfThisProcess(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Skipf("this system shows no /proc: %v", err)
	}
	for until := selfCPU() + 50*time.Millisecond; selfCPU() < until; { // burn
		bytes.Repeat([]byte("x"), 1000)
	}
	after, err := cpuOf(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("after 50 ms of CPU: %v, then %v, %v", before, after, err)
	}
	if peakOf(os.Getpid()) == 0 {
		t.Error("no peak memory")
	}
}

func TestReport(t *testing.T) {
	sample := func(us int) Sample {
		return Sample{Events: 1000, CPU: time.Duration(us) * time.Millisecond, Wall: time.Second, Latency: []time.Duration{time.Millisecond, 3 * time.Millisecond}}
	}
	path := sample(7)
	path.Parts = []Part{{"writer", 3 * time.Millisecond, 5 << 20}}
	path.Blocks = Blocks{Blocks: 4, Rows: 1000, Statements: 10, Read: 500, Moved: 20}
	none := sample(6)
	none.Parts = []Part{{"writer", 2 * time.Millisecond, 5 << 20}}
	figures := []Figure{{"gateway_batch", []Sample{sample(9), sample(4), sample(5)}, []Sample{sample(2)}}, {"path", []Sample{path}, []Sample{none}}}
	text, err := JSON([]byte(`{"enricher_us": 6.5, "gateway_batch_us": 1}`), figures, []Micro{{"schemas/event AppendRaw", 250, 1000, 0, 0}}, "abc", time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"gateway_batch_us": 5.0, "gateway_batch_floor_us": 2.0, "gateway_batch_p99_ms": 3.0, "enricher_us": 6.5,
		"path_us": 7.0, "path_writer_us": 3.0, "path_writer_peak_mib": 5.0, "path_floor_us": 6.0, "path_blocks": 4.0, "path_rows_per_block": 250.0, "path_statements_per_block": 2.5, "path_read_rows_per_event": 0.5, "enricher_blocks": nil, "commit": "abc",
	} {
		if got[name] != want {
			t.Errorf("%s: got %v, want %v", name, got[name], want)
		}
	}
	table := Table(figures)
	for _, want := range []string{
		"| gateway_batch | 5.00 (4.00–9.00) | 2.00 (2.00–2.00) | 2.5 | 1000 | 3.0 / 3.0 |  |\n",
		"| path | 7.00 (7.00–7.00) | 6.00 (6.00–6.00) | 1.2 | 1000 | 3.0 / 3.0 |  |\n| — writer in it | 3.00 | 2.00 | | | | 5 |\n" +
			"| — 4 blocks of 250 rows, 2.5 statements each; for corrections 0.50 rows read and 0.02 inserted for each event | | | | | | |\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
}

func TestSplice(t *testing.T) {
	got, err := Splice("a\n<!-- t -->\nold\n<!-- /t -->\nb\n", "t", "new\n")
	if want := "a\n<!-- t -->\n\nnew\n\n<!-- /t -->\nb\n"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := Splice("a\n", "t", "new"); err == nil {
		t.Error("a document without marks was taken")
	}
}

func TestParseMicro(t *testing.T) {
	got := parseMicro("schemas/event", []byte("goos: linux\nBenchmarkDecodeRaw-2   \t 4822 \t 245.5 ns/op\t2505.10 MB/s\t 48 B/op\t 1 allocs/op\nBenchmarkX/names=100-2 10 8 ns/op\nBenchmarkX/names=100-2 10 7 ns/op\nBenchmarkX/names=100-2 10 9 ns/op\nPASS\n"))
	want := []Micro{{"schemas/event DecodeRaw", 245.5, 2505.1, 48, 1}, {Name: "schemas/event X/names=100", NanosPerOp: 7}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// The catalog must map each event of the load to the feature that it is made
// for, or the enricher's figure is of something else.
func TestLoadMatchesItsCatalog(t *testing.T) {
	cfg := DefaultConfig()
	c, err := catalog.Parse(catalogText(cfg))
	if err != nil {
		t.Fatal(err)
	}
	m := catalog.Compile(c)
	for i := range cfg.Features {
		f := featureOf(i, cfg)
		e := loadEvent(int64(i), 1, f, time.Now(), cfg)
		got, _ := m.Match(e.Kind, e.Event, e.Properties, e.Context)
		if want := (catalog.Mapping{FeatureID: f.id, ModuleID: f.module, ProductID: f.product}); got != want {
			t.Errorf("event %d, %s %q %s: got %+v, want %+v", i, e.Kind, e.Event, e.Properties, got, want)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []Config{DefaultConfig(), FullConfig()} {
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
	}
	c := DefaultConfig()
	c.Rounds, c.Stages, c.RuleFeatures = 0, []string{"gateway"}, 101
	err := c.Validate()
	for _, want := range []string{"rounds must be >= 1", `"gateway"`, "rule-features must be <= features"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestProtocolComparesRoundByRound(t *testing.T) {
	round := func(wall, cpu time.Duration) ProtocolRound {
		return ProtocolRound{Rows: 1000, Wall: wall, Writer: cpu / 4, ClickHouse: cpu / 4 * 3}
	}
	costs := []ProtocolCost{
		{BlockRows: 50_000, Name: "none", Rounds: []ProtocolRound{round(1*time.Second, 40*time.Millisecond), round(2*time.Second, 80*time.Millisecond), round(1*time.Second, 40*time.Millisecond)}},
		{BlockRows: 50_000, Name: "all", Rounds: []ProtocolRound{round(1250*time.Millisecond, 44*time.Millisecond), round(2*time.Second, 80*time.Millisecond), round(2*time.Second, 60*time.Millisecond)}},
	}
	audit := AuditCost{Rows: 3000, Wall: time.Second, Audit: 3 * time.Millisecond, ClickHouse: 6 * time.Millisecond}
	slower, dearer := costs[1].Against(costs[0])
	if got, want := percent(slower), "20.0 (0.0–50.0)"; got != want {
		t.Errorf("throughput lost: got %s, want %s", got, want)
	}
	if got, want := percent(dearer), "10.0 (0.0–50.0)"; got != want {
		t.Errorf("CPU added: got %s, want %s", got, want)
	}
	if got, want := ProtocolTable(costs, audit), "| 50000 | all | 500 (500–800) | 15.00 | 45.00 | 20.0 (0.0–50.0) | 10.0 (0.0–50.0) |\n"; !strings.Contains(got, want) {
		t.Errorf("got\n%s, want in it\n%s", got, want)
	}
	want := map[string]any{"audit_us": 3.0, "protocol_50000_throughput_lost_percent": 20.0, "protocol_50000_cpu_added_percent": 10.0}
	if got := ProtocolValues(costs, audit); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
