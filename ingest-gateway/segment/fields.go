package segment

import (
	"strings"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
)

// maxWalk bounds the nesting of values that are walked a second time; they were
// held against max-depth before.
const maxWalk = 1 << 20

// lookup finds a field of a JSON object by name. A name with dots is first taken
// as it is and then as a path into nested objects. The value is Invalid where
// there is none.
func (d *decoder) lookup(object []byte, name string) scan.Value {
	if len(object) == 0 {
		return scan.Value{}
	}
	s := &d.inner
	s.Reset(object, maxWalk)
	s.Object()
	var nested []byte
	var rest string
	for {
		key, ok := s.Key()
		if !ok {
			break
		}
		if string(key) == name {
			return s.Value()
		}
		tail, ok := strings.CutPrefix(name, string(key)+".")
		v := s.Value()
		if ok && v.Kind == scan.Object {
			nested, rest = v.Raw, tail
		}
	}
	if nested != nil {
		return d.lookup(nested, rest)
	}
	return scan.Value{}
}

// findAccount finds the account of an event that names none in context.groupId: the
// first of the app's names under which properties, traits or the context's traits, in
// this order, have an id; else the first value that is there.
func (d *decoder) findAccount(app *ingest.App, ev *event.RawEvent, contextTraits []byte) (first scan.Value, field string) {
	for _, name := range app.AccountKeys {
		for _, in := range [...]struct {
			field  string
			object []byte
		}{
			{"properties.", ev.Properties},
			{"traits.", ev.Traits},
			{"context.traits.", contextTraits},
		} {
			v := d.lookup(in.object, name)
			if id, _ := mapping.ID(v); app.IsID(id) {
				return v, in.field + name
			}
			if first.IsNull() {
				first, field = v, in.field+name
			}
		}
	}
	return first, field
}

// merge lays a message's context over the batch's, whose fields hold for every
// message that does not name them itself. The result's text is d.text where both
// have fields.
func (d *decoder) merge(own, batch *contextFields) contextFields {
	c := *own
	if batch.raw == nil {
		return c
	}
	if c.groupID == "" {
		c.groupID = batch.groupID
	}
	if c.userAgent == "" {
		c.userAgent = batch.userAgent
	}
	if c.library == "" {
		c.library, c.version = batch.library, batch.version
	}
	if !c.address.Known() {
		c.address = batch.address
	}
	if c.quantity.IsNull() {
		c.quantity = batch.quantity
	}
	if c.traits == nil {
		c.traits = batch.traits
	}
	c.raw = d.union(own.raw, batch.raw)
	return c
}

// maxShared bounds a batch's context, which becomes part of every message.
const maxShared = 64 << 10

// sharedField is a field of the batch's context.
type sharedField struct {
	name string
	raw  []byte
	own  int // the last message, counted from 1, that has the field itself
}

// share prepares the batch's context for union.
func (d *decoder) share(object []byte) {
	d.index = map[string]int{}
	s := &d.inner
	s.Reset(object, maxWalk)
	s.Object()
	for {
		key, ok := s.Key()
		if !ok {
			return
		}
		f := sharedField{name: string(key)}
		f.raw = s.Value().Raw
		d.index[f.name] = len(d.shared)
		d.shared = append(d.shared, f)
	}
}

// union returns the object of a's fields and those of b, the batch's context,
// that a does not have. It takes time for each field once, whatever the client
// puts into either.
func (d *decoder) union(a, b []byte) []byte {
	if isEmpty(a) {
		return b
	}
	if isEmpty(b) {
		return a
	}
	if d.index == nil {
		d.share(b)
	}
	d.merged++
	s := &d.inner
	s.Reset(a, maxWalk)
	s.Object()
	for {
		key, ok := s.Key()
		if !ok {
			break
		}
		if i, both := d.index[string(key)]; both {
			d.shared[i].own = d.merged
		}
		s.Value()
	}
	start := len(d.text)
	d.text = append(d.text, a[:len(a)-1]...)
	for i := range d.shared {
		f := &d.shared[i]
		if f.own == d.merged {
			continue
		}
		d.text = append(d.text, ',')
		d.text = append(ingest.AppendQuoted(d.text, f.name), ':')
		d.text = append(d.text, f.raw...)
	}
	d.text = append(d.text, '}')
	return d.text[start:len(d.text):len(d.text)]
}

// has reports whether the object has the field, also as null.
func has(s *scan.Scanner, object []byte, name string) bool {
	s.Reset(object, maxWalk)
	s.Object()
	for {
		key, ok := s.Key()
		if !ok {
			return false
		}
		if string(key) == name {
			return true
		}
		s.Value()
	}
}

// withCategory adds a page's category to its properties, where browsers put it
// and servers do not.
func (d *decoder) withCategory(properties []byte, category scan.Value) []byte {
	if category.Kind != scan.String || (properties != nil && has(&d.inner, properties, "category")) {
		return properties
	}
	start := len(d.text)
	d.text = append(d.text, `{"category":`...)
	d.text = append(d.text, category.Raw...)
	if isEmpty(properties) {
		d.text = append(d.text, '}')
	} else {
		d.text = append(d.text, ',')
		d.text = append(d.text, properties[1:]...)
	}
	return d.text[start:len(d.text):len(d.text)]
}

// isEmpty reports whether the object is absent or has no fields.
func isEmpty(object []byte) bool {
	for i := 1; i < len(object); i++ {
		switch object[i] {
		case ' ', '\t', '\r', '\n':
		default:
			return object[i] == '}'
		}
	}
	return true
}
