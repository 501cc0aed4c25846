package metadata

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Entry is a key in the registry.
type Entry struct {
	Type Type
	// Pinned means that a person decided, with a reason.
	Pinned bool
	Author string
	Reason string
	At     time.Time
	Source string // of the event with the first value of the key; empty in older records
}

// Registry holds the types of the keys of all apps. It is a view of the metadata topic:
// only Apply changes it.
type Registry struct {
	now atomic.Pointer[View]

	mu      sync.Mutex // covers what follows
	entries map[Key]Entry
	offsets map[Key]int64          // of the deciding record, also for deleted keys
	times   map[origin][]time.Time // of the keys that a source created in the last sourceWindow, in any order
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	r := &Registry{entries: map[Key]Entry{}, offsets: map[Key]int64{}, times: map[origin][]time.Time{}}
	r.now.Store(&View{apps: map[string]*appTypes{}})
	return r
}

// View returns the present types.
func (r *Registry) View() *View { return r.now.Load() }

// Change is the content of one record of the topic.
type Change struct {
	Key
	Offset int64
	Entry  Entry // of type None: the key has no type any more
}

// Apply applies records in any order and any number of times: for each key the highest
// offset counts.
func (r *Registry) Apply(changes ...Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.now.Load()
	next := &View{apps: maps.Clone(old.apps)}
	fresh := map[*node]bool{} // nodes that no other view has
	changed := false
	for _, c := range changes {
		if last, ok := r.offsets[c.Key]; ok && last >= c.Offset {
			continue
		}
		r.offsets[c.Key] = c.Offset
		if c.Entry.Type == None {
			delete(r.entries, c.Key)
		} else {
			if _, known := r.entries[c.Key]; !known && c.Entry.Source != "" {
				o := origin{c.App, c.Entry.Source}
				r.made(o, c.Entry.At.Add(-sourceWindow))
				r.times[o] = append(r.times[o], c.Entry.At)
			}
			r.entries[c.Key] = c.Entry
		}
		next.set(c.Key, c.Entry.Type, c.Entry.Pinned, fresh)
		changed = true
	}
	if changed {
		r.now.Store(next)
	}
}

// Entry returns the entry of a key.
func (r *Registry) Entry(k Key) (Entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.entries[k]
	return e, ok
}

// Entries returns the entries of an app's keys, by path.
func (r *Registry) Entries(app string) map[string]Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]Entry{}
	for k, e := range r.entries {
		if k.App == app {
			out[k.Path] = e
		}
	}
	return out
}

// View is an immutable snapshot of a registry.
type View struct {
	apps map[string]*appTypes
}

// appTypes are the types of one app's keys.
type appTypes struct {
	root  *node
	count int
}

// node is a key: its type and the keys below it.
type node struct {
	is       Type
	pinned   bool
	children map[string]*node
}

// child returns the key of that name below the node, nil if there is none.
func (t *node) child(name []byte) *node {
	if t == nil {
		return nil
	}
	return t.children[string(name)]
}

func (t *node) typ() Type {
	if t == nil {
		return None
	}
	return t.is
}

// app returns the keys of an app, and their number.
func (v *View) app(app string) (*node, int) {
	if a := v.apps[app]; a != nil {
		return a.root, a.count
	}
	return nil, 0
}

// Count returns the number of keys of an app.
func (v *View) Count(app string) int {
	_, count := v.app(app)
	return count
}

// Type returns the type of a key.
func (v *View) Type(k Key) Type { return v.node(k).typ() }

func (v *View) node(k Key) *node {
	t, _ := v.app(k.App)
	for part := range strings.SplitSeq(k.Path, ".") {
		if t == nil {
			return nil
		}
		t = t.children[part]
	}
	return t
}

// takes reports whether a proposal would change the registry: its key has no type, or
// is to be widened.
func (v *View) takes(p Proposal) bool {
	t := v.node(p.Key)
	return t.typ() == None || (p.Type == Float && t.widens())
}

// widens reports whether the type of a key becomes float with its first value that has
// a fraction: it was seen first as an integer, and is not pinned.
func (t *node) widens() bool { return t.typ() == Integer && !t.pinned }

// set sets the type of a key in a view that is not yet published. Nodes on the path are
// copied, unless fresh contains them, because this view created them.
func (v *View) set(k Key, typ Type, pinned bool, fresh map[*node]bool) {
	a := &appTypes{}
	if old := v.apps[k.App]; old != nil {
		*a = *old
	}
	own := func(t *node) *node {
		if t != nil && fresh[t] {
			return t
		}
		c := &node{}
		if t != nil {
			c.is, c.pinned, c.children = t.is, t.pinned, maps.Clone(t.children)
		}
		if c.children == nil {
			c.children = map[string]*node{}
		}
		fresh[c] = true
		return c
	}
	a.root = own(a.root)
	t := a.root
	for part := range strings.SplitSeq(k.Path, ".") {
		next := own(t.children[part])
		t.children[part] = next
		t = next
	}
	switch {
	case t.is == None && typ != None:
		a.count++
	case t.is != None && typ == None:
		a.count--
	}
	t.is, t.pinned = typ, pinned
	v.apps[k.App] = a
}

// Paths returns the key paths of an app, sorted.
func (v *View) Paths(app string) []string {
	a := v.apps[app]
	if a == nil {
		return nil
	}
	var paths []string
	var walk func(prefix string, t *node)
	walk = func(prefix string, t *node) {
		if t.is != None {
			paths = append(paths, prefix)
		}
		for name, c := range t.children {
			p := name
			if prefix != "" {
				p = prefix + "." + name
			}
			walk(p, c)
		}
	}
	walk("", a.root)
	slices.Sort(paths)
	return paths
}
