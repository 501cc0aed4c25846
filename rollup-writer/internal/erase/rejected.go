package erase

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/topic"
)

// tokens of a text that may be an id: JSON strings, and numbers.
var tokens = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|[0-9]+`)

// in reports whether a text, usually JSON, contains an erased id as a whole string or
// number.
func (f *Forgotten) in(text string) bool {
	for _, t := range tokens.FindAllString(text, -1) {
		if t[0] == '"' && json.Unmarshal([]byte(t), &t) != nil {
			t = strings.Trim(t, `"`)
		}
		if f.has(topic.KeyUser, t) || f.has(topic.KeyAnonymous, t) {
			return true
		}
	}
	return false
}

// Stripped is the result of StripRejected.
type Stripped struct {
	App      string `json:"app"`
	Looked   uint64 `json:"looked_at"` // rows that have their bytes
	Stripped uint64 `json:"stripped"`
}

// maxStripped bounds the rows of one statement.
const maxStripped = 2000

// StripRejected removes the bytes of events that gateways rejected of persons who were
// erased before: gateways do not know who was erased. The ids are compared by their
// hashes, so the caller need not know them either. It may be interrupted, and run again
// at any time.
func StripRejected(ctx context.Context, app string, dep Dependencies) (*Stripped, error) {
	f, err := ReadForgotten(ctx, dep.Kafka, dep.Names, dep.Codec, app)
	if err != nil {
		return nil, err
	}
	e := newEraser(Config{App: app}, dep)
	return f.strip(e.context(ctx), e)
}

// strip is StripRejected of the app of e.
func (f *Forgotten) strip(ctx context.Context, e *eraser) (*Stripped, error) {
	done := &Stripped{App: e.cfg.App}
	if len(f.sets) == 0 {
		return done, nil
	}
	for n, conn := range e.Shards {
		places, err := f.rejected(ctx, conn, e, done)
		if err != nil {
			return done, fmt.Errorf("look at rejected events of shard %d: %w", n, err)
		}
		for len(places) > 0 {
			some := places[:min(len(places), maxStripped)]
			places = places[len(some):]
			change := " UPDATE original = '', envelope = '', detail = '', message_id = '' WHERE " + e.app() +
				" AND (source_topic_id, source_partition, source_offset) IN (" + strings.Join(some, ", ") + ")"
			if err := e.SQL.Exec(ctx, e.Schema.Alter("rejected_events")+change); err != nil {
				return done, fmt.Errorf("strip rejected events: %w", err)
			}
			done.Stripped += uint64(len(some))
		}
	}
	return done, nil
}

// rejected returns the origins of the rows of a shard that contain an erased id, as SQL
// tuples.
func (f *Forgotten) rejected(ctx context.Context, conn driver.Conn, e *eraser, done *Stripped) (places []string, err error) {
	type row struct {
		id                 string
		partition          int32
		offset             int64
		original, envelope string
	}
	err = tables.Each(ctx, conn, func(r *row) []any { return []any{&r.id, &r.partition, &r.offset, &r.original, &r.envelope} }, func(r *row) {
		if done.Looked++; f.in(r.original) || f.in(r.envelope) {
			places = append(places, fmt.Sprintf("(%s, %d, %d)", clickhouse.Quote(r.id), r.partition, r.offset))
		}
	}, "SELECT toString(source_topic_id), source_partition, source_offset, original, envelope FROM "+e.Schema.Local("rejected_events")+
		" WHERE "+e.app()+" AND stage = 'gateway' AND (original != '' OR envelope != '')")
	return places, err
}
