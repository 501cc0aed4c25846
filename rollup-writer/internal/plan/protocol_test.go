package plan

import (
	"fmt"
	"testing"

	"github.com/uptakehq/uptake/schemas/longtest"
)

// The protocol by which a block with moves is carried out, explored in full: two
// writers of one partition, each of whom may crash, lag behind as a zombie or
// begin anew at the committed boundary at every step, and an INSERT that fills
// its table and the view's in either order, with anything in between. Two
// attributions are enough for what is counted to be moved, moved back and moved
// on; a token that a table knows is skipped there.
//
// A move may be of a part of an hour. The base rollup knows hours only, so what
// lies in the part is read from events and corrections, the tables themselves, in
// two more steps; what they tell must add up to what was read of the base, else the
// hour is moved as one. A row is of one of two parts, and what each part counts
// for is compared in the end, too, as events and corrections tell it.
//
// A state is all that tables, log commits and writers hold. Every state that can
// be reached is looked at; those in which both writers have done the whole log
// must have the base rollup that the log says.

// protocol is a way to carry out a block.
type protocol struct {
	name      string
	steps     []string
	emptyMark bool // a plan that moves nothing is written all the same
	ownRows   bool // the plan is made from a base that has the block's rows
	readBack  bool
}

var (
	planned = protocol{"plan, rows, corrections", []string{"check", "read", "parts", "plan", "back", "rows", "rows'", "moves", "moves'", "commit"}, true, false, true}
	// Wrong ones.
	unmarked  = protocol{"an empty plan leaves no mark", planned.steps, false, false, true}
	rowsFirst = protocol{"rows before the plan", []string{"rows", "rows'", "check", "read", "parts", "plan", "back", "moves", "moves'", "commit"}, true, true, true}
	ownPlan   = protocol{"each writer applies its own plan", planned.steps, true, false, false}
)

const (
	attributions = 2
	parts        = 2 // of the hour
	maxBlocks    = 3
)

// counts are events by attribution and part of the hour.
type counts [attributions][parts]int8

func (c counts) plus(d counts) counts {
	for a := range c {
		for p := range c[a] {
			c[a][p] += d[a][p]
		}
	}
	return c
}

// hours are events by attribution, which is what the base rollup knows.
type hours [attributions]int8

func (c counts) hours() (h hours) {
	for a := range c {
		for _, n := range c[a] {
			h[a] += n
		}
	}
	return h
}

func (h hours) plus(g hours) hours {
	for a := range h {
		h[a] += g[a]
	}
	return h
}

// rec is a record of the log: a row of an attribution in a part of the hour, or a
// move of the part, of the whole hour if it is whole.
type rec struct {
	move     bool
	from, to int8
	part     int8
}

// whole is the part of a move of all of the hour.
const whole int8 = -1

// alphabet lists the records. Without cut no move cuts the hour.
func alphabet(cut bool) (list []rec) {
	for a := range int8(attributions) {
		list = append(list, rec{from: a})
		if cut {
			list = append(list, rec{from: a, part: 1})
		}
		for b := range int8(attributions) {
			if a != b {
				list = append(list, rec{true, a, b, whole})
				if cut {
					list = append(list, rec{true, a, b, 1})
				}
			}
		}
	}
	return list
}

// moved is what a move changes.
func (r rec) moved(c counts) (net counts) {
	for p := range int8(parts) {
		if r.part == whole || r.part == p {
			net[r.from][p] -= c[r.from][p]
			net[r.to][p] += c[r.from][p]
		}
	}
	return net
}

// blocks of a log, with what is known of each.
type blocks [][]rec

func (b blocks) want() (c counts) {
	for _, block := range b {
		for _, r := range block {
			if r.move {
				c = c.plus(r.moved(c))
			} else {
				c[r.from][r.part]++
			}
		}
	}
	return c
}

func rowsOf(block []rec) (c counts) {
	for _, r := range block {
		if !r.move {
			c[r.from][r.part]++
		}
	}
	return c
}

func hasMoves(block []rec) bool {
	for _, r := range block {
		if r.move {
			return true
		}
	}
	return false
}

// planOf is what the block's moves change, from what the base holds and what
// events and corrections tell of its parts.
func planOf(base hours, told counts, block []rec, hasRows bool) (net counts) {
	if told.hours() != base { // it cannot be told: the hour is of its first part
		told = counts{}
		for a, n := range base {
			told[a][0] = n
		}
	}
	for _, r := range block {
		switch {
		case r.move:
			m := r.moved(told)
			net, told = net.plus(m), told.plus(m)
		case !hasRows:
			told[r.from][r.part]++
		}
	}
	return net
}

// token says which of an INSERT's two tables have it.
type token struct{ table, view bool }

// at is where a writer is.
type at struct {
	block, step int8
	has         bool // plan is one
	base        hours
	plan        counts
}

type state struct {
	planned  [maxBlocks]bool
	plans    [maxBlocks]counts
	rows     [maxBlocks]token
	moves    [maxBlocks]token
	base     hours
	boundary int8
	writers  [2]at
}

// explore reports a final state that is wrong, or ok, and how many states there
// were.
func (p protocol) explore(log blocks) (wrong state, ok bool, states int) {
	want := log.want()
	seen := map[state]struct{}{{}: {}}
	todo := []state{{}}
	add := func(s state) {
		if _, known := seen[s]; !known {
			seen[s] = struct{}{}
			todo = append(todo, s)
		}
	}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if int(s.writers[0].block) >= len(log) && int(s.writers[1].block) >= len(log) {
			if s.base != want.hours() || s.told(log) != want {
				return s, false, len(seen)
			}
			continue
		}
		for w := range s.writers {
			if me := s.writers[w]; me != (at{block: s.boundary}) { // it crashes, or another takes its place
				n := s
				n.writers[w] = at{block: s.boundary}
				add(n)
			}
			if int(s.writers[w].block) < len(log) {
				p.step(s, w, log, add)
			}
		}
	}
	return state{}, true, len(seen)
}

// told is what events and corrections tell, the tables themselves.
func (s *state) told(log blocks) (c counts) {
	for b := range log {
		if s.rows[b].table {
			c = c.plus(rowsOf(log[b]))
		}
		if s.moves[b].table {
			c = c.plus(s.plans[b])
		}
	}
	return c
}

func (p protocol) skipTo(me *at, step string) {
	for i, s := range p.steps {
		if s == step {
			me.step = int8(i)
		}
	}
}

// step carries out the next step of a writer, in every way that it can go.
func (p protocol) step(s state, w int, log blocks, add func(state)) {
	me := &s.writers[w]
	b := me.block
	block := log[b]
	behindPlan := "rows"
	if p.ownRows {
		behindPlan = "moves"
	}
	insert := func(t *token, what counts, both bool) {
		n := *t
		fill := func(table, view bool) {
			was := *t
			*t = token{n.table || table, n.view || view}
			base := s.base
			if t.view && !n.view {
				s.base = s.base.plus(what.hours())
			}
			add(s)
			s.base, *t = base, was
		}
		me.step++
		if both {
			fill(true, true)
			return
		}
		fill(true, false)
		fill(false, true)
	}
	switch p.steps[me.step] {
	case "check":
		switch {
		case !hasMoves(block):
			me.has = true
			p.skipTo(me, behindPlan)
		case s.planned[b]:
			me.has, me.plan = true, s.plans[b]
			p.skipTo(me, behindPlan)
		default:
			me.step++
		}
		add(s)
	case "read":
		me.base = s.base
		me.step++
		add(s)
	case "parts":
		me.has, me.plan, me.base = true, planOf(me.base, s.told(log), block, p.ownRows), hours{}
		me.step++
		add(s)
	case "plan":
		switch {
		case me.plan == (counts{}) && !p.emptyMark:
			p.skipTo(me, behindPlan)
		default:
			if !s.planned[b] {
				s.planned[b], s.plans[b] = true, me.plan
			}
			me.step++
		}
		add(s)
	case "back":
		if p.readBack {
			me.plan = s.plans[b]
		}
		me.step++
		add(s)
	case "rows":
		insert(&s.rows[b], rowsOf(block), false)
	case "rows'":
		insert(&s.rows[b], rowsOf(block), true)
	case "moves":
		if me.plan == (counts{}) {
			p.skipTo(me, "commit")
			add(s)
			return
		}
		insert(&s.moves[b], me.plan, false)
	case "moves'":
		insert(&s.moves[b], me.plan, true)
	case "commit":
		s.boundary = max(s.boundary, b+1)
		*me = at{block: b + 1}
		add(s)
	}
}

// logs calls fn with every log of up to n records in up to maxBlocks blocks.
func logs(n int, cut bool, fn func(blocks)) {
	all := alphabet(cut)
	list := make([]rec, 0, n)
	var grow func()
	grow = func() {
		if len(list) > 0 {
			for cut := range 1 << (len(list) - 1) {
				log := blocks{{list[0]}}
				for k := 1; k < len(list); k++ {
					if cut>>(k-1)&1 == 1 {
						log = append(log, nil)
					}
					log[len(log)-1] = append(log[len(log)-1], list[k])
				}
				if len(log) <= maxBlocks {
					fn(log)
				}
			}
		}
		if len(list) == n {
			return
		}
		for _, r := range all {
			list = append(list, r)
			grow()
			list = list[:len(list)-1]
		}
	}
	grow()
}

// The protocol is right for every short log and every way it can go; the same
// exploration finds what is wrong with those that look as good.
func TestProtocolIsRightHoweverItGoes(t *testing.T) {
	long := longtest.Enabled()
	for _, tc := range []struct {
		protocol
		right bool
	}{{planned, true}, {unmarked, false}, {rowsFirst, false}, {ownPlan, false}} {
		t.Run(tc.name, func(t *testing.T) {
			all, wrong, states := 0, 0, 0
			example := ""
			records := 4
			if !tc.right && !long {
				records = 3
			}
			try := func(log blocks) {
				if wrong > 0 && !tc.right && !long {
					return // one is enough
				}
				s, ok, n := tc.explore(log)
				all++
				states += n
				if !ok {
					if wrong++; example == "" {
						example = fmt.Sprintf("log %+v\nends as %+v\nwant base %v", log, s, log.want())
					}
				}
			}
			logs(records, false, try)
			if records--; long {
				records++
			}
			logs(records, true, try)
			t.Logf("%d logs, %d states, %d logs can go wrong; %s", all, states, wrong, example)
			if (wrong == 0) != tc.right {
				t.Errorf("%d of %d logs can go wrong, want that none can: %v", wrong, all, tc.right)
			}
		})
	}
}
