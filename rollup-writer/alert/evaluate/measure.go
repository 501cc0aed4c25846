package evaluate

import (
	"math"
	"slices"
)

// Point is something that a subject did in a tick. Amount is summed; Key is counted by
// distinct counts: a user, a feature or a day.
type Point struct {
	Tick   Tick
	Key    uint64
	Amount float64
}

// series holds the values of a range of ticks; outside they are 0.
type series struct {
	from   Tick
	values []float64
}

func (s series) at(t Tick) float64 {
	if i := int(t - s.from); i >= 0 && i < len(s.values) {
		return s.values[i]
	}
	return 0
}

// bounds returns the range of ticks at which windows of the sorted points contain
// anything.
func bounds(points []Point, window Tick) (from, to Tick) {
	if len(points) == 0 {
		return 0, 0
	}
	return points[0].Tick, points[len(points)-1].Tick + window
}

func sorted(points []Point) []Point {
	byTick := func(a, b Point) int { return int(a.Tick) - int(b.Tick) }
	if slices.IsSortedFunc(points, byTick) {
		return points
	}
	points = slices.Clone(points)
	slices.SortStableFunc(points, byTick)
	return points
}

// Sum returns the sum of amounts in the window that ends with each tick. Sums of whole
// numbers up to 2^53 are exact, so they do not depend on points that have left the
// window.
func Sum(points []Point, window Tick) Value {
	points = sorted(points)
	from, to := bounds(points, window)
	s := series{from, make([]float64, to-from)}
	if slices.ContainsFunc(points, func(p Point) bool { return p.Amount != math.Trunc(p.Amount) }) {
		// A running sum of fractions would drift.
		for _, p := range points {
			for t := p.Tick; t < p.Tick+window; t++ {
				s.values[t-from] += p.Amount
			}
		}
		return s.at
	}
	for _, p := range points {
		s.values[p.Tick-from] += p.Amount
		if end := p.Tick + window - from; int(end) < len(s.values) {
			s.values[end] -= p.Amount
		}
	}
	s.accumulate()
	return s.at
}

// Distinct is the number of different keys in the window that ends with each tick.
// Points with an amount of 0 or less do not count.
func Distinct(points []Point, window Tick) Value {
	points = sorted(points)
	from, to := bounds(points, window)
	s := series{from, make([]float64, to-from)}
	until := make(map[uint64]Tick, min(len(points), 64)) // that a key counts, by key
	for _, p := range points {
		if p.Amount <= 0 {
			continue
		}
		begin, end := p.Tick, p.Tick+window
		if u, ok := until[p.Key]; ok && u > begin {
			begin = u
		}
		until[p.Key] = end
		if begin == end {
			continue
		}
		s.values[begin-from]++
		if int(end-from) < len(s.values) {
			s.values[end-from]--
		}
	}
	s.accumulate()
	return s.at
}

func (s series) accumulate() {
	sum := 0.0
	for i, v := range s.values {
		sum += v
		s.values[i] = sum
	}
}
