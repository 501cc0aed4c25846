package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// logLine returns the first line of a log that has the text, or "".
func logLine(log, text string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, text) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// reply is an answer of the gateway.
type reply struct {
	status     int
	retryAfter string
	text       string
	body       struct {
		Success  bool `json:"success"`
		Accepted int  `json:"accepted"`
		Rejected []struct {
			Index     int    `json:"index"`
			MessageID string `json:"message_id"`
			Code      string `json:"code"`
			Field     string `json:"field"`
			Detail    string `json:"detail"`
		} `json:"rejected"`
		Error struct {
			Code    string `json:"code"`
			Setting string `json:"setting"`
			Detail  string `json:"detail"`
		} `json:"error"`
	}
}

func post(t *testing.T, ctx context.Context, url, key string, body []byte) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.SetBasicAuth(key, "")
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("post %s: %v", url, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read reply of %s: %v", url, err)
	}
	r := reply{status: res.StatusCode, retryAfter: res.Header.Get("Retry-After"), text: string(text)}
	if err := json.Unmarshal(text, &r.body); err != nil {
		t.Fatalf("reply of %s is not JSON: %v\n%s", url, err, text)
	}
	return r
}

func TestBadRequests(t *testing.T) {
	s, _ := forTest(t)
	ctx := within(t, time.Minute)
	good := []byte(`{"event":"Item Scanned","userId":"u1","messageId":"whole-1","context":{"groupId":"a1"}}`)
	key := stack.WriteKeyOf(appBad)
	many := bytes.Repeat([]byte(`{"type":"track","event":"e","userId":"u"},`), 20_000)
	for _, tc := range []struct {
		name   string
		key    string
		body   []byte
		status int
		says   string // in the reply
	}{
		{"no key", "", good, 401, "bad_key"},
		{"unknown key", "nobody", good, 401, "bad_key"},
		{"not JSON", key, []byte(`{"event":`), 400, "bad_body"},
		{"empty", key, nil, 400, "bad_body"},
		{"an array", key, []byte(`[]`), 400, "bad_body"},
		{"too large", key, append([]byte(`{"event":"e","userId":"u","properties":{"x":"`), append(bytes.Repeat([]byte("x"), 9<<20), `"}}`...)...), 413, "max-body-bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := post(t, ctx, s.URLs()[0]+"/v1/track", tc.key, tc.body)
			if r.status != tc.status || r.body.Success || !strings.Contains(r.text, tc.says) {
				t.Errorf("got %d %s, want %d and %q in it", r.status, r.text, tc.status, tc.says)
			}
		})
	}
	t.Run("too many events", func(t *testing.T) {
		body := append(append([]byte(`{"batch":[`), bytes.TrimSuffix(many, []byte(","))...), `]}`...)
		r := post(t, ctx, s.URLs()[0]+"/v1/batch", key, body)
		if r.status != 413 || !strings.Contains(r.text, "max-batch-events") {
			t.Errorf("got %d %s, want 413 and max-batch-events", r.status, r.text)
		}
	})
}

// One bad event never fails its neighbours: of a batch of ten with three bad
// ones seven are stored, three are listed, and rejected_events has their bytes.
func TestPartialBatch(t *testing.T) {
	s, _ := forTest(t)
	ctx := within(t, 2*time.Minute)
	events := make([]string, 10)
	for i := range events {
		events[i] = fmt.Sprintf(`{"type":"track","event":"Item Bagged","userId":"p-u%d","messageId":"part-%d","context":{"groupId":"p-a"}}`, i, i)
	}
	// Bytes that a decoder would write otherwise: spaces, escapes, an order.
	events[2] = `{"messageId":"part-2", "type":"track",  "userId":"\u00fc", "properties":{"n":1.50}}`
	events[5] = `{"type":"pick up","event":"x","userId":"u","messageId":"part-5"}`
	events[9] = `{"type":"track","event":"x","userId":"u","messageId":"part-9","context":{"quantity":-1}}`
	r := post(t, ctx, s.URLs()[0]+"/v1/batch", stack.WriteKeyOf(appBad), []byte(`{"batch":[`+strings.Join(events, ",")+`]}`))
	if r.status != 200 || r.body.Accepted != 7 || len(r.body.Rejected) != 3 {
		t.Fatalf("got %d %s, want 200, 7 accepted and 3 rejected", r.status, r.text)
	}
	type verdict struct {
		index             int
		message, code, at string
	}
	for i, want := range []verdict{
		{2, "part-2", "missing_field", "event"},
		{5, "part-5", "unknown_kind", "type"},
		{9, "part-9", "bad_quantity", "context.quantity"},
	} {
		v := r.body.Rejected[i]
		if got := (verdict{v.Index, v.MessageID, v.Code, v.Field}); got != want || v.Detail == "" {
			t.Errorf("verdict %d: got %+v with detail %q, want %+v", i, got, v.Detail, want)
		}
	}
	err := stack.Await(ctx, "7 events and 3 rejections", func() error {
		var stored, rejected uint64
		q := fmt.Sprintf(`SELECT (SELECT count() FROM %[1]s.events WHERE app_id = ? AND startsWith(message_id, 'part-')),
			(SELECT count() FROM %[1]s.rejected_events WHERE app_id = ? AND startsWith(message_id, 'part-'))`, stack.Database)
		if err := s.Conn.QueryRow(ctx, q, appBad, appBad).Scan(&stored, &rejected); err != nil {
			return err
		}
		if stored != 7 || rejected != 3 {
			return fmt.Errorf("%d and %d", stored, rejected)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := s.Conn.Query(ctx, fmt.Sprintf("SELECT message_id, stage, code, field, original FROM %s.rejected_events WHERE app_id = ? AND startsWith(message_id, 'part-') ORDER BY message_id", stack.Database), appBad)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for _, want := range [][5]string{
		{"part-2", "gateway", "missing_field", "event", events[2]},
		{"part-5", "gateway", "unknown_kind", "type", events[5]},
		{"part-9", "gateway", "bad_quantity", "context.quantity", events[9]},
	} {
		var got [5]string
		if !rows.Next() {
			t.Fatalf("no row for %s: %v", want[0], rows.Err())
		}
		if err := rows.Scan(&got[0], &got[1], &got[2], &got[3], &got[4]); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("rejected_events: got %q, want %q", got, want)
		}
	}
}

// While the brokers cannot be reached a request gets 503 with Retry-After within
// the gateway's deadline and no ack; the gateway says why it is not ready, and
// serves again by itself. What was not acked is there once when it is sent again.
func TestKafkaDown(t *testing.T) {
	s, kafka := forTest(t)
	gateway := s.Gateways[0]
	ctx := within(t, 2*time.Minute)
	body := []byte(`{"event":"Item Scanned","userId":"down-u","messageId":"down-1","context":{"groupId":"down-a"}}`)
	url, key := s.URLs()[0]+"/v1/track", stack.WriteKeyOf(appBad)
	kafka.Refuse(true)
	defer kafka.Refuse(false)
	r := post(t, ctx, url, key, body) // a gateway without a deadline fails at ctx
	seconds, err := strconv.Atoi(r.retryAfter)
	if r.status != 503 || err != nil || seconds < 1 || r.body.Success {
		t.Errorf("got %d, Retry-After %q, %s; want 503 with whole seconds", r.status, r.retryAfter, r.text)
	}
	if err := stack.Await(ctx, "the gateway to say that it is not ready", func() error {
		status, text, err := gateway.Get(ctx, "/readyz")
		if err == nil && (status != 503 || !strings.Contains(text, "kafka")) {
			err = fmt.Errorf("%d %s", status, text)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	kafka.Refuse(false)
	if err := stack.Await(ctx, "an ack", func() error {
		if r := post(t, ctx, url, key, body); r.status != 200 || !r.body.Success {
			return fmt.Errorf("%d %s", r.status, r.text)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.AwaitReady(ctx); err != nil {
		t.Error(err)
	}
	if n := stored(t, s, "down-1"); n != 1 {
		t.Errorf("the event is stored %d times, want once", n)
	}
}

// stored waits until a message is in events and returns how often.
func stored(t *testing.T, s *stack.Stack, messageID string) uint64 {
	t.Helper()
	ctx := within(t, time.Minute)
	var n uint64
	if err := stack.Await(ctx, "message "+messageID, func() error {
		q := fmt.Sprintf("SELECT count() FROM %s.events WHERE message_id = ?", stack.Database)
		if err := s.Conn.QueryRow(ctx, q, messageID).Scan(&n); err != nil || n > 0 {
			return err
		}
		return fmt.Errorf("not there")
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// While ClickHouse is down nothing is lost: producers are acked, the writer's lag
// grows and /readyz says why, and the writer catches up by itself.
func TestClickHouseDown(t *testing.T) {
	s, _ := forTest(t)
	down := 4 * time.Second
	if longtest.Enabled() { // outages last as long as the promise says
		down = time.Minute
	}
	writer := s.Writers[0]
	underLoad(t, s, "chdown-", 6_000, func(acked func(int)) {
		ctx := within(t, 3*time.Minute)
		acked(10)
		if err := s.ClickHouse.Stop(ctx); err != nil {
			t.Error(err)
		}
		started := false
		defer func() {
			if !started { // the other tests need it
				if err := s.ClickHouse.Start(context.WithoutCancel(ctx)); err != nil {
					t.Error(err)
				}
			}
		}()
		stopped := time.Now()
		acked(20)
		if err := stack.Await(ctx, "the writer to say why", func() error {
			status, text, err := writer.Get(ctx, "/readyz")
			if err == nil && (status != 503 || !strings.Contains(strings.ToLower(text), "clickhouse")) {
				err = fmt.Errorf("%d %s", status, text)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		var before float64
		if err := stack.Await(ctx, "a lag", func() (err error) {
			before, err = lag(ctx, writer)
			return err
		}); err != nil {
			t.Error(err)
		}
		acked(20)
		// The load may have ended by now: what makes the lag grow is sent here.
		r := post(t, ctx, s.URLs()[0]+"/v1/batch", stack.WriteKeyOf(appBad), batchOf("chdown-extra-", 50))
		if r.status != 200 || !r.body.Success {
			t.Errorf("got %d %s while ClickHouse is down, want 200 and success", r.status, r.text)
		}
		if err := stack.Await(ctx, "a growing lag", func() error {
			now, err := lag(ctx, writer)
			if err == nil && now <= before {
				err = fmt.Errorf("%g, was %g", now, before)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		if left := down - time.Since(stopped); left > 0 {
			time.Sleep(left) // the length of the outage is what is tested
		}
		started = true
		if err := s.ClickHouse.Start(ctx); err != nil {
			t.Error(err)
		}
		if err := writer.AwaitReady(ctx); err != nil {
			t.Error(err)
		}
	})
	if n := stored(t, s, "chdown-extra-49"); n != 1 {
		t.Errorf("an event that was sent while ClickHouse was down is stored %d times, want once", n)
	}
}

// batchOf is a body of n events whose message ids begin with prefix.
func batchOf(prefix string, n int) []byte {
	body := []byte(`{"batch":[`)
	for i := range n {
		if i > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"type":"track","event":"Item Bagged","userId":"%[1]su","messageId":"%[1]s%[2]d"}`, prefix, i)
	}
	return append(body, `]}`...)
}

// lag is how many records the writer has not committed.
func lag(ctx context.Context, writer *stack.Process) (float64, error) {
	_, text, err := writer.Get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, false
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, metricLag) {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, err
			}
			sum, found = sum+n, true
		}
	}
	if !found {
		return 0, fmt.Errorf("no metric %s yet", metricLag)
	}
	return sum, nil
}

const metricLag = "uptake_writer_lag_records"
