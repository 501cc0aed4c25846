package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/question"
	"github.com/uptakehq/uptake/rollup-writer/console/signin"
	"github.com/uptakehq/uptake/schemas/note"
)

// What people write in the console are notes: annotations, saved questions, boards. They
// go to the topic of notes, from which the writer loads them into ClickHouse: the console
// changes nothing there.

const (
	maxForm   = 16 << 10
	noteFor   = 30 * time.Second // bound on a write to the log
	notePause = 200 * time.Millisecond
)

// noteForm is a form that was sent.
type noteForm struct{ url.Values }

// get returns a field without blanks around it.
func (f noteForm) get(name string) string { return strings.TrimSpace(f.Get(name)) }

// values are what the questions that list notes need.
func (f noteForm) values() question.Values { return question.Values{"app": f.get("app")} }

// scope are the fields that name app, period and zone.
func (f noteForm) scope() url.Values {
	return url.Values{"app": {f.get("app")}, "p": {f.get("p")}, "zone": {f.get("zone")}}
}

// mayWrite reports whether the viewer may write notes about the page's app.
func (c *Console) mayWrite(s *scope) bool {
	return c.writeNote != nil && s.grant.Role >= signin.Analyst
}

// noteForm reads a form. It reports false after it has answered that it cannot.
func (c *Console) noteForm(w http.ResponseWriter, r *http.Request) (noteForm, bool) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		c.fail(w, r, http.StatusBadRequest, "The form cannot be read.", fmt.Sprintf("It may have %d bytes. Open the page again.", maxForm))
		return noteForm{}, false
	}
	return noteForm{r.PostForm}, true
}

// keep writes a note in the name of whoever is signed in, and waits until ClickHouse
// has it. If that takes too long, back gets the parameter late. It reports false after it
// has answered with an error.
func (c *Console) keep(w http.ResponseWriter, r *http.Request, n *note.Note, back url.Values) bool {
	n.By, n.Written = signedIn(r), c.now().UTC().Truncate(time.Millisecond)
	if err := may(r, "annotate", n.App); err != nil {
		c.failed(w, r, err)
		return false
	}
	if err := n.Validate(); err != nil {
		c.fail(w, r, http.StatusBadRequest, "This cannot be saved: "+strings.ReplaceAll(err.Error(), "\n", "; ")+".", "Go back and correct it.")
		return false
	}
	ctx, cancel := context.WithTimeout(r.Context(), noteFor)
	defer cancel()
	if err := c.writeNote(ctx, n); err != nil {
		c.log.Warn("note not written", "kind", n.Kind, "error", err)
		c.fail(w, r, http.StatusBadGateway, "This could not be written to the log.", "The console's log says why. Go back and try again.")
		return false
	}
	if c.late(ctx, n) {
		back.Set("late", "1")
	}
	return true
}

// late reports whether the writer has not loaded a note within noteWait.
func (c *Console) late(ctx context.Context, n *note.Note) bool {
	ctx, cancel := context.WithTimeout(ctx, c.noteWait)
	defer cancel()
	for {
		if loaded, err := c.loaded(ctx, n); loaded || err != nil {
			return !loaded
		}
		select {
		case <-ctx.Done():
			return true
		case <-time.After(notePause):
		}
	}
}

// lists are the questions that list the notes of a kind; the first lists all of an app,
// with the columns id and written_at.
var lists = map[string][]string{
	note.KindAnnotation: {"all_annotations", "annotations"}, note.KindQuestion: {"saved_questions"}, note.KindBoard: {"boards"},
}

// loaded reports whether ClickHouse has this version of a note.
func (c *Console) loaded(ctx context.Context, n *note.Note) (bool, error) {
	c.asker.drop(lists[n.Kind]...)
	list, err := c.asker.ask(ctx, lists[n.Kind][0], question.Values{"app": n.App})
	if err != nil {
		return false, err
	}
	for i := range list.Rows {
		if text(list.cell(i, "id")) == n.ID {
			return !n.Removed && !instant(list.cell(i, "written_at")).Before(n.Written), nil
		}
	}
	return n.Removed, nil
}
