package rollup

import (
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/schemas/event"
)

// counts gathers the records of counts in a block, which are a function of the log as
// the block's rows are: one row for each app and hour.
type counts struct {
	block  *columns.Counts
	groups []countGroup
}

// countGroup is what was counted for one raw topic. There is one group, unless the
// topic was deleted and created again.
type countGroup struct {
	of    columns.CountsOf
	cells []event.Cell
	index map[countKey]int
}

type countKey struct {
	app  string
	hour int64
}

func (c *counts) reset() {
	c.groups = c.groups[:0]
	if c.block != nil {
		c.block.Reset()
	}
}

// add takes the record at an offset.
func (c *counts) add(src columns.Source, offset, millis int64, n *event.Counts) {
	var g *countGroup
	for i := range c.groups {
		if c.groups[i].of.RawTopicID == n.RawTopicID {
			g = &c.groups[i]
		}
	}
	if g == nil {
		c.groups = append(c.groups, countGroup{
			of:    columns.CountsOf{Source: src, RawTopicID: n.RawTopicID, First: n.First, Next: n.Next},
			index: map[countKey]int{},
		})
		g = &c.groups[len(c.groups)-1]
	}
	g.of.Offset, g.of.CountedAt = offset, uint32(millis/1000)
	g.of.First, g.of.Next = min(g.of.First, n.First), max(g.of.Next, n.Next)
	for i := range n.Cells {
		cell := &n.Cells[i]
		k := countKey{cell.AppID, cell.Hour}
		j, ok := g.index[k]
		if !ok {
			j = len(g.cells)
			g.index[k] = j
			g.cells = append(g.cells, event.Cell{AppID: cell.AppID, Hour: cell.Hour})
		}
		g.cells[j].Add(cell)
	}
}

// rows is the block to insert, nil when nothing was counted. It is valid until reset;
// repeated calls return the same rows.
func (c *counts) rows() *columns.Counts {
	if len(c.groups) == 0 {
		return nil
	}
	if c.block == nil {
		c.block = columns.NewCounts()
	}
	c.block.Reset()
	for i := range c.groups {
		g := &c.groups[i]
		for k := range g.cells {
			c.block.Append(&g.of, &g.cells[k])
		}
	}
	return c.block
}
