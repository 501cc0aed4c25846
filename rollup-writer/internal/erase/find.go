package erase

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Kinds of ids in the list.
const (
	kindUser      = "user"
	kindAnonymous = "anonymous" // the person's alone
	kindShared    = "shared"    // others' too; its events from before the first link were moved to the person
	kindRole      = "role"      // a role of the person, which may be any text; of a list that masks
	kindSaid      = "said"      // an account and a role that the person stated in it, with a zero byte between them
	kindText      = "text"      // a user or an anonymous id as JSON has it, without the quotes
)

// list is the table of a run's ids, and its content.
type list struct {
	table                    string // qualified
	name                     string
	found                    bool // an erasure that was interrupted left it and needs it
	users, anonymous, shared map[string]bool
	roles, said              map[string]bool
	// masks, if it is set, has tables masked (mask.go) in place of being made nameless.
	masks *Forgotten
}

// of is the subquery of the ids of some kinds.
func (l *list) of(kinds ...string) string {
	for i, k := range kinds {
		kinds[i] = clickhouse.Quote(k)
	}
	return "(SELECT id FROM " + l.table + " WHERE kind IN (" + strings.Join(kinds, ", ") + "))"
}

// context pins the settings that every statement needs.
func (e *eraser) context(ctx context.Context) context.Context {
	return clickhousego.Context(ctx, clickhousego.WithSettings(clickhousego.Settings{
		"mutations_sync":                     2, // on every replica
		"allow_nondeterministic_mutations":   1, // the list is the same on all of them
		"max_execution_time":                 0,
		"distributed_ddl_task_timeout":       -1,
		"max_bytes_before_external_group_by": 1 << 30,
	}))
}

func (e *eraser) app() string { return "app_id = " + clickhouse.Quote(e.cfg.App) }

// findKey returns the key under which ids of the app were erased before, or creates
// one.
func (e *eraser) findKey(ctx context.Context) error {
	keys := map[string]bool{}
	e.known = map[event.KnownPair]bool{}
	if err := erased(ctx, e.Kafka, e.Names, e.Codec, e.partitions, func(app string, ids *event.ErasedIDs) {
		if app == e.cfg.App {
			keys[string(ids.Key)] = true
		}
	}); err != nil {
		return err
	}
	if len(keys) > 0 {
		e.key = []byte(slices.Min(slices.Collect(maps.Keys(keys))))
		return nil
	}
	e.key = make([]byte, event.EraseKeyBytes)
	_, err := rand.Read(e.key)
	return err
}

// openList creates the list, or continues with the one that an earlier run for the same
// person left.
func (e *eraser) openList(ctx context.Context) error {
	l := &e.list
	l.users, l.anonymous, l.shared, l.said = map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	var left []string
	err := e.each(ctx, "SELECT name, '' FROM system.tables WHERE database = "+clickhouse.Quote(tables.Internal(e.Schema.Database))+" AND startsWith(name, '"+listPrefix+"') ORDER BY name",
		func(name, _ string) { left = append(left, name) })
	if err != nil {
		return err
	}
	for _, name := range left {
		ours := false
		ids := map[string][]string{}
		err := e.each(ctx, "SELECT DISTINCT toString(kind), id FROM "+e.Schema.Table(name)+" WHERE "+e.app(), func(kind, id string) {
			ours = ours || (kind == kindUser && id == e.cfg.User)
			ids[kind] = append(ids[kind], id)
		})
		if err != nil {
			return err
		}
		if !ours || l.name != "" {
			continue
		}
		e.Logger.Info("going on with what an earlier run has left", "list", name)
		l.name, l.found = name, true
		for kind, list := range ids {
			if set := l.set(kind); set != nil {
				for _, id := range list {
					set[id] = true
				}
			}
		}
	}
	if l.name == "" {
		var random [8]byte
		if _, err := rand.Read(random[:]); err != nil {
			return err
		}
		l.name = listPrefix + hex.EncodeToString(random[:])
	}
	if err := e.createList(ctx, l.name); err != nil {
		return err
	}
	return e.add(ctx, kindUser, e.cfg.User)
}

func (e *eraser) createList(ctx context.Context, name string) error {
	e.list.name, e.list.table = name, e.Schema.Table(name)
	ddl := e.Schema.CreateShared(name, "app_id String, kind LowCardinality(String), id String, mask String, listed_at DateTime DEFAULT now()", "(kind, id) TTL listed_at + INTERVAL 30 DAY")
	if err := e.SQL.Exec(ctx, ddl); err != nil {
		return fmt.Errorf("make the list of ids: %w", err)
	}
	return nil
}

const listPrefix = "erasing_"

func (l *list) set(kind string) map[string]bool {
	switch kind {
	case kindUser:
		return l.users
	case kindAnonymous:
		return l.anonymous
	case kindShared:
		return l.shared
	case kindRole:
		return l.roles
	case kindSaid:
		return l.said
	}
	return nil
}

// add lists ids that are not listed yet.
func (e *eraser) add(ctx context.Context, kind string, ids ...string) error {
	set := e.list.set(kind)
	var news []string
	for _, id := range ids {
		if id != "" && !set[id] {
			set[id] = true
			news = append(news, id)
		}
	}
	if len(news) == 0 {
		return nil
	}
	batch, err := e.SQL.PrepareBatch(ctx, "INSERT INTO "+e.list.table+" (app_id, kind, id, mask)")
	if err != nil {
		return fmt.Errorf("list ids: %w", err)
	}
	for _, id := range news {
		if err = batch.Append(e.cfg.App, kind, id, e.list.maskOf(kind, id)); err != nil {
			break
		}
		if kind == kindShared || kind == kindRole || kind == kindSaid {
			continue
		}
		for _, text := range spellings(id) {
			err = errors.Join(err, batch.Append(e.cfg.App, kindText, text, ""))
		}
	}
	if err = errors.Join(err, batch.Send()); err != nil {
		return fmt.Errorf("list ids: %w", err)
	}
	if e.Schema.Form.Cluster != "" {
		if err := e.SQL.Exec(ctx, fmt.Sprintf("SYSTEM SYNC REPLICA ON CLUSTER `%s` %s", e.Schema.Form.Cluster, e.list.table)); err != nil {
			return fmt.Errorf("list ids on every replica: %w", err)
		}
	}
	return nil
}

// spellings returns the forms of an id in JSON texts, without the quotes.
func spellings(id string) []string {
	list := []string{id}
	var plain strings.Builder
	encoder := json.NewEncoder(&plain)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(id) == nil {
		list = append(list, strings.Trim(strings.TrimSpace(plain.String()), `"`))
	}
	if b, err := json.Marshal(id); err == nil {
		list = append(list, strings.Trim(string(b), `"`))
	}
	list = append(list, strings.ReplaceAll(list[1], "/", `\/`))
	var ascii strings.Builder
	for _, r := range list[1] {
		switch {
		case r < 0x80:
			ascii.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&ascii, `\u%04x`, r)
		default:
			r -= 0x10000
			fmt.Fprintf(&ascii, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		}
	}
	list = append(list, ascii.String())
	slices.Sort(list)
	return slices.Compact(list)
}

// closeList drops the list after a run that only reads, unless it belongs to an erasure
// that is not finished: only the list still has the ids that are erased already.
func (e *eraser) closeList(ctx context.Context) error {
	if e.list.found {
		return nil
	}
	return e.dropList(ctx)
}

func (e *eraser) dropList(ctx context.Context) error {
	if err := e.SQL.Exec(ctx, e.Schema.DropShared(e.list.name)); err != nil {
		return fmt.Errorf("drop the list of ids: %w", err)
	}
	return nil
}

// each calls f with the rows of a query of two strings.
func (e *eraser) each(ctx context.Context, query string, f func(a, b string)) error {
	type pair struct{ a, b string }
	err := tables.Each(ctx, e.SQL, func(p *pair) []any { return []any{&p.a, &p.b} }, func(p *pair) { f(p.a, p.b) }, query)
	if err != nil {
		return fmt.Errorf("look for the person's ids: %w", err)
	}
	return nil
}

// find lists the ids that belong to the person according to ClickHouse.
func (e *eraser) find(ctx context.Context) error {
	l, identities := &e.list, e.Schema.View("identities")
	for n := -1; n != len(l.users); {
		n = len(l.users)
		var users []string
		err := e.each(ctx, "SELECT DISTINCT id, user_id FROM "+identities+" WHERE "+e.app()+" AND id_kind = 'user' AND in_force AND (id IN "+
			l.of(kindUser)+" OR user_id IN "+l.of(kindUser)+")", func(a, b string) { users = append(users, a, b) })
		if err != nil {
			return err
		}
		if err := e.add(ctx, kindUser, users...); err != nil {
			return err
		}
	}
	others := map[string]bool{} // anonymous ids, and whether they are others' too
	err := e.each(ctx, "SELECT DISTINCT id, user_id FROM "+identities+" WHERE "+e.app()+` AND id_kind = 'anonymous' AND id GLOBAL IN (
		SELECT id FROM `+identities+" WHERE "+e.app()+" AND id_kind = 'anonymous' AND user_id IN "+l.of(kindUser)+")", func(id, user string) {
		others[id] = others[id] || !l.users[user]
	})
	if err != nil {
		return err
	}
	var own, shared []string
	for id, also := range others {
		switch {
		case l.anonymous[id]:
		case also:
			shared = append(shared, id)
		default:
			own = append(own, id)
		}
	}
	if err := e.add(ctx, kindAnonymous, own...); err != nil {
		return err
	}
	if len(shared) > 0 {
		if err := e.findShared(ctx, func(id string) bool { return slices.Contains(shared, id) }); err != nil {
			return err
		}
	}
	err = e.each(ctx, "SELECT DISTINCT object, subject FROM "+e.Schema.Table("identity_facts")+" WHERE "+e.app()+" AND fact = 'anonymous' AND (object IN "+
		l.of(kindUser)+" OR subject IN "+l.of(kindAnonymous)+")", func(user, id string) { e.known[event.KnownPair{UserID: user, AnonymousID: id}] = true })
	if err != nil {
		return err
	}
	// The enrichers may know pairs from events that were not stored.
	return e.changelog(ctx, func(rec *event.IdentityState) {
		if rec.Kind == event.StateKnown && (l.users[rec.ID] || l.anonymous[rec.Other]) {
			e.known[event.KnownPair{UserID: rec.ID, AnonymousID: rec.Other}] = true
		}
	})
}

// findShared lists the anonymous ids of which events from before the first link were
// moved to the person, if they may be listed.
func (e *eraser) findShared(ctx context.Context, may func(id string) bool) error {
	var moved []string
	err := e.each(ctx, "SELECT DISTINCT anonymous_id, '' FROM "+e.Schema.Table("corrections")+" WHERE "+e.app()+" AND anonymous_id != '' AND events > 0 AND user_id IN "+
		e.list.of(kindUser), func(id, _ string) {
		if may(id) {
			moved = append(moved, id)
		}
	})
	if err != nil {
		return err
	}
	return e.add(ctx, kindShared, moved...)
}

// attribution of usage_hourly, corrections and plans that is the person's.
func (l *list) attribution() string {
	return "(" + l.actor() + " OR user_id IN " + l.of(kindUser) + " OR anonymous_id IN " + l.of(kindAnonymous) + ")"
}

// actor of a row that is the person.
func (l *list) actor() string {
	anonymous := l.of(kindAnonymous, kindShared)
	if l.masks != nil { // what is counted for a shared id moves when the log orders it
		anonymous = l.of(kindAnonymous)
	}
	return "((actor_kind = 'user' AND actor_id IN " + l.of(kindUser) + ") OR (actor_kind = 'anonymous' AND actor_id IN " + anonymous + "))"
}

// ofEvents is attribution as the view of usage_hourly reads it off events.
func (l *list) ofEvents() string {
	return "(" + l.actor() + " OR (actor_kind = 'anonymous' AND actor_id IN " + l.of(kindShared) + ") OR if(user_id != '', user_id, linked_user_id) IN " + l.of(kindUser) +
		" OR if(user_id = '', anonymous_id, '') IN " + l.of(kindAnonymous) + ")"
}

var baseCells = strings.Join(tables.TableOf("usage_hourly").Key, ", ")

const notZero = " HAVING sum(events) != 0 OR sum(quantity) != 0"

// counted returns the attributions under which something is counted for the person, in
// addition to those whose actor is one of the ids.
func (e *eraser) counted(ctx context.Context) ([]event.Attribution, error) {
	list, err := tables.Collect(ctx, e.SQL, func(a *event.Attribution) []any {
		a.ActorID, a.ActorKind, a.UserID, a.AnonymousID = new(string), new(string), new(string), new(string)
		return []any{a.ActorID, a.ActorKind, a.UserID, a.AnonymousID}
	}, `SELECT DISTINCT actor_id, toString(actor_kind), user_id, anonymous_id FROM (
		SELECT `+baseCells+" FROM "+e.Schema.Table("usage_hourly")+" WHERE "+e.app()+" AND "+e.list.attribution()+" AND NOT ((actor_kind = 'user' AND actor_id IN "+
		e.list.of(kindUser)+") OR (actor_kind = 'anonymous' AND actor_id IN "+e.list.of(kindAnonymous)+")) GROUP BY "+baseCells+notZero+")")
	if err != nil {
		return nil, fmt.Errorf("look for what is counted: %w", err)
	}
	return list, nil
}

// remaining is the number of cells of the rollups that count something for the person.
func (e *eraser) remaining(ctx context.Context) (uint64, error) {
	var n uint64
	err := e.SQL.QueryRow(ctx, "SELECT count() FROM (SELECT "+baseCells+" FROM "+e.Schema.Table("usage_hourly")+" WHERE "+e.app()+" AND "+e.list.attribution()+
		" GROUP BY "+baseCells+notZero+")").Scan(&n)
	for _, r := range byActor(false) {
		if err != nil {
			break
		}
		var daily uint64
		err = e.SQL.QueryRow(ctx, "SELECT count() FROM (SELECT "+r.Columns()+" FROM "+e.Schema.Table(r.Name)+" WHERE "+e.app()+" AND "+e.list.actor()+
			" GROUP BY "+r.Columns()+notZero+")").Scan(&daily)
		n += daily
	}
	if err != nil {
		return 0, fmt.Errorf("look for what is counted: %w", err)
	}
	return n, nil
}

// byActor are the rollups with actors: those with stored rows, or those that are views.
func byActor(plain bool) []tables.Table {
	return tables.Select(func(t *tables.Table) bool { return t.Kind == tables.Rollup && t.Has("actor_id") && t.Plain == plain })
}

// home is the partition of an id.
func (e *eraser) home(kind byte, id string) int32 {
	return topic.Partition(topic.Key(nil, e.cfg.App, kind, id), e.partitions)
}
