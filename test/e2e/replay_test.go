package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/test/harness/stack"
)

// What a gateway rejected of the protocols that tell by the path what an event is,
// or have no place for a message id, is sent again as well: it is there once, under
// the id that it was rejected with.
func TestReplayRejectedOfOtherProtocols(t *testing.T) {
	s, _ := forTest(t)
	ctx := within(t, 2*time.Minute)
	key := stack.WriteKeyOf(appBad)
	deep := strings.Repeat(`{"arrayValue":{"values":[`, 40) + strings.Repeat(`]}}`, 40) // too_deep
	calls := []struct {
		protocol, method, path string
		header                 [2]string
		body, patch            string
		id, name               string // in events
	}{
		{
			"csb", "POST", "/api/v1_1/feature",
			[2]string{"Idempotency-Key", "other-csb"},
			`{"account_id":"a","user_id":"r-u3","feature_id":"other","total":1.5,"type":"feature"}`, `total=2`, "other-csb", "track other 2",
		},
		{
			"moesif", "POST", "/v1/actions",
			[2]string{"X-Moesif-Application-Id", key},
			`{"action_name":"","user_id":"r-u3","transaction_id":"other-moesif"}`, `action_name=other`, "other-moesif", "track other 1",
		},
		{
			"cloudevents", "POST", "/cloudevents",
			[2]string{},
			`{"specversion":"1.0","id":"cloud","source":"other","type":"","subject":"a"}`, `type=other`, "other cloud", "track other 1",
		},
		{
			"gainsightpx", "POST", "/v1/events/custom",
			[2]string{"X-APTRINSIC-API-KEY", key},
			`{"eventName":"","eventId":"other-px","identifyId":"r-u3","userType":"USER"}`, `eventName=other`, "other-px", "track other 1",
		},
		{ // whose user is named by the resource around the record
			"otlp", "POST", "/otlp/v1/logs",
			[2]string{},
			`{"resourceLogs":[{"resource":{"attributes":[{"key":"user.id","value":{"stringValue":"r-u5"}}]},"scopeLogs":[{"scope":{"name":"other"},"logRecords":[{"eventName":"other","attributes":[{"key":"log.record.uid","value":{"stringValue":"other-otlp"}},{"key":"n","value":{"arrayValue":{"values":[` + deep + `]}}}]}]}]}]}`,
			`{"attributes":[{"key":"log.record.uid","value":{"stringValue":"other-otlp"}}]}`, "other-otlp", "track other 1",
		},
		{ // of one that was not created here
			"gainsightpx", "PUT", "/v1/users/r-u4",
			[2]string{"X-APTRINSIC-API-KEY", key},
			`{"accountId":"a","firstName":"Other"}`, `{}`, "", "identify  1",
		},
	}
	for _, c := range calls {
		req, err := http.NewRequestWithContext(ctx, c.method, s.URLs()[0]+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(key, "")
		if c.header[0] != "" {
			req.Header.Set(c.header[0], c.header[1])
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	const of = "app_id = '" + appBad + "' AND protocol IN ('csb', 'moesif', 'cloudevents', 'gainsightpx', 'otlp')"
	ids := map[string]string{} // of rejected events, by protocol and whether it was a change
	if err := stack.Await(ctx, "rejected events", func() error {
		rows, err := s.Conn.Query(ctx, "SELECT toString(protocol), detail LIKE 'unknown%', message_id FROM "+stack.Database+".rejected_events WHERE "+of)
		if err != nil {
			return err
		}
		defer rows.Close()
		n := 0
		for rows.Next() {
			var protocol, id string
			var change uint8
			if err := rows.Scan(&protocol, &change, &id); err != nil {
				return err
			}
			ids[fmt.Sprint(protocol, change)] = id
			n++
		}
		if n != len(calls) {
			return fmt.Errorf("%d of %d", n, len(calls))
		}
		return rows.Err()
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to send
		for _, c := range calls {
			where := of + " AND protocol = '" + c.protocol + "' AND detail LIKE 'unknown%' = " + fmt.Sprint(c.id == "")
			out, err := s.Run(ctx, stack.Writer, "replay-rejected", "-where", where, "-patch", c.patch, "-gateway", s.URLs()[0], "-write-key", key)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(c.protocol, c.path, out)
		}
	}
	for _, c := range calls {
		id := c.id
		if id == "" {
			id = ids[c.protocol+"1"]
		}
		if err := stack.Await(ctx, "event "+id, func() error {
			var n uint64
			var is string
			q := "SELECT count(), any(concat(kind, ' ', event, ' ', toString(quantity))) FROM " + stack.Database + ".events WHERE app_id = ? AND message_id = ?"
			if err := s.Conn.QueryRow(ctx, q, appBad, id).Scan(&n, &is); err != nil {
				return err
			}
			if n != 1 || is != c.name {
				return fmt.Errorf("%d times %q, want once %q", n, is, c.name)
			}
			return nil
		}); err != nil {
			t.Error(c.protocol, c.path, err)
		}
	}
	if _, err := conserved(ctx, s); err != nil {
		t.Fatal(err)
	}
}
