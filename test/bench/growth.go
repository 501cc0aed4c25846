package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// variants are loads of one stage that differ in one thing. Their rounds
// alternate, so that what the machine does else falls on all of them.
type variants struct {
	stage, what string
	list        []variant
}

type variant struct {
	label string
	size  int // 0: it is no number
	set   func(*Config)
}

// Names that GrowthValues knows.
const (
	growthIDs        = "known message ids"
	growthIdentities = "known identities"
)

const (
	stageEnricher = "enricher"
	stageWriter   = "writer"
	stageGateway  = "gateway_single"
)

// growthCases are what grows, at 1, 10 and 100 times, each alone over a small
// load.
func growthCases() []variants {
	var cases []variants
	for _, g := range []struct {
		stage, what string
		sizes       []int
		set         func(*Config, int)
	}{
		{stageEnricher, growthIDs, []int{90_000, 900_000, 9_000_000}, func(c *Config, n int) { c.KnownIDs = n }},
		{stageEnricher, growthIdentities, []int{10_000, 100_000, 1_000_000}, func(c *Config, n int) { c.KnownIdentities = n }},
		{stageEnricher, "features, half by rules", []int{100, 1_000, 8_000}, func(c *Config, n int) { c.Features, c.RuleFeatures = n, n/2 }},
		{stageEnricher, "accounts", []int{1_000, 10_000, 100_000}, func(c *Config, n int) { c.Accounts = n }},
		{stageEnricher, "distinct property keys", []int{40, 400, 4_000}, func(c *Config, n int) { c.Keys = n }},
		{stageEnricher, "partitions", []int{1, 10, 100}, func(c *Config, n int) { c.Partitions = n }},
		{stageWriter, "accounts", []int{1_000, 10_000, 100_000}, func(c *Config, n int) { c.Accounts = n }},
		{stageWriter, "features", []int{100, 1_000, 8_000}, func(c *Config, n int) { c.Features, c.RuleFeatures = n, n/2 }},
		{stageWriter, "partitions", []int{1, 10, 100}, func(c *Config, n int) { c.Partitions = n }},
		{stageGateway, "apps with a write key", []int{1, 100, 10_000}, func(c *Config, n int) { c.Apps = n }},
	} {
		v := variants{stage: g.stage, what: g.what}
		for _, n := range g.sizes {
			v.list = append(v.list, variant{strconv.Itoa(n), n, func(c *Config) { g.set(c, n) }})
		}
		cases = append(cases, v)
	}
	return cases
}

// settingCases are settings of the enricher, and of its runtime, that could make
// it cheaper; the first of each is the default.
func settingCases() []variants {
	env := func(name string, values ...string) variants {
		v := variants{stage: stageEnricher, what: name}
		for _, value := range values {
			v.list = append(v.list, variant{label: value, set: func(c *Config) { c.enricherEnv = []string{name + "=" + value} }})
		}
		return v
	}
	flag := func(name string, values ...string) variants {
		v := variants{stage: stageEnricher, what: name}
		for _, value := range values {
			v.list = append(v.list, variant{label: value, set: func(c *Config) { c.enricherArgs = []string{"-" + name, value} }})
		}
		return v
	}
	return []variants{
		env("GOGC", "100", "50", "200", "400"),
		env("GOMEMLIMIT", "off", "1GiB", "256MiB"),
		flag("compression", "snappy", "none", "lz4", "zstd"),
		flag("commit-interval", "100ms", "20ms", "500ms"),
		flag("max-records", "20000", "5000", "80000"),
		flag("fetch-bytes", "16777216", "1048576", "4194304"),
	}
}

// Grown is what an event costs a stage at a size, or with a setting.
type Grown struct {
	Stage, What, Label string
	Size               int
	Rounds             []Sample
	DedupBytes         int64 // of the table of message ids
	IdentityBytes      int64
	DiskBytes          int64   // of the enricher's data folder
	RollupRows         float64 // of the writer: rows in all rollups, for each event
}

// growthRounds are of each size.
const growthRounds = 3

// Growth measures stages at every size of what grows. Only those whose stage and
// name hold match are measured.
func Growth(ctx context.Context, cfg Config, match string) ([]Grown, error) {
	cfg.KnownIDs, cfg.KnownIdentities = 90_000, 10_000
	cfg.EnricherEvents, cfg.WriterEvents, cfg.SingleRequests = 150_000, 50_000, 10_000
	return compare(ctx, cfg, growthCases(), growthRounds, match)
}

// Settings measures the enricher under settings that could make it cheaper.
func Settings(ctx context.Context, cfg Config, match string) ([]Grown, error) {
	cfg.KnownIDs, cfg.KnownIdentities, cfg.EnricherEvents = 90_000, 10_000, 150_000
	return compare(ctx, cfg, settingCases(), cfg.Rounds, match)
}

func compare(ctx context.Context, cfg Config, cases []variants, rounds int, match string) ([]Grown, error) {
	var all []Grown
	root := cfg.Dir
	for i, v := range cases {
		if !strings.Contains(v.stage+" "+v.what, match) {
			continue
		}
		cfg.Dir = filepath.Join(root, strconv.Itoa(i))
		some, err := v.measure(ctx, cfg, rounds)
		all = append(all, some...)
		if err != nil {
			return all, fmt.Errorf("%s, %s: %w", v.stage, v.what, err)
		}
	}
	return all, nil
}

// measure makes all variants ready, then runs their rounds in turns.
func (v variants) measure(ctx context.Context, cfg Config, rounds int) (all []Grown, err error) {
	at := slices.IndexFunc(stages(), func(s stage) bool { return s.name == v.stage })
	st := stages()[at]
	var c closers
	defer func() { err = errors.Join(err, c.close(ctx)) }()
	loads := make([]*load, len(v.list))
	dirs := make([]string, len(v.list))
	for i, one := range v.list {
		own := cfg
		one.set(&own)
		own.Dir = filepath.Join(cfg.Dir, strconv.Itoa(i))
		if err := own.Validate(); err != nil {
			return nil, err
		}
		if loads[i], err = st.open(ctx, &runner{cfg: own}); err != nil {
			return nil, fmt.Errorf("%s: %w", one.label, err)
		}
		c.add(loads[i].close)
		dirs[i] = own.Dir
		all = append(all, Grown{Stage: v.stage, What: v.what, Label: one.label, Size: one.size})
	}
	if v.stage == stageWriter {
		rounds++ // the first one closes blocks of records that it does not count
	}
	for range rounds {
		if err := v.round(ctx, loads, all); err != nil {
			return all, err
		}
	}
	for i := range all {
		g := &all[i]
		if v.stage == stageWriter {
			g.Rounds = g.Rounds[1:]
		}
		if err := g.look(ctx, loads[i], dirs[i]); err != nil {
			return all, err
		}
		low, high := Spread(g.Rounds)
		fmt.Fprintf(cfg.Progress, "%-14s %-26s %9s  %6.2f µs/event (%.2f–%.2f)\n", g.Stage, g.What, g.Label, Median(g.Rounds).Micros(), low, high)
	}
	return all, nil
}

// round runs one round of each load: one after the other, or those of a writer
// together, since most of their time is waiting for the end of a block.
func (v variants) round(ctx context.Context, loads []*load, all []Grown) error {
	var wg sync.WaitGroup
	errs := make([]error, len(loads))
	for i, l := range loads {
		one := func() {
			var s Sample
			if s, errs[i] = l.round(ctx); errs[i] == nil {
				all[i].Rounds = append(all[i].Rounds, s)
			}
		}
		if v.stage == stageWriter {
			wg.Go(one)
			continue
		}
		if one(); errs[i] != nil {
			return errs[i]
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// look adds what the rounds left in memory, on disk and in ClickHouse.
func (g *Grown) look(ctx context.Context, l *load, dir string) error {
	switch g.Stage {
	case stageEnricher:
		sums, err := sumMetrics(ctx, l.pprofs[stageEnricher], "uptake_enricher_dedup_memory_bytes", "uptake_enricher_identity_memory_bytes")
		if err != nil {
			return err
		}
		g.DedupBytes, g.IdentityBytes = int64(sums[0]), int64(sums[1])
		g.DiskBytes, err = folderBytes(dir)
		return err
	case stageWriter:
		const of = " FROM system.parts WHERE active AND startsWith(database, 'uptake') AND "
		text, err := l.server.Query(ctx, "SELECT sumIf(rows, table = 'usage_hourly' OR table LIKE '%daily') / sumIf(rows, table = 'events')"+of+"rows > 0")
		if err != nil {
			return err
		}
		g.RollupRows, err = strconv.ParseFloat(strings.TrimSpace(text), 64)
		return err
	}
	return nil
}

// folderBytes sums the files below a folder.
func folderBytes(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// GrowthValues are what docs/performance.json keeps of a run: what a message id
// and an identity take, at the largest size.
func GrowthValues(all []Grown) map[string]any {
	values := map[string]any{}
	for _, g := range all {
		per := func(bytes int64) float64 { return round(float64(bytes) / float64(g.Size)) }
		switch g.What {
		case growthIDs:
			values["memory_bytes_per_message_id"], values["disk_bytes_per_message_id"] = per(g.DedupBytes), per(g.DiskBytes)
		case growthIdentities:
			values["memory_bytes_per_identity"] = per(g.IdentityBytes)
		}
	}
	return values
}

// sumMetrics reads /metrics and sums the series of each name.
func sumMetrics(ctx context.Context, addr string, names ...string) ([]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	sums := make([]float64, len(names))
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		for i, name := range names {
			rest, ok := strings.CutPrefix(lines.Text(), name)
			if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
				continue
			}
			v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
			if err != nil {
				return nil, fmt.Errorf("metric %q: %w", lines.Text(), err)
			}
			sums[i] += v
		}
	}
	return sums, lines.Err()
}

// GrowthTable is what was measured as Markdown, a table for each stage.
func GrowthTable(all []Grown) string {
	heads := map[string]string{
		stageEnricher: "peak MiB | table of ids, MiB | identities, MiB | data folder, MiB |\n|---|---|---|---|---|---|---|\n",
		stageWriter:   "ClickHouse µs/event | rows in rollups for each event | peak MiB |\n|---|---|---|---|---|---|\n",
		stageGateway:  "peak MiB |\n|---|---|---|---|\n",
	}
	var b strings.Builder
	last := ""
	for _, g := range all {
		if g.Stage != last {
			fmt.Fprintf(&b, "\n| %s: what grows | size | CPU µs/event (low–high) | %s", g.Stage, heads[g.Stage])
			last = g.Stage
		}
		m := Median(g.Rounds)
		low, high := Spread(g.Rounds)
		fmt.Fprintf(&b, "| %s | %s | %.2f (%.2f–%.2f) |", g.What, g.Label, m.Micros(), low, high)
		switch g.Stage {
		case stageEnricher:
			fmt.Fprintf(&b, " %d | %.1f | %.1f | %d |\n", m.PeakRSS>>20, float64(g.DedupBytes)/(1<<20), float64(g.IdentityBytes)/(1<<20), g.DiskBytes>>20)
		case stageWriter:
			fmt.Fprintf(&b, " %.2f | %.2f | %d |\n", m.per(m.Parts[0].CPU), g.RollupRows, m.PeakRSS>>20)
		default:
			fmt.Fprintf(&b, " %d |\n", m.PeakRSS>>20)
		}
	}
	return strings.TrimPrefix(b.String(), "\n") + "\n"
}

// WriteSettings writes what was measured as a Markdown table.
func WriteSettings(w io.Writer, all []Grown) error {
	var b strings.Builder
	b.WriteString("| setting | value | CPU µs/event (low–high) | events/s | peak MiB |\n|---|---|---|---|---|\n")
	for _, g := range all {
		m := Median(g.Rounds)
		low, high := Spread(g.Rounds)
		fmt.Fprintf(&b, "| `%s` | %s | %.2f (%.2f–%.2f) | %.0f | %d |\n", g.What, g.Label, m.Micros(), low, high, m.Rate(), m.PeakRSS>>20)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
