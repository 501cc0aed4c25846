package alert

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/alert/evaluate"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/insight"
)

// store reads the views of the database for people.
type store struct{ conn driver.Conn }

// mostRows is how many rows of a measure are read of one subject. What has more is
// summed by ClickHouse, so that no answer outgrows the memory of either side.
const mostRows = 100_000

// question is what is asked about a measure: of the ticks from from on and before to, at
// a level. It reads the views of signed rows and has their sums by subject, tick and key
// taken: to sum them by all columns first costs more than the rest of the query.
type question struct {
	app      string
	m        *insight.Measure
	level    string
	step     time.Duration
	from, to evaluate.Tick
	excluded exclusions          // who is left out
	only     map[string]struct{} // subjects; nil: all
}

// source is a view's part in a query.
type source struct {
	table, subject, tick, key, amount string
	where                             []string
	args                              []any
}

// askedSubjects is the name of the external table of the subjects that are asked about,
// and excludedNames those of the tables of who is left out, by kind.
const askedSubjects = "asked_subjects"

var excludedNames = map[string]string{insight.LevelUser: "excluded_users", event.ActorAnonymous: "excluded_visitors", insight.LevelAccount: "excluded_accounts"}

func (q *question) source() source {
	m := q.m
	s := source{table: "usage_hourly_sums", subject: "''", key: "toUInt64(0)", amount: "events", where: []string{"app_id = ?"}, args: []any{q.app}}
	if m.Count == insight.CountMetric {
		s.table, s.amount = "metric_hourly", "ifNull(value, 0)"
		s.where, s.args = append(s.where, "metric_id = ?"), append(s.args, m.Metric)
	} else if q.step == day && !names(m, insight.MatchEvent) {
		s.table = "user_feature_daily_sums"
	}
	begin, end := timeOf(q.from-1, q.step), timeOf(q.to-1, q.step)
	if s.table == "user_feature_daily_sums" {
		s.tick = "toInt32(day)"
		s.where = append(s.where, "day >= toDate(?)", "day < toDate(?)")
		s.args = append(s.args, begin.Format(time.DateOnly), end.Format(time.DateOnly))
	} else {
		s.tick = fmt.Sprintf("toInt32(intDiv(toUnixTimestamp(hour), %d))", int64(q.step/time.Second))
		s.where = append(s.where, "hour >= toDateTime(?, 'UTC')", "hour < toDateTime(?, 'UTC')")
		s.args = append(s.args, begin.Format(time.DateTime), end.Format(time.DateTime))
	}
	if len(m.Of) > 0 {
		var any []string
		for _, r := range m.Of {
			any = append(any, map[string]string{insight.MatchFeature: "feature_id", insight.MatchModule: "module_id", insight.MatchProduct: "product_id", insight.MatchEvent: "event"}[r.Match]+" = ?")
			s.args = append(s.args, r.Value)
		}
		s.where = append(s.where, "("+strings.Join(any, " OR ")+")")
	}
	switch q.level {
	case insight.LevelAccount:
		s.subject = "account_id"
		s.where = append(s.where, "account_id != ''")
	case insight.LevelUser:
		s.subject = "actor_id"
		s.where = append(s.where, "actor_kind = 'user'")
	}
	switch m.Count {
	case insight.CountQuantity:
		s.amount = "quantity"
	case insight.CountUsers:
		s.key = "sipHash64(actor_kind, actor_id)"
		s.where = append(s.where, "actor_kind IN ('user', 'anonymous')")
	case insight.CountFeatures:
		s.key = "sipHash64(feature_id)"
		s.where = append(s.where, "feature_id != ''")
	}
	// Staff, test users and bots are excluded within accounts too.
	for _, kind := range []string{insight.LevelUser, event.ActorAnonymous} {
		if len(q.excluded[kind]) > 0 {
			s.where = append(s.where, fmt.Sprintf("NOT (actor_kind = '%s' AND actor_id IN %s)", kind, excludedNames[kind]))
		}
	}
	if len(q.excluded[insight.LevelAccount]) > 0 {
		s.where = append(s.where, "account_id NOT IN "+excludedNames[insight.LevelAccount])
	}
	if q.only != nil {
		s.where = append(s.where, s.subject+" IN "+askedSubjects)
	}
	return s
}

// distinct reports whether keys matter.
func (q *question) distinct() bool {
	return q.m.Count == insight.CountUsers || q.m.Count == insight.CountFeatures
}

// summed is the query that has ClickHouse take the sums: for each subject, lists of
// ticks, keys and amounts, in any order.
func (q *question) summed() (query string, args []any) {
	s := q.source()
	return fmt.Sprintf(`SELECT subject, groupArray(tick), groupArray(k), groupArray(amount) FROM (
	SELECT %s AS subject, %s AS tick, %s AS k, toFloat64(sum(%s)) AS amount FROM %s WHERE %s GROUP BY subject, tick, k HAVING amount != 0
) GROUP BY subject`, s.subject, s.tick, s.key, s.amount, s.table, strings.Join(s.where, " AND ")), s.args
}

// rows is the query for the rows themselves, of each subject at most one more than
// mostRows, as the bytes of ticks (int32), amounts (int64) and keys (uint64; none unless
// they matter). To sum them here takes a tenth of the time: a subject has few ticks,
// and ClickHouse would look up each row among those of all subjects.
func (q *question) rows() (query string, args []any) {
	s := q.source()
	list := func(of string) string {
		return fmt.Sprintf("reinterpret(groupArray(%d)(%s), 'String')", mostRows+1, of)
	}
	keys := "''"
	if q.distinct() {
		keys = list(s.key)
	}
	query = fmt.Sprintf("SELECT %s AS subject, %s, %s, %s FROM %s WHERE %s GROUP BY subject", s.subject, list(s.tick), list(s.amount), keys, s.table, strings.Join(s.where, " AND "))
	if q.level == insight.LevelAccount && s.table == "user_feature_daily_sums" {
		query += " SETTINGS optimize_aggregation_in_order = 1" // it is sorted by account
	}
	return query, s.args
}

func names(m *insight.Measure, match string) bool {
	for _, r := range m.Of {
		if r.Match == match {
			return true
		}
	}
	return false
}

// naming sends ids with the context's queries, as external tables by their names.
func naming(ctx context.Context, ids map[string][]string) (context.Context, error) {
	var all []*ext.Table
	for name, list := range ids {
		table, err := ext.NewTable(name, ext.Column("id", "String"))
		if err != nil {
			return nil, err
		}
		for _, id := range list {
			if err := table.Append(id); err != nil {
				return nil, err
			}
		}
		all = append(all, table)
	}
	if len(all) == 0 {
		return ctx, nil
	}
	return clickhousego.Context(ctx, clickhousego.WithExternalTable(all...)), nil
}

// names of the question's external tables, with their ids.
func (q *question) names() map[string][]string {
	names := map[string][]string{}
	if q.only != nil {
		names[askedSubjects] = slices.Collect(maps.Keys(q.only))
	}
	for kind, name := range excludedNames {
		if ids := q.excluded[kind]; len(ids) > 0 {
			names[name] = slices.Collect(maps.Keys(ids))
		}
	}
	return names
}

// points reads a measure: for each subject its points, by tick and key.
func (s store) points(ctx context.Context, q *question) (map[string][]evaluate.Point, error) {
	all := map[string][]evaluate.Point{}
	if q.only != nil && len(q.only) == 0 {
		return all, nil
	}
	read := s.summed
	if q.m.Count != insight.CountMetric && q.level != insight.LevelApp {
		read = s.rows
	}
	err := read(ctx, q, all)
	if err != nil {
		return nil, fmt.Errorf("read %s of app %s: %w", q.m, q.app, err)
	}
	if q.m.Count == insight.CountDays {
		for _, points := range all {
			for i := range points {
				points[i].Key = uint64(points[i].Tick)
			}
		}
	}
	return all, nil
}

// rows reads the rows of a measure and sums them.
func (s store) rows(ctx context.Context, q *question, all map[string][]evaluate.Point) error {
	asked, err := naming(ctx, q.names())
	if err != nil {
		return err
	}
	query, args := q.rows()
	type packed struct {
		subject              string
		ticks, amounts, keys []byte
	}
	var adder adder
	large := map[string]struct{}{}
	if err := tables.Each(asked, s.conn, func(r *packed) []any { return []any{&r.subject, &r.ticks, &r.amounts, &r.keys} }, func(r *packed) {
		if len(r.ticks) > 4*mostRows {
			large[r.subject] = struct{}{}
		} else if points := adder.sum(r.ticks, r.amounts, r.keys); len(points) > 0 {
			all[r.subject] = points
		}
	}, query, args...); err != nil {
		return err
	}
	if len(large) == 0 {
		return nil
	}
	rest := *q
	rest.only = large
	return s.summed(ctx, &rest, all)
}

// summed reads the sums of a measure.
func (s store) summed(ctx context.Context, q *question, all map[string][]evaluate.Point) error {
	ctx, err := naming(ctx, q.names())
	if err != nil {
		return err
	}
	query, args := q.summed()
	type series struct {
		subject string
		at      []int32
		keys    []uint64
		amounts []float64
	}
	return tables.Each(ctx, s.conn, func(r *series) []any { return []any{&r.subject, &r.at, &r.keys, &r.amounts} }, func(r *series) {
		points := make([]evaluate.Point, len(r.at))
		for i := range r.at {
			points[i] = evaluate.Point{Tick: evaluate.Tick(r.at[i]), Key: r.keys[i], Amount: r.amounts[i]}
		}
		slices.SortFunc(points, byTick)
		all[r.subject] = points
	}, query, args...)
}

func byTick(a, b evaluate.Point) int {
	return cmp.Or(cmp.Compare(a.Tick, b.Tick), cmp.Compare(a.Key, b.Key))
}

// adder sums the rows of a subject by tick and key.
type adder struct {
	rows []row // of one subject
}

type row struct {
	tick   evaluate.Tick
	key    uint64
	amount int64
}

// sum returns the sums that are not 0, by tick and key.
func (a *adder) sum(ticks, amounts, keys []byte) []evaluate.Point {
	a.rows = a.rows[:0]
	for i := range len(ticks) / 4 {
		r := row{tick: evaluate.Tick(binary.LittleEndian.Uint32(ticks[4*i:])), amount: int64(binary.LittleEndian.Uint64(amounts[8*i:]))}
		if len(keys) > 0 {
			r.key = binary.LittleEndian.Uint64(keys[8*i:])
		}
		a.rows = append(a.rows, r)
	}
	slices.SortFunc(a.rows, func(x, y row) int { return cmp.Or(cmp.Compare(x.tick, y.tick), cmp.Compare(x.key, y.key)) })
	n := 0
	for i, r := range a.rows {
		if i > 0 && a.rows[n-1].tick == r.tick && a.rows[n-1].key == r.key {
			a.rows[n-1].amount += r.amount
			continue
		}
		a.rows[n] = r
		n++
	}
	kept := slices.DeleteFunc(a.rows[:n], func(r row) bool { return r.amount == 0 })
	points := make([]evaluate.Point, len(kept))
	for i, r := range kept {
		points[i] = evaluate.Point{Tick: r.tick, Key: r.key, Amount: float64(r.amount)}
	}
	return points
}

// levels are those that evaluation of the signals needs subjects of.
func levels(list []*definition) (accounts, users bool) {
	for _, sig := range list {
		accounts = accounts || sig.level != insight.LevelApp
		users = users || sig.level == insight.LevelUser
	}
	return accounts, users
}

// who reads traits and roles of the subjects in scope, and of the accounts of its users.
func (s store) who(ctx context.Context, app string, list []*definition, within *scope) (_ *facts, err error) {
	f := &facts{
		points: map[string]map[string][]evaluate.Point{}, traits: map[string]map[string]map[string]string{insight.LevelAccount: {}, insight.LevelUser: {}},
		roles: map[string]string{}, accountOf: map[string]string{}, scope: within,
	}
	accounts, users := levels(list)
	var one, many map[string]struct{} // nil: all
	if within != nil {
		one, many = within.users, maps.Clone(within.accounts)
	}
	// ask reads what is stated of subjects; column is where their ids are.
	ask := func(query, column string, ids map[string]struct{}, each func(ctx context.Context, query string) error) error {
		if ids == nil {
			return each(ctx, query)
		}
		if len(ids) == 0 {
			return nil
		}
		ctx, err := naming(ctx, map[string][]string{askedSubjects: slices.Collect(maps.Keys(ids))})
		if err != nil {
			return err
		}
		return each(ctx, query+" AND "+column+" IN "+askedSubjects)
	}
	if users {
		type member struct{ user, account, role string }
		if err := ask("SELECT user_id, account_id, role FROM users_today WHERE app_id = ?", "user_id", one, func(ctx context.Context, query string) error {
			return tables.Each(ctx, s.conn, func(m *member) []any { return []any{&m.user, &m.account, &m.role} }, func(m *member) {
				f.accountOf[m.user], f.roles[m.user] = m.account, m.role
				if many != nil {
					many[m.account] = struct{}{}
				}
			}, query, app)
		}); err != nil {
			return nil, fmt.Errorf("read roles: %w", err)
		}
		if err := ask("SELECT user_id, traits FROM users WHERE app_id = ?", "user_id", one, func(ctx context.Context, query string) (err error) {
			f.traits[insight.LevelUser], err = tables.CollectMap[string, map[string]string](ctx, s.conn, query, app)
			return err
		}); err != nil {
			return nil, fmt.Errorf("read traits of users: %w", err)
		}
	}
	if accounts {
		if err := ask("SELECT account_id, traits FROM accounts WHERE app_id = ?", "account_id", many, func(ctx context.Context, query string) (err error) {
			f.traits[insight.LevelAccount], err = tables.CollectMap[string, map[string]string](ctx, s.conn, query, app)
			return err
		}); err != nil {
			return nil, fmt.Errorf("read traits of accounts: %w", err)
		}
	}
	f.asked = map[string]map[string]struct{}{insight.LevelAccount: many, insight.LevelUser: one}
	return f, nil
}

// exclusions are those whom the definitions in force leave out of usage, by kind: account,
// user or anonymous.
type exclusions map[string]map[string]bool

// exclusions reads them; nil: the database has no definitions of exclusions.
func (s store) exclusions(ctx context.Context, app string) (exclusions, error) {
	if has, err := s.excludes(ctx); err != nil || !has {
		return nil, err
	}
	all := exclusions{insight.LevelAccount: {}, insight.LevelUser: {}, event.ActorAnonymous: {}}
	type exclusion struct{ kind, id string }
	if err := tables.Each(ctx, s.conn, func(x *exclusion) []any { return []any{&x.kind, &x.id} }, func(x *exclusion) {
		if ids, ok := all[x.kind]; ok {
			ids[x.id] = true
		}
	}, "SELECT toString(kind), id FROM exclusions(app = ?)", app); err != nil {
		return nil, fmt.Errorf("read exclusions: %w", err)
	}
	return all, nil
}

func (e exclusions) equal(o exclusions) bool {
	return maps.EqualFunc(e, o, func(a, b map[string]bool) bool { return maps.Equal(a, b) })
}

// applied are the definitions that `insight apply` put in force, by app.
func (s store) applied(ctx context.Context) (map[string]*insight.Definitions, error) {
	apps, err := tables.CollectColumn[string](ctx, s.conn, "SELECT DISTINCT app_id FROM insight_versions ORDER BY app_id")
	if err != nil {
		return nil, fmt.Errorf("read which apps have definitions: %w", err)
	}
	all := map[string]*insight.Definitions{}
	for _, app := range apps {
		d := &insight.Definitions{}
		err := tables.Each(ctx, s.conn, func(r *insight.Rule) []any { return []any{&r.Use, &r.Match, &r.Key, &r.Value} }, func(r *insight.Rule) {
			if r.Use != insight.UseVersion {
				d.Rules = append(d.Rules, *r)
			}
		}, "SELECT toString(use), toString(match), key, value FROM insight_definitions(app = ?)", app)
		if err == nil {
			d.Signals, err = insight.SignalsOf(d.Rules)
		}
		if err != nil {
			return nil, fmt.Errorf("read the definitions of app %s: %w", app, err)
		}
		all[app] = d
	}
	return all, nil
}

// excludes reports whether the database has definitions of exclusions.
func (s store) excludes(ctx context.Context) (has bool, err error) {
	var n uint64
	if err := s.conn.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'exclusions'").Scan(&n); err != nil {
		return false, fmt.Errorf("look for exclusions: %w", err)
	}
	return n > 0, nil
}

// reading is what a round reads.
type reading struct {
	app        string
	list       []*definition
	now        func(step time.Duration) evaluate.Tick // the present tick of a step
	horizon    time.Duration
	exclusions exclusions
	scope      *scope // nil: all subjects
}

// read reads the data that the signals need up to the present tick of each step.
func (s store) read(ctx context.Context, r reading) (*facts, error) {
	f, err := s.who(ctx, r.app, r.list, r.scope)
	if err != nil {
		return nil, err
	}
	f.excluded = r.exclusions
	type need struct {
		m     *insight.Measure
		level string
		step  time.Duration
		back  evaluate.Tick
	}
	needs := map[string]*need{}
	for _, sig := range r.list {
		sig.measures(func(m *insight.Measure, level string, back evaluate.Tick) {
			key := measureKey(m, level, sig.step)
			if needs[key] == nil {
				needs[key] = &need{m: m, level: level, step: sig.step}
			}
			needs[key].back = max(needs[key].back, back+sig.longestFor())
		})
	}
	for key, n := range needs {
		to := r.now(n.step) + 1
		if f.points[key], err = s.points(ctx, &question{
			app: r.app, m: n.m, level: n.level, step: n.step, from: to - ticks(r.horizon, n.step) - n.back - 2, to: to,
			excluded: r.exclusions, only: f.asked[n.level],
		}); err != nil {
			return nil, err
		}
	}
	return f, nil
}
