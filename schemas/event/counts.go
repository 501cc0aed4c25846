package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// ControlCounts is the Control.Kind of what an enricher counted: its payload is
// Counts. It orders nothing and is no block of its own: it belongs to the block
// of rows that it stands in, behind all of the records that it counts.
const ControlCounts = "counts"

// Counts is the payload of a ControlCounts record: what a transaction took from
// one partition of raw, and what became of it. It is in that transaction, so it
// is exact whatever died. [First, Next) are the offsets that were taken; where a
// transaction writes several such records, all but the first have none.
type Counts struct {
	RawTopicID string `json:"raw_topic_id"`
	First      int64  `json:"first"`
	Next       int64  `json:"next"`
	Cells      []Cell `json:"cells"`
}

// Cell is the counts of an app in an hour of receipt. Every accepted event is in
// exactly one of the others.
type Cell struct {
	AppID      string `json:"app_id"`
	Hour       int64  `json:"hour"` // seconds since the Unix epoch
	Accepted   int64  `json:"accepted"`
	Stored     int64  `json:"stored,omitempty"`
	Duplicates int64  `json:"duplicates,omitempty"`
	Rejected   int64  `json:"rejected,omitempty"`
	OptedOut   int64  `json:"opted_out,omitempty"`
}

// Add adds the counts of o to those of c.
func (c *Cell) Add(o *Cell) {
	c.Accepted += o.Accepted
	c.Stored += o.Stored
	c.Duplicates += o.Duplicates
	c.Rejected += o.Rejected
	c.OptedOut += o.OptedOut
}

// MaxCells bounds a record; more than that is several records.
const MaxCells = 1000

// MaxReceived is the end of the instants of receipt that can be counted: those
// whose hour is a DateTime of ClickHouse, 32 bits of seconds.
const MaxReceived Micros = math.MaxUint32 / 3600 * 3600 * 1e6

// HourOf returns the start of the hour of receipt, in seconds since the epoch.
// An instant must be from 0 to MaxReceived, end excluded.
func HourOf(us Micros) int64 { return us / 3600e6 * 3600 }

// Validate reports what cannot be stored.
func (c *Counts) Validate() error {
	switch {
	case c.RawTopicID == "":
		return errors.New("raw_topic_id is empty")
	case c.First < 0 || c.Next < c.First:
		return fmt.Errorf("first and next are %d and %d", c.First, c.Next)
	case len(c.Cells) == 0 || len(c.Cells) > MaxCells:
		return fmt.Errorf("cells must hold 1 to %d (got %d)", MaxCells, len(c.Cells))
	}
	for i := range c.Cells {
		if h := c.Cells[i].Hour; h < 0 || h%3600 != 0 || h > math.MaxUint32 {
			return fmt.Errorf("cells[%d].hour is %d", i, h)
		}
	}
	return nil
}

// Payload returns c as a Control payload.
func (c *Counts) Payload() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("counts: %w", err)
	}
	return json.Marshal(c)
}

// ParseCounts reads a Control payload.
func ParseCounts(payload []byte) (Counts, error) {
	var c Counts
	if err := json.Unmarshal(payload, &c); err != nil {
		return Counts{}, fmt.Errorf("counts payload: %w", err)
	}
	if err := c.Validate(); err != nil {
		return Counts{}, fmt.Errorf("counts payload: %w", err)
	}
	return c, nil
}
