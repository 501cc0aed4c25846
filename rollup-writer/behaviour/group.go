package behaviour

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/uptakehq/uptake/rollup-writer/internal/dbscan"
)

// Unit is the behaviour of a user or an account in a range, as the view behaviour has it.
type Unit struct {
	ID            string
	Events        int64
	Shares        map[string]float64 // of features, which add up to 1
	Frequency     float64            // share of the days with usage
	DaysSinceLast float64            // from the last of them to the end of the range
	Recency       float64            // the same from 1, the last day, towards 0
}

// Mean is the mean behaviour of some units, each of which counts the same.
type Mean struct {
	Units         int
	Shares        map[string]float64
	Frequency     float64
	Recency       float64
	DaysSinceLast float64
	Events        float64
}

// Cluster is a group of units that behave alike, or, with the number 0, those that are
// in none.
type Cluster struct {
	Number      uint32
	Description string
	Mean        Mean // of its members
	Rest        Mean // of all other units that were grouped
	Members     []Member
}

// Member is a unit in a cluster.
type Member struct {
	ID       string
	Distance float64 // from the mean of the cluster
}

// Grouped is the outcome of a run.
type Grouped struct {
	Clusters []Cluster // by number; 0 only if some units are in no cluster

	LookedAt, LeftOut, Sampled int // units: with usage, of them with too few events, and those the clusters were found from

	// What the clusters were found with.
	Eps       float64
	MinPoints int
}

// weight is that of frequency and of recency beside the shares of features: between
// somebody who comes daily and somebody who never does lies half as much as between
// two who have no feature in common.
const weight = 0.5

// leastOf is the part of the units that makes a cluster, unless min-points says another
// number; smaller ones do not count when eps is chosen.
const leastOf = 100

// space makes points of units. The distance of the shares is that of Hellinger, between
// 0 and 1: unlike the difference of the shares it does not make the one feature that
// everybody uses most all that counts.
type space struct{ dims map[string]int32 }

func newSpace(units []Unit) *space {
	names := map[string]bool{}
	for i := range units {
		for f := range units[i].Shares {
			names[f] = true
		}
	}
	s := &space{dims: map[string]int32{}}
	for _, f := range sortedKeys(names) {
		s.dims[f] = int32(len(s.dims)) + 2
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (s *space) point(shares map[string]float64, frequency, recency float64) dbscan.Point {
	p := dbscan.Point{Dims: []int32{0, 1}, Values: []float64{weight * frequency, weight * recency}}
	for _, f := range sortedKeys(shares) { // in the order of dims
		p.Dims = append(p.Dims, s.dims[f])
		p.Values = append(p.Values, math.Sqrt(shares[f]/2))
	}
	return p
}

// Group finds the clusters of units; names are those of features, where they have one.
// The same units, in any order, and settings give the same clusters.
func Group(units []Unit, c *Config, names map[string]string) *Grouped {
	g := &Grouped{LookedAt: len(units)}
	units = slices.DeleteFunc(slices.Clone(units), func(u Unit) bool { return u.Events < int64(c.MinEvents) })
	g.LeftOut = g.LookedAt - len(units)
	slices.SortFunc(units, func(a, b Unit) int { return cmp.Compare(a.ID, b.ID) })
	s := newSpace(units)
	points := make([]dbscan.Point, len(units))
	for i := range units {
		points[i] = s.point(units[i].Shares, units[i].Frequency, units[i].Recency)
	}
	of := g.find(points, c)

	byLabel := map[int][]int{}
	for i, label := range of {
		byLabel[label] = append(byLabel[label], i)
	}
	labels := make([]int, 0, len(byLabel))
	for label := range byLabel {
		labels = append(labels, label)
	}
	slices.SortFunc(labels, func(a, b int) int { // those in none, then the largest first
		return cmp.Or(-cmp.Compare(toInt(a == dbscan.None), toInt(b == dbscan.None)), -cmp.Compare(len(byLabel[a]), len(byLabel[b])), cmp.Compare(byLabel[a][0], byLabel[b][0]))
	})
	number := uint32(1)
	for _, label := range labels {
		inside := byLabel[label]
		k := Cluster{Mean: meanOf(units, inside), Rest: meanOf(units, without(len(units), inside))}
		if label != dbscan.None {
			k.Number = number
			number++
		}
		centre := dbscan.NewSpace([]dbscan.Point{s.point(k.Mean.Shares, k.Mean.Frequency, k.Mean.Recency)})
		for _, i := range inside {
			k.Members = append(k.Members, Member{units[i].ID, centre.Distance(&points[i], 0)})
		}
		k.Description = describe(&k, c, names)
		g.Clusters = append(g.Clusters, k)
	}
	return g
}

// find returns the cluster of each point: found among a sample where there are many,
// and that of the nearest core for the others.
func (g *Grouped) find(points []dbscan.Point, c *Config) []int {
	sample := make([]int, len(points))
	for i := range sample {
		sample[i] = i
	}
	if len(points) > c.Sample {
		sample = rand.New(rand.NewPCG(c.Seed, 0x636c7573)).Perm(len(points))[:c.Sample]
		slices.Sort(sample)
	}
	taken, sampled := make([]bool, len(points)), make([]dbscan.Point, len(sample))
	for n, i := range sample {
		taken[i], sampled[n] = true, points[i]
	}
	g.Sampled = len(sample)
	if g.MinPoints = c.MinPoints; g.MinPoints == 0 {
		g.MinPoints = max(4, int(math.Round(math.Log(float64(max(1, len(sample)))))), len(sample)/leastOf)
	}
	space := dbscan.NewSpace(sampled)
	radii := space.Radii(g.MinPoints)
	if g.Eps = c.Eps; g.Eps == 0 {
		g.Eps = space.Eps(radii, max(g.MinPoints, len(sample)/leastOf))
	}
	found := space.Clusters(radii, g.Eps)
	var rest []dbscan.Point
	for i := range points {
		if !taken[i] {
			rest = append(rest, points[i])
		}
	}
	assigned := found.Assign(rest)
	of, n, r := make([]int, len(points)), 0, 0
	for i := range points {
		if taken[i] {
			of[i] = found.Of[n]
			n++
		} else {
			of[i] = assigned[r]
			r++
		}
	}
	return of
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// without are the numbers below n that are not in list, which ascends.
func without(n int, list []int) (rest []int) {
	for i := range n {
		if len(list) > 0 && list[0] == i {
			list = list[1:]
			continue
		}
		rest = append(rest, i)
	}
	return rest
}

func meanOf(units []Unit, which []int) Mean {
	m := Mean{Units: len(which), Shares: map[string]float64{}}
	if len(which) == 0 {
		return m
	}
	n := float64(len(which))
	for _, i := range which {
		u := &units[i]
		for f, share := range u.Shares {
			m.Shares[f] += share / n
		}
		m.Frequency += u.Frequency / n
		m.Recency += u.Recency / n
		m.DaysSinceLast += u.DaysSinceLast / n
		m.Events += float64(u.Events) / n
	}
	return m
}
