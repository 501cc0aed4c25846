package note

import (
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)

func annotation(change func(*Note)) *Note {
	n := &Note{App: "dev", Kind: KindAnnotation, ID: "release-1.2", By: "maria", Written: now, Annotation: &Annotation{At: now, Category: "release", Text: "release 1.2"}}
	if change != nil {
		change(n)
	}
	return n
}

func ofQuestion(q Question) func(*Note) {
	return func(n *Note) { n.Kind, n.Annotation, n.Question = KindQuestion, nil, &q }
}

// Errors name the field and its bound.
func TestValidate(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Note)
		want   string // empty: no error
	}{
		"whole":               {nil, ""},
		"nobody":              {func(n *Note) { n.By = "" }, ""},
		"umlauts":             {func(n *Note) { n.Annotation.Text = "Übernahme von Ölmühle" }, ""},
		"removed":             {func(n *Note) { n.Removed, n.Annotation = true, nil }, ""},
		"in half a year":      {func(n *Note) { n.Annotation.At = now.AddDate(0, 6, 0) }, ""},
		"no app":              {func(n *Note) { n.App = "" }, "app must not be empty"},
		"a separator":         {func(n *Note) { n.App = "a\x00b" }, "app must be one line"},
		"another kind":        {func(n *Note) { n.Kind = "x" }, `kind must be annotation, question or board (got "x")`},
		"no contents":         {func(n *Note) { n.Annotation = nil }, "a note of the kind annotation must have a field annotation and no other contents"},
		"contents of another": {func(n *Note) { n.Board = &Board{Name: "b"} }, "and no other contents"},
		"a board":             {func(n *Note) { n.Kind, n.Annotation, n.Board = KindBoard, nil, &Board{Name: "Weekly"} }, ""},
		"a board's name":      {func(n *Note) { n.Kind, n.Annotation, n.Board = KindBoard, nil, &Board{Name: strings.Repeat("x", 101)} }, "name has 101 bytes and may have 100"},
		"a question":          {ofQuestion(Question{Name: "Funnel", Query: "show=funnel", Boards: []string{"b1"}}), ""},
		"a question's name":   {ofQuestion(Question{Query: "show=funnel"}), "name must not be empty"},
		"a long query":        {ofQuestion(Question{Name: "x", Query: strings.Repeat("x", 2001)}), "query has 2001 bytes and may have 2000"},
		"many boards":         {ofQuestion(Question{Name: "x", Query: "x", Boards: make([]string, 21)}), "may be on 20 boards (got 21)"},
		"a board's id":        {ofQuestion(Question{Name: "x", Query: "x", Boards: []string{"a b"}}), `boards: id must be 1 to 64 letters`},
		"no id":               {func(n *Note) { n.ID = "" }, `id must be 1 to 64 letters`},
		"a path as id":        {func(n *Note) { n.ID = "a/b" }, `(got "a/b")`},
		"a long id":           {func(n *Note) { n.ID = strings.Repeat("x", 65) }, "id must be 1 to 64"},
		"long ago":            {func(n *Note) { n.Annotation.At = time.Time{} }, "at must be from 2000-01-01 to a year from now (got 0001-01-01T00:00:00Z)"},
		"in two years":        {func(n *Note) { n.Annotation.At = now.AddDate(2, 0, 0) }, "at must be from 2000-01-01"},
		"another category":    {func(n *Note) { n.Annotation.Category = "Release" }, `category must be one of release, campaign, remap, incident, other (got "Release")`},
		"no text":             {func(n *Note) { n.Annotation.Text = "  " }, "text must not be empty"},
		"a long text":         {func(n *Note) { n.Annotation.Text = strings.Repeat("x", 501) }, "text has 501 bytes and may have 500"},
		"two lines":           {func(n *Note) { n.Annotation.Text = "a\nb" }, "text must be one line"},
		"no UTF-8":            {func(n *Note) { n.Annotation.Text = "a\xff" }, "text must be UTF-8"},
		"a long author":       {func(n *Note) { n.By = strings.Repeat("x", 201) }, "by has 201 bytes and may have 200"},
	} {
		err := annotation(tt.change).Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

func TestLookIsRead(t *testing.T) {
	l, err := DecodeLook([]byte(`{"app":"dev","at":"2026-11-20T15:00:00Z","viewer":"joan","person":"maria"}`))
	if want := (Look{App: "dev", At: now, Viewer: "joan", Person: "maria"}); err != nil || l != want {
		t.Errorf("got %+v, %v", l, err)
	}
	for _, broken := range []string{"", "[]", "{}", `{"app":"dev","person":"maria"}`} {
		if _, err := DecodeLook([]byte(broken)); err == nil {
			t.Errorf("%q was read", broken)
		}
	}
}

func TestValueIsRead(t *testing.T) {
	n := annotation(nil)
	if got, want := string(n.Value()), `{"app":"dev","kind":"annotation","id":"release-1.2","by":"maria","written_at":"2026-11-20T15:00:00Z",`+
		`"annotation":{"at":"2026-11-20T15:00:00Z","category":"release","text":"release 1.2"}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := n.Key(), "dev\x00annotation\x00release-1.2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	back, err := Decode(n.Value())
	if err != nil || back.ID != "release-1.2" || *back.Annotation != *n.Annotation {
		t.Errorf("got %+v, %v", back, err)
	}
	if _, err := Decode([]byte(`{"app":"dev","kind":"of a newer release","id":"x","more":{}}`)); err != nil {
		t.Errorf("a kind of a newer release: %v", err)
	}
	for _, broken := range []string{"", "{", "[]", "{}", `{"app":"dev","kind":"annotation"}`} {
		if _, err := Decode([]byte(broken)); err == nil {
			t.Errorf("%q was read", broken)
		}
	}
}
