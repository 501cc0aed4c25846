package columns

import "github.com/uptakehq/uptake/schemas/event"

// CountsOf says what a row of counts is about.
type CountsOf struct {
	Source
	Offset     int64  // of the last record of counts in the block
	CountedAt  uint32 // seconds since the epoch
	RawTopicID string
	First      int64 // offsets of raw that the block counts
	Next       int64
}

// Counts is a block of the table audit_blocks.
type Counts struct {
	block

	appID                       dict
	hour                        seconds
	accepted, stored            longs
	duplicates, rejected, opted longs
	rawTopicID                  dict
	first, next                 longs
	topicID                     dict
	partition                   ints
	offset                      longs
	countedAt                   seconds
}

// NewCounts returns an empty block.
func NewCounts() *Counts {
	c := &Counts{}
	c.add("app_id", &c.appID)
	c.add("hour", &c.hour)
	c.add("accepted", &c.accepted)
	c.add("stored", &c.stored)
	c.add("duplicates", &c.duplicates)
	c.add("rejected", &c.rejected)
	c.add("opted_out", &c.opted)
	c.add("raw_topic_id", &c.rawTopicID)
	c.add("raw_first", &c.first)
	c.add("raw_next", &c.next)
	c.add("source_topic_id", &c.topicID)
	c.add("source_partition", &c.partition)
	c.add("source_offset", &c.offset)
	c.add("counted_at", &c.countedAt)
	return c
}

// Append adds a row.
func (c *Counts) Append(of *CountsOf, cell *event.Cell) {
	c.appID.appendString(cell.AppID)
	c.hour.Append(uint32(cell.Hour))
	c.accepted.appendLong(cell.Accepted)
	c.stored.appendLong(cell.Stored)
	c.duplicates.appendLong(cell.Duplicates)
	c.rejected.appendLong(cell.Rejected)
	c.opted.appendLong(cell.OptedOut)
	c.rawTopicID.appendString(of.RawTopicID)
	c.first.appendLong(of.First)
	c.next.appendLong(of.Next)
	c.topicID.appendString(of.TopicID)
	c.partition.Append(of.Partition)
	c.offset.appendLong(of.Offset)
	c.countedAt.Append(of.CountedAt)
}
