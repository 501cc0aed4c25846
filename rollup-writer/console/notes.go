package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/schemas/note"
)

// Annotations are notes on the time axes of charts: releases, campaigns, remaps. They are
// written to the topic of notes, from which the writer loads them into ClickHouse: the
// console changes nothing there. People write them on a page, programs by POST to
// annotatePath.

const (
	annotatePath = "/api/v1/annotations"
	maxForm      = 16 << 10
	noteFor      = 30 * time.Second // bound on a write to the log
	notePause    = 200 * time.Millisecond
)

// mark puts what happened in the period on the time axis of a chart: annotations, and the
// versions of the catalog.
func (c *Console) mark(ctx context.Context, s *scope, chart *page.Lines) error {
	a, err := c.all(ctx, s.values, "annotations", "catalog_versions")
	if err != nil {
		return err
	}
	notes, versions := a["annotations"], a["catalog_versions"]
	for i := range notes.Rows {
		at := s.when(notes, i)
		chart.Marks = append(chart.Marks, page.Mark{Day: at.day, When: at.text, Kind: text(notes.cell(i, "category")), Text: text(notes.cell(i, "text")), By: text(notes.cell(i, "author"))})
	}
	for i := range versions.Rows {
		at := instant(versions.cell(i, "applied")).In(s.Zone)
		chart.Marks = append(chart.Marks, page.Mark{Day: at, When: at.Format("2 Jan 15:04"), Kind: "catalog", Text: fmt.Sprintf("catalog version %d applied", number(versions.cell(i, "catalog_version")))})
	}
	slices.SortStableFunc(chart.Marks, func(a, b page.Mark) int { return a.Day.Compare(b.Day) })
	chart.Annotate = s.link("/annotations")
	return nil
}

// moment of an annotation in the time zone of a page.
type moment struct {
	day         time.Time // read as its date
	text        string
	date, clock string // as a form has them; clock is empty for a whole day
}

func (s *scope) when(r *Result, i int) moment {
	at := instant(r.cell(i, "at")).UTC()
	if truth(r.cell(i, "whole_day")) {
		return moment{at, at.Format("2 Jan 2006"), at.Format(time.DateOnly), ""}
	}
	at = at.In(s.Zone)
	return moment{at, at.Format("2 Jan 2006 15:04"), at.Format(time.DateOnly), at.Format("15:04")}
}

type annotationRow struct {
	ID, When, Category, Text, Author, Edit string
}

// annotationForm is what the form is filled with.
type annotationForm struct{ ID, Date, Clock, Category, Text string }

type annotationsBody struct {
	Rows       []annotationRow
	Form       annotationForm
	Categories []string
	Longest    int // of a text, in bytes
	Writes     bool
	Late       bool // what was just written is not loaded yet
	New        string
	Door       door
}

// annotations lists all of an app, with the form that adds or changes one.
func (c *Console) annotations(r *http.Request, s *scope) (*page.Page, error) {
	list, err := c.asker.ask(r.Context(), "all_annotations", s.values)
	if err != nil {
		return nil, err
	}
	b := &annotationsBody{
		Form: annotationForm{Date: s.Now.In(s.Zone).Format(time.DateOnly)}, Categories: note.Categories, Longest: note.MaxText,
		Writes: c.writeNote != nil, Late: r.URL.Query().Has("late"), New: s.link("/annotations"), Door: s.door("all_annotations"),
	}
	edit := r.URL.Query().Get("edit")
	for i := range list.Rows {
		at := s.when(list, i)
		row := annotationRow{ID: text(list.cell(i, "id")), When: at.text, Category: text(list.cell(i, "category")), Text: text(list.cell(i, "text")), Author: text(list.cell(i, "author"))}
		row.Edit = s.link("/annotations", "edit", row.ID)
		if row.ID == edit {
			b.Form = annotationForm{row.ID, at.date, at.clock, row.Category, row.Text}
		}
		b.Rows = append(b.Rows, row)
	}
	if edit != "" && b.Form.ID == "" {
		return nil, &refusal{"There is no such annotation in " + s.App + ".", "It may have been deleted. Choose one of the list under Annotations."}
	}
	sentence := page.Plural(len(list.Rows), "annotation is", "annotations are") + " on the time axes of " + s.App + "."
	if len(list.Rows) == 0 {
		sentence = "Nothing is noted on the time axes of " + s.App + " yet."
	}
	return &page.Page{Title: "Annotations", Sentence: sentence, Body: b}, nil
}

// annotate takes the form: it adds, changes or deletes an annotation.
func (c *Console) annotate(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		c.fail(w, r, http.StatusBadRequest, "The form cannot be read.", fmt.Sprintf("It may have %d bytes. Open the page again.", maxForm))
		return
	}
	form := func(name string) string { return strings.TrimSpace(r.PostForm.Get(name)) }
	n := &note.Note{App: form("app"), Kind: note.KindAnnotation, ID: cmp.Or(form("id"), note.NewID()), Removed: r.PostForm.Has("remove")}
	if !n.Removed {
		zone, err := time.LoadLocation(cmp.Or(form("zone"), c.cfg.Zone))
		if err != nil {
			c.fail(w, r, http.StatusBadRequest, fmt.Sprintf("The time zone %q is unknown.", form("zone")), "Give a name such as Europe/Vienna.")
			return
		}
		n.Annotation = &note.Annotation{Category: form("category"), Text: form("text")}
		if n.Annotation.At, n.Annotation.WholeDay, err = readMoment(form("day"), form("clock"), zone); err != nil {
			c.fail(w, r, http.StatusBadRequest, sentenceCase(err.Error())+".", "Go back and correct it.")
			return
		}
	}
	back := url.Values{"app": {n.App}, "p": {form("p")}, "zone": {form("zone")}}
	if c.keep(w, r, n, back, c.noted) {
		http.Redirect(w, r, "/annotations?"+back.Encode(), http.StatusSeeOther)
	}
}

// readMoment reads the fields of a form: a day, and the time of that day or "".
func readMoment(day, clock string, zone *time.Location) (at time.Time, whole bool, err error) {
	if clock == "" {
		at, err = time.Parse(time.DateOnly, day)
		if err != nil {
			err = fmt.Errorf("the day %.40q must be written as 2026-11-20", day)
		}
		return at, true, err
	}
	at, err = time.ParseInLocation("2006-01-02 15:04", day+" "+clock, zone)
	if err != nil {
		err = fmt.Errorf("day and time %.40q must be written as 2026-11-20 and 15:04", day+" "+clock)
	}
	return at.UTC(), false, err
}

// keep writes a note in the name of whoever is signed in, and waits until seen says that
// ClickHouse has it. If that takes too long, back gets the parameter late. It reports
// false after it has answered with an error.
func (c *Console) keep(w http.ResponseWriter, r *http.Request, n *note.Note, back url.Values, seen func(context.Context, *note.Note) (bool, error)) bool {
	n.By, n.Written = c.access.signedIn(r), c.now().UTC().Truncate(time.Millisecond)
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
	if late := c.await(ctx, n, seen); late {
		back.Set("late", "1")
	}
	return true
}

// await reports whether the writer has not loaded a note within noteWait.
func (c *Console) await(ctx context.Context, n *note.Note, seen func(context.Context, *note.Note) (bool, error)) (late bool) {
	ctx, cancel := context.WithTimeout(ctx, c.noteWait)
	defer cancel()
	for {
		if ok, err := seen(ctx, n); ok || err != nil {
			return !ok
		}
		select {
		case <-ctx.Done():
			return true
		case <-time.After(notePause):
		}
	}
}

// noted reports whether ClickHouse has this version of an annotation.
func (c *Console) noted(ctx context.Context, n *note.Note) (bool, error) {
	c.asker.drop("annotations", "all_annotations")
	list, err := c.asker.ask(ctx, "all_annotations", map[string]string{"app": n.App})
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(list.Rows, func(row []any) bool { return text(row[0]) == n.ID })
	if i < 0 {
		return n.Removed, nil
	}
	return !n.Removed && !instant(list.cell(i, "written_at")).Before(n.Written), nil
}

// annotateByProgram takes an annotation as JSON.
func (c *Console) annotateByProgram(w http.ResponseWriter, r *http.Request) {
	answer := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body) // the reader is gone if this fails
		c.metrics.requests.WithLabelValues("api", fmt.Sprintf("%dxx", status/100)).Inc()
	}
	refuse := func(status int, code string, err error) {
		answer(status, map[string]any{"error": map[string]string{"code": code, "detail": err.Error()}})
	}
	var given struct{ ID, At, Category, Text, By string }
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxForm))
	in.DisallowUnknownFields()
	if err := in.Decode(&given); err != nil {
		refuse(http.StatusBadRequest, "bad_json", fmt.Errorf("the body must be an object with text and, if needed, id, at, category and by, of at most %d bytes: %w", maxForm, err))
		return
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		refuse(http.StatusBadRequest, "bad_json", errors.New("the body must be one object"))
		return
	}
	n := &note.Note{
		App: r.URL.Query().Get("app"), Kind: note.KindAnnotation, ID: cmp.Or(given.ID, note.NewID()), By: cmp.Or(given.By, "program"), Written: c.now().UTC().Truncate(time.Millisecond),
		Annotation: &note.Annotation{At: c.now().UTC().Truncate(time.Second), Category: cmp.Or(given.Category, "release"), Text: given.Text},
	}
	if given.At != "" {
		var err error
		n.Annotation.At, err = time.Parse(time.RFC3339, given.At)
		if err != nil {
			n.Annotation.At, err = time.Parse(time.DateOnly, given.At)
			n.Annotation.WholeDay = err == nil
		}
		if err != nil {
			refuse(http.StatusBadRequest, "bad_field", fmt.Errorf("at must be a day such as 2026-11-20 or an instant such as 2026-11-20T15:04:05Z (got %.40q)", given.At))
			return
		}
		n.Annotation.At = n.Annotation.At.UTC()
	}
	if err := n.Validate(); err != nil {
		refuse(http.StatusBadRequest, "bad_field", err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), noteFor)
	defer cancel()
	if err := c.writeNote(ctx, n); err != nil {
		c.log.Warn("note not written", "kind", n.Kind, "error", err)
		refuse(http.StatusBadGateway, "kafka", errors.New("the annotation could not be written to the log; the console's log has the error"))
		return
	}
	c.asker.drop("annotations", "all_annotations")
	answer(http.StatusCreated, n)
}
