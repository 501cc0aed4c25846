package enrich

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/dedup"
	"github.com/uptakehq/uptake/schemas/event"
)

// output holds the records that a worker produces in one transaction, and the memory of
// their values: chunks that are reused once the transaction has ended, when the client
// no longer refers to them.
type output struct {
	codec *event.Codec

	values [][]byte // chunks; values[:at] are full
	at     int

	records [][]kgo.Record
	used    int // of all records

	enriched, state *kgo.Record // the last records for the worker's partition of these topics
}

const (
	valueChunk  = 256 << 10
	recordChunk = 512

	// keepChunks bounds the memory of values that is kept between transactions.
	keepChunks = 64
)

func (o *output) init(codec *event.Codec) { o.codec = codec }

// reset frees all records and values.
func (o *output) reset() {
	if len(o.values) > keepChunks {
		clear(o.values[keepChunks:])
		o.values = o.values[:keepChunks]
	}
	for i := range o.values {
		o.values[i] = o.values[i][:0]
	}
	o.at, o.used, o.enriched, o.state = 0, 0, nil, nil
}

// room returns an empty slice to append a value of about n bytes to; keep stores the
// result. A value that outgrew its chunk has memory of its own.
func (o *output) room(n int) []byte {
	for o.at < len(o.values) {
		c := o.values[o.at]
		if cap(c)-len(c) >= n {
			return c[len(c):len(c):cap(c)]
		}
		o.at++
	}
	o.values = append(o.values, make([]byte, 0, max(n, valueChunk)))
	return o.values[o.at]
}

func (o *output) keep(v []byte) []byte {
	c := o.values[o.at]
	if free := c[len(c):cap(c)]; len(v) > 0 && len(v) <= len(free) && &v[0] == &free[:1][0] {
		o.values[o.at] = c[:len(c)+len(v)]
		return v[:len(v):len(v)]
	}
	return v
}

// record returns a zero record, which lives until reset.
func (o *output) record() *kgo.Record {
	chunk, i := o.used/recordChunk, o.used%recordChunk
	if chunk == len(o.records) {
		o.records = append(o.records, make([]kgo.Record, recordChunk))
	}
	o.used++
	r := &o.records[chunk][i]
	*r = kgo.Record{}
	return r
}

// unknown is the offset after a record that does not exist.
const unknown = dedup.Unknown

// next returns the offset after r, once the transaction was flushed. It is unknown when
// r is nil, or when a broker answered that it already had the record.
func next(r *kgo.Record) int64 {
	if r == nil || r.Offset < 0 {
		return unknown
	}
	return r.Offset + 1
}
