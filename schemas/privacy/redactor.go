package privacy

import (
	"bytes"
	"encoding/base64"
	"math/bits"
	"slices"
	"strings"

	"github.com/uptakehq/uptake/schemas/rawjson"
)

// Stats count what was done to the values of an event.
type Stats struct {
	Dropped, Masked, Hashed int
}

// Redactor carries out the rules of one app after the other. Its buffers are
// used again; it allocates nothing where no rule fits.
type Redactor struct {
	rules   *Rules
	hashers map[HashKey]*hasher
	stats   Stats

	states []*node // of all open objects, one after the other
	roots  []*node // of AppendOriginal: what any object may be
	opted  bool    // of AppendOriginal: an id of somebody who opted out was seen
	text   []byte  // what a string says
	out    []byte  // what is left of it
	fold   []byte  // a key with its dots as underscores
}

// NewRedactor returns a Redactor without rules.
func NewRedactor() *Redactor { return &Redactor{hashers: map[HashKey]*hasher{}} }

// Begin starts an event of the app that r is of; nil is an app without rules.
func (d *Redactor) Begin(r *Rules) {
	d.rules, d.stats = r, Stats{}
}

// Stats returns what was counted since Begin.
func (d *Redactor) Stats() Stats { return d.stats }

// Append appends an object of the event as it may be kept; object is Properties,
// Traits or Context, doc valid JSON or empty. Where doc turns out to be no JSON,
// nothing of it may be kept, and an empty object is appended.
func (d *Redactor) Append(dst []byte, object string, doc []byte) []byte {
	if d.rules == nil || len(doc) == 0 {
		return append(dst, doc...)
	}
	n := d.rules.root.children[object]
	if n == nil && len(d.rules.named) == 0 {
		return append(dst, doc...)
	}
	if n == nil {
		n = nothing
	}
	d.states, d.roots = append(d.states[:0], n), nil
	start := len(dst)
	dst, end := d.object(dst, doc, rawjson.Space(doc, 0), 0, n.deep, 1)
	if end == rawjson.Bad || rawjson.Space(doc, end) != len(doc) {
		return append(dst[:start], '{', '}')
	}
	return dst
}

// object appends the object at i. The nodes that it may be at are d.states[first:],
// the rules that hold for all within are deep.
func (d *Redactor) object(dst, doc []byte, i, first int, deep uint64, depth int) ([]byte, int) {
	at := len(d.states)
	d.states = append(d.states, d.roots...)
	dst, end := d.objectAt(dst, doc, i, first, deep, depth, false)
	d.states = d.states[:at]
	return dst, end
}

// objectAt appends the object at i. With typed its keys are types of one value, which is
// at the nodes of the object itself: {"stringValue":"x"}.
func (d *Redactor) objectAt(dst, doc []byte, i, first int, deep uint64, depth int, typed bool) ([]byte, int) {
	if i >= len(doc) || doc[i] != '{' {
		return dst, rawjson.Bad
	}
	var name []byte
	if d.roots != nil && !typed {
		name = pairName(doc, i)
	}
	dst = append(dst, '{')
	open := len(dst)
	last := len(d.states)
	i, more := rawjson.First(doc, i, '}')
	for more {
		// Member is written out here, on the way of every key of every event.
		keyEnd, escaped := rawjson.EndString(doc, i)
		if keyEnd == rawjson.Bad {
			return dst, rawjson.Bad
		}
		v := rawjson.Colon(doc, keyEnd)
		if v == rawjson.Bad {
			return dst, rawjson.Bad
		}
		within, inPair := deep, false
		if typed {
			d.states = append(d.states, d.states[first:last]...)
		} else {
			key := d.key(doc[i:keyEnd], escaped)
			inPair = name != nil && string(key) == "value"
			if within = d.enter(first, last, key, deep); inPair {
				within = d.enter(first, last, name, within)
			}
		}
		start := len(dst)
		if start > open {
			dst = append(dst, ',')
		}
		dst = append(dst, doc[i:keyEnd]...)
		dst = append(dst, ':')
		var end int
		var keep bool
		if (inPair || typed) && depth < maxDepth && rawjson.KindAt(doc, v) == rawjson.Object {
			dst, end = d.objectAt(dst, doc, v, last, within, depth+1, true)
			keep = true
		} else {
			dst, end, keep = d.value(dst, doc, v, last, within, depth)
		}
		d.states = d.states[:last]
		if end == rawjson.Bad {
			return dst, end
		}
		if !keep {
			d.stats.Dropped++
			dst = dst[:start]
		}
		i, more = rawjson.Next(doc, end, '}')
	}
	return append(dst, '}'), i
}

// pairName returns what the key is called in paths whose value stands beside its name:
// {"key":"pin","value":{"stringValue":"1234"}} in OTLP, {"name":"Cookie","value":"..."} in
// lists of headers. It is nil for other objects.
func pairName(doc []byte, i int) (name []byte) {
	value := false
	i, more := rawjson.First(doc, i, '}')
	for more {
		keyEnd, v, _ := rawjson.Member(doc, i)
		if v == rawjson.Bad {
			return nil
		}
		end := rawjson.EndValue(doc, v, maxNesting)
		if end == rawjson.Bad {
			return nil
		}
		switch string(doc[i:keyEnd]) {
		case `"key"`, `"name"`:
			if rawjson.KindAt(doc, v) == rawjson.String {
				name = bytes.ReplaceAll(rawjson.AppendUnquoted(nil, doc[v:end]), []byte("."), []byte("_"))
			}
		case `"value"`:
			value = true
		}
		i, more = rawjson.Next(doc, end, '}')
	}
	if !value {
		return nil
	}
	return name
}

// key returns what a key is called in paths.
func (d *Redactor) key(quoted []byte, escaped bool) []byte {
	if !escaped {
		quoted = quoted[1 : len(quoted)-1]
		if bytes.IndexByte(quoted, '.') < 0 {
			return quoted
		}
		d.fold = append(d.fold[:0], quoted...)
	} else {
		d.fold = rawjson.AppendUnquoted(d.fold[:0], quoted)
	}
	for i, c := range d.fold {
		if c == '.' {
			d.fold[i] = '_'
		}
	}
	return d.fold
}

// enter adds the nodes that a key leads to from states[first:last], and returns
// the rules that hold for all within. Those that end at the key are found by
// ends.
func (d *Redactor) enter(first, last int, key []byte, deep uint64) uint64 {
	deep |= d.rules.namedBits(key)
	for _, n := range d.states[first:last] {
		if next := n.children[string(key)]; next != nil {
			d.states = append(d.states, next)
			deep |= next.deep
		}
		if n.any != nil {
			d.states = append(d.states, n.any)
			deep |= n.any.deep
		}
	}
	return deep
}

// value appends the value at i, which is at the nodes states[first:]. keep is
// false when its key goes.
func (d *Redactor) value(dst, doc []byte, i, first int, deep uint64, depth int) (out []byte, end int, keep bool) {
	mask := deep | ends(d.states[first:])
	kind := rawjson.KindAt(doc, i)
	end = rawjson.EndValue(doc, i, maxNesting)
	if end == rawjson.Bad || kind == rawjson.Null {
		if end != rawjson.Bad {
			dst = append(dst, "null"...)
		}
		return dst, end, true
	}
	if kind == rawjson.String && d.roots != nil {
		d.opted = d.opted || d.rules.names(string(d.said(doc[i:end])))
	}
	if act := d.rules.first(mask); act != actNone {
		dst, keep = d.whole(dst, doc[i:end], kind, act)
		return dst, end, keep
	}
	within := deep != 0 || len(d.states) > first || d.roots != nil || len(d.rules.named) > 0
	switch {
	case (kind == rawjson.Object || kind == rawjson.Array) && !within:
		// No rule is about anything in here.
		return append(dst, doc[i:end]...), end, true
	case (kind == rawjson.Object || kind == rawjson.Array) && depth >= maxDepth:
		d.stats.Masked++
		return append(dst, "null"...), end, true
	case kind == rawjson.Object:
		dst, end = d.object(dst, doc, i, first, deep, depth+1)
		return dst, end, true
	case kind == rawjson.Array:
		dst, end = d.array(dst, doc, i, first, deep, depth+1)
		return dst, end, true
	}
	dst, keep = d.scalar(dst, doc[i:end], kind, mask)
	return dst, end, keep
}

// array appends the array at i. An element whose key would go becomes null, so
// that the others keep their places.
func (d *Redactor) array(dst, doc []byte, i, first int, deep uint64, depth int) ([]byte, int) {
	dst = append(dst, '[')
	i, more := rawjson.First(doc, i, ']')
	for n := 0; more; n++ {
		if n > 0 {
			dst = append(dst, ',')
		}
		start := len(dst)
		var end int
		var keep bool
		dst, end, keep = d.value(dst, doc, i, first, deep, depth)
		if end == rawjson.Bad {
			return dst, end
		}
		if !keep {
			d.stats.Dropped++
			dst = append(dst[:start], "null"...)
		}
		i, more = rawjson.Next(doc, end, ']')
	}
	return append(dst, ']'), i
}

// whole does to a value what a rule without detect says.
func (d *Redactor) whole(dst, value []byte, kind rawjson.Kind, act action) ([]byte, bool) {
	switch act {
	case actDrop:
		return dst, false
	case actHash:
		text := value
		if kind == rawjson.String {
			if text = d.said(value); d.rules.hashed(text) {
				return append(dst, value...), true // by the gateway, before the log
			}
		}
		d.stats.Hashed++
		dst = append(dst, '"')
		dst = d.hash(dst, text)
		return append(dst, '"'), true
	case actTruncateIP:
		if kind == rawjson.String {
			if ip := truncate(string(d.said(value))); ip != "" {
				d.stats.Masked++
				return rawjson.AppendQuoted(dst, ip), true
			}
		}
		return dst, false
	}
	d.stats.Masked++
	if kind == rawjson.String {
		return append(dst, `"[masked]"`...), true
	}
	return append(dst, "null"...), true // any text would be of another type
}

// said returns what a string says. It is valid until the next call.
func (d *Redactor) said(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	d.text = rawjson.AppendUnquoted(d.text[:0], quoted)
	return d.text
}

func (d *Redactor) hash(dst, text []byte) []byte {
	key := d.rules.keys[0]
	h := d.hashers[key]
	if h == nil {
		h = newHasher(key)
		d.hashers[key] = h
	}
	return h.append(dst, d.rules.app, text)
}

// scalar looks for what the detectors among the rules of mask find in a value.
func (d *Redactor) scalar(dst, value []byte, kind rawjson.Kind, mask uint64) ([]byte, bool) {
	if mask == 0 || kind == rawjson.Bool {
		return append(dst, value...), true
	}
	var by [numDetectors]action
	for m := mask; m != 0; m &= m - 1 {
		r := &d.rules.rules[bits.TrailingZeros64(m)]
		for det := range numDetectors {
			if r.detect&(1<<det) != 0 && by[det] == actNone {
				by[det] = r.act
			}
		}
	}
	if kind == rawjson.Number {
		for det, act := range by {
			if act != actNone {
				if start, end, ok := detector(det).find(value, 0); ok && start == 0 && end == len(value) {
					return d.whole(dst, value, kind, act)
				}
			}
		}
		return append(dst, value...), true
	}
	text := d.said(value)
	left, found, keep := d.strip(text, &by)
	if !keep {
		return dst, false
	}
	if !found {
		return append(dst, value...), true
	}
	return rawjson.AppendQuoted(dst, left), true
}

// strip takes out of text what detectors find. It is valid until the next call.
func (d *Redactor) strip(text []byte, by *[numDetectors]action) (left []byte, found, keep bool) {
	can := possible(text)
	for det, act := range by {
		if act == actNone || can&(1<<det) == 0 {
			continue
		}
		at := 0
		var out []byte
		for {
			start, end, ok := detector(det).find(text, at)
			if !ok {
				break
			}
			if act == actDrop {
				return nil, true, false
			}
			if out == nil {
				out = d.out[:0]
			}
			out = append(out, text[at:start]...)
			if act == actHash && d.rules.hashed(text[start:end]) {
				out = append(out, text[start:end]...)
			} else if act == actHash {
				d.stats.Hashed++
				out = d.hash(out, text[start:end])
			} else {
				d.stats.Masked++
				out = append(out, '[')
				out = append(out, detectorNames[det]...)
				out = append(out, ']')
			}
			at = end
		}
		if out != nil {
			found = true
			out = append(out, text[at:]...)
			// The next detector reads what this one left.
			d.text, d.out = out, d.text
			text = out
		}
	}
	return text, found, true
}

// AppendOriginal appends what may be kept of an event as its producer sent it, in
// the words of any protocol: which object is which is not known, so every one is
// held for properties, traits and context at once, and rather too much is taken
// out than too little. ok is false when nothing may be kept: it is no JSON object
// and cannot be searched. optedOut says that an id in it is of somebody who opted
// out.
func (d *Redactor) AppendOriginal(dst, doc []byte) (out []byte, ok, optedOut bool) {
	if d.rules == nil {
		return append(dst, doc...), true, false
	}
	d.states, d.roots, d.opted = d.states[:0], append([]*node{}, nothing), false
	var deep uint64
	for _, name := range []string{Properties, Traits, Context} {
		if n := d.rules.root.children[name]; n != nil {
			d.roots = append(d.roots, n)
			deep |= n.deep
		}
	}
	defer func() { d.roots = nil }()
	start := len(dst)
	dst, end := d.object(dst, doc, rawjson.Space(doc, 0), 0, deep, 1)
	if end == rawjson.Bad || rawjson.Space(doc, end) != len(doc) {
		return dst[:start], false, d.opted
	}
	return dst, true, d.opted
}

// nothing is a node that no rule is about.
var nothing = &node{}

// AppendText appends a text for people that may quote an event, with everything
// masked that a detector of the app's rules finds.
func (d *Redactor) AppendText(dst, text []byte) []byte {
	if d.rules == nil {
		return append(dst, text...)
	}
	var by [numDetectors]action
	for _, r := range d.rules.rules {
		for det := range numDetectors {
			if r.detect&(1<<det) != 0 {
				by[det] = actMask
			}
		}
	}
	left, _, _ := d.strip(text, &by)
	return append(dst, left...)
}

// AppendConflicts appends what is kept beside the columns of the event, an object
// of paths and original values as package metadata of the enricher makes it.
func (d *Redactor) AppendConflicts(dst, doc []byte) []byte {
	if d.rules == nil || len(doc) == 0 {
		return append(dst, doc...)
	}
	d.roots = nil
	start := len(dst)
	i := rawjson.Space(doc, 0)
	if i >= len(doc) || doc[i] != '{' {
		return dst
	}
	dst = append(dst, '{')
	i, more := rawjson.First(doc, i, '}')
	for more {
		keyEnd, v, _ := rawjson.Member(doc, i)
		if v == rawjson.Bad {
			return dst[:start]
		}
		d.states = append(d.states[:0], d.rules.root)
		path := string(rawjson.AppendUnquoted(nil, doc[i:keyEnd]))
		deep := d.walk(path)
		at := len(dst)
		if at > start+1 {
			dst = append(dst, ',')
		}
		dst = append(dst, doc[i:keyEnd]...)
		dst = append(dst, ':')
		var end int
		var keep bool
		if strings.HasSuffix(path, ".*") && rawjson.KindAt(doc, v) == rawjson.Object {
			// Members that an object had too many.
			dst, end = d.object(dst, doc, v, 0, deep, 1)
			keep = true
		} else {
			dst, end, keep = d.original(dst, doc, v, deep)
		}
		if end == rawjson.Bad {
			return dst[:start]
		}
		if !keep {
			d.stats.Dropped++
			dst = dst[:at]
		}
		i, more = rawjson.Next(doc, end, '}')
	}
	if len(dst) == start+1 {
		return dst[:start] // nothing is left
	}
	return append(dst, '}')
}

// walk sets states to the nodes that a path of conflicts may lead to and returns
// the rules that hold for all within. A dot in it may be one of a key, so every
// reading counts: rather too much is taken out than too little.
func (d *Redactor) walk(path string) uint64 {
	if i := strings.LastIndexByte(path, '#'); i >= 0 && strings.Trim(path[i+1:], "0123456789") == "" {
		path = path[:i] // the number of a path that is there several times
	}
	path = strings.TrimSuffix(path, ".*")
	parts := strings.Split(path, ".")
	for i, p := range parts {
		// Elements have the path of their array.
		for strings.HasSuffix(p, "]") {
			j := strings.LastIndexByte(p, '[')
			if j < 0 || strings.Trim(p[j+1:len(p)-1], "0123456789") != "" {
				break
			}
			p = p[:j]
		}
		parts[i] = p
	}
	const most = 10 // parts of a path; more would take too many readings
	if len(parts) > most {
		parts = append(parts[:most-1:most-1], strings.Join(parts[most-1:], "_"))
	}
	var deep uint64
	var ends []*node
	var read func(n *node, i int, within uint64)
	read = func(n *node, i int, within uint64) {
		within |= n.deep
		if i == len(parts) {
			if !slices.Contains(ends, n) {
				ends = append(ends, n)
			}
			deep |= within
			return
		}
		reached := false
		for j := i + 1; j <= len(parts); j++ {
			key := strings.Join(parts[i:j], "_")
			if next := n.children[key]; next != nil {
				reached = true
				read(next, j, within)
			}
			if n.any != nil {
				reached = true
				read(n.any, j, within)
			}
		}
		if !reached {
			deep |= within
		}
	}
	read(d.rules.root, 0, 0)
	if len(d.rules.named) > 0 {
		for i := range parts {
			for j := i + 1; j <= len(parts); j++ {
				deep |= d.rules.namedBits([]byte(strings.Join(parts[i:j], "_")))
			}
		}
	}
	d.states = append(d.states[:0], ends...)
	return deep
}

// original appends a value of conflicts. One that stands as $raw or $base64 is
// text that cannot be looked into: it goes when a rule may be about anything in
// it, or a detector finds something.
func (d *Redactor) original(dst, doc []byte, i int, deep uint64) ([]byte, int, bool) {
	end := rawjson.EndValue(doc, i, maxNesting)
	if end == rawjson.Bad {
		return dst, end, false
	}
	text, ok := wrapped(doc[i:end])
	if !ok {
		return d.value(dst, doc, i, 0, deep, 1)
	}
	mask := deep | ends(d.states)
	hit := mask&d.rules.whole != 0 || (len(d.rules.named) > 0 && bytes.IndexByte(text, '{') >= 0)
	for _, n := range d.states {
		hit = hit || len(n.children) > 0 || n.any != nil
	}
	for m := mask; m != 0 && !hit; m &= m - 1 {
		r := &d.rules.rules[bits.TrailingZeros64(m)]
		for det := range numDetectors {
			if r.detect&(1<<det) != 0 {
				_, _, found := det.find(text, 0)
				hit = hit || found
			}
		}
	}
	if hit {
		return dst, end, false
	}
	return append(dst, doc[i:end]...), end, true
}

// wrapped returns the text of {"$raw": text} or {"$base64": text}.
func wrapped(value []byte) ([]byte, bool) {
	for _, key := range []string{`{"$raw":`, `{"$base64":`} {
		rest, ok := bytes.CutPrefix(value, []byte(key))
		if !ok {
			continue
		}
		end, _ := rawjson.EndString(rest, 0)
		if end == rawjson.Bad || string(rest[end:]) != "}" {
			return nil, false
		}
		text := rawjson.AppendUnquoted(nil, rest[:end])
		if key == `{"$raw":` {
			return text, true
		}
		b, err := base64.StdEncoding.DecodeString(string(text))
		return b, err == nil
	}
	return nil, false
}
