package rollup

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/rollup-writer/internal/plan"
	"github.com/uptakehq/uptake/schemas/event"
)

// A move by instants cuts what a visitor did in an hour, and the base rollup knows
// hours only. Rows of which that makes a difference are held back while the base
// is read. Then the
// hours' events are read from events, each is led through the corrections so far,
// and in place of a row its parts are followed. The parts of a row must add up to
// it. If they do not, since events of the hour have expired, the row is followed
// whole: the start of its hour decides, which is for the earlier link. That is
// counted, and the plan says so for people.
//
// Nothing of the block is in events, corrections or the base while it is planned,
// so all three tell of the same records.

// maxHeld bounds the rows that are held back, which are in memory; beyond it rows
// are followed whole.
const maxHeld = chunkRows

// held are rows of hours that are cut, by what they are counted for.
type held map[plan.VisitorHour]map[columns.Attribution]*heldRow

type heldRow struct {
	order            int // that cuts the hour
	events, quantity int64
	parts            map[columns.Part]*columns.Signed
}

// hold keeps a row of the base back if its parts end in different places.
func (m *planMaker) hold(r *plan.Row) bool {
	order, is := m.orders.Splits(r)
	if !is {
		return false
	}
	v := plan.VisitorHour{AppID: r.AppID, AnonymousID: r.AnonymousID, Hour: r.Hour}
	if m.heldRows >= maxHeld {
		m.whole(v, order, r.Events)
		return false
	}
	m.heldRows++
	if m.held == nil {
		m.held = held{}
	}
	if m.held[v] == nil {
		m.held[v] = map[columns.Attribution]*heldRow{}
	}
	m.held[v][r.Attribution] = &heldRow{order: order, events: r.Events, quantity: r.Quantity}
	return true
}

// followHeld follows the rows that were held back, in parts.
func (m *planMaker) followHeld(ctx context.Context) error {
	if len(m.held) == 0 {
		return nil
	}
	if err := m.p.readable(ctx, "events", "corrections"); err != nil {
		return err
	}
	among := m.amongHeld()
	moves, err := m.earlierMoves(ctx, among)
	if err != nil {
		return err
	}
	if err := m.readParts(ctx, among, moves); err != nil {
		return err
	}
	for v, rows := range m.held {
		for a, h := range rows {
			if err := m.followParts(ctx, v, &a, h); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *planMaker) followParts(ctx context.Context, v plan.VisitorHour, a *columns.Attribution, h *heldRow) error {
	row := plan.Row{AppID: v.AppID, From: plan.Base, Signed: columns.Signed{Attribution: *a, Hour: v.Hour, Events: h.events, Quantity: h.quantity}}
	var events, quantity int64
	for _, s := range h.parts {
		events += s.Events
		quantity += s.Quantity
	}
	if events != h.events || quantity != h.quantity {
		m.whole(v, h.order, h.events)
		return m.follow(ctx, &row)
	}
	for part, s := range h.parts {
		r := row
		r.Part, r.Events, r.Quantity = part, s.Events, s.Quantity
		if err := m.follow(ctx, &r); err != nil {
			return err
		}
	}
	return nil
}

// wholeHour tells people of an hour that a link cuts and that stays whole.
type wholeHour struct {
	Kind   string `json:"kind"` // whole_hour
	IDKind string `json:"id_kind"`
	ID     string `json:"id"`
	Hour   uint32 `json:"hour"`
	Events int64  `json:"events"` // of one attribution in the hour
}

// whole notes that events of a visitor's hour are followed whole.
func (m *planMaker) whole(v plan.VisitorHour, order int, events int64) {
	b, err := json.Marshal(wholeHour{"whole_hour", event.ActorAnonymous, v.AnonymousID, v.Hour, events})
	if err != nil {
		panic(err) // cannot happen: only strings and numbers are encoded
	}
	m.wholes = append(m.wholes, reason{order, string(b)})
}

// reason is a text for people about an order.
type reason struct {
	order int
	text  string
}

// heldTable is the table of the visitors' hours that are read from events.
const heldTable = "visitor_hours"

// amongHeld is that table, and what selects its rows without it: apps and days,
// by which events is sorted.
func (m *planMaker) amongHeld() (q clickhouse.Question) {
	apps := map[string]bool{}
	var app, id proto.ColStr
	var hour proto.ColUInt32
	for v := range m.held {
		apps[clickhouse.Quote(v.AppID)] = true
		app.Append(v.AppID)
		id.Append(v.AnonymousID)
		hour.Append(v.Hour)
	}
	q.Among, q.AmongRows = heldTable, proto.Input{{Name: "app_id", Data: &app}, {Name: "anonymous_id", Data: &id}, {Name: "hour", Data: &hour}}
	q.Settings = map[string]string{"max_threads": "1"}
	q.Query = " WHERE app_id IN (" + strings.Join(slices.Sorted(maps.Keys(apps)), ", ") + ") AND source_topic_id = " + clickhouse.Quote(m.control.TopicID) +
		" AND source_partition = " + strconv.Itoa(int(m.p.number)) + " AND anonymous_id IN (SELECT anonymous_id FROM " + heldTable + ")"
	return q
}

// earlierMove is a pair of corrections.
type earlierMove struct {
	offset   int64
	part     columns.Part
	old, new *columns.Attribution // of new only what is counted for the visitor
}

// earlierMoves reads the corrections of the visitors' hours, in the order of the
// log.
func (m *planMaker) earlierMoves(ctx context.Context, among clickhouse.Question) (map[plan.VisitorHour][]*earlierMove, error) {
	type pairKey struct {
		block int64
		pair  uint32
	}
	moves, pairs := map[plan.VisitorHour][]*earlierMove{}, map[pairKey]*earlierMove{}
	var r signedRows
	var block proto.ColInt64
	results := append(r.planned(), proto.ResultColumn{Name: "block", Data: &block})
	among.Query = "SELECT " + plannedColumns + ", block FROM " + m.p.table("corrections") + among.Query +
		" AND hour IN (SELECT toDateTime(hour, 'UTC') FROM " + heldTable + ") AND (app_id, anonymous_id, toUInt32(hour)) IN " + heldTable
	_, err := m.p.conn.Ask(ctx, among, results, func() error {
		for i := range r.hour.Rows() {
			s, row := r.row(i), r.number.Row(i)
			k := pairKey{block.Row(i), (row + 1) / 2}
			move := pairs[k]
			if move == nil {
				move = &earlierMove{offset: r.offset.Row(i), part: s.Part}
				pairs[k] = move
				v := plan.VisitorHour{AppID: r.app.Row(i), AnonymousID: s.AnonymousID, Hour: s.Hour}
				moves[v] = append(moves[v], move)
			}
			if row%2 == 1 {
				move.old = &s.Attribution
			} else {
				move.new = &s.Attribution
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read corrections of hours that links cut: %w", err)
	}
	for _, list := range moves {
		slices.SortFunc(list, func(a, b *earlierMove) int { return int(min(1, max(-1, a.offset-b.offset))) })
	}
	return moves, nil
}

// now is what an event counts for after the moves; nil: not for the visitor.
func now(moves []*earlierMove, offset, at int64, a *columns.Attribution) *columns.Attribution {
	for _, m := range moves {
		if m.offset > offset && m.old != nil && *m.old == *a && m.part.Has(at) {
			if a, offset = m.new, m.offset; a == nil {
				return nil
			}
		}
	}
	return a
}

// readParts reads the events of the visitors' hours into the parts of the rows
// that were held back.
func (m *planMaker) readParts(ctx context.Context, among clickhouse.Question, moves map[plan.VisitorHour][]*earlierMove) error {
	var r signedRows
	var at proto.ColInt64
	results := append(r.planned(), proto.ResultColumn{Name: "at", Data: &at})
	days := map[string]bool{}
	least, most := uint32(0), uint32(0)
	for v := range m.held {
		days[time.Unix(int64(v.Hour), 0).UTC().Format("'2006-01-02'")] = true
		most = max(most, v.Hour)
		if least == 0 || v.Hour < least {
			least = v.Hour
		}
	}
	among.Query = `SELECT toUInt32(1) AS row, e.app_id AS app_id, e.source_offset AS source_offset, '' AS control_id, toStartOfHour(toDateTime(e.event_time, 'UTC')) AS hour,
	toDateTime64(0, 6, 'UTC') AS part_from, toDateTime64(0, 6, 'UTC') AS part_to, e.account_id AS account_id, e.account_source AS account_source,
	e.actor_id AS actor_id, e.actor_kind AS actor_kind, e.linked_user_id AS user_id, e.anonymous_id AS anonymous_id, e.feature_id AS feature_id, e.module_id AS module_id,
	e.product_id AS product_id, e.role AS role, e.event AS event, toInt64(1) AS events, e.quantity AS quantity, toUnixTimestamp64Micro(e.event_time) AS at
FROM (SELECT * FROM ` + m.p.table("events") + among.Query + " AND kind IN " + usageKinds + " AND user_id = '' AND toDate(event_time) IN (" + strings.Join(slices.Sorted(maps.Keys(days)), ", ") + ")" +
		fmt.Sprintf(" AND event_time >= toDateTime64(%d, 6, 'UTC') AND event_time < toDateTime64(%d, 6, 'UTC')", least, most+3600) +
		" AND (app_id, anonymous_id, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC')))) IN " + heldTable + ") AS e"
	read, err := m.p.conn.Ask(ctx, among, results, func() error {
		for i := range r.hour.Rows() {
			s := r.row(i)
			v := plan.VisitorHour{AppID: r.app.Row(i), AnonymousID: s.AnonymousID, Hour: s.Hour}
			a := now(moves[v], r.offset.Row(i), at.Row(i), &s.Attribution)
			if a == nil {
				continue
			}
			h := m.held[v][*a]
			if h == nil {
				continue
			}
			if h.parts == nil {
				h.parts = map[columns.Part]*columns.Signed{}
			}
			part := m.orders.PartOf(v, at.Row(i))
			if h.parts[part] == nil {
				h.parts[part] = &columns.Signed{}
			}
			h.parts[part].Events++
			h.parts[part].Quantity += s.Quantity
		}
		return nil
	})
	m.p.s.metrics.correctionRead.Add(float64(read))
	if err != nil {
		return fmt.Errorf("read events of hours that links cut: %w", err)
	}
	return nil
}

// usageKinds of events count; the view usage_hourly_from_events says the same.
const usageKinds = "('track', 'page', 'screen', 'api_call')"
