package page

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"
)

// Series is one line of a chart.
type Series struct {
	Name   string
	Values []float64
	Class  string // a, b or c: the style's colours
}

// Mark is something that happened, on the time axis.
type Mark struct {
	Day  time.Time // read as its date
	When string    // as shown
	Kind string    // in a word, such as release
	Text string
	By   string // who noted it; may be empty
}

// Place is a place on the time axis with what happened there. The chart shows its number,
// the list below the chart says what it stands for.
type Place struct {
	Number int
	Marks  []Mark
	at     int // index of the day
}

// Lines is a line chart by day.
type Lines struct {
	ID     string
	Days   []time.Time
	Series []Series
	Marks  []Mark // in the order of their days
	// Annotate is the address where marks are added; empty: nowhere.
	Annotate string
	// Open is true while the last day is not complete: its stroke is dashed.
	Open  bool
	Title string
}

const (
	chartWidth, chartHeight = 760.0, 220.0
	left                    = 44.0
	top, bottom             = 14.0, 26.0
)

// longestLabel of a line, in characters; the whole name is in what hovering shows.
const longestLabel = 18

func labelText(name string) string {
	if r := []rune(name); len(r) > longestLabel {
		return string(r[:longestLabel-1]) + "…"
	}
	return name
}

// right is the room for the labels of the lines, in the size that a phone shows them.
func (c *Lines) right() float64 {
	room := 92.0
	for _, s := range c.Series {
		room = max(room, 14+11*float64(len([]rune(labelText(s.Name)))))
	}
	return room
}

// Places are the marks by the last day or period of the chart that began when they
// happened. What happened before the first one has none.
func (c *Lines) Places() []Place {
	var places []Place
	for _, m := range c.Marks {
		date := m.Day.Format(time.DateOnly)
		at := -1
		for at+1 < len(c.Days) && c.Days[at+1].Format(time.DateOnly) <= date {
			at++
		}
		switch n := len(places); {
		case at < 0:
		case n > 0 && places[n-1].at == at:
			places[n-1].Marks = append(places[n-1].Marks, m)
		default:
			places = append(places, Place{Number: n + 1, Marks: []Mark{m}, at: at})
		}
	}
	return places
}

// ceiling is the round number at or above v at which a scale ends.
func ceiling(v float64) float64 {
	if v <= 5 {
		return 5
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, step := range []float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10} {
		if v <= step*unit {
			return step * unit
		}
	}
	return 10 * unit
}

// SVG draws the chart. Its numbers are also in a table, for readers who cannot see it;
// the script reads them from the attributes of the points.
func (c *Lines) SVG() template.HTML {
	n := len(c.Days)
	if n == 0 {
		return ""
	}
	most := 0.0
	for _, s := range c.Series {
		for _, v := range s.Values {
			most = math.Max(most, v)
		}
	}
	most = ceiling(most)
	right := c.right()
	x := func(i int) float64 {
		if n == 1 {
			return left + (chartWidth-left-right)/2
		}
		return left + float64(i)*(chartWidth-left-right)/float64(n-1)
	}
	y := func(v float64) float64 { return top + (1-v/most)*(chartHeight-top-bottom) }
	var b strings.Builder
	label := c.Title
	if n := len(c.Places()); n > 0 {
		label += fmt.Sprintf(". %s on the time axis, listed below the chart", Plural(n, "mark", "marks"))
	}
	fmt.Fprintf(&b, `<svg class="chart" viewBox="0 0 %g %g" role="img" aria-label="%s" data-chart>`, chartWidth, chartHeight, template.HTMLEscapeString(label))
	for _, share := range []float64{0, 0.5, 1} {
		v := most * share
		fmt.Fprintf(&b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text class="axis" x="%g" y="%.1f" text-anchor="end">%s</text>`,
			left, chartWidth-right, y(v), y(v), left-8, y(v)+4, Short(v))
	}
	for _, i := range ticks(n) {
		fmt.Fprintf(&b, `<text class="axis" x="%.1f" y="%g" text-anchor="middle">%s</text>`, x(i), chartHeight-8, c.Days[i].Format("2 Jan"))
	}
	drawn := math.Inf(-1)
	for _, p := range c.Places() {
		var texts []string
		for _, m := range p.Marks {
			texts = append(texts, m.When+": "+m.Text)
		}
		at := x(p.at)
		fmt.Fprintf(&b, `<g class="mark"><title>%s</title><line x1="%.1f" x2="%.1f" y1="%g" y2="%g"/>`, template.HTMLEscapeString(strings.Join(texts, "\n")), at, at, top, chartHeight-bottom)
		if at-drawn >= numbersApart { // the list has those that have no room
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%g" r="8"/><text x="%.1f" y="%g" text-anchor="middle" dominant-baseline="central">%d</text>`, at, top-6, at, top-6, p.Number)
			drawn = at
		}
		b.WriteString("</g>")
	}
	ends := labelPositions(c.Series, y)
	for k, s := range c.Series {
		solid := n
		if c.Open && n > 1 {
			solid = n - 1
		}
		var path strings.Builder
		for i := range min(solid, len(s.Values)) {
			fmt.Fprintf(&path, "%s%.1f %.1f", word(i == 0, "M", "L"), x(i), y(s.Values[i]))
		}
		if k == 0 && solid > 1 {
			fmt.Fprintf(&b, `<path class="area %s" d="%sL%.1f %.1fL%.1f %.1fZ"/>`, s.Class, path.String(), x(solid-1), y(0), x(0), y(0))
		}
		fmt.Fprintf(&b, `<path class="line %s" d="%s"/>`, s.Class, path.String())
		if solid < n {
			fmt.Fprintf(&b, `<path class="line open %s" d="M%.1f %.1fL%.1f %.1f"/>`, s.Class, x(n-2), y(s.Values[n-2]), x(n-1), y(s.Values[n-1]))
		}
		if n == 1 {
			fmt.Fprintf(&b, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="4"/>`, s.Class, x(0), y(s.Values[0]))
		}
		fmt.Fprintf(&b, `<text class="label %s" x="%g" y="%.1f">%s</text>`, s.Class, chartWidth-right+8, ends[k], template.HTMLEscapeString(labelText(s.Name)))
	}
	// One transparent column per day carries the numbers for hover and for keyboards.
	width := (chartWidth - left - right) / math.Max(1, float64(n-1))
	for i, d := range c.Days {
		text := []string{d.Format("Mon 2 Jan 2006")}
		for _, s := range c.Series {
			text = append(text, fmt.Sprintf("%s %s", Whole(int64(s.Values[i])), s.Name))
		}
		if c.Open && i == n-1 {
			text = append(text, "not over")
		}
		fmt.Fprintf(&b, `<rect class="hit" x="%.1f" y="%g" width="%.1f" height="%g" data-x="%.1f" data-tip="%s"><title>%s</title></rect>`,
			x(i)-width/2, top, width, chartHeight-top-bottom, x(i), template.HTMLEscapeString(strings.Join(text, "\n")), template.HTMLEscapeString(strings.Join(text, ", ")))
	}
	b.WriteString(`<line class="cursor" y1="14" y2="194" x1="0" x2="0"/></svg>`)
	return template.HTML(b.String()) //nolint:gosec // every text in it is escaped above
}

func word(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

// ticks are the days that the axis names.
func ticks(n int) []int {
	if n <= 8 {
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		return all
	}
	var some []int
	for k := range 6 {
		some = append(some, k*(n-1)/5)
	}
	return some
}

const (
	labelApart   = 17.0
	numbersApart = 20.0 // of marks
)

// labelPositions keeps the labels at the lines' ends apart and above the axis.
func labelPositions(series []Series, y func(float64) float64) []float64 {
	order := make([]int, len(series))
	at := make([]float64, len(series))
	for i, s := range series {
		order[i], at[i] = i, y(s.Values[len(s.Values)-1])+4
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(at[b], at[a]) }) // from the lowest up
	floor := y(0)
	for _, i := range order {
		at[i] = math.Min(at[i], floor)
		floor = at[i] - labelApart
	}
	return at
}

// Spark is a small line for a table's cell. Its title contains the numbers.
func Spark(values []float64) template.HTML {
	const width, height = 96.0, 22.0
	if len(values) == 0 {
		return ""
	}
	most, sum := 0.0, 0.0
	for _, v := range values {
		most, sum = math.Max(most, v), sum+v
	}
	if most == 0 {
		return `<svg class="spark" viewBox="0 0 96 22" aria-hidden="true"><line class="none" x1="0" x2="96" y1="20" y2="20"/></svg>`
	}
	var b strings.Builder
	step := width / math.Max(1, float64(len(values)-1))
	for i, v := range values {
		fmt.Fprintf(&b, "%s%.1f %.1f", word(i == 0, "M", "L"), float64(i)*step, height-2-v/most*(height-4))
	}
	path := b.String()
	return template.HTML(fmt.Sprintf(`<svg class="spark" viewBox="0 0 96 22" aria-hidden="true"><path class="area" d="%sL96 20L0 20Z"/><path class="line" d="%s"/></svg>`, path, path)) //nolint:gosec // numbers only
}
