package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// account is what audit says of an hour of receipt.
type account struct {
	App        string `json:"app_id"`
	Accepted   int64
	Stored     int64
	Duplicates int64
	Rejected   int64
	OptedOut   int64 `json:"opted_out"`
	InFlight   int64 `json:"in_flight"`
	Difference int64
}

// conserved waits until nothing is in flight and fails unless every event that
// was accepted is stored, a duplicate, rejected or opted out, and all tables
// agree. It returns the sums of each app.
func conserved(ctx context.Context, s *stack.Stack) (map[string]account, error) {
	var sums map[string]account
	err := stack.Await(ctx, "audit to find everything where it belongs", func() error {
		out, err := s.Run(ctx, stack.Writer, "audit", "-json", "-settle-wait", "200ms")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		var report struct {
			Equal        bool
			Conservation struct {
				Balanced bool
				Unknown  string `json:"in_flight_unknown"`
				Hours    []account
			}
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			return err
		}
		c := report.Conservation
		if !report.Equal || !c.Balanced || c.Unknown != "" {
			return fmt.Errorf("audit: %s", out)
		}
		sums = map[string]account{}
		for _, h := range c.Hours {
			sum := sums[h.App]
			sum.App = h.App
			sum.Accepted += h.Accepted
			sum.Stored += h.Stored
			sum.Duplicates += h.Duplicates
			sum.Rejected += h.Rejected
			sum.OptedOut += h.OptedOut
			sum.InFlight += h.InFlight
			sum.Difference += h.Difference
			sums[h.App] = sum
		}
		for _, sum := range sums {
			if sum.InFlight != 0 || sum.Difference != 0 || sum.Accepted != sum.Stored+sum.Duplicates+sum.Rejected+sum.OptedOut {
				return fmt.Errorf("%+v", sum)
			}
		}
		return nil
	})
	return sums, err
}

// What is rejected is repaired and sent again: it is there once, under its message
// id, and the account of all that was accepted still balances.
func TestReplayRejected(t *testing.T) {
	s, _ := forTest(t)
	ctx := within(t, 2*time.Minute)
	key := stack.WriteKeyOf(appBad)
	for i, bad := range []string{
		`{"type":"pick up","event":"Item Bagged","userId":"r-u1","messageId":"again-gateway-1"}`,
		`{"type":"track","event":"Item Bagged","userId":"r-u1","messageId":"again-gateway-2","context":{"quantity":-1}}`,
	} {
		if r := post(t, ctx, s.URLs()[0]+"/v1/batch", key, []byte(`{"batch":[`+bad+`]}`)); len(r.body.Rejected) != 1 {
			t.Fatalf("event %d was not rejected: %s", i, r.text)
		}
	}
	// Past the gateway, as from one of another release.
	producer, err := kgo.NewClient(kgo.SeedBrokers(shared.fake.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	codec := event.NewCodec()
	for i := range 3 {
		e := event.RawEvent{
			AppID: appBad, Kind: "dance", Event: "Item Bagged", MessageID: fmt.Sprint("again-enricher-", i), UserID: "r-u2",
			ReceivedAt: event.FromTime(time.Now()), Quantity: 1, Protocol: "segment", Properties: []byte(`{"n":1}`),
		}
		key := topic.RawKey(nil, e.AppID, e.UserID, "", "")
		r := &kgo.Record{Topic: topic.Unprefixed.Raw, Partition: topic.Partition(key, topic.SingleLayout().Partitions), Key: key, Value: codec.AppendRaw(nil, &e)}
		if err := producer.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	count := func(table string) (rows, ids uint64) {
		t.Helper()
		q := fmt.Sprintf("SELECT count(), uniqExact(message_id) FROM %s.%s WHERE app_id = ? AND startsWith(message_id, 'again-')", stack.Database, table)
		if err := s.Conn.QueryRow(ctx, q, appBad).Scan(&rows, &ids); err != nil {
			t.Fatal(err)
		}
		return rows, ids
	}
	await := func(table string, want uint64) {
		t.Helper()
		if err := stack.Await(ctx, fmt.Sprintf("%d rows of %s", want, table), func() error {
			if rows, ids := count(table); rows != want || ids != want {
				return fmt.Errorf("%d rows, %d message ids", rows, ids)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	await("rejected_events", 5)
	where := "app_id = '" + appBad + "' AND startsWith(message_id, 'again-')"
	for range 2 { // the second time there is nothing to send
		for _, args := range [][]string{
			{"-where", where + " AND stage = 'enricher'", "-patch", "kind=track"},
			{"-where", where + " AND stage = 'gateway'", "-patch", `{"type":"track","context":{"quantity":null}}`, "-gateway", s.URLs()[0], "-write-key", key},
		} {
			out, err := s.Run(ctx, stack.Writer, "replay-rejected", args...)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(out)
		}
		await("events", 5)
	}
	sums, err := conserved(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	if got := sums[appBad]; got.Rejected < 3 || got.Stored < 5 {
		t.Errorf("account of %s: %+v", appBad, got)
	}
	await("rejected_events", 5)
}
