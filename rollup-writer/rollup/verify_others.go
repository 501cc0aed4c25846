package rollup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/rollup-writer/internal/rebuild"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// Parts of blocks of several partitions can be lost at once, by one kill of the
// server, and what a shared cell lacks is then a sum over these blocks. A block whose
// outcome is unknown is not committed, and each partition has one such block at most:
// its rows in events and corrections are those from its commit on. So everybody, this
// process or another one, knows from Kafka's commits and these two tables which blocks
// may be lost, and what each adds to each cell. What the cells lack is explained by
// multiples of all of these blocks together, and each verification repairs the
// multiple of its own block, under its own tokens: nothing needs to be agreed on.

// other is what the open block of another partition adds to the cells of the block's
// apps and days, with its events (part 0) or with its corrections (part 1).
type other struct {
	partition int32
	part      uint8
	rows      []signed
}

// readCommits is the commits of Service.
func (s *Service) readCommits(ctx context.Context) (map[int32]int64, error) {
	offsets, err := s.admin.FetchOffsetsForTopics(ctx, s.names.GroupRollupWriter, s.names.Enriched)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("fetch commits of group %s: %w", s.names.GroupRollupWriter, err)
	}
	commits := map[int32]int64{}
	for n, o := range offsets[s.names.Enriched] {
		if o.At >= 0 {
			commits[n] = o.At
		}
	}
	return commits, nil
}

// readOthers reads the blocks of other partitions that are not committed. It never
// returns nil without an error.
func (v *verifier) readOthers(ctx context.Context, commits map[int32]int64) ([]other, error) {
	var open []string
	for _, n := range slices.Sorted(maps.Keys(commits)) {
		if n != v.p.number {
			open = append(open, fmt.Sprintf("source_partition = %d AND source_offset >= %d", n, commits[n]))
		}
	}
	list := []other{}
	if len(open) == 0 || len(v.apps) == 0 {
		return list, nil
	}
	of := func(date string) string {
		return v.ofApps() + " AND " + v.on(date) + " AND source_topic_id = " + clickhouse.Quote(v.p.src.TopicID) + " AND (" + strings.Join(open, " OR ") + ")"
	}
	const none = "0"
	events, corrections := v.p.table("events"), v.p.table("corrections")
	attribution := strings.Join(tables.Attribution, ", ")
	key := "source_partition, part, app_id, hour, " + attribution
	query := "SELECT source_partition, part, toUInt32(toUnixTimestamp(hour)) AS at, CAST([app_id, " + attribution + "], 'Array(String)') AS texts, sum(events) AS e, sum(quantity) AS q FROM (\n" +
		"SELECT toUInt8(0) AS part, * FROM (" + rebuild.Counted(events, corrections, of("toDate(e.event_time)"), none) + ")\nUNION ALL\n" +
		"SELECT toUInt8(1) AS part, * FROM (" + rebuild.Counted(events, corrections, none, of("toDate(hour)")) + ")\n" +
		") GROUP BY " + key + " HAVING e != 0 OR q != 0 ORDER BY source_partition, part"
	var partition proto.ColInt32
	var part proto.ColUInt8
	var hour proto.ColUInt32
	var e, q proto.ColInt64
	texts := new(proto.ColStr).Array()
	results := proto.Results{
		{Name: "source_partition", Data: &partition},
		{Name: "part", Data: &part},
		{Name: "at", Data: &hour},
		{Name: "texts", Data: texts},
		{Name: "e", Data: &e},
		{Name: "q", Data: &q},
	}
	err := v.p.conn.Select(ctx, query, results, func() error {
		for i := range hour.Rows() {
			at := len(list) - 1
			if at < 0 || list[at].partition != partition.Row(i) || list[at].part != part.Row(i) {
				list = append(list, other{partition: partition.Row(i), part: part.Row(i)})
				at++
			}
			row := texts.Row(i)
			s := signed{row[0], columns.Signed{Hour: hour.Row(i), Events: e.Row(i), Quantity: q.Row(i)}}
			for k, c := range columns.AttributionColumns {
				*c.Of(&s.Attribution) = row[1+k]
			}
			list[at].rows = append(list[at].rows, s)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the open blocks of other partitions: %w", err)
	}
	return list, nil
}

// explainShared is explain for a table whose cells partitions share.
func (v *verifier) explainShared(t *tables.Table, cells map[string]*cell, lacks map[string][2]int64, others []other, got *sight) (n []int64, ok bool, err error) {
	own := len(v.events) + len(v.chunks)
	n = make([]int64, own)
	touched := slices.ContainsFunc(slices.Collect(maps.Keys(lacks)), func(key string) bool { return cells[key] != nil })
	if !touched {
		clear(lacks)
		return n, true, nil
	}
	if others == nil {
		got.explained, got.unread = false, true
		return nil, false, nil
	}
	// The units of all blocks, in the order of the partitions.
	before := 0
	for _, o := range others {
		if o.partition < v.p.number {
			before++
		}
	}
	all := make(equations, len(cells))
	for key, c := range cells {
		for u, a := range c.add {
			all.add(key, before+u, a[0], a[1])
		}
	}
	for i, o := range others {
		u := i
		if i >= before {
			u += own
		}
		for k := range o.rows {
			s := &o.rows[k]
			all.add(columns.CellKey(t.Key, s.app, o.partition, &s.Signed), u, s.Events, s.Quantity)
		}
	}
	maps.DeleteFunc(lacks, func(key string, _ [2]int64) bool { return all[key] == nil })
	solution, sure, ok := all.solve(lacks, own+len(others), before, before+own)
	if !ok {
		got.explained = false
		n, ok = multiples(cells, lacks, own, true)
		return n, ok, nil
	}
	copy(n, solution[before:])
	if !sure {
		got.unsure = true
		got.yielded = got.yielded || !slices.ContainsFunc(n, func(x int64) bool { return x != 0 })
	}
	return n, true, nil
}

// equations are, by cell, what each unit adds to it: those that add anything.
type equations map[string]map[int][2]int64

func (e equations) add(key string, unit int, events, quantity int64) {
	if e[key] == nil {
		e[key] = map[int][2]int64{}
	}
	a := e[key][unit]
	e[key][unit] = [2]int64{a[0] + events, a[1] + quantity}
}

// maxSteps bounds the search for multiples.
const maxSteps = 20_000

// solver looks for the multiples of units that explain what all cells lack.
type solver struct {
	cells      []map[int][2]int64
	lacks      [][2]int64
	used       []bool // units that add anything
	from, to   int    // whose certainty matters
	steps      int
	best       []int64
	contradict bool // solutions differ between from and to
}

// solve returns how many times the cells lack each unit. Of several solutions it is
// the one with the fewest units that lack or are there twice and, of these, the one
// with the first units; sure says whether all solutions agree on the units from from
// to before to.
func (e equations) solve(lacks map[string][2]int64, units, from, to int) (n []int64, sure, ok bool) {
	s := solver{used: make([]bool, units), from: from, to: to}
	for _, key := range slices.Sorted(maps.Keys(e)) {
		maps.DeleteFunc(e[key], func(_ int, a [2]int64) bool { return a == [2]int64{} })
		for u := range e[key] {
			s.used[u] = true
		}
		s.cells, s.lacks = append(s.cells, e[key]), append(s.lacks, lacks[key])
	}
	s.search(make([]int64, units), make([]bool, units))
	return s.best, !s.contradict && s.steps < maxSteps, s.best != nil
}

func (s *solver) search(n []int64, known []bool) {
	if s.steps++; s.steps > maxSteps || !s.deduce(n, known) {
		return
	}
	free := -1
	for u := range n {
		if s.used[u] && !known[u] {
			free = u
			break
		}
	}
	if free < 0 {
		s.found(n)
		return
	}
	for _, x := range []int64{0, 1, -1, -2} {
		next, then := slices.Clone(n), slices.Clone(known)
		next[free], then[free] = x, true
		s.search(next, then)
	}
}

// deduce sets what follows from cells of which one unit is not known yet. It reports
// whether no cell contradicts.
func (s *solver) deduce(n []int64, known []bool) bool {
	for again := true; again; {
		again = false
		for i, add := range s.cells {
			rest, open := s.lacks[i], -1
			for u, a := range add {
				switch {
				case known[u]:
					rest[0] -= n[u] * a[0]
					rest[1] -= n[u] * a[1]
				case open < 0:
					open = u
				default:
					open = len(n)
				}
			}
			switch {
			case open < 0 && rest != [2]int64{}:
				return false
			case open < 0 || open == len(n):
				continue
			}
			a := add[open]
			at := slices.IndexFunc([]int64{-2, -1, 0, 1}, func(x int64) bool { return rest == [2]int64{x * a[0], x * a[1]} })
			if at < 0 {
				return false
			}
			n[open], known[open], again = int64(at)-2, true, true
		}
	}
	return true
}

func (s *solver) found(n []int64) {
	if s.best != nil && !slices.Equal(s.best[s.from:s.to], n[s.from:s.to]) {
		s.contradict = true
	}
	if s.best == nil || before(n, s.best) {
		s.best = slices.Clone(n)
	}
}

// before reports whether a has fewer units that are not 0 than b or, with as many,
// the first of them.
func before(a, b []int64) bool {
	changed := func(n []int64) (count int) {
		for _, x := range n {
			if x != 0 {
				count++
			}
		}
		return count
	}
	if x, y := changed(a), changed(b); x != y {
		return x < y
	}
	for u := range a {
		if (a[u] != 0) != (b[u] != 0) {
			return a[u] != 0
		}
	}
	return false
}
