package ingest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/ids"
	"github.com/uptakehq/uptake/schemas/privacy"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Codes of rejections: what is wrong with one item. The set is bounded, since it is a
// label of a metric.
const (
	CodeMissingField   = "missing_field"   // a field that the kind needs is absent
	CodeWrongType      = "wrong_type"      // a field's JSON type cannot be used
	CodeUnknownKind    = "unknown_kind"    // the kind of call does not exist
	CodeBadTimestamp   = "bad_timestamp"   // the instant cannot be parsed
	CodeBadQuantity    = "bad_quantity"    // not a whole number from 1 to max-quantity
	CodeTooLong        = "too_long"        // id or name above its bound
	CodeTooLarge       = "too_large"       // item above max-event-bytes
	CodeTooDeep        = "too_deep"        // JSON nested deeper than max-depth
	CodeDuplicateField = "duplicate_field" // the envelope names a field twice
	CodeBadEncoding    = "bad_encoding"    // not UTF-8
	CodeBadEvent       = "bad_event"       // any other fault
)

// Codes lists every code.
var Codes = []string{
	CodeMissingField, CodeWrongType, CodeUnknownKind, CodeBadTimestamp, CodeBadQuantity, CodeTooLong,
	CodeTooLarge, CodeTooDeep, CodeDuplicateField, CodeBadEncoding, CodeBadEvent,
}

// State is the outcome of an item.
type State uint8

// States of an item, as Answer sees them.
const (
	Accepted State = iota // stored: every record of it is acked by the brokers
	Rejected              // quarantined: the reason and its bytes are stored and acked
	Ignored               // understood, and intentionally not stored
	Unstored              // not known to be stored: the client must send it again
)

// Verdict is the outcome of one item and its reason.
type Verdict struct {
	State     State
	MessageID string // as stored; of a rejected item, if it was read before the rejection
	Code      string // of a rejected item
	Field     string
	Detail    string
}

// Batch collects the events of one request. It belongs to the gateway, which reuses it
// for another request once Answer has returned.
type Batch struct {
	codec    *event.Codec
	limits   Limits
	auth     Authenticator
	request  *Request
	protocol string
	route    string        // of the request, for rejected records
	around   func() []byte // envelope of the items that follow, for rejected records; may be nil
	fields   Fields

	app      *App
	address  Address // of the client
	country  func(netip.Addr) string
	ev       event.RawEvent
	noIDs    *ids.List
	history  bool
	imported bool // by deploy/import
	anyAge   bool
	unread   []byte // RawEvent.Unread of the item, without ids
	dropped  []byte // the same, with the ids of the current event
	original []byte
	spare    event.RawEvent // returned by Item when there is no item to fill

	items    []item
	rejects  []reject
	records  []record
	slab     []byte // keys and values of records
	arena    []byte // strings that Batch makes; only grows
	made     uint64 // ids that NewID has made for the request
	counts   [Unstored + 1]int
	privacy  func() *privacy.Policy
	rules    *privacy.Rules // of the app; nil keeps everything
	kept     *kept
	optedOut int
	reserve  func(bytes int) error
	reserved int   // bytes of slab that reserve granted
	fault    error // ends the batch: later items are not taken
}

type item struct {
	messageID string
	record    int32 // first of its records
	slab      int32 // where they start
	reject    int32 // index in rejects, or -1
	state     State
	touched   bool // Add, Reject or Ignore was called
}

type reject struct{ code, field, detail string }

type record struct {
	item       int32
	rejected   bool
	start, key int32 // slab[start:key] is the key
	end        int32 // slab[key:end] is the value
}

// NewBatch returns a batch for Begin. Only the gateway calls it.
func NewBatch(codec *event.Codec, auth Authenticator, limits Limits) *Batch {
	return &Batch{codec: codec, auth: auth, limits: limits, kept: new(kept)}
}

// Reserve sets the function that is called from time to time for the bytes that records
// take as they are added; its error ends the batch. Only the gateway calls it.
func (b *Batch) Reserve(fn func(bytes int) error) { b.reserve = fn }

// Privacy sets the source of the privacy rules that are applied to events before they
// are stored. Only the gateway calls it.
func (b *Batch) Privacy(policy func() *privacy.Policy) { b.privacy = policy }

// Countries sets the function that knows the country of an address. Only the gateway
// calls it.
func (b *Batch) Countries(of func(netip.Addr) string) { b.country = of }

// Begin prepares the batch for a request that goes to bound. Its previous content is
// discarded.
func (b *Batch) Begin(r *Request, bound *Bound) {
	clear(b.items)
	clear(b.rejects)
	header := r.Header(HistoryHeader)
	*b = Batch{
		history: strings.HasSuffix(r.Path, "/import") || header != "", imported: header != "", anyAge: header == HistoryAnyAge,
		codec: b.codec, auth: b.auth, limits: b.limits, reserve: b.reserve, privacy: b.privacy, country: b.country, kept: b.kept, request: r, protocol: bound.Protocol, route: bound.name, fields: bound.Fields,
		unread: b.unread[:0], dropped: b.dropped[:0], items: b.items[:0], rejects: b.rejects[:0], records: b.records[:0], slab: b.slab[:0], arena: b.arena[:0],
	}
}

// Limits are the bounds in force.
func (b *Batch) Limits() Limits { return b.limits }

// App is the app that Authenticate found, nil before.
func (b *Batch) App() *App { return b.app }

// Authenticate finds the app that the write key belongs to. Return its error
// from Decode as it is.
func (b *Batch) Authenticate(key string) error {
	if key == "" {
		return &Fault{Kind: BadKey, Detail: "no write key"}
	}
	app := b.auth.App(key)
	if app == nil {
		return &Fault{Kind: BadKey, Detail: "unknown write key"}
	}
	if app.Key.Expired(b.request.ReceivedAt) {
		return &Fault{Kind: BadKey, Detail: "write key " + app.Key.ID + " has expired"}
	}
	if allowed := app.Key.Protocols; len(allowed) > 0 && !slices.Contains(allowed, b.protocol) {
		return &Fault{Kind: BadScope, Detail: "write key " + app.Key.ID + " may not be used with " + b.protocol}
	}
	if b.anyAge && !app.Key.History {
		return &Fault{Kind: BadScope, Detail: "this write key may not send history of any age; one with `history: true` in the key file may"}
	}
	if origin := b.request.Header("Origin"); origin != "" && !app.AllowsOrigin(origin) {
		return &Fault{Kind: BadOrigin, Detail: "origin " + Shorten(origin, 128) + " is not allowed for this write key"}
	}
	b.app, b.noIDs = app, app.NoIDs
	if b.noIDs == nil {
		b.noIDs = ids.Default
	}
	if b.privacy != nil {
		b.rules = b.privacy().App(app.ID)
	}
	b.address = b.stored(b.request.RemoteIP)
	return nil
}

// Around sets a function that returns the JSON envelope of the items that follow: what
// is needed, beside an item's own bytes, to send a rejected item again. Its result is
// not kept.
func (b *Batch) Around(envelope func() []byte) { b.around = envelope }

// Item starts the next item of the request. original is its bytes, which go into the
// rejected record if the item is rejected. The returned event is valid until the next
// call of Item. Its app, protocol, time of receipt, address, user agent and quantity 1
// are set; Add stores it.
func (b *Batch) Item(original []byte) *event.RawEvent {
	b.spare = event.RawEvent{}
	switch {
	case b.fault != nil:
	case b.app == nil:
		b.fault = &Fault{Kind: BadKey, Detail: "no write key"}
	case len(b.items) >= b.limits.MaxBatchEvents:
		b.fault = Exceeds(SettingMaxBatchEvents, "too many events in one request", b.limits.MaxBatchEvents)
	}
	if b.fault != nil {
		return &b.spare
	}
	b.items = append(b.items, item{record: int32(len(b.records)), slab: int32(len(b.slab)), reject: -1, state: Ignored})
	b.counts[Ignored]++
	b.original = original
	b.ev = event.RawEvent{
		AppID:      b.app.ID,
		Protocol:   b.protocol,
		ReceivedAt: b.request.ReceivedAt,
		Quantity:   1,
		IP:         b.address.IP,
		Country:    b.address.Country,
		UserAgent:  b.request.UserAgent(),
		IDRules:    ids.Rules,
	}
	if b.history {
		b.ev.IP, b.ev.Country = "", "" // it is the address of the importing machine
	}
	if b.imported {
		b.ev.UserAgent = ""
	}
	if b.anyAge {
		b.ev.TimeNotes = event.TimeAnyAge
	}
	b.unread = b.unread[:0]
	return &b.ev
}

// usable reports whether Add, Reject and Ignore have a current item.
func (b *Batch) usable() bool { return len(b.items) > 0 && b.fault == nil }

// Bounds on the total size of one request's records. Fields that the events of a batch
// share are copied into each record, so a small body can produce large records.
const (
	slabPerBody = 4 // times max-body-bytes
	slabStep    = 64 << 10
)

// grown checks the size of the slab after a record was added.
func (b *Batch) grown() {
	if len(b.slab) <= b.reserved {
		return
	}
	if bound := slabPerBody * b.limits.MaxBodyBytes; len(b.slab) > bound {
		b.fault = Exceeds(SettingMaxBodyBytes, fmt.Sprintf("records of the events are more than %d times", slabPerBody), b.limits.MaxBodyBytes)
		return
	}
	step := (len(b.slab) - b.reserved + slabStep - 1) / slabStep * slabStep
	if b.reserve != nil {
		if b.fault = b.reserve(step); b.fault != nil {
			return
		}
	}
	b.reserved += step
}

func (b *Batch) current() *item { return &b.items[len(b.items)-1] }

func (b *Batch) setState(it *item, s State) {
	b.counts[it.state]--
	b.counts[s]++
	it.state, it.touched = s, true
}

// Add checks the current item's event and adds it. If the event is not valid, Add
// rejects the item, discards what was added for it before, and returns false.
func (b *Batch) Add() bool {
	if !b.usable() {
		return false
	}
	it := b.current()
	if it.state == Rejected {
		return false
	}
	sent := b.ev
	ev := &b.ev
	b.readIDs(ev)
	defer func() { // a further event of the item starts from the original ids
		b.ev.UserID, b.ev.AnonymousID, b.ev.PreviousID, b.ev.AccountID = sent.UserID, sent.AnonymousID, sent.PreviousID, sent.AccountID
	}()
	if !visible(ev.MessageID) {
		ev.MessageID = b.newID()
	}
	if it.messageID == "" {
		it.messageID = ev.MessageID
	}
	if code, field, detail := b.check(ev); code != "" {
		b.Reject(code, field, detail)
		return false
	}
	if b.optOut(ev) {
		return false
	}
	start := len(b.slab)
	if nobody(ev) {
		b.slab = topic.Key(b.slab, ev.AppID, topic.KeyMessage, ev.MessageID)
	} else {
		b.slab = topic.RawKey(b.slab, ev.AppID, ev.UserID, ev.AnonymousID, ev.AccountID)
	}
	key := len(b.slab)
	b.slab = b.codec.AppendRaw(b.slab, b.kept.event(b.rules, ev))
	b.records = append(b.records, record{item: int32(len(b.items) - 1), start: int32(start), key: int32(key), end: int32(len(b.slab))})
	b.setState(it, Accepted)
	ev.MessageID = ""
	b.grown()
	return b.fault == nil
}

// readIDs reads the ids of an event. Texts that are not ids are removed before the
// partition is chosen, since one partition would get all of them; the event is kept.
func (b *Batch) readIDs(ev *event.RawEvent) {
	unread := append(b.dropped[:0], b.unread...)
	for _, id := range [...]struct {
		field string
		text  *string
	}{{ids.User, &ev.UserID}, {ids.Anonymous, &ev.AnonymousID}, {ids.Previous, &ev.PreviousID}, {ids.Account, &ev.AccountID}} {
		read, dropped := b.noIDs.Read(*id.text)
		if dropped {
			unread = ids.AppendUnread(unread, id.field, Shorten(*id.text, ids.MaxText))
		}
		*id.text = read
	}
	b.dropped, ev.Unread = unread, unread
}

func nobody(ev *event.RawEvent) bool {
	return ev.UserID == "" && ev.AnonymousID == "" && ev.AccountID == ""
}

// check checks an event against the bounds and for the fields that its kind needs.
func (b *Batch) check(ev *event.RawEvent) (code, field, detail string) {
	n := len(ev.Properties) + len(ev.Traits) + len(ev.Context)
	if n = max(n, len(b.original)); n > b.limits.MaxEventBytes {
		return CodeTooLarge, "", fmt.Sprintf("%d bytes, %s is %d", n, SettingMaxEventBytes, b.limits.MaxEventBytes)
	}
	maxID := b.limits.MaxIDBytes
	if len(ev.MessageID) > maxID || len(ev.UserID) > maxID || len(ev.AnonymousID) > maxID ||
		len(ev.PreviousID) > maxID || len(ev.AccountID) > maxID {
		return b.longID(ev)
	}
	if len(ev.Event) > b.limits.MaxNameBytes {
		return CodeTooLong, b.fields.Event, fmt.Sprintf("%d bytes, %s is %d", len(ev.Event), SettingMaxNameBytes, b.limits.MaxNameBytes)
	}
	if ev.Quantity < 1 || ev.Quantity > b.limits.MaxQuantity {
		return CodeBadQuantity, b.fields.Quantity, fmt.Sprintf("%d, must be 1 to %d (%s)", ev.Quantity, b.limits.MaxQuantity, SettingMaxQuantity)
	}
	dropped := len(ev.Unread) > len(b.unread) // the needed id was sent, but was not an id
	switch ev.Kind {
	case event.KindTrack, event.KindMetric, event.KindAPICall:
		if ev.Event == "" {
			return CodeMissingField, b.fields.Event, ev.Kind + " needs " + b.fields.Event
		}
	case event.KindPage, event.KindScreen:
	case event.KindIdentify:
		if ev.UserID == "" && ev.AnonymousID == "" && !dropped {
			return b.needs(ev, b.fields.UserID+" or "+b.fields.AnonymousID, b.fields.UserID)
		}
	case event.KindGroup:
		if ev.AccountID == "" && !dropped {
			return b.needs(ev, b.fields.AccountID, b.fields.AccountID)
		}
	case event.KindAlias:
		if ev.PreviousID == "" && !dropped {
			return b.needs(ev, b.fields.PreviousID, b.fields.PreviousID)
		}
		if ev.UserID == "" && !dropped {
			return b.needs(ev, b.fields.UserID, b.fields.UserID)
		}
	case "":
		return CodeMissingField, b.fields.Kind, b.fields.Kind + " is missing"
	default:
		return CodeUnknownKind, b.fields.Kind, "no such kind: " + Shorten(ev.Kind, 64)
	}
	if nobody(ev) && !dropped && ev.Kind != event.KindAPICall {
		return b.needs(ev, b.fields.UserID+" or "+b.fields.AnonymousID, b.fields.UserID)
	}
	return "", "", ""
}

func (b *Batch) needs(ev *event.RawEvent, what, field string) (string, string, string) {
	return CodeMissingField, field, ev.Kind + " needs " + what
}

func (b *Batch) longID(ev *event.RawEvent) (code, field, detail string) {
	for _, id := range []struct{ name, value string }{
		{b.fields.MessageID, ev.MessageID},
		{b.fields.UserID, ev.UserID},
		{b.fields.AnonymousID, ev.AnonymousID},
		{b.fields.PreviousID, ev.PreviousID},
		{b.fields.AccountID, ev.AccountID},
	} {
		if len(id.value) > b.limits.MaxIDBytes {
			return CodeTooLong, id.name, fmt.Sprintf("%d bytes, %s is %d", len(id.value), SettingMaxIDBytes, b.limits.MaxIDBytes)
		}
	}
	return "", "", ""
}

// maxDetail bounds the text of a rejection, in bytes.
const maxDetail = 512

// HistoryHeader marks a request whose events are history, whatever its path:
// deploy/import sends it. With the value HistoryAnyAge, events of any
// age are accepted, if the key allows it: see Scope.
const (
	HistoryHeader = "X-Uptake-History"
	HistoryAnyAge = "any-age"
)

// AmbiguousField is a field, beside those of an event's protocol, that deploy/import
// sets to true where the local time of an export occurred twice, at the end of daylight
// saving time. It is read only in history.
const AmbiguousField = "uptake_time_ambiguous"

// Ambiguous notes that the current item's time is ambiguous, see AmbiguousField.
func (b *Batch) Ambiguous() {
	if b.history {
		b.ev.TimeNotes |= event.TimeAmbiguous
	}
}

// IsHistory reports whether the batch is history.
func (b *Batch) IsHistory() bool { return b.history }

// History marks the rest of the batch as history: an instant that cannot be parsed
// rejects its event, since history must not be counted at the time of its import.
func (b *Batch) History() { b.history = true }

// Live says that what follows is live although the route is one for imports, unless
// the request's header says that it is history.
func (b *Batch) Live() { b.history = b.imported }

// maxUnread bounds what is kept of a field that cannot be read, in bytes.
const maxUnread = 128

// Unreadable notes that a field of the current item is not an instant that can be
// parsed. A live event is kept: it counts at the time of another field, or at its
// receipt, and is flagged. It returns false when the item is history and was rejected.
func (b *Batch) Unreadable(field, text string) bool {
	if b.history {
		b.Reject(CodeBadTimestamp, field, "not an instant: "+Shorten(text, maxUnread))
		return false
	}
	b.NoteTime(text)
	return true
}

// NoteTime notes the text of a field that is not an instant.
func (b *Batch) NoteTime(text string) {
	if len(b.unread) == 0 { // the first of several is enough
		b.unread = ids.AppendUnread(b.unread, ids.Timestamp, Shorten(text, maxUnread))
	}
}

// Reject rejects the current item: its bytes and the reason are stored in rejected, and
// what was added for it is discarded. code is one of Codes; field is the path of the
// faulty field in the protocol's terms. Set the event's MessageID before, if it is
// known, so that the item can be found.
func (b *Batch) Reject(code, field, detail string) {
	if !b.usable() {
		return
	}
	it := b.current()
	if it.state == Rejected {
		return
	}
	b.slab = b.slab[:it.slab]
	b.records = b.records[:it.record]
	if it.messageID == "" {
		it.messageID = b.ev.MessageID
	}
	if !visible(it.messageID) {
		it.messageID = b.newID() // so that the reply can be matched with the rejected record
	}
	if b.optOut(&b.ev) {
		return
	}
	it.messageID = Shorten(it.messageID, b.limits.MaxIDBytes)
	detail, field = Shorten(detail, maxDetail), Shorten(field, maxDetail)
	original := b.original
	if len(original) > b.limits.MaxEventBytes {
		detail = fmt.Sprintf("%s; the first %d of %d bytes are kept", detail, b.limits.MaxEventBytes, len(original))
		original = original[:b.limits.MaxEventBytes]
	}
	said := detail // the client may see it in full: the event is its own
	var envelope []byte
	if b.around != nil && b.rules == nil { // privacy rules cannot be applied to an envelope
		if envelope = b.around(); len(envelope) > b.limits.MaxEventBytes {
			envelope = nil
		}
	}
	if b.rules != nil {
		var optedOut bool
		if original, detail, optedOut = b.kept.original(b.rules, original, detail); optedOut {
			b.dropOptedOut()
			return
		}
	}
	r := event.Rejected{
		AppID:           b.app.ID,
		Stage:           event.StageGateway,
		Code:            code,
		Field:           field,
		Detail:          detail,
		MessageID:       it.messageID,
		Protocol:        b.protocol,
		ReceivedAt:      b.request.ReceivedAt,
		RejectedAt:      b.request.ReceivedAt,
		SourcePartition: -1,
		SourceOffset:    -1,
		Original:        original,
		Route:           b.route,
		Envelope:        envelope,
	}
	start := len(b.slab)
	b.slab = append(b.slab, b.app.ID...)
	key := len(b.slab)
	b.slab = b.codec.AppendRejected(b.slab, &r)
	b.records = append(b.records, record{item: int32(len(b.items) - 1), rejected: true, start: int32(start), key: int32(key), end: int32(len(b.slab))})
	it.reject = int32(len(b.rejects))
	b.rejects = append(b.rejects, reject{code, field, said})
	b.setState(it, Rejected)
	b.grown()
}

// Ignore marks the current item as understood and not to be stored. What was added for
// it is discarded.
func (b *Batch) Ignore() {
	if !b.usable() {
		return
	}
	it := b.current()
	b.slab = b.slab[:it.slab]
	b.records = b.records[:it.record]
	b.setState(it, Ignored)
}

// idempotencyKey is the header that carries the message id where the body has no field
// for one.
const idempotencyKey = "Idempotency-Key"

// newID returns an id for an event that was sent without one. The id in the request's
// header goes to its first event, and only if it is valid text.
func (b *Batch) newID() string {
	if key := b.request.Header(idempotencyKey); key != "" && len(b.items) == 1 && int(b.current().record) == len(b.records) {
		if strings.IndexFunc(key, func(r rune) bool { return r < '!' || r > '~' }) < 0 {
			return key
		}
	}
	return b.NewID()
}

// visible reports whether an id has a visible character. An id of blanks, control and
// format characters is what an unfilled template leaves, and the same for every event.
func visible(id string) bool {
	for _, r := range id {
		if r > ' ' && r < 0x7f || unicode.IsGraphic(r) && !unicode.IsSpace(r) && !unfilled(r) {
			return true
		}
	}
	return false
}

// unfilled are letters that display nothing: the Hangul fillers and the Braille blank.
func unfilled(r rune) bool {
	switch r {
	case 0x115f, 0x1160, 0x3164, 0xffa0, 0x2800:
		return true
	}
	return false
}

// NewID returns a new UUIDv7, valid as long as the batch's other strings. RFC 9562,
// sections 5.7 and 6.2, method 1: 48 bits of Unix milliseconds, 18 bits that count the
// ids of the batch, the rest random. So the ids of a request are in its order: changes
// of a trait that have the same time are carried out in the order of their ids.
func (b *Batch) NewID() string {
	ms := uint64(b.request.ReceivedAt / 1000)
	n := b.made & (1<<18 - 1)
	b.made++
	hi := ms<<16 | 0x7000 | n>>6
	lo := rand.Uint64()&(1<<56-1) | 1<<63 | n&0x3f<<56
	const digits = "0123456789abcdef"
	start := len(b.arena)
	for i := range 16 {
		switch i {
		case 4, 6, 8, 10:
			b.arena = append(b.arena, '-')
		}
		w := hi
		if i >= 8 {
			w = lo
		}
		c := byte(w >> (56 - 8*(i&7)))
		b.arena = append(b.arena, digits[c>>4], digits[c&15])
	}
	return String(b.arena[start:])
}

// Text returns a string of the concatenated parts, valid as long as the batch's other
// strings, for ids and names that a protocol composes.
func (b *Batch) Text(parts ...string) string {
	start := len(b.arena)
	for _, p := range parts {
		b.arena = append(b.arena, p...)
	}
	return String(b.arena[start:])
}

// Address is a client's address as it may be stored, and the country of the whole one.
// The zero value is that of no address, or of one of which nothing may be stored.
type Address struct{ IP, Country string }

// Known reports whether there is an address.
func (a Address) Known() bool { return a.IP != "" }

// Set makes it the address of an event.
func (a Address) Set(ev *event.RawEvent) { ev.IP, ev.Country = a.IP, a.Country }

// ClientIP returns the address that text is, the zero Address when it is none or must
// not be stored: for protocols whose events carry the client's address.
func (b *Batch) ClientIP(text string) Address {
	addr, ok := ParseIP(text)
	if !ok || b.app == nil {
		return Address{}
	}
	return b.stored(addr)
}

// stored returns what the app's mode lets through of an address. The country is found
// by the whole address, but where nothing of it may be stored neither may the country.
func (b *Batch) stored(addr netip.Addr) Address {
	short := b.app.IPMode.Apply(addr)
	if !short.IsValid() {
		return Address{}
	}
	start := len(b.arena)
	b.arena = short.AppendTo(b.arena)
	a := Address{IP: String(b.arena[start:])}
	if b.country != nil {
		a.Country = b.country(addr)
	}
	return a
}

// Len is the number of items.
func (b *Batch) Len() int { return len(b.items) }

// OptedOut is how many of the ignored items belong to somebody who opted out.
func (b *Batch) OptedOut() int { return b.optedOut }

// Count is how many items are in the state.
func (b *Batch) Count(s State) int { return b.counts[s] }

// Verdict returns the outcome of item i, counted from 0 in the order of Item.
func (b *Batch) Verdict(i int) Verdict {
	it := &b.items[i]
	v := Verdict{State: it.state, MessageID: it.messageID}
	if it.reject >= 0 {
		r := b.rejects[it.reject]
		v.Code, v.Field, v.Detail = r.code, r.field, r.detail
	}
	return v
}

// EachRejected calls fn with the code of every item that was rejected.
func (b *Batch) EachRejected(fn func(code string)) {
	for _, r := range b.rejects {
		fn(r.code)
	}
}

// Record is one record of a batch for Kafka.
type Record struct {
	Rejected   bool // for topic.Rejected, else for topic.Raw
	Item       int
	Key, Value []byte // valid until Begin
}

// Finish returns the batch's fault, if any, once Decode is done. Only the gateway calls
// it.
func (b *Batch) Finish() *Fault { return AsFault(b.fault) }

// Records returns the number of records and the bytes of their keys and values.
func (b *Batch) Records() (n, bytes int) { return len(b.records), len(b.slab) }

// Record returns record i. Only the gateway calls it.
func (b *Batch) Record(i int) Record {
	r := b.records[i]
	return Record{
		Rejected: r.rejected, Item: int(r.item),
		Key: b.slab[r.start:r.key:r.key], Value: b.slab[r.key:r.end:r.end],
	}
}

// Fail marks an item as not stored. Only the gateway calls it, between Decode and
// Answer.
func (b *Batch) Fail(i int) {
	if it := &b.items[i]; it.state == Accepted || it.state == Rejected {
		b.setState(it, Unstored)
	}
}

// Withdraw takes back an item that was accepted, as one that the client must send
// again: nothing of it is written.
func (b *Batch) Withdraw(i int) {
	if b.items[i].state != Accepted {
		return
	}
	b.setState(&b.items[i], Unstored)
	b.records = slices.DeleteFunc(b.records, func(r record) bool { return int(r.item) == i })
}

// FailAll marks every item as not stored.
func (b *Batch) FailAll() {
	for i := range b.items {
		b.Fail(i)
	}
}

// String returns b as a string without copying it. The string is valid while b's bytes
// are unchanged.
func String(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Shorten cuts s to at most n bytes of whole characters and makes it valid UTF-8.
func Shorten(s string, n int) string {
	if len(s) > n {
		s = s[:n]
		for n-len(s) < utf8.UTFMax-1 { // up to UTFMax-1 bytes of a truncated character may be left
			if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size != 1 {
				break
			}
			s = s[:len(s)-1]
		}
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
