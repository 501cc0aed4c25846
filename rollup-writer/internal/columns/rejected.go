package columns

import "github.com/uptakehq/uptake/schemas/event"

// Rejected is a block of the table rejected_events.
type Rejected struct {
	block

	appID, stage, code     dict
	field, detail          text
	messageID              text
	protocol               dict
	receivedAt, rejectedAt micros
	rawPartition           longs
	rawOffset              longs
	original               text
	route                  dict
	envelope               text
	topicID                dict
	partition              ints
	offset                 longs
}

// NewRejected returns an empty block.
func NewRejected() *Rejected {
	c := &Rejected{}
	c.add("app_id", &c.appID)
	c.add("stage", &c.stage)
	c.add("code", &c.code)
	c.add("field", &c.field)
	c.add("detail", &c.detail)
	c.add("message_id", &c.messageID)
	c.add("protocol", &c.protocol)
	c.add("received_at", &c.receivedAt)
	c.add("rejected_at", &c.rejectedAt)
	c.add("raw_partition", &c.rawPartition)
	c.add("raw_offset", &c.rawOffset)
	c.add("original", &c.original)
	c.add("route", &c.route)
	c.add("envelope", &c.envelope)
	c.add("source_topic_id", &c.topicID)
	c.add("source_partition", &c.partition)
	c.add("source_offset", &c.offset)
	return c
}

// EachApp calls fn with every app that rows are of, and how many.
func (c *Rejected) EachApp(fn func(app string, rows int)) { c.appID.each(fn) }

// Received is as for [Events].
func (c *Rejected) Received() (oldest, newest int64) { return c.receivedAt.bounds() }

// EachPlace is as for [Events].
func (c *Rejected) EachPlace(fn func(Place)) {
	for i, offset := range c.offset.ColInt64 {
		fn(Place{offset, c.receivedAt.Row(i)})
	}
}

// Pick is as for [Events].
func (c *Rejected) Pick(keep []bool) *Rejected {
	p := NewRejected()
	p.pick(&c.block, keep)
	return p
}

// Append adds a row.
func (c *Rejected) Append(src Source, offset int64, e *event.Rejected) {
	c.appID.appendString(e.AppID)
	c.stage.appendString(e.Stage)
	c.code.appendString(e.Code)
	c.field.appendString(e.Field)
	c.detail.appendString(e.Detail)
	c.messageID.appendString(e.MessageID)
	c.protocol.appendString(e.Protocol)
	c.receivedAt.appendLong(e.ReceivedAt)
	c.rejectedAt.appendLong(e.RejectedAt)
	c.rawPartition.appendLong(e.SourcePartition)
	c.rawOffset.appendLong(e.SourceOffset)
	c.original.appendBytes(e.Original)
	c.route.appendString(e.Route)
	c.envelope.appendBytes(e.Envelope)
	c.topicID.appendString(src.TopicID)
	c.partition.Append(src.Partition)
	c.offset.appendLong(offset)
}
