// Package yamldoc reads YAML that people write: a file of one document, whose faults
// are reported all at once, each with its line, its column and the path of the field.
// What a mapping may hold is a table of fields; any other name is a fault that lists
// them. Aliases are refused: a file says each value where it is used.
//
// It checks shapes. What values may be is the caller's to check.
package yamldoc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Fault is one fault of a document.
type Fault struct {
	Line, Column int    // from 1; 0: unknown, or of the file as a whole
	Path         string // such as products[0].modules[1].kind
	Text         string // what is wrong, with the value
}

func (f Fault) String() string {
	var b strings.Builder
	switch {
	case f.Line > 0 && f.Column > 0:
		fmt.Fprintf(&b, "line %d, column %d: ", f.Line, f.Column)
	case f.Line > 0:
		fmt.Fprintf(&b, "line %d: ", f.Line)
	}
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Text)
	return b.String()
}

// Faults is an error of all faults at once.
type Faults []Fault

// maxShown bounds the text of an error.
const maxShown = 100

func (fs Faults) Error() string {
	lines := make([]string, 0, len(fs)+1)
	for i, f := range fs {
		if i == maxShown {
			lines = append(lines, fmt.Sprintf("and %d more", len(fs)-i))
			break
		}
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

// Sorted sorts the faults by line.
func (fs Faults) Sorted() Faults {
	slices.SortStableFunc(fs, func(a, b Fault) int { return a.Line - b.Line })
	return fs
}

// Document returns the root of the one document in text, and nil for a text without
// one.
func Document(text []byte) (*yaml.Node, Faults) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, Faults{syntaxFault(err)}
	}
	if err := dec.Decode(&second); err == nil {
		return nil, Faults{{Line: second.Line, Column: second.Column, Text: "must be one YAML document"}}
	} else if !errors.Is(err, io.EOF) {
		return nil, Faults{syntaxFault(err)}
	}
	return doc.Content[0], nil
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

func syntaxFault(err error) Fault {
	text := err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ := strconv.Atoi(m[1]) // digits by the pattern
		return Fault{Line: line, Column: 1, Text: "not YAML: " + text[len(m[0]):]}
	}
	return Fault{Text: "not YAML: " + strings.TrimPrefix(text, "yaml: ")}
}

// Field reads the value at a path.
type Field func(path string, n *yaml.Node)

// Reader walks the nodes of a document and collects its faults. The zero value is
// ready.
type Reader struct {
	Faults Faults
	// At, if not nil, is told where each mapping, field and item of a list is.
	At func(path string, n *yaml.Node)

	bad map[string]bool
}

// Fault adds a fault of the value at path.
func (r *Reader) Fault(path string, n *yaml.Node, format string, args ...any) {
	r.Mark(path)
	r.Faults = append(r.Faults, Fault{Line: n.Line, Column: n.Column, Path: path, Text: fmt.Sprintf(format, args...)})
}

// Mark has Reported take path for one that has a fault.
func (r *Reader) Mark(path string) {
	if r.bad == nil {
		r.bad = map[string]bool{}
	}
	r.bad[path] = true
}

// Reported reports whether a path, or an enclosing one, has a fault already: another
// one about it would repeat the first.
func (r *Reader) Reported(path string) bool {
	for {
		if r.bad[path] {
			return true
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return false
		}
		path = path[:i]
	}
}

func (r *Reader) at(path string, n *yaml.Node) {
	if r.At != nil {
		r.At(path, n)
	}
}

// Mapping reads a mapping of fields.
func (r *Reader) Mapping(path string, n *yaml.Node, fields map[string]Field) {
	r.Entries(path, n, func(name, path string, key, value *yaml.Node) {
		f, ok := fields[name]
		if !ok {
			r.Fault(path, key, "unknown field %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
			return
		}
		f(path, value)
	})
}

// Entries reads a mapping whose names are the file's.
func (r *Reader) Entries(path string, n *yaml.Node, read func(name, path string, key, value *yaml.Node)) {
	r.at(path, n)
	if n.Kind != yaml.MappingNode {
		r.Fault(path, n, "must be a mapping (got %s)", Shape(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		p := strings.TrimPrefix(path+"."+key.Value, ".")
		switch {
		case key.Kind != yaml.ScalarNode:
			r.Fault(path, key, "field names must be plain words (got %s)", Shape(key))
		case seen[key.Value]:
			r.Fault(p, key, "is given twice")
		default:
			seen[key.Value] = true
			r.at(p, key)
			read(key.Value, p, key, value)
		}
	}
}

// List reads the items of a list. A field without a value is a list without items.
func (r *Reader) List(path string, n *yaml.Node, read Field) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		r.Fault(path, n, "must be a list (got %s)", Shape(n))
		return
	}
	for i, item := range n.Content {
		p := fmt.Sprintf("%s[%d]", path, i)
		r.at(p, item)
		read(p, item)
	}
}

// Items reads a list into a slice, which stays nil if there are no items.
func Items[T any](r *Reader, path string, n *yaml.Node, into *[]T, read func(path string, n *yaml.Node, v *T)) {
	r.List(path, n, func(path string, n *yaml.Node) {
		var v T
		read(path, n, &v)
		*into = append(*into, v)
	})
}

// Text reads a scalar of any type as what it says. The line end that closes a block
// (|, >) is none of it; one in quotes is. A field without a value is left as it is.
func (r *Reader) Text(path string, n *yaml.Node, into *string) {
	if n.Kind != yaml.ScalarNode {
		r.Fault(path, n, "must be text (got %s)", Shape(n))
		return
	}
	if isNull(n) {
		return
	}
	*into = n.Value
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		*into = strings.TrimRight(n.Value, "\n")
	}
}

// TextField reads a text.
func (r *Reader) TextField(into *string) Field {
	return func(path string, n *yaml.Node) { r.Text(path, n, into) }
}

// TextsField reads a list of texts.
func (r *Reader) TextsField(into *[]string) Field {
	return func(path string, n *yaml.Node) { Items(r, path, n, into, r.Text) }
}

// TextMapField reads a mapping from the file's names to texts. It replaces what into
// held.
func (r *Reader) TextMapField(into *map[string]string) Field {
	return func(path string, n *yaml.Node) {
		*into = map[string]string{}
		r.Entries(path, n, func(name, path string, _, value *yaml.Node) {
			var text string
			r.Text(path, value, &text)
			(*into)[name] = text
		})
	}
}

// Word reads a text that must not be empty, without the space around it.
func (r *Reader) Word(path string, n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		r.Fault(path, n, "must be text (got %s)", Shape(n))
		return "", false
	}
	s := strings.TrimSpace(n.Value)
	if s == "" || isNull(n) {
		r.Fault(path, n, "must not be empty")
		return "", false
	}
	return s, true
}

// ValueField reads a scalar of the type of into. want is what the fault names, such as
// "a whole number".
func ValueField[T any](r *Reader, into *T, want string) Field {
	return func(path string, n *yaml.Node) {
		var v T
		_, whole := any(v).(int) // into which yaml would decode 1.5 as 1
		if n.Kind != yaml.ScalarNode || n.Decode(&v) != nil || (whole && n.Tag != "!!int") {
			r.Fault(path, n, "must be %s (got %s)", want, Shape(n))
			return
		}
		*into = v
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// Shape says in a fault what a node is.
func Shape(n *yaml.Node) string {
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
