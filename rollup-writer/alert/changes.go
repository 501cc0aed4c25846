package alert

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/alert/evaluate"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// Within an hour no window moves: values change only where the log has something. So a
// round evaluates the subjects that are named between the writers' positions of the
// round before and its own, and all subjects if something else may have changed; see
// DESIGN.md. Why a round evaluates all subjects:
const (
	allStart       = "start"       // the first round of this process
	allHour        = "hour"        // windows have moved
	allDefinitions = "definitions" // of signals, also by another evaluator
	allExclusions  = "exclusions"
	allTables      = "tables"  // rebuilt or restored, or another topic
	allLog         = "log"     // the range is not in the log
	allMany        = "many"    // so many have changed that it costs less
	allUnread      = "unread"  // the range has a record that cannot be read
	allDelayed     = "delayed" // a signal was not evaluated in the round before
)

const (
	// A part of 1/maxShare of the subjects, and fewSubjects in any case, is evaluated
	// by itself.
	maxShare    = 4
	fewSubjects = 1000
	// maxRecords of the log are read for a round. Reading them costs 1 to 2 s.
	maxRecords = 1_000_000
)

// position is how far the writers have come.
type position struct {
	next map[int32]int64         // offset of enriched by partition
	log  map[int32]reader.Bounds // what enriched holds
	// tables is equal as long as nothing but the log changes the tables.
	tables string
	// sum grows with the progress of enrichers and writers.
	sum int64
}

// scope is a part of an app's subjects.
type scope struct{ accounts, users map[string]struct{} }

func newScope() *scope { return &scope{map[string]struct{}{}, map[string]struct{}{}} }

// of returns the subjects of a level.
func (c *scope) of(level string) map[string]struct{} {
	if level == insight.LevelUser {
		return c.users
	}
	return c.accounts
}

// add adds a subject of which the level is not known.
func (c *scope) add(id string) {
	c.accounts[id], c.users[id] = struct{}{}, struct{}{}
}

func (c *scope) has(id string) bool {
	_, account := c.accounts[id]
	_, user := c.users[id]
	return account || user
}

// change is what a range of the log says of an app.
type change struct {
	*scope
	moves map[int32]reader.Bounds // the offsets of its moves, by partition
	limit int
}

// name adds ids that a record names, which are of its value's memory.
func (c *change) name(set map[string]struct{}, id string) {
	if id == "" {
		return
	}
	if _, ok := set[id]; !ok {
		set[strings.Clone(id)] = struct{}{}
	}
}

// base is what the last round evaluated.
type base struct {
	hour  evaluate.Tick
	rules string
	position
	delayed bool
	apps    map[string]*appBase
}

// appBase is of one app.
type appBase struct {
	subjects   int // as many as have data
	exclusions exclusions
	accountOf  map[string]string // of users, if any signal is about users
}

// errAll ends the reading of changes: all subjects are to be evaluated.
var errAll = errors.New("all subjects are evaluated")

// changes returns what the log says between the last round and the positions of this
// one, by app; or why all subjects must be evaluated.
func (s *Service) changes(ctx context.Context, hour evaluate.Tick, rules string, now position) (all map[string]*change, why string, err error) {
	b := s.base
	switch {
	case b == nil:
		return nil, allStart, nil
	case b.delayed:
		return nil, allDelayed, nil
	case b.hour != hour:
		return nil, allHour, nil
	case b.rules != rules:
		return nil, allDefinitions, nil
	case b.tables != now.tables:
		return nil, allTables, nil
	}
	records := int64(0)
	for p, to := range now.next {
		from, ok := b.next[p]
		if bounds := now.log[p]; !ok || to < from || (to > from && (from < bounds.Start || to > bounds.End)) {
			return nil, allLog, nil
		}
		records += to - from
	}
	if records > maxRecords {
		return nil, allMany, nil
	}
	all = map[string]*change{}
	for _, p := range slices.Sorted(maps.Keys(now.next)) {
		if from, to := b.next[p], now.next[p]; to > from {
			err = s.memory.read.Span(ctx, s.names.Enriched, p, from, to, func(rec *kgo.Record) (err error) {
				why, err = s.takeChange(all, p, rec)
				return err
			})
		}
		switch {
		case errors.Is(err, errAll):
			return nil, why, nil
		case err != nil:
			return nil, "", err
		}
	}
	return all, "", nil
}

// takeChange adds what a record of enriched says. With errAll it returns why.
func (s *Service) takeChange(all map[string]*change, partition int32, rec *kgo.Record) (why string, err error) {
	of := func(app string) *change {
		c, b := all[app], s.base.apps[app]
		if c == nil && b != nil {
			c = &change{scope: newScope(), moves: map[int32]reader.Bounds{}, limit: max(fewSubjects, b.subjects/maxShare)}
			all[strings.Clone(app)] = c
		}
		return c // nil: the app has no signals
	}
	kind, err := s.codec.Type(rec.Value)
	switch {
	case err == nil && kind == event.TypeEnriched:
		var e event.EnrichedEvent
		if err = s.codec.DecodeEnriched(rec.Value, &e); err != nil {
			break
		}
		c := of(e.AppID)
		if c == nil {
			return "", nil
		}
		c.name(c.accounts, e.AccountID)
		if e.ActorKind == event.ActorUser {
			c.name(c.users, e.ActorID)
		}
		if e.Kind == event.KindIdentify || e.Kind == event.KindGroup {
			c.name(c.users, e.UserID)
		}
		if max(len(c.accounts), len(c.users)) > c.limit {
			return allMany, errAll
		}
		return "", nil
	case err == nil && kind == event.TypeControl:
		var control event.Control
		if err = s.codec.DecodeControl(rec.Value, &control); err != nil {
			break
		}
		if control.Kind != event.ControlMove {
			return "", nil
		}
		if c := of(control.AppID); c != nil {
			b, ok := c.moves[partition]
			if !ok {
				b.Start = rec.Offset
			}
			b.End = rec.Offset + 1
			c.moves[partition] = b
		}
		return "", nil
	}
	if event.Unwritten(err) {
		return "", nil // the writers set it aside
	}
	return allUnread, errAll
}

// moved adds the subjects whose counts the moves of c changed.
func (s store) moved(ctx context.Context, app string, c *change) error {
	type subject struct{ account, actor, kind string }
	for p, b := range c.moves {
		if err := tables.Each(ctx, s.conn, func(m *subject) []any { return []any{&m.account, &m.actor, &m.kind} }, func(m *subject) {
			c.name(c.accounts, m.account)
			if m.kind == event.ActorUser {
				c.name(c.users, m.actor)
			}
		}, "SELECT account_id, actor_id, actor_kind FROM moved_subjects(app = ?, partition = ?, first = ?, next = ?)", app, p, b.Start, b.End); err != nil {
			return fmt.Errorf("read what corrections moved in app %s: %w", app, err)
		}
	}
	return nil
}

// changed completes what the log says of an app: c is nil if it says nothing. It returns
// the subjects to evaluate, or why all of them are.
func (s *Service) changed(ctx context.Context, app string, list []*definition, c *change) (_ *scope, why string, err error) {
	b, foreign := s.base.apps[app], s.memory.foreign[app]
	switch {
	case b == nil || foreign == nil:
		return nil, allStart, nil
	case foreign.definitions:
		return nil, allDefinitions, nil
	case c == nil:
		c = &change{scope: newScope(), limit: max(fewSubjects, b.subjects/maxShare)}
	}
	if err := s.store.moved(ctx, app, c); err != nil {
		return nil, "", err
	}
	if len(c.accounts)+len(c.users) > 0 {
		now, err := s.store.exclusions(ctx, app)
		if err != nil {
			return nil, "", err
		}
		if !now.equal(b.exclusions) {
			return nil, allExclusions, nil
		}
	}
	for id := range foreign.subjects {
		c.add(id)
	}
	// Conditions of a user's account.
	if _, users := levels(list); users && len(c.accounts) > 0 {
		for user, account := range b.accountOf {
			if _, ok := c.accounts[account]; ok {
				c.users[user] = struct{}{}
			}
		}
	}
	if max(len(c.accounts), len(c.users)) > c.limit {
		return nil, allMany, nil
	}
	return c.scope, "", nil
}

// whole reports whether the signal is always evaluated for all subjects: it is about the
// app, or about a reported metric, whose points the log does not tie to whom they count
// for today.
func (s *definition) whole() bool {
	whole := s.level == insight.LevelApp
	s.measures(func(m *insight.Measure, _ string, _ evaluate.Tick) { whole = whole || m.Count == insight.CountMetric })
	return whole
}
