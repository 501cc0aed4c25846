package erase

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
)

// target is a table that names people, or a view of one.
type target struct {
	name  string
	where func(*list) string // rows that name the person
	// change is the ALTER TABLE command to apply; empty: the table follows from another
	// one.
	change func(l *list, app, where string) string
	// theirs are the rows, of those, that are the person's own: of the others, which are
	// another user's and only name an id of the person, an export has the ids alone. Nil:
	// all are.
	theirs func(*list) string
}

// mentions matches a text, JSON or a record, that contains one of the ids as a whole
// string or number.
func mentions(l *list, column string) string {
	tokens := fmt.Sprintf(`arrayConcat(extractAll(%[1]s, '"((?:[^"\\\\]|\\\\.)*)"'), extractAll(%[1]s, '[0-9]+'))`, column)
	return fmt.Sprintf("arrayExists(t -> t IN %s, %s)", l.of(kindText), tokens)
}

// inRecord matches a binary record that contains one of the ids.
func inRecord(l *list, column string) string {
	return fmt.Sprintf("arrayExists(t -> position(%s, t) > 0, (SELECT groupArray(id) FROM %s WHERE kind IN ('%s', '%s')))", column, l.table, kindUser, kindAnonymous)
}

func deleted(_ *list, _, where string) string { return "DELETE WHERE " + where }

// attributed is what erasing makes of the columns of a row that is the person's, in the
// order of the columns.
func (l *list) attributed() (columns, values []string) {
	columns = []string{"actor_id", "actor_kind", "user_id", "anonymous_id", "role"}
	if l.masks == nil {
		return columns, []string{"''", "'" + event.ActorErased + "'", "''", "''", "''"}
	}
	return columns, []string{
		"multiIf(actor_kind = '" + event.ActorUser + "', " + l.masked(kindUser, "actor_id") + ", actor_kind = '" + event.ActorAnonymous + "', " + l.masked(kindAnonymous, "actor_id") + ", actor_id)",
		"actor_kind", l.masked(kindUser, "user_id"), l.masked(kindAnonymous, "anonymous_id"), l.masked(kindRole, "role"),
	}
}

// masked is an id of a column, or its mask.
func (l *list) masked(kind, column string) string {
	pairs := "(SELECT arraySort(groupArray((id, mask))) FROM " + l.table + " WHERE kind = '" + kind + "')"
	return fmt.Sprintf("transform(%s, arrayConcat([''], tupleElement(%s, 1)), arrayConcat([''], tupleElement(%s, 2)), %s)", column, pairs, pairs, column)
}

// nameless are the assignments of attributed.
func (l *list) nameless() string {
	columns, values := l.attributed()
	var set []string
	for i, c := range columns {
		if values[i] != c {
			set = append(set, c+" = "+values[i])
		}
	}
	return strings.Join(set, ", ")
}

var targets = slices.Concat([]target{
	{"rejected_events", func(l *list) string {
		return "(original != '' OR envelope != '') AND (" + mentions(l, "original") + " OR " + mentions(l, "envelope") +
			" OR (stage = 'enricher' AND " + inRecord(l, "original") + "))"
	}, func(_ *list, _, where string) string {
		return "UPDATE original = '', envelope = '', detail = '', message_id = '' WHERE " + where
	}, nil},
	{"events", func(l *list) string {
		return "(" + l.ofEvents() + " OR anonymous_id IN " + l.of(kindAnonymous) + " OR previous_id IN " + l.of(kindUser, kindAnonymous) + ")"
	}, func(l *list, app, _ string) string {
		return "UPDATE " + l.nameless() + ", message_id = '', previous_id = '', linked_user_id = " + l.linked() + ", properties = '{}', traits = '{}', metric = '', context = '', conflicts = ''," +
			" session_id = '', ip = '', user_agent = '', country = '', browser = '', os = '', device_class = '', referrer = '', utm_source = '', utm_medium = '', utm_campaign = '' WHERE " + app + " AND " + l.ofEvents() +
			", UPDATE anonymous_id = '' WHERE " + app + " AND anonymous_id IN " + l.of(kindAnonymous) +
			", UPDATE previous_id = '' WHERE " + app + " AND previous_id IN " + l.of(kindUser, kindAnonymous)
	}, (*list).ofEvents},
	{"metric_values", ofMetrics, deleted, func(l *list) string { return "NOT " + metricsOfOthers(l) }}, // after keepMetrics
	{"corrections", (*list).attribution, func(l *list, _, where string) string {
		return "UPDATE " + l.nameless() + " WHERE " + where
	}, nil},
	{"correction_plans", func(l *list) string {
		return "(" + l.attribution() + " OR " + inReason(l) + ")"
	}, func(l *list, app, _ string) string {
		return "UPDATE " + l.nameless() + " WHERE " + app + " AND " + l.attribution() + ", UPDATE reason = '' WHERE " + app + " AND " + inReason(l)
	}, nil},
	{"usage_hourly", (*list).attribution, deleted, nil},
}, rollupTargets(false, deleted), []target{
	{"user_agents", (*list).attribution, deleted, nil},
	{"identity_unlinks", func(l *list) string {
		return "((id_kind = 'anonymous' AND id IN " + l.of(kindAnonymous) + ") OR (id_kind = 'user' AND id IN " + l.of(kindUser) + ") OR user_id IN " + l.of(kindUser) + ")"
	}, deleted, nil},
	{"signal_log", func(l *list) string { return "level = 'user' AND subject IN " + l.of(kindUser) }, deleted, nil},
	{"looks", func(l *list) string { return "person_id IN " + l.of(kindUser, kindAnonymous) }, func(_ *list, _, where string) string {
		return "UPDATE person_id = '' WHERE " + where
	}, nil},
	{"behaviour_cluster_members", func(l *list) string { return "unit_kind = 'user' AND unit_id IN " + l.of(kindUser) }, deleted, nil},
	{"identity_facts", func(l *list) string {
		return "((fact = 'anonymous' AND (subject IN " + l.of(kindAnonymous) + " OR object IN " + l.of(kindUser) + "))" +
			" OR (fact = 'alias' AND (subject IN " + l.of(kindUser, kindAnonymous) + " OR object IN " + l.of(kindUser) + "))" +
			" OR (fact IN ('membership', 'user') AND subject IN " + l.of(kindUser) + "))"
	}, deleted, nil},
}, rollupTargets(true, nil), []target{
	{"users", ofUser, nil, nil},
	{"memberships", ofUser, nil, nil},
	{"identity_links", func(l *list) string {
		return "((id_kind = 'anonymous' AND id IN " + l.of(kindAnonymous) + ") OR (id_kind = 'user' AND id IN " + l.of(kindUser) + ") OR user_id IN " + l.of(kindUser) + ")"
	}, nil, nil},
})

// linked is what erasing makes of the user that an anonymous id was linked to.
func (l *list) linked() string {
	if l.masks == nil {
		return "''"
	}
	return l.masked(kindUser, "linked_user_id")
}

// rollupTargets are the rollups with actors.
func rollupTargets(plain bool, change func(l *list, app, where string) string) []target {
	var all []target
	for _, r := range byActor(plain) {
		all = append(all, target{r.Name, (*list).actor, change, nil})
	}
	return all
}

func ofMetrics(l *list) string {
	return "(user_id IN " + l.of(kindUser) + " OR anonymous_id IN " + l.of(kindAnonymous) +
		" OR (tupleElement(last, 'actor_kind') = 'user' AND tupleElement(last, 'actor_id') IN " + l.of(kindUser) + ")" +
		" OR (tupleElement(last, 'actor_kind') = 'anonymous' AND tupleElement(last, 'actor_id') IN " + l.of(kindAnonymous, kindShared) + "))"
}

// metricsOfOthers are reports of another user on the person's device.
func metricsOfOthers(l *list) string {
	return "(user_id != '' AND user_id NOT IN " + l.of(kindUser) + " AND tupleElement(last, 'actor_id') = user_id)"
}

// keepMetrics writes the reports of the person's calls again, without a name, so that
// accounts keep them: each of the person's pairs of ids becomes a keyed hash, since
// series that differed must stay different. What another user reported on the person's
// device stays that user's, without the device's id, as in events. Rows are keyed by
// their content, so repeating this does no harm.
func (e *eraser) keepMetrics(ctx context.Context) error {
	mac := hmac.New(sha256.New, e.key)
	mac.Write([]byte("metrics"))
	sum := mac.Sum(nil)
	secret := fmt.Sprintf("(%d, %d)", binary.LittleEndian.Uint64(sum), binary.LittleEndian.Uint64(sum[8:]))
	table := e.Schema.Local("metric_values")
	statement := `INSERT INTO ` + table + ` (app_id, event, number, user_id, anonymous_id, account_id, dimensions, period_start, period_end, message_id, last)
WITH ` + metricsOfOthers(&e.list) + ` AS theirs
SELECT app_id, event, number, if(theirs, user_id, ''), if(theirs, '', concat('erased:', hex(sipHash128Keyed(` + secret + `, user_id, anonymous_id)))), account_id, dimensions, period_start, period_end,
	if(theirs OR message_id = '', message_id, hex(sipHash128Keyed(` + secret + `, message_id))),
	(tupleElement(last, 'said_at'), tupleElement(last, 'received_at'), tupleElement(last, 'source_offset'), tupleElement(last, 'value'),
		if(theirs, user_id, ''), if(theirs, tupleElement(last, 'actor_kind'), 'erased'), tupleElement(last, 'account_id'))
FROM ` + table + ` WHERE ` + e.app() + ` AND ` + ofMetrics(&e.list)
	ctx = clickhousego.Context(ctx, clickhousego.WithSettings(clickhousego.Settings{"insert_deduplicate": 0, "max_execution_time": 0}))
	for i, conn := range e.Shards {
		if err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("write metrics of shard %d without a name: %w", i, err)
		}
	}
	return nil
}

func ofUser(l *list) string { return "user_id IN " + l.of(kindUser) }

func inReason(l *list) string {
	return "(chunk = 0 AND (JSONExtractString(reason, 'user_id') IN " + l.of(kindUser) + " OR JSONExtractString(reason, 'id') IN " + l.of(kindUser, kindAnonymous) + "))"
}

// idColumns are the columns that identify people, in any table.
var idColumns = []string{"actor_id", "user_id", "anonymous_id", "linked_user_id", "previous_id", "distinct_id"}

// place is a target with the qualified name under which it is read.
type place struct {
	table string
	target
}

// others are tables with a column for ids that this release does not know: they are
// counted, so that a receipt includes them.
func (e *eraser) others(ctx context.Context) ([]place, error) {
	var known []string
	for _, t := range targets {
		known = append(known, clickhouse.Quote(e.Schema.Form.Local(t.name)), clickhouse.Quote(t.name))
	}
	databases := clickhouse.Quote(e.Schema.Database) + ", " + clickhouse.Quote(tables.Internal(e.Schema.Database))
	type table struct {
		database, name string
		columns        []string
	}
	var found []place
	err := tables.Each(ctx, e.SQL, func(t *table) []any { return []any{&t.database, &t.name, &t.columns} }, func(t *table) {
		slices.Sort(t.columns)
		found = append(found, place{fmt.Sprintf("`%s`.`%s`", t.database, t.name), target{name: strings.TrimSuffix(t.name, "_local"), where: func(l *list) string {
			var any []string
			for _, c := range t.columns {
				switch c {
				case "app_id":
				case "anonymous_id":
					any = append(any, c+" IN "+l.of(kindAnonymous))
				case "actor_id", "previous_id", "distinct_id":
					any = append(any, c+" IN "+l.of(kindUser, kindAnonymous))
				default:
					any = append(any, c+" IN "+l.of(kindUser))
				}
			}
			return "(" + strings.Join(any, " OR ") + ")"
		}}})
	}, fmt.Sprintf(`SELECT database, table, groupArray(name) FROM system.columns
		WHERE database IN (%s) AND name IN ('%s', 'app_id') AND table NOT IN (%s)
			AND (database, table) IN (SELECT database, name FROM system.tables WHERE engine LIKE '%%MergeTree')
		GROUP BY database, table HAVING has(groupArray(name), 'app_id') AND count() > 1 ORDER BY table`,
		databases, strings.Join(idColumns, "', '"), strings.Join(known, ", ")))
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	return found, nil
}

// sweep rewrites the tables.
func (e *eraser) sweep(ctx context.Context) error {
	if err := e.takeBackRoles(ctx); err != nil {
		return err
	}
	for _, t := range targets {
		if t.change == nil {
			continue
		}
		e.Logger.Info("rewriting", "table", t.name)
		if t.name == "metric_values" {
			if err := e.keepMetrics(ctx); err != nil {
				return err
			}
		}
		change := t.change(&e.list, e.app(), e.app()+" AND "+t.where(&e.list))
		if err := e.SQL.Exec(ctx, e.Schema.Alter(t.name)+" "+change); err != nil {
			return fmt.Errorf("erase from %s: %w", t.name, err)
		}
	}
	return e.restoreRoles(ctx)
}

// takeBackRoles removes the traits of accounts that are a role which the person stated
// there by group calls: a role is a member's and may be any text. It must run while events
// has these calls.
func (e *eraser) takeBackRoles(ctx context.Context) error {
	var said []string
	err := e.each(ctx, "SELECT DISTINCT account_id, toString(role) FROM "+e.Schema.Table("events")+" WHERE "+e.app()+" AND kind = '"+event.KindGroup+"' AND account_id != '' AND role != '' AND "+e.list.ofEvents(),
		func(account, role string) { said = append(said, account+"\x00"+role) })
	if err != nil {
		return fmt.Errorf("look for roles that were stated: %w", err)
	}
	if err := e.add(ctx, kindSaid, said...); err != nil || len(e.list.said) == 0 {
		return err
	}
	where := e.app() + " AND fact = 'account' AND object != '' AND concat(subject, '\\0', JSONExtractString(tupleElement(last, 'value'))) IN " + e.list.of(kindSaid)
	if err := e.SQL.Exec(ctx, e.Schema.Alter("identity_facts")+" DELETE WHERE "+where); err != nil {
		return fmt.Errorf("erase roles from identity_facts: %w", err)
	}
	return nil
}

// restoreRoles writes again what calls of others say of these accounts, which takeBackRoles
// may have removed. What a call says twice changes nothing.
func (e *eraser) restoreRoles(ctx context.Context) error {
	if len(e.list.said) == 0 {
		return nil
	}
	i := slices.IndexFunc(tables.DerivedTables, func(d tables.Derived) bool { return d.Name == "identity_facts" })
	facts := &tables.DerivedTables[i]
	where := e.app() + " AND kind = '" + event.KindGroup + "' AND account_id IN (SELECT splitByChar('\\0', id)[1] FROM " + e.list.table + " WHERE kind = '" + kindSaid + "')"
	view, err := facts.Select(e.Schema, where, true)
	if err != nil {
		return err
	}
	ctx = clickhousego.Context(ctx, clickhousego.WithSettings(clickhousego.Settings{"insert_deduplicate": 0, "max_execution_time": 0}))
	for i, conn := range e.Shards {
		if err := conn.Exec(ctx, "INSERT INTO "+e.Schema.Local(facts.Name)+" (app_id, "+facts.Columns()+") SELECT app_id, "+facts.Columns()+" FROM ("+view+")"); err != nil {
			return fmt.Errorf("write traits of accounts in shard %d: %w", i, err)
		}
	}
	return nil
}

// places are all tables and views that name people: those of targets, and those that
// this release does not know.
func (e *eraser) places(ctx context.Context) ([]place, error) {
	others, err := e.others(ctx)
	if err != nil {
		return nil, err
	}
	var all []place
	for _, t := range targets {
		if t.change == nil {
			all = append(all, place{e.Schema.View(t.name), t})
		} else {
			all = append(all, place{e.Schema.Table(t.name), t})
		}
	}
	return append(all, others...), nil
}

// counts are the rows that name the person, by table.
func (e *eraser) counts(ctx context.Context) ([]Rows, error) {
	places, err := e.places(ctx)
	if err != nil {
		return nil, err
	}
	var list []Rows
	for _, t := range places {
		var n uint64
		if err := e.SQL.QueryRow(ctx, "SELECT count() FROM "+t.table+" WHERE "+e.app()+" AND "+t.where(&e.list)).Scan(&n); err != nil {
			return nil, fmt.Errorf("count rows of %s: %w", t.name, err)
		}
		list = append(list, Rows{Table: t.name, Left: n})
	}
	return list, nil
}
