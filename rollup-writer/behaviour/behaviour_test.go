package behaviour

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/longtest"
)

func valid(t *testing.T, change func(*Config)) *Config {
	t.Helper()
	c := DefaultConfig()
	c.App, c.From, c.To = "dev", "2026-11-02", "2026-11-30"
	if change != nil {
		change(&c)
	}
	if err := c.Validate(time.Time{}); err != nil {
		t.Fatal(err)
	}
	return &c
}

// some are units of three kinds, and of no kind.
func some(r *rand.Rand, n int) []Unit {
	mixes := []map[string]float64{{"scan": 0.6, "pay": 0.4}, {"print": 0.9, "pay": 0.1}, {"scan": 0.2, "promote": 0.8}}
	units := make([]Unit, n)
	for i := range units {
		u := Unit{ID: fmt.Sprintf("u%05d", i), Events: 30 + int64(r.IntN(50)), Shares: map[string]float64{}, Frequency: float64(i%3) / 3, DaysSinceLast: float64(r.IntN(3))}
		sum := 0.0
		for f, share := range mixes[i%3] {
			u.Shares[f] = share * (0.8 + 0.4*r.Float64())
			sum += u.Shares[f]
		}
		for f := range u.Shares {
			u.Shares[f] /= sum
		}
		u.Recency = 1 - u.DaysSinceLast/28
		units[i] = u
	}
	return units
}

// kinds are how many of each kind of some are in each cluster.
func kinds(g *Grouped) map[uint32][3]int {
	in := map[uint32][3]int{}
	for _, k := range g.Clusters {
		for _, m := range k.Members {
			var i int
			fmt.Sscanf(m.ID, "u%d", &i) //nolint:errcheck // the ids are those of some
			n := in[k.Number]
			n[i%3]++
			in[k.Number] = n
		}
	}
	return in
}

// Above the sample the clusters are those of the sample, and the others are in the
// cluster of their kind; the order of the units and of runs says nothing; another seed
// draws another sample.
func TestSampleIsAssigned(t *testing.T) {
	n := 1_500
	if longtest.Enabled() {
		n = 30_000
	}
	r := rand.New(rand.NewPCG(1, 1))
	units := some(r, n)
	c := valid(t, func(c *Config) { c.Sample, c.Eps = n/3, 0.1 })
	g := Group(units, c, nil)
	if g.LookedAt != n || g.LeftOut != 0 || g.Sampled != n/3 {
		t.Errorf("%d looked at, %d left out, %d sampled", g.LookedAt, g.LeftOut, g.Sampled)
	}
	in := kinds(g)
	if len(in) < 3 {
		t.Fatalf("clusters %v", in)
	}
	total := 0
	for cluster, of := range in {
		sum := of[0] + of[1] + of[2]
		total += sum
		if cluster > 0 && cluster <= 3 && (sum < n/4 || max(of[0], of[1], of[2]) != sum) {
			t.Errorf("cluster %d: %v of the kinds", cluster, of)
		}
		if cluster == 0 && sum > n/20 {
			t.Errorf("%d of %d in no cluster", sum, n)
		}
	}
	if total != n {
		t.Errorf("%d members of %d units", total, n)
	}
	r.Shuffle(n, func(i, j int) { units[i], units[j] = units[j], units[i] })
	if again := Group(units, c, nil); !reflect.DeepEqual(again, g) {
		t.Error("another order gives other clusters")
	}
	c.Eps = 0 // chosen from the sample
	g = Group(units, c, nil)
	c.Seed++
	if again := Group(units, c, nil); again.Eps == g.Eps || g.Eps == 0 {
		t.Errorf("another seed draws the same sample: eps %g", g.Eps)
	}
}

func TestFewEventsAreLeftOut(t *testing.T) {
	units := some(rand.New(rand.NewPCG(2, 2)), 60)
	for i := range 7 {
		units[i].Events = 19
	}
	g := Group(units, valid(t, nil), nil)
	sum := 0
	for _, k := range g.Clusters {
		sum += len(k.Members)
		if k.Mean.Units != len(k.Members) || k.Mean.Units+k.Rest.Units != 53 {
			t.Errorf("cluster %d: %d members, means of %d and %d", k.Number, len(k.Members), k.Mean.Units, k.Rest.Units)
		}
	}
	if g.LookedAt != 60 || g.LeftOut != 7 || sum != 53 || g.MinPoints != 4 {
		t.Errorf("%d looked at, %d left out, %d in clusters, min-points %d", g.LookedAt, g.LeftOut, sum, g.MinPoints)
	}
	for _, none := range [][]Unit{nil, units[:7]} {
		if g := Group(none, valid(t, nil), nil); len(g.Clusters) != 0 || g.LeftOut != len(none) {
			t.Errorf("of %d units: %+v", len(none), g)
		}
	}
}

// The distance between two units is the one that DESIGN.md gives.
func TestDistance(t *testing.T) {
	units := some(rand.New(rand.NewPCG(3, 3)), 40)
	c := valid(t, func(c *Config) { c.Eps = 2 }) // one cluster, so that its mean is that of all
	g := Group(units, c, nil)
	if len(g.Clusters) != 1 || g.Clusters[0].Description != "all that were grouped: there is no rest to compare with" {
		t.Fatalf("%+v", g.Clusters)
	}
	mean := g.Clusters[0].Mean
	for i, m := range g.Clusters[0].Members {
		u := &units[i]
		common := 0.0
		for f, share := range u.Shares {
			common += math.Sqrt(share * mean.Shares[f])
		}
		want := math.Sqrt(1 - common + (u.Frequency-mean.Frequency)*(u.Frequency-mean.Frequency)/4 + (u.Recency-mean.Recency)*(u.Recency-mean.Recency)/4)
		if m.ID != u.ID || math.Abs(m.Distance-want) > 1e-6 {
			t.Errorf("%s: got %s at %g, want %g", u.ID, m.ID, m.Distance, want)
		}
	}
}

func TestWords(t *testing.T) {
	mean := func(frequency, last float64, shares map[string]float64) Mean {
		return Mean{Units: 5, Shares: shares, Frequency: frequency, Recency: 1 - last/28, DaysSinceLast: last}
	}
	c := valid(t, nil)
	names := map[string]string{"scan": "Item Scanned"}
	for _, tc := range []struct {
		number    uint32
		own, rest Mean
		want      string
	}{
		{
			1, mean(0.5, 1, map[string]float64{"scan": 0.84, "pay": 0.15}), mean(0.5, 1, map[string]float64{"scan": 0.2, "pay": 0.8}),
			"seldom uses pay (15 of 100 events, the rest 80); uses Item Scanned 4.2 times as often as the rest (84 of 100 events, the rest 20)",
		},
		{1, mean(0.5, 1, map[string]float64{"scan": 0.5, "pay": 0.5}), mean(0.5, 1, map[string]float64{"scan": 0.5, "pay": 0.5}), "differs little from the rest"},
		{0, mean(0.5, 1, map[string]float64{"scan": 1}), mean(0.5, 1, map[string]float64{"scan": 1}), "in no cluster; on average: differs little from the rest"},
		{
			2, mean(0.1, 21, map[string]float64{"scan": 1}), mean(0.5, 2, map[string]float64{"scan": 1}),
			"comes on fewer days (2.8 of 28, the rest 14.0); last came 21.0 days before the end of the range on average, the rest 2.0",
		},
		{
			2, mean(0.5, 1, map[string]float64{"x": 0.51, "scan": 0.49}), mean(0.5, 1, map[string]float64{"x": 0.01, "scan": 0.99}),
			"uses x, which the rest hardly does (51 of 100 events, the rest 1); uses Item Scanned less (49 of 100 events, the rest 99)",
		},
		{2, mean(0.5, 1, map[string]float64{"scan": 1}), mean(0.5, 1, map[string]float64{"rare": 0.015, "pay": 0.035, "scan": 0.95}), "never uses pay (the rest 3.5 of 100 events)"},
	} {
		k := &Cluster{Number: tc.number, Mean: tc.own, Rest: tc.rest}
		if got := describe(k, c, names); got != tc.want {
			t.Errorf("got  %q\nwant %q", got, tc.want)
		}
	}
}

// Refusals name each setting that is wrong.
func TestValidate(t *testing.T) {
	c := Config{Unit: "team", Zone: "Mars", From: "yesterday", To: "2026-13-01", Eps: math.NaN(), MinPoints: 1, Sample: 5}
	err := c.Validate(time.Time{})
	for _, want := range []string{
		"app must name an app", `unit must be user or account (got "team")`, `zone must be a time zone such as UTC or Europe/Vienna (got "Mars")`, `from must be a day like 2026-01-31 (got "yesterday")`,
		`to must be a day like 2026-01-31 (got "2026-13-01")`, "eps must be 0 to 2 (got NaN)", "min-points must be 0 or 2 to 1000 (got 1)",
		"min-events must be at least 1 (got 0)", "sample must be 100 to 50000 (got 5)", "most must be at least 1 (got 0)",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	c = DefaultConfig()
	c.App, c.Zone = "dev", "Pacific/Auckland"
	if err := c.Validate(time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC)); err != nil || c.From != "2026-11-03" || c.To != "2026-12-01" || c.days() != 28 {
		t.Errorf("defaults: %s to %s, %v days, %v", c.From, c.To, c.days(), err)
	}
	if c.From, c.To = "2026-11-30", "2026-11-30"; c.Validate(time.Time{}) == nil {
		t.Error("a range without a day is accepted")
	}
}

// Kinds of users are found although a fifth of the users are like nobody, and however many
// there are.
func TestManyAreLikeNobody(t *testing.T) {
	sizes := []int{300, 1_000}
	if longtest.Enabled() {
		sizes = append(sizes, 3_000, 10_000)
	}
	features := []string{"bag", "invoice", "pay", "print", "promote", "scan"}
	mixes := [][]float64{{0.16, 0.26, 0.13, 0.07, 0, 0.38}, {0, 0.45, 0.1, 0.45, 0, 0}, {0.85, 0, 0, 0, 0, 0.15}, {0, 0, 0.1, 0, 0.75, 0.15}}
	often := []float64{0.7, 0.25, 0.55, 0.33}
	for _, n := range sizes {
		r := rand.New(rand.NewPCG(1, uint64(n)))
		units := make([]Unit, n)
		for i := range units {
			u := Unit{ID: fmt.Sprintf("u%05d", i), Events: 30 + int64(r.IntN(120)), Shares: map[string]float64{}}
			mix, likely := make([]float64, len(features)), r.Float64()
			if kind := i % 5; kind < 4 {
				mix, likely = mixes[kind], often[kind]
			} else {
				sum := 0.0
				for f := range mix {
					mix[f] = math.Pow(r.Float64(), 3)
					sum += mix[f]
				}
				for f := range mix {
					mix[f] /= sum
				}
			}
			for range u.Events {
				x, f := r.Float64(), 0
				for f < len(mix)-1 && x >= mix[f] {
					x -= mix[f]
					f++
				}
				u.Shares[features[f]] += 1 / float64(u.Events)
			}
			for day := range 28 {
				if r.Float64() < likely {
					u.Frequency += 1.0 / 28
					u.DaysSinceLast = float64(27 - day)
				}
			}
			u.Recency = 1 - u.DaysSinceLast/28
			units[i] = u
		}
		g := Group(units, valid(t, nil), nil)
		home, count := map[int]uint32{}, map[int]int{} // of each kind
		for _, k := range g.Clusters {
			of := [5]int{}
			for _, m := range k.Members {
				var i int
				fmt.Sscanf(m.ID, "u%d", &i) //nolint:errcheck // the ids are those above
				of[i%5]++
			}
			for kind, in := range of[:4] {
				if in > count[kind] {
					home[kind], count[kind] = k.Number, in
				}
			}
		}
		taken := map[uint32]bool{0: true}
		for kind := range 4 {
			if taken[home[kind]] || count[kind] < n/5*9/10 {
				t.Errorf("%d units: kind %d has %d in cluster %d, want nine of ten of %d in a cluster of its own", n, kind, count[kind], home[kind], n/5)
			}
			taken[home[kind]] = true
		}
	}
}
