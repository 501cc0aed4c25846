package alert

import (
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/alert/evaluate"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

const healthDefinitions = `
insight: shop
health:
  - id: fit
    description: Does it fit?
    owner: cs
    consequence: contract
    parts:
      - {id: breadth, measure: {count: features, window: 14d}, yardstick: 3, weight: 2}
      - {id: depth, measure: {count: events, window: 7d}, yardstick: 10}
      - {id: refunds, kind: friction, measure: {count: events, of: refund, window: 28d}, yardstick: 4, weight: 1.5}
      - {id: seats, kind: revenue, trait: seats, yardstick: 8, weight: 0.5}
    bands: [{id: low, from: 0}, {id: middle, from: 35}, {id: high, from: 70}]
`

// TestScoresEqualBruteForce compares scores, bands and parts with sums over the uses
// themselves, at random ticks of random histories.
func TestScoresEqualBruteForce(t *testing.T) {
	d, err := insight.Parse([]byte(healthDefinitions))
	if err != nil {
		t.Fatal(err)
	}
	list := signals([]dated{{From: time.Unix(0, 0), Rules: d.Rules, signals: d.Signals}})
	if len(list) != 3 {
		t.Fatalf("%d signals, want one for each band", len(list))
	}
	h := &d.Signals.Health[0]
	type use struct {
		tick    evaluate.Tick
		feature uint64 // 1 is refund
	}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var uses []use
		for range r.IntN(60) {
			uses = append(uses, use{evaluate.Tick(1000 + r.IntN(100)), uint64(1 + r.IntN(5))})
		}
		seats := float64(r.IntN(12))
		f := &facts{points: map[string]map[string][]evaluate.Point{}, traits: map[string]map[string]map[string]string{insight.LevelAccount: {"a": {"seats": number(seats), "contract": "500"}}}}
		for i := range h.Parts {
			m := h.Parts[i].Measure
			if m == nil {
				continue
			}
			var points []evaluate.Point
			for _, u := range uses {
				if len(m.Of) == 0 || u.feature == 1 {
					points = append(points, evaluate.Point{Tick: u.tick, Key: u.feature, Amount: 1})
				}
			}
			f.points[measureKey(m, insight.LevelAccount, day)] = map[string][]evaluate.Point{"a": points}
		}
		truth := func(at evaluate.Tick) (score float64, shares [4]float64) {
			features := map[uint64]bool{}
			depth, refunds := 0.0, 0.0
			for _, u := range uses {
				if u.tick > at {
					continue
				}
				if at-u.tick < 14 {
					features[u.feature] = true
				}
				if at-u.tick < 7 {
					depth++
				}
				if at-u.tick < 28 && u.feature == 1 {
					refunds++
				}
			}
			shares = [4]float64{math.Min(1, float64(len(features))/3), math.Min(1, depth/10), 1 - math.Min(1, refunds/4), math.Min(1, seats/8)}
			return 100 * (2*shares[0] + shares[1] + 1.5*shares[2] + 0.5*shares[3]) / 5, shares
		}
		for range 20 {
			at := evaluate.Tick(990 + r.IntN(130))
			want, shares := truth(at)
			before, earlier := truth(at - 28)
			row := (&compiler{s: list[0], f: f, subject: "a"}).health("dev", h, at)
			oldest, _ := truth(at - 84)
			band := "low"
			if want >= 35 {
				band = "middle"
			}
			if want >= 70 {
				band = "high"
			}
			if !near(row.Score, want) || !near(row.Score4, before) || !near(row.Score12, oldest) || row.Band != band || !near(row.Priority, 500*(100-want)/100) {
				t.Fatalf("seed %d at %d: %+v, want %g, %g, %g and %s", seed, at, row, want, before, oldest, band)
			}
			weights := [4]float64{2, 1, 1.5, 0.5}
			for i, p := range row.Parts {
				if !near(p.Share, shares[i]) || !near(p.Change, 20*weights[i]*(shares[i]-earlier[i])) {
					t.Fatalf("seed %d at %d: part %+v, want a share of %g, before %g", seed, at, p, shares[i], earlier[i])
				}
			}
			in := 0
			for _, s := range list {
				if holds, _ := s.rules(f, "a")(at).Fires.Holds(s.rules(f, "a")(at).Value, at); holds {
					in++
					if s.versions[0].id() != "fit:"+band {
						t.Fatalf("seed %d at %d: in %s, want %s", seed, at, s.id, band)
					}
				}
			}
			if in != 1 {
				t.Fatalf("seed %d at %d: in %d bands", seed, at, in)
			}
		}
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

// TestHealthFollowsCorrections takes an account down a band, and back when the usage
// that was missing turns up.
func TestHealthFollowsCorrections(t *testing.T) {
	b := newBench(t)
	b.define(`
insight: shop
health:
  - id: fit
    description: Shop health
    owner: cs
    parts: [{id: frequency, measure: {count: days, window: 7d}, yardstick: 5}]
    bands: [{id: low, from: 0}, {id: high, from: 60}]
`, "fit")
	b.use("acme", days(60, 4)...)
	b.start(nil)
	acme := "fit acme entered: score 100, high; largest change in 4 weeks: frequency, from 0 to 7 (+100.0 points)"
	b.await(acme)
	if row := b.scores()["acme"]; row.Score != 80 || row.Band != "high" || row.Score4 != 100 || row.Score12 != 0 || row.Parts[0].Value != 4 ||
		row.Reason != "largest change in 4 weeks: frequency, from 7 to 4 (-20.0 points)" {
		t.Errorf("score %+v", row)
	}
	b.use("late", days(60, 30)...)
	low := "fit late entered: score 40, low; largest change in 4 weeks: frequency, from 7 to 2 (-60.0 points)"
	b.await(acme, low)
	// The usage that was missing arrives: the account never was in that band.
	b.use("late", days(29, 1)...)
	b.await(acme, low,
		"fit late retracted: withdrawn: history was corrected; as now known, score 100, high; unchanged against 4 weeks before",
		"fit late entered: not over: history was corrected; score 100, high; unchanged against 4 weeks before",
	)
	if row := b.scores()["late"]; row.Score != 100 || row.Band != "high" {
		t.Errorf("score %+v", row)
	}
}

// define replaces the definitions, and has the receiver take changes of a signal.
func (b *bench) define(text, follow string) {
	b.t.Helper()
	_, file, _ := strings.Cut(b.cfg.Definitions[0], "=")
	targets, err := os.ReadFile(b.cfg.Targets)
	if err != nil {
		b.t.Fatal(err)
	}
	for name, content := range map[string]string{file: text, b.cfg.Targets: strings.ReplaceAll(string(targets), "[regular]", "["+follow+"]")} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

// state is what the state topic holds now.
func (b *bench) state() map[string][]byte {
	b.t.Helper()
	opts, err := b.cfg.Kafka.Options(b.Log, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := reader.New(opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	state := map[string][]byte{}
	if err := r.All(b.t.Context(), topic.Unprefixed.AlertState, 0, func(rec *kgo.Record) error {
		state[string(rec.Key)] = rec.Value
		if len(rec.Value) == 0 {
			delete(state, string(rec.Key))
		}
		return nil
	}); err != nil {
		b.t.Fatal(err)
	}
	return state
}

// scores are those in the state topic, by account.
func (b *bench) scores() map[string]signal.Health {
	b.t.Helper()
	scores := map[string]signal.Health{}
	for k, value := range b.state() {
		if signal.Parts(k)[0] != signal.KeyHealth {
			continue
		}
		h, err := signal.DecodeHealth(value)
		if err != nil {
			b.t.Fatal(err)
		}
		scores[h.Account] = h
	}
	return scores
}
