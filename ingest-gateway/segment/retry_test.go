package segment

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
)

const testAuth = "Authorization: Basic dGVzdC13cml0ZS1rZXk6"

// RudderStack's SDK for Rust sends no message ids, instants of nanoseconds, each type
// twice, and the same bytes again.
func TestSentAgainWithoutID(t *testing.T) {
	g := ingesttest.New(t, New())
	send := func(body string) []string {
		t.Helper()
		res := g.Do("POST", "/v1/batch", []byte(body), testAuth)
		if len(res.Rejected) > 0 {
			t.Fatalf("rejected %+v", res.Rejected)
		}
		var ids []string
		for _, e := range res.Events {
			ids = append(ids, e.MessageID)
		}
		return ids
	}
	body := func(at string) string {
		one := `{"type":"track","type":"track","event":"Paid","userId":"u1","originalTimestamp":"` + at + `"}`
		return `{"batch":[` + one + `,` + one + `]}`
	}
	fine := body("2026-11-20T09:00:27.029123456Z")
	first, again := send(fine), send(fine)
	if len(first) != 2 || first[0] == first[1] || strings.Join(first, " ") != strings.Join(again, " ") {
		t.Errorf("got ids %q and then %q", first, again)
	}
	coarse := body("2026-11-20T09:00:27.029Z")
	if a, b := send(coarse), send(coarse); len(a) != 2 || a[0] == b[0] {
		t.Errorf("calls of one millisecond are one: %q, %q", a, b)
	}
	res := g.Do("POST", "/v1/batch", []byte(`{"batch":[{"type":"track","type":"page","event":"Paid","userId":"u1"}]}`), testAuth)
	if len(res.Rejected) != 1 || res.Rejected[0].Code != "duplicate_field" {
		t.Errorf("two types: got %+v", res.Rejected)
	}
}

// What RudderStack's browser SDK needs of the document: it refuses one without these.
func TestSourceConfig(t *testing.T) {
	g := ingesttest.New(t, New())
	for _, target := range []string{"/sourceConfig/?p=web&v=3.1&writeKey=test-write-key", "/segment/sourceConfig?p=web"} {
		res := g.Do("GET", target, nil, testAuth)
		var doc struct {
			Source struct {
				ID           string          `json:"id"`
				Config       map[string]any  `json:"config"`
				Destinations json.RawMessage `json:"destinations"`
				Enabled      bool            `json:"enabled"`
				WriteKey     string          `json:"writeKey"`
			} `json:"source"`
		}
		if err := json.Unmarshal([]byte(res.Body), &doc); err != nil || res.Status != 200 {
			t.Fatalf("%s: got %d %s: %v", target, res.Status, res.Body, err)
		}
		if s := doc.Source; s.ID == "" || s.Config == nil || string(s.Destinations) != "[]" || !s.Enabled || s.WriteKey != "test-write-key" {
			t.Errorf("%s: got %s", target, res.Body)
		}
	}
	if res := g.Do("GET", "/sourceConfig/?writeKey=nobody", nil); res.Status != 401 {
		t.Errorf("an unknown key: got %d %s", res.Status, res.Body)
	}
}

// A message id that shows nothing is none, and a mark before a body is no part of it.
func TestIDsOfBlanks(t *testing.T) {
	g := ingesttest.New(t, New())
	seen := map[string]bool{}
	for _, id := range []string{" ", "\t", "\u00a0\u2003", "\u200b", "\ufeff", "\u2060\u200d", "\u3164", "\u00ad", `\u0000`, `\u0007`} {
		for range 2 {
			res := g.Do("POST", "/v1/track", []byte("\xef\xbb\xbf"+`{"event":"Paid","userId":"u1","messageId":"`+strings.ReplaceAll(id, "\t", `\t`)+`"}`), testAuth)
			if len(res.Events) != 1 || seen[res.Events[0].MessageID] || len(res.Events[0].MessageID) != 36 {
				t.Errorf("id %q: got %d %s, %+v", id, res.Status, res.Body, res.Events)
				continue
			}
			seen[res.Events[0].MessageID] = true
		}
	}
	for _, id := range []string{"m 1", "é", "日本", "🙂", "-"} {
		res := g.Do("POST", "/v1/track", []byte(`{"event":"Paid","userId":"u1","messageId":"`+id+`"}`), testAuth)
		if len(res.Events) != 1 || res.Events[0].MessageID != id {
			t.Errorf("id %q: got %+v", id, res.Events)
		}
	}
}

// A text that is no id does not hide the id in the next place that can have it.
func TestTextsThatAreNoIDsHideNone(t *testing.T) {
	g := ingesttest.New(t, New())
	g.App.AccountKeys = []string{"company", "org"}
	for _, tc := range []struct{ body, account string }{
		{`{"type":"track","event":"e","userId":"u1","context":{"groupId":"null","traits":{"org":"real-co"}}}`, "real-co"},
		{`{"type":"track","event":"e","userId":"u1","properties":{"company":"undefined"},"traits":{"company":"real-co"}}`, "real-co"},
		{`{"type":"track","event":"e","userId":"u1","properties":{"company":" "},"context":{"traits":{"company":4711.0}}}`, "4711"},
		{`{"type":"metric","event":"Seats","groupId":"N/A","properties":{"value":1},"context":{"groupId":"real-co"}}`, "real-co"},
		{`{"type":"identify","userId":"u1","traits":{"company":"None","org":"real-co"}}`, "real-co"},
		{`{"type":"track","event":"e","userId":"u1","properties":{"company":"nil"},"context":{"groupId":"undefined"}}`, ""},
	} {
		res := g.Do("POST", "/v1/batch", []byte(`{"batch":[`+tc.body+`]}`), testAuth)
		if len(res.Events) != 1 || res.Events[0].AccountID != tc.account {
			t.Errorf("%s: got %d %s, %+v, want account %q", tc.body, res.Status, res.Body, res.Events, tc.account)
			continue
		}
		if unread := string(res.Events[0].Unread); (tc.account == "") != (unread == `{"account_id":"undefined"}`) {
			t.Errorf("%s: unread %s", tc.body, unread)
		}
	}
	// The context of the batch holds where a message's own names no account.
	res := g.Do("POST", "/v1/batch", []byte(`{"context":{"groupId":"batch-co"},"batch":[{"type":"track","event":"e","userId":"u1","context":{"groupId":"null"}}]}`), testAuth)
	if len(res.Events) != 1 || res.Events[0].AccountID != "batch-co" {
		t.Errorf("of the batch: got %d %s, %+v", res.Status, res.Body, res.Events)
	}
}
