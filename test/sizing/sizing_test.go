package sizing

import (
	"os"
	"strings"
	"testing"
	"time"
)

func costs() Costs {
	return Costs{GatewaySingle: 30, GatewayBatch: 2.5, Enricher: 6, Writer: 4, ClickHouse: 24, IDBytes: 20, IDDiskBytes: 30, IdentityBytes: 200, RowBytes: 80}
}

func TestCompute(t *testing.T) {
	l := DefaultLoad()
	l.EventsPerSecond, l.DedupWindow = 1e6, time.Hour
	p := Compute(costs(), l)
	for _, tc := range []struct {
		what      string
		got, want float64
	}{
		{"partitions", float64(p.Partitions), 512},     // 1e6 x 4 / 10,000, as a power of two
		{"gateway cores", p.GatewayCores, 2.5},         // 1e6 x 2.5 µs
		{"gateways", float64(p.Gateways), 2},           // never one
		{"enricher cores", p.EnricherCores, 6},         // 1e6 x 6 µs
		{"enricher memory", p.EnricherMemory, 48.4e9},  // twice 1e6/3 x 3600 x 20 B, and 1e6 x 200 B
		{"enrichers", float64(p.Enrichers), 3},         // 6 cores want 2, 48.4e9 / (32 GiB x 0.6) want 3
		{"writer cores", p.WriterCores, 4},             // 1e6 x 4 µs
		{"clickhouse cores", p.ClickHouseCores, 24},    // 1e6 x 24 µs
		{"shards", float64(p.Shards), 3},               // 24 / (16 x 0.6)
		{"servers", float64(p.Servers), 6},             // two replicas
		{"log bytes", p.LogBytesPerSecond, 560e6},      // 1e6 x 600 x 7/3 x 0.4
		{"brokers", float64(p.Brokers), 14},            // 560 / 40
		{"rows per insert", p.rowsPerInsert, 9765.625}, // 1e6 / 512 x 5 s
		{"inserts", p.InsertsPerSecond, 102.4 / 3},     // 512 / 5 s, over 3 shards
		{"disk", p.ClickHouseDisk / 1e12, 1e6 / 3 * 365 * 86400 * 80 / 1e12},
	} {
		if d := tc.got - tc.want; d > tc.want*1e-3 || d < -tc.want*1e-3 {
			t.Errorf("%s: got %v, want %v", tc.what, tc.got, tc.want)
		}
	}
}

func TestMoreNeverNeedsLess(t *testing.T) {
	var last Plan
	for rate := 100.0; rate <= 10e6; rate *= 1.7 {
		l := DefaultLoad()
		l.EventsPerSecond = rate
		p := Compute(costs(), l)
		if p.Partitions < last.Partitions || p.Gateways < last.Gateways || p.Enrichers < last.Enrichers || p.Writers < last.Writers || p.Shards < last.Shards || p.Brokers < last.Brokers {
			t.Errorf("%v events/s need less than fewer do: %+v after %+v", rate, p, last)
		}
		if p.Enrichers > p.Partitions || p.Writers > p.Partitions {
			t.Errorf("%v events/s: %d enrichers and %d writers for %d partitions", rate, p.Enrichers, p.Writers, p.Partitions)
		}
		last = p
	}
	single, batch := DefaultLoad(), DefaultLoad()
	single.EventsPerSecond, batch.EventsPerSecond, single.Batch = 1e6, 1e6, 1
	if s, b := Compute(costs(), single), Compute(costs(), batch); s.GatewayCores < 29 || s.GatewayCores > 31 || b.GatewayCores > 3 {
		t.Errorf("a million events/s take %v cores of gateways as single requests and %v in batches", s.GatewayCores, b.GatewayCores)
	}
	large := batch
	large.EventBytes = 6000
	if got, want := Compute(costs(), large).EnricherCores, 60.0; got != want {
		t.Errorf("events of ten times the size: got %v cores of enrichers, want %v", got, want)
	}
}

func TestPrices(t *testing.T) {
	l := DefaultLoad()
	l.EventsPerSecond, l.DedupWindow, l.Busy = 1e6, time.Hour, 0.5
	p := Compute(costs(), l)
	want := []Item{
		{"gateways", 2, 8, 2, 0},
		{"enrichers", 3, 8, 32, 1e6 / 3 * 3600 * 30 / 1e9 / 3 * 2},
		{"writers", 2, 8, 2, 0},
		// 240 bytes of a record, 320 of an enriched one, 7 and 14 days, 3 copies, at a third of the peak
		{"brokers", 14, 8, 32, 1e6 / 3 * (240*7 + 320*14) * 86400 * 3 / 1e9 / 14 * 2},
		{"ClickHouse", 6, 16, 64, 1e6 / 3 * 365 * 86400 * 80 / 1e9 / 3 * 2}, // three shards
	}
	for i, got := range p.Items() {
		if d := got.GB - want[i].GB; d > 1e-6*want[i].GB || d < -1e-6*want[i].GB {
			t.Errorf("%s: got %v GB, want %v", got.Name, got.GB, want[i].GB)
		}
		if got.GB = want[i].GB; got != want[i] {
			t.Errorf("got %+v, want %+v", got, want[i])
		}
	}
	if got := (Prices{Core: 10, GiB: 2, GB: 0.1}).Month(Item{"x", 3, 8, 32, 1000}); got != 3*(80+64+100) {
		t.Errorf("a month: got %v", got)
	}
	rows := PriceRows([]Plan{p}, Prices{Core: 1})
	// 16 + 24 + 16 + 112 + 96 cores
	if !strings.Contains(rows, "| 1000000 | 2: 16 | 3: 24 | 2: 16 | 14: 112 | 6: 96 | 27 | 264 |") || !strings.Contains(rows, "| 264 | 0.000 |") {
		t.Errorf("got\n%s", rows)
	}
	if err := (Prices{Core: -1, GB: -1}).Validate(); err == nil || !strings.Contains(err.Error(), "price-core") || !strings.Contains(err.Error(), "price-gb must") {
		t.Errorf("got %v", err)
	}
}

func TestMemoryDecides(t *testing.T) {
	l := DefaultLoad()
	l.EventsPerSecond = 1e6 // a week of ids: 200 billion
	if p := Compute(costs(), l); p.EnrichersBy != "memory" || p.Enrichers < 100 {
		t.Errorf("got %d enrichers by %s", p.Enrichers, p.EnrichersBy)
	}
}

// The costs that the repository states must be enough to compute with.
func TestCostsOfTheRepository(t *testing.T) {
	f, err := os.Open("../../docs/performance.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := ReadCosts(f); err != nil {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	if err := DefaultLoad().Validate(); err != nil {
		t.Error(err)
	}
	l := DefaultLoad()
	l.Busy, l.Batch, l.EventsPerSecond = 2, 0, -1
	err := l.Validate()
	for _, want := range []string{"busy", "batch", "events-per-second"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if _, err := ReadCosts(strings.NewReader(`{"gateway_single_us": 1}`)); err == nil || !strings.Contains(err.Error(), "enricher_us") {
		t.Errorf("costs that lack most were taken: %v", err)
	}
}

// The tables of docs/sizing.md are what the program prints.
func TestTablesOfThePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/sizing.md")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("../../docs/performance.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := ReadCosts(f)
	if err != nil {
		t.Fatal(err)
	}
	plans := func(window time.Duration) (list []Plan) {
		for rate := 1e3; rate <= 1e7; rate *= 10 {
			l := DefaultLoad()
			l.EventsPerSecond, l.DedupWindow = rate, window
			list = append(list, Compute(c, l))
		}
		return list
	}
	for name, want := range map[string]string{
		"week": Rows(plans(7 * 24 * time.Hour)), "hours": Rows(plans(6 * time.Hour)),
		"price": PriceRows(plans(6*time.Hour), Prices{Core: 15, GiB: 2, GB: 0.08}),
	} {
		if !strings.Contains(string(page), "<!-- sizing "+name+" -->\n\n"+want+"\n<!-- /sizing "+name+" -->") {
			t.Errorf("the table %s differs; the program prints\n%s", name, want)
		}
	}
}
