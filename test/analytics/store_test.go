package analytics

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

// store is a fresh database with the product's schema.
type store struct {
	conn     driver.Conn
	internal string // database of the tables that programs fill
}

func newStore(t *testing.T) store {
	t.Helper()
	addr, db := embedded.Database(t)
	conn, err := clickhousego.Open(&clickhousego.Options{Addr: []string{addr}, Auth: clickhousego.Auth{Database: db}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	schema := clickhouse.Schema{Database: db, Form: clickhouse.SingleForm()}
	if _, err := schema.Apply(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	s := store{conn: conn, internal: clickhouse.Internal(db)}
	s.exec(t, "SYSTEM STOP MERGES "+s.internal+".usage_hourly") // what corrections emptied stays
	return s
}

func (s store) exec(t *testing.T, q string) {
	t.Helper()
	if err := s.conn.Exec(t.Context(), q); err != nil {
		t.Fatalf("%v in %.2000s", err, q)
	}
}

// text quotes a string for SQL.
func text(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }

func tuple(values ...any) string {
	words := make([]string, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case string:
			words[i] = text(v)
		case time.Time:
			words[i] = text(v.UTC().Format("2006-01-02 15:04:05.000000"))
		default:
			words[i] = fmt.Sprint(v)
		}
	}
	return "(" + strings.Join(words, ", ") + ")"
}

// insert inserts rows, if there are any.
func (s store) insert(t *testing.T, table, columns string, rows []string) {
	t.Helper()
	for len(rows) > 0 {
		n := min(len(rows), 2000)
		s.exec(t, "INSERT INTO "+table+" ("+columns+") VALUES "+strings.Join(rows[:n], ", "))
		rows = rows[n:]
	}
}

const topic = "t1"

// load inserts a world as the writer would have: events as they arrived, and the
// rows of the corrections.
func (s store) load(t *testing.T, w *World) {
	t.Helper()
	s.arrive(t, w)
	s.correct(t, corrections(w))
}

// arrive inserts a world's events as they arrived.
func (s store) arrive(t *testing.T, w *World) {
	t.Helper()
	var events, earlier, facts []string
	for i, e := range w.Events {
		all := []any{
			w.App, e.Kind, e.Name, fmt.Sprintf("m%d", i), e.User, e.Anonymous, e.Linked, e.Arrival.Actor, e.Arrival.ActorKind, e.Arrival.Account,
			e.Arrival.AccountSource, e.Arrival.Role, e.Arrival.Feature, e.Arrival.Module, e.Arrival.Product, e.Time, e.Time.Add(time.Second), e.Quantity, e.Properties, e.Agent, topic, e.Partition, e.Offset,
		}
		if i%2 == 0 { // as of a release that had no columns for it
			earlier = append(earlier, tuple(append(all, e.Touch.Context())...))
			continue
		}
		events = append(events, tuple(append(all, host(e.Touch.Referrer), e.Touch.Source, e.Touch.Medium, e.Touch.Campaign)...))
	}
	stated := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for id, traits := range w.UserTraits {
		facts = append(facts, tuple(w.App, "identify", id, "", "none", "", "t"+id, traitsJSON(traits), stated, topic, 0, 0))
	}
	for id, traits := range w.AccountTraits {
		facts = append(facts, tuple(w.App, "group", "", id, "event", "", "g"+id, traitsJSON(traits), stated, topic, 0, 0))
	}
	for _, m := range w.Members {
		facts = append(facts, tuple(w.App, "group", m.User, m.Account, "event", m.Role, "m"+m.User, "{}", m.Since, topic, 0, 0))
	}
	const common = "app_id, kind, event, message_id, user_id, anonymous_id, linked_user_id, actor_id, actor_kind, account_id, account_source, role, feature_id, module_id, product_id, " +
		"event_time, received_at, quantity, properties, user_agent, source_topic_id, source_partition, source_offset"
	s.insert(t, "events", common+", referrer, utm_source, utm_medium, utm_campaign", events)
	s.insert(t, "events", common+", context", earlier)
	s.insert(t, "events", "app_id, kind, user_id, account_id, account_source, role, message_id, traits, event_time, source_topic_id, source_partition, source_offset", facts)
	s.define(t, w.App, w.Definitions)
}

// corrections are the rows of a world's moves, two for each.
func corrections(w *World) (list []string) {
	rows := map[[2]int64]int{} // latest row of a block, by partition and offset of the block
	for _, m := range w.Moves {
		block := [2]int64{int64(m.Partition), m.Offset / 100 * 100} // of several control records
		for i, a := range []Whom{m.Old, m.New} {
			sign := int64(2*i - 1)
			rows[block]++
			part := m.Part
			if part[1].IsZero() {
				part = [2]time.Time{time.Unix(0, 0), time.Unix(0, 0)}
			}
			list = append(list, tuple(w.App, a.Account, a.AccountSource, a.Actor, a.ActorKind, a.User, m.Anonymous, a.Feature, a.Module, a.Product, a.Role, m.Event,
				m.Hour.UTC().Format(time.DateTime), part[0], part[1], m.Partition, sign*m.Events, sign*m.Quantity, topic, m.Offset, block[1], rows[block]))
		}
	}
	return list
}

// correct inserts rows of corrections.
func (s store) correct(t *testing.T, rows []string) {
	t.Helper()
	s.insert(t, s.internal+".corrections", "app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, part_from, part_to, source_partition, events, quantity, source_topic_id, source_offset, block, row", rows)
}

func traitsJSON(traits map[string]string) string {
	var parts []string
	for k, v := range traits {
		parts = append(parts, fmt.Sprintf("%q:%q", k, v))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// define writes definitions as version 2, and others as version 1 that are no
// longer in force.
func (s store) define(t *testing.T, app string, d Definitions) {
	t.Helper()
	rows := []string{tuple(app, 1, "activity", "feature", "", "bag"), tuple(app, 1, "exclude", "role", "", "cashier"), tuple(app, 2, "version", "", "", "")}
	add := func(use, match, key, value string) { rows = append(rows, tuple(app, 2, use, match, key, value)) }
	for _, f := range d.ActiveFeatures {
		add("activity", "feature", "", f)
	}
	for _, m := range d.ActiveModules {
		add("activity", "module", "", m)
	}
	for match, values := range map[string][]string{"user": d.ExcludedUsers, "account": d.ExcludedAccounts, "role": d.ExcludedRoles, "mail_domain": d.ExcludedDomains, "user_agent": d.ExcludedAgents} {
		for _, v := range values {
			add("exclude", match, "", v)
		}
	}
	if d.ExcludedTrait[0] != "" {
		add("exclude", "trait", d.ExcludedTrait[0], d.ExcludedTrait[1])
	}
	if d.ExcludedAccountTrait[0] != "" {
		add("exclude", "account_trait", d.ExcludedAccountTrait[0], d.ExcludedAccountTrait[1])
	}
	for use, rule := range map[string]string{"signup_page": d.SignupPage, "signup": d.Signup, "activation": d.Activation, "value": d.Value, "subscription": d.Subscribed, "paid": d.Paid, "friction": d.Friction} {
		match, value, _ := strings.Cut(rule, ":")
		add(use, match, "", value)
	}
	if d.SessionGap != 0 {
		add("session_gap", "", "", fmt.Sprint(int(d.SessionGap.Seconds())))
	}
	s.insert(t, s.internal+".insight_rules", "app_id, version, use, match, key, value", rows)
}

// rows runs a query and formats what it returns.
func (s store) rows(ctx context.Context, q string) ([]Row, error) {
	_, rows, err := s.table(ctx, q)
	return rows, err
}

// table is rows with the names of the columns.
func (s store) table(ctx context.Context, q string) (names Row, list []Row, err error) {
	rows, err := s.conn.Query(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	types := rows.ColumnTypes()
	for rows.Next() {
		into := make([]any, len(types))
		for i, t := range types {
			into[i] = reflect.New(t.ScanType()).Interface()
		}
		if err := rows.Scan(into...); err != nil {
			return nil, nil, err
		}
		r := make(Row, len(into))
		for i, v := range into {
			r[i] = scanned(reflect.ValueOf(v).Elem(), types[i].DatabaseTypeName())
		}
		list = append(list, r)
	}
	return rows.Columns(), list, rows.Err()
}

func scanned(v reflect.Value, name string) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "NULL"
		}
		v = v.Elem()
	}
	if t, ok := v.Interface().(time.Time); ok && strings.HasPrefix(name, "Date") && !strings.HasPrefix(name, "DateTime") {
		return t.Format(time.DateOnly)
	}
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String {
		return Format(v.Interface())
	}
	return Format(v.Interface())
}
