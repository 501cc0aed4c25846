package yamldoc_test

import (
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/schemas/yamldoc"
)

type file struct {
	Name  string
	Count int
	Tags  []string
	Words map[string]string
}

func read(text string) (f file, err error) {
	root, faults := yamldoc.Document([]byte(text))
	if len(faults) > 0 {
		return f, faults
	}
	if root == nil {
		return f, nil
	}
	var r yamldoc.Reader
	r.Mapping("", root, map[string]yamldoc.Field{
		"name":  r.TextField(&f.Name),
		"count": yamldoc.ValueField(&r, &f.Count, "a whole number"),
		"tags":  r.TextsField(&f.Tags),
		"words": func(path string, n *yaml.Node) {
			f.Words = map[string]string{}
			r.Entries(path, n, func(name, path string, _, value *yaml.Node) {
				f.Words[name], _ = r.Word(path, value)
			})
		},
	})
	if len(r.Faults) > 0 {
		return f, r.Faults.Sorted()
	}
	return f, nil
}

func TestReads(t *testing.T) {
	for text, want := range map[string]file{
		"":                       {},
		"# nothing\n":            {},
		"name:\ntags:\ntags2: ~": {},
		"name: |\n  two\n  lines\ncount: 0x10\ntags: [a, 1.50, yes]\nwords: {a: ' b '}\n": {Name: "two\nlines", Count: 16, Tags: []string{"a", "1.50", "yes"}, Words: map[string]string{"a": "b"}},
	} {
		got, err := read(strings.Replace(text, "tags2: ~", "", 1))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, err, want)
		}
	}
}

// Every fault is reported, with its place.
func TestFaults(t *testing.T) {
	for text, want := range map[string]string{
		"name: a\n---\nname: b":       "line 2, column 1: must be one YAML document",
		"name: [":                     "line 1, column 1: not YAML: did not find expected node content",
		"- a":                         "line 1, column 1: must be a mapping (got a list)",
		"name: {a: b}\ncolour: red":   "line 1, column 7: name: must be text (got a mapping)\nline 2, column 1: colour: unknown field \"colour\"; there are count, name, tags, words",
		"count: many\ntags: a":        "line 1, column 8: count: must be a whole number (got \"many\")\nline 2, column 7: tags: must be a list (got \"a\")",
		"tags: [a, {b: c}]":           "line 1, column 11: tags[1]: must be text (got a mapping)",
		"name: &n a\ntags:\n- *n":     "line 3, column 3: tags[0]: must be text (got an alias; write the value out)",
		"name: a\nname: b":            "line 2, column 1: name: is given twice",
		"words: {a: ' ', [b]: c}":     "line 1, column 12: words.a: must not be empty\nline 1, column 17: words: field names must be plain words (got a list)",
		"words:\n  a: b\n  a: b\n":    "line 3, column 3: words.a: is given twice",
		"name: a\ncount: 1.5 # whole": "line 2, column 8: count: must be a whole number (got \"1.5\")",
	} {
		if _, err := read(text); err == nil || err.Error() != want {
			t.Errorf("%q: got\n%v\nwant\n%s", text, err, want)
		}
	}
}

// What has a fault, or is within what has one, is known to have it.
func TestReported(t *testing.T) {
	var r yamldoc.Reader
	r.Fault("a[1].b", &yaml.Node{}, "is wrong")
	for path, want := range map[string]bool{"a": false, "a[1]": false, "a[1].b": true, "a[1].b.c[0]": true, "a[1].bc": false} {
		if got := r.Reported(path); got != want {
			t.Errorf("%s: got %t", path, got)
		}
	}
}
