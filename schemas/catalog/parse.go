package catalog

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/schemas/svc/wholefile"
	"github.com/uptakehq/uptake/schemas/yamldoc"
)

// Parse reads a catalog in YAML, a complete one, which ends with the line "..."
// (package wholefile): the beginning of a catalog is one with fewer features. What is left out has its default and every id
// is set. The error, if any, is Faults with all that is wrong.
func Parse(text []byte) (*Catalog, error) {
	if len(text) > MaxBytes {
		return nil, Faults{{Text: fmt.Sprintf("catalog must be at most %d bytes (got %d)", MaxBytes, len(text))}}
	}
	root, faults := yamldoc.Document(text)
	if len(faults) > 0 {
		return nil, withoutColumns(faults)
	}
	if root == nil {
		return nil, Faults{{Line: 1, Text: "catalog is empty"}}
	}
	if err := wholefile.Check(text); err != nil {
		return nil, Faults{{Line: bytes.Count(bytes.TrimRight(text, "\n"), []byte("\n")) + 1, Text: err.Error()}}
	}
	c := &Catalog{places: map[string]place{}}
	d := &decoder{places: c.places}
	d.At = func(path string, n *yaml.Node) { d.places[path] = place{line: n.Line} }
	d.catalog(c, root)
	faults = withoutColumns(d.Faults)
	for _, f := range check(c) {
		if d.Reported(f.Path) {
			continue
		}
		f.Line, f.Path = c.Place(f.Path)
		faults = append(faults, f)
	}
	if len(faults) > 0 {
		return nil, faults.Sorted()
	}
	return c, nil
}

// withoutColumns makes faults as check, which knows lines alone, finds them.
func withoutColumns(fs Faults) Faults {
	for i := range fs {
		fs[i].Column = 0
	}
	return fs
}

// decoder walks the nodes of the document. It checks shapes; check checks values.
type decoder struct {
	yamldoc.Reader
	places map[string]place
}

// value reads a value to which properties are compared, in the form of appendValue.
func (d *decoder) value(path string, n *yaml.Node, into *string) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.Fault(path, n, "must be text, a number or a boolean (got %s); use exists to ask whether there is a value", yamldoc.Shape(n))
		return
	}
	*into = n.Value
	switch n.Tag {
	case "!!int", "!!float":
		var v float64
		if err := n.Decode(&v); err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			d.Fault(path, n, "must be a finite number or text in quotes (got %q)", n.Value)
			return
		}
		if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			*into = strconv.FormatInt(i, 10)
			return
		}
		*into = string(appendFloat(nil, v))
	case "!!bool":
		*into = strings.ToLower(n.Value)
	}
}

func (d *decoder) numberField(into **float64) yamldoc.Field {
	return func(path string, n *yaml.Node) {
		var v float64
		if n.Kind != yaml.ScalarNode || n.Decode(&v) != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			d.Fault(path, n, "must be a finite number (got %s)", yamldoc.Shape(n))
			return
		}
		*into = &v
	}
}

func (d *decoder) catalog(c *Catalog, n *yaml.Node) {
	d.Mapping("", n, map[string]yamldoc.Field{
		"catalog":     d.TextField(&c.Name),
		"description": d.TextField(&c.Description),
		"products": func(path string, n *yaml.Node) {
			yamldoc.Items(&d.Reader, path, n, &c.Products, d.product)
		},
		"metrics": func(path string, n *yaml.Node) {
			yamldoc.Items(&d.Reader, path, n, &c.Metrics, d.metric)
		},
		"history": func(path string, n *yaml.Node) { d.history(path, n, &c.History) },
		"lint":    func(path string, n *yaml.Node) { d.lint(path, n, &c.Lint) },
	})
}

func (d *decoder) product(path string, n *yaml.Node, p *Product) {
	p.Status = StatusActive
	d.Mapping(path, n, map[string]yamldoc.Field{
		"id":      d.TextField(&p.ID),
		"name":    d.TextField(&p.Name),
		"owner":   d.TextField(&p.Owner),
		"purpose": d.TextField(&p.Purpose),
		"status":  d.TextField(&p.Status),
		"modules": func(path string, n *yaml.Node) {
			yamldoc.Items(&d.Reader, path, n, &p.Modules, d.module)
		},
	})
	p.ID = idOr(p.ID, p.Name)
}

func (d *decoder) module(path string, n *yaml.Node, m *Module) {
	m.Status = StatusActive
	d.Mapping(path, n, map[string]yamldoc.Field{
		"id":      d.TextField(&m.ID),
		"name":    d.TextField(&m.Name),
		"owner":   d.TextField(&m.Owner),
		"purpose": d.TextField(&m.Purpose),
		"status":  d.TextField(&m.Status),
		"features": func(path string, n *yaml.Node) {
			yamldoc.Items(&d.Reader, path, n, &m.Features, d.feature)
		},
	})
	m.ID = idOr(m.ID, m.Name)
}

func (d *decoder) feature(path string, n *yaml.Node, f *Feature) {
	f.Kind, f.Status = KindCore, StatusActive
	var events, aliases []string
	eventsGiven := false
	d.Mapping(path, n, map[string]yamldoc.Field{
		"id":       d.TextField(&f.ID),
		"name":     d.TextField(&f.Name),
		"owner":    d.TextField(&f.Owner),
		"purpose":  d.TextField(&f.Purpose),
		"kind":     d.TextField(&f.Kind),
		"status":   d.TextField(&f.Status),
		"events":   d.givenField(&events, &eventsGiven),
		"aliases":  d.TextsField(&aliases),
		"replaces": d.TextsField(&f.Replaces),
		"rules": func(path string, n *yaml.Node) {
			yamldoc.Items(&d.Reader, path, n, &f.Rules, d.rule)
		},
	})
	f.ID = idOr(f.ID, f.Name)
	f.Names = d.names(path, f.Name, events, aliases, eventsGiven)
}

// givenField reads a list of texts, and whether the file has the field at all.
func (d *decoder) givenField(into *[]string, given *bool) yamldoc.Field {
	read := d.TextsField(into)
	return func(path string, n *yaml.Node) {
		*given = true
		read(path, n)
	}
}

// names collects the exact names: events if given, else the name; and the aliases.
// Lines and faults are stored under names[i], where check looks.
func (d *decoder) names(path, name string, events, aliases []string, eventsGiven bool) []string {
	var names []string
	add := func(from string, n string) {
		at := fmt.Sprintf("%s.names[%d]", path, len(names))
		d.places[at] = place{line: d.places[from].line, path: from}
		if d.Reported(from) {
			d.Mark(at)
		}
		names = append(names, n)
	}
	if eventsGiven {
		for i, e := range events {
			add(fmt.Sprintf("%s.events[%d]", path, i), e)
		}
	} else if name != "" {
		add(path+".name", name)
	}
	for i, a := range aliases {
		add(fmt.Sprintf("%s.aliases[%d]", path, i), a)
	}
	return names
}

func (d *decoder) rule(path string, n *yaml.Node, r *Rule) {
	d.Mapping(path, n, map[string]yamldoc.Field{
		"kind":     d.TextField(&r.Kind),
		"event":    d.TextField(&r.Event),
		"path":     d.TextField(&r.Path),
		"method":   d.TextField(&r.Method),
		"route":    d.TextField(&r.Route),
		"priority": yamldoc.ValueField(&d.Reader, &r.Priority, "a whole number"),
		"where": func(path string, n *yaml.Node) {
			yamldoc.Items(&d.Reader, path, n, &r.Where, d.predicate)
		},
	})
	r.Method = strings.ToUpper(r.Method)
	if r.Kind == "" {
		r.Kind = impliedKind(r)
	}
}

func (d *decoder) predicate(path string, n *yaml.Node, p *Predicate) {
	valueField := func(into **string) yamldoc.Field {
		return func(path string, n *yaml.Node) {
			var s string
			d.value(path, n, &s)
			*into = &s
		}
	}
	valuesField := func(into *[]string) yamldoc.Field {
		return func(path string, n *yaml.Node) { yamldoc.Items(&d.Reader, path, n, into, d.value) }
	}
	d.Mapping(path, n, map[string]yamldoc.Field{
		"property":   d.TextField(&p.Property),
		"context":    d.TextField(&p.Context),
		"equals":     valueField(&p.Equals),
		"not_equals": valueField(&p.Not),
		"in":         valuesField(&p.In),
		"not_in":     valuesField(&p.NotIn),
		"exists":     yamldoc.ValueField(&d.Reader, &p.Exists, "true or false"),
		"prefix":     d.TextField(&p.Prefix),
		"suffix":     d.TextField(&p.Suffix),
		"contains":   d.TextField(&p.Contains),
		"gt":         d.numberField(&p.GT),
		"gte":        d.numberField(&p.GTE),
		"lt":         d.numberField(&p.LT),
		"lte":        d.numberField(&p.LTE),
	})
}

func (d *decoder) metric(path string, n *yaml.Node, m *Metric) {
	var events, aliases []string
	eventsGiven := false
	d.Mapping(path, n, map[string]yamldoc.Field{
		"id":        d.TextField(&m.ID),
		"name":      d.TextField(&m.Name),
		"semantics": d.TextField(&m.Semantics),
		"unit":      d.TextField(&m.Unit),
		"owner":     d.TextField(&m.Owner),
		"purpose":   d.TextField(&m.Purpose),
		"events":    d.givenField(&events, &eventsGiven),
		"aliases":   d.TextsField(&aliases),
	})
	m.ID = idOr(m.ID, m.Name)
	m.Names = d.names(path, m.Name, events, aliases, eventsGiven)
}

func (d *decoder) history(path string, n *yaml.Node, h *History) {
	d.Mapping(path, n, map[string]yamldoc.Field{
		"default":  d.TextField(&h.Default),
		"unmapped": d.TextField(&h.Unmapped),
		"features": d.TextMapField(&h.Features),
	})
}

func (d *decoder) lint(path string, n *yaml.Node, o *LintOptions) {
	d.Mapping(path, n, map[string]yamldoc.Field{
		"convention": d.TextField(&o.Convention),
		"casing":     d.TextField(&o.Casing),
		"synonyms": func(path string, n *yaml.Node) {
			yamldoc.Items(&d.Reader, path, n, &o.Synonyms, func(path string, n *yaml.Node, v *[]string) {
				yamldoc.Items(&d.Reader, path, n, v, d.Text)
			})
		},
		"ignore": func(path string, n *yaml.Node) {
			yamldoc.Items(&d.Reader, path, n, &o.Ignore, func(path string, n *yaml.Node, v *Ignore) {
				d.Mapping(path, n, map[string]yamldoc.Field{
					"check":  d.TextField(&v.Check),
					"id":     d.TextField(&v.ID),
					"reason": d.TextField(&v.Reason),
				})
			})
		},
	})
}

func idOr(id, name string) string {
	if id != "" {
		return id
	}
	return Slug(name)
}
