package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/schemas/svc/wholefile"
)

// Parse reads a catalog in YAML, a complete one, which ends with the line "..."
// (package wholefile): the beginning of a catalog is one with fewer features. What is left out has its default and every id
// is set. The error, if any, is Faults with all that is wrong.
func Parse(text []byte) (*Catalog, error) {
	if len(text) > MaxBytes {
		return nil, Faults{{Text: fmt.Sprintf("catalog must be at most %d bytes (got %d)", MaxBytes, len(text))}}
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, Faults{{Line: 1, Text: "catalog is empty"}}
		}
		return nil, Faults{syntaxFault(err)}
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		return nil, Faults{{Line: second.Line, Text: "must be one YAML document"}}
	} else if !errors.Is(err, io.EOF) {
		return nil, Faults{syntaxFault(err)}
	}
	if err := wholefile.Check(text); err != nil {
		return nil, Faults{{Line: bytes.Count(bytes.TrimRight(text, "\n"), []byte("\n")) + 1, Text: err.Error()}}
	}
	c := &Catalog{places: map[string]place{}}
	d := &decoder{places: c.places}
	d.catalog(c, doc.Content[0])
	faults := d.faults
	for _, f := range check(c) {
		if d.reported(f.Path) {
			continue
		}
		f.Line, f.Path = c.Place(f.Path)
		faults = append(faults, f)
	}
	if len(faults) > 0 {
		return nil, faults.sorted()
	}
	return c, nil
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

func syntaxFault(err error) Fault {
	text := err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ := strconv.Atoi(m[1]) // digits by the pattern
		return Fault{Line: line, Text: "not YAML: " + text[len(m[0]):]}
	}
	return Fault{Text: "not YAML: " + strings.TrimPrefix(text, "yaml: ")}
}

// decoder walks the nodes of the document. It checks shapes; check checks values.
type decoder struct {
	places map[string]place
	faults Faults
	bad    map[string]bool
}

func (d *decoder) fault(path string, n *yaml.Node, format string, args ...any) {
	if d.bad == nil {
		d.bad = map[string]bool{}
	}
	d.bad[path] = true
	d.faults = append(d.faults, Fault{Line: n.Line, Path: path, Text: fmt.Sprintf(format, args...)})
}

// reported reports whether a path, or an enclosing one, already has a fault of shape: a
// second fault about it would repeat the first.
func (d *decoder) reported(path string) bool {
	for {
		if d.bad[path] {
			return true
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return false
		}
		path = path[:i]
	}
}

// field reads one value of a mapping.
type field func(path string, n *yaml.Node)

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (d *decoder) mapping(path string, n *yaml.Node, fields map[string]field) {
	d.places[path] = place{line: n.Line}
	if n.Kind != yaml.MappingNode {
		d.fault(path, n, "must be a mapping (got %s)", shape(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		p := join(path, key.Value)
		f, ok := fields[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			d.fault(path, key, "field names must be plain words (got %s)", shape(key))
		case !ok:
			d.fault(p, key, "unknown field %q%s", key.Value, known(fields))
		case seen[key.Value]:
			d.fault(p, key, "is given twice")
		default:
			seen[key.Value] = true
			d.places[p] = place{line: key.Line}
			f(p, value)
		}
	}
}

// known lists the names of the fields.
func known(fields map[string]field) string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	sort.Strings(names)
	return "; there are " + strings.Join(names, ", ")
}

func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias; write the value out"
	}
	return strconv.Quote(n.Value)
}

func list[T any](d *decoder, path string, n *yaml.Node, into *[]T, read func(path string, n *yaml.Node, v *T)) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.fault(path, n, "must be a list (got %s)", shape(n))
		return
	}
	if len(n.Content) == 0 {
		return // an empty list is as none, so that a catalog has one JSON form
	}
	*into = make([]T, len(n.Content))
	for i, item := range n.Content {
		p := fmt.Sprintf("%s[%d]", path, i)
		d.places[p] = place{line: item.Line}
		read(p, item, &(*into)[i])
	}
}

// text reads a scalar of any type as what it says. The line end that closes a block
// (|, >) is none of it; one in quotes is.
func (d *decoder) text(path string, n *yaml.Node, into *string) {
	if n.Kind != yaml.ScalarNode {
		d.fault(path, n, "must be text (got %s)", shape(n))
		return
	}
	if n.Tag == "!!null" {
		return
	}
	*into = n.Value
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		*into = strings.TrimRight(n.Value, "\n")
	}
}

func (d *decoder) textField(into *string) field {
	return func(path string, n *yaml.Node) { d.text(path, n, into) }
}

func (d *decoder) textsField(into *[]string) field {
	return func(path string, n *yaml.Node) { list(d, path, n, into, d.text) }
}

// value reads a value to which properties are compared, in the form of appendValue.
func (d *decoder) value(path string, n *yaml.Node, into *string) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.fault(path, n, "must be text, a number or a boolean (got %s); use exists to ask whether there is a value", shape(n))
		return
	}
	*into = n.Value
	switch n.Tag {
	case "!!int", "!!float":
		var v float64
		if err := n.Decode(&v); err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			d.fault(path, n, "must be a finite number or text in quotes (got %q)", n.Value)
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

func (d *decoder) numberField(into **float64) field {
	return func(path string, n *yaml.Node) {
		var v float64
		if n.Kind != yaml.ScalarNode || n.Decode(&v) != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			d.fault(path, n, "must be a finite number (got %s)", shape(n))
			return
		}
		*into = &v
	}
}

func (d *decoder) catalog(c *Catalog, n *yaml.Node) {
	d.mapping("", n, map[string]field{
		"catalog":     d.textField(&c.Name),
		"description": d.textField(&c.Description),
		"products": func(path string, n *yaml.Node) {
			list(d, path, n, &c.Products, d.product)
		},
		"metrics": func(path string, n *yaml.Node) {
			list(d, path, n, &c.Metrics, d.metric)
		},
		"history": func(path string, n *yaml.Node) { d.history(path, n, &c.History) },
		"lint":    func(path string, n *yaml.Node) { d.lint(path, n, &c.Lint) },
	})
}

func (d *decoder) product(path string, n *yaml.Node, p *Product) {
	p.Status = StatusActive
	d.mapping(path, n, map[string]field{
		"id":      d.textField(&p.ID),
		"name":    d.textField(&p.Name),
		"owner":   d.textField(&p.Owner),
		"purpose": d.textField(&p.Purpose),
		"status":  d.textField(&p.Status),
		"modules": func(path string, n *yaml.Node) {
			list(d, path, n, &p.Modules, d.module)
		},
	})
	p.ID = idOr(p.ID, p.Name)
}

func (d *decoder) module(path string, n *yaml.Node, m *Module) {
	m.Status = StatusActive
	d.mapping(path, n, map[string]field{
		"id":      d.textField(&m.ID),
		"name":    d.textField(&m.Name),
		"owner":   d.textField(&m.Owner),
		"purpose": d.textField(&m.Purpose),
		"status":  d.textField(&m.Status),
		"features": func(path string, n *yaml.Node) {
			list(d, path, n, &m.Features, d.feature)
		},
	})
	m.ID = idOr(m.ID, m.Name)
}

func (d *decoder) feature(path string, n *yaml.Node, f *Feature) {
	f.Kind, f.Status = KindCore, StatusActive
	var events, aliases []string
	eventsGiven := false
	d.mapping(path, n, map[string]field{
		"id":      d.textField(&f.ID),
		"name":    d.textField(&f.Name),
		"owner":   d.textField(&f.Owner),
		"purpose": d.textField(&f.Purpose),
		"kind":    d.textField(&f.Kind),
		"status":  d.textField(&f.Status),
		"events": func(path string, n *yaml.Node) {
			eventsGiven = true
			list(d, path, n, &events, d.text)
		},
		"aliases":  d.textsField(&aliases),
		"replaces": d.textsField(&f.Replaces),
		"rules": func(path string, n *yaml.Node) {
			list(d, path, n, &f.Rules, d.rule)
		},
	})
	f.ID = idOr(f.ID, f.Name)
	f.Names = d.names(path, f.Name, events, aliases, eventsGiven)
}

// names collects the exact names: events if given, else the name; and the aliases.
// Lines and faults are stored under names[i], where check looks.
func (d *decoder) names(path, name string, events, aliases []string, eventsGiven bool) []string {
	var names []string
	add := func(from string, n string) {
		at := fmt.Sprintf("%s.names[%d]", path, len(names))
		d.places[at] = place{line: d.places[from].line, path: from}
		if d.bad[from] {
			d.bad[at] = true
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
	d.mapping(path, n, map[string]field{
		"kind":   d.textField(&r.Kind),
		"event":  d.textField(&r.Event),
		"path":   d.textField(&r.Path),
		"method": d.textField(&r.Method),
		"route":  d.textField(&r.Route),
		"priority": func(path string, n *yaml.Node) {
			if n.Kind != yaml.ScalarNode || n.Decode(&r.Priority) != nil {
				d.fault(path, n, "must be a whole number (got %s)", shape(n))
			}
		},
		"where": func(path string, n *yaml.Node) {
			list(d, path, n, &r.Where, d.predicate)
		},
	})
	r.Method = strings.ToUpper(r.Method)
	if r.Kind == "" {
		r.Kind = impliedKind(r)
	}
}

func (d *decoder) predicate(path string, n *yaml.Node, p *Predicate) {
	valueField := func(into **string) field {
		return func(path string, n *yaml.Node) {
			var s string
			d.value(path, n, &s)
			*into = &s
		}
	}
	valuesField := func(into *[]string) field {
		return func(path string, n *yaml.Node) { list(d, path, n, into, d.value) }
	}
	d.mapping(path, n, map[string]field{
		"property":   d.textField(&p.Property),
		"context":    d.textField(&p.Context),
		"equals":     valueField(&p.Equals),
		"not_equals": valueField(&p.Not),
		"in":         valuesField(&p.In),
		"not_in":     valuesField(&p.NotIn),
		"exists": func(path string, n *yaml.Node) {
			var v bool
			if n.Kind != yaml.ScalarNode || n.Decode(&v) != nil {
				d.fault(path, n, "must be true or false (got %s)", shape(n))
				return
			}
			p.Exists = &v
		},
		"prefix":   d.textField(&p.Prefix),
		"suffix":   d.textField(&p.Suffix),
		"contains": d.textField(&p.Contains),
		"gt":       d.numberField(&p.GT),
		"gte":      d.numberField(&p.GTE),
		"lt":       d.numberField(&p.LT),
		"lte":      d.numberField(&p.LTE),
	})
}

func (d *decoder) metric(path string, n *yaml.Node, m *Metric) {
	var events, aliases []string
	eventsGiven := false
	d.mapping(path, n, map[string]field{
		"id":        d.textField(&m.ID),
		"name":      d.textField(&m.Name),
		"semantics": d.textField(&m.Semantics),
		"unit":      d.textField(&m.Unit),
		"owner":     d.textField(&m.Owner),
		"purpose":   d.textField(&m.Purpose),
		"events": func(path string, n *yaml.Node) {
			eventsGiven = true
			list(d, path, n, &events, d.text)
		},
		"aliases": d.textsField(&aliases),
	})
	m.ID = idOr(m.ID, m.Name)
	m.Names = d.names(path, m.Name, events, aliases, eventsGiven)
}

func (d *decoder) history(path string, n *yaml.Node, h *History) {
	d.mapping(path, n, map[string]field{
		"default":  d.textField(&h.Default),
		"unmapped": d.textField(&h.Unmapped),
		"features": func(path string, n *yaml.Node) {
			if n.Kind != yaml.MappingNode {
				d.fault(path, n, "must be a mapping of feature ids to move or keep (got %s)", shape(n))
				return
			}
			h.Features = map[string]string{}
			for i := 0; i+1 < len(n.Content); i += 2 {
				key, value := n.Content[i], n.Content[i+1]
				p := join(path, key.Value)
				if _, ok := h.Features[key.Value]; ok {
					d.fault(p, key, "is given twice")
					continue
				}
				d.places[p] = place{line: key.Line}
				var word string
				d.text(p, value, &word)
				h.Features[key.Value] = word
			}
		},
	})
}

func (d *decoder) lint(path string, n *yaml.Node, o *LintOptions) {
	d.mapping(path, n, map[string]field{
		"convention": d.textField(&o.Convention),
		"casing":     d.textField(&o.Casing),
		"synonyms": func(path string, n *yaml.Node) {
			list(d, path, n, &o.Synonyms, func(path string, n *yaml.Node, v *[]string) {
				list(d, path, n, v, d.text)
			})
		},
		"ignore": func(path string, n *yaml.Node) {
			list(d, path, n, &o.Ignore, func(path string, n *yaml.Node, v *Ignore) {
				d.mapping(path, n, map[string]field{
					"check":  d.textField(&v.Check),
					"id":     d.textField(&v.ID),
					"reason": d.textField(&v.Reason),
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
