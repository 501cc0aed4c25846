package console

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
)

// explanation is a number with what it is made of.
type explanation struct {
	Arrived, Brought, Taken, Counted int64
	// Agree: the parts add up to what is counted. They do not for the seconds in which
	// a correction is being inserted.
	Agree  bool
	Moves  *plainTable
	Events *plainTable
	Doors  map[string]door
}

// explain shows what an account's, a person's or a feature's number of events is made
// of: what arrived, what corrections brought and took away, and the events themselves.
func (c *Console) explain(r *http.Request, s *scope) (*page.Page, error) {
	var of []string
	for _, part := range []struct{ name, word string }{{"feature", "the feature "}, {"person", ""}, {"account", "the account "}} {
		if v := s.values[part.name]; v != "" {
			of = append(of, part.word+v)
		}
	}
	if len(of) == 0 {
		return nil, &refusal{"The address names no account, person or feature.", "Choose a number on an account's or a person's page."}
	}
	a, err := c.all(r.Context(), s.values, "explain_parts", "explain_moves", "explain_events")
	if err != nil {
		return nil, err
	}
	b := &explanation{Doors: s.doors(a, "account", s.values["account"], "person", s.values["person"], "feature", s.values["feature"])}
	parts := a["explain_parts"]
	for i := range parts.Rows {
		n := number(parts.cell(i, "events"))
		switch text(parts.cell(i, "part")) {
		case "1 arrived":
			b.Arrived = n
		case "2 moved here":
			b.Brought = n
		case "3 moved away":
			b.Taken = -n
		case "4 counted now":
			b.Counted = n
		}
	}
	b.Agree = b.Arrived+b.Brought-b.Taken == b.Counted
	if len(a["explain_moves"].Rows) > 0 {
		b.Moves = s.plain(a["explain_moves"])
	}
	if len(a["explain_events"].Rows) > 0 {
		b.Events = s.plain(a["explain_events"])
	}
	return &page.Page{
		Title: "What a number is made of", Body: b,
		Sentence: fmt.Sprintf("%s for %s in %s.", page.Plural(b.Counted, "event counts", "events count"), strings.Join(of, " and "), s.period()),
	}, nil
}

// explain is the address of what a number is made of, if the viewer may see it.
func (s *scope) explain(of ...string) string {
	if !s.grant.People {
		return ""
	}
	return s.link("/explain", of...)
}
