package rollup

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// signalsPause is the pause between two looks at the topics of alerts, signalRows how
// many rows are inserted at once.
const (
	signalsPause = time.Second
	signalRows   = 10_000
)

// signalCopy brings what `rollup-writer alerts` says into ClickHouse. As with the
// catalog, each writer does so by itself: rows of one key replace one another.
type signalCopy struct {
	s       *Service
	in      *reader.Reader
	topic   string
	table   string
	columns string // that row fills
	id      string // of the topic
	next    int64
	row     func(*kgo.Record) ([]any, error)
}

// followSignals copies what there is and what comes, until ctx ends. What cannot be
// copied does not hold up events.
func (s *Service) followSignals(ctx context.Context) error {
	in, err := s.reader()
	if err != nil {
		return err
	}
	defer in.Close()
	copies := []*signalCopy{
		{s: s, in: in, topic: topic.Alerts, table: "signal_log", row: signalRow, columns: signalColumns},
		{s: s, in: in, topic: topic.AlertState, table: "health_scores", row: healthRow, columns: healthColumns},
	}
	for _, c := range copies {
		if err := s.untilDone(ctx, "find where the copy of "+c.topic+" begins", c.start); err != nil {
			return nil // stopped
		}
	}
	for backoff.Sleep(ctx, signalsPause) == nil {
		for _, c := range copies {
			if err := s.untilDone(ctx, "copy "+c.topic, c.copy); err != nil {
				return nil // stopped
			}
		}
	}
	return nil
}

// start continues after what the table has of the topic as it is now.
func (c *signalCopy) start(ctx context.Context) error {
	infos, err := topic.Check(ctx, c.s.admin, c.topic)
	if err != nil {
		return err
	}
	c.id = infos[c.topic].ID.String()
	return c.s.sql.QueryRow(ctx, "SELECT toInt64(if(count() = 0, 0, max(log_offset) + 1)) FROM "+c.s.schema.Local(c.table)+" WHERE log_topic_id = ?", c.id).Scan(&c.next)
}

// copy writes what the topic holds beyond what was written.
func (c *signalCopy) copy(ctx context.Context) error {
	b, err := c.in.Bounds(ctx, c.topic, 0)
	if err != nil {
		return err
	}
	var rows [][]any
	write := func(next int64) error {
		if len(rows) > 0 {
			if err := c.s.insertRows(ctx, c.table, c.columns+", written_at, log_topic_id, log_offset", rows); err != nil {
				return fmt.Errorf("write %s: %w", c.table, err)
			}
		}
		rows, c.next = rows[:0], next
		return nil
	}
	next, err := c.in.Read(ctx, c.topic, 0, max(c.next, b.Start), b.End, func(r *kgo.Record) error {
		row, err := c.row(r)
		if err != nil {
			c.s.notCopied(r, err)
			return nil
		}
		if row == nil {
			return nil
		}
		rows = append(rows, append(row, r.Timestamp.UTC(), c.id, r.Offset))
		if len(rows) < signalRows {
			return nil
		}
		return write(r.Offset + 1)
	}, nil)
	if err != nil {
		return err
	}
	return write(max(c.next, next))
}

const signalColumns = "app_id, alert_id, message_id, signal_use, signal, band, version, state, level, subject, severity, owner, title, reason, playbook, closes, " +
	"value, limit_value, mean, at, valid_from, valid_to, silent, acted_by, feedback, note"

// signalRow of a record of the alerts log.
func signalRow(rec *kgo.Record) ([]any, error) {
	r, err := signal.Decode(rec.Value)
	if err != nil {
		return nil, err
	}
	return []any{
		r.App, r.AlertID, r.ID, r.Use, r.Signal, r.Band, r.Version, r.State, r.Level, r.Subject, r.Severity, r.Owner, r.Title, r.Reason, r.Playbook, r.Closes,
		r.Facts.Value, r.Facts.Limit, r.Facts.Mean, r.At, r.From, r.To, r.Silent, r.By, r.Feedback, r.Note,
	}, nil
}

const healthColumns = "app_id, health_id, account_id, version, owner, day, score, band, score_4w, score_12w, reason, consequence, priority, parts, removed"

// healthRow of a record of the state; nil of what is no score.
func healthRow(rec *kgo.Record) ([]any, error) {
	key := signal.Parts(string(rec.Key))
	if key[0] != signal.KeyHealth || len(key) != 4 {
		return nil, nil
	}
	if len(rec.Value) == 0 {
		return []any{key[1], key[2], key[3], uint32(0), "", time.Unix(0, 0).UTC(), 0.0, "", 0.0, 0.0, "", (*float64)(nil), 0.0, [][]any{}, true}, nil
	}
	h, err := signal.DecodeHealth(rec.Value)
	if err != nil {
		return nil, err
	}
	parts := make([][]any, len(h.Parts))
	for i, p := range h.Parts {
		parts[i] = []any{p.ID, p.Kind, p.Value, p.Yardstick, p.Weight, p.Share, p.Change, p.Sentence}
	}
	return []any{h.App, h.Health, h.Account, h.Version, h.Owner, h.Day, h.Score, h.Band, h.Score4, h.Score12, h.Reason, h.Consequence, h.Priority, parts, false}, nil
}
