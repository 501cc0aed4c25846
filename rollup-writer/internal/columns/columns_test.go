package columns_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/rollup-writer/internal/sqltest"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/event"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

var source = columns.Source{TopicID: "AAAA", Partition: 3}

// server returns a migrated database, by SQL and as a connection of the writer.
func server(t testing.TB) (driver.Conn, writer) {
	t.Helper()
	addr, db := sqltest.Database(t)
	cfg := clickhouse.DefaultConfig()
	cfg.Addr, cfg.Database = addr, db
	sql := sqltest.Open(t, &cfg)
	conn, err := clickhouse.NewConn(&cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return sql, writer{conn, cfg.Schema()}
}

// writer names tables without databases.
type writer struct {
	*clickhouse.Conn
	schema tables.Schema
}

func (w writer) Insert(ctx context.Context, table string, b clickhouse.Block, token string) error {
	return w.Conn.Insert(ctx, w.schema.Local(table), b, token)
}

func sample(i int) *event.EnrichedEvent {
	at := event.FromTime(time.Date(2026, 11, 21, 12, 0, 0, i*1000, time.UTC))
	e := &event.EnrichedEvent{
		AppID: "dev", Kind: event.KindTrack, Event: "Item Scanned", MessageID: fmt.Sprintf("m-%d", i), UserID: "u-1", AnonymousID: "a-1", PreviousID: "p-1",
		LinkedUserID: "l-1", ActorID: "u-1", ActorKind: event.ActorUser, AccountID: "acct-1", AccountSource: event.AccountFromEvent, ParentAccountID: "parent-1", Role: "cashier",
		FeatureID: "item_scanned", ModuleID: "billing", ProductID: "mypos_sales", CatalogVersion: 7,
		EventTime: at, Timestamp: at + 1, SentAt: at + 2, ReceivedAt: at + 3, Quantity: 3,
		Properties: []byte(`{"sku":"4006381333931","price":1.5,"day":"2026-11-21"}`), Traits: []byte(`{"plan":"pro"}`), Context: []byte(`{"locale":"de-DE"}`),
		Conflicts: []byte(`{"price":"free"}`), SessionID: "s-1", Protocol: "segment", Library: "analytics-node/3.1.0", IP: "192.0.2.0", UserAgent: "ua/1",
		Flags: "time_skew", RawOffset: 42, Metric: []byte(`{"numbers":{"":1}}`),
		Client: event.Client{Country: "AT", Browser: "Firefox", OS: "Linux", DeviceClass: "desktop", Referrer: "search.example", UTMSource: "news", UTMMedium: "mail", UTMCampaign: "may"},
	}
	if i%2 == 1 {
		*e = event.EnrichedEvent{AppID: "dev", Kind: event.KindIdentify, MessageID: fmt.Sprintf("m-%d", i), EventTime: at, ReceivedAt: at, Quantity: 1}
	}
	return e
}

// Every field of a record arrives in its column, and absent ones as absent.
func TestEventsArriveAsTheyWereAppended(t *testing.T) {
	ctx := context.Background()
	sql, conn := server(t)
	b := columns.NewEvents()
	for range 2 { // a block is used again
		b.Reset()
		for i := range 4 {
			b.Append(source, int64(100+i), sample(i))
		}
	}
	if b.Rows() != 4 {
		t.Fatalf("block has %d rows, want 4", b.Rows())
	}
	if err := conn.Insert(ctx, "events", b, "t1"); err != nil {
		t.Fatal(err)
	}
	rows, err := sql.Query(ctx, `SELECT app_id, kind, event, message_id, user_id, anonymous_id, previous_id, linked_user_id, actor_id, actor_kind, account_id, account_source,
		parent_account_id, role, feature_id, module_id, product_id, catalog_version, event_time, timestamp, sent_at, received_at, quantity,
		toString(properties), toString(traits), metric, context, conflicts, session_id, protocol, library, ip, user_agent, flags, raw_offset,
		country, browser, os, device_class, referrer, utm_source, utm_medium, utm_campaign, source_topic_id, source_partition, source_offset FROM events ORDER BY source_offset`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	i := 0
	for ; rows.Next(); i++ {
		var (
			e                      event.EnrichedEvent
			at, received           time.Time
			timestamp, sentAt      *time.Time
			properties, traits     string
			metric                 string
			contextText, conflicts string
			topicID                string
			partition              int32
			offset                 int64
		)
		err := rows.Scan(&e.AppID, &e.Kind, &e.Event, &e.MessageID, &e.UserID, &e.AnonymousID, &e.PreviousID, &e.LinkedUserID, &e.ActorID, &e.ActorKind, &e.AccountID, &e.AccountSource,
			&e.ParentAccountID, &e.Role, &e.FeatureID, &e.ModuleID, &e.ProductID, &e.CatalogVersion, &at, &timestamp, &sentAt, &received, &e.Quantity,
			&properties, &traits, &metric, &contextText, &conflicts, &e.SessionID, &e.Protocol, &e.Library, &e.IP, &e.UserAgent, &e.Flags, &e.RawOffset,
			&e.Country, &e.Browser, &e.OS, &e.DeviceClass, &e.Referrer, &e.UTMSource, &e.UTMMedium, &e.UTMCampaign, &topicID, &partition, &offset)
		if err != nil {
			t.Fatal(err)
		}
		e.EventTime, e.ReceivedAt = event.FromTime(at), event.FromTime(received)
		if timestamp != nil {
			e.Timestamp = event.FromTime(*timestamp)
		}
		if sentAt != nil {
			e.SentAt = event.FromTime(*sentAt)
		}
		if contextText != "" {
			e.Context = []byte(contextText)
		}
		if conflicts != "" {
			e.Conflicts = []byte(conflicts)
		}
		if metric != "" {
			e.Metric = []byte(metric)
		}
		want := *sample(i)
		for _, o := range []struct {
			name, got string
			want      []byte
		}{{"properties", properties, want.Properties}, {"traits", traits, want.Traits}} {
			if len(o.want) == 0 {
				o.want = []byte("{}")
			}
			if !sameJSON(t, o.got, string(o.want)) {
				t.Errorf("row %d: %s: got %s, want %s", i, o.name, o.got, o.want)
			}
		}
		want.Properties, want.Traits = nil, nil
		if !reflect.DeepEqual(e, want) {
			t.Errorf("row %d:\ngot  %+v\nwant %+v", i, e, want)
		}
		if topicID != source.TopicID || partition != source.Partition || offset != int64(100+i) {
			t.Errorf("row %d comes from %s/%d@%d", i, topicID, partition, offset)
		}
	}
	if err := rows.Err(); err != nil || i != 4 {
		t.Fatalf("read %d rows, want 4: %v", i, err)
	}
	// What was sent as a string is a string, whatever it looks like.
	var types map[string]string
	if err := sql.QueryRow(ctx, "SELECT JSONAllPathsWithTypes(properties) FROM events WHERE source_offset = 100").Scan(&types); err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"sku": "String", "price": "Float64", "day": "String"}; !reflect.DeepEqual(types, want) {
		t.Errorf("types of properties: got %v, want %v", types, want)
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var va, vb any
	if err := errors.Join(json.Unmarshal([]byte(a), &va), json.Unmarshal([]byte(b), &vb)); err != nil {
		t.Fatalf("%v in %s or %s", err, a, b)
	}
	return reflect.DeepEqual(va, vb)
}

// A block's columns have exactly the types of the table's: from others the
// server converts each row.
func TestColumnsHaveTheTablesTypes(t *testing.T) {
	ctx := context.Background()
	sql, _ := server(t)
	for table, b := range map[string]clickhouse.Block{
		"events": columns.NewEvents(), "rejected_events": columns.NewRejected(),
		"corrections": columns.NewCorrections(), "correction_plans": columns.NewPlan(),
	} {
		want := map[string]string{}
		rows, err := sql.Query(ctx, "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = ?", table)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var name, kind string
			if err := rows.Scan(&name, &kind); err != nil {
				t.Fatal(err)
			}
			want[name] = kind
		}
		got := map[string]string{}
		for _, c := range b.Input() {
			got[c.Name] = string(c.Data.Type())
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("columns of %s:\ngot  %v\nwant %v", table, got, want)
		}
	}
}

// More distinct values than a byte or two count, and all tables' blocks.
func TestDictionariesOfEveryWidth(t *testing.T) {
	ctx := context.Background()
	sql, conn := server(t)
	for _, n := range []int{1, 200, 300, 70_000} {
		b := columns.NewRejected()
		for i := range n {
			b.Append(source, int64(i), &event.Rejected{AppID: fmt.Sprint("app-", n), Code: fmt.Sprint("code-", i), Original: []byte{0, 255, byte(i)}, SourcePartition: -1, SourceOffset: -1})
		}
		if err := conn.Insert(ctx, "rejected_events", b, fmt.Sprint("r", n)); err != nil {
			t.Fatal(err)
		}
		var rows, wrong uint64
		err := sql.QueryRow(ctx, "SELECT count(), countIf(code != concat('code-', toString(source_offset)) OR length(original) != 3 OR raw_offset != -1) FROM rejected_events WHERE app_id = ?",
			fmt.Sprint("app-", n)).Scan(&rows, &wrong)
		if err != nil || rows != uint64(n) || wrong != 0 {
			t.Errorf("%d values: %d rows, %d wrong: %v", n, rows, wrong, err)
		}
	}
}

func TestCorrectionsArrive(t *testing.T) {
	ctx := context.Background()
	sql, conn := server(t)
	ctl := &columns.Control{Source: source, AppID: "dev", Offset: 9, ID: "c-1", Kind: "move", Block: 4, CorrectedAt: 1_795_000_000_123}
	s := &columns.Signed{
		Attribution: columns.Attribution{
			AccountID: "acct", AccountSource: "event", ActorID: "u", ActorKind: "user", UserID: "u", AnonymousID: "a",
			FeatureID: "f", ModuleID: "m", ProductID: "p", Role: "r", Event: "e",
		},
		Hour: 1_795_000_000 / 3600 * 3600, Events: -2, Quantity: -5,
	}
	const row = "dev acct event u user u a f m p r e 2026-11-18 11:00:00 3 -2 -5 AAAA 9 c-1 move 2026-11-18 11:06:40.123"
	const none = "dev            1970-01-01 00:00:00 3 0 0 AAAA 9 c-1 move 2026-11-18 11:06:40.123"
	plan, corrections := columns.NewPlan(), columns.NewCorrections()
	corrections.Append(ctl, s, 7)
	plan.AppendPlanned(ctl, s, 11, 2, 7)
	plan.AppendReason(ctl, 11, "{}")
	plan.AppendHead(ctl, &columns.Plan{ID: 11, End: 99, Chunks: []columns.Chunk{{Rows: 2, Events: 3, Quantity: 4}, {Rows: 5, Events: 6, Quantity: 7}}})
	for _, tc := range []struct {
		table, columns string
		block          *columns.Corrections
		want           []string
	}{
		{"corrections", "block, row", corrections, []string{row + " 4 7"}},
		{
			"correction_plans", "block, row, plan, chunk, reason, block_end, chunk_rows, chunk_events, chunk_quantity", plan,
			[]string{none + " 4 0 11 0  99 [2,5] [3,6] [4,7]", none + " 4 0 11 0 {} 0 [] [] []", row + " 4 7 11 2  0 [] [] []"},
		},
	} {
		if err := conn.Insert(ctx, tc.table, tc.block, "c"); err != nil {
			t.Fatal(err)
		}
		const first = "app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition, " +
			"events, quantity, source_topic_id, source_offset, control_id, control_kind, corrected_at, "
		var got []string
		query := "SELECT arraySort(groupArray(arrayStringConcat(arrayMap(x -> toString(x), [" + strings.ReplaceAll("toString("+first+tc.columns+")", ", ", "), toString(") + "]), ' '))) FROM " + tc.table
		if err := sql.QueryRow(ctx, query).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.table, got, tc.want)
		}
	}
}

// Rows are read back from the columns as the view usage_hourly_from_events sees
// them.
func TestEachCountedIsTheView(t *testing.T) {
	ctx := context.Background()
	sql, conn := server(t)
	b := columns.NewEvents()
	for i := range 300 {
		e := event.EnrichedEvent{
			AppID: fmt.Sprint("app-", i%2), Kind: []string{event.KindTrack, event.KindIdentify, event.KindPage, event.KindMetric}[i%4], Event: fmt.Sprint("e", i%7), MessageID: fmt.Sprint(i),
			ActorID: strings.Repeat("x", i), ActorKind: event.ActorUser, AccountID: fmt.Sprint("acct-", i%3), AccountSource: event.AccountFromEvent, Role: fmt.Sprint("r", i%2),
			FeatureID: fmt.Sprint("f-", i%5), ModuleID: "m", ProductID: "p", EventTime: 1_795_000_000_000_000 + int64(i)*777_777_777, Quantity: int64(i),
			AnonymousID: fmt.Sprint("a", i%11),
		}
		switch i % 3 {
		case 0:
			e.UserID = fmt.Sprint("u", i)
		case 1:
			e.LinkedUserID = "linked"
		}
		b.Append(source, int64(1000+i), &e)
	}
	if err := conn.Insert(ctx, "events", b, "counted"); err != nil {
		t.Fatal(err)
	}
	sums := map[string][2]int64{}
	last := int64(0)
	b.EachCounted(func(app string, offset, _ int64, s *columns.Signed) {
		if offset <= last {
			t.Errorf("offset %d came after %d", offset, last)
		}
		last = offset
		key := app + " " + fmt.Sprint(s.Hour)
		for _, c := range columns.AttributionColumns {
			key += " " + *c.Of(&s.Attribution)
		}
		v := sums[key]
		sums[key] = [2]int64{v[0] + s.Events, v[1] + s.Quantity}
	})
	rows, err := sql.Query(ctx, "SELECT arrayStringConcat(arrayMap(x -> toString(x), [toString(app_id), toString(toUnixTimestamp(hour)), toString("+
		strings.Join(tables.Attribution, "), toString(")+")]), ' ') AS k, sum(events), sum(quantity) FROM usage_hourly GROUP BY k")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var key string
		var events, quantity int64
		if err := rows.Scan(&key, &events, &quantity); err != nil {
			t.Fatal(err)
		}
		if n++; sums[key] != [2]int64{events, quantity} {
			t.Errorf("%q: got %v, want %d and %d", key, sums[key], events, quantity)
		}
	}
	if n != len(sums) || n == 0 {
		t.Errorf("%d cells, the view has %d", len(sums), n)
	}
}

// texts are objects and what is no object, with whether ClickHouse reads them.
var texts = []struct {
	text string
	ok   bool
}{
	{`{}`, true},
	{` {"a" : [1, -2.5, {"b":null}, true, "x"]} `, true},
	{`{"a":18446744073709551615,"b":-9223372036854775808,"c":1e300}`, true},
	{`{"a":"\ud83d\ude00 \u0000 \n"}`, true},
	{`{"a":1,"a":{"b":2},"":3}`, true},
	{`{"a":18446744073709551616}`, false},
	{`{"a":-9223372036854775809}`, false},
	{`{"a":1e400}`, false},
	{`{"a":"\ud800"}`, false},
	{`{"a":"\ud800\u0041"}`, false},
	{`{"a":"\udc00"}`, false},
	{"{\"a\":\"\xff\"}", false},
	{`{"a":1} x`, false},
	{`[1]`, false},
	{`"a"`, false},
	{`7`, false},
	{`{"a":01}`, false},
	{`{"a":1,}`, false},
	{``, true},
	{strings.Repeat(`{"a":`, 400) + "1" + strings.Repeat("}", 400), true},
	{strings.Repeat(`{"a":`, 1200) + "1" + strings.Repeat("}", 1200), false},
}

// A block that the server refuses for its data goes in after Repair: every text
// that it does read stays an object, every other one is kept whole.
func TestRepairKeepsWhatClickHouseDoesNotRead(t *testing.T) {
	ctx := context.Background()
	sql, conn := server(t)
	b := columns.NewEvents()
	refused := 0
	for i, tc := range texts {
		e := sample(0)
		e.Properties = []byte(tc.text)
		b.Append(source, int64(i), e)
		if !tc.ok {
			refused++
		}
		one := columns.NewEvents()
		one.Append(source, int64(1000+i), e)
		err := conn.Insert(ctx, "events", one, fmt.Sprint("one", i))
		if (err == nil) != tc.ok {
			t.Errorf("text %.40q: insert says %v, want ok=%v", tc.text, err, tc.ok)
		}
		if err != nil && clickhouse.Classify(err) != clickhouse.Data {
			t.Errorf("text %.40q: class of %v is %s, want %s", tc.text, err, clickhouse.Classify(err), clickhouse.Data)
		}
	}
	if err := conn.Insert(ctx, "events", b, "all"); clickhouse.Classify(err) != clickhouse.Data {
		t.Fatalf("the block with all texts: got %v", err)
	}
	if n := b.Repair(false); n != refused {
		t.Errorf("repaired %d texts, want %d", n, refused)
	}
	if err := conn.Insert(ctx, "events", b, "all"); err != nil {
		t.Fatalf("after repair: %v", err)
	}
	for i, tc := range texts {
		var plain, base64Text string
		var objects uint64
		err := sql.QueryRow(ctx, "SELECT ifNull(properties._unread::Nullable(String), ''), ifNull(properties._unread_base64::Nullable(String), ''), count() OVER () FROM events WHERE source_offset = ?", i).Scan(&plain, &base64Text, &objects)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := base64.StdEncoding.DecodeString(base64Text); err == nil && len(raw) > 0 {
			plain = string(raw)
		}
		want := tc.text
		if tc.ok {
			want = ""
		}
		if plain != want {
			t.Errorf("text %.40q is kept as %.40q", tc.text, plain)
		}
	}
	if n := b.Repair(true); n == 0 {
		t.Error("Repair(true) left every text")
	}
	if err := conn.Insert(ctx, "events", b, "trusting none"); err != nil {
		t.Errorf("after repair of all: %v", err)
	}
}

// generate makes events as a point of sale sends them.
func generate(n int) []event.EnrichedEvent {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]event.EnrichedEvent, n)
	at := event.FromTime(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	for i := range out {
		u, f := r.IntN(5000), r.IntN(40)
		out[i] = event.EnrichedEvent{
			AppID: "dev", Kind: event.KindTrack, Event: fmt.Sprintf("Item Event %d", f), MessageID: fmt.Sprintf("%016x-%016x", r.Uint64(), r.Uint64()),
			UserID: fmt.Sprintf("user-%d", u), ActorID: fmt.Sprintf("user-%d", u), ActorKind: event.ActorUser, AccountID: fmt.Sprintf("acct-%d", u/20), AccountSource: event.AccountFromEvent,
			Role: []string{"cashier", "manager", ""}[u%3], FeatureID: fmt.Sprintf("feature_%d", f), ModuleID: fmt.Sprintf("module_%d", f/5), ProductID: fmt.Sprintf("product_%d", f/15), CatalogVersion: 7,
			EventTime: at + int64(i)*20, Timestamp: at + int64(i)*20, SentAt: at + int64(i)*20 + 5000, ReceivedAt: at + int64(i)*20 + 9000, Quantity: 1,
			Properties: fmt.Appendf(nil, `{"sku":"400638133%04d","price":%d.5,"currency":"EUR","store":"store-%d","lane":%d,"payment":{"method":"card","brand":"visa"},"offline":%v,"note":%q}`,
				r.IntN(10000), r.IntN(100), r.IntN(50), r.IntN(9), i%3 == 0, strings.Repeat("x", r.IntN(60))),
			Context:  []byte(`{"library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"de-DE","timezone":"Europe/Berlin"}`),
			Protocol: "segment", Library: "@segment/analytics-node/3.1.0", IP: "192.0.2.1", UserAgent: "node-fetch/1.0", RawOffset: int64(i),
		}
	}
	return out
}

const blockRows = 20_000

// Building a block, per row: own columns, and the two ways of clickhouse-go that
// they were chosen over.
func BenchmarkBuild(b *testing.B) {
	events := generate(blockRows)
	size, codec := int64(0), event.NewCodec()
	for i := range events {
		size += int64(len(codec.AppendEnriched(nil, &events[i])))
	}
	per := func(b *testing.B) {
		b.SetBytes(size)
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/blockRows, "ns/row")
	}
	b.Run("own", func(b *testing.B) {
		c := columns.NewEvents()
		b.ReportAllocs()
		for range b.N {
			c.Reset()
			for i := range events {
				c.Append(source, int64(i), &events[i])
			}
		}
		per(b)
	})
	// The same rows as ClickHouse's own driver takes them, into a table without
	// storage so that building and sending is what is measured.
	ctx := context.Background()
	sql, conn := server(b)
	if err := sql.Exec(ctx, "CREATE TABLE "+conn.schema.Table("nothing")+" AS events ENGINE = Null"); err != nil {
		b.Fatal(err)
	}
	b.Run("own and send", func(b *testing.B) {
		c := columns.NewEvents()
		b.ReportAllocs()
		for i := range b.N {
			c.Reset()
			for i := range events {
				c.Append(source, int64(i), &events[i])
			}
			if err := conn.Insert(ctx, "nothing", c, fmt.Sprint(i)); err != nil {
				b.Fatal(err)
			}
		}
		per(b)
	})
	names := slices.Collect(func(yield func(string) bool) {
		for _, c := range columns.NewEvents().Input() {
			if !yield(c.Name) {
				return
			}
		}
	})
	insert := "INSERT INTO nothing (" + strings.Join(names, ", ") + ")"
	b.Run("clickhouse-go rows and send", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			batch, err := sql.PrepareBatch(ctx, insert)
			if err != nil {
				b.Fatal(err)
			}
			for i := range events {
				if err := batch.Append(fields(&events[i], int64(i))...); err != nil {
					b.Fatal(err)
				}
			}
			if err := batch.Send(); err != nil {
				b.Fatal(err)
			}
		}
		per(b)
	})
	b.Run("clickhouse-go columns and send", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			batch, err := sql.PrepareBatch(ctx, insert)
			if err != nil {
				b.Fatal(err)
			}
			if err := appendColumns(batch, events); err != nil {
				b.Fatal(err)
			}
			if err := batch.Send(); err != nil {
				b.Fatal(err)
			}
		}
		per(b)
	})
}

func fields(e *event.EnrichedEvent, offset int64) []any {
	return []any{
		e.AppID, e.Kind, e.Event, e.MessageID, e.UserID, e.AnonymousID, e.PreviousID, e.LinkedUserID, e.ActorID, e.ActorKind, e.AccountID, e.AccountSource,
		e.ParentAccountID, e.Role, e.FeatureID, e.ModuleID, e.ProductID, e.CatalogVersion, event.ToTime(e.EventTime), event.ToTime(e.Timestamp), event.ToTime(e.SentAt), event.ToTime(e.ReceivedAt), e.Quantity,
		string(e.Properties), "{}", string(e.Metric), string(e.Context), string(e.Conflicts), e.SessionID, e.Protocol, e.Library, e.IP, e.UserAgent,
		e.Country, e.Browser, e.OS, e.DeviceClass, e.Referrer, e.UTMSource, e.UTMMedium, e.UTMCampaign, e.Flags, e.RawOffset,
		source.TopicID, source.Partition, offset,
	}
}

func appendColumns(batch driver.Batch, events []event.EnrichedEvent) error {
	n := len(events)
	strs := func(get func(*event.EnrichedEvent) string) []string {
		v := make([]string, n)
		for i := range events {
			v[i] = get(&events[i])
		}
		return v
	}
	longs := func(get func(*event.EnrichedEvent) int64) []int64 {
		v := make([]int64, n)
		for i := range events {
			v[i] = get(&events[i])
		}
		return v
	}
	times := func(get func(*event.EnrichedEvent) int64) []time.Time {
		v := make([]time.Time, n)
		for i := range events {
			v[i] = event.ToTime(get(&events[i]))
		}
		return v
	}
	optional := func(get func(*event.EnrichedEvent) int64) []*time.Time {
		v := make([]*time.Time, n)
		for i := range events {
			at := event.ToTime(get(&events[i]))
			v[i] = &at
		}
		return v
	}
	partitions := make([]int32, n)
	type E = event.EnrichedEvent
	all := []any{
		strs(func(e *E) string { return e.AppID }), strs(func(e *E) string { return e.Kind }), strs(func(e *E) string { return e.Event }), strs(func(e *E) string { return e.MessageID }),
		strs(func(e *E) string { return e.UserID }), strs(func(e *E) string { return e.AnonymousID }), strs(func(e *E) string { return e.PreviousID }), strs(func(e *E) string { return e.LinkedUserID }),
		strs(func(e *E) string { return e.ActorID }), strs(func(e *E) string { return e.ActorKind }), strs(func(e *E) string { return e.AccountID }), strs(func(e *E) string { return e.AccountSource }),
		strs(func(e *E) string { return e.ParentAccountID }), strs(func(e *E) string { return e.Role }), strs(func(e *E) string { return e.FeatureID }), strs(func(e *E) string { return e.ModuleID }),
		strs(func(e *E) string { return e.ProductID }), longs(func(e *E) int64 { return e.CatalogVersion }), times(func(e *E) int64 { return e.EventTime }), optional(func(e *E) int64 { return e.Timestamp }),
		optional(func(e *E) int64 { return e.SentAt }), times(func(e *E) int64 { return e.ReceivedAt }), longs(func(e *E) int64 { return e.Quantity }), strs(func(e *E) string { return string(e.Properties) }),
		strs(func(*E) string { return "{}" }), strs(func(e *E) string { return string(e.Metric) }), strs(func(e *E) string { return string(e.Context) }), strs(func(e *E) string { return string(e.Conflicts) }), strs(func(e *E) string { return e.SessionID }),
		strs(func(e *E) string { return e.Protocol }), strs(func(e *E) string { return e.Library }), strs(func(e *E) string { return e.IP }), strs(func(e *E) string { return e.UserAgent }),
		strs(func(e *E) string { return e.Country }), strs(func(e *E) string { return e.Browser }), strs(func(e *E) string { return e.OS }), strs(func(e *E) string { return e.DeviceClass }),
		strs(func(e *E) string { return e.Referrer }), strs(func(e *E) string { return e.UTMSource }), strs(func(e *E) string { return e.UTMMedium }), strs(func(e *E) string { return e.UTMCampaign }),
		strs(func(e *E) string { return e.Flags }), longs(func(e *E) int64 { return e.RawOffset }), strs(func(*E) string { return source.TopicID }), partitions, longs(func(e *E) int64 { return e.RawOffset }),
	}
	for i, c := range all {
		if err := batch.Column(i).Append(c); err != nil {
			return err
		}
	}
	return nil
}

// Inserting a block into events: the table alone, with the rollups that hang on
// it, and the same without tokens and dedup windows. Server µs is the processor
// time of ClickHouse, merges included; wall time says little on a busy machine.
func BenchmarkInsert(b *testing.B) {
	list := generate(blockRows)
	drop := func(views ...string) (statements []string) {
		for _, v := range views {
			statements = append(statements, "DROP VIEW "+v+" SYNC")
		}
		return statements
	}
	accounts := drop("account_feature_daily_view", "account_module_daily_view", "account_product_daily_view")
	users := drop("user_feature_daily_view")
	identity := drop("identity_facts_from_events")
	base := drop("usage_hourly_from_events")
	var windows []string
	for _, t := range tables.EventTables {
		windows = append(windows, "ALTER TABLE "+t+" RESET SETTING non_replicated_deduplication_window")
	}
	for _, v := range []struct {
		name  string
		token bool
		setup []string
	}{
		{"all", true, nil},
		{"all and counts", true, nil},
		{"without the index of visitors", true, []string{"ALTER TABLE events DROP INDEX visitor"}},
		{"without tokens and windows", false, windows},
		{"without users", true, users},
		{"without users and accounts", true, slices.Concat(users, accounts)},
		{"events and usage_hourly", true, slices.Concat(users, accounts, identity)},
		{"events", true, slices.Concat(base, identity)},
	} {
		b.Run(v.name, func(b *testing.B) {
			ctx := context.Background()
			sql, conn := server(b)
			for _, s := range v.setup {
				if err := sql.Exec(ctx, s); err != nil {
					b.Fatal(err)
				}
			}
			c := columns.NewEvents()
			for i := range list {
				c.Append(source, int64(i), &list[i])
			}
			counts := columns.NewCounts()
			for i := range 2 { // of two apps, or at the turn of an hour
				counts.Append(&columns.CountsOf{Source: source, RawTopicID: "raw"}, &event.Cell{AppID: fmt.Sprint("app-", i), Accepted: blockRows / 2, Stored: blockRows / 2})
			}
			pid := embedded.ForTest(b).Pid()
			before := cpuTime(b, pid)
			b.ResetTimer()
			for i := range b.N {
				token := ""
				if v.token {
					token = fmt.Sprint("t", i)
				}
				if err := conn.Insert(ctx, "events", c, token); err != nil {
					b.Fatal(err)
				}
				if v.name == "all and counts" {
					if err := conn.Insert(ctx, "audit_blocks", counts, token+"|counts"); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.StopTimer()
			rows := float64(b.N) * blockRows
			b.ReportMetric(float64((cpuTime(b, pid)-before).Microseconds())/rows, "server-µs/row")
			b.ReportMetric(float64(b.Elapsed().Microseconds())/rows, "wall-µs/row")
			var n uint64
			if err := sql.QueryRow(ctx, "SELECT count() FROM events").Scan(&n); err != nil || n != uint64(rows) {
				b.Errorf("events holds %d rows of %v: %v", n, rows, err)
			}
		})
	}
}

// cpuTime is what a process has used of the processors, from /proc/PID/stat.
func cpuTime(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Skip(err)
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := errors.Join(err1, err2); err != nil {
		tb.Fatal(err)
	}
	const tick = 10 * time.Millisecond // USER_HZ of Linux
	return time.Duration(user+system) * tick
}

// The columns of an attribution are those that the tables declare, and each
// names the same field of a row and of a move.
func TestAttributionColumns(t *testing.T) {
	var names []string
	for _, c := range columns.AttributionColumns {
		names = append(names, c.Name)
		var row columns.Attribution
		*c.Of(&row) = "v"
		// The field is named as the column: account_id is AccountID.
		field := strings.ReplaceAll(c.Name, "_", "")
		value := reflect.ValueOf(row).FieldByNameFunc(func(s string) bool { return strings.EqualFold(s, field) })
		if !value.IsValid() || value.String() != "v" {
			t.Errorf("column %s: the row is %+v", c.Name, row)
		}
		var move event.Attribution
		v := "w"
		reflect.ValueOf(&move).Elem().FieldByNameFunc(func(s string) bool { return strings.EqualFold(s, field) }).Set(reflect.ValueOf(&v))
		if got := c.Named(&move); got != &v {
			t.Errorf("column %s: another field of the move is read", c.Name)
		}
	}
	if !slices.Equal(names, tables.Attribution) {
		t.Errorf("got %v, want %v", names, tables.Attribution)
	}
}
