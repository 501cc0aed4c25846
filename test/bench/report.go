package bench

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// JSON returns the figures as docs/performance.json has them: for each stage
// <stage>_us and <stage>_floor_us, CPU microseconds per event, medians.
func JSON(figures []Figure, commit string, at time.Time) ([]byte, error) {
	out := map[string]any{"commit": commit, "date": at.UTC().Format(time.DateOnly), "machine": Machine()}
	for _, f := range figures {
		stage, floor := Median(f.Rounds), Median(f.Floor)
		out[f.Stage+"_us"] = round(stage.Micros())
		out[f.Stage+"_floor_us"] = round(floor.Micros())
		out[f.Stage+"_events_per_second"] = int(stage.Rate())
		if stage.PeakRSS > 0 {
			out[f.Stage+"_peak_mib"] = stage.PeakRSS >> 20
		}
		if len(stage.Latency) > 0 {
			out[f.Stage+"_p50_ms"] = round(float64(Percentile(stage.Latency, 0.50).Microseconds()) / 1e3)
			out[f.Stage+"_p99_ms"] = round(float64(Percentile(stage.Latency, 0.99).Microseconds()) / 1e3)
		}
	}
	text, err := json.MarshalIndent(out, "", "  ")
	return append(text, '\n'), err
}

func round(v float64) float64 { return float64(int(v*100+0.5)) / 100 }

// Table returns the figures as a Markdown table.
func Table(figures []Figure) string {
	var b strings.Builder
	b.WriteString("| stage | CPU µs/event (low–high) | floor (low–high) | ratio | events/s | p50 / p99 ms | peak MiB |\n|---|---|---|---|---|---|---|\n")
	for _, f := range figures {
		stage, floor := Median(f.Rounds), Median(f.Floor)
		low, high := Spread(f.Rounds)
		floorLow, floorHigh := Spread(f.Floor)
		latency, peak := "", ""
		if len(stage.Latency) > 0 {
			latency = fmt.Sprintf("%.1f / %.1f", float64(Percentile(stage.Latency, 0.50).Microseconds())/1e3, float64(Percentile(stage.Latency, 0.99).Microseconds())/1e3)
		}
		if stage.PeakRSS > 0 {
			peak = fmt.Sprint(stage.PeakRSS >> 20)
		}
		fmt.Fprintf(&b, "| %s | %.2f (%.2f–%.2f) | %.2f (%.2f–%.2f) | %.1f | %.0f | %s | %s |\n",
			f.Stage, stage.Micros(), low, high, floor.Micros(), floorLow, floorHigh, stage.Micros()/floor.Micros(), stage.Rate(), latency, peak)
	}
	return b.String()
}
