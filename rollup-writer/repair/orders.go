package repair

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/rollup-writer/internal/erase"
	"github.com/uptakehq/uptake/rollup-writer/internal/plan"
	"github.com/uptakehq/uptake/rollup-writer/internal/rebuild"
	"github.com/uptakehq/uptake/schemas/event"
)

// orders puts back corrections whose rows and plan are both lost, from the control
// records in the log. Where a plan is whole, corrections are made again from it
// (package rebuild).
//
// A control record moves each row by itself (package plan), so the orders of the
// whole log can be followed at once, without the blocks that they stood in: an event
// of the log is moved by the orders after it, and what was counted before the log's
// start, by events and corrections that ClickHouse holds, by all of them. What comes
// out is what the corrections of each order must be.
//
// An order of which corrections holds nothing gets its rows. One of which it holds
// some is left alone: what is left of a person who was erased since cannot be told
// from rows that were lost.
func (r *rebuilder) orders(ctx context.Context, s *rebuild.Shard) error {
	codec, err := r.cfg.Registry.Codec(ctx)
	if err != nil {
		return err
	}
	forgotten, err := erase.ReadForgotten(ctx, r.client, r.names, codec, r.span.App)
	if err != nil {
		return fmt.Errorf("read who was erased: %w", err)
	}
	change := rebuild.Change{Shard: s.Number, Table: "corrections (from the log)"}
	var rows []rebuild.Corrected
	for _, n := range r.numbers(s) {
		first, ok := r.state.First.Lookup(r.names.Enriched, n)
		if !ok || first.Offset >= r.boundaries.At[n] {
			continue
		}
		lost, err := r.lostOf(ctx, s, codec, forgotten, n, first.Offset)
		if err != nil {
			return fmt.Errorf("%s/%d: %w", r.names.Enriched, n, err)
		}
		rows = append(rows, lost...)
	}
	for i := range rows {
		if rows[i].Events > 0 {
			change.Added += rows[i].Events
			change.Cells++
		}
	}
	r.report.Changes = append(r.report.Changes, change)
	if r.what.DryRun || len(rows) == 0 {
		return nil
	}
	return s.AddCorrections(ctx, r.span.App, rows)
}

// numbers are the partitions of a shard, in order.
func (r *rebuilder) numbers(s *rebuild.Shard) []int32 {
	var list []int32
	for n := range r.commits {
		if int(n)%len(r.shards) == s.Number {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list
}

// lostOf returns the rows of corrections that a partition lacks.
func (r *rebuilder) lostOf(ctx context.Context, s *rebuild.Shard, codec *event.Codec, forgotten *erase.Forgotten, n int32, first int64) ([]rebuild.Corrected, error) {
	skips, err := r.cfg.Skips()
	if err != nil {
		return nil, err
	}
	app, id, end := r.span.App, r.boundaries.TopicID, r.boundaries.At[n]
	planned, err := s.Planned(ctx, id, n)
	if err != nil {
		return nil, err
	}
	var orders plan.Orders
	at := map[int64]int64{} // append time in milliseconds, by offset
	lost := false
	err = r.records(ctx, codec, skips, n, first, end, event.TypeControl, func(rec *kgo.Record) error {
		var c event.Control
		if err := codec.DecodeControl(rec.Value, &c); err != nil || c.Kind != event.ControlMove || c.AppID != app {
			return err
		}
		m, err := event.ParseMoves(c.Payload)
		if err != nil {
			return fmt.Errorf("offset %d: %w", rec.Offset, err)
		}
		orders.Add(plan.Order{AppID: app, Offset: rec.Offset, ID: strings.Clone(c.ControlID), Moves: m.Moves})
		at[rec.Offset] = rec.Timestamp.UnixMilli()
		lost = lost || !planned.Has(rec.Offset)
		return nil
	})
	if err != nil || !lost {
		return nil, err
	}
	var pairs plan.Pairs
	err = s.Base(ctx, app, id, n, first, func(signed *columns.Signed) {
		if orders.Moved(app, signed.ActorID) {
			pairs.Follow(&orders, &plan.Row{AppID: app, From: plan.Base, Signed: *signed})
		}
	})
	if err != nil {
		return nil, err
	}
	one := columns.NewEvents()
	src := columns.Source{TopicID: id, Partition: n}
	var e event.EnrichedEvent
	err = r.records(ctx, codec, skips, n, first, end, event.TypeEnriched, func(rec *kgo.Record) error {
		if err := codec.DecodeEnriched(rec.Value, &e); err != nil {
			return fmt.Errorf("offset %d: %w: give the -skip-records that writers have", rec.Offset, err)
		}
		if e.AppID != app || !orders.Moved(app, e.ActorID) {
			return nil
		}
		one.Reset()
		one.Append(src, rec.Offset, &e)
		one.EachCounted(func(app string, offset, at int64, signed *columns.Signed) {
			row := plan.Row{AppID: app, From: offset, Signed: *signed}
			row.Part = orders.PartOf(plan.VisitorHour{AppID: app, AnonymousID: signed.AnonymousID, Hour: signed.Hour}, at)
			row.Attribution = cloned(&row.Attribution) // the strings are the block's
			pairs.Follow(&orders, &row)
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	held, err := s.CorrectedOrders(ctx, r.span, id, n, first, end)
	if err != nil {
		return nil, err
	}
	var list []rebuild.Corrected
	rows := map[int64]uint32{} // numbered by order
	for _, p := range pairs.List() {
		o := orders.At(p.Order)
		if planned.Has(o.Offset) || !r.span.Holds(event.ToTime(int64(p.Hour)*1_000_000)) {
			continue
		}
		forgotten.ScrubAttribution(&p.Old)
		forgotten.ScrubAttribution(&p.New)
		if p.Old == p.New || held[o.Offset] {
			continue
		}
		for _, signed := range []columns.Signed{
			{Attribution: p.Old, Hour: p.Hour, Part: p.Part, Events: -p.Events, Quantity: -p.Quantity},
			{Attribution: p.New, Hour: p.Hour, Part: p.Part, Events: p.Events, Quantity: p.Quantity},
		} {
			rows[o.Offset]++
			list = append(list, rebuild.Corrected{
				Signed: signed, Row: rows[o.Offset],
				Control: columns.Control{Source: src, AppID: app, Offset: o.Offset, ID: o.ID, Kind: event.ControlMove, Block: o.Offset, CorrectedAt: at[o.Offset]},
			})
		}
	}
	return list, nil
}

// records calls fn with the records of one type of a span of enriched.
func (r *rebuilder) records(ctx context.Context, codec *event.Codec, skips map[boundary.Place]bool, n int32, from, to int64, typ event.Type, fn func(*kgo.Record) error) error {
	return partitions(r.client).Span(ctx, r.names.Enriched, n, from, to, func(rec *kgo.Record) error {
		if skips[boundary.Place{Topic: r.names.Enriched, Partition: n, Offset: rec.Offset}] {
			return nil
		}
		if t, err := codec.Type(rec.Value); err != nil || t != typ {
			return nil //nolint:nilerr // what cannot be read was reported before this
		}
		if err := fn(rec); !event.Unwritten(err) {
			return err
		}
		return nil // set aside
	})
}

// cloned is a with strings of its own.
func cloned(a *columns.Attribution) columns.Attribution {
	out := *a
	for i := range columns.AttributionColumns {
		v := columns.AttributionColumns[i].Of(&out)
		*v = strings.Clone(*v)
	}
	return out
}
