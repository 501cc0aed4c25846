package page

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func day(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }

// Marks stand at the period that they are in; those of one period share a number.
func TestPlaces(t *testing.T) {
	vienna := time.FixedZone("Vienna", 3600)
	marks := []Mark{
		{Day: day(1), Text: "before"}, {Day: day(2), Text: "a"}, {Day: day(3), Text: "b"}, {Day: time.Date(2026, 11, 9, 0, 30, 0, 0, vienna), Text: "c"}, {Day: day(20), Text: "d"},
	}
	for name, tt := range map[string]struct {
		days []time.Time
		want []string
	}{
		"weeks":    {[]time.Time{day(2), day(9), day(16)}, []string{"1@0 a b", "2@1 c", "3@2 d"}},
		"days":     {[]time.Time{day(1), day(2), day(3)}, []string{"1@0 before", "2@1 a", "3@2 b c d"}},
		"no days":  {nil, nil},
		"all late": {[]time.Time{day(25)}, nil},
	} {
		var got []string
		for _, p := range (&Lines{Days: tt.days, Marks: marks}).Places() {
			line := fmt.Sprintf("%d@%d", p.Number, p.at)
			for _, m := range p.Marks {
				line += " " + m.Text
			}
			got = append(got, line)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

// A chart draws a number only where it has room, a line for each place, and says in its
// label that the marks are listed.
func TestMarksAreDrawn(t *testing.T) {
	c := &Lines{Title: "People", Series: []Series{{Name: "people", Class: "a"}}}
	for i := range 200 {
		c.Days = append(c.Days, day(1).AddDate(0, 0, i))
		c.Series[0].Values = append(c.Series[0].Values, 1)
	}
	for _, i := range []int{0, 1, 2, 100} {
		c.Marks = append(c.Marks, Mark{Day: c.Days[i], When: "then", Text: "<b>&\"x"})
	}
	svg := string(c.SVG())
	for what, want := range map[string]int{`<g class="mark">`: 4, "<circle": 2, "listed below the chart": 1, "4 marks": 1, "then: &lt;b&gt;&amp;&#34;x": 4, "<b>": 0, ">1</text></g>": 1, ">4</text></g>": 1} {
		if got := strings.Count(svg, what); got != want {
			t.Errorf("%s: %d times, want %d", what, got, want)
		}
	}
}
