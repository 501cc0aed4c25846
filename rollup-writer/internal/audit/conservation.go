package audit

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// Conservation lists, per app and hour of receipt, the outcomes of the events that the
// gateways acked.
type Conservation struct {
	Balanced bool `json:"balanced"`
	// InFlight is the reason why the number of events in flight is unknown; empty: it
	// is known. If the log was asked, it is not Balanced then.
	InFlight string `json:"in_flight_unknown,omitempty"`
	// SetAside counts records that no release can have written, which are in
	// rejected_events with stage writer.
	SetAside uint64  `json:"set_aside,omitempty"`
	Unread   int64   `json:"in_flight_unread,omitempty"` // records in flight beyond the bound: no app or hour is known
	Hours    []*Hour `json:"hours"`
	Gaps     []Gap   `json:"gaps,omitempty"`
	// Ahead lists the partitions of which ClickHouse lacks records that writers committed.
	Ahead    []string  `json:"commits_ahead,omitempty"`
	Findings []Finding `json:"findings,omitempty"`
}

// Hour is the equation of an app and an hour of receipt:
//
//	accepted = stored + duplicates + rejected + opted_out + in_flight + difference
type Hour struct {
	App        string    `json:"app_id"`
	Hour       time.Time `json:"hour"`
	Accepted   int64     `json:"accepted"`   // taken from raw, or still in it
	Stored     int64     `json:"stored"`     // rows of events
	Duplicates int64     `json:"duplicates"` // counted
	Rejected   int64     `json:"rejected"`   // rows of rejected_events, stage enricher
	OptedOut   int64     `json:"opted_out"`  // counted; deleted on purpose too
	InFlight   int64     `json:"in_flight"`
	Lost       int64     `json:"counts_lost,omitempty"` // in raw; enrichers and writers are past them, and their counts are lost
	Difference int64     `json:"difference"`            // accepted and nowhere; negative: too many
	// Refused events were rejected by the gateway: they were never accepted.
	Refused int64 `json:"refused"`

	// Rows that the enrichers passed on, and their difference to the enrichers' counts.
	Counted            Counted `json:"counted"`
	StoredDifference   int64   `json:"stored_difference"`
	RejectedDifference int64   `json:"rejected_difference"`
}

// Counted are the rows that enrichers passed on, by their counts.
type Counted struct {
	Stored   int64 `json:"stored"`
	Rejected int64 `json:"rejected"`
}

func (h *Hour) differs() bool {
	return h.Difference != 0 || h.StoredDifference != 0 || h.RejectedDifference != 0
}

// Gap is a range of raw offsets that was not counted, or, with To below From, that was
// counted twice.
type Gap struct {
	Partition int32 `json:"source_partition"`
	From      int64 `json:"from"`
	To        int64 `json:"to"`
	// Lost: the counts were in enriched before the writers' commit, so audit_blocks
	// had them.
	Lost bool `json:"lost,omitempty"`
}

// Position is how far a partition of the log is counted.
type Position struct {
	RawTopicID string
	Partition  int32
	Next       int64 // offset of raw
}

// HourKey is an app and the start of an hour of receipt.
type HourKey struct {
	App  string
	Hour int64 // seconds since the epoch
}

// Tail is what the log holds beyond what ClickHouse counts or holds.
type Tail struct {
	Raw      map[HourKey]int64 // records of raw at and behind the positions
	Rejected map[HourKey]int64 // rejects of enrichers before the positions that are not in rejected_events
	Lost     map[HourKey]int64 // records of raw behind the positions that must be counted
	Unread   int64             // more records than the bound: not looked at
}

// Due is what ClickHouse must hold by what enrichers and writers have committed.
type Due struct {
	// Counted is up to where raw must be counted.
	Counted []Position
	// Ahead says of partitions that ClickHouse lacks what was committed.
	Ahead []string
}

// Log reads the log. Due is asked before the tables are read. Tail reads what is
// behind the positions; present says which of the offsets from one on of a
// partition of rejected are in rejected_events.
type Log interface {
	Due(ctx context.Context) (*Due, error)
	Tail(ctx context.Context, positions []Position, due *Due, present func(topicID string, partition int32, from int64) (map[int64]bool, error)) (*Tail, error)
}

// Conserve compares the enrichers' counts with events and rejected_events. Without a
// log the number of events in flight is unknown, and for rejects in transit it can only
// wait. From and To of cfg bound the hours of receipt here.
func Conserve(ctx context.Context, conn driver.Conn, schema tables.Schema, cfg Config, log Log) (*Conservation, error) {
	a := &auditor{conn: conn, schema: schema, cfg: cfg, wait: backoff.Sleep}
	return a.conserve(ctx, log)
}

func (a *auditor) conserve(ctx context.Context, log Log) (*Conservation, error) {
	ctx = clickhousego.Context(ctx, clickhousego.WithSettings(settings))
	var suspects map[HourKey]bool
	var gaps []Gap
	for look := 0; ; look++ {
		c, err := a.lookAtHours(ctx, log)
		if err != nil {
			return nil, err
		}
		if look > 0 {
			c.Gaps = slices.DeleteFunc(c.Gaps, func(g Gap) bool { return !slices.Contains(gaps, g) })
		}
		gaps = c.Gaps
		// A difference counts only if it was found at every look.
		still := map[HourKey]bool{}
		for _, h := range c.Hours {
			k := HourKey{h.App, h.Hour.Unix()}
			if h.differs() && (suspects == nil || suspects[k]) {
				still[k] = true
			}
		}
		suspects = still
		if len(suspects) == 0 && len(c.Gaps) == 0 && len(c.Ahead) == 0 {
			c.Balanced = log == nil || c.InFlight == ""
			return c, nil
		}
		if look == a.cfg.Settle {
			c.find(suspects)
			return c, nil
		}
		if err := a.wait(ctx, a.cfg.SettleWait); err != nil {
			return nil, err
		}
	}
}

func (a *auditor) lookAtHours(ctx context.Context, log Log) (*Conservation, error) {
	c := &Conservation{InFlight: "the log was not asked"}
	var due *Due
	if log != nil {
		var err error
		if due, err = log.Due(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			c.InFlight, log = err.Error(), nil
		}
	}
	positions, err := a.positions(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.conn.QueryRow(ctx, "SELECT count() FROM "+a.schema.Table("rejected_events")+" WHERE app_id = '' AND stage = 'writer'").Scan(&c.SetAside); err != nil {
		return nil, fmt.Errorf("count what was set aside: %w", err)
	}
	if c.Hours, err = a.hours(ctx); err != nil {
		return nil, err
	}
	if c.Gaps, err = a.gaps(ctx); err != nil {
		return nil, err
	}
	if log == nil {
		return c, nil
	}
	c.Ahead = due.Ahead
	for _, d := range due.Counted {
		var next int64
		for _, p := range positions {
			if p.RawTopicID == d.RawTopicID && p.Partition == d.Partition {
				next = p.Next
			}
		}
		if next < d.Next {
			c.Gaps = append(c.Gaps, Gap{Partition: d.Partition, From: next, To: d.Next, Lost: true})
		}
	}
	tail, err := log.Tail(ctx, positions, due, func(topicID string, partition int32, from int64) (map[int64]bool, error) {
		return a.present(ctx, topicID, partition, from)
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		c.InFlight = err.Error()
		return c, nil
	}
	c.InFlight, c.Unread = "", tail.Unread
	c.add(a.cfg, tail)
	return c, nil
}

// add adds the events in flight to the hours.
func (c *Conservation) add(cfg Config, tail *Tail) {
	by := map[HourKey]*Hour{}
	for _, h := range c.Hours {
		by[HourKey{h.App, h.Hour.Unix()}] = h
	}
	of := func(k HourKey) *Hour {
		at := time.Unix(k.Hour, 0).UTC()
		if cfg.App != "" && k.App != cfg.App || at.Before(cfg.From) || !cfg.To.IsZero() && !at.Before(cfg.To) {
			return &Hour{}
		}
		if by[k] == nil {
			by[k] = &Hour{App: k.App, Hour: at}
			c.Hours = append(c.Hours, by[k])
		}
		return by[k]
	}
	for k, n := range tail.Raw {
		h := of(k)
		h.Accepted, h.InFlight = h.Accepted+n, h.InFlight+n
	}
	for k, n := range tail.Lost {
		h := of(k)
		h.Accepted, h.Difference, h.Lost = h.Accepted+n, h.Difference+n, h.Lost+n
	}
	for k, n := range tail.Rejected {
		h := of(k)
		h.InFlight, h.Difference, h.RejectedDifference = h.InFlight+n, h.Difference-n, h.RejectedDifference+n
	}
	slices.SortFunc(c.Hours, func(x, y *Hour) int {
		if n := strings.Compare(x.App, y.App); n != 0 {
			return n
		}
		return x.Hour.Compare(y.Hour)
	})
}

func (a *auditor) hours(ctx context.Context) ([]*Hour, error) {
	where := between("hour", a.cfg.From, a.cfg.To)
	if a.cfg.App != "" {
		where += " AND app_id = " + clickhouse.Quote(a.cfg.App)
	}
	list := []*Hour{}
	err := tables.Each(ctx, a.conn, func(h *Hour) []any {
		return []any{
			&h.App, &h.Hour, &h.Accepted, &h.Stored, &h.Duplicates, &h.Rejected, &h.OptedOut, &h.Refused, &h.Difference,
			&h.Counted.Stored, &h.Counted.Rejected, &h.StoredDifference, &h.RejectedDifference,
		}
	}, func(h *Hour) {
		h.Hour = h.Hour.UTC()
		list = append(list, h)
	}, `SELECT toString(app_id), hour, accepted, event_rows, duplicates, rejected_rows, opted_out, refused, difference,
	stored, rejected, stored_difference, rejected_difference FROM `+a.schema.View("audit_differences")+" WHERE "+where+" ORDER BY app_id, hour")
	if err != nil {
		return nil, fmt.Errorf("read audit_differences: %w", err)
	}
	return list, nil
}

func (a *auditor) positions(ctx context.Context) ([]Position, error) {
	list, err := tables.Collect(ctx, a.conn, func(p *Position) []any { return []any{&p.RawTopicID, &p.Partition, &p.Next} },
		"SELECT toString(raw_topic_id), source_partition, max(raw_next) FROM "+a.schema.Table("audit_positions")+" GROUP BY raw_topic_id, source_partition ORDER BY source_partition")
	if err != nil {
		return nil, fmt.Errorf("read audit_positions: %w", err)
	}
	return list, nil
}

// gaps checks whether the raw offsets that blocks count begin at 0 (unless the first
// ones may have expired) and adjoin, and whether as many events were counted as there
// are offsets.
func (a *auditor) gaps(ctx context.Context) ([]Gap, error) {
	table := a.schema.Table("audit_blocks")
	blocks := `(SELECT DISTINCT raw_topic_id, source_topic_id, source_partition, source_offset, raw_first, raw_next FROM ` + table + ` FINAL WHERE raw_topic_id != '')`
	var list []Gap
	var err error
	for _, q := range []string{
		`SELECT source_partition, due, raw_first FROM (
	SELECT source_partition, raw_first, lagInFrame(raw_next, 1, raw_first) OVER (PARTITION BY raw_topic_id, source_partition ORDER BY raw_first, source_offset) AS due
	FROM ` + blocks + `) WHERE due != raw_first
UNION ALL
SELECT source_partition, toInt64(0), min(raw_first) AS first FROM ` + table + ` FINAL WHERE raw_topic_id != ''
	GROUP BY raw_topic_id, source_partition HAVING first > 0 AND min(counted_at) > now() - INTERVAL 90 DAY`,
		`SELECT source_partition, min(raw_first) + sum(accepted) AS reached, max(raw_next) AS wanted FROM ` + table + ` FINAL WHERE raw_topic_id != ''
	GROUP BY raw_topic_id, source_partition HAVING reached != wanted ORDER BY source_partition`,
	} {
		if list, err = tables.Collect(ctx, a.conn, func(g *Gap) []any { return []any{&g.Partition, &g.From, &g.To} }, q); err != nil {
			return nil, fmt.Errorf("look for gaps in audit_blocks: %w", err)
		}
		if len(list) > 0 {
			break // the sum differs for the same reason
		}
	}
	return list, nil
}

// present returns the offsets from one on that rejected_events has of a partition.
func (a *auditor) present(ctx context.Context, topicID string, partition int32, from int64) (map[int64]bool, error) {
	set, err := tables.CollectMap[int64, bool](ctx, a.conn, "SELECT source_offset, true FROM "+a.schema.Table("rejected_events")+" WHERE source_topic_id = ? AND source_partition = ? AND source_offset >= ?", topicID, partition, from)
	if err != nil {
		return nil, fmt.Errorf("read rejected_events: %w", err)
	}
	return set, nil
}

// find explains the differences of the suspects.
func (c *Conservation) find(suspects map[HourKey]bool) {
	c.Findings = []Finding{}
	add := func(table, repair, what string, args ...any) {
		c.Findings = append(c.Findings, Finding{Table: table, What: fmt.Sprintf(what, args...), Repair: repair})
	}
	for _, h := range c.Hours {
		if !suspects[HourKey{h.App, h.Hour.Unix()}] {
			continue
		}
		at := h.App + ", received in the hour of " + h.Hour.Format(time.RFC3339)
		switch n := h.StoredDifference; {
		case n < 0:
			add("events", repairEvents, "%s: events lacks %d of %d rows that enrichers passed on: a part was lost, or rows expired or were deleted", at, -n, h.Counted.Stored)
		case n > 0:
			add("events", "`rollup-writer audit` of the tables says whether records or messages exist twice", "%s: events holds %d rows more than the %d that enrichers passed on", at, n, h.Counted.Stored)
		}
		switch n := h.RejectedDifference; {
		case n < 0:
			add("rejected_events", "wait for the writer of rejected, if it lags; else the rows are in the log for the retention of rejected",
				"%s: rejected_events lacks %d of %d rows that enrichers passed on", at, -n, h.Counted.Rejected)
		case n > 0:
			add("rejected_events", "delete the second copies from rejected_events", "%s: rejected_events holds %d rows more than the %d that enrichers passed on", at, n, h.Counted.Rejected)
		}
		if n := h.Difference + h.StoredDifference + h.RejectedDifference - h.Lost; n != 0 {
			add("audit_blocks", "none: find out who changed audit_blocks",
				"%s: the enrichers' counts do not add up: %d are accepted and nothing became of them", at, n)
		}
	}
	for _, what := range c.Ahead {
		add("events", boundary.AheadRepair, "%s", what)
	}
	for _, g := range c.Gaps {
		if g.Lost {
			if len(c.Ahead) == 0 { // else it follows
				add("audit_blocks", "`rollup-writer recount`, while the log has the counts",
					"partition %d: the counts of %d offsets of raw, from %d on, are committed and not in audit_blocks: they were lost", g.Partition, g.To-g.From, g.From)
			}
			continue
		}
		if g.To > g.From {
			add("audit_blocks", "`rollup-writer recount`, while the log has the counts; if the gap stays, enrichers did not take these records: see uptake_enricher_lost_records_total and the retention of raw",
				"partition %d: %d offsets of raw, from %d on, were counted by nobody: enrichers did not take them, or a part of audit_blocks was lost", g.Partition, g.To-g.From, g.From)
		} else {
			add("audit_blocks", "none: look for a second enricher group, or offsets that were moved back by hand",
				"partition %d: %d offsets of raw, from %d on, were counted twice", g.Partition, g.From-g.To, g.To)
		}
	}
}

// WriteText writes the equation as a table: a line for each app, and one for each hour
// that differs or has events in flight.
func (c *Conservation) WriteText(w io.Writer, most int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "APP\tRECEIVED\tACCEPTED\tSTORED\tDUPLICATES\tREJECTED\tOPTED OUT\tIN FLIGHT\tDIFFERENCE\tREFUSED\t")
	line := func(h *Hour, at string) {
		flight := fmt.Sprint(h.InFlight)
		if c.InFlight != "" {
			flight = "?"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%d\t%d\t\n", h.App, at, h.Accepted, h.Stored, h.Duplicates, h.Rejected, h.OptedOut, flight, h.Difference, h.Refused)
	}
	for i := 0; i < len(c.Hours); {
		sum, j, listed := Hour{App: c.Hours[i].App}, i, 0
		for ; j < len(c.Hours) && c.Hours[j].App == sum.App; j++ {
			sum.add(c.Hours[j])
		}
		line(&sum, fmt.Sprintf("%d hours", j-i))
		for ; i < j; i++ {
			if h := c.Hours[i]; (h.differs() || h.InFlight != 0) && listed < most {
				line(h, h.Hour.Format("2006-01-02 15:00"))
				listed++
			}
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	if c.InFlight != "" {
		fmt.Fprintf(&b, "\nwhat is in flight is not known: %s\n", c.InFlight)
	}
	if c.Unread > 0 {
		fmt.Fprintf(&b, "\n%d more records are in flight, and were not looked at: see -in-flight-records\n", c.Unread)
	}
	if c.SetAside > 0 {
		fmt.Fprintf(&b, "\n%d records that no release can have written are set aside in rejected_events, stage writer: find out who writes into enriched or rejected\n", c.SetAside)
	}
	for _, f := range c.Findings {
		fmt.Fprintf(&b, "\n%s\n  to repair: %s\n", f.What, f.Repair)
	}
	if c.Balanced {
		b.WriteString("\nbalanced\n")
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

func (h *Hour) add(o *Hour) {
	h.Accepted += o.Accepted
	h.Stored += o.Stored
	h.Duplicates += o.Duplicates
	h.Rejected += o.Rejected
	h.OptedOut += o.OptedOut
	h.InFlight += o.InFlight
	h.Difference += o.Difference
	h.Refused += o.Refused
}
