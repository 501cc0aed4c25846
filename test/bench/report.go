package bench

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"
)

// JSON returns the figures as docs/performance.json has them: for each stage
// <stage>_us and <stage>_floor_us, CPU microseconds per event, medians; for the
// processes of a stage that has several, <stage>_<process>_us. previous, if any,
// gives the values of what was not measured this time.
func JSON(previous []byte, figures []Figure, micro []Micro, commit string, at time.Time) ([]byte, error) {
	out := map[string]any{}
	out["commit"], out["date"], out["machine"] = commit, at.UTC().Format(time.DateOnly), Machine()
	for _, f := range figures {
		stage := Median(f.Rounds)
		out[f.Stage+"_us"] = round(stage.Micros())
		if len(f.Floor) > 0 {
			out[f.Stage+"_floor_us"] = round(Median(f.Floor).Micros())
		}
		out[f.Stage+"_events_per_second"] = int(stage.Rate())
		if stage.PeakRSS > 0 {
			out[f.Stage+"_peak_mib"] = peak(f) >> 20
		}
		for _, p := range stage.Parts {
			out[f.Stage+"_"+p.Name+"_us"] = round(stage.per(p.CPU))
			out[f.Stage+"_"+p.Name+"_peak_mib"] = p.PeakRSS >> 20
		}
		if b := stage.Blocks; b.Blocks > 0 {
			out[f.Stage+"_blocks"] = b.Blocks
			out[f.Stage+"_rows_per_block"] = round(per(b.Rows, b.Blocks))
			out[f.Stage+"_statements_per_block"] = round(per(b.Statements, b.Blocks))
			out[f.Stage+"_read_rows_per_event"] = round(per(b.Read, stage.Events))
		}
		if latency := f.latency(); len(latency) > 0 {
			out[f.Stage+"_p50_ms"] = millis(Percentile(latency, 0.50))
			out[f.Stage+"_p99_ms"] = millis(Percentile(latency, 0.99))
		}
	}
	if len(micro) > 0 {
		hot := map[string]any{}
		for _, m := range micro {
			hot[m.Name] = map[string]any{"ns_per_op": round(m.NanosPerOp), "mb_per_s": round(m.MBPerSecond), "bytes_per_op": m.BytesPerOp, "allocs_per_op": m.AllocsPerOp}
		}
		out["benchmarks"] = hot
	}
	return Merge(previous, out)
}

// Merge returns the figures of before with values in place of those of the same
// name.
func Merge(previous []byte, values map[string]any) ([]byte, error) {
	out := map[string]any{}
	if len(previous) > 0 {
		if err := json.Unmarshal(previous, &out); err != nil {
			return nil, fmt.Errorf("figures of before: %w", err)
		}
	}
	maps.Copy(out, values)
	text, err := json.MarshalIndent(out, "", "  ")
	return append(text, '\n'), err
}

// text says in one line what blocks were made of a number of events.
func (b Blocks) text(events int) string {
	s := fmt.Sprintf("%d blocks of %.0f rows, %.1f statements each", b.Blocks, per(b.Rows, b.Blocks), per(b.Statements, b.Blocks))
	if b.Read > 0 {
		s += fmt.Sprintf("; for corrections %.2f rows read and %.2f inserted for each event", per(b.Read, events), per(b.Moved, events))
	}
	return s
}

func per(n, of int) float64 { return float64(n) / float64(max(of, 1)) }

// floorPart is the CPU of a process of the floor, empty where the floor is of
// other processes.
func (f Figure) floorPart(name string) string {
	if len(f.Floor) == 0 {
		return ""
	}
	floor := Median(f.Floor)
	for _, p := range floor.Parts {
		if p.Name == name {
			return fmt.Sprintf("%.2f", floor.per(p.CPU))
		}
	}
	return ""
}

func round(v float64) float64 { return math.Round(v*100) / 100 }

func millis(d time.Duration) float64 { return round(float64(d.Microseconds()) / 1e3) }

// latency is that of all rounds.
func (f Figure) latency() []time.Duration {
	var all []time.Duration
	for _, s := range f.Rounds {
		all = append(all, s.Latency...)
	}
	return all
}

// peak is the highest peak of all rounds.
func peak(f Figure) (most int64) {
	for _, s := range f.Rounds {
		most = max(most, s.PeakRSS)
	}
	return most
}

// Table returns the figures as a Markdown table.
func Table(figures []Figure) string {
	var b strings.Builder
	b.WriteString("| stage | CPU µs/event (low–high) | floor (low–high) | ratio | events/s | p50 / p99 ms | peak MiB |\n|---|---|---|---|---|---|---|\n")
	for _, f := range figures {
		stage := Median(f.Rounds)
		low, high := Spread(f.Rounds)
		floor, ratio, latency, memory := "", "", "", ""
		if len(f.Floor) > 0 {
			least, most := Spread(f.Floor)
			us := Median(f.Floor).Micros()
			floor, ratio = fmt.Sprintf("%.2f (%.2f–%.2f)", us, least, most), fmt.Sprintf("%.1f", stage.Micros()/us)
		}
		if l := f.latency(); len(l) > 0 {
			latency = fmt.Sprintf("%.1f / %.1f", millis(Percentile(l, 0.50)), millis(Percentile(l, 0.99)))
		}
		if p := peak(f); p > 0 {
			memory = fmt.Sprint(p >> 20)
		}
		fmt.Fprintf(&b, "| %s | %.2f (%.2f–%.2f) | %s | %s | %.0f | %s | %s |\n",
			f.Stage, stage.Micros(), low, high, floor, ratio, stage.Rate(), latency, memory)
		for _, p := range stage.Parts {
			fmt.Fprintf(&b, "| — %s in it | %.2f | %s | | | | %d |\n", p.Name, stage.per(p.CPU), f.floorPart(p.Name), p.PeakRSS>>20)
		}
		if stage.Blocks.Blocks > 0 {
			fmt.Fprintf(&b, "| — %s | | | | | | |\n", stage.Blocks.text(stage.Events))
		}
	}
	return b.String()
}

// MicroTable returns the Go benchmarks as a Markdown table.
func MicroTable(micro []Micro) string {
	var b strings.Builder
	b.WriteString("| benchmark | ns/op | MB/s | B/op | allocs/op |\n|---|---|---|---|---|\n")
	for _, m := range micro {
		speed := ""
		if m.MBPerSecond > 0 {
			speed = fmt.Sprintf("%.0f", m.MBPerSecond)
		}
		fmt.Fprintf(&b, "| %s | %.0f | %s | %d | %d |\n", m.Name, m.NanosPerOp, speed, m.BytesPerOp, m.AllocsPerOp)
	}
	return b.String()
}

// Splice replaces what stands in a document between the marks of name, which are
// the comments <!-- name --> and <!-- /name -->.
func Splice(doc, name, text string) (string, error) {
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->"
	head, rest, ok := strings.Cut(doc, begin)
	_, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("no %q with an end in the document", strings.TrimSpace(begin))
	}
	return head + begin + "\n" + text + "\n" + end + tail, nil
}
