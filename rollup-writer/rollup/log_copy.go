package rollup

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// copyPause is the pause between two looks at a topic that is copied, copyRows how many
// rows are inserted at once.
const (
	copyPause = time.Second
	copyRows  = 10_000
)

// logCopy brings the records of a small topic of one partition into ClickHouse. As with
// the catalog, each writer does so by itself: rows of one key replace one another.
type logCopy struct {
	topic   string
	table   string
	columns string                           // that row fills
	row     func(*kgo.Record) ([]any, error) // nil without an error: the record has no row
	// versioned: the table has a column version, and of the rows of a key the one with
	// the highest version counts, which is the newest in the log.
	versioned bool

	s          *Service
	in         *reader.Reader
	id         string // of the topic
	generation uint64 // how many topics of this name there were before, if versioned
	next       int64
}

// followLogs copies what the topics hold and what comes, until ctx ends.
func (s *Service) followLogs(ctx context.Context, copies ...*logCopy) error {
	in, err := s.reader()
	if err != nil {
		return err
	}
	defer in.Close()
	for _, c := range copies {
		c.s, c.in = s, in
		if err := s.untilDone(ctx, "find where the copy of "+c.topic+" begins", c.start); err != nil {
			return nil // stopped
		}
	}
	for backoff.Sleep(ctx, copyPause) == nil {
		for _, c := range copies {
			if err := s.untilDone(ctx, "copy "+c.topic, c.copy); err != nil {
				return nil // stopped
			}
		}
	}
	return nil
}

// start continues after what the table has of the topic as it is now.
func (c *logCopy) start(ctx context.Context) error {
	infos, err := c.s.names.Check(ctx, c.s.admin, c.topic)
	if err != nil {
		return err
	}
	c.id = infos[c.topic].ID.String()
	if err := c.s.sql.QueryRow(ctx, "SELECT toInt64(if(count() = 0, 0, max(log_offset) + 1)) FROM "+c.s.schema.Local(c.table)+" WHERE log_topic_id = ?", c.id).Scan(&c.next); err != nil || !c.versioned {
		return err
	}
	// All writers compute the same number for a topic, whichever comes first.
	return c.s.sql.QueryRow(ctx, fmt.Sprintf("SELECT if(countIf(log_topic_id = ?) > 0, bitShiftRight(maxIf(version, log_topic_id = ?), %d), if(count() = 0, 0, bitShiftRight(max(version), %d) + 1)) FROM %s",
		generationShift, generationShift, c.s.schema.Table(c.table)), c.id, c.id).Scan(&c.generation)
}

// generationShift leaves 48 bits to offsets.
const generationShift = 48

// copy writes what the topic holds beyond what was written.
func (c *logCopy) copy(ctx context.Context) error {
	b, err := c.in.Bounds(ctx, c.topic, 0)
	if err != nil {
		return err
	}
	columns := c.columns + ", written_at, log_topic_id, log_offset"
	if c.versioned {
		columns += ", version"
	}
	var rows [][]any
	write := func(next int64) error {
		if len(rows) > 0 {
			if err := c.s.insertRows(ctx, c.table, columns, rows); err != nil {
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
		row = append(row, r.Timestamp.UTC(), c.id, r.Offset)
		if c.versioned {
			row = append(row, c.generation<<generationShift|uint64(r.Offset))
		}
		rows = append(rows, row)
		if len(rows) < copyRows {
			return nil
		}
		return write(r.Offset + 1)
	}, nil)
	if err != nil {
		return err
	}
	return write(max(c.next, next))
}
