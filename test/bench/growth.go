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
	"strconv"
	"strings"
)

// growthCase is one size of one thing that grows.
type growthCase struct {
	what string
	size int
	set  func(*Config, int)
}

// Names that GrowthValues knows.
const (
	growthIDs        = "known message ids"
	growthIdentities = "known identities"
)

// growthCases are what the enricher knows, at 1, 10 and 100 times, each alone
// over a small load.
func growthCases() []growthCase {
	var cases []growthCase
	for _, g := range []struct {
		what  string
		sizes []int
		set   func(*Config, int)
	}{
		{growthIDs, []int{90_000, 900_000, 9_000_000}, func(c *Config, n int) { c.KnownIDs = n }},
		{growthIdentities, []int{10_000, 100_000, 1_000_000}, func(c *Config, n int) { c.KnownIdentities = n }},
		{"features, half by rules", []int{100, 1_000, 8_000}, func(c *Config, n int) { c.Features, c.RuleFeatures = n, n/2 }},
		{"accounts", []int{1_000, 10_000, 100_000}, func(c *Config, n int) { c.Accounts = n }},
		{"distinct property keys", []int{40, 400, 4_000}, func(c *Config, n int) { c.Keys = n }},
		{"partitions", []int{1, 10, 100}, func(c *Config, n int) { c.Partitions = n }},
	} {
		for _, size := range g.sizes {
			cases = append(cases, growthCase{g.what, size, g.set})
		}
	}
	return cases
}

// Grown is what an event costs the enricher at a size.
type Grown struct {
	What          string
	Size          int
	Micros        float64
	RSS           int64 // peak, bytes
	DedupBytes    int64 // of the table of message ids
	IdentityBytes int64
	DiskBytes     int64 // of the data folder
}

// Growth measures the enricher at every size of what grows. Only those whose
// name holds match are measured.
func Growth(ctx context.Context, cfg Config, match string) ([]Grown, error) {
	cfg.KnownIDs, cfg.KnownIdentities, cfg.Rounds = 90_000, 10_000, 1
	var all []Grown
	root := cfg.Dir
	for i, g := range growthCases() {
		if !strings.Contains(g.what, match) {
			continue
		}
		c := cfg
		g.set(&c, g.size)
		c.Dir = filepath.Join(root, strconv.Itoa(i))
		if err := c.Validate(); err != nil {
			return all, err
		}
		grown, err := grow(ctx, c)
		if err != nil {
			return all, fmt.Errorf("%d %s: %w", g.size, g.what, err)
		}
		grown.What, grown.Size = g.what, g.size
		fmt.Fprintf(cfg.Progress, "%-26s %9d  %6.2f µs/event  %5d MiB\n", g.what, g.size, grown.Micros, grown.RSS>>20)
		all = append(all, grown)
	}
	return all, nil
}

func grow(ctx context.Context, cfg Config) (g Grown, err error) {
	r := &runner{cfg: cfg}
	l, err := enricher(ctx, r)
	if err != nil {
		return g, err
	}
	defer func() {
		if e := l.close(ctx); err == nil {
			err = e
		}
	}()
	s, err := l.round(ctx)
	if err != nil {
		return g, err
	}
	g.Micros, g.RSS = s.Micros(), s.PeakRSS
	sums, err := sumMetrics(ctx, l.pprofs["enricher"], "uptake_enricher_dedup_memory_bytes", "uptake_enricher_identity_memory_bytes")
	if err != nil {
		return g, err
	}
	g.DedupBytes, g.IdentityBytes = int64(sums[0]), int64(sums[1])
	g.DiskBytes, err = folderBytes(cfg.Dir)
	return g, err
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

// WriteGrowth writes what was measured as a Markdown table.
func WriteGrowth(w io.Writer, all []Grown) error {
	var b strings.Builder
	b.WriteString("| what grows | size | CPU µs/event | peak MiB | table of ids, MiB | identities, MiB | data folder, MiB |\n|---|---|---|---|---|---|---|\n")
	for _, g := range all {
		fmt.Fprintf(&b, "| %s | %d | %.2f | %d | %.1f | %.1f | %d |\n", g.What, g.Size, g.Micros, g.RSS>>20, float64(g.DedupBytes)/(1<<20), float64(g.IdentityBytes)/(1<<20), g.DiskBytes>>20)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
