package loadgen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/schemas/clickhouse"
)

// Rollup is one table of sums and its key columns.
type Rollup struct {
	Table   string
	Columns []string // in the order of the table's key; the last is hour or day
}

// Rollups returns the base rollup and the six daily ones.
func Rollups() []Rollup {
	return []Rollup{
		{"usage_hourly", []string{"account_id", "actor_id", "actor_kind", "feature_id", "module_id", "product_id", "role", "event", "hour"}},
		{"account_feature_daily", []string{"account_id", "feature_id", "module_id", "product_id", "day"}},
		{"account_module_daily", []string{"account_id", "module_id", "product_id", "day"}},
		{"account_product_daily", []string{"account_id", "product_id", "day"}},
		{"user_feature_daily", []string{"account_id", "actor_id", "actor_kind", "role", "feature_id", "module_id", "product_id", "day"}},
		{"user_module_daily", []string{"account_id", "actor_id", "actor_kind", "role", "module_id", "product_id", "day"}},
		{"user_product_daily", []string{"account_id", "actor_id", "actor_kind", "role", "product_id", "day"}},
	}
}

// column returns the value of a key column of one event.
func (c counted) column(name string) string {
	switch name {
	case "account_id":
		return c.Whom.Account
	case "actor_id":
		return c.Actor
	case "actor_kind":
		return c.ActorKind
	case "feature_id":
		return c.Feature
	case "module_id":
		return c.Module
	case "product_id":
		return c.Product
	case "role":
		return c.Whom.Role
	case "event":
		return c.Name
	case "hour":
		return c.hour().Format("2006-01-02 15:04:05")
	case "day":
		return c.day().Format("2006-01-02")
	}
	panic("no such column: " + name) // a fault in Rollups
}

// Sums is one cell.
type Sums struct{ Events, Quantity int64 }

// CellDiff is one cell, or one row, that is not as it has to be.
type CellDiff struct{ Key, Got, Want string }

// TableDiff is what is wrong with one table.
type TableDiff struct {
	Table   string
	Cells   int   // that were compared
	Wrong   int   // that differ
	Lost    int64 // events that are missing, summed over the cells
	Doubled int64 // events that are there too often
	First   []CellDiff
}

const firstCells = 20

func (d *TableDiff) wrong(key, got, want string) {
	d.Wrong++
	if len(d.First) < firstCells {
		d.First = append(d.First, CellDiff{key, got, want})
	}
}

func (d *TableDiff) count(got, want int64) {
	if got < want {
		d.Lost += want - got
	} else {
		d.Doubled += got - want
	}
}

// Diff is the result of a comparison: one entry for each table, equal or not.
type Diff struct {
	Tables []TableDiff
}

// Equal reports whether nothing differs.
func (d Diff) Equal() bool {
	for _, t := range d.Tables {
		if t.Wrong > 0 {
			return false
		}
	}
	return true
}

// Lost returns the most events that any table misses.
func (d Diff) Lost() int64 {
	var most int64
	for _, t := range d.Tables {
		most = max(most, t.Lost)
	}
	return most
}

// Doubled returns the most events that any table has too often.
func (d Diff) Doubled() int64 {
	var most int64
	for _, t := range d.Tables {
		most = max(most, t.Doubled)
	}
	return most
}

// String says for each table whether it is equal, and of one that isn't which
// cells differ.
func (d Diff) String() string {
	var b strings.Builder
	for _, t := range d.Tables {
		verdict := "equal"
		if t.Wrong > 0 {
			verdict = fmt.Sprintf("%d differ: %d events lost, %d doubled", t.Wrong, t.Lost, t.Doubled)
		}
		fmt.Fprintf(&b, "%-24s %8d compared  %s\n", t.Table, t.Cells, verdict)
		for _, c := range t.First {
			fmt.Fprintf(&b, "    %s\n        got  %s\n        want %s\n", c.Key, c.Got, c.Want)
		}
		if more := t.Wrong - len(t.First); more > 0 && len(t.First) > 0 {
			fmt.Fprintf(&b, "    and %d more\n", more)
		}
	}
	return b.String()
}

// Compare reads `events`, every rollup and `rejected_events` of a database and
// holds each row and cell against the oracle.
func Compare(ctx context.Context, conn driver.Conn, database string, o *Oracle) (Diff, error) {
	rows, err := readRows(ctx, conn, database, o)
	if err != nil {
		return Diff{}, fmt.Errorf("compare: %w", err)
	}
	stored := o.stored(func(id string) bool { return len(rows[id]) > 0 })
	d := Diff{Tables: []TableDiff{compareRows(rows, stored)}}
	for _, r := range Rollups() {
		cells, err := readCells(ctx, conn, database, o, r)
		if err != nil {
			return Diff{}, fmt.Errorf("compare: %w", err)
		}
		d.Tables = append(d.Tables, compareCells(r, cells, stored))
	}
	rejected, err := readRejected(ctx, conn, database, o)
	if err != nil {
		return Diff{}, fmt.Errorf("compare: %w", err)
	}
	d.Tables = append(d.Tables, compareRejected(rejected, o.rejected))
	return d, nil
}

func readRows(ctx context.Context, conn driver.Conn, database string, o *Oracle) (map[string][]Row, error) {
	const q = `SELECT message_id, kind, event, actor_id, actor_kind, account_id, role, feature_id, module_id, product_id,
		toUnixTimestamp64Micro(event_time), toInt64(quantity), user_id, anonymous_id FROM %s.events WHERE app_id = ? AND startsWith(message_id, ?)`
	type row struct {
		id string
		Row
	}
	out := map[string][]Row{}
	err := clickhouse.Each(ctx, conn, func(r *row) []any {
		return []any{
			&r.id, &r.Kind, &r.Event, &r.Actor, &r.ActorKind, &r.Account, &r.Role, &r.Feature, &r.Module, &r.Product,
			&r.EventTime, &r.Quantity, &r.UserID, &r.Anonymous,
		}
	}, func(r *row) { out[r.id] = append(out[r.id], r.Row) }, fmt.Sprintf(q, database), o.App, o.Prefix)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return out, nil
}

func compareRows(rows map[string][]Row, stored map[string]counted) TableDiff {
	d := TableDiff{Table: "events", Cells: len(stored)}
	for _, id := range sortedKeys(stored) {
		got, want := rows[id], stored[id].row()
		d.count(int64(len(got)), 1)
		switch {
		case len(got) == 0:
			d.wrong(id, "no row", fmt.Sprintf("%+v", want))
		case len(got) > 1:
			d.wrong(id, fmt.Sprintf("%d rows", len(got)), "1 row")
		case got[0] != want && stored[id].asCounted(got[0]) != want:
			d.wrong(id, fmt.Sprintf("%+v", got[0]), fmt.Sprintf("%+v", want))
		}
	}
	for _, id := range sortedKeys(rows) {
		if _, ok := stored[id]; !ok {
			d.count(int64(len(rows[id])), 0)
			d.wrong(id, fmt.Sprintf("%+v", rows[id]), "no row: it was not sent, or was bad")
		}
	}
	return d
}

const keySep = " | "

func readCells(ctx context.Context, conn driver.Conn, database string, o *Oracle, r Rollup) (map[string]Sums, error) {
	exprs := make([]string, len(r.Columns))
	for i, c := range r.Columns {
		exprs[i] = "toString(" + c + ")"
		if c == "hour" {
			exprs[i] = "formatDateTime(" + c + ", '%F %T', 'UTC')"
		}
	}
	q := fmt.Sprintf("SELECT [%s] AS k, toInt64(sum(events)), toInt64(sum(quantity)) FROM %s.%s WHERE app_id = ? AND startsWith(account_id, ?) GROUP BY k",
		strings.Join(exprs, ", "), database, r.Table)
	type cell struct {
		key []string
		Sums
	}
	out := map[string]Sums{}
	err := clickhouse.Each(ctx, conn, func(c *cell) []any { return []any{&c.key, &c.Events, &c.Quantity} }, func(c *cell) { out[strings.Join(c.key, keySep)] = c.Sums }, q, o.App, o.Prefix)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", r.Table, err)
	}
	return out, nil
}

func compareCells(r Rollup, got map[string]Sums, stored map[string]counted) TableDiff {
	want := map[string]Sums{}
	key := make([]string, len(r.Columns))
	for _, c := range stored {
		if !c.usage() {
			continue
		}
		for i, name := range r.Columns {
			key[i] = c.column(name)
		}
		k := strings.Join(key, keySep)
		s := want[k]
		s.Events++
		s.Quantity += c.quantity()
		want[k] = s
	}
	d := TableDiff{Table: r.Table, Cells: len(want)}
	show := func(s Sums) string {
		return "events " + strconv.FormatInt(s.Events, 10) + ", quantity " + strconv.FormatInt(s.Quantity, 10)
	}
	for _, k := range sortedKeys(want) {
		g, w := got[k], want[k]
		d.count(g.Events, w.Events)
		if g != w {
			d.wrong(k, show(g), show(w))
		}
	}
	for _, k := range sortedKeys(got) {
		if _, ok := want[k]; ok {
			continue
		}
		d.Cells++
		d.count(got[k].Events, 0)
		if got[k] != (Sums{}) { // a correction leaves zeros behind
			d.wrong(k, show(got[k]), show(Sums{}))
		}
	}
	return d
}

func readRejected(ctx context.Context, conn driver.Conn, database string, o *Oracle) (map[RejectedKey]int, error) {
	type row struct {
		RejectedKey
		n int64
	}
	out := map[RejectedKey]int{}
	err := clickhouse.Each(ctx, conn, func(r *row) []any { return []any{&r.Code, &r.Original, &r.n} }, func(r *row) { out[r.RejectedKey] = int(r.n) },
		fmt.Sprintf("SELECT code, original, toInt64(count()) FROM %s.rejected_events WHERE app_id IN (?, '') AND (? = '' OR position(original, ?) > 0) GROUP BY code, original", database), o.App, o.Prefix, o.Prefix)
	if err != nil {
		return nil, fmt.Errorf("read rejected_events: %w", err)
	}
	return out, nil
}

func compareRejected(got map[RejectedKey]int, want map[RejectedKey]Count) TableDiff {
	d := TableDiff{Table: "rejected_events"}
	keys := map[RejectedKey]bool{}
	for k := range got {
		keys[k] = true
	}
	for k := range want {
		keys[k] = true
	}
	sorted := make([]RejectedKey, 0, len(keys))
	for k := range keys {
		sorted = append(sorted, k)
	}
	sort.Slice(sorted, func(i, j int) bool {
		return sorted[i].Code+sorted[i].Original < sorted[j].Code+sorted[j].Original
	})
	for _, k := range sorted {
		d.Cells++
		g, w := got[k], want[k]
		if g >= w.Min && g <= w.Max {
			continue
		}
		d.count(int64(g), int64(max(w.Min, min(g, w.Max))))
		d.wrong(k.Code+keySep+k.Original, strconv.Itoa(g), fmt.Sprintf("%d to %d", w.Min, w.Max))
	}
	return d
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

var errFewer = errors.New("read without an error")

// Arrived is how many events and rejections are in ClickHouse, and how many are
// to be.
type Arrived struct{ Events, WantEvents, Rejected, WantRejected uint64 }

// All reports whether at least as many are there as are to be.
func (a Arrived) All() bool { return a.Events >= a.WantEvents && a.Rejected >= a.WantRejected }

func (a Arrived) String() string {
	return fmt.Sprintf("%d of %d events and %d of %d rejections are in ClickHouse", a.Events, a.WantEvents, a.Rejected, a.WantRejected)
}

// Arrival counts what database holds of what the oracle expects.
func Arrival(ctx context.Context, conn driver.Conn, database string, o *Oracle) (Arrived, error) {
	a := Arrived{WantEvents: uint64(len(o.acked))}
	for _, c := range o.rejected {
		a.WantRejected += uint64(c.Min)
	}
	q := fmt.Sprintf(`SELECT (SELECT count() FROM %[1]s.events WHERE app_id = ? AND startsWith(message_id, ?)),
		(SELECT count() FROM %[1]s.rejected_events WHERE app_id IN (?, '') AND (? = '' OR position(original, ?) > 0))`, database)
	if err := conn.QueryRow(ctx, q, o.App, o.Prefix, o.App, o.Prefix, o.Prefix).Scan(&a.Events, &a.Rejected); err != nil {
		return a, fmt.Errorf("count what arrived: %w", err)
	}
	return a, nil
}

// Await returns when database holds at least as many events and rejections as
// the oracle expects, or an error when ctx ends before.
func Await(ctx context.Context, conn driver.Conn, database string, o *Oracle) error {
	tick := time.NewTicker(250 * time.Millisecond) // each look takes CPU from what is waited for
	defer tick.Stop()
	for {
		a, err := Arrival(ctx, conn, database, o)
		if err == nil && a.All() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for events in ClickHouse: %w (%s, %w)", ctx.Err(), a, cmp.Or(err, errFewer))
		case <-tick.C:
		}
	}
}

// AwaitEqual compares until nothing differs or ctx ends, and returns the last
// comparison. A double is waited for like a loss: a block can be on its way
// through the views while the tables are read.
func AwaitEqual(ctx context.Context, conn driver.Conn, database string, o *Oracle) (Diff, error) {
	waitErr := Await(ctx, conn, database, o)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		d, err := Compare(context.WithoutCancel(ctx), conn, database, o)
		if err != nil {
			if ctx.Err() != nil {
				return d, errors.Join(err, waitErr)
			}
		} else if d.Equal() || ctx.Err() != nil {
			return d, nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
