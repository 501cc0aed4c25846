// Package mapping holds what the wire protocols beside the native one share when
// they map their events onto event.RawEvent: reading a request's envelope and the
// fields of its events, the account that an event names, traits with operators,
// instants and quantities in the forms in which SDKs write them, API calls, and
// the objects that are put together from what has no field of its own.
//
// It owns no protocol and no reply. What is a fault of one event is rejected here
// in the same words for every protocol; what is a fault of the request is
// returned as one of package ingest's. Text read with it is validated by package
// scan; strings alias the request's body and live as long as it does.
package mapping

import (
	"fmt"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
)

// Item is one event of an envelope as it stands in the text.
type Item struct {
	Raw   []byte
	kind  scan.Kind
	notes scan.Notes
	node  scan.Node // of an item of a tree
}

// Node returns where in its tree the item stands, no value for an item of none.
func (it Item) Node() scan.Node { return it.node }

// Elements returns the items that are the elements of an array of a tree. The error is
// a fault.
func Elements(array scan.Node, limits ingest.Limits) ([]Item, error) {
	var e Envelope
	for n := range array.Elements() {
		if err := e.add(limits, Item{Raw: n.Value().Raw, kind: n.Kind(), notes: n.Notes(limits.MaxDepth), node: n}); err != nil {
			return nil, err
		}
	}
	return e.Items, nil
}

// Envelope is what a request's JSON text holds.
type Envelope struct {
	// Fields are those of the outermost object besides the list of events; of a
	// single event, its own.
	Fields Object
	Items  []Item

	// Listed says that an object had the list of events.
	Listed bool
}

// Read reads an envelope: an object that has its events in an array under the
// name list, an object that is an event itself, an array of events, or several
// of these one after the other (JSON lines). Without a list name an object is
// always an event. The error is a fault.
func Read(text []byte, limits ingest.Limits, list string) (*Envelope, error) {
	var s scan.Scanner
	s.Reset(text, limits.MaxDepth)
	e := &Envelope{}
	for more := true; more; more = s.Err() == nil && s.Peek() != scan.Invalid {
		var err error
		switch s.Peek() {
		case scan.Object:
			err = e.readObject(&s, limits, list)
		case scan.Array:
			err = e.readArray(&s, limits)
		default:
			err = ingest.Unreadable("the body must be a JSON object or array")
		}
		if s.Err() == nil && err != nil {
			return nil, err
		}
	}
	if !s.End() {
		return nil, ingest.Unreadable("%v", s.Err())
	}
	return e, nil
}

func (e *Envelope) readObject(s *scan.Scanner, limits ingest.Limits, list string) error {
	s.Peek() // moves over white space
	start := s.Offset()
	s.Mark()
	s.Object()
	var fields Object
	listed := false
	for key, ok := s.Key(); ok; key, ok = s.Key() {
		if list == "" || string(key) != list || s.Peek() != scan.Array {
			fields.add(string(key), s.Value())
			continue
		}
		if listed {
			return ingest.Unreadable("the body has %q twice", list)
		}
		listed, e.Listed = true, true
		if err := e.readArray(s, limits); err != nil {
			return err
		}
	}
	if !listed {
		if err := e.add(limits, Item{Raw: s.Since(start), kind: scan.Object, notes: s.Noted()}); err != nil {
			return err
		}
	} else if fields.duplicate != "" {
		return ingest.Unreadable("the body has %q twice", fields.duplicate)
	}
	e.Fields = fields
	return nil
}

func (e *Envelope) readArray(s *scan.Scanner, limits ingest.Limits) error {
	s.Array()
	for s.More() {
		s.Mark()
		v := s.Value()
		if err := e.add(limits, Item{Raw: v.Raw, kind: v.Kind, notes: s.Noted()}); err != nil {
			return err
		}
	}
	return nil
}

func (e *Envelope) add(limits ingest.Limits, it Item) error {
	if len(e.Items) >= limits.MaxBatchEvents {
		return ingest.Exceeds(ingest.SettingMaxBatchEvents, "too many events in one request", limits.MaxBatchEvents)
	}
	e.Items = append(e.Items, it)
	return nil
}

// Begin starts an item of the batch and reads its fields into o. It reports
// false when the item is nothing that any protocol could use, and has then
// rejected it.
func Begin(b *ingest.Batch, it Item, o *Object) (*event.RawEvent, bool) {
	ev := b.Item(it.Raw)
	switch {
	case it.kind != scan.Object:
		b.Reject(ingest.CodeWrongType, "", "an event must be an object, not "+it.kind.String())
	case it.notes&scan.BadUTF8 != 0:
		b.Reject(ingest.CodeBadEncoding, "", "not UTF-8")
	case it.notes&scan.TooDeep != 0:
		b.Reject(ingest.CodeTooDeep, "", fmt.Sprintf("nested deeper than %d (%s)", b.Limits().MaxDepth, ingest.SettingMaxDepth))
	default:
		if it.node.Kind() == scan.Object {
			o.Load(it.node)
		} else {
			o.Parse(it.Raw)
		}
		if o.duplicate != "" {
			b.Reject(ingest.CodeDuplicateField, o.duplicate, "the event has the field twice")
			return ev, false
		}
		if b.IsHistory() && o.Take(ingest.AmbiguousField).Kind == scan.True {
			b.Ambiguous()
		}
		return ev, true
	}
	return ev, false
}

// FirstKey authenticates with the first of the keys that is known. Where none is,
// the error is about the first that is not empty.
func FirstKey(b *ingest.Batch, keys ...string) error {
	var first error
	for _, k := range keys {
		if k == "" {
			continue
		}
		err := b.Authenticate(k)
		if err == nil {
			return nil
		}
		if first == nil || ingest.AsFault(err).Kind != ingest.BadKey {
			first = err
		}
	}
	if first == nil {
		return b.Authenticate("")
	}
	return first
}

// HeaderKey returns the write key of protocols that have no place of their own
// for one: a bearer token, the user of Authorization: Basic, the field X-Api-Key
// or the query parameter writeKey.
func HeaderKey(r *ingest.Request) string {
	for _, key := range []string{r.Bearer(), r.BasicUser(), r.Header("X-Api-Key"), r.QueryValue("writeKey")} {
		if key != "" {
			return key
		}
	}
	return ""
}

// TopKey returns which of the names the outermost object has first, "" for none
// and for anything that is no object: it tells envelopes apart.
func TopKey(text []byte, names ...string) string {
	var s scan.Scanner
	s.Reset(text, len(text))
	if !s.Object() {
		return ""
	}
	for key, ok := s.Key(); ok; key, ok = s.Key() {
		for _, n := range names {
			if string(key) == n {
				return n
			}
		}
		s.Value()
	}
	return ""
}

// FirstObject returns the first event of a text, as far as it can be read: the
// outermost object or the first element of the outermost array.
func FirstObject(text []byte) *Object {
	var s scan.Scanner
	s.Reset(text, len(text))
	if s.Array() && !s.More() {
		return &Object{}
	}
	o := &Object{}
	if s.Object() {
		for key, ok := s.Key(); ok; key, ok = s.Key() {
			o.add(string(key), s.Value())
		}
	}
	return o
}

// Erase overwrites a field of an object with white space, in place: write keys
// are stored nowhere as they are. What was read of the object before keeps its
// place, the field's own value excepted.
func Erase(object []byte, name string) {
	var s scan.Scanner
	s.Reset(object, len(object))
	if !s.Object() {
		return
	}
	first, start := true, s.Offset()
	for {
		key, ok := s.Key()
		if !ok {
			return
		}
		found := string(key) == name
		s.Value()
		end := s.Offset()
		if found {
			// The comma before goes too; of the first field the comma after.
			for i := end; first && i < len(object); i++ {
				if c := object[i]; c == ',' {
					end = i + 1
					break
				} else if c > ' ' {
					break
				}
			}
			for i := start; i < end; i++ {
				object[i] = ' '
			}
			return
		}
		first, start = false, end
	}
}

// IsJSON reports whether a text is one JSON value.
func IsJSON(text []byte) bool {
	var s scan.Scanner
	s.Reset(text, len(text))
	s.Value()
	return s.End()
}
