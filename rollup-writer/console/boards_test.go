package console

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/note"
)

// people used `scan` and then `pay`: three scanned, two of them paid, one in shop-b. One
// scanned ten days ago only.
func boardUsage() []usage {
	at := today.AddDate(0, 0, -2)
	return []usage{
		{"shop-a", "user", "ann", "scan", "Scan", at},
		{"shop-a", "user", "ann", "pay", "Pay", at.Add(1e9)},
		{"shop-b", "user", "bob", "scan", "Scan", at},
		{"shop-b", "user", "bob", "pay", "Pay", at.Add(1e9)},
		{"shop-b", "user", "eve", "scan", "Scan", at},
		{"shop-b", "user", "old", "scan", "Scan", today.AddDate(0, 0, -10)},
	}
}

// idOf is the id of the newest note of a kind.
func (b *notebook) idOf(kind string) string {
	for _, n := range slices.Backward(b.written) {
		if n.Kind == kind {
			return n.ID
		}
	}
	return ""
}

// A question of Explore is saved under a name, put on boards, renamed and deleted. A board
// shows its questions with their answers, for the period of the page.
func TestBoards(t *testing.T) {
	s, b := startWithNotes(t)
	s.insert(boardUsage()...)
	scope := func(pairs ...string) url.Values {
		v := url.Values{"app": {"dev"}, "zone": {"UTC"}, "p": {"7d"}}
		for i := 0; i+1 < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		return v
	}
	done := func(path, user string, form url.Values, to string) {
		t.Helper()
		w := s.post(path, user, form)
		if got := w.Header().Get("Location"); w.Code != http.StatusSeeOther || !strings.HasPrefix(got, to) {
			t.Fatalf("%s: got %d to %q, want %q: %s", path, w.Code, got, to, textOf(w.Body.String()))
		}
		s.page(w.Header().Get("Location"))
	}
	if text := textOf(s.page("/boards?app=dev")); !strings.Contains(text, "No question of dev is kept yet.") || !strings.Contains(text, "Keep a question") {
		t.Errorf("the empty page: %s", text)
	}
	// The form under an answer has the choices of the address, and no period.
	html := s.page("/explore?app=dev&p=7d&show=funnel&step=scan&step=&step=pay&window=3600")
	const query = "show=funnel&step=scan&step=pay&window=3600"
	if !strings.Contains(html, `name="query" value="`+strings.ReplaceAll(query, "&", "&amp;")+`"`) || !strings.Contains(html, `value="Funnel: scan, pay"`) {
		t.Errorf("no form that saves the funnel in\n%s", html)
	}
	if html := s.page("/explore?app=dev&p=7d&show=funnel&step=scan"); strings.Contains(html, `action="/saved"`) {
		t.Error("a question without an answer can be saved")
	}
	done("/saved", "maria", scope("query", query, "name", "Paying <b>", "newboard", "Monday"), "/board?app=dev&board="+b.idOf(note.KindBoard))
	funnel, board := b.idOf(note.KindQuestion), b.idOf(note.KindBoard)
	done("/saved", "", scope("query", "show=trends&by=account&p=90d&app=other&token=x", "name", "By account", "board", board), "/board?")
	trend := b.idOf(note.KindQuestion)
	if got := b.written[len(b.written)-1].Question.Query; got != "by=account&show=trends" {
		t.Errorf("kept %q", got)
	}
	done("/saved", "joan", scope("query", "show=sessions", "name", "Sessions"), "/boards?")

	page := "/board?app=dev&zone=UTC&p=7d&board=" + board
	html = s.page(page)
	for _, want := range []string{
		"Monday: 2 questions about the last 7 days.",
		"By account definition", "Of 2 values of account, shop-b had the most active people in a day of the last 7 days: 2.",
		"Paying &lt;b&gt; definition", "Of 3 people who did scan in the last 7 days, 2 came to pay within 1 hour: 67 %.",
	} {
		if !strings.Contains(textOf(html), want) {
			t.Errorf("the board has no %q in\n%s", want, textOf(html))
		}
	}
	if !strings.Contains(html, `href="/explore?app=dev&amp;p=7d&amp;zone=UTC&amp;`+strings.ReplaceAll(query, "&", "&amp;")+`"`) {
		t.Error("the board does not link to the question")
	}
	if text := textOf(s.page("/board?app=dev&zone=UTC&p=28d&board=" + board)); !strings.Contains(text, "Of 4 people who did scan in the last 28 days") {
		t.Errorf("the board of another period: %s", text)
	}
	text := textOf(s.page("/boards?app=dev"))
	for _, want := range []string{"dev has 1 board and 3 saved questions.", "Monday 2 questions, by maria", "Paying &lt;b&gt; Funnel: scan, pay Monday maria", "By account Trends by account Monday", "Sessions Sessions joan"} {
		if !strings.Contains(text, want) {
			t.Errorf("the list has no %q in\n%s", want, text)
		}
	}
	if text := textOf(s.page("/boards?app=other")); !strings.Contains(text, "No question of other is kept yet.") {
		t.Errorf("another app: %s", text)
	}
	if w := s.do(nil, "/board?app=other&board="+board); w.Code != http.StatusBadRequest {
		t.Errorf("the board in another app: got %d", w.Code)
	}

	// Changes: another name and no board; a board with another name; deletions.
	if html := s.page("/boards?app=dev&edit=" + funnel); !strings.Contains(html, `name="board" value="`+board+`" checked`) || !strings.Contains(html, "Change “Paying &lt;b&gt;”") {
		t.Errorf("the form that changes one: %s", html)
	}
	done("/saved", "joan", scope("id", funnel, "query", query, "name", "Who pays"), "/boards?")
	done("/boards", "joan", scope("id", board, "name", "Tuesday"), "/board?app=dev&board="+board)
	done("/saved", "", scope("id", trend, "remove", "1"), "/boards?")
	if text := textOf(s.page(page)); !strings.Contains(text, "Tuesday: 0 questions") || !strings.Contains(text, "Nothing is on this board yet") {
		t.Errorf("the board that became empty: %s", text)
	}
	done("/boards", "", scope("id", board, "remove", "1"), "/boards?")
	if text := textOf(s.page("/boards?app=dev")); !strings.Contains(text, "dev has 0 boards and 2 saved questions.") || !strings.Contains(text, "Who pays Funnel: scan, pay joan") {
		t.Errorf("after deletions: %s", text)
	}

	n := len(b.written)
	for name, tt := range map[string]struct {
		path string
		form url.Values
		want string
	}{
		"a question without a name": {"/saved", scope("query", query, "newboard", "x"), "name must not be empty"},
		"a long name":               {"/saved", scope("query", query, "name", strings.Repeat("x", 101)), "name has 101 bytes and may have 100"},
		"an unknown tab":            {"/saved", scope("query", "show=drop", "name", "x"), "There is no &#34;drop&#34; under Explore."},
		"no query":                  {"/saved", scope("query", "a=%zz", "name", "x"), "cannot be read"},
		"a long query":              {"/saved", scope("query", "show=paths&step="+strings.Repeat("x", 2000), "name", "x"), "may have 2000"},
		"many boards":               {"/saved", url.Values{"app": {"dev"}, "query": {query}, "name": {"x"}, "board": strings.Split(strings.Repeat("b ", 21), " ")}, "may be on 20 boards (got 21)"},
		"a board without a name":    {"/boards", scope(), "name must not be empty"},
		"a board of no app":         {"/boards", url.Values{"name": {"x"}}, "app must not be empty"},
	} {
		if w := s.post(tt.path, "", tt.form); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s: got %d, want %q in %s", name, w.Code, tt.want, textOf(w.Body.String()))
		}
	}
	evil := func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }
	for _, path := range []string{"/saved", "/boards"} {
		if w := s.post(path, "maria", scope("query", query, "name", "x"), evil); w.Code != http.StatusForbidden {
			t.Errorf("%s from another site: got %d", path, w.Code)
		}
	}
	if len(b.written) != n {
		t.Errorf("%d notes were written by refused requests", len(b.written)-n)
	}
}

// A saved question that a release does not know, or whose choices cannot be used, shows
// why, and the rest of its board.
func TestBoardWithABrokenQuestion(t *testing.T) {
	s, b := startWithNotes(t)
	s.insert(boardUsage()...)
	for _, n := range []note.Note{
		{ID: "b1", Kind: note.KindBoard, Board: &note.Board{Name: "Monday"}},
		{ID: "q1", Kind: note.KindQuestion, Question: &note.Question{Name: "future", Query: "show=forecast", Boards: []string{"b1"}}},
		{ID: "q2", Kind: note.KindQuestion, Question: &note.Question{Name: "odd", Query: "show=trends&by=nothing", Boards: []string{"b1"}}},
		{ID: "q3", Kind: note.KindQuestion, Question: &note.Question{Name: "retention", Query: "show=retention", Boards: []string{"b1", "gone"}}},
		{ID: "q4", Kind: note.KindQuestion, Question: &note.Question{Name: "active", Query: "show=active", Boards: []string{"b1"}}},
	} {
		n.App, n.Written = "dev", today
		if err := s.c.writeNote(t.Context(), &n); err != nil {
			t.Fatal(err)
		}
	}
	_ = b
	text := textOf(s.page("/board?app=dev&p=7d&zone=UTC&board=b1"))
	for _, want := range []string{"There is no &#34;forecast&#34; under Explore.", "by=&#34;nothing&#34; is no dimension", "first week", "2 accounts and 3 people were active in the last 7 days."} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// A saved question is answered as JSON at an address of its own, with the token of its app
// and for any period.
func TestSavedQuestionAsJSON(t *testing.T) {
	s, _ := startWithNotes(t)
	s.insert(boardUsage()...)
	for id, query := range map[string]string{"q1": "show=funnel&step=scan&step=pay&window=3600", "q2": "show=funnel&step=scan", "q3": "show=active"} {
		n := note.Note{App: "dev", ID: id, Kind: note.KindQuestion, Written: today, Question: &note.Question{Name: id, Query: query}}
		if err := s.c.writeNote(t.Context(), &n); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(target string) (a answer) {
		t.Helper()
		if err := json.Unmarshal([]byte(s.page(target)), &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	for target, want := range map[string][2]float64{
		"/api/v1/saved/q1?app=dev&p=7d":                   {3, 2},
		"/api/v1/saved/q1?app=dev&p=28d":                  {4, 2},
		"/api/v1/saved/q1?app=dev&p=7d&until=2026-11-15":  {1, 0},
		"/api/v1/saved/q1?app=dev&p=28d&zone=Asia/Tokyo":  {4, 2},
		"/api/v1/saved/q1?app=dev&p=28d&step=pay&show=xx": {4, 2}, // the address does not change what was saved
	} {
		a := ask(target)
		if len(a.Rows) != 2 || a.Rows[0]["reached"] != want[0] || a.Rows[1]["reached"] != want[1] || a.Closed != strings.Contains(target, "until") {
			t.Errorf("%s: got %v, closed %v; want %v", target, a.Rows, a.Closed, want)
		}
	}
	if a := ask("/api/v1/saved/q3?app=dev&p=7d&until=2026-11-15"); len(a.Rows) != 7 {
		t.Errorf("a week by day: %d rows", len(a.Rows))
	}
	if csv := s.page("/api/v1/saved/q1?app=dev&p=7d&format=csv"); !strings.HasPrefix(csv, "value,step,") {
		t.Errorf("as CSV: %s", csv)
	}
	for target, code := range map[string]int{
		"/api/v1/saved/q9?app=dev": 404, "/api/v1/saved/q1?app=other": 404, "/api/v1/saved/q1": 400, "/api/v1/saved/q2?app=dev": 422, "/api/v1/saved/q1?app=dev&p=x": 400,
	} {
		if w := s.do(nil, target); w.Code != code || !strings.Contains(w.Body.String(), `"error"`) {
			t.Errorf("%s: got %d %s, want %d", target, w.Code, w.Body, code)
		}
	}
}
