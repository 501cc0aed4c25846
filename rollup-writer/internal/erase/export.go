package erase

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
)

// Exported is a line of an export, in JSON. The first line says whose data follow, the
// last one how many lines there are: an export without it was cut short.
type Exported struct {
	// In is where the line's data are: person (the first line), a table or view of
	// ClickHouse, the topic of identity state or of the state of alerts, kafka (a topic that keeps records until a
	// time; its records are not read), or end.
	In string `json:"in"`

	App          string     `json:"app,omitempty"`
	Users        []string   `json:"users,omitempty"`
	AnonymousIDs []string   `json:"anonymous_ids,omitempty"`
	Shared       []string   `json:"shared_anonymous_ids,omitempty"` // others' too; what was moved from them is the person's
	At           *time.Time `json:"at,omitempty"`

	// Row is a row of In by its columns, or the record of identity state.
	Row json.RawMessage `json:"row,omitempty"`
	// OfAnother: the row is another user's and names an id of the person; Row has the
	// row's place and these ids alone.
	OfAnother bool     `json:"of_another_user,omitempty"`
	Topic     *Holding `json:"topic,omitempty"`
	Lines     uint64   `json:"lines,omitempty"` // before the last line
}

// Export writes all that is held of the person that cfg, which is valid, names: the rows
// of every table that an erasure would change or delete, and of the views that show them,
// and the records of identity state. It changes nothing.
func Export(ctx context.Context, cfg Config, dep Dependencies, w io.Writer) (lines uint64, err error) {
	e := newEraser(cfg, dep)
	ctx = e.context(ctx)
	if err := e.open(ctx); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.closeList(ctx)) }()
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	put := func(x *Exported) error {
		lines++
		if err := out.Encode(x); err != nil {
			return fmt.Errorf("write export: %w", err)
		}
		return nil
	}
	now := time.Now().UTC().Truncate(time.Second)
	err = put(&Exported{
		In: "person", App: cfg.App, Users: slices.Sorted(maps.Keys(e.list.users)), AnonymousIDs: slices.Sorted(maps.Keys(e.list.anonymous)),
		Shared: slices.Sorted(maps.Keys(e.list.shared)), At: &now,
	})
	if err != nil {
		return lines, err
	}
	places, err := e.places(ctx)
	if err != nil {
		return lines, err
	}
	for _, p := range places {
		if err := e.exportRows(ctx, &p, put); err != nil {
			return lines, fmt.Errorf("export rows of %s: %w", p.name, err)
		}
	}
	var failed error
	err = e.changelog(ctx, func(rec *event.IdentityState) {
		if failed == nil && e.named(rec) {
			failed = put(&Exported{In: e.Names.EnricherState, Row: stateRow(rec)})
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return lines, err
	}
	states, err := e.signalStates(ctx)
	if err != nil {
		return lines, err
	}
	for _, key := range slices.Sorted(maps.Keys(states)) {
		parts := strings.SplitN(key, "\x00", 5)
		row, err := json.Marshal(map[string]any{"use": parts[2], "signal": parts[3], "user": parts[4], "state": json.RawMessage(states[key].Value)})
		if err != nil {
			return lines, fmt.Errorf("state of alerts, %q: %w", key, err)
		}
		if err := put(&Exported{In: e.Names.AlertState, Row: row}); err != nil {
			return lines, err
		}
	}
	holdings, err := e.holdings(ctx, now)
	if err != nil {
		return lines, err
	}
	for i := range holdings {
		if err := put(&Exported{In: "kafka", Topic: &holdings[i]}); err != nil {
			return lines, err
		}
	}
	return lines, put(&Exported{In: "end", Lines: lines})
}

// exportRows writes the rows of a place, those of the person with all columns.
func (e *eraser) exportRows(ctx context.Context, p *place, put func(*Exported) error) error {
	own := p.where(&e.list)
	if p.theirs != nil {
		own += " AND " + p.theirs(&e.list)
		// The other rows: another user's.
		place := map[string]string{
			"events":        "event_time, source_partition, source_offset, if(anonymous_id IN " + e.list.of(kindAnonymous) + ", anonymous_id, '') AS anonymous_id, if(previous_id IN " + e.list.of(kindUser, kindAnonymous) + ", previous_id, '') AS previous_id",
			"metric_values": "event, period_start, period_end, anonymous_id",
		}[p.name]
		rest := "SELECT " + place + " FROM " + p.table + " WHERE " + e.app() + " AND " + p.where(&e.list) + " AND NOT (" + p.theirs(&e.list) + ")"
		if err := e.exportQuery(ctx, rest, func(row json.RawMessage) error { return put(&Exported{In: p.name, Row: row, OfAnother: true}) }); err != nil {
			return err
		}
	}
	return e.exportQuery(ctx, "SELECT * FROM "+p.table+" WHERE "+e.app()+" AND "+own,
		func(row json.RawMessage) error { return put(&Exported{In: p.name, Row: row}) })
}

// exportQuery calls put with each row of a query as a JSON object.
func (e *eraser) exportQuery(ctx context.Context, query string, put func(json.RawMessage) error) error {
	var failed error
	err := tables.Each(ctx, e.SQL, func(s *string) []any { return []any{s} }, func(s *string) {
		if failed == nil {
			failed = put(json.RawMessage(*s))
		}
	}, "SELECT formatRowNoNewline('JSONEachRow', *) FROM ("+query+") SETTINGS output_format_json_quote_64bit_integers = 0")
	return errors.Join(err, failed)
}

// stateRow is a record of identity state as JSON. Bodies are JSON themselves.
func stateRow(rec *event.IdentityState) json.RawMessage {
	row := struct {
		Kind         string          `json:"kind"`
		ID           string          `json:"id"`
		Other        string          `json:"other,omitempty"`
		Relation     string          `json:"relation,omitempty"`
		Since        *time.Time      `json:"since,omitempty"`
		Call         string          `json:"call,omitempty"`
		MessageID    string          `json:"message_id,omitempty"`
		RecordedAt   *time.Time      `json:"recorded_at,omitempty"`
		RawPartition int64           `json:"raw_partition"`
		RawOffset    int64           `json:"raw_offset"`
		Body         json.RawMessage `json:"body,omitempty"`
	}{
		Kind: rec.Kind, ID: rec.ID, Other: rec.Other, Relation: rec.Relation, Since: instant(rec.Since), Call: rec.Call, MessageID: rec.MessageID,
		RecordedAt: instant(rec.RecordedAt), RawPartition: rec.RawPartition, RawOffset: rec.RawOffset,
	}
	switch {
	case json.Valid(rec.Body):
		row.Body = rec.Body
	case utf8.Valid(rec.Body) && len(rec.Body) > 0:
		row.Body, _ = json.Marshal(string(rec.Body)) // cannot fail: a string
	case len(rec.Body) > 0:
		row.Body, _ = json.Marshal(base64.StdEncoding.EncodeToString(rec.Body)) // cannot fail: a string
	}
	b, err := json.Marshal(row)
	if err != nil {
		panic(err) // cannot happen: strings, numbers, and a body that is valid JSON
	}
	return b
}

func instant(at event.Micros) *time.Time {
	if at == 0 {
		return nil
	}
	t := event.ToTime(at)
	return &t
}
