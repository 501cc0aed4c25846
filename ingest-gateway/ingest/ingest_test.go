package ingest_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
	"github.com/uptakehq/uptake/schemas/event"
)

// lines is a protocol whose body has a line for each event: "kind event user".
type lines struct{ name string }

func (p lines) Name() string          { return p.name }
func (p lines) Fields() ingest.Fields { return ingest.Fields{UserID: "who"} }

func (p lines) Routes() []ingest.Route {
	return []ingest.Route{
		{
			Method: "POST", Path: "/lines", Decode: p.decode, Answer: p.answer,
			Match: func(r *ingest.Request) bool { return r.Header("X-Proto") == p.name },
		},
		{Method: "GET", Path: "/" + p.name + "-config/{key}/all/{rest...}", Decode: p.key, Answer: p.answer},
	}
}

func (p lines) key(r *ingest.Request, b *ingest.Batch) error { return b.Authenticate(r.Param("key")) }

func (p lines) decode(r *ingest.Request, b *ingest.Batch) error {
	if bytes.HasPrefix(r.Body, []byte("early")) {
		b.Item(r.Body).UserID = "u"
		b.Add()
		return nil
	}
	if err := b.Authenticate(r.BasicUser()); err != nil {
		return err
	}
	for line := range bytes.Lines(r.Body) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		f := strings.Split(ingest.String(line), " ")
		if len(f) != 3 {
			return ingest.Unreadable("line of %d words", len(f))
		}
		ev := b.Item(line)
		ev.Kind, ev.Event, ev.UserID = f[0], f[1], f[2]
		switch f[0] {
		case "nothing":
			b.Ignore()
			continue
		case "both":
			ev.Kind, ev.MessageID = event.KindTrack, "m1"
			b.Add()
			ev.Kind, ev.MessageID = event.KindIdentify, "m1:identify"
		}
		b.Add()
	}
	return nil
}

func (p lines) answer(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		w.Status = fault.Kind.Status()
		w.WriteQuoted(fault.Error())
		return
	}
	w.WriteString(p.name + " " + r.Path + " " + r.Param("rest"))
}

const basic = "Authorization: Basic dGVzdC13cml0ZS1rZXk6" // test-write-key:

func TestVerdicts(t *testing.T) {
	g := ingesttest.New(t, lines{"one"})
	res := g.Do("POST", "/lines", []byte("track A u1\ntrack  u2\nnothing x x\nboth B u3\nfly C u4\nidentify x "), basic)
	want := []ingest.Verdict{
		{State: ingest.Accepted},
		{State: ingest.Rejected, Code: ingest.CodeMissingField, Field: "event", Detail: "track needs event"},
		{State: ingest.Ignored},
		{State: ingest.Accepted, MessageID: "m1"},
		{State: ingest.Rejected, Code: ingest.CodeUnknownKind, Field: "kind", Detail: "no such kind: fly"},
		{State: ingest.Rejected, Code: ingest.CodeMissingField, Field: "who", Detail: "identify needs who or anonymous_id"},
	}
	if len(res.Verdicts) != len(want) {
		t.Fatalf("got %d verdicts, want %d: %+v", len(res.Verdicts), len(want), res)
	}
	for i, v := range res.Verdicts {
		if want[i].MessageID == "" && v.State != ingest.Ignored {
			if len(v.MessageID) != 36 || v.MessageID[14] != '7' {
				t.Errorf("item %d: message id %q is no UUIDv7", i, v.MessageID)
			}
			v.MessageID = ""
		}
		if v != want[i] {
			t.Errorf("item %d: got %+v, want %+v", i, v, want[i])
		}
	}
	var ids []string
	for _, e := range res.Events {
		ids = append(ids, e.Kind+" "+e.UserID+" "+e.IP+" "+e.UserAgent)
	}
	wantIDs := []string{
		"track u1 203.0.113.77 ingesttest/1", "track u3 203.0.113.77 ingesttest/1", "identify u3 203.0.113.77 ingesttest/1",
	}
	if strings.Join(ids, "\n") != strings.Join(wantIDs, "\n") {
		t.Errorf("got events %q, want %q", ids, wantIDs)
	}
	if len(res.Rejected) != 3 || string(res.Rejected[1].Original) != "fly C u4" || res.Rejected[1].AppID != "test" {
		t.Errorf("got rejected %+v", res.Rejected)
	}
}

func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name   string
		header string
		body   string
		limit  func(*ingest.Limits)
		status int
		body2  string
	}{
		{"no key", "X: y", "track A u", nil, 401, `"bad_key: no write key"`},
		{"unknown key", "Authorization: Basic eDo=", "track A u", nil, 401, `"bad_key: unknown write key"`},
		{"event before the key", basic, "early", nil, 401, `"bad_key: no write key"`},
		{"unreadable", basic, "track", nil, 400, `"bad_body: line of 1 words"`},
		{"too many", basic, "track A u\ntrack A u\ntrack A u", func(l *ingest.Limits) { l.MaxBatchEvents = 2 }, 413, `"too_large: too many events in one request, bound 2 (max-batch-events)"`},
		{"too large", basic, "track A u", func(l *ingest.Limits) { l.MaxBodyBytes = 3 }, 413, `"too_large: body too large, bound 3 (max-body-bytes)"`},
	} {
		g := ingesttest.New(t, lines{"one"})
		if tc.limit != nil {
			tc.limit(&g.Limits)
		}
		res := g.Do("POST", "/lines/", []byte(tc.body), tc.header)
		if res.Status != tc.status || res.Body != tc.body2 || len(res.Events)+len(res.Rejected) > 0 {
			t.Errorf("%s: got %d %s (%d events), want %d %s", tc.name, res.Status, res.Body, len(res.Events), tc.status, tc.body2)
		}
	}
}

func TestRoutes(t *testing.T) {
	g := ingesttest.New(t, lines{"one"}, lines{"two"})
	for _, tc := range []struct {
		method, target, header string
		status                 int
		body                   string
	}{
		{"POST", "/lines", "X-Proto: one", 200, "one /lines "},
		{"POST", "/lines", "X-Proto: two", 200, "two /lines "},
		{"POST", "/lines", "X-Proto: three", 200, "one /lines "},
		{"POST", "/two/lines/", "X-Proto: one", 200, "two /lines "},
		{"GET", "/two-config/test-write-key/all/a/b", "X: y", 200, "two /two-config/test-write-key/all/a/b a/b"},
		{"GET", "/two/two-config/test-write-key/all/", "X: y", 404, ""},
		{"GET", "/one/one-config/test-write-key/all/c", "X: y", 200, "one /one-config/test-write-key/all/c c"},
		{"GET", "/two-config/other/all/a", "X: y", 401, `"bad_key: unknown write key"`},
		{"GET", "/lines", "X: y", http.StatusNotFound, ""},
		{"POST", "/Lines", "X: y", http.StatusNotFound, ""},
	} {
		res := g.Do(tc.method, tc.target, []byte("track A u"), tc.header, basic)
		if res.Status != tc.status || res.Body != tc.body {
			t.Errorf("%s %s %s: got %d %q, want %d %q", tc.method, tc.target, tc.header, res.Status, res.Body, tc.status, tc.body)
		}
	}
}

// A request can name its event where the protocol has no place for that: sent
// again it is the same event, and rejected it keeps its name.
func TestIdempotencyKeyIsTheMessageID(t *testing.T) {
	g := ingesttest.New(t, lines{"one"})
	do := func(body, key string) (ids []string) {
		for _, v := range g.Do("POST", "/lines", []byte(body), basic, "Idempotency-Key: "+key).Verdicts {
			ids = append(ids, v.MessageID)
		}
		return ids
	}
	const key = "019aa9a3-call-1"
	for _, body := range []string{"track A u1", "track  u1", "track A u1\ntrack A u2"} {
		ids := do(body, key)
		if ids[0] != key || len(ids) > 1 && ids[1] == key {
			t.Errorf("%q: got %q, want %s for the first event alone", body, ids, key)
		}
	}
	if ids := do("both A u1", key); ids[0] != "m1" {
		t.Errorf("with a message id of its own: got %q", ids)
	}
	for _, unusable := range []string{"", "two words", "caf\u00e9", "\x01"} {
		if ids := do("track A u1", unusable); len(ids[0]) != 36 {
			t.Errorf("key %q: got %q, want a new id", unusable, ids)
		}
	}
}
