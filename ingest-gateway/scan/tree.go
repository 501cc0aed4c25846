package scan

import (
	"iter"
	"math"

	"github.com/uptakehq/uptake/schemas/rawjson"
)

// Tree is where the values of a JSON text stand in it: what is read more than once, at
// one level after the other, is scanned once. The zero value is empty.
//
// It takes 16 bytes for each value and each name.
type Tree struct {
	text  []byte
	nodes []node
	open  []uint32 // containers around the place that Parse is at
}

// node is a value, or a name in an object, whose value is the next node. The nodes
// of what a container holds follow it, up to next.
type node struct {
	start, end uint32
	next       uint32 // the first node after all that is in this one
	kind       Kind
	escaped    bool
	bad        bool   // not UTF-8, or something in it is not
	height     uint16 // containers in each other, this one included
}

// Parse reads a text that is one JSON value; the error says where it is none. What was
// read before is gone.
func (t *Tree) Parse(text []byte) error {
	t.text, t.nodes, t.open = text, t.nodes[:0], t.open[:0]
	var s Scanner
	s.Reset(text, len(text))
	if len(text) > math.MaxUint32 {
		s.fail(0, "too long")
	} else {
		t.read(&s)
	}
	if !s.End() {
		t.nodes = t.nodes[:0]
	}
	return s.Err()
}

// read reads one value and all in it, without recursion.
func (t *Tree) read(s *Scanner) {
	b := s.b
	for {
		if !s.space() {
			s.fail(s.i, "")
			return
		}
		n := node{start: uint32(s.i)}
		s.notes = 0
		switch c := b[s.i]; c {
		case '{', '[':
			n.kind = Object
			if c == '[' {
				n.kind = Array
			}
			if len(t.open) == hardDepth {
				s.fail(s.i, "nested too deeply")
				return
			}
			s.i++
			t.open = append(t.open, uint32(len(t.nodes)))
			t.nodes = append(t.nodes, n)
			if s.space() && b[s.i] == c+2 { // '}' is '{'+2 and ']' is '['+2
				break
			}
			if n.kind == Object && !t.name(s) {
				return
			}
			continue
		case '"':
			end, escaped := s.str(s.i + 1)
			if end < 0 {
				return
			}
			s.i = end
			n.kind, n.escaped, n.bad = String, escaped, s.notes&BadUTF8 != 0
			t.leaf(s, n)
		case 't':
			n.kind, s.i = True, s.literal(s.i, "true")
			t.leaf(s, n)
		case 'f':
			n.kind, s.i = False, s.literal(s.i, "false")
			t.leaf(s, n)
		case 'n':
			n.kind, s.i = Null, s.literal(s.i, "null")
			t.leaf(s, n)
		default:
			n.kind, s.i = Number, s.number(s.i)
			t.leaf(s, n)
		}
		if s.err != nil || !t.follow(s) {
			return
		}
	}
}

// leaf adds a value that holds no other and ends here.
func (t *Tree) leaf(s *Scanner, n node) {
	n.end, n.next = uint32(s.i), uint32(len(t.nodes))+1
	t.nodes = append(t.nodes, n)
	if n.bad && len(t.open) > 0 {
		t.nodes[t.open[len(t.open)-1]].bad = true
	}
}

// name reads a name and its colon.
func (t *Tree) name(s *Scanner) bool {
	if !s.space() || s.b[s.i] != '"' {
		s.fail(s.i, "no name")
		return false
	}
	s.notes = 0
	n := node{start: uint32(s.i), kind: String}
	end, escaped := s.str(s.i + 1)
	if end < 0 {
		return false
	}
	s.i = end
	n.escaped, n.bad = escaped, s.notes&BadUTF8 != 0
	t.leaf(s, n)
	if !s.space() || s.b[s.i] != ':' {
		s.fail(s.i, "no colon")
		return false
	}
	s.i++
	return true
}

// follow reads what comes after a value, or after the opening of an empty
// container. It reports false when no further value comes.
func (t *Tree) follow(s *Scanner) bool {
	for len(t.open) > 0 {
		if !s.space() {
			s.fail(s.i, "")
			return false
		}
		at := t.open[len(t.open)-1]
		n := &t.nodes[at]
		switch c := s.b[s.i]; {
		case c == ',':
			s.i++
			return n.kind == Array || t.name(s)
		case c == '}' && n.kind == Object, c == ']' && n.kind == Array:
			s.i++
			n.end, n.next = uint32(s.i), uint32(len(t.nodes))
			n.height++
			t.open = t.open[:len(t.open)-1]
			if len(t.open) > 0 {
				above := &t.nodes[t.open[len(t.open)-1]]
				above.bad = above.bad || n.bad
				above.height = max(above.height, n.height)
			}
		default:
			s.fail(s.i, "neither a comma nor an end")
			return false
		}
	}
	return false
}

// Root returns the whole text's value; no value after an error.
func (t *Tree) Root() Node {
	if len(t.nodes) == 0 {
		return Node{}
	}
	return Node{tree: t}
}

// Size is how many values and names the tree has room for without growing.
func (t *Tree) Size() int { return cap(t.nodes) }

// Node is a value of a tree, or none: the zero Node. It is good until the tree's next
// Parse.
type Node struct {
	tree *Tree
	at   uint32
}

func (n Node) is() *node { return &n.tree.nodes[n.at] }

// Kind is the kind of the value, Invalid of none.
func (n Node) Kind() Kind {
	if n.tree == nil {
		return Invalid
	}
	return n.is().kind
}

// Value returns the value as it stands in the text, the zero Value of none.
func (n Node) Value() Value {
	if n.tree == nil {
		return Value{}
	}
	v := n.is()
	return Value{Raw: n.tree.text[v.start:v.end:v.end], Kind: v.kind, escaped: v.escaped}
}

// Notes returns what there is to note about the value and all in it, with a bound of
// nesting as in Scanner.Reset.
func (n Node) Notes(maxDepth int) (notes Notes) {
	if n.tree == nil {
		return 0
	}
	v := n.is()
	if v.bad {
		notes |= BadUTF8
	}
	if int(v.height) > maxDepth {
		notes |= TooDeep
	}
	return notes
}

// Elements are those of an array; other kinds have none.
func (n Node) Elements() iter.Seq[Node] {
	return func(yield func(Node) bool) {
		if n.Kind() != Array {
			return
		}
		for at, end := n.at+1, n.is().next; at < end; at = n.tree.nodes[at].next {
			if !yield(Node{n.tree, at}) {
				return
			}
		}
	}
}

// Members are the names of an object, unescaped, and their values, in order; other
// kinds have none. A name aliases the text unless it has escapes.
func (n Node) Members() iter.Seq2[string, Node] {
	return func(yield func(string, Node) bool) {
		if n.Kind() != Object {
			return
		}
		for at, end := n.at+1, n.is().next; at < end; at = n.tree.nodes[at+1].next {
			if !yield(n.tree.nameAt(at), Node{n.tree, at + 1}) {
				return
			}
		}
	}
}

// Get returns the value of the first member of an object that has the name.
func (n Node) Get(name string) Node {
	for key, v := range n.Members() {
		if key == name {
			return v
		}
	}
	return Node{}
}

// nameAt returns the name at a node, unescaped.
func (t *Tree) nameAt(at uint32) string {
	v := &t.nodes[at]
	if v.escaped {
		return string(rawjson.AppendUnquoted(nil, t.text[v.start:v.end]))
	}
	return alias(t.text[v.start+1 : v.end-1])
}
