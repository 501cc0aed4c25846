package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

// gone is in every id and every text of the person who is erased, and nowhere
// else.
const gone = "jane-doe"

// TestErasedPersonIsGone erases someone from the whole path while it runs, with
// the command killed at several of its steps, and lets late events arrive.
func TestErasedPersonIsGone(t *testing.T) {
	t.Run("kfake", func(t *testing.T) { eraseSomeone(t, kafka.FakeForTest(t, kfake.GroupMinSessionTimeout(time.Second))) })
	t.Run("kafka", func(t *testing.T) {
		if setting("IDENTITY_WORLDS", 0) == 0 {
			t.Skip("a minute more: `make identity` runs it")
		}
		cfg := kafka.Config{Brokers: 1, Dir: t.TempDir(), Properties: map[string]string{"group.min.session.timeout.ms": "1000"}}
		eraseSomeone(t, kafka.ForTest(t, cfg))
	})
}

func eraseSomeone(t *testing.T, log kafka.Log) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	s := stack.ForTest(t, stack.Config{Log: log, Enricher: 2, Writers: 2, Args: arguments()})
	p := &person{t: t, log: log, stack: s, at: time.Now().Add(-6 * time.Hour).Truncate(time.Hour)}

	p.say("track", gone+"-device", "", "")
	p.say("identify", gone+"-device", gone, "")
	p.say("group", "", gone, "acme")
	p.say("alias", "", gone, gone+"-before")
	p.say("track", "", gone+"-before", "")
	for i := range 300 { // with their pairs more than one order names
		p.say("track", fmt.Sprintf("%s-tab-%d", gone, i), "", "")
		p.say("identify", fmt.Sprintf("%s-tab-%d", gone, i), gone, "")
	}
	p.say("track", "kiosk", "", "") // becomes the person's by the first link
	p.say("identify", "kiosk", gone, "")
	p.settle(ctx)
	p.say("identify", "kiosk", "john", "")
	p.say("group", "", "john", "acme")
	for range 20 {
		p.say("track", "", "john", "")
		p.say("track", "", gone, "")
		p.say("track", "kiosk", "", "")
	}
	p.say("track", "", gone, "globex")
	p.say("metric", "", gone, "acme")
	p.say("metric", "", "john", "acme")
	p.say("metric", gone+"-device", "", "acme")
	p.say("broken", "", gone, "")
	p.send(ctx)
	p.settle(ctx)
	accounts := "SELECT concat(account_id, '|', feature_id), sum(events) FROM %s.account_feature_daily GROUP BY 1 HAVING sum(events) != 0"
	metrics := "SELECT account_id, toInt64(sum(tupleElement(last, 'value'))) FROM %s_internal.metric_values FINAL GROUP BY 1"
	before, johns, seats := p.cells(ctx, accounts), p.johns(ctx), p.cells(ctx, metrics)
	if before["acme|"+loadgen.PlaceOf(loadgen.ItemScanned).Feature] < 300 || johns == 0 || p.naming(ctx, stack.Database+".events") == 0 || p.naming(ctx, stack.Database+".rejected_events") == 0 {
		t.Fatalf("nothing to erase: %v, %d of john", before, johns)
	}

	p.exported(ctx)

	// Killed anywhere, it is finished by another run. What comes below is late only
	// once the order was carried out, which takes a slow machine more runs.
	const counted = "SELECT 'ids', toInt64(countIf(n != 0)) FROM (SELECT actor_id, sum(events) AS n FROM %s_internal.usage_hourly WHERE startsWith(actor_id, '" + gone + "') GROUP BY actor_id)"
	for i := 0; i < 3 || p.cells(ctx, counted)["ids"] > 0; i++ {
		cut, stop := context.WithTimeout(ctx, time.Duration(200+700*i)*time.Millisecond)
		_, _ = p.erase(cut)
		stop()
		p.steady(ctx)
	}
	// Late events arrive before, while and after it runs.
	// An alias that comes before the order is one: john would be erased as well.
	late := func(ordered bool) {
		p.say("track", gone+"-device", "", "")
		p.say("identify", gone+"-new", gone, "")
		p.say("track", "", gone, "acme")
		if ordered {
			p.say("alias", "", "john", gone)
		}
		p.say("track", gone+"-device", "john", "") // counts for john, without the device
		p.say("track", gone+"-tab-7", "", "")
		p.say("group", "", gone+"-before", "globex")
		p.say("broken", "", gone, "")
		p.send(ctx)
	}
	late(false)
	receipt, err := p.erase(ctx)
	if err != nil {
		t.Fatal(err)
	}
	late(true)
	p.settle(ctx)
	if !receipt.Complete || len(receipt.Tables) < 10 {
		t.Fatalf("receipt: %+v", receipt)
	}
	for _, r := range receipt.Tables {
		if r.Left != 0 {
			t.Errorf("%d rows are left in %s", r.Left, r.Table)
		}
	}

	for _, table := range p.tables(ctx) {
		if n := p.naming(ctx, table); n > 0 {
			t.Errorf("%d rows of %s name the person: %s", n, table, p.example(ctx, table))
		}
	}
	after := p.cells(ctx, accounts)
	after["acme|"+loadgen.PlaceOf(loadgen.ItemScanned).Feature] -= 2 // of john, late
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("accounts had %v and have %v", before, after)
	}
	if got := p.cells(ctx, metrics); fmt.Sprint(got) != fmt.Sprint(seats) || seats["acme"] != 15 {
		t.Errorf("accounts had metrics %v and have %v", seats, got)
	}
	if n := p.johns(ctx); n != johns+2 {
		t.Errorf("john had %d events and has %d, want 2 more", johns, n)
	}
	p.audit(ctx)

	// Again: nothing to do, and nothing breaks.
	again, err := p.erase(ctx)
	if err != nil || !again.Complete {
		t.Errorf("again: %+v, %v", again, err)
	}
	p.audit(ctx)
	p.rejectedLater(ctx)
	p.lostAndRebuilt(ctx, accounts)
}

// nameless holds every table not to name the person.
func (p *person) nameless(ctx context.Context, when string) {
	p.t.Helper()
	for _, table := range p.tables(ctx) {
		if n := p.naming(ctx, table); n > 0 {
			p.t.Errorf("%d rows of %s name the person %s: %s", n, table, when, p.example(ctx, table))
		}
	}
}

// exported compares an export with all that names the person: each table, and each topic's
// state, must be in it, and nothing of john but what the person did on his device.
func (p *person) exported(ctx context.Context) {
	p.t.Helper()
	path := filepath.Join(p.t.TempDir(), "export.jsonl")
	if _, err := p.command(ctx, "export", "-app", stack.App, "-user", gone, "-to", path); err != nil {
		p.t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		p.t.Errorf("export: %v, %v", info.Mode(), err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	in := map[string]uint64{}
	for i, line := range lines {
		var x struct {
			In  string
			Row struct {
				ActorID string `json:"actor_id"`
			}
			Lines int
		}
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			p.t.Fatalf("%v in %s", err, line)
		}
		in[x.In]++
		if x.Row.ActorID == "john" {
			p.t.Errorf("the export has what john did: %s", line)
		}
		if i == len(lines)-1 && (x.In != "end" || x.Lines != i) {
			p.t.Errorf("the last of %d lines is %s", len(lines), line)
		}
	}
	for _, table := range p.tables(ctx) {
		var stored uint8
		if err := p.stack.Conn.QueryRow(ctx, "SELECT toUInt8(count()) FROM system.tables WHERE concat(database, '.', name) = ? AND engine LIKE '%MergeTree'", table).Scan(&stored); err != nil {
			p.t.Fatal(err)
		}
		_, name, _ := strings.Cut(table, ".")
		if n := p.naming(ctx, table); stored == 1 && n > in[name] {
			p.t.Errorf("%d rows of %s name the person, the export has %d", n, table, in[name])
		}
	}
	for _, want := range []string{"person", "users", "memberships", "identity_links", topic.Unprefixed.EnricherState, "kafka", "end"} {
		if in[want] == 0 {
			p.t.Errorf("nothing of %s is in the export: %v", want, in)
		}
	}
	if out, err := p.command(ctx, "export", "-app", stack.App, "-user", gone, "-to", path); err == nil {
		p.t.Errorf("an export over an existing file: %s", out)
	}
	if n := p.cells(ctx, "SELECT 'lists', toInt64(count()) FROM system.tables WHERE database = '%s_internal' AND startsWith(name, 'erasing_')")["lists"]; n != 0 {
		p.t.Errorf("%d lists of ids are left", n)
	}
}

// rejectedLater has gateways, which do not know who was erased, reject something
// of the person and of somebody else.
func (p *person) rejectedLater(ctx context.Context) {
	p.t.Helper()
	for _, original := range []string{`{"type":"track","userId":"` + gone + `"}`, `{"type":"track","anonymousId":"` + gone + `-tab-7"}`, `{"type":"track","userId":"john"}`} {
		record := event.Rejected{
			AppID: stack.App, Stage: event.StageGateway, Code: "missing_event", MessageID: "late", Protocol: "segment", ReceivedAt: event.FromTime(time.Now()),
			RejectedAt: event.FromTime(time.Now()), SourcePartition: -1, SourceOffset: -1, Original: []byte(original),
		}
		put(ctx, p.t, p.log, &kgo.Record{Topic: topic.Unprefixed.Rejected, Key: []byte(stack.App), Value: event.NewCodec().AppendRejected(nil, &record)})
	}
	p.settle(ctx)
	if n := p.naming(ctx, stack.Database+".rejected_events"); n != 2 {
		p.t.Fatalf("%d rejected events name the person, want 2", n)
	}
	if out, err := p.command(ctx, "erase", "-app", stack.App, "-rejected"); err != nil || !strings.Contains(string(out), ": 2 of ") {
		p.t.Errorf("erase -rejected: %s, %v", out, err)
	}
	if n := p.naming(ctx, stack.Database+".rejected_events"); n != 0 {
		p.t.Errorf("%d rejected events still name the person", n)
	}
	if n := p.cells(ctx, "SELECT 'john', toInt64(countIf(position(original, 'john') > 0)) FROM %s.rejected_events")["john"]; n != 1 {
		p.t.Errorf("%d rejected events of john have their bytes, want 1", n)
	}
}

// lostAndRebuilt loses all events, which the log still has with the person's name.
func (p *person) lostAndRebuilt(ctx context.Context, accounts string) {
	p.t.Helper()
	before, johns := p.cells(ctx, accounts), p.johns(ctx)
	for _, w := range p.stack.Writers {
		if err := w.Stop(ctx); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := p.stack.Conn.Exec(ctx, "TRUNCATE TABLE "+stack.Database+".events"); err != nil {
		p.t.Fatal(err)
	}
	out, err := p.command(ctx, "rebuild", "-app", stack.App, "-from-log")
	if err != nil || !strings.Contains(string(out), "named persons who were erased") {
		p.t.Fatalf("rebuild: %s, %v", out, err)
	}
	p.t.Logf("%s", out)
	p.nameless(ctx, "after a rebuild")
	if after := p.cells(ctx, accounts); fmt.Sprint(before) != fmt.Sprint(after) {
		p.t.Errorf("accounts had %v and have %v after a rebuild", before, after)
	}
	if n := p.johns(ctx); n != johns {
		p.t.Errorf("john had %d events and has %d after a rebuild", johns, n)
	}
	for _, w := range p.stack.Writers {
		if err := w.Start(); err != nil {
			p.t.Fatal(err)
		}
	}
	p.settle(ctx)
	p.audit(ctx)
}

// person drives a stack for the test.
type person struct {
	t     *testing.T
	log   kafka.Log
	stack *stack.Stack
	at    time.Time
	n     int
	calls []call
}

// say queues a call. A broken one cannot be used.
func (p *person) say(kind, anonymous, user, account string) {
	p.n++
	k := call{event.RawEvent{
		AppID: stack.App, Kind: kind, AnonymousID: anonymous, UserID: user, AccountID: account, MessageID: fmt.Sprintf("m%d", p.n), Quantity: 1, Protocol: "segment",
		Timestamp: event.FromTime(p.at.Add(time.Duration(p.n) * time.Second)), ReceivedAt: event.FromTime(time.Now()),
	}}
	who := user
	if who == "" {
		who = anonymous
	}
	k.Properties, k.Context = []byte(`{"of":"`+who+`"}`), []byte(`{"page":{"path":"/`+who+`"}}`)
	switch kind {
	case "track":
		k.Event = loadgen.ItemScanned
	case "metric":
		k.Event, k.Properties = "Seats", []byte(`{"value":5}`)
	case "alias": // the account names the previous id
		k.PreviousID, k.AccountID = account, ""
	case "identify":
		k.Traits = []byte(`{"name":"` + user + `"}`)
	}
	p.calls = append(p.calls, k)
}

func (p *person) send(ctx context.Context) {
	p.t.Helper()
	produce(ctx, p.t, p.log, p.calls)
	p.calls = nil
}

// settle sends what is queued and waits until all of it is in ClickHouse.
func (p *person) settle(ctx context.Context) {
	p.t.Helper()
	p.send(ctx)
	if err := settled(ctx, p.log); err != nil {
		p.t.Fatal(err)
	}
}

type receipt struct {
	Complete bool
	Tables   []struct {
		Table string
		Left  uint64
	}
}

func (p *person) command(ctx context.Context, args ...string) ([]byte, error) {
	p.t.Helper()
	binary, err := stack.Binary(ctx, stack.Writer, stack.Build{})
	if err != nil {
		return nil, err
	}
	args = append(args, "-clickhouse-addr", p.stack.ClickHouse.NativeAddr(), "-clickhouse-database", stack.Database, "-kafka-brokers", strings.Join(p.log.Addrs(), ","))
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w: %s%s", err, out.String(), errs.String())
	}
	return out.Bytes(), err
}

// steady waits until ClickHouse goes on answering: the embedded one may end, and is
// started again, when the connection of a killed command is reset.
func (p *person) steady(ctx context.Context) {
	p.t.Helper()
	answers := 0
	err := stack.Await(ctx, "ClickHouse to go on answering", func() error {
		if _, err := p.stack.ClickHouse.Query(ctx, "SELECT 1"); err != nil {
			answers = 0
			return err
		}
		if answers++; answers < 5 {
			return fmt.Errorf("%d answers in a row", answers)
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) erase(ctx context.Context) (receipt, error) {
	p.t.Helper()
	var r receipt
	out, err := p.command(ctx, "erase", "-app", stack.App, "-user", gone, "-json", "-wait", "1m")
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	return r, err
}

func (p *person) audit(ctx context.Context) {
	p.t.Helper()
	if _, err := p.command(ctx, "audit", "-app", stack.App); err != nil {
		p.t.Errorf("audit: %v", err)
	}
}

func (p *person) tables(ctx context.Context) (list []string) {
	for name := range pairs(ctx, p.t, p.stack, "SELECT concat(database, '.', name), engine FROM system.tables WHERE startsWith(database, '%s') AND engine != 'MaterializedView' AND empty(parameterized_view_parameters)") {
		list = append(list, name)
	}
	return list
}

// naming counts the rows of a table that have the person anywhere in them.
func (p *person) naming(ctx context.Context, table string) (n uint64) {
	p.t.Helper()
	if err := p.stack.Conn.QueryRow(ctx, fmt.Sprintf("SELECT count() FROM %s AS x WHERE position(toString(tuple(x.*)), '%s') > 0", table, gone)).Scan(&n); err != nil {
		p.t.Fatalf("%s: %v", table, err)
	}
	return n
}

func (p *person) example(ctx context.Context, table string) (row string) {
	q := fmt.Sprintf("SELECT toString(tuple(x.*)) AS r FROM %s AS x WHERE position(r, '%s') > 0 LIMIT 1", table, gone)
	if err := p.stack.Conn.QueryRow(ctx, q).Scan(&row); err != nil {
		return err.Error()
	}
	return row
}

func (p *person) cells(ctx context.Context, query string) map[string]int64 {
	p.t.Helper()
	rows, err := p.stack.Conn.Query(ctx, fmt.Sprintf(query, stack.Database))
	if err != nil {
		p.t.Fatal(err)
	}
	defer rows.Close()
	cells := map[string]int64{}
	for rows.Next() {
		var k string
		var n int64
		if err := rows.Scan(&k, &n); err != nil {
			p.t.Fatal(err)
		}
		cells[k] = n
	}
	return cells
}

func (p *person) johns(ctx context.Context) int64 {
	return p.cells(ctx, "SELECT actor_id, sum(events) FROM %s.user_feature_daily WHERE actor_id = 'john' AND actor_kind = 'user' GROUP BY 1")["john"]
}

// produce puts calls into raw as a gateway would.
func produce(ctx context.Context, t *testing.T, log kafka.Log, calls []call) {
	t.Helper()
	codec := event.NewCodec()
	var records []*kgo.Record
	for i := range calls {
		k := &calls[i]
		key := topic.RawKey(nil, k.AppID, k.UserID, k.AnonymousID, k.AccountID)
		records = append(records, &kgo.Record{
			Topic: topic.Unprefixed.Raw, Partition: topic.Partition(key, topic.SingleLayout().Partitions), Key: key, Value: codec.AppendRaw(nil, &k.RawEvent),
		})
	}
	put(ctx, t, log, records...)
}

// put produces records to the partitions that they name.
func put(ctx context.Context, t *testing.T, log kafka.Log, records ...*kgo.Record) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(log.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(errors.Join(err, ctx.Err()))
	}
}
