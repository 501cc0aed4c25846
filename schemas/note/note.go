// Package note declares the records of the compacted topic topic.Notes: what people
// write down beside the numbers, such as annotations on a time axis, and questions that they keep. The console writes
// them, and the rollup-writer loads them into ClickHouse.
//
// A record is one version of one note; its key is app, kind and id. Of the versions of a
// note the one with the highest offset counts. A note is deleted by a version that says
// so, not by a record without a value: compaction removes those after a day, and a writer
// that was stopped for longer would never learn of the deletion.
package note

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Kinds of notes.
const (
	KindAnnotation = "annotation"
	KindQuestion   = "question"
	KindBoard      = "board"
)

// Bounds of fields, in bytes.
const (
	MaxApp   = 200
	MaxID    = 64
	MaxBy    = 200
	MaxText  = 500
	MaxName  = 100
	MaxQuery = 2000
)

// MaxBoards is how many boards a question may be on.
const MaxBoards = 20

// Note is one version of a note.
type Note struct {
	App     string    `json:"app"`
	Kind    string    `json:"kind"`
	ID      string    `json:"id"`                // letters, digits, '.', '_' and '-'
	By      string    `json:"by,omitempty"`      // who wrote this version; empty: nobody was signed in
	Written time.Time `json:"written_at"`        // when this version was written
	Removed bool      `json:"removed,omitempty"` // the note is deleted; it has no contents

	Annotation *Annotation `json:"annotation,omitempty"` // of KindAnnotation
	Question   *Question   `json:"question,omitempty"`   // of KindQuestion
	Board      *Board      `json:"board,omitempty"`      // of KindBoard
}

// Question is a question under a name.
type Question struct {
	Name string `json:"name"`
	// Query is the part of the page's address that asks it, without app, period and time
	// zone.
	Query  string   `json:"query"`
	Boards []string `json:"boards,omitempty"` // ids of the boards that it is on
	Mail   *Mail    `json:"mail,omitempty"`   // nil: it is not mailed
}

// Board shows the questions that are on it together.
type Board struct {
	Name string `json:"name"`
	Mail *Mail  `json:"mail,omitempty"` // nil: it is not mailed
}

// Annotation is something that happened at an instant, or on a day, of one app.
type Annotation struct {
	// At is the instant. For a whole day it is the day's start in UTC, and stands for
	// that day in whichever time zone it is looked at.
	At       time.Time `json:"at"`
	WholeDay bool      `json:"whole_day,omitempty"`
	Category string    `json:"category"` // one of Categories
	Text     string    `json:"text"`
}

// Categories of annotations.
var Categories = []string{"release", "campaign", "remap", "incident", "other"}

// NewID returns an id that no other note has.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// Key is the record key.
func (n *Note) Key() string { return strings.Join([]string{n.App, n.Kind, n.ID}, "\x00") }

// Value is the record value, JSON.
func (n *Note) Value() []byte {
	text, err := json.Marshal(n)
	if err != nil {
		panic(err) // cannot happen: strings and times of the years 0 to 9999, see Validate
	}
	return text
}

// Decode reads a record value. It returns an error if the value is no JSON or names no
// app, kind or id. A kind that this release does not know is no error.
func Decode(value []byte) (n Note, err error) {
	if err := json.Unmarshal(value, &n); err != nil {
		return n, err
	}
	if n.App == "" || n.Kind == "" || n.ID == "" {
		return n, errors.New("a note must name app, kind and id")
	}
	return n, nil
}

// Validate reports all faults of a note that is to be written. Errors name the field, its
// value or size, and the bound.
func (n *Note) Validate() error {
	errs := []error{checkText("app", n.App, MaxApp, true), checkText("by", n.By, MaxBy, false), checkID(n.ID)}
	switch {
	case n.Kind != KindAnnotation && n.Kind != KindQuestion && n.Kind != KindBoard:
		errs = append(errs, fmt.Errorf("kind must be %s, %s or %s (got %q)", KindAnnotation, KindQuestion, KindBoard, n.Kind))
	case n.Removed:
	case (n.Kind == KindAnnotation) != (n.Annotation != nil) || (n.Kind == KindQuestion) != (n.Question != nil) || (n.Kind == KindBoard) != (n.Board != nil):
		errs = append(errs, fmt.Errorf("a note of the kind %s must have a field %s and no other contents", n.Kind, n.Kind))
	case n.Annotation != nil:
		errs = append(errs, n.Annotation.validate(n.Written))
	case n.Question != nil:
		errs = append(errs, n.Question.validate())
	case n.Board != nil:
		errs = append(errs, checkText("name", n.Board.Name, MaxName, true), n.Board.Mail.validate())
	}
	return errors.Join(errs...)
}

func (q *Question) validate() error {
	errs := []error{checkText("name", q.Name, MaxName, true), checkText("query", q.Query, MaxQuery, true), q.Mail.validate()}
	if len(q.Boards) > MaxBoards {
		errs = append(errs, fmt.Errorf("a question may be on %d boards (got %d)", MaxBoards, len(q.Boards)))
	}
	for _, id := range q.Boards {
		if err := checkID(id); err != nil {
			errs = append(errs, fmt.Errorf("boards: %w", err))
		}
	}
	return errors.Join(errs...)
}

// earliest and ahead bound At: charts show no other days.
var earliest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

const ahead = 366 * 24 * time.Hour

func (a *Annotation) validate(now time.Time) error {
	var errs []error
	if a.At.Before(earliest) || a.At.After(now.Add(ahead)) {
		errs = append(errs, fmt.Errorf("at must be from 2000-01-01 to a year from now (got %s)", a.At.Format(time.RFC3339)))
	}
	if !slices.Contains(Categories, a.Category) {
		errs = append(errs, fmt.Errorf("category must be one of %s (got %q)", strings.Join(Categories, ", "), a.Category))
	}
	return errors.Join(append(errs, checkText("text", a.Text, MaxText, true))...)
}

// Given is an annotation as a program writes it: Text must be given.
type Given struct {
	ID       string // empty: a new one; of the same id the later annotation counts
	At       string // a day or an instant; empty: now
	Category string // empty: release
	Text     string
	By       string // empty: program
}

// NewAnnotation returns the note of a program's annotation, or all its faults.
func NewAnnotation(app string, g Given, now time.Time) (*Note, error) {
	n := &Note{
		App: app, Kind: KindAnnotation, ID: cmp.Or(g.ID, NewID()), By: cmp.Or(g.By, "program"), Written: now.UTC().Truncate(time.Millisecond),
		Annotation: &Annotation{At: now.UTC().Truncate(time.Second), Category: cmp.Or(g.Category, "release"), Text: g.Text},
	}
	if g.At != "" {
		at, err := time.Parse(time.RFC3339, g.At)
		if err != nil {
			at, err = time.Parse(time.DateOnly, g.At)
			n.Annotation.WholeDay = err == nil
		}
		if err != nil {
			return nil, fmt.Errorf("at must be a day such as 2026-11-20 or an instant such as 2026-11-20T15:04:05Z (got %.40q)", g.At)
		}
		n.Annotation.At = at.UTC()
	}
	return n, n.Validate()
}

func checkID(id string) error {
	if id == "" || len(id) > MaxID || strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	}) {
		return fmt.Errorf("id must be 1 to %d letters, digits, '.', '_' or '-' (got %.80q)", MaxID, id)
	}
	return nil
}

// checkText refuses what does not fit into one line of a page.
func checkText(field, text string, most int, needed bool) error {
	switch {
	case needed && strings.TrimSpace(text) == "":
		return fmt.Errorf("%s must not be empty", field)
	case len(text) > most:
		return fmt.Errorf("%s has %d bytes and may have %d", field, len(text), most)
	case !utf8.ValidString(text):
		return fmt.Errorf("%s must be UTF-8", field)
	case strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("%s must be one line without control characters (got %.80q)", field, text)
	}
	return nil
}
