package mapping

import (
	"strconv"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
)

// Object is the fields of one JSON object in their order. The zero value has
// none. Names count with their case.
type Object struct {
	Raw       []byte // the object's text, when Parse read it
	fields    []field
	index     map[string]int // of many fields only
	duplicate string         // a name that came twice with different values; the first one's holds
}

type field struct {
	name  string
	value scan.Value
	taken bool
}

// manyFields is from where on an index pays.
const manyFields = 24

// Parse reads an object that a Scanner has validated; of anything else o is
// empty afterwards.
func (o *Object) Parse(raw []byte) {
	o.reset()
	var s scan.Scanner
	s.Reset(raw, len(raw))
	if !s.Object() {
		return
	}
	o.Raw = raw
	for key, ok := s.Key(); ok; key, ok = s.Key() {
		o.add(string(key), s.Value())
	}
}

// Load reads an object of a tree; of anything else o is empty afterwards. Its names
// alias the text: that must stay as it is.
func (o *Object) Load(n scan.Node) {
	o.reset()
	if n.Kind() != scan.Object {
		return
	}
	o.Raw = n.Value().Raw
	for name, v := range n.Members() {
		o.add(name, v.Value())
	}
}

// Written reads the object that a writer holds, until the writer's next call. Names are
// those that were written and not copies of them.
func (o *Object) Written(w *Writer) {
	o.reset()
	o.Raw = w.Object()
	var s scan.Scanner
	s.Reset(o.Raw, len(o.Raw))
	s.Object()
	for _, name := range w.names {
		s.Key()
		o.put(name, s.Value())
	}
}

// Of reads the object that a value is; of another value o is empty afterwards.
// It reports whether the value was an object or stands for an empty one.
func (o *Object) Of(v scan.Value) bool {
	if v.Kind != scan.Object {
		o.reset()
		return v.IsEmptyObject()
	}
	o.Parse(v.Raw)
	return true
}

func (o *Object) reset() {
	clear(o.fields)
	o.Raw, o.fields, o.index, o.duplicate = nil, o.fields[:0], nil, ""
}

func (o *Object) add(name string, v scan.Value) {
	if i := o.find(name); i >= 0 {
		if string(o.fields[i].value.Raw) != string(v.Raw) { // said twice it does no harm
			o.duplicate = name
		}
		return
	}
	o.put(name, v)
}

// put adds a field whose name is not there yet.
func (o *Object) put(name string, v scan.Value) {
	if o.index != nil {
		o.index[name] = len(o.fields)
	}
	o.fields = append(o.fields, field{name: name, value: v})
	if o.index == nil && len(o.fields) == manyFields {
		o.index = make(map[string]int, 4*manyFields)
		for i := range o.fields {
			o.index[o.fields[i].name] = i
		}
	}
}

func (o *Object) find(name string) int {
	if o.index != nil {
		if i, ok := o.index[name]; ok {
			return i
		}
		return -1
	}
	for i := range o.fields {
		if o.fields[i].name == name {
			return i
		}
	}
	return -1
}

// Len is the number of fields.
func (o *Object) Len() int { return len(o.fields) }

// Has reports whether there is such a field, be it null.
func (o *Object) Has(name string) bool { return o.find(name) >= 0 }

// Get returns a field's value, the zero Value when there is none.
func (o *Object) Get(name string) scan.Value {
	if i := o.find(name); i >= 0 {
		return o.fields[i].value
	}
	return scan.Value{}
}

// Take returns a field's value and marks it as used: Rest leaves it out.
func (o *Object) Take(name string) scan.Value {
	if i := o.find(name); i >= 0 {
		o.fields[i].taken = true
		return o.fields[i].value
	}
	return scan.Value{}
}

// First returns the value of the first of the names that the object has and that
// is not null.
func (o *Object) First(names ...string) scan.Value {
	for _, n := range names {
		if v := o.Get(n); !v.IsNull() {
			return v
		}
	}
	return scan.Value{}
}

// Names returns the names in order.
func (o *Object) Names() []string {
	names := make([]string, len(o.fields))
	for i := range o.fields {
		names[i] = o.fields[i].name
	}
	return names
}

// Each calls fn for every field in order.
func (o *Object) Each(fn func(name string, v scan.Value)) {
	for i := range o.fields {
		fn(o.fields[i].name, o.fields[i].value)
	}
}

// Rest writes the fields that were not taken and are not null.
func (o *Object) Rest(w *Writer) {
	for i := range o.fields {
		if f := &o.fields[i]; !f.taken && !f.value.IsNull() {
			w.Raw(f.name, f.value.Raw)
		}
	}
}

// Writer builds one JSON object. Of several fields of one name the first stays.
// The zero value is ready; its bytes are used again after Reset.
type Writer struct {
	buf   []byte
	names []string
	index map[string]struct{} // of many fields only
}

// Reset empties the writer; what Object returned is gone.
func (w *Writer) Reset() {
	clear(w.names)
	w.buf, w.names, w.index = w.buf[:0], w.names[:0], nil
}

// begin writes the name; it reports false when it is there already.
func (w *Writer) begin(name string) bool {
	if w.Has(name) {
		return false
	}
	if w.index != nil {
		w.index[name] = struct{}{}
	}
	w.names = append(w.names, name)
	if w.index == nil && len(w.names) == manyFields {
		w.index = make(map[string]struct{}, 4*manyFields)
		for _, n := range w.names {
			w.index[n] = struct{}{}
		}
	}
	c := byte(',')
	if len(w.buf) == 0 {
		c = '{'
	}
	w.buf = append(w.buf, c)
	w.buf = ingest.AppendQuoted(w.buf, name)
	w.buf = append(w.buf, ':')
	return true
}

// Has reports whether the name was written.
func (w *Writer) Has(name string) bool {
	if w.index != nil {
		_, ok := w.index[name]
		return ok
	}
	for _, n := range w.names {
		if n == name {
			return true
		}
	}
	return false
}

// Raw writes a value as it stands. It reports false when the name was there.
func (w *Writer) Raw(name string, value []byte) bool {
	if !w.begin(name) {
		return false
	}
	w.buf = append(w.buf, value...)
	return true
}

// Text writes a string, unless it is empty.
func (w *Writer) Text(name, s string) {
	if s != "" && w.begin(name) {
		w.buf = ingest.AppendQuoted(w.buf, s)
	}
}

// Sent writes a string that a client sent in a form that is not JSON, see
// ingest.AppendSent.
func (w *Writer) Sent(name, s string) {
	if s != "" && w.begin(name) {
		w.buf = ingest.AppendSent(w.buf, s)
	}
}

// Int writes a number.
func (w *Writer) Int(name string, n int64) {
	if w.begin(name) {
		w.buf = strconv.AppendInt(w.buf, n, 10)
	}
}

// Value writes a value, unless it is null or none.
func (w *Writer) Value(name string, v scan.Value) {
	if !v.IsNull() {
		w.Raw(name, v.Raw)
	}
}

// Merge writes every field of an object. It reports whether one had to be left
// out because its name was there.
func (w *Writer) Merge(o *Object) (left bool) {
	for i := range o.fields {
		if !w.Raw(o.fields[i].name, o.fields[i].value.Raw) {
			left = true
		}
	}
	return left
}

// Object returns the text of the object, nil when nothing was written. It is
// valid until the next call of a method.
func (w *Writer) Object() []byte {
	if len(w.buf) == 0 {
		return nil
	}
	return append(w.buf, '}')
}
