package dbscan

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/uptakehq/uptake/schemas/longtest"
)

// dense returns the coordinates of a point, for the computation by hand.
func dense(p Point, dims int) []float64 {
	v := make([]float64, dims)
	for i, d := range p.Dims {
		v[d] = p.Values[i]
	}
	return v
}

func distance(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += (a[i] - b[i]) * (a[i] - b[i])
	}
	return math.Sqrt(sum)
}

// byHand is the definition of the clusters, pair by pair: cores have minPoints within
// eps, and clusters are the components of the graph of cores within eps of each other.
func byHand(all [][]float64, eps float64, minPoints int) (of []int, core []bool) {
	n := len(all)
	of, core = make([]int, n), make([]bool, n)
	for i := range all {
		near := 0
		for j := range all {
			if distance(all[i], all[j]) <= eps {
				near++
			}
		}
		core[i] = near >= minPoints
		of[i] = i
	}
	for range n { // labels spread until each component has its lowest index
		for i := range all {
			for j := range all {
				if core[i] && core[j] && distance(all[i], all[j]) <= eps {
					of[i], of[j] = min(of[i], of[j]), min(of[i], of[j])
				}
			}
		}
	}
	for i := range all {
		if core[i] {
			continue
		}
		of[i] = None
		least := eps
		for j := range all {
			if d := distance(all[i], all[j]); core[j] && d <= least && (d < least || of[i] == None) {
				of[i], least = of[j], d
			}
		}
	}
	return of, core
}

// numbered gives clusters numbers in the order of their first cores.
func numbered(of []int, core []bool) []int {
	numbers, out := map[int]int{None: None}, make([]int, len(of))
	for i, c := range of {
		if _, ok := numbers[c]; !ok && core[i] {
			numbers[c] = len(numbers) - 1
		}
	}
	for i, c := range of {
		out[i] = numbers[c]
	}
	return out
}

// random are points around a few centres, and some anywhere. Few distinct coordinates,
// so that points and distances repeat.
func random(r *rand.Rand, n, dims int) []Point {
	points := make([]Point, n)
	for i := range points {
		centre := r.IntN(4)
		for d := range int32(dims) {
			if r.IntN(3) == 0 {
				continue
			}
			points[i].Dims = append(points[i].Dims, d)
			v := float64(r.IntN(9)) / 8
			if centre > 0 {
				v = float64((centre*(int(d)+1))%3) + float64(r.IntN(3))/8
			}
			points[i].Values = append(points[i].Values, v)
		}
	}
	return points
}

func TestClustersAreThoseOfTheDefinition(t *testing.T) {
	cases := 60
	if longtest.Enabled() {
		cases = 3_000
	}
	several := 0
	for seed := range uint64(cases) {
		r := rand.New(rand.NewPCG(seed, 1))
		dims := 1 + r.IntN(5)
		points := random(r, 2+r.IntN(60), dims)
		minPoints, eps := 1+r.IntN(6), []float64{0, 0.125, 0.3, 0.51, 0.9}[r.IntN(5)]+1e-7
		all := make([][]float64, len(points))
		for i, p := range points {
			all[i] = dense(p, dims)
		}
		of, core := byHand(all, eps, minPoints)
		of = numbered(of, core)
		s := NewSpace(points)
		got := s.Clusters(s.Radii(minPoints), eps)
		if !slices.Equal(got.Core, core) {
			t.Fatalf("seed %d: cores %v, want %v", seed, got.Core, core)
		}
		if slices.Max(got.Of) > 0 {
			several++
		}
		for i := range got.Of {
			// Of several nearest cores at one distance, rounding may choose.
			if got.Of[i] != of[i] && !tied(all, core, i) {
				t.Fatalf("seed %d: point %d is in cluster %d, want %d", seed, i, got.Of[i], of[i])
			}
		}
		// A point that was no part of the run is assigned as one that is no core.
		for i, c := range got.Assign(points) {
			if c != got.Of[i] && !tied(all, core, i) {
				t.Fatalf("seed %d: point %d is assigned to %d, want %d", seed, i, c, got.Of[i])
			}
		}
	}
	if several < cases/4 {
		t.Errorf("%d of %d cases had several clusters: too few to tell anything", several, cases)
	}
}

func tied(all [][]float64, core []bool, i int) bool {
	var near []float64
	for j := range all {
		if core[j] && j != i {
			near = append(near, distance(all[i], all[j]))
		}
	}
	slices.Sort(near)
	return !core[i] && len(near) > 1 && near[1]-near[0] < 1e-9
}

// Clusters are the same whatever the order of the points.
func TestOrderDoesNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	points := make([]Point, 300)
	for i := range points {
		points[i] = Point{[]int32{0, 1}, []float64{float64(i%3) + 0.3*r.NormFloat64(), 0.3 * r.NormFloat64()}}
	}
	clusters := func(order []int) string {
		shuffled := make([]Point, len(points))
		for i, j := range order {
			shuffled[i] = points[j]
		}
		s := NewSpace(shuffled)
		c := s.Clusters(s.Radii(8), 0.2)
		of, core := make([]int, len(points)), make([]bool, len(points))
		for i, j := range order {
			of[j], core[j] = c.Of[i], c.Core[i]
		}
		return fmt.Sprint(numbered(of, core))
	}
	inOrder := make([]int, len(points))
	for i := range inOrder {
		inOrder[i] = i
	}
	want := clusters(inOrder)
	for range 10 {
		if got := clusters(r.Perm(len(points))); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

// Groups of unequal density are told apart, and what lies in none is in none.
func TestGroupsAreFound(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	var points []Point
	for i := range 400 {
		p := Point{[]int32{0, 1}, []float64{float64(i % 4), float64(i % 4 / 2)}}
		for d := range p.Values {
			p.Values[d] += 0.03 * float64(1+i%4) * r.NormFloat64()
		}
		points = append(points, p)
	}
	for range 20 { // in no group
		points = append(points, Point{[]int32{0, 1}, []float64{20 * r.Float64(), 3 + 20*r.Float64()}})
	}
	s := NewSpace(points)
	radii := s.Radii(6)
	c := s.Clusters(radii, s.Eps(radii, 10))
	sizes := map[int]int{}
	for i, of := range c.Of {
		sizes[of]++
		if i < 400 && of != None && of != c.Of[i%4] {
			t.Errorf("point %d of group %d is in cluster %d", i, i%4, of)
		}
	}
	if len(sizes) != 5 || sizes[None] < 20 || sizes[None] > 40 {
		t.Errorf("clusters of sizes %v, want four and the points in none", sizes)
	}
}

// Eps is the distance with the most clusters of at least that many cores, by counting them
// at every distance from the knee on.
func TestEpsGivesTheMostClusters(t *testing.T) {
	cases := 40
	if longtest.Enabled() {
		cases = 1_000
	}
	for seed := range uint64(cases) {
		r := rand.New(rand.NewPCG(seed, 2))
		points := random(r, 2+r.IntN(60), 1+r.IntN(4))
		minPoints, least := 2+r.IntN(4), 2+r.IntN(6)
		s := NewSpace(points)
		radii := s.Radii(minPoints)
		count := func(eps float64) (n int) {
			c := s.Clusters(radii, eps)
			sizes := map[int]int{}
			for i, of := range c.Of {
				if c.Core[i] {
					sizes[of]++
				}
			}
			for _, k := range sizes {
				if k >= least {
					n++
				}
			}
			return n
		}
		candidates := slices.Clone(radii)
		for i := range points {
			s.from(&points[i], s.all(), make([]float64, s.dims), func(_ int32, d float64) { candidates = append(candidates, d) })
		}
		got, most := s.Eps(radii, least), 0
		for _, eps := range candidates {
			if eps >= knee(radii) && !math.IsInf(eps, 1) {
				most = max(most, count(eps+1e-9))
			}
		}
		if n := count(got + 1e-9); n != most {
			t.Fatalf("seed %d: eps %g gives %d clusters of %d, want %d", seed, got, n, least, most)
		}
		if again := s.Eps(radii, least); again != got {
			t.Errorf("seed %d: eps %g, then %g", seed, got, again)
		}
	}
	if got := NewSpace(nil).Eps(nil, 4); got != 0 {
		t.Errorf("eps of nothing: %g", got)
	}
}

func BenchmarkRadii(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	points := make([]Point, 2_000)
	for i := range points {
		for d := range int32(30) {
			points[i].Dims, points[i].Values = append(points[i].Dims, d), append(points[i].Values, r.Float64())
		}
	}
	s := NewSpace(points)
	for b.Loop() {
		s.Radii(8)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(points)*len(points)), "ns/pair")
}
