package repair

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/schemas/event"
)

// Recount stores again the counts that audit_blocks has lost, from the log as far as it
// still has them. It returns how many records of counts it stored. Writers may run:
// below the boundaries that they committed, audit_blocks is final. It may be run again
// at any time.
func Recount(ctx context.Context, cfg boundary.Config, log *slog.Logger) (stored int, err error) {
	err = withLog(ctx, cfg, log, func(s *session) error {
		r := &recounter{session: s}
		err := r.run(ctx)
		stored = r.stored
		return err
	})
	return stored, err
}

// recountRows bounds a block of counts.
const recountRows = 100_000

type recounter struct {
	*session
	stored int
}

// ranges are ranges of raw offsets that blocks count, by the id of the raw topic.
type ranges map[string][]span

// covers reports whether one of the ranges contains all of s.
func (r ranges) covers(id string, s span) bool {
	return slices.ContainsFunc(r[id], func(x span) bool { return x.next <= s.next && s.end <= x.end })
}

func (r *recounter) run(ctx context.Context) error {
	codec, err := r.cfg.Registry.Codec(ctx)
	if err != nil {
		return err
	}
	id := r.state.Topics[r.names.Enriched].ID.String()
	for _, n := range r.state.Topics[r.names.Enriched].Partitions.Numbers() {
		first, ok := r.state.First.Lookup(r.names.Enriched, n)
		commit, ok2 := r.state.Commits.Lookup(r.names.Enriched, n)
		if !ok || !ok2 || commit.Err != nil || first.Offset >= commit.At {
			continue // the log no longer has any of it
		}
		if err := r.partition(ctx, codec, columns.Source{TopicID: id, Partition: n}, first.Offset, commit.At); err != nil {
			return fmt.Errorf("%s/%d: %w", r.names.Enriched, n, err)
		}
	}
	return nil
}

func (r *recounter) partition(ctx context.Context, codec *event.Codec, src columns.Source, first, end int64) error {
	conn, err := clickhouse.NewConn(&r.cfg.ClickHouse, int(src.Partition)%len(r.cfg.ClickHouse.Shards()))
	if err != nil {
		return err
	}
	defer conn.Close()
	table := r.cfg.ClickHouse.Schema().Local(boundary.CountsTable)
	have, err := r.counted(ctx, conn, table, src)
	if err != nil {
		return err
	}
	rows, lost := columns.NewCounts(), false
	err = partitions(r.client).Span(ctx, r.names.Enriched, src.Partition, first, end, func(rec *kgo.Record) error {
		if typ, err := codec.Type(rec.Value); err != nil || typ != event.TypeControl {
			return nil //nolint:nilerr // records other than counts are not read here
		}
		var c event.Control
		if err := codec.DecodeControl(rec.Value, &c); event.Unwritten(err) || err == nil && c.Kind != event.ControlCounts {
			return nil // set aside, or something else
		} else if err != nil {
			return err
		}
		n, err := event.ParseCounts(c.Payload)
		if err != nil {
			return fmt.Errorf("offset %d: %w", rec.Offset, err)
		}
		if n.First < n.Next { // otherwise it belongs to the previous range
			lost = !have.covers(n.RawTopicID, span{n.First, n.Next})
		}
		if !lost {
			return nil
		}
		of := columns.CountsOf{
			Source: src, Offset: rec.Offset, CountedAt: uint32(rec.Timestamp.Unix()),
			RawTopicID: n.RawTopicID, First: n.First, Next: n.Next,
		}
		for i := range n.Cells {
			rows.Append(&of, &n.Cells[i])
		}
		r.stored++
		if rows.Rows() >= recountRows {
			return r.insert(ctx, conn, table, rows)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.insert(ctx, conn, table, rows)
}

// insert stores rows under a token of its own: the window may hold the token of the
// lost block.
func (r *recounter) insert(ctx context.Context, conn *clickhouse.Conn, table string, rows *columns.Counts) error {
	if rows.Rows() == 0 {
		return nil
	}
	if err := conn.Insert(ctx, table, rows, "recount|"+strconv.FormatInt(time.Now().UnixNano(), 10)); err != nil {
		return fmt.Errorf("insert counts: %w", err)
	}
	rows.Reset()
	return nil
}

// counted returns the ranges that audit_blocks has of a partition.
func (r *recounter) counted(ctx context.Context, conn *clickhouse.Conn, table string, src columns.Source) (ranges, error) {
	if r.cfg.ClickHouse.Schema().Form.Cluster != "" {
		if err := conn.Exec(ctx, "SYSTEM SYNC REPLICA "+table+" LIGHTWEIGHT"); err != nil {
			return nil, fmt.Errorf("sync replica of %s: %w", table, err)
		}
	}
	id := new(proto.ColStr).LowCardinality()
	var first, next proto.ColInt64
	have := ranges{}
	err := conn.Select(ctx, "SELECT DISTINCT raw_topic_id, raw_first, raw_next FROM "+table+
		" WHERE source_topic_id = "+clickhouse.Quote(src.TopicID)+" AND source_partition = "+strconv.Itoa(int(src.Partition)),
		proto.Results{{Name: "raw_topic_id", Data: id}, {Name: "raw_first", Data: &first}, {Name: "raw_next", Data: &next}}, func() error {
			for i := range id.Rows() {
				have[id.Row(i)] = append(have[id.Row(i)], span{first[i], next[i]})
			}
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	return have, nil
}
