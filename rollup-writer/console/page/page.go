// Package page holds the console's templates, its style, its script and its charts. It
// renders given data and makes no queries.
//
// Everything is embedded: go build alone gives complete pages. Charts are SVG, so that
// a page works without scripts, prints, and has its numbers in text; the script adds
// hover, sorting, keys and the live view.
package page

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
)

//go:embed templates/*.html
var templates embed.FS

//go:embed static
var static embed.FS

// Link of a page.
type Link struct {
	Text, URL string
	Current   bool
}

// Pair is a name with its value.
type Pair struct{ Name, Value string }

// Menu is the head of each page.
type Menu struct {
	App, Zone, Path, AsOf, Period string
	Entries, Periods, Apps        []Link
	Hidden                        []Pair // of the form that sets the zone
	Viewer, SignOut               string // who signed in, and the form's address; or empty
}

// Page is what every template gets.
type Page struct {
	Title string
	Menu  *Menu
	// Sentence answers the page's question in its first line.
	Sentence string
	Body     any
}

// Set of templates, by the name of the page.
type Set struct {
	pages map[string]*template.Template
	files http.Handler
}

// Load parses the templates.
func Load() (*Set, error) {
	frame, err := template.New("frame.html").Funcs(functions).ParseFS(templates, "templates/frame.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("console templates: %w", err)
	}
	entries, err := fs.ReadDir(templates, "templates")
	if err != nil {
		return nil, fmt.Errorf("console templates: %w", err)
	}
	s := &Set{pages: map[string]*template.Template{}}
	for _, e := range entries {
		if e.Name() == "frame.html" || e.Name() == "parts.html" {
			continue
		}
		t, err := template.Must(frame.Clone()).ParseFS(templates, "templates/"+e.Name())
		if err != nil {
			return nil, fmt.Errorf("console templates: %w", err)
		}
		s.pages[e.Name()[:len(e.Name())-len(".html")]] = t
	}
	sub, err := fs.Sub(static, "static")
	if err != nil {
		return nil, fmt.Errorf("console files: %w", err)
	}
	s.files = http.FileServerFS(sub)
	return s, nil
}

// Static serves the style and the script.
func (s *Set) Static() http.Handler { return s.files }

// Write writes a complete page or nothing.
func (s *Set) Write(w io.Writer, name string, p *Page) error {
	t := s.pages[name]
	if t == nil {
		return fmt.Errorf("console: no page %q", name)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "frame.html", p); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Column of a plain table.
type Column struct {
	Name   string
	Number bool
}

// Fragment returns a part of a page's template.
func (s *Set) Fragment(name, part string, data any) (string, error) {
	var b bytes.Buffer
	err := s.pages[name].ExecuteTemplate(&b, part, data)
	return b.String(), err
}
