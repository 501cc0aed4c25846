package console

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/note"
)

// Whoever gets an answer about a person, or with the people of an account, leaves a record,
// once in ten minutes, whether as a page, as CSV or as JSON; only admins see the records.
func TestLooks(t *testing.T) {
	var mu sync.Mutex
	var got []note.Look
	var failed func(error)
	now := today
	s := start(t, func(c *Config, d *Dependencies) {
		c.AccessFile = file(t, "access.yaml", accessText)
		c.AppTokens = file(t, "tokens", fmt.Sprintf("dev sha256:%x", sha256.Sum256([]byte("program of dev"))))
		d.Now = func() time.Time { return now }
		d.Look = func(l note.Look, f func(error)) {
			mu.Lock()
			defer mu.Unlock()
			got, failed = append(got, l), f
		}
	})
	s.insert(usage{"shop", "user", "maria", "scan", "Scan", today.AddDate(0, 0, -3)}, usage{"shop", "user", "ines", "scan", "Scan", today.Add(-time.Minute)})
	as := func(name, groups string) func(*http.Request) {
		return func(r *http.Request) {
			of(groups)(r)
			r.Header.Set("Remote-User", name)
		}
	}
	program := func(r *http.Request) { r.Header.Set("Authorization", "Bearer program of dev") }
	open := func(change func(*http.Request), target string, want int) string {
		t.Helper()
		w := s.do(change, target)
		if w.Code != want {
			t.Errorf("%s: got %d, want %d\n%.300s", target, w.Code, want, w.Body)
		}
		return w.Body.String()
	}
	is := func(want ...note.Look) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		slices.SortFunc(got, func(a, b note.Look) int {
			return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Viewer, b.Viewer), strings.Compare(a.Person, b.Person))
		})
		if !slices.Equal(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		got = nil
	}
	const person, account = "/person?app=dev&person=maria", "/account?app=dev&account=shop"
	jim, joan, anna := as("jim", "growth"), as("joan", "platform"), as("anna", "support")
	open(jim, person, 200)
	open(jim, person+"&p=7d", 200) // again
	open(jim, "/explain?app=dev&person=maria&account=shop", 200)
	open(joan, person, 200)
	open(nil, person, 200)
	open(jim, account, 200)
	is(note.Look{App: "dev", At: today, Viewer: holder, Person: "maria"}, note.Look{App: "dev", At: today, Viewer: "jim", Account: "shop"},
		note.Look{App: "dev", At: today, Viewer: "jim", Person: "maria"}, note.Look{App: "dev", At: today, Viewer: "joan", Person: "maria"})

	// Nobody is seen: no such person, nobody's data, or names without people.
	for _, nobody := range []string{"/person?app=dev&person=nobody", "/explain?app=dev&person=nobody", "/account?app=dev&account=none", "/overview?app=dev", "/search?app=dev&q=maria", "/live?app=dev", "/live?app=dev&q=Scan", "/accounts?app=dev"} {
		open(jim, nobody, 200)
	}
	open(anna, account, 200)
	open(anna, person, 403)
	is()

	now = now.Add(10 * time.Minute)
	open(jim, person, 200)
	open(program, "/api/v1/person_timeline?app=dev&person=maria", 200)
	open(program, "/api/v1/account_people?app=dev&account=shop&format=csv", 200)
	open(joan, "/question?app=dev&name=person_features&person=ines", 200)
	is(note.Look{App: "dev", At: now, Viewer: "jim", Person: "maria"}, note.Look{App: "dev", At: now, Viewer: "joan", Person: "ines"},
		note.Look{App: "dev", At: now, Viewer: "program of dev", Account: "shop"}, note.Look{App: "dev", At: now, Viewer: "program of dev", Person: "maria"})
	failed(errors.New("no room")) // is counted and logged, and no page fails

	if err := s.conn.Exec(t.Context(), "INSERT INTO "+s.c.cfg.ClickHouse.Schema().Table("looks")+` (app_id, looked_at, viewer, person_id, account_id, log_offset) VALUES
		('dev', '2026-11-20 10:00:00', 'jim <b>', 'maria', '', 1), ('dev', '2026-11-20 09:00:00', 'jim <b>', '', 'shop', 2), ('dev', '2026-11-20 08:00:00', 'joan', '', '', 3), ('other', '2026-11-20 08:00:00', 'eve', 'maria', '', 4)`); err != nil {
		t.Fatal(err)
	}
	text := textOf(open(joan, "/looks?app=dev&p=7d&zone=UTC", 200))
	if !strings.Contains(text, "2 viewers looked at people of dev 3 times in the last 7 days.") || !strings.Contains(text, "jim &lt;b&gt; maria") || !strings.Contains(text, "people of shop") || !strings.Contains(text, "an erased person") || strings.Contains(text, "eve") {
		t.Errorf("got %s", text)
	}
	for target, want := range map[string]string{"&person=maria": "1 viewer looked at maria 1 time", "&account=shop": "1 viewer looked at the people of shop 1 time", "&person=ines": "Nobody looked at ines"} {
		if text := textOf(open(nil, "/looks?app=dev&p=7d&zone=UTC"+target, 200)); !strings.Contains(text, want) {
			t.Errorf("%s: want %q in %s", target, want, text)
		}
	}
	open(joan, "/api/v1/who_looked?app=dev", 200)
	if !strings.Contains(open(joan, person, 200), "/looks?app=dev") {
		t.Error("no link to who looked at a person")
	}
	open(as("eva", "others"), "/looks?app=other", 200)
	open(as("eva", "others"), "/looks?app=dev", 403)
	for _, target := range []string{"/looks?app=dev", "/question?app=dev&name=who_looked", "/api/v1/who_looked?app=dev"} {
		open(jim, target, 403)
		open(anna, target, 403)
	}
	open(program, "/api/v1/who_looked?app=dev", 403)
	if strings.Contains(open(jim, person, 200), "/looks?") {
		t.Error("an analyst sees a link to who looked")
	}
}

// Somebody who limits the live view to a person sees that person's events.
func TestLiveViewOfAPerson(t *testing.T) {
	var got []note.Look
	s := start(t, func(_ *Config, d *Dependencies) {
		d.Look = func(l note.Look, _ func(error)) { got = append(got, l) }
	})
	s.insert(usage{"shop", "user", "maria", "scan", "Scan", today.Add(-time.Minute)})
	s.page("/live?app=dev&q=maria")
	s.page("/live?app=dev&q=shop")
	if want := []note.Look{{App: "dev", At: today, Viewer: holder, Person: "maria"}}; !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// The memory of what was recorded is bounded.
func TestSeenLooksAreBounded(t *testing.T) {
	var s looks
	for i := range mostLooks + 5 {
		if !s.first(note.Look{Person: string(rune(i + 1<<16))}, today) {
			t.Fatal("a new look was taken for an old one")
		}
	}
	if len(s.at) > mostLooks {
		t.Errorf("%d looks are remembered", len(s.at))
	}
}
