package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/rollup-writer/console/signin"
	"github.com/uptakehq/uptake/schemas/note"
)

// Annotations are notes on the time axes of charts: releases, campaigns, remaps. People
// write them on a page, programs by POST to annotatePath.

const annotatePath = "/api/v1/annotations"

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
		chart.Marks = append(chart.Marks, page.Mark{Day: at, When: at.Format("2 Jan 2006 15:04"), Kind: "catalog", Text: fmt.Sprintf("catalog version %d applied", number(versions.cell(i, "catalog_version")))})
	}
	slices.SortStableFunc(chart.Marks, func(a, b page.Mark) int { return a.Day.Compare(b.Day) })
	if s.grant.Role >= signin.Analyst {
		chart.Annotate = s.link("/annotations")
	}
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
		Writes: c.mayWrite(s), Late: r.URL.Query().Has("late"), New: s.link("/annotations"), Door: s.door("all_annotations"),
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
	form, ok := c.noteForm(w, r)
	if !ok {
		return
	}
	n := &note.Note{App: form.get("app"), Kind: note.KindAnnotation, ID: cmp.Or(form.get("id"), note.NewID()), Removed: form.Has("remove")}
	if !n.Removed {
		zone, err := time.LoadLocation(cmp.Or(form.get("zone"), c.cfg.Zone))
		if err != nil {
			c.fail(w, r, http.StatusBadRequest, fmt.Sprintf("The time zone %q is unknown.", form.get("zone")), "Give a name such as Europe/Vienna.")
			return
		}
		n.Annotation = &note.Annotation{Category: form.get("category"), Text: form.get("text")}
		if n.Annotation.At, n.Annotation.WholeDay, err = readMoment(form.get("day"), form.get("clock"), zone); err != nil {
			c.fail(w, r, http.StatusBadRequest, sentenceCase(err.Error())+".", "Go back and correct it.")
			return
		}
	}
	back := form.scope()
	if c.keep(w, r, n, back) {
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

// annotateByProgram takes an annotation as JSON.
func (c *Console) annotateByProgram(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code string, err error) { c.refuse(w, status, code, err.Error()) }
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
	n, err := note.NewAnnotation(r.URL.Query().Get("app"), note.Given{ID: given.ID, At: given.At, Category: given.Category, Text: given.Text, By: given.By}, c.now())
	if err != nil {
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
	c.asker.drop(lists[note.KindAnnotation]...)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(n.Value()) // the reader is gone if this fails
	c.metrics.requests.WithLabelValues("api", "2xx").Inc()
}
