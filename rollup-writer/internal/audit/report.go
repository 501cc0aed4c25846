package audit

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is the result of an audit.
type Report struct {
	Equal bool       `json:"equal"`
	From  *time.Time `json:"from,omitempty"`
	To    *time.Time `json:"to,omitempty"`
	Apps  []*App     `json:"apps"`
	// Conservation lists the outcomes of every accepted event, if requested.
	Conservation *Conservation `json:"conservation,omitempty"`
}

// App is the result for one app.
type App struct {
	ID     string   `json:"app_id"`
	Checks []*Check `json:"checks"`
	// Derived are the tables that hold minima and maxima: identity and metrics.
	Derived  []*Derived `json:"derived"`
	Findings []Finding  `json:"findings,omitempty"`
}

// Finding explains what must have happened and how to repair it.
type Finding struct {
	Table  string `json:"table"`
	What   string `json:"what"`
	Repair string `json:"repair"`
}

// Sums of a cell, or of several.
type Sums struct {
	Events   int64 `json:"events"`
	Quantity int64 `json:"quantity"`
}

func (s *Sums) add(o Sums) { s.Events, s.Quantity = s.Events+o.Events, s.Quantity+o.Quantity }
func (s *Sums) sub(o Sums) { s.Events, s.Quantity = s.Events-o.Events, s.Quantity-o.Quantity }
func (s Sums) any() bool   { return s.Events != 0 || s.Quantity != 0 }

// Check is the outcome of one comparison. Want is the expected sum of all cells; Got is
// Want with all differences that persisted. Missing is the sum of what cells have too
// little, Surplus of what cells have too much.
type Check struct {
	Table     string `json:"table"`
	Against   string `json:"against"`
	Cells     uint64 `json:"cells"`
	Different uint64 `json:"different"`
	Want      Sums   `json:"want"`
	Got       Sums   `json:"got"`
	Missing   Sums   `json:"missing"`
	Surplus   Sums   `json:"surplus"`
	First     []Cell `json:"first,omitempty"`
	// Partitions, for usage_hourly, are those whose cells differ.
	Partitions []Partition `json:"partitions,omitempty"`
}

// Cell is one that differs.
type Cell struct {
	Key  Key  `json:"key"`
	Want Sums `json:"want"`
	Got  Sums `json:"got"`
}

// Key names a cell by its columns, in their order.
type Key []Column

// Column is a name and a value.
type Column struct{ Name, Value string }

// MarshalJSON gives an object.
func (k Key) MarshalJSON() ([]byte, error) {
	m := make(map[string]string, len(k))
	for _, c := range k {
		m[c.Name] = c.Value
	}
	return json.Marshal(m)
}

// String omits empty columns.
func (k Key) String() string {
	var words []string
	for _, c := range k {
		v := c.Value
		if v == "" {
			continue
		}
		if q := strconv.Quote(v); q != `"`+v+`"` || strings.Contains(v, " ") {
			v = q
		}
		words = append(words, c.Name+"="+v)
	}
	return strings.Join(words, " ")
}

// Partition is a partition of the log whose cells in usage_hourly differ, with their
// hours and the rows of events of the partition in these hours.
type Partition struct {
	Number    int32       `json:"source_partition"`
	Missing   int64       `json:"missing"`
	Surplus   int64       `json:"surplus"`
	FirstHour time.Time   `json:"first_hour"`
	LastHour  time.Time   `json:"last_hour"`
	Topics    []TopicRows `json:"events,omitempty"`
}

// TopicRows is what events holds of one partition of a topic.
type TopicRows struct {
	ID          string `json:"source_topic_id"`
	Rows        uint64 `json:"rows"`
	FirstOffset int64  `json:"first_offset"`
	LastOffset  int64  `json:"last_offset"`
}

// mergePartitions adds the partitions of a further chunk.
func mergePartitions(list, more []Partition) []Partition {
	for _, p := range more {
		i := slices.IndexFunc(list, func(q Partition) bool { return q.Number == p.Number })
		if i < 0 {
			list = append(list, p)
			continue
		}
		q := &list[i]
		q.Missing, q.Surplus = q.Missing+p.Missing, q.Surplus+p.Surplus
		if p.FirstHour.Before(q.FirstHour) {
			q.FirstHour = p.FirstHour
		}
		if p.LastHour.After(q.LastHour) {
			q.LastHour = p.LastHour
		}
		for _, t := range p.Topics {
			j := slices.IndexFunc(q.Topics, func(u TopicRows) bool { return u.ID == t.ID })
			if j < 0 {
				q.Topics = append(q.Topics, t)
				continue
			}
			u := &q.Topics[j]
			u.Rows, u.FirstOffset, u.LastOffset = u.Rows+t.Rows, min(u.FirstOffset, t.FirstOffset), max(u.LastOffset, t.LastOffset)
		}
	}
	slices.SortFunc(list, func(a, b Partition) int { return cmp.Compare(a.Number, b.Number) })
	return list
}

const (
	repairRollups = "`rollup-writer rebuild` of the rollups of this app and these hours, from events"
	repairEvents  = "`rollup-writer rebuild` of events from the log, while the log still has these records; " +
		"not of the rollups before that: they hold the only counts of what events lost"
)

// findings draws conclusions from the combination of an app's checks. Rows of a lost
// part of one table are still in all others, and rows inserted twice into one table are
// once in all others.
func findings(app *App, cfg Config) []Finding {
	by := map[string]*Check{}
	for _, c := range app.Checks {
		if _, ok := by[c.Table]; !ok {
			by[c.Table] = c // of events: one row per record
		}
	}
	messages := app.Checks[len(app.Checks)-1]
	hourly, corrections, plans, records := by["usage_hourly"], by["corrections"], by["correction_plans"], by["events"]
	// All rollups show that usage_hourly has too much, or too little.
	lessAbove, moreAbove := true, true
	for _, name := range rollups {
		lessAbove = lessAbove && by[name].Missing.any() && by[name].Missing.Events >= hourly.Surplus.Events
		moreAbove = moreAbove && by[name].Surplus.any() && by[name].Surplus.Events >= hourly.Missing.Events
	}

	var list []Finding
	add := func(table, repair, what string, args ...any) {
		list = append(list, Finding{Table: table, What: fmt.Sprintf(what, args...), Repair: repair})
	}
	if records.Different > 0 {
		add("events", "`rollup-writer rebuild` of events from the log, then an audit of the rollups",
			"events is doubled: it holds %d records of the log more than once, %d rows too many: a block was inserted twice", records.Different, records.Surplus.Events)
	}
	if messages.Different > 0 {
		add("events", "no rebuild: the log itself holds them twice, and every table counts them so; look at the enrichers' dedup (window, restore, disks)",
			"events is doubled: %d messages came in two records of the log or more within %s: the enrichers let repeats through", messages.Different, cfg.DedupWindow)
	}
	// A correction takes from some cells what it gives to others.
	moved := hourly.Missing.any() && hourly.Missing == hourly.Surplus
	switch {
	case plans.Different > 0:
		add("correction_plans", "bring its rows back from a backup of correction_plans, or, where corrections holds all rows of these blocks, from there; a rebuild leaves these blocks' corrections as they are, "+
			"and a writer that has yet to carry one of them out halts",
			"correction_plans holds in %d chunks other rows than their heads say: a part of correction_plans was lost, or is doubled", plans.Different)
	case corrections.Different == 0:
	case twice(corrections):
		add("corrections", "delete the second copy of these rows from corrections, if usage_hourly agrees with one; else "+repairRollups+" after that",
			"corrections is doubled: in %d cells it holds more than its plans", corrections.Different)
	case moved:
		add("corrections", "`rollup-writer rebuild` of this app, which first makes corrections again from their plans",
			"corrections lacks rows of %d cells that its plans hold and usage_hourly counts: a part of corrections was lost", corrections.Different)
	default:
		add("corrections", "a writer of that partition that runs and is not halted: it ends the correction; then audit again",
			"corrections lacks rows of %d cells that its plans hold, and usage_hourly lacks them too: the correction is not done", corrections.Different)
	}
	switch {
	case hourly.Different == 0, moved && corrections.Different > 0:
	case moved && !slices.ContainsFunc(rollups, func(name string) bool { return by[name].Different > 0 }):
		add("corrections", "`rollup-writer rebuild -from-log`, which makes them again from the control records while the log has them; no rebuild without it: that would take right corrections out of usage_hourly",
			"usage_hourly has moved what no row of corrections says, and every rollup agrees with it: corrections and their plans were lost (%d events)", hourly.Surplus.Events)
	case moved:
		add("usage_hourly", repairRollups,
			"usage_hourly lacks %d events in some cells and has as many too many in others, as corrections move them: a part of usage_hourly with a correction's rows was lost", hourly.Missing.Events)
	default:
		if hourly.Missing.any() {
			switch {
			case moreAbove:
				add("usage_hourly", repairRollups, "usage_hourly lacks %d events that events and the rollups over it hold: a part of usage_hourly was lost", hourly.Missing.Events)
			case records.Different > 0 && records.Surplus.Events >= hourly.Missing.Events:
				add("usage_hourly", "as for the doubled rows of events", "usage_hourly counts once what is doubled in events (%d events): it is right", hourly.Missing.Events)
			default:
				add("usage_hourly", repairRollups, "usage_hourly lacks %d events that events holds: blocks did not reach the rollups, or their parts were lost", hourly.Missing.Events)
			}
		}
		if hourly.Surplus.any() {
			if lessAbove {
				add("usage_hourly", repairRollups, "usage_hourly is doubled: it counts %d events more than events and than the rollups over it", hourly.Surplus.Events)
			} else {
				add("events", repairEvents, "events lacks rows of %d events that usage_hourly counted, and the rollups over it agree: a part of events was lost (or rows expired or were deleted)", hourly.Surplus.Events)
			}
		}
	}
	for _, name := range rollups {
		c := by[name]
		if moved && c.Missing == c.Surplus {
			continue // it agrees with what usage_hourly should hold, or sees no difference
		}
		if c.Missing.any() && (!lessAbove || !hourly.Surplus.any()) {
			add(name, repairRollups, "%s lacks %d events that usage_hourly holds: a part of %s was lost", name, c.Missing.Events, name)
		}
		if c.Surplus.any() && (!moreAbove || !hourly.Missing.any()) {
			add(name, repairRollups, "%s is doubled: it counts %d events more than usage_hourly", name, c.Surplus.Events)
		}
	}
	return list
}

// twice reports whether a listed cell holds more, in its sign, than it should: rows of
// corrections are signed.
func twice(c *Check) bool {
	for _, cell := range c.First {
		w, g := cell.Want.Events, cell.Got.Events
		if w != 0 && (w < 0) == (g < 0) && max(g, -g) > max(w, -w) {
			return true
		}
	}
	return false
}

// WriteJSON writes the report for scripts.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// listedHours bounds the hours of an app that are printed.
const listedHours = 48

// WriteText writes the report as text.
func (r *Report) WriteText(w io.Writer) error {
	if r.Conservation != nil {
		if err := r.Conservation.WriteText(w, listedHours); err != nil {
			return err
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "APP\tTABLE\tAGAINST\tCELLS\tDIFFERENT\tEVENTS WANT\tGOT\tQUANTITY WANT\tGOT")
	for _, a := range r.Apps {
		for _, d := range a.Derived {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t\t\t\t\n", a.ID, d.Table, d.From, d.Rows, d.Less+d.More)
		}
		for _, c := range a.Checks {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", a.ID, c.Table, c.Against, c.Cells, c.Different, c.Want.Events, c.Got.Events, c.Want.Quantity, c.Got.Quantity)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	for _, a := range r.Apps {
		for _, f := range a.Findings {
			fmt.Fprintf(&b, "\n%s: %s\n  to repair: %s\n", a.ID, f.What, f.Repair)
		}
		for _, c := range a.Checks {
			c.write(&b, a.ID)
		}
	}
	if r.Equal {
		b.WriteString("\nequal\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *Check) write(b *strings.Builder, app string) {
	if c.Different == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s: %s against %s, %d cells differ", app, c.Table, c.Against, c.Different)
	if n := uint64(len(c.First)); n < c.Different {
		fmt.Fprintf(b, ", first %d", n)
	}
	b.WriteString(":\n")
	for _, cell := range c.First {
		fmt.Fprintf(b, "  want %d (%d), got %d (%d): %s\n", cell.Want.Events, cell.Want.Quantity, cell.Got.Events, cell.Got.Quantity, cell.Key)
	}
	for _, p := range c.Partitions {
		fmt.Fprintf(b, "  partition %d, hours %s to %s: %d events too few, %d too many\n", p.Number, p.FirstHour.UTC().Format(time.RFC3339), p.LastHour.UTC().Format(time.RFC3339), p.Missing, p.Surplus)
		for _, t := range p.Topics {
			fmt.Fprintf(b, "    events holds %d rows of topic id %s there, offsets %d to %d\n", t.Rows, t.ID, t.FirstOffset, t.LastOffset)
		}
	}
}
