package scan

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
)

// walkTree checks that a node says what a Scanner says that reads the value's text anew, at
// every level.
func walkTree(t *testing.T, n Node, raw []byte) {
	t.Helper()
	for _, bound := range []int{0, 1, 2, 5, len(raw)} {
		var s Scanner
		s.Reset(raw, bound)
		v := s.Value()
		if got := n.Value(); s.Err() != nil || got.Kind != v.Kind || got.Text() != v.Text() || !bytes.Equal(got.Raw, raw) {
			t.Fatalf("got %v %q %q of %q, want %v %q (%v)", got.Kind, got.Raw, got.Text(), raw, v.Kind, v.Text(), s.Err())
		}
		if got := n.Notes(bound); got != s.Noted() {
			t.Fatalf("%q within %d levels: noted %d, want %d", raw, bound, got, s.Noted())
		}
	}
	var s Scanner
	s.Reset(raw, math.MaxInt)
	switch n.Kind() {
	case Array:
		s.Array()
		for v := range n.Elements() {
			if !s.More() {
				t.Fatalf("%q: an element too many: %q", raw, v.Value().Raw)
			}
			walkTree(t, v, s.Value().Raw)
		}
		if s.More() {
			t.Fatalf("%q: an element is missing", raw)
		}
	case Object:
		s.Object()
		seen := map[string]bool{}
		for name, v := range n.Members() {
			key, ok := s.Key()
			if !ok || string(key) != name {
				t.Fatalf("%q: got the name %q, want %q", raw, name, key)
			}
			first := n.Get(name)
			if first == v == seen[name] {
				t.Fatalf("%q: Get(%q) is not the first", raw, name)
			}
			seen[name] = true
			walkTree(t, v, s.Value().Raw)
		}
		if _, ok := s.Key(); ok {
			t.Fatalf("%q: a name is missing", raw)
		}
	default:
		for range n.Elements() {
			t.Fatalf("%q has elements", raw)
		}
		for range n.Members() {
			t.Fatalf("%q has members", raw)
		}
	}
}

var treeSeeds = []string{
	`{"a":[1,-2.5e3,"x\n\ud83d\ude00",{"b":{},"b":[ ]}, null,true , false],"":"ü","\u0061":{"c":[[[]]]}}`,
	` [ ] `, `{}`, `"a\"b"`, `7`, ` null`, "[\"\xff\",{\"k\xff\":1},[\"fine\"]]", `["\ud83d"]`,
	``, ` `, `[1,]`, `[1 2]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{1:2}`, `[`, `{"a":1`, `]`, `[}`, `{]`, `tru`, `01`, `1.`, `"`, `"\x"`, `1 2`, `[1]]`, "\"\x01\"", `[nul]`, `{"a":1]`, `[1}`,
	strings.Repeat("[", 1024) + strings.Repeat("]", 1024), strings.Repeat("[", 1025) + strings.Repeat("]", 1025), strings.Repeat(`{"a":`, 1030),
}

func checkTree(t *testing.T, tree *Tree, text []byte) {
	t.Helper()
	var s Scanner
	s.Reset(text, len(text))
	s.Value()
	s.End()
	err := tree.Parse(text)
	if (err == nil) != (s.Err() == nil) {
		t.Fatalf("%q: got %v, a Scanner says %v", text, err, s.Err())
	}
	if err != nil {
		if tree.Root() != (Node{}) {
			t.Fatalf("%q: a value beside %v", text, err)
		}
		return
	}
	walkTree(t, tree.Root(), bytes.Trim(text, " \t\r\n"))
}

// A tree is used again, also after a fault.
func TestTree(t *testing.T) {
	var tree Tree
	for _, text := range treeSeeds {
		checkTree(t, &tree, []byte(text))
	}
	if err := tree.Parse([]byte(`{"a":{"b":["x",{"c":7}]},"a":1}`)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for v := range tree.Root().Get("a").Get("b").Elements() {
		got = append(got, string(v.Value().Raw))
	}
	if len(got) != 2 || got[0] != `"x"` || got[1] != `{"c":7}` {
		t.Errorf("got %q", got)
	}
	if n := tree.Root().Get("b"); n.Kind() != Invalid || n.Value().Raw != nil || n.Notes(0) != 0 || n.Get("c") != (Node{}) {
		t.Errorf("a member that is not there: got %v", n)
	}
	deep := []byte(strings.Repeat(`[{"a":`, 300) + "1" + strings.Repeat("}]", 300))
	if err := tree.Parse(deep); err != nil || !json.Valid(deep) {
		t.Fatal(err)
	}
	if tree.Root().Notes(599) != TooDeep || tree.Root().Notes(600) != 0 {
		t.Errorf("600 levels: noted %d within 599, %d within 600", tree.Root().Notes(599), tree.Root().Notes(600))
	}
}

func FuzzTree(f *testing.F) {
	for _, text := range treeSeeds {
		f.Add([]byte(text))
	}
	var tree Tree
	f.Fuzz(func(t *testing.T, text []byte) { checkTree(t, &tree, text) })
}
