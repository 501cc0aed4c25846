package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/schemas/note"
)

// A question of Explore can be saved under a name and put on boards. What is kept is the
// part of its address that says what was chosen. App, period and time zone are those of
// the page that shows it, so that all numbers of a board are of one period.

// choices are the parameters of Explore that are kept.
var choices = []string{"show", "by", "grain", "step", "window", "unit", "ordering", "without", "side", "path", "feature"}

// choicesOf are those of an address, in a form that is equal for equal questions.
func choicesOf(q url.Values) url.Values {
	kept := url.Values{}
	for _, name := range choices {
		if values := trimmed(q[name]); len(values) > 0 {
			kept[name] = values
		}
	}
	if !kept.Has("show") {
		kept.Set("show", tabs[0].name)
	}
	return kept
}

// saveForm is the form under an answer of Explore.
type saveForm struct {
	Query, Name string
	Boards      []page.Pair
	Longest     int
	List        string
}

// savable adds the form, if the console takes notes.
func (c *Console) savable(r *http.Request, s *scope, b *exploreBody) error {
	if !c.mayWrite(s) {
		return nil
	}
	boards, err := c.asker.ask(r.Context(), "boards", s.values)
	if err != nil {
		return err
	}
	q := choicesOf(r.URL.Query())
	b.Save = &saveForm{Query: q.Encode(), Name: asks(q), Longest: note.MaxName, List: s.link("/boards")}
	for i := range boards.Rows {
		b.Save.Boards = append(b.Save.Boards, page.Pair{Name: text(boards.cell(i, "name")), Value: text(boards.cell(i, "id"))})
	}
	return nil
}

// asks describes a question in a few words: "Funnel: a, b by role".
func asks(q url.Values) string {
	i := slices.IndexFunc(tabs, func(t tab) bool { return t.name == q.Get("show") })
	if i < 0 {
		return q.Get("show")
	}
	words := tabs[i].title
	of := slices.Concat(q["step"], q["path"], q["feature"])
	if tabs[i].name == "paths" {
		words += " " + cmp.Or(q.Get("side"), "after")
	}
	if len(of) > 0 {
		words += ": " + strings.Join(of, ", ")
	}
	if by := q.Get("by"); by != "" {
		words += " by " + by
	}
	if len(words) > note.MaxName {
		words = tabs[i].title
	}
	return words
}

// savedQuestion of a row.
type savedQuestion struct {
	ID, Name, Query, Author string
	Boards                  []string
}

func savedOf(r *Result, i int) savedQuestion {
	return savedQuestion{text(r.cell(i, "id")), text(r.cell(i, "name")), text(r.cell(i, "query")), text(r.cell(i, "author")), texts(r.cell(i, "boards"))}
}

// link is the address under Explore that asks the question about what s names.
func (q *savedQuestion) link(s *scope) (string, url.Values, error) {
	kept, err := url.ParseQuery(q.Query)
	if err != nil {
		return "", nil, fmt.Errorf("saved question %s: %w", q.ID, err)
	}
	kept = choicesOf(kept)
	return s.link("/explore") + "&" + kept.Encode(), kept, nil
}

type boardRow struct {
	ID, Name, Author, URL string
	Questions             int
	Chosen                bool // the question that is changed is on it
}

type questionRow struct {
	Name, URL, Asks, Author, JSON, Edit string
	On                                  []page.Link
}

type boardsBody struct {
	Boards       []boardRow
	Questions    []questionRow
	Edit         *savedQuestion // nil: none is changed
	Mail         *mailForm      // of Edit
	Longest      int            // of a name, in bytes
	Writes, Late bool
	Explore, All string
	Door         door
}

// boards lists the boards and the saved questions of an app.
func (c *Console) boards(r *http.Request, s *scope) (*page.Page, error) {
	a, err := c.all(r.Context(), s.values, "boards", "saved_questions")
	if err != nil {
		return nil, err
	}
	b := &boardsBody{Longest: note.MaxName, Writes: c.mayWrite(s), Late: r.URL.Query().Has("late"), Explore: s.link("/explore"), All: s.link("/boards"), Door: s.door("saved_questions")}
	places := map[string]int{} // of boards, by id
	for i := range a["boards"].Rows {
		t := a["boards"]
		row := boardRow{ID: text(t.cell(i, "id")), Name: text(t.cell(i, "name")), Author: text(t.cell(i, "author"))}
		row.URL = s.link("/board", "board", row.ID)
		places[row.ID] = i
		b.Boards = append(b.Boards, row)
	}
	edit := r.URL.Query().Get("edit")
	for i := range a["saved_questions"].Rows {
		q := savedOf(a["saved_questions"], i)
		address, kept, err := q.link(s)
		if err != nil {
			return nil, err
		}
		row := questionRow{Name: q.Name, URL: address, Asks: asks(kept), Author: q.Author, JSON: s.link("/api/v1/saved/" + q.ID), Edit: s.link("/boards", "edit", q.ID)}
		for _, id := range q.Boards {
			if at, ok := places[id]; ok {
				b.Boards[at].Questions++
				b.Boards[at].Chosen = b.Boards[at].Chosen || q.ID == edit
				row.On = append(row.On, page.Link{Text: b.Boards[at].Name, URL: b.Boards[at].URL})
			}
		}
		if q.ID == edit {
			mail, err := mailOf(a["saved_questions"], i)
			if err != nil {
				return nil, err
			}
			b.Edit, b.Mail = &q, c.mailFields(mail)
		}
		b.Questions = append(b.Questions, row)
	}
	if b.Edit == nil && edit != "" {
		return nil, &refusal{"There is no such saved question in " + s.App + ".", "It may have been deleted. Choose one of the list under Boards."}
	}
	if !b.Writes {
		b.Edit = nil
	}
	sentence := fmt.Sprintf("%s has %s and %s.", s.App, page.Plural(len(b.Boards), "board", "boards"), page.Plural(len(b.Questions), "saved question", "saved questions"))
	if len(b.Boards)+len(b.Questions) == 0 {
		sentence = "No question of " + s.App + " is kept yet."
	}
	return &page.Page{Title: "Boards", Sentence: sentence, Body: b}, nil
}

// panel of a board: one question with its answer.
type panel struct {
	Name, URL, Sentence, More string
	Answer                    *exploreBody // nil: it has none, Sentence says why
}

type boardBody struct {
	ID, Name     string
	Panels       []panel
	Missing      string // questions beyond those that are shown
	Mail         *mailForm
	Mailed       string // the schedule in words
	Longest      int
	Writes, Late bool
	Explore, All string
}

const (
	mostPanels = 16 // of a board
	panelRows  = 10 // of a table in a panel
)

// board shows its questions together, each answered for the period of the page.
func (c *Console) board(r *http.Request, s *scope) (*page.Page, error) {
	a, err := c.all(r.Context(), s.values, "boards", "saved_questions")
	if err != nil {
		return nil, err
	}
	b := &boardBody{ID: r.URL.Query().Get("board"), Longest: note.MaxName, Writes: c.mayWrite(s), Late: r.URL.Query().Has("late"), Explore: s.link("/explore"), All: s.link("/boards")}
	t := a["boards"]
	for i := range t.Rows {
		if text(t.cell(i, "id")) == b.ID {
			b.Name = text(t.cell(i, "name"))
			mail, err := mailOf(t, i)
			if err != nil {
				return nil, err
			}
			b.Mail, b.Mailed = c.mailFields(mail), mailWords(mail)
		}
	}
	if b.Name == "" {
		return nil, &refusal{"There is no such board in " + s.App + ".", "It may have been deleted. Choose one under Boards."}
	}
	var on []savedQuestion
	for i := range a["saved_questions"].Rows {
		if q := savedOf(a["saved_questions"], i); slices.Contains(q.Boards, b.ID) {
			on = append(on, q)
		}
	}
	if n := len(on) - mostPanels; n > 0 {
		on, b.Missing = on[:mostPanels], fmt.Sprintf("%s more are on this board; it shows %d.", page.Plural(n, "question", "questions"), mostPanels)
	}
	b.Panels = make([]panel, len(on))
	errs := make([]error, len(on))
	var wg sync.WaitGroup
	for i := range on {
		wg.Go(func() { b.Panels[i], errs[i] = c.panel(r.Context(), s, &on[i]) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	sentence := fmt.Sprintf("%s: %s about %s.", b.Name, page.Plural(len(on), "question", "questions"), s.period())
	return &page.Page{Title: b.Name, Sentence: sentence, Body: b}, nil
}

// panel answers a question. One that reaches a bound, or that the viewer may not ask, does
// not keep the others from being shown.
func (c *Console) panel(ctx context.Context, s *scope, q *savedQuestion) (panel, error) {
	address, _, err := q.link(s)
	if err != nil {
		return panel{}, err
	}
	p := panel{Name: q.Name, URL: address}
	own, b, err := c.answer(ctx, s, q)
	if refused := new(refusal); errors.As(err, &refused) {
		p.Sentence = refused.Error()
		return p, nil
	}
	if denied := new(denial); errors.As(err, &denied) {
		p.Sentence = denied.what
		return p, nil
	}
	if err != nil {
		return p, err
	}
	p.Sentence, p.Answer, b.Folded = own, b, true
	more := 0
	if b.Table != nil {
		more = max(0, len(b.Table.Rows)-panelRows)
		b.Table.Rows = b.Table.Rows[:len(b.Table.Rows)-more]
	}
	if b.Funnel != nil && b.Funnel.By != "" {
		more = max(0, len(b.Funnel.Values)-panelRows)
		b.Funnel.Values = b.Funnel.Values[:len(b.Funnel.Values)-more]
	}
	if n := len(b.Paths) - panelRows; n > 0 {
		more, b.Paths = n, b.Paths[:panelRows]
	}
	if more > 0 {
		p.More = page.Plural(more, "more row", "more rows")
	}
	return p, nil
}

// answer asks a saved question about what s names. It returns the sentence that answers
// it, and the rest of the page.
func (c *Console) answer(ctx context.Context, s *scope, q *savedQuestion) (string, *exploreBody, error) {
	r, own, err := c.saved(ctx, s, q)
	if err != nil {
		return "", nil, err
	}
	b, sentence, err := c.fill(r, own)
	return sentence, b, err
}

// saved returns the request that a page makes for a saved question, and its scope.
func (c *Console) saved(ctx context.Context, s *scope, q *savedQuestion) (*http.Request, *scope, error) {
	address, _, err := q.link(s)
	if err != nil {
		return nil, nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, err
	}
	own, err := c.scopeOf(r, s.App)
	if err != nil {
		return nil, nil, err
	}
	// The period of s, also where it does not end today.
	for _, name := range []string{"from", "to", "before", "first", "end"} {
		own.values[name] = s.values[name]
	}
	own.From, own.To, own.Before, own.Now, own.Until, own.names, own.features, own.grant = s.From, s.To, s.Before, s.Now, s.Until, s.names, s.features, s.grant
	return r, own, nil
}

// savedData answers a saved question as JSON, or as CSV with format=csv.
func (c *Console) savedData(w http.ResponseWriter, r *http.Request) {
	s, ok := c.dataScope(w, r, true)
	if !ok {
		return
	}
	id := r.PathValue("id")
	list, err := c.asker.ask(r.Context(), "saved_questions", s.values)
	if err != nil {
		c.refuseAsked(w, "saved_questions", err)
		return
	}
	i := slices.IndexFunc(list.Rows, func(row []any) bool { return text(row[0]) == id })
	if i < 0 {
		c.refuse(w, http.StatusNotFound, "unknown_question", fmt.Sprintf("no question %.64q is saved in this app; /api/v1/saved_questions lists them", id))
		return
	}
	q := savedOf(list, i)
	page, own, err := c.saved(r.Context(), s, &q)
	var b *exploreBody
	if err == nil {
		b, _, err = c.fill(page, own)
	}
	switch {
	case err != nil:
		c.refuseAsked(w, id, err)
		return
	case b.Name == "":
		c.refuse(w, http.StatusUnprocessableEntity, "incomplete", "the saved question lacks a choice; open it in the console")
		return
	}
	result, err := c.asker.ask(r.Context(), b.Name, own.values) // just asked: cached
	if err != nil {
		c.refuseAsked(w, b.Name, err)
		return
	}
	c.writeResult(w, r, s, result)
}

// save takes the forms that save, change and delete a question.
func (c *Console) save(w http.ResponseWriter, r *http.Request) {
	form, ok := c.noteForm(w, r)
	if !ok {
		return
	}
	n := &note.Note{App: form.get("app"), Kind: note.KindQuestion, ID: cmp.Or(form.get("id"), note.NewID()), Removed: form.Has("remove")}
	back, target := form.scope(), "/boards"
	if !n.Removed {
		query, err := url.ParseQuery(form.get("query"))
		if err != nil {
			c.fail(w, r, http.StatusBadRequest, "The question cannot be read from the form.", "Open the page again.")
			return
		}
		query = choicesOf(query)
		if !slices.ContainsFunc(tabs, func(t tab) bool { return t.name == query.Get("show") }) {
			c.fail(w, r, http.StatusBadRequest, fmt.Sprintf("There is no %.40q under Explore.", query.Get("show")), "Choose one of its tabs, and save it there.")
			return
		}
		mail, err := c.mail(r, form, note.KindQuestion)
		if err != nil {
			c.failed(w, r, err)
			return
		}
		n.Question = &note.Question{Name: form.get("name"), Query: query.Encode(), Boards: trimmed(form.Values["board"]), Mail: mail}
		if name := form.get("newboard"); name != "" {
			board := &note.Note{App: n.App, Kind: note.KindBoard, ID: note.NewID(), Board: &note.Board{Name: name}}
			n.Question.Boards = append(n.Question.Boards, board.ID)
			// A board that was made for a question that cannot be saved would be empty.
			if n.Written = c.now(); n.Validate() == nil && !c.keep(w, r, board, back) {
				return
			}
		}
		if boards := n.Question.Boards; form.get("id") == "" && len(boards) > 0 {
			target = "/board"
			back.Set("board", boards[len(boards)-1])
		}
	}
	if c.keep(w, r, n, back) {
		http.Redirect(w, r, target+"?"+back.Encode(), http.StatusSeeOther)
	}
}

// saveBoard takes the forms that add, rename and delete a board.
func (c *Console) saveBoard(w http.ResponseWriter, r *http.Request) {
	form, ok := c.noteForm(w, r)
	if !ok {
		return
	}
	n := &note.Note{App: form.get("app"), Kind: note.KindBoard, ID: cmp.Or(form.get("id"), note.NewID()), Removed: form.Has("remove")}
	back, target := form.scope(), "/boards"
	if !n.Removed {
		mail, err := c.mail(r, form, note.KindBoard)
		if err != nil {
			c.failed(w, r, err)
			return
		}
		n.Board, target = &note.Board{Name: form.get("name"), Mail: mail}, "/board"
		back.Set("board", n.ID)
	}
	if c.keep(w, r, n, back) {
		http.Redirect(w, r, target+"?"+back.Encode(), http.StatusSeeOther)
	}
}
