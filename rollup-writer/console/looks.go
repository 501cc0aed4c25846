package console

import (
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/rollup-writer/console/signin"
	"github.com/uptakehq/uptake/schemas/note"
)

// Whoever gets an answer that is about one person, or that lists the people of an account,
// leaves a record: in the log of the console and, with console-notes, in the topic of
// looks. That is decided where questions are answered, so no page, CSV or JSON can leave
// it out. No answer waits for the record.

const (
	lookAgain = 10 * time.Minute // within which a look that is repeated is not recorded
	mostLooks = 10_000           // that are remembered for that
)

// looks records who looked at whom.
type looks struct {
	log   *slog.Logger
	now   func() time.Time
	write func(note.Look, func(error)) // nil: to the log of the console only
	lost  prometheus.Counter

	mu sync.Mutex              // covers at
	at map[note.Look]time.Time // what was recorded lately, by the look without its time
}

// first reports whether a look was not recorded within lookAgain, and remembers it.
func (k *looks) first(l note.Look, now time.Time) bool {
	l.At = time.Time{}
	k.mu.Lock()
	defer k.mu.Unlock()
	if at, ok := k.at[l]; ok && now.Sub(at) < lookAgain {
		return false
	}
	if k.at == nil || len(k.at) >= mostLooks {
		k.at = map[note.Look]time.Time{} // some looks are then recorded twice
	}
	k.at[l] = now
	return true
}

// saw records that somebody saw a person, or the people of an account.
func (k *looks) saw(who *signin.Person, app, person, account string) {
	l := note.Look{App: app, At: k.now().UTC().Truncate(time.Millisecond), Viewer: who.Name, Person: person, Account: account}
	if !k.first(l, l.At) {
		return
	}
	k.log.Info("person viewed", "viewer", l.Viewer, "app", app, "person", person, "people_of_account", account)
	if k.write != nil {
		k.write(l, func(err error) {
			k.lost.Inc()
			k.log.Error("who looked at whom was not recorded", "viewer", l.Viewer, "app", app, "person", person, "people_of_account", account, "error", err)
		})
	}
}

// looksLink is the address of who looked at a person or an account, for admins.
func (s *scope) looksLink(of ...string) string {
	if s.grant.Role < signin.Admin || !s.grant.People {
		return ""
	}
	return s.link("/looks", of...)
}

type lookRow struct {
	Time, UTC, Viewer string
	Person            person
	Account           named
}

type looksBody struct {
	Rows []lookRow
	Door door
}

// looksPage lists who looked at whom in the period.
func (c *Console) looksPage(r *http.Request, s *scope) (*page.Page, error) {
	list, err := c.asker.ask(r.Context(), "who_looked", s.values)
	if err != nil {
		return nil, err
	}
	b := &looksBody{Door: s.door("who_looked", "person", s.values["person"], "account", s.values["account"])}
	viewers := map[string]bool{}
	for i := range list.Rows {
		row := lookRow{Viewer: text(list.cell(i, "viewer"))}
		row.Time, row.UTC = s.stampText(list.cell(i, "looked_at"))
		if id := text(list.cell(i, "person_id")); id != "" {
			row.Person = s.person("", id)
		}
		if id := text(list.cell(i, "account_id")); id != "" {
			row.Account = s.accountLink(id)
		}
		viewers[row.Viewer] = true
		b.Rows = append(b.Rows, row)
	}
	whom := "people of " + s.App
	if id := s.values["account"]; id != "" {
		whom = "the people of " + s.accountLink(id).Name
	}
	if id := s.values["person"]; id != "" {
		whom = id
	}
	sentence := fmt.Sprintf("%s looked at %s %s in %s.", page.Plural(len(viewers), "viewer", "viewers"), whom, page.Plural(len(b.Rows), "time", "times"), s.period())
	if len(b.Rows) == 0 {
		sentence = fmt.Sprintf("Nobody looked at %s in %s.", whom, s.period())
	}
	return &page.Page{Title: "Who looked at whom", Sentence: sentence, Body: b}, nil
}
