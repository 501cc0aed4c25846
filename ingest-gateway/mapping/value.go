package mapping

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/ids"
	"github.com/uptakehq/uptake/schemas/instant"
)

// ID returns an id's text: of a string, of a number as ids.Number has it, of a
// boolean its word; of null and no value "". It reports false for objects and
// arrays.
func ID(v scan.Value) (string, bool) {
	switch v.Kind {
	case scan.Invalid, scan.Null:
		return "", true
	case scan.String:
		return v.Text(), true
	case scan.Number:
		return ids.Number(v.Text()), true
	case scan.True:
		return "true", true
	case scan.False:
		return "false", true
	}
	return "", false
}

// Choice takes one of several texts that may be an id: the first that is one. A text
// such as "null" does not hide an id after it. Where none is an id, Text is the first
// text, which the batch drops and notes.
type Choice struct {
	App  *ingest.App
	Text string
}

// Offer takes another text, and reports whether the choice has an id now.
func (c *Choice) Offer(text string) bool {
	is := c.App.IsID(text)
	if is || c.Text == "" {
		c.Text = text
	}
	return is
}

// offerValue offers the id that a value is, or those that an array has: group keys
// come both ways.
func (c *Choice) offerValue(v scan.Value) bool {
	if v.Kind != scan.Array {
		id, _ := ID(v)
		return c.Offer(id)
	}
	var s scan.Scanner
	s.Reset(v.Raw, len(v.Raw))
	s.Array()
	for s.More() {
		if id, _ := ID(s.Value()); c.Offer(id) {
			return true
		}
	}
	return false
}

// FirstOf returns the first of values that is an id, else the first text.
func FirstOf(app *ingest.App, values ...scan.Value) string {
	c := Choice{App: app}
	for _, v := range values {
		if id, _ := ID(v); c.Offer(id) {
			break
		}
	}
	return c.Text
}

// FirstID returns the id that a value is, or the first one of an array.
func FirstID(app *ingest.App, v scan.Value) string {
	c := Choice{App: app}
	c.offerValue(v)
	return c.Text
}

// Fields reads the fields of one event into strings. It keeps the first field
// whose type cannot be used; Reject with it.
type Fields struct {
	Object *Object
	Wrong  string // name of a field of a wrong type
}

// ID takes the id in the first of the fields that is not null.
func (f *Fields) ID(names ...string) string {
	for _, name := range names {
		v := f.Object.Take(name)
		if v.IsNull() {
			continue
		}
		id, ok := ID(v)
		if !ok && f.Wrong == "" {
			f.Wrong = name
		}
		if id != "" || !ok {
			return id
		}
	}
	return ""
}

// Sub reads a field that must be an object or null, and takes it.
func (f *Fields) Sub(name string, o *Object) {
	if !o.Of(f.Object.Take(name)) && f.Wrong == "" {
		f.Wrong = name
	}
}

// RejectWrong rejects the item if a field had a wrong type, and reports whether
// it did.
func (f *Fields) RejectWrong(b *ingest.Batch) bool {
	if f.Wrong == "" {
		return false
	}
	b.Reject(ingest.CodeWrongType, f.Wrong, "not "+f.Object.Get(f.Wrong).Kind.String())
	return true
}

// Instant reads an instant as SDKs write it, text or number: see package instant.
// Null and "" are absent. It reports false for anything else.
func Instant(v scan.Value) (event.Micros, bool) {
	switch {
	case v.IsNull():
		return 0, true
	case v.Kind == scan.Number:
		return instant.Number(v.Text())
	case v.Kind != scan.String:
		return 0, false
	}
	text := v.Text()
	if text == "" {
		return 0, true
	}
	return instant.Parse(text)
}

// Time sets the event's timestamp from a field. One that cannot be read is noted,
// and the event counts when it was received; history is rejected. It reports false
// when it rejected the item.
func Time(b *ingest.Batch, ev *event.RawEvent, field string, v scan.Value) bool {
	var ok bool
	if ev.Timestamp, ok = Instant(v); ok {
		return true
	}
	return b.Unreadable(field, sent(v))
}

// OtherTime notes that a field is no instant, where another one has it: also of
// history.
func OtherTime(b *ingest.Batch, v scan.Value) { b.NoteTime(sent(v)) }

// sent is what was sent as people read it: a string's text, else JSON.
func sent(v scan.Value) string {
	if v.Kind == scan.String {
		return v.Text()
	}
	return string(v.Raw)
}

// Quantity reads how many actions an event stands for: a whole number, written
// as a number or as text, with or without decimals that are zero. Absent is 1.
func Quantity(v scan.Value) (int64, bool) {
	if v.IsNull() {
		return 1, true
	}
	if v.Kind != scan.Number && v.Kind != scan.String {
		return 0, false
	}
	text := v.Text()
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// SetQuantity sets the event's quantity from the property that the app names. It
// reports false when it had to reject the item.
func SetQuantity(b *ingest.Batch, ev *event.RawEvent, properties *Object) bool {
	key := b.App().QuantityKey
	if key == "" {
		return true
	}
	v := properties.Get(key)
	n, ok := Quantity(v)
	if !ok {
		b.Reject(ingest.CodeBadQuantity, key, "must be a whole number, not "+describe(v))
		return false
	}
	ev.Quantity = n
	return true
}

// describe names a value in the detail of a rejection.
func describe(v scan.Value) string {
	if len(v.Raw) > 64 {
		return v.Kind.String()
	}
	return string(v.Raw)
}

// Where an app names no account keys these hold: an object of groups names its
// types on purpose, while a property called "company" may be anything.
var (
	groupTypes        = []string{"account", "company", "organization"}
	accountProperties = []string{"account_id", "company_id", "organization_id"}
)

func accountKeys(app *ingest.App, standard []string) []string {
	if app != nil && len(app.AccountKeys) > 0 {
		return app.AccountKeys
	}
	return standard
}

// AccountOfGroups returns the account that groups by type name: that of the first
// of the app's account keys that has one.
func AccountOfGroups(app *ingest.App, groups *Object) string {
	return account(app, accountKeys(app, groupTypes), groups)
}

// AccountOfProperties returns the account that properties name, those of the
// first object before the others'.
func AccountOfProperties(app *ingest.App, properties ...*Object) string {
	return account(app, accountKeys(app, accountProperties), properties...)
}

// Account returns the account that properties name under the app's account keys,
// or where it has none under the standard ones.
func Account(app *ingest.App, standard []string, properties ...*Object) string {
	return account(app, accountKeys(app, standard), properties...)
}

func account(app *ingest.App, keys []string, objects ...*Object) string {
	c := Choice{App: app}
	for _, key := range keys {
		for _, o := range objects {
			if c.offerValue(o.Get(key)) {
				return c.Text
			}
		}
	}
	return c.Text
}

// IsAccountType reports whether a type of groups stands for the account.
func IsAccountType(app *ingest.App, name string) bool {
	return slices.Contains(accountKeys(app, groupTypes), name)
}

// IsAccountKey reports whether a name stands for the account under the app's
// account keys, or where it has none under the standard ones.
func IsAccountKey(app *ingest.App, standard []string, name string) bool {
	return slices.Contains(accountKeys(app, standard), name)
}

// RejectGroupType rejects a group call about something that is no account.
func RejectGroupType(b *ingest.Batch, field, name string) {
	b.Reject(ingest.CodeUnknownKind, field, "groups of type "+name+" are no accounts: the app's account keys name those that are")
}

// Traits writes traits from the operators that were not taken, and takes them:
// what $set says stands for itself, as in the native API; every other operator
// keeps its name.
func Traits(w *Writer, ops *Object) {
	var values Object
	if v := ops.Get("$set"); v.Kind == scan.Object {
		values.Of(ops.Take("$set"))
		w.Merge(&values)
	}
	for i := range ops.fields {
		f := &ops.fields[i]
		if f.taken || !strings.HasPrefix(f.name, "$") {
			continue
		}
		f.taken = true
		switch {
		case f.name == "$delete": // says it all by being there: mixpanel-java sends {}
			w.Raw(f.name, []byte(`""`))
		case !f.value.IsEmptyObject() && string(f.value.Raw) != "{}":
			w.Raw(f.name, f.value.Raw)
		}
	}
}

// Suffixed returns the item's message id with a suffix, for a further event of
// the same item.
func Suffixed(b *ingest.Batch, id, suffix string) string { return b.Text(id, ":", suffix) }

// Namesake adds, after an identify with the message id, the alias of its two ids, for
// protocols in which events of the anonymous id may have been taken for those of a user
// of that name. It names the previous id as an anonymous id too, by which the enricher
// tells it from an alias that holds even if previous is an identified user. Texts that
// are no ids are nobody's names: nothing is added. The remaining fields of ev are then gone.
func Namesake(b *ingest.Batch, ev *event.RawEvent, id string) {
	if !b.App().IsID(ev.UserID) || !b.App().IsID(ev.AnonymousID) || ev.AnonymousID == ev.UserID {
		return
	}
	ev.Kind, ev.Event, ev.MessageID = event.KindAlias, "$identify", Suffixed(b, id, "alias")
	ev.PreviousID, ev.AccountID = ev.AnonymousID, ""
	ev.Properties, ev.Traits, ev.Context, ev.Quantity = nil, nil, nil, 1
	b.Add()
}

// Library returns name/version, or the name alone.
func Library(b *ingest.Batch, name, version scan.Value) string {
	n, v := name.Text(), version.Text()
	if n == "" || v == "" {
		return Cut(n, maxText)
	}
	return Cut(b.Text(n, "/", v), maxText)
}

// maxText bounds texts that are neither ids nor names, as the request's own user
// agent is.
const maxText = 1024

// UserAgent bounds a user agent that an event carries.
func UserAgent(s string) string { return Cut(s, maxText) }

// Cut returns at most n bytes of s, whole characters only.
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Valid returns s with U+FFFD for what is not UTF-8: for texts that came in
// header fields or paths, which nobody has checked.
func Valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Mask overwrites the text of every string in a JSON value with asterisks, in
// place.
func Mask(raw []byte) {
	inside := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			inside = !inside
		case inside && c == '\\':
			raw[i] = '*'
			if i++; i < len(raw) {
				raw[i] = '*'
			}
		case inside:
			raw[i] = '*'
		}
	}
}

// ClientIP returns the address that an event gives for its client, as the app
// lets one be stored, and overwrites it in place where that is not in full: an
// address never grows by losing bits, and what is left over becomes white space.
func ClientIP(b *ingest.Batch, v scan.Value) ingest.Address {
	if v.Kind != scan.String {
		return ingest.Address{}
	}
	text := v.Text()
	address := b.ClientIP(text)
	if mode := b.App().IPMode; mode != ingest.IPFull && len(v.Raw) >= len("null") {
		short := "null"
		if quoted := `"` + address.IP + `"`; address.Known() && len(quoted) <= len(v.Raw) {
			short = quoted
		}
		n := copy(v.Raw, short)
		for i := n; i < len(v.Raw); i++ {
			v.Raw[i] = ' '
		}
	}
	return address
}
