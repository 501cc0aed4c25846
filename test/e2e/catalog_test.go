package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

// Apps of the tests on a Kafka of their own.
const (
	appTypes  = "types"
	appRemap  = "remap"
	appMetric = "metric"
)

// TestOnKafka is what only a real Kafka with several enrichers can show of
// catalogs and metadata.
func TestOnKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Kafka, the services and ClickHouse; not under -short")
	}
	log := kafka.ForTest(t, kafka.Config{Brokers: 1})
	s := &onKafka{log: log}
	s.Stack = stack.ForTest(t, stack.Config{
		Log: log, Apps: []string{appTypes, appRemap, appMetric}, Enricher: 2, Writers: 2,
		Args: map[string][]string{stack.Writer: {"-block-interval", "200ms", "-session-timeout", "6s"}, stack.Enricher: {"-session-timeout", "6s", "-transaction-timeout", "6s"}},
	})
	t.Run("enrichers agree on the types of new keys", func(t *testing.T) { testTypesAgree(t, s) })
	t.Run("metrics", func(t *testing.T) { testMetrics(t, s) })
	t.Run("a remap under load with kills", func(t *testing.T) { testRemap(t, s) })
}

// onKafka is a stack and the log that it runs on.
type onKafka struct {
	*stack.Stack
	log kafka.Log
}

// await waits until a query of one text has that answer.
func await(t *testing.T, s *onKafka, want, query string, args ...any) {
	t.Helper()
	err := stack.Await(within(t, time.Minute), want, func() error {
		var got string
		if err := s.Conn.QueryRow(t.Context(), strings.ReplaceAll(query, "DB.", stack.Database+"."), args...).Scan(&got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("got %s", got)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// Both enrichers see new keys with different types at the same moment, over and
// over: of each key one type is in the columns, and every value that is not of it
// is under conflicts.
func testTypesAgree(t *testing.T, s *onKafka) {
	const rounds, users = 12, 40
	natural := []string{`true`, `12`, `"x"`, `[1]`}
	url := s.URLs()[0] + "/v1/batch"
	for round := range rounds {
		var events []string
		for u := range users {
			events = append(events, fmt.Sprintf(`{"type":"track","event":"e","userId":"u-%d","messageId":"m-%d-%d","properties":{"k%d":%s}}`, u, round, u, round, natural[(u+round)%len(natural)]))
		}
		if r := post(t, within(t, time.Minute), url, stack.WriteKeyOf(appTypes), []byte(`{"batch":[`+strings.Join(events, ",")+`]}`)); r.status != 200 || !r.body.Success {
			t.Fatalf("got %d %s", r.status, r.text)
		}
	}
	await(t, s, fmt.Sprint(rounds*users), "SELECT toString(count()) FROM DB.events WHERE app_id = ?", appTypes)
	for round := range rounds {
		key := fmt.Sprintf("k%d", round)
		var types []string
		var there, kept uint64
		err := s.Conn.QueryRow(t.Context(), fmt.Sprintf(`SELECT groupUniqArrayIf(t, t != 'None'), countIf(t != 'None'), countIf(JSONHas(conflicts, 'properties.%s'))
			FROM (SELECT toString(dynamicType(properties.%s)) AS t, conflicts FROM %s.events WHERE app_id = ? AND startsWith(message_id, 'm-%d-'))`, key, key, stack.Database, round),
			appTypes).Scan(&types, &there, &kept)
		if err != nil {
			t.Fatal(err)
		}
		// An array has no less than a quarter, a string takes bools and numbers too.
		if len(types) != 1 || there+kept != users || there < users/4 {
			t.Errorf("%s: stored as %q in %d rows, %d under conflicts; want one type and %d in all", key, types, there, kept, users)
		}
	}
	for _, e := range s.Enrichers {
		status, body, err := e.Get(within(t, time.Minute), "/metrics")
		if err != nil || status != 200 {
			t.Fatalf("metrics of %s: %d, %v", e.Name, status, err)
		}
		if strings.Contains(body, "uptake_enricher_metadata_agree_seconds_count 0\n") {
			t.Errorf("%s never had to agree with the other: the test says nothing", e.Name)
		}
	}
}

func testMetrics(t *testing.T, s *onKafka) {
	enrich(t, s, "catalog", "apply", "-app", appMetric, "-author", "test", "-reason", "test", catalogFile(t, func(c *catalog.Catalog) {
		c.Metrics = []catalog.Metric{{ID: "orders", Name: "Orders", Names: []string{"Orders"}, Semantics: catalog.SemanticsDelta}}
	}))
	report := func(id, said, properties string) {
		t.Helper()
		body := fmt.Sprintf(`{"event":"Orders","groupId":"acme","messageId":"%s","timestamp":"%s","properties":%s}`, id, said, properties)
		if r := post(t, within(t, time.Minute), s.URLs()[0]+"/v1/metric", stack.WriteKeyOf(appMetric), []byte(body)); r.status != 200 || !r.body.Success {
			t.Fatalf("got %d %s", r.status, r.text)
		}
	}
	day := time.Now().UTC().AddDate(0, 0, -2)
	at := func(hour int) string {
		return day.Truncate(24 * time.Hour).Add(time.Duration(hour) * time.Hour).Format(time.RFC3339)
	}
	period := day.Format("2006-01-02")
	report("m1", at(1), `{"value":"10,000","period":"`+period+`"}`)
	report("m3", at(3), `{"value":12000.5,"period":"`+period+`"}`) // says it again
	report("m2", at(2), `{"value":9,"period":"`+period+`"}`)       // late
	report("m3", at(3), `{"value":12000.5,"period":"`+period+`"}`) // a retry
	report("m4", at(4), `{"value":"1,5","period":"`+period+`"}`)   // nobody knows
	report("m5", at(5), `{"value":3,"dimensions":{"shop":"north"},"period":"`+period+`"}`)
	await(t, s, "5", "SELECT toString(count()) FROM DB.events WHERE app_id = ? AND kind = 'metric'", appMetric)
	await(t, s, "delta 12003.5", "SELECT concat(any(semantics), ' ', toString(sum(value))) FROM DB.metric_daily WHERE app_id = ? AND metric_id = 'orders' AND account_id = 'acme'", appMetric)
	await(t, s, "12000.5", "SELECT toString(any(value)) FROM DB.account_metrics WHERE app_id = ? AND account_id = 'acme' AND empty(dimensions)", appMetric)
	await(t, s, `{"metric.value":"1,5"}`, "SELECT conflicts FROM DB.events WHERE app_id = ? AND message_id = 'm4'", appMetric)
}

// enrich runs a command of the enricher.
func enrich(t *testing.T, s *onKafka, args ...string) {
	t.Helper()
	binary, err := stack.Binary(within(t, 5*time.Minute), stack.Enricher, stack.Build{})
	if err != nil {
		t.Fatal(err)
	}
	runCommand(t, binary, append(args[:len(args)-1:len(args)-1], "-kafka-brokers", strings.Join(s.log.Addrs(), ","), args[len(args)-1])...)
}

func runCommand(t *testing.T, binary string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(within(t, time.Minute), binary, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(binary), strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
}

// catalogFile writes the sample catalog, changed.
func catalogFile(t *testing.T, change func(*catalog.Catalog)) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "schemas", "catalog", "sample", "mypos.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	change(c)
	if text, err = c.YAML(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// takeFeature takes a feature out of the catalog.
func takeFeature(c *catalog.Catalog, id string) (f catalog.Feature) {
	for i := range c.Products {
		for j := range c.Products[i].Modules {
			m := &c.Products[i].Modules[j]
			if k := slices.IndexFunc(m.Features, func(f catalog.Feature) bool { return f.ID == id }); k >= 0 {
				f = m.Features[k]
				m.Features = slices.Delete(m.Features, k, k+1)
			}
		}
	}
	return f
}

// putFeature puts a feature into a module, history and all.
func putFeature(c *catalog.Catalog, f catalog.Feature, module string) {
	for i := range c.Products {
		for j := range c.Products[i].Modules {
			if m := &c.Products[i].Modules[j]; m.ID == module {
				m.Features = append(m.Features, f)
			}
		}
	}
	c.History = catalog.History{Default: catalog.HistoryMove}
}

func moveFeature(c *catalog.Catalog, feature, module string) {
	putFeature(c, takeFeature(c, feature), module)
}

// mergeFeatures makes one feature of two, under another id.
func mergeFeatures(c *catalog.Catalog, into catalog.Feature, module string, features ...string) {
	for _, id := range features {
		f := takeFeature(c, id)
		into.Kind, into.Status = f.Kind, f.Status
		into.Names = append(into.Names, f.Names...)
		into.Replaces = append(into.Replaces, id)
	}
	putFeature(c, into, module)
}

// A feature moves from module to module while events of it come and enrichers and
// writers are killed, and at last is merged with another under a new name. In the
// end all that was ever counted of it is where the last version has it, and every
// rollup has as much as was acked.
func testRemap(t *testing.T, s *onKafka) {
	p, l := plan(t, "rm-", 6_000), loadgen.NewLedger()
	ctx := within(t, 4*time.Minute)
	acks := make(chan struct{}, len(p.Requests))
	sender := loadgen.Sender{
		URLs: s.URLs(), WriteKey: stack.WriteKeyOf(appRemap), Workers: 4, Rate: 700, MaxBackoff: 500 * time.Millisecond,
		Acked: func(int, time.Time) { acks <- struct{}{} },
	}
	sent := make(chan error, 1)
	go func() { sent <- sender.Run(ctx, p, l, 0, len(p.Requests)) }() // waited for below
	acked := func(n int) {
		t.Helper()
		for range n {
			select {
			case <-acks:
			case <-ctx.Done():
				t.Fatal("no ack comes any more")
			}
		}
	}
	again := func(ps ...*stack.Process) {
		t.Helper()
		for _, p := range ps {
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range ps {
			if err := p.AwaitReady(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	remap := func(module string) {
		t.Helper()
		file := catalogFile(t, func(c *catalog.Catalog) { moveFeature(c, "item_scanned", module) })
		enrich(t, s, "catalog", "apply", "-app", appRemap, "-author", "test", "-reason", "to "+module, file)
	}
	step := len(p.Requests) / 8
	acked(step)
	remap("invoicing")
	s.Enrichers[0].Kill() // with what it had ordered, or before
	acked(step)
	s.Writers[0].Kill()
	again(s.Enrichers[0], s.Writers[0])
	acked(step)
	remap("payments") // to another product
	s.Writers[0].Kill()
	s.Writers[1].Kill()
	s.Enrichers[1].Kill()
	again(s.Writers[0], s.Writers[1], s.Enrichers[1])
	acked(step)
	remap("loyalty")
	s.Enrichers[0].Kill()
	again(s.Enrichers[0])
	if err := <-sent; err != nil {
		t.Fatal(err)
	}

	o := loadgen.NewOracle(appRemap, loadgen.Resolved)
	o.Add(p, l)
	if o.Acked() != p.Good() || o.Unknown() != 0 {
		t.Fatalf("%d of %d good events acked, %d of unknown fate", o.Acked(), p.Good(), o.Unknown())
	}
	await(t, s, fmt.Sprint(p.Good()), "SELECT toString(uniqExact(message_id)) FROM DB.events WHERE app_id = ?", appRemap)
	var count uint64
	if err := s.Conn.QueryRow(ctx, "SELECT count() FROM "+stack.Database+".events WHERE app_id = ? AND kind = 'track' AND feature_id = 'item_scanned'", appRemap).Scan(&count); err != nil {
		t.Fatal(err)
	}
	if count < 500 {
		t.Fatalf("only %d events of the feature: the test says little", count)
	}
	for _, table := range []string{"usage_hourly", "account_feature_daily", "user_feature_daily"} {
		await(t, s, fmt.Sprintf("loyalty mypos_engage %d", count), `SELECT arrayStringConcat(groupArray(concatWithSeparator(' ', module_id, product_id, toString(n))), ', ')
			FROM (SELECT module_id, product_id, sum(events) AS n FROM DB.`+table+` WHERE app_id = ? AND feature_id = 'item_scanned' GROUP BY module_id, product_id HAVING n != 0)`, appRemap)
	}
	var bagged uint64
	if err := s.Conn.QueryRow(ctx, "SELECT count() FROM "+stack.Database+".events WHERE app_id = ? AND kind = 'track' AND feature_id = 'item_bagged'", appRemap).Scan(&bagged); err != nil || bagged == 0 {
		t.Fatalf("%d events of the other feature: %v", bagged, err)
	}
	enrich(t, s, "catalog", "apply", "-app", appRemap, "-author", "test", "-reason", "one feature", catalogFile(t, func(c *catalog.Catalog) {
		mergeFeatures(c, catalog.Feature{ID: "item_taken", Name: "Item Taken"}, "invoicing", "item_scanned", "item_bagged")
	}))
	for _, table := range []string{"usage_hourly", "account_feature_daily", "user_feature_daily"} {
		await(t, s, fmt.Sprintf("item_taken invoicing %d", count+bagged), `SELECT arrayStringConcat(groupArray(concatWithSeparator(' ', feature_id, module_id, toString(n))), ', ')
			FROM (SELECT feature_id, module_id, sum(events) AS n FROM DB.`+table+` WHERE app_id = ? AND feature_id IN ('item_taken', 'item_scanned', 'item_bagged')
			GROUP BY feature_id, module_id HAVING n != 0)`, appRemap)
	}
	// And no cell of any rollup differs from what events and corrections say.
	binary, err := stack.Binary(ctx, stack.Writer, stack.Build{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, binary, "audit", "-app", appRemap, "-clickhouse-addr", s.ClickHouse.NativeAddr(), "-clickhouse-database", stack.Database,
		"-kafka-brokers", strings.Join(s.log.Addrs(), ",")).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err != nil || !bytes.Contains(out, []byte("equal")) {
		t.Errorf("audit: %v\n%s", err, out)
	}
	var orders uint64
	if err := s.Conn.QueryRow(context.WithoutCancel(ctx), "SELECT uniqExact(source_partition, source_offset) FROM "+stack.Internal+".corrections WHERE app_id = ? AND feature_id = 'item_scanned'", appRemap).Scan(&orders); err != nil {
		t.Fatal(err)
	}
	if orders < 3 {
		t.Errorf("%d corrections: want at least one for each move of history", orders)
	}
}
