package console

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/note"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// A board and a question get a schedule by their forms, keep it when only their name is
// changed, and lose it again; nobody but the targets that the console names is mailed to.
func TestMailsAreScheduled(t *testing.T) {
	s, b := startWithNotes(t)
	s.c.cfg.MailTargets = setting.Strings{"cs", "board"}
	form := func(pairs ...string) url.Values {
		v := url.Values{"app": {"dev"}, "zone": {"Europe/Vienna"}, "p": {"7d"}, "name": {"Monday"}}
		for i := 0; i+1 < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	post := func(path string, v url.Values, want int) string {
		t.Helper()
		w := s.post(path, "maria", v)
		if w.Code != want {
			t.Fatalf("%v: got %d, want %d: %s", v, w.Code, want, textOf(w.Body.String()))
		}
		return textOf(w.Body.String())
	}
	last := func() *note.Note { return &b.written[len(b.written)-1] }
	post("/boards", form(), 303)
	id := last().ID
	if last().Board.Mail != nil {
		t.Errorf("a new board is mailed: %+v", last().Board.Mail)
	}
	post("/boards", form("id", id, "mail", "1", "hour", "7", "days", "28", "to", "cs"), 303)
	want := &note.Mail{Every: note.Weekly, Weekday: 1, Hour: 7, Zone: "Europe/Vienna", Days: 28, To: []string{"cs"}}
	if got := last().Board.Mail; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	html := s.page("/board?app=dev&board=" + id)
	for _, has := range []string{`<option value="1" selected>on Mondays`, `<option value="7" selected>7:00`, `<option value="28" selected>28 days`, `<option value="cs" selected>cs`, "Mailed on Mondays at 7:00 (Europe/Vienna) to cs, about the 28 days before."} {
		if !strings.Contains(html, has) {
			t.Errorf("no %q on the board", has)
		}
	}
	post("/boards", form("id", id, "name", "Tuesday"), 303)
	if got := last().Board; got.Name != "Tuesday" || !reflect.DeepEqual(got.Mail, want) {
		t.Errorf("renamed: got %+v, %+v", got, got.Mail)
	}
	post("/boards", form("id", id, "mail", ""), 303)
	if last().Board.Mail != nil {
		t.Error("the schedule is still there")
	}

	post("/saved", form("query", "show=active", "mail", "day", "hour", "0", "days", "1", "to", "board"), 303)
	want = &note.Mail{Every: note.Daily, Zone: "Europe/Vienna", Days: 1, To: []string{"board"}}
	if got := last().Question.Mail; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	q := last().ID
	if html := s.page("/boards?app=dev&edit=" + q); !strings.Contains(html, `<option value="board" selected>`) {
		t.Error("the form does not have the schedule")
	}
	post("/saved", form("id", q, "query", "show=active"), 303)
	if !reflect.DeepEqual(last().Question.Mail, want) {
		t.Errorf("renamed: got %+v", last().Question.Mail)
	}

	before := len(b.written)
	for want, v := range map[string]url.Values{
		`to must be one of cs, board (got "all@example.com")`: form("mail", "day", "hour", "7", "days", "1", "to", "all@example.com"),
		"choose to whom it is mailed":                         form("mail", "day", "hour", "7", "days", "1"),
		`hour must be a number (got "x")`:                     form("mail", "day", "hour", "x", "days", "1", "to", "cs"),
		"mail.hour must be 0 to 23 (got 24)":                  form("mail", "day", "hour", "24", "days", "1", "to", "cs"),
		"weekday from 1 to 7":                                 form("mail", "8", "hour", "7", "days", "1", "to", "cs"),
	} {
		v.Set("id", id)
		if text := post("/boards", v, 400); !strings.Contains(strings.ReplaceAll(text, "&#34;", `"`), want) {
			t.Errorf("want %q: %s", want, text)
		}
	}
	if len(b.written) != before {
		t.Error("something was written")
	}
}

// The alerts process is told what a mail about a board says: its questions with the numbers
// of the days before a day.
func TestReport(t *testing.T) {
	s, b := startWithNotes(t)
	s.insert(boardUsage()...)
	post := func(path string, pairs ...string) string {
		t.Helper()
		v := url.Values{"app": {"dev"}, "zone": {"UTC"}, "p": {"7d"}}
		for i := 0; i+1 < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		if w := s.post(path, "maria", v); w.Code != http.StatusSeeOther {
			t.Fatalf("got %d: %s", w.Code, w.Body)
		}
		return b.written[len(b.written)-1].ID
	}
	board := post("/boards", "name", "Weekly")
	funnel := post("/saved", "name", "Paid", "query", "show=funnel&step=scan&step=pay", "board", board)
	post("/saved", "name", "Not on it", "query", "show=active")
	ask := func(query string, want int) (report struct {
		Name, Path, Period string
		Questions          []reportPart
	},
	) {
		t.Helper()
		w := s.do(nil, "/api/v1/report?app=dev&zone=UTC&"+query)
		if w.Code != want {
			t.Fatalf("%s: got %d, want %d: %s", query, w.Code, want, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), &report); err != nil {
			t.Fatal(err)
		}
		return report
	}
	r := ask("kind=board&id="+board+"&p=7d&until=2026-11-20", 200)
	if r.Name != "Weekly" || r.Period != "the 7 days to 19 Nov 2026" || !strings.HasPrefix(r.Path, "/board?") || len(r.Questions) != 1 {
		t.Fatalf("got %+v", r)
	}
	q := r.Questions[0]
	if want := "Of 3 people who did scan in the 7 days to 19 Nov 2026, 2 came to pay within 1 day: 67 %."; q.Name != "Paid" || q.Sentence != want || !strings.HasPrefix(q.Path, "/explore?") {
		t.Errorf("got %+v, want %q", q, want)
	}
	if lines := strings.Split(q.CSV, "\n"); len(lines) < 3 || len(q.Rows) != 2 || len(q.Columns) == 0 || q.More != 0 {
		t.Errorf("got %+v", q)
	}
	// The days before the 17th: only the one of ten days ago.
	if q := ask("kind=question&id="+funnel+"&p=7d&until=2026-11-17", 200).Questions[0]; !strings.HasPrefix(q.Sentence, "Of 1 p") {
		t.Errorf("got %q", q.Sentence)
	}
	ask("kind=board&id=none&p=7d", 404)
	ask("kind=question&id="+board+"&p=7d", 404)
}
