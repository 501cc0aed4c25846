package erase

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"

	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Repeated is what Again did in one app.
type Repeated struct {
	App          string `json:"app"`
	Users        int    `json:"users"` // ids that were found in tables
	AnonymousIDs int    `json:"anonymous_ids"`
}

// againPrefix begins the names of lists of Again; those of erasures that were cut short
// (listPrefix) are left alone.
const againPrefix = "erased_again_"

// How Again treats what the rollups count for the persons.
type How int

const (
	// Counted: writers run, and have moved the counts: they have read the orders to erase.
	// If they have not, Again fails.
	Counted How = iota + 1
	// Masked: nothing else writes to the tables, no view is attached to them, and writers
	// will read the orders. Ids are masked (mask.go), so that what the log orders before
	// them still finds its rows.
	Masked
	// Alone: as Masked, but the log has no orders any more. Rows become nameless, and so
	// do counts.
	Alone
)

// Again applies former erasures to tables that hold what they removed: tables of a backup
// that is older, and events that were read from the log again. The ids are found by their
// hashes. It may be interrupted and run again.
func Again(ctx context.Context, erased *Erasures, apps []string, dep Dependencies, how How) ([]Repeated, error) {
	var done []Repeated
	for _, app := range apps {
		f := erased.Of(app)
		if f == nil {
			continue
		}
		e := newEraser(Config{App: app}, dep)
		e.key = []byte(slices.Min(slices.Collect(maps.Keys(f.sets))))
		if how == Masked {
			e.list.masks = f
		}
		if err := e.again(e.context(ctx), f, how); err != nil {
			return done, fmt.Errorf("apply the erasures of app %s: %w", app, err)
		}
		done = append(done, Repeated{app, len(e.list.users), len(e.list.anonymous)})
	}
	return done, nil
}

func (e *eraser) again(ctx context.Context, f *Forgotten, how How) error {
	if err := e.newList(ctx); err != nil {
		return err
	}
	if err := e.findErased(ctx, f); err != nil {
		return errors.Join(err, e.dropList(ctx))
	}
	if len(e.list.users)+len(e.list.anonymous) > 0 {
		if how != Counted {
			if err := e.moveCounts(ctx); err != nil {
				return err
			}
		}
		left, err := e.remaining(ctx)
		if err == nil && left > 0 {
			err = fmt.Errorf("%d cells of the rollups still count for erased persons: let the writers read the log to its end first", left)
		}
		if err != nil {
			return errors.Join(err, e.dropList(ctx))
		}
		if err := e.sweep(ctx); err != nil {
			return err // the list is needed again
		}
	}
	if err := e.dropList(ctx); err != nil {
		return err
	}
	_, err := f.strip(ctx, e)
	return err
}

// newList makes the list of this run, and drops those of runs that were cut short: the ids
// are found by their hashes again.
func (e *eraser) newList(ctx context.Context) error {
	left, err := tables.CollectColumn[string](ctx, e.SQL, "SELECT name FROM system.tables WHERE database = ? AND startsWith(name, ?)", tables.Internal(e.Schema.Database), againPrefix)
	if err != nil {
		return fmt.Errorf("look for lists of ids: %w", err)
	}
	for _, name := range left {
		if err := e.SQL.Exec(ctx, e.Schema.DropShared(name)); err != nil {
			return fmt.Errorf("drop the list of ids: %w", err)
		}
	}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	e.list.users, e.list.anonymous, e.list.shared, e.list.roles, e.list.said = map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	return e.createList(ctx, againPrefix+hex.EncodeToString(random[:]))
}

// idsOf are the ids in a row of each table, as an array of kind and id in SQL. An id of
// which a column does not say the kind is looked up as both.
var idsOf = withRollups(map[string]string{
	"events": "[('user', user_id), ('user', linked_user_id), ('user', previous_id), ('anonymous', previous_id), ('anonymous', anonymous_id), (toString(actor_kind), actor_id)]",

	"usage_hourly": idsOfCell, "corrections": idsOfCell, "user_agents": idsOfCell,
	"correction_plans": "[" + idsInCell + ", ('user', JSONExtractString(reason, 'user_id')), ('user', JSONExtractString(reason, 'id')), ('anonymous', JSONExtractString(reason, 'id'))]",

	"identity_facts":   "[('user', subject), ('anonymous', subject), ('user', object), ('anonymous', object)]",
	"identity_unlinks": "[('user', id), ('anonymous', id), ('user', user_id)]",
	"metric_values":    "[('user', user_id), ('anonymous', anonymous_id), (toString(tupleElement(last, 'actor_kind')), tupleElement(last, 'actor_id'))]",
	"signal_log":       "[(toString(level), subject)]",
	"looks":            "[('user', person_id), ('anonymous', person_id)]",

	"behaviour_cluster_members": "[(toString(unit_kind), unit_id)]",

	"rejected_events": "", // by their bytes, see strip
})

func withRollups(ids map[string]string) map[string]string {
	for _, t := range byActor(false) {
		ids[t.Name] = "[(toString(actor_kind), actor_id)]"
	}
	return ids
}

const (
	idsInCell = "('user', user_id), ('anonymous', anonymous_id), (toString(actor_kind), actor_id)"
	idsOfCell = "[" + idsInCell + "]"
)

// findErased lists the ids in tables that were erased, and those that stand for them where
// the log was read again (mask).
func (e *eraser) findErased(ctx context.Context, f *Forgotten) error {
	masked := map[string]bool{} // ids that stand for them; they may stay where ids are masked
	for _, set := range f.sets {
		if e.list.masks != nil {
			break
		}
		for h := range set.hashes {
			masked[maskPrefix+hex.EncodeToString(h[:])] = true
		}
	}
	found := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(idsOf)) {
		if idsOf[name] == "" {
			continue
		}
		err := e.each(ctx, "SELECT DISTINCT p.1, p.2 FROM (SELECT arrayJoin("+idsOf[name]+") AS p FROM "+e.Schema.Table(name)+" WHERE "+e.app()+
			") WHERE p.1 IN ('user', 'anonymous') AND p.2 != ''", func(kind, id string) {
			key := byte(topic.KeyUser)
			if kind == kindAnonymous {
				key = topic.KeyAnonymous
			}
			if masked[id] || f.has(key, id) {
				found[kind] = append(found[kind], strings.Clone(id))
			}
		})
		if err != nil {
			return err
		}
	}
	for _, kind := range []string{kindUser, kindAnonymous} {
		if err := e.add(ctx, kind, found[kind]...); err != nil {
			return err
		}
	}
	if err := e.findShared(ctx, func(id string) bool { return !e.list.anonymous[id] }); err != nil || e.list.masks == nil {
		return err
	}
	var roles []string
	rowsOf := map[string]string{
		"events": e.list.ofEvents(), "usage_hourly": e.list.attribution(), "corrections": e.list.attribution(), "correction_plans": e.list.attribution(),
	}
	for _, t := range byActor(false) {
		if t.Has("role") {
			rowsOf[t.Name] = e.list.actor()
		}
	}
	for name, whose := range rowsOf {
		err := e.each(ctx, "SELECT DISTINCT toString(role), '' FROM "+e.Schema.Table(name)+" WHERE "+e.app()+" AND "+whose, func(role, _ string) { roles = append(roles, role) })
		if err != nil {
			return err
		}
	}
	return e.add(ctx, kindRole, roles...)
}

// moveCounts counts for an actor without a name, or for the masks, what the rollups count
// for the persons, in the same accounts and features. After it their own cells add up to
// zero.
func (e *eraser) moveCounts(ctx context.Context) error {
	ctx = clickhousego.Context(ctx, clickhousego.WithSettings(clickhousego.Settings{"insert_deduplicate": 0, "max_execution_time": 0}))
	columns, values := e.list.attributed()
	for _, r := range append([]tables.Table{tables.TableOf("usage_hourly")}, byActor(false)...) {
		whose := e.list.actor()
		if r.Kind == tables.Base {
			whose = e.list.attribution()
		}
		var moved []string
		for _, c := range r.Key {
			if i := slices.Index(columns, c); i >= 0 {
				c = values[i]
			}
			moved = append(moved, c)
		}
		local := e.Schema.Local(r.Name)
		cells := "(SELECT app_id, " + r.Columns() + ", sum(events) AS e, sum(quantity) AS q FROM " + local + " WHERE " + e.app() + " AND " + whose + " GROUP BY app_id, " + r.Columns() +
			" HAVING e != 0 OR q != 0)"
		statement := "INSERT INTO " + local + " (app_id, " + r.Columns() + ", events, quantity)" +
			" SELECT app_id, " + r.Columns() + ", -e, -q FROM " + cells + " UNION ALL SELECT app_id, " + strings.Join(moved, ", ") + ", e, q FROM " + cells
		for i, conn := range e.Shards {
			if err := conn.Exec(ctx, statement); err != nil {
				return fmt.Errorf("move counts of %s, shard %d: %w", r.Name, i, err)
			}
		}
	}
	return nil
}
