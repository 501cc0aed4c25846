package console

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/note"
)

// notebook loads notes into ClickHouse as the writer does, and keeps what was written.
type notebook struct {
	s       *stage
	written []note.Note
	fault   error
	late    bool // the writer does not load them
}

func startWithNotes(t *testing.T, change ...func(*Config, *Dependencies)) (*stage, *notebook) {
	t.Helper()
	b := &notebook{}
	change = append(change, func(_ *Config, d *Dependencies) {
		d.WriteNote = func(ctx context.Context, n *note.Note) error {
			if err := errors.Join(b.fault, n.Validate()); err != nil {
				return err
			}
			b.written = append(b.written, *n)
			if b.late {
				return nil
			}
			return b.s.conn.Exec(ctx, "INSERT INTO "+b.s.c.cfg.ClickHouse.Schema().Table("notes")+" (app_id, kind, id, value, author, removed, version, written_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
				n.App, n.Kind, n.ID, string(n.Value()), n.By, n.Removed, uint64(len(b.written)), n.Written)
		}
	})
	b.s = start(t, change...)
	return b.s, b
}

// post sends a form as a page of the console does, by the user that the proxy names;
// without a user by the cookie.
func (s *stage) post(path, user string, form url.Values, change ...func(*http.Request)) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Host = s.c.access.hosts[0]
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", "http://"+r.Host)
	if user == "" {
		r.AddCookie(&http.Cookie{Name: cookieName, Value: s.c.access.cookie()})
	} else {
		r.RemoteAddr = "10.1.2.3:5000"
		r.Header.Set("X-Proxy-Secret", "a secret of the proxy")
		r.Header.Set("Remote-User", user)
	}
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, r)
	return w
}

var tagOrSpace = regexp.MustCompile(`<[^>]*>|\s+`)

// textOf is the text of a page.
func textOf(html string) string {
	return strings.Join(strings.Fields(tagOrSpace.ReplaceAllString(html, " ")), " ")
}

// Annotations are added, changed and deleted by forms of the page, in the name of whoever
// is signed in, and stand on the time axes of the charts.
func TestAnnotations(t *testing.T) {
	s, b := startWithNotes(t)
	s.insert(usage{"shop", "user", "u", "scan", "Scan", today.AddDate(0, 0, -3)}, usage{"shop", "user", "u", "scan", "Scan", today})
	form := func(pairs ...string) url.Values {
		v := url.Values{"app": {"dev"}, "zone": {"Europe/Vienna"}, "p": {"7d"}, "category": {"release"}, "day": {"2026-11-18"}, "text": {"release 1.2 <script>"}}
		for i := 0; i+1 < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	if text := textOf(s.page("/annotations?app=dev")); !strings.Contains(text, "Nothing is noted") {
		t.Errorf("the empty page: %s", text)
	}
	if w := s.post("/annotations", "maria", form()); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/annotations?app=dev&p=7d&zone=Europe%2FVienna" {
		t.Fatalf("got %d, to %s: %s", w.Code, w.Header().Get("Location"), w.Body)
	}
	// An instant is of another day in another zone, a whole day is not.
	if w := s.post("/annotations", "", form("clock", "00:30", "day", "2026-11-19", "text", "campaign", "category", "campaign")); w.Code != http.StatusSeeOther {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	if n := b.written[1]; !n.Annotation.At.Equal(time.Date(2026, 11, 18, 23, 30, 0, 0, time.UTC)) || n.Annotation.WholeDay || n.By != "" {
		t.Errorf("got %+v", n)
	}
	if n := b.written[0]; !n.Annotation.At.Equal(time.Date(2026, 11, 18, 0, 0, 0, 0, time.UTC)) || !n.Annotation.WholeDay || n.By != "maria" {
		t.Errorf("got %+v", n)
	}
	for target, want := range map[string]string{
		"/overview?app=dev&p=7d&zone=Europe/Vienna":                        "18 Nov 2026 release release 1.2 &lt;script&gt; (maria) 19 Nov 2026 00:30 campaign campaign",
		"/overview?app=dev&p=7d&zone=UTC":                                  "18 Nov 2026 release release 1.2 &lt;script&gt; (maria) 18 Nov 2026 23:30 campaign campaign",
		"/explore?app=dev&show=trends&p=7d&zone=UTC&grain=week&by=product": "18 Nov 2026 release release 1.2",
		"/explore?app=dev&show=sessions&p=7d&zone=UTC":                     "18 Nov 2026 release release 1.2",
		"/feature?app=dev&feature=scan&p=7d&zone=UTC":                      "18 Nov 2026 release release 1.2",
		"/annotations?app=dev&zone=Europe/Vienna":                          "2 annotations are on the time axes of dev.",
		"/annotations?app=dev&zone=Europe/Vienna&edit=" + b.written[1].ID:  "Change the annotation",
	} {
		html := s.page(target)
		if !strings.Contains(textOf(html), want) {
			t.Errorf("%s: no %q in\n%s", target, want, textOf(html))
		}
		if strings.Contains(html, "<script>") {
			t.Errorf("%s: a text is not escaped", target)
		}
	}
	if html := s.page("/overview?app=dev&p=1d"); strings.Contains(html, "release 1.2") {
		t.Error("an annotation of another period is on the chart")
	}
	if html := s.page("/overview?app=other"); strings.Contains(html, "release 1.2") {
		t.Error("an annotation of another app is shown")
	}
	edit := s.page("/annotations?app=dev&zone=Europe/Vienna&edit=" + b.written[1].ID)
	for _, want := range []string{`name="day" value="2026-11-19"`, `name="clock" value="00:30"`, `<option selected>campaign`, `name="text" value="campaign"`, `value="` + b.written[1].ID + `"`} {
		if !strings.Contains(edit, want) {
			t.Errorf("the form that changes one has no %s", want)
		}
	}
	if w := s.post("/annotations", "joan", form("id", b.written[0].ID, "text", "release 1.3")); w.Code != http.StatusSeeOther {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	if w := s.post("/annotations", "joan", url.Values{"app": {"dev"}, "id": {b.written[1].ID}, "remove": {"1"}}); w.Code != http.StatusSeeOther {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	if text := textOf(s.page("/annotations?app=dev")); !strings.Contains(text, "1 annotation is on") || !strings.Contains(text, "18 Nov 2026 release release 1.3 joan") || strings.Contains(text, "campaign campaign") {
		t.Errorf("after a change and a deletion: %s", text)
	}
	if w := s.do(nil, "/annotations?app=dev&edit="+b.written[1].ID); w.Code != http.StatusBadRequest {
		t.Errorf("the form of a deleted one: got %d", w.Code)
	}
	if a := s.ask("annotations", "p=7d"); len(a.Rows) != 1 || a.Rows[0]["text"] != "release 1.3" {
		t.Errorf("as JSON: %v", a.Rows)
	}

	n := len(b.written)
	for name, tt := range map[string]struct {
		form   url.Values
		change func(*http.Request)
		code   int
		want   string
	}{
		"a long text":        {form("text", strings.Repeat("x", 501)), nil, 400, "text has 501 bytes and may have 500"},
		"no text":            {form("text", " "), nil, 400, "text must not be empty"},
		"no app":             {form("app", ""), nil, 400, "app must not be empty"},
		"an unknown word":    {form("category", "party"), nil, 400, "category must be one of release"},
		"no day":             {form("day", ""), nil, 400, "must be written as 2026-11-20"},
		"a day of no month":  {form("day", "2026-02-30"), nil, 400, "2026-02-30"},
		"a time of no clock": {form("clock", "25:00"), nil, 400, "25:00"},
		"a year too far":     {form("day", "2036-01-01"), nil, 400, "a year from now"},
		"an unknown zone":    {form("zone", "Mars"), nil, 400, "Mars"},
		"another's id":       {form("id", "a b"), nil, 400, "id must be 1 to 64"},
		"a large form":       {form("text", strings.Repeat("x", maxForm)), nil, 400, "The form cannot be read"},
		"another site":       {form(), func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403, "Only a page of the console"},
		"no origin":          {form(), func(r *http.Request) { r.Header.Del("Origin") }, 403, "Only a page of the console"},
		"nobody":             {form(), func(r *http.Request) { r.Header.Del("Cookie") }, 401, "opens with the address"},
	} {
		w := s.post("/annotations", "", tt.form, func(r *http.Request) {
			if tt.change != nil {
				tt.change(r)
			}
		})
		if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s: got %d, want %d and %q in\n%s", name, w.Code, tt.code, tt.want, textOf(w.Body.String()))
		}
	}
	if len(b.written) != n {
		t.Errorf("%d notes were written by refused requests", len(b.written)-n)
	}
	b.fault = errors.New("no broker")
	if w := s.post("/annotations", "", form()); w.Code != http.StatusBadGateway || strings.Contains(w.Body.String(), "no broker") {
		t.Errorf("a log that does not take it: %d %s", w.Code, w.Body)
	}
	b.fault, b.late, s.c.noteWait = nil, true, time.Millisecond
	w := s.post("/annotations", "", form())
	if w.Code != http.StatusSeeOther || !strings.Contains(textOf(s.page(w.Header().Get("Location"))), "It is saved.") {
		t.Errorf("a writer that is behind: %d to %s", w.Code, w.Header().Get("Location"))
	}
}

// A console without notes shows the page and takes nothing.
func TestConsoleWithoutNotes(t *testing.T) {
	s := start(t)
	if html := s.page("/annotations?app=dev"); strings.Contains(html, `method="post"`) || !strings.Contains(html, "-console-notes") {
		t.Errorf("got %s", textOf(html))
	}
	if w := s.post("/annotations", "", url.Values{"app": {"dev"}, "day": {"2026-11-18"}, "text": {"x"}, "category": {"other"}}); w.Code != http.StatusMethodNotAllowed && w.Code != http.StatusNotFound {
		t.Errorf("got %d", w.Code)
	}
}

// Programs add annotations with a token that allows nothing else.
func TestAnnotationsByProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, fmt.Appendf(nil, "dev sha256:%x annotate\ndev sha256:%x\n", sha256.Sum256([]byte("ci")), sha256.Sum256([]byte("metering"))), 0o600); err != nil {
		t.Fatal(err)
	}
	s, b := startWithNotes(t, func(c *Config, _ *Dependencies) { c.AppTokens = path })
	send := func(token, target, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
		r.Host = s.c.access.hosts[0]
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		s.h.ServeHTTP(w, r)
		return w
	}
	const target = "/api/v1/annotations?app=dev"
	for name, tt := range map[string]struct {
		token, target, body string
		code                int
		want                string // of the answer
	}{
		"now":              {"ci", target, `{"text":"release 1.2"}`, 201, `"by":"program","written_at":"2026-11-20T15:30:00Z","annotation":{"at":"2026-11-20T15:30:00Z","category":"release","text":"release 1.2"}`},
		"of a day":         {"ci", target, `{"id":"r1","at":"2026-11-18","category":"campaign","text":"spring","by":"github"}`, 201, `"id":"r1","by":"github","written_at":"2026-11-20T15:30:00Z","annotation":{"at":"2026-11-18T00:00:00Z","whole_day":true,"category":"campaign"`},
		"of an instant":    {"ci", target, `{"at":"2026-11-18T10:00:00+02:00","text":"x"}`, 201, `"at":"2026-11-18T08:00:00Z"`},
		"the console's":    {s.c.access.token, target, `{"text":"x"}`, 201, `"app":"dev"`},
		"a metering token": {"metering", target, `{"text":"x"}`, 401, "with a token of the app"},
		"another app":      {"ci", "/api/v1/annotations?app=other", `{"text":"x"}`, 401, ""},
		"two apps":         {"ci", target + "&app=other", `{"text":"x"}`, 401, ""},
		"no app":           {"ci", "/api/v1/annotations", `{"text":"x"}`, 401, ""},
		"an unknown token": {"c", target, `{"text":"x"}`, 401, ""},
		"a form":           {"ci", "/annotations?app=dev", `text=x`, 403, ""},
		"no text":          {"ci", target, `{}`, 400, "text must not be empty"},
		"a long text":      {"ci", target, `{"text":"` + strings.Repeat("x", 501) + `"}`, 400, "text has 501 bytes and may have 500"},
		"an unknown field": {"ci", target, `{"text":"x","when":"now"}`, 400, `unknown field \"when\"`},
		"a bad instant":    {"ci", target, `{"text":"x","at":"tomorrow"}`, 400, `at must be a day such as 2026-11-20`},
		"two objects":      {"ci", target, `{"text":"x"}{}`, 400, "one object"},
		"no JSON":          {"ci", target, `release`, 400, "bad_json"},
		"a large body":     {"ci", target, `{"text":"` + strings.Repeat("x", maxForm) + `"}`, 400, "16384"},
		"a number as text": {"ci", target, `{"text":1}`, 400, "bad_json"},
	} {
		n := len(b.written)
		w := send(tt.token, tt.target, tt.body)
		if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s: got %d %s, want %d %s", name, w.Code, w.Body, tt.code, tt.want)
		}
		if wrote := len(b.written) - n; wrote != map[bool]int{true: 1}[tt.code == 201] {
			t.Errorf("%s: %d notes were written", name, wrote)
		}
	}
	bearer := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	for target, want := range map[string]int{"/api/v1/summary?app=dev": 401, "/api/v1/annotations?app=dev": 401, "/annotations?app=dev": 401} {
		if w := s.do(bearer("ci"), target); w.Code != want {
			t.Errorf("%s with a token that annotates: got %d, want %d", target, w.Code, want)
		}
	}
	// The same id again is a change, so a program may repeat its call.
	send("ci", target, `{"id":"r1","at":"2026-11-18","text":"summer"}`)
	a := s.ask("annotations", "")
	var texts []string
	for _, row := range a.Rows {
		if row["id"] == "r1" {
			texts = append(texts, row["text"].(string))
		}
	}
	if len(a.Rows) != 4 || len(texts) != 1 || texts[0] != "summer" {
		t.Errorf("got %d rows, r1 is %q", len(a.Rows), texts)
	}
	// A page cannot use a cookie there.
	if w := s.post(target, "", nil); w.Code != http.StatusUnauthorized {
		t.Errorf("a page: got %d", w.Code)
	}
	if w := s.post(target, "maria", nil); w.Code != http.StatusUnauthorized {
		t.Errorf("somebody behind the proxy: got %d", w.Code)
	}
}
