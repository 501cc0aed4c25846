package boundary

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// Newest returns the highest offset of each partition of a topic of which
// ClickHouse holds anything: rows, plans and counts. Without rows of events it
// reads small tables only.
func Newest(ctx context.Context, conn driver.Conn, schema tables.Schema, names *topic.Names, name, topicID string, events bool) (map[int32]int64, error) {
	const columns = "SELECT source_partition, source_offset FROM "
	where := " WHERE source_topic_id = " + clickhouse.Quote(topicID)
	var from []string
	if name != names.Enriched || events {
		from = append(from, columns+schema.Table(Table(names, name))+where)
	}
	if name == names.Enriched {
		// A block whose corrections are planned is done once, or by a rebuild; it
		// must not be done again with tokens of another generation.
		from = append(from, columns+schema.Table(CountsTable)+where,
			"SELECT source_partition, block_end - 1 FROM "+schema.Table("correction_plans")+where+" AND chunk = 0 AND block_end > 0")
	}
	newest, err := tables.CollectMap[int32, int64](ctx, conn, "SELECT source_partition, max(source_offset) FROM ("+strings.Join(from, " UNION ALL ")+") GROUP BY source_partition")
	if err != nil {
		return nil, fmt.Errorf("look for rows of %s: %w", name, err)
	}
	return newest, nil
}

// Ahead compares commits with the tables. What stands before a commit was inserted
// before the commit was made; where ClickHouse lacks it, ClickHouse was emptied or
// is an older copy, and a writer that went on from the commit would leave a hole.
type Ahead struct {
	SQL    driver.Conn
	Schema tables.Schema
	Names  *topic.Names
	Log    *reader.Reader
	Codec  *event.Codec
	Skips  map[Place]bool
}

// AheadRepair is what to do about partitions whose commits are ahead.
const AheadRepair = "stop all writers, run `rollup-writer init -reset`, which begins after what ClickHouse holds, and start them again: they write the rest from the log; see docs/recovery.md"

// Of returns, by partition of a topic, how its commit is ahead of the tables. st
// must have been read before the call: writers may be running.
func (a *Ahead) Of(ctx context.Context, st State, name string) (map[int32]error, error) {
	id := st.Topics[name].ID.String()
	ask, cancel := Uncut(ctx)
	defer cancel()
	newest, err := Newest(ask, a.SQL, a.Schema, a.Names, name, id, false)
	if err != nil {
		return nil, err
	}
	found := map[int32]error{}
	for _, n := range st.Topics[name].Partitions.Numbers() {
		c, ok := st.Commits.Lookup(name, n)
		first, ok2 := st.First.Lookup(name, n)
		end, ok3 := st.End.Lookup(name, n)
		if !ok || !ok2 || !ok3 || c.Err != nil || c.At <= 0 {
			continue
		}
		if c.At > end.Offset {
			continue // refused as truncated; a reader would wait for what is not there
		}
		if commit, err := block.ParseCommit(c.Metadata); err != nil || commit.TopicID != id {
			continue // refused for that
		}
		held, holds := int64(-1), "nothing of it"
		if at, ok := newest[n]; ok {
			held, holds = at, fmt.Sprintf("nothing of it after offset %d", at)
		}
		lacks, err := a.lacks(ctx, id, name, n, max(held+1, first.Offset), c.At)
		if err != nil {
			return nil, err
		}
		if lacks >= 0 {
			found[n] = fmt.Errorf("%s/%d is committed up to offset %d, and ClickHouse holds %s: it lacks the record at offset %d, so it was emptied or is an older copy; the log has this partition from offset %d on",
				name, n, c.At, holds, lacks, first.Offset)
		}
	}
	return found, nil
}

// row is an event that must be in events.
type row struct {
	offset int64
	app    string
	at     event.Micros
}

var errEnough = errors.New("enough was read")

// lacks returns the offset of an event of a span that must be in events and is not,
// or -1. ClickHouse holds no counts of the span, so in good order it ends within the
// first transaction of the enrichers: the first and the last event are looked up.
// Behind the counts of a transaction the next event decides: if it is there, only
// counts were lost, which is for the audit to find.
func (a *Ahead) lacks(ctx context.Context, id, name string, number int32, from, to int64) (int64, error) {
	if from >= to {
		return -1, nil
	}
	var first, last *row
	counted := false
	err := a.Log.Span(ctx, name, number, from, to, func(r *kgo.Record) error {
		typ, err := a.Codec.Type(r.Value)
		if err != nil || a.Skips[Place{name, number, r.Offset}] {
			return nil //nolint:nilerr // a record that no writer could read left no row
		}
		switch typ {
		case event.TypeControl:
			var c event.Control
			counted = counted || a.Codec.DecodeControl(r.Value, &c) == nil && c.Kind == event.ControlCounts
			return nil
		case event.TypeEnriched:
			var e event.EnrichedEvent
			if a.Codec.DecodeEnriched(r.Value, &e) != nil {
				return nil
			}
			last = &row{r.Offset, strings.Clone(e.AppID), e.EventTime}
		case event.TypeRejected: // these are all compared
			last = &row{offset: r.Offset}
		}
		if first == nil {
			first = last
		}
		if counted || typ == event.TypeRejected {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return -1, fmt.Errorf("read %s/%d from offset %d on: %w", name, number, from, err)
	}
	if first != nil && name == a.Names.Rejected {
		return first.offset, nil
	}
	for _, w := range []*row{first, last} {
		if w == nil {
			break
		}
		ask, cancel := Uncut(ctx)
		var n uint64
		err := a.SQL.QueryRow(ask, "SELECT count() FROM "+a.Schema.Table(EventsTable)+
			" WHERE app_id = ? AND toDate(event_time) BETWEEN toDate(?) - 1 AND toDate(?) + 1 AND source_topic_id = ? AND source_partition = ? AND source_offset = ?",
			w.app, event.ToTime(w.at), event.ToTime(w.at), id, number, w.offset).Scan(&n)
		cancel()
		if err != nil {
			return -1, fmt.Errorf("look for a row of %s: %w", name, err)
		}
		if n == 0 {
			return w.offset, nil
		}
	}
	return -1, nil
}
