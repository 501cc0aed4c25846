// Package dbscan groups points by density, after Ester, Kriegel, Sander and Xu, "A
// density-based algorithm for discovering clusters in large spatial databases with
// noise" (1996): points that have enough others close by are cores, cores that are
// close to each other are one cluster, and what is close to no core is in none.
//
// Unlike the paper's, a point that is close to cores of several clusters belongs to the
// nearest core, and not to the cluster that was found first: so the clusters do not
// depend on the order of the points.
package dbscan

import (
	"cmp"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Point is a sparse vector: Values[i] is its coordinate in dimension Dims[i], and the
// others are 0. Dims ascend.
type Point struct {
	Dims   []int32
	Values []float64
}

// None is the cluster of a point that is in none.
const None = -1

// Space measures distances to points. It is safe for concurrent use.
type Space struct {
	points  []Point
	squares []float64 // of the points' lengths
	dims    int
}

// NewSpace returns the space of points, which it keeps.
func NewSpace(points []Point) *Space {
	s := &Space{points: points, squares: make([]float64, len(points))}
	for i := range points {
		s.squares[i] = square(&points[i])
		if n := len(points[i].Dims); n > 0 {
			s.dims = max(s.dims, int(points[i].Dims[n-1])+1)
		}
	}
	return s
}

func square(p *Point) (sum float64) {
	for _, v := range p.Values {
		sum += v * v
	}
	return sum
}

// from calls do with the distance from p to each of the points listed in to. dense has
// room for every dimension, and is all zeros before and after.
func (s *Space) from(p *Point, to []int32, dense []float64, do func(i int32, distance float64)) {
	for i, d := range p.Dims {
		if int(d) < len(dense) {
			dense[d] = p.Values[i]
		}
	}
	own := square(p)
	for _, j := range to {
		q := &s.points[j]
		product := 0.0
		for i, d := range q.Dims {
			product += dense[d] * q.Values[i]
		}
		between := own + s.squares[j] - 2*product
		if between < 1e-12 { // equal points, but for what rounding left
			between = 0
		}
		do(j, math.Sqrt(between))
	}
	for _, d := range p.Dims {
		if int(d) < len(dense) {
			dense[d] = 0
		}
	}
}

func (s *Space) all() []int32 {
	list := make([]int32, len(s.points))
	for i := range list {
		list[i] = int32(i)
	}
	return list
}

// each calls do for 0 to n-1 on all processors; dense is the caller's own.
func (s *Space) each(n int, do func(i int, dense []float64)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			dense := make([]float64, s.dims)
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i, dense)
			}
		})
	}
	workers.Wait()
}

// Radii are, for each point, the distance within which minPoints points lie, itself
// included: the distance to its (minPoints-1)th neighbour. Infinite where there are
// not so many.
func (s *Space) Radii(minPoints int) []float64 {
	radii, all := make([]float64, len(s.points)), s.all()
	s.each(len(s.points), func(i int, dense []float64) {
		nearest := make([]float64, 0, minPoints+1) // ascending
		s.from(&s.points[i], all, dense, func(_ int32, distance float64) {
			if len(nearest) == minPoints && distance >= nearest[minPoints-1] {
				return
			}
			at, _ := slices.BinarySearch(nearest, distance)
			nearest = slices.Insert(nearest, at, distance)
			nearest = nearest[:min(len(nearest), minPoints)]
		})
		radii[i] = math.Inf(1)
		if len(nearest) == minPoints {
			radii[i] = nearest[minPoints-1]
		}
	})
	return radii
}

// Eps chooses the distance that gives the most clusters with at least that many cores, and
// of such distances the largest, so that few points are in none. It looks from the knee of
// the radii on: a smaller distance takes dense clusters apart.
//
// All distances are looked at together: cores i and j are in one cluster from the distance
// max(radii[i], radii[j], distance between them) on, and the edges of a minimum spanning
// tree by these weights are those at which clusters grow together.
func (s *Space) Eps(radii []float64, least int) float64 {
	eps, most, clusters := knee(radii), -1, 0
	parent, size := s.all(), make([]int, len(s.points))
	for i := range size {
		if size[i] = 1; least <= 1 {
			clusters++
		}
	}
	root := func(i int32) int32 {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	large := func(n int) int {
		if n >= least {
			return 1
		}
		return 0
	}
	edges := s.tree(radii)
	for n, e := range edges {
		if e.weight > eps && most < 0 {
			most = clusters
		}
		a, b := root(e.from), root(e.to)
		clusters += large(size[a]+size[b]) - large(size[a]) - large(size[b])
		parent[b], size[a] = a, size[a]+size[b]
		if n+1 < len(edges) && edges[n+1].weight == e.weight {
			continue // more clusters grow together at this distance
		}
		if most >= 0 && clusters >= most && !math.IsInf(e.weight, 1) {
			eps, most = e.weight, clusters
		}
	}
	return eps
}

// knee is the radius at which the ascending curve of radii bends most: the point that lies
// furthest below the straight line from the first to the last.
func knee(radii []float64) (knee float64) {
	sorted := slices.DeleteFunc(slices.Sorted(slices.Values(radii)), func(r float64) bool { return math.IsInf(r, 1) })
	if len(sorted) == 0 {
		return 0
	}
	first, last := sorted[0], sorted[len(sorted)-1]
	knee, depth := last, 0.0
	for i, r := range sorted {
		if below := float64(i)/float64(len(sorted)-1) - (r-first)/(last-first); below > depth {
			knee, depth = r, below
		}
	}
	return knee
}

type edge struct {
	from, to int32
	weight   float64
}

// tree is a minimum spanning tree, by Prim's algorithm, in the order of weights.
func (s *Space) tree(radii []float64) (edges []edge) {
	if len(s.points) == 0 {
		return nil
	}
	nearest, dense := make([]edge, len(s.points)), make([]float64, s.dims)
	for i := range nearest {
		nearest[i].weight = math.Inf(1)
	}
	left, last := s.all()[1:], int32(0)
	for len(left) > 0 {
		next, n := 0, 0
		s.from(&s.points[last], left, dense, func(j int32, distance float64) {
			if w := max(distance, radii[last], radii[j]); w < nearest[j].weight || nearest[j].to == 0 {
				nearest[j] = edge{last, j, w}
			}
			if nearest[j].weight < nearest[left[next]].weight {
				next = n
			}
			n++
		})
		last = left[next]
		edges = append(edges, nearest[last])
		left[next] = left[len(left)-1]
		left = left[:len(left)-1]
	}
	slices.SortFunc(edges, func(a, b edge) int {
		return cmp.Or(cmp.Compare(a.weight, b.weight), cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	return edges
}

// Clusters are the clusters of a space's points.
type Clusters struct {
	space *Space
	eps   float64
	// Of are the clusters of the points, from 0 in the order of their first cores, or
	// [None].
	Of []int
	// Core says of each point whether it is a core.
	Core  []bool
	cores []int32
}

// Clusters groups the points: those whose radius is at most eps are cores.
func (s *Space) Clusters(radii []float64, eps float64) *Clusters {
	c := &Clusters{space: s, eps: eps, Of: make([]int, len(s.points)), Core: make([]bool, len(s.points))}
	for i, r := range radii {
		if c.Of[i] = None; r <= eps {
			c.Core[i] = true
			c.cores = append(c.cores, int32(i))
		}
	}
	left, dense := slices.Clone(c.cores), make([]float64, s.dims) // left: cores not yet reached
	for n := 0; len(left) > 0; n++ {
		reached := []int32{left[0]}
		left = left[1:]
		for len(reached) > 0 {
			i := reached[0]
			reached = reached[1:]
			c.Of[i] = n
			var far []int32
			s.from(&s.points[i], left, dense, func(j int32, distance float64) {
				if distance <= eps {
					reached = append(reached, j)
				} else {
					far = append(far, j)
				}
			})
			left = far
		}
	}
	var others []int
	for i := range s.points {
		if !c.Core[i] {
			others = append(others, i)
		}
	}
	s.each(len(others), func(n int, dense []float64) { c.Of[others[n]] = c.nearest(&s.points[others[n]], dense) })
	return c
}

// Assign returns the cluster of the nearest core of each point, or [None] where that is
// further than eps.
func (c *Clusters) Assign(points []Point) []int {
	of := make([]int, len(points))
	c.space.each(len(points), func(i int, dense []float64) { of[i] = c.nearest(&points[i], dense) })
	return of
}

func (c *Clusters) nearest(p *Point, dense []float64) int {
	nearest, least := int32(None), math.Inf(1)
	c.space.from(p, c.cores, dense, func(j int32, distance float64) {
		if distance < least {
			nearest, least = j, distance
		}
	})
	if nearest == None || least > c.eps {
		return None
	}
	return c.Of[nearest]
}

// Distance from p to the ith point of the space.
func (s *Space) Distance(p *Point, i int) (distance float64) {
	s.from(p, []int32{int32(i)}, make([]float64, s.dims), func(_ int32, d float64) { distance = d })
	return distance
}
