package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/uptakehq/uptake/test/harness/repository"
)

// Micro is one Go benchmark of a hot part.
type Micro struct {
	Name        string // package and benchmark, without the count of processors
	NanosPerOp  float64
	MBPerSecond float64 // 0: it sets no bytes
	BytesPerOp  int64
	AllocsPerOp int64
}

// hot are the benchmarks of the hot parts: package and pattern.
var hot = [][2]string{
	{"ingest-gateway/scan", "Value"},
	{"ingest-gateway/segment", "Decode"},
	{"ingest-gateway/keys", "App"},
	{"schemas/event", "AppendRaw|DecodeRaw|DecodeEnriched|AppendEnriched"},
	{"schemas/catalog", "Match/names=100$/rules=1000$"},
	{"schemas/privacy", "Redact"},
	{"enricher/internal/metadata", "Normalize"},
	{"enricher/internal/dedup", "Seen|NewAndCommit"},
	{"enricher/enrich", "SessionID"},
	{"enricher/internal/identity", "Event"},
	{"rollup-writer/internal/block", "Cutter"},
	{"rollup-writer/rollup", "Take"},
	{"rollup-writer/internal/columns", "Build"},
}

// microRounds is how often each benchmark runs. The quickest counts: what other
// work adds to a wall time is never less than nothing.
const microRounds = "5"

// MicroRun runs the Go benchmarks, each round for benchtime, as go test has it.
func MicroRun(ctx context.Context, benchtime string, progress io.Writer) ([]Micro, error) {
	root, err := repository.Root()
	if err != nil {
		return nil, err
	}
	var all []Micro
	for _, h := range hot {
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", h[1], "-benchmem", "-benchtime", benchtime, "-count", microRounds, "./"+h[0])
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil {
			return all, fmt.Errorf("benchmarks of %s: %w\n%s", h[0], err, out)
		}
		some := parseMicro(h[0], out)
		if len(some) == 0 {
			return all, fmt.Errorf("benchmarks of %s: none in\n%s", h[0], out)
		}
		fmt.Fprint(progress, string(out))
		all = append(all, some...)
	}
	return all, nil
}

// parseMicro reads what go test printed, and keeps the quickest round of each.
func parseMicro(pkg string, out []byte) []Micro {
	var all []Micro
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i]
			}
		}
		m := Micro{Name: pkg + " " + name}
		for i := 2; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				break
			}
			switch fields[i+1] {
			case "ns/op":
				m.NanosPerOp = v
			case "MB/s":
				m.MBPerSecond = v
			case "B/op":
				m.BytesPerOp = int64(v)
			case "allocs/op":
				m.AllocsPerOp = int64(v)
			}
		}
		at := slices.IndexFunc(all, func(o Micro) bool { return o.Name == m.Name })
		switch {
		case at < 0:
			all = append(all, m)
		case m.NanosPerOp < all[at].NanosPerOp:
			all[at] = m
		}
	}
	return all
}
