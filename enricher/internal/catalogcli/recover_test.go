package catalogcli

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/metadata"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/topic"
)

// shop is a table of events with conflicts, after a key was pinned.
type shop struct {
	*world
	db string
}

func newShop(t *testing.T) *shop {
	s := embedded.ForTest(t)
	_, db := embedded.Database(t)
	migrate(t, db)
	w := newWorld(t).withLog()
	w.env["UPTAKE_CLICKHOUSE_HTTP"] = "http://" + s.HTTPAddr()
	w.env["UPTAKE_CLICKHOUSE_DATABASE"] = db
	sh := &shop{w, db}
	for _, key := range []string{"properties.price float", "properties.day string", "properties.n integer", "properties.share float", "properties.tags array", "properties.tags.[] string", "traits.plan string"} {
		path, typ, _ := strings.Cut(key, " ")
		w.must("metadata", "pin", "-app", "dev", "-author", "x", "-reason", "y", path, typ)
	}
	for i, row := range [][3]string{
		{`{"price":12,"day":"2026-01-01","share":3.0}`, `{}`, ``},
		{`{"day":"2026-01-02","share":4.0}`, `{"plan":"pro"}`, `{"properties.price":4.9500000000000002}`},
		{`{"n":9007199254740993}`, `{}`, `{"properties.price":"7","properties.n#2":1}`},
		{`{}`, `{}`, `{"properties.price":"dear"}`},
		{`{"price":1.5}`, `{}`, `{"properties.price":{"$raw":"1e400"},"properties.tags":[1,2]}`},
	} {
		sh.query(fmt.Sprintf(`INSERT INTO events SETTINGS input_format_try_infer_dates = 0, input_format_try_infer_datetimes = 0
			FORMAT JSONEachRow {"app_id":"dev","kind":"track","event":"Paid","message_id":"m%d","received_at":"2026-%02d-01 00:00:00","event_time":"2026-01-01 00:00:00","quantity":1,"feature_id":"paid",
			"source_topic_id":"t","source_partition":0,"source_offset":%d,"properties":%s,"traits":%s,"conflicts":%q}`, i, 1+i, i, row[0], row[1], row[2]))
	}
	return sh
}

func (s *shop) query(q string) string {
	s.t.Helper()
	out, err := embedded.ForTest(s.t).Query(s.t.Context(), strings.NewReplacer("INTO events", "INTO "+s.db+".events", "FROM usage_hourly", "FROM "+s.db+"_internal.usage_hourly", "FROM ", "FROM "+s.db+".", "TABLE ", "TABLE "+s.db+".").Replace(q))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// rows returns the events with the types of their keys.
func (s *shop) rows() string {
	return s.query("SELECT message_id, toString(properties), toString(JSONAllPathsWithTypes(properties)), toString(traits), conflicts FROM events ORDER BY message_id FORMAT TSVRaw")
}

const (
	firstRow = `m0	{"day":"2026-01-01","price":12,"share":3}	{'day':'String','price':'Int64','share':'Float64'}	{}	` + "\n"
	lastRows = `m3	{}	{}	{}	{"properties.price":"dear"}
m4	{"price":1.5}	{'price':'Float64'}	{}	{"properties.price":{"$raw":"1e400"},"properties.tags":[1,2]}`
	recoveredRows = `m1	{"day":"2026-01-02","price":4.95,"share":4}	{'day':'String','price':'Float64','share':'Float64'}	{"plan":"pro"}	
m2	{"n":9007199254740993,"price":7}	{'n':'Int64','price':'Float64'}	{}	{"properties.n#2":1}` + "\n"
)

func TestRecover(t *testing.T) {
	s := newShop(t)
	rollup := s.query("SELECT sum(events) FROM usage_hourly")
	out := s.must("metadata", "recover", "-app", "dev", "properties.price")
	if want := "recovered 2 values of properties.price of dev; 2 stay under conflicts\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if got, want := s.rows(), firstRow+recoveredRows+lastRows; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := s.query("SELECT sum(events) FROM usage_hourly"); got != rollup || rollup != "5" {
		t.Errorf("rollups: got %s, want %s and 5", got, rollup)
	}
	if out := s.must("metadata", "recover", "-app", "dev", "properties.price"); !strings.HasPrefix(out, "recovered 0 values") {
		t.Errorf("again: got %q", out)
	}
	if out := s.must("metadata", "recover", "-app", "dev", "properties.tags"); !strings.HasPrefix(out, "recovered 1 values") {
		t.Errorf("an array: got %q", out)
	}
	if got, want := s.query("SELECT toString(properties), conflicts FROM events WHERE message_id = 'm4' FORMAT TSVRaw"), `{"price":1.5,"tags":["1","2"]}	{"properties.price":{"$raw":"1e400"}}`; got != want {
		t.Errorf("an array: got %s, want %s", got, want)
	}
	if got := s.query("SELECT count() FROM events"); got != "5" {
		t.Errorf("rows: got %s, want 5", got)
	}
	left, err := embedded.ForTest(t).Query(t.Context(), "SELECT name FROM system.tables WHERE database = '"+s.db+"' AND name LIKE '%recover%'")
	if err != nil || left != "" {
		t.Errorf("tables are left: %s, %v", left, err)
	}
	if _, err := s.run("metadata", "recover", "-app", "dev", "properties.nobody"); !errors.Is(err, metadata.ErrUnknownKey) {
		t.Errorf("a key without a type: got %v, want ErrUnknownKey", err)
	}
}

// A key whose first value was odd is proposed when more than nine of ten of at
// least a hundred values are texts without a place, and repaired in one step.
func TestSuggest(t *testing.T) {
	s := newShop(t)
	a, err := metadata.NewAgreement(metadata.AgreementConfig{
		Names:   topic.Unprefixed,
		Options: []kgo.Opt{kgo.SeedBrokers(strings.Split(s.env["UPTAKE_KAFKA_BROKERS"], ",")...)}, Limits: metadata.DefaultLimits(), Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var proposals []metadata.Proposal
	for path, typ := range map[string]metadata.Type{"utm": metadata.Integer, "few": metadata.Integer, "half": metadata.Integer, "amount": metadata.Bool, "nested": metadata.Object, "nested.a": metadata.Integer} {
		proposals = append(proposals, metadata.Proposal{Key: metadata.Key{App: "dev", Path: "properties." + path}, Type: typ})
	}
	if err := a.Agree(t.Context(), proposals); err != nil {
		t.Fatal(err)
	}
	var rows strings.Builder
	add := func(n int, properties, conflicts string) {
		fmt.Fprintf(&rows, `{"app_id":"dev","kind":"track","event":"Visited","message_id":"s%d","received_at":"2026-11-01 00:00:00","event_time":"2026-11-01 00:00:00","quantity":1,
			"source_topic_id":"t","source_partition":1,"source_offset":%d,"properties":%s,"conflicts":%q}`+"\n", n, n, properties, conflicts)
	}
	for n := range 120 {
		switch {
		case n < 10:
			add(n, `{"utm":21546,"half":1,"amount":true,"nested":{"a":1}}`, "")
		case n < 60:
			add(n, `{"half":2}`, `{"properties.utm":"spring","properties.amount":"12.50","properties.nested":"flat","properties.price":"free"}`)
		default:
			add(n, `{}`, fmt.Sprintf(`{"properties.utm":"autumn","properties.half":"x","properties.amount":"0.5","properties.few":"%d","properties.nested":"flat","properties.price":"free"}`, n))
		}
	}
	s.query("INSERT INTO events SETTINGS input_format_try_infer_dates = 0, input_format_try_infer_datetimes = 0 FORMAT JSONEachRow " + rows.String())
	out := s.must("metadata", "suggest", "-app", "dev")
	for _, want := range []string{`properties.utm     integer  string     110                    120`, `properties.amount  bool     float      110`, `properties.nested  object   string     110                    120`} {
		if !strings.Contains(out, want) {
			t.Errorf("got\n%s\nwant %q in it", out, want)
		}
	}
	for _, not := range []string{"few", "half", "price", "recovered"} { // too few, too small a share, pinned, not asked for
		if strings.Contains(out, not) {
			t.Errorf("got\n%s\nwith %s in it", out, not)
		}
	}
	if _, err := s.run("metadata", "suggest", "-app", "dev", "-apply"); err == nil {
		t.Error("-apply without an author: got no error")
	}
	out = s.must("metadata", "suggest", "-app", "dev", "-apply", "-author", "shop team", "-keys", "properties.utm,properties.amount")
	if !strings.Contains(out, "recovered 110 values of properties.utm") || !strings.Contains(out, "recovered 110 values of properties.amount") || strings.Contains(out, "nested") {
		t.Errorf("apply: got\n%s", out)
	}
	if got, want := s.query("SELECT countIf(properties.utm::Nullable(String) = 'autumn'), sum(properties.amount.:Float64), countIf(JSONHas(conflicts, 'properties.utm')) FROM events WHERE event = 'Visited'"), "60\t655\t0"; got != want {
		t.Errorf("after it: got %s, want %s", got, want)
	}
	if out = s.must("metadata", "suggest", "-app", "dev", "-keys", "properties.utm"); !strings.HasPrefix(out, "no key") {
		t.Errorf("again: got\n%s", out)
	}
}

// TestRecoverAfterACut cuts a run short between the two halves of the swap, when
// the rows have left events, and after the first partition came back.
func TestRecoverAfterACut(t *testing.T) {
	for _, attached := range []bool{false, true} {
		s := newShop(t)
		// What the first half of a run leaves.
		s.query("CREATE TABLE events_recover AS " + s.db + ".events ENGINE = MergeTree PARTITION BY toYYYYMM(received_at) ORDER BY (app_id, toDate(event_time), account_id, feature_id, event_time)")
		repaired := `SELECT * REPLACE('repaired' AS conflicts) FROM events WHERE message_id IN ('m1', 'm2')`
		s.query("INSERT INTO events_recover " + repaired)
		s.query("ALTER TABLE events DELETE WHERE message_id IN ('m1', 'm2') SETTINGS mutations_sync = 2")
		if attached {
			s.query("ALTER TABLE events ATTACH PARTITION ID '202602' FROM events_recover")
		}
		out := s.must("metadata", "recover", "-app", "dev", "properties.day")
		if !strings.HasPrefix(out, "recovered 0 values") {
			t.Errorf("attached %v: got %q", attached, out)
		}
		if got, want := s.query("SELECT message_id, conflicts = 'repaired' FROM events ORDER BY message_id"), "m0\t0\nm1\t1\nm2\t1\nm3\t0\nm4\t0"; got != want {
			t.Errorf("attached %v: got\n%s\nwant\n%s", attached, got, want)
		}
	}
}
