package segment

import (
	"fmt"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
)

// quantityField says how many actions an event stands for. It is in context
// because properties are the customer's: "quantity" there means items in a cart.
const quantityField = "context.quantity"

// message is one call as it stands in the body. Its strings and bytes alias the
// body.
type message struct {
	raw         []byte
	kind        string
	event       string
	name        string
	messageID   string
	userID      string
	anonymousID string
	groupID     string
	previousID  string
	timestamp   scan.Value
	original    scan.Value // originalTimestamp
	forwarded   bool       // has receivedAt: a collector took it before and corrected timestamp
	ambiguous   bool       // see ingest.AmbiguousField
	sentAt      scan.Value
	writeKey    string
	category    scan.Value
	properties  []byte
	traits      []byte
	context     contextFields

	// What is wrong with it, the first fault found.
	code, field, detail string
}

// contextFields is what the gateway reads of context.
type contextFields struct {
	raw       []byte
	groupID   string
	userAgent string
	library   string
	version   string
	ip        scan.Value
	address   ingest.Address // ip as the app lets it be stored; set by settleIP
	quantity  scan.Value
	traits    []byte
}

// envelope is the body around messages.
type envelope struct {
	writeKey string
	sentAt   scan.Value
	context  contextFields
}

// decoder holds what decoding one body needs. It is used again.
type decoder struct {
	scan     scan.Scanner // over the body
	inner    scan.Scanner // over a value within it
	messages []message
	retries  mapping.RetryIDs
	text     []byte // JSON put together for one message; copied by Batch.Add

	// The batch's context by field, made when the first message needs it.
	shared []sharedField
	index  map[string]int // by name
	merged int            // messages that union was asked for
}

// Bounds on what an idle decoder holds on to.
const (
	keepMessages = 512
	keepText     = 64 << 10
)

func (p Protocol) decoder() *decoder { return p.decoders.Get().(*decoder) }

func (p Protocol) release(d *decoder) {
	if cap(d.messages) > keepMessages {
		d.messages = nil
	}
	if cap(d.text) > keepText {
		d.text = nil
	}
	clear(d.messages)
	d.messages, d.text = d.messages[:0], d.text[:0]
	d.shared, d.index, d.merged = nil, nil, 0
	d.scan.Reset(nil, 0)
	d.inner.Reset(nil, 0)
	p.decoders.Put(d)
}

// message appends an empty message and returns it.
func (d *decoder) message() *message {
	d.messages = append(d.messages, message{})
	return &d.messages[len(d.messages)-1]
}

func (p Protocol) decodeSingle(r *ingest.Request, b *ingest.Batch, kind string) error {
	text, err := r.Text()
	if err != nil {
		return err
	}
	return p.decodeText(r, b, text, kind)
}

// decodeText reads a body that is one message.
func (p Protocol) decodeText(r *ingest.Request, b *ingest.Batch, text []byte, kind string) error {
	d := p.decoder()
	defer p.release(d)
	d.scan.Reset(text, b.Limits().MaxDepth)
	if d.scan.Peek() != scan.Object {
		return notAnObject(&d.scan)
	}
	m := d.message()
	d.retries = mapping.NewRetryIDs(r.Body)
	d.read(m)
	if !d.scan.End() {
		return ingest.Unreadable("%v", d.scan.Err())
	}
	m.kind = kind
	if err := b.Authenticate(writeKey(r, m.writeKey)); err != nil {
		return err
	}
	d.take(b, m, &envelope{})
	return nil
}

func (p Protocol) decodeBatch(r *ingest.Request, b *ingest.Batch) error {
	text, err := r.Text()
	if err != nil {
		return err
	}
	d := p.decoder()
	defer p.release(d)
	d.scan.Reset(text, b.Limits().MaxDepth)
	d.retries = mapping.NewRetryIDs(r.Body)
	var env envelope
	if err := d.readEnvelope(&env, b.Limits().MaxBatchEvents); err != nil {
		return err
	}
	if env.writeKey == "" && len(d.messages) > 0 {
		env.writeKey = d.messages[0].writeKey
	}
	if err := b.Authenticate(writeKey(r, env.writeKey)); err != nil {
		return err
	}
	if !absent(env.sentAt) {
		b.Live() // Segment's SDKs for Java and Android send all that they send to /v1/import
	}
	env.context.settleIP(b)
	for i := range d.messages {
		d.take(b, &d.messages[i], &env)
	}
	return nil
}

func writeKey(r *ingest.Request, inBody string) string {
	if key := r.BasicUser(); key != "" {
		return key
	}
	if key := r.QueryValue("writeKey"); key != "" {
		return key
	}
	return inBody
}

func notAnObject(s *scan.Scanner) error {
	kind := s.Peek()
	if kind == scan.Invalid {
		s.Value()
		return ingest.Unreadable("%v", s.Err())
	}
	return ingest.Unreadable("the body is %s, not an object", kind)
}

// Bits of the fields that an object must not name twice.
const (
	seenType = 1 << iota
	seenEvent
	seenName
	seenMessageID
	seenUserID
	seenAnonymousID
	seenGroupID
	seenPreviousID
	seenTimestamp
	seenOriginal
	seenSentAt
	seenWriteKey
	seenCategory
	seenProperties
	seenTraits
	seenContext
	seenBatch
)

// readEnvelope reads the body of a batch. Its fields may stand before or after
// the messages, which is why these are kept and not taken at once.
func (d *decoder) readEnvelope(env *envelope, maxMessages int) error {
	s := &d.scan
	if !s.Object() {
		return notAnObject(s)
	}
	var seen, bit int
	var ctx message // takes the faults of the batch's context
	for {
		key, ok := s.Key()
		if !ok {
			break
		}
		switch string(key) {
		case "batch":
			bit = seenBatch
			if kind := s.Peek(); kind != scan.Array {
				if kind == scan.Invalid {
					s.Value()
					break
				}
				return ingest.Unreadable("batch is %s, not an array", kind)
			}
			if seen&bit != 0 {
				break
			}
			s.Array()
			for s.More() {
				if len(d.messages) > maxMessages {
					return ingest.Exceeds(ingest.SettingMaxBatchEvents, "too many events in one request", maxMessages)
				}
				d.read(d.message())
			}
		case "writeKey":
			bit = seenWriteKey
			env.writeKey = s.Value().Text()
		case "sentAt":
			bit = seenSentAt
			env.sentAt = s.Value()
		case "context":
			bit = seenContext
			s.Mark()
			d.readContext(&ctx)
			env.context = ctx.context
			switch {
			case ctx.code != "":
				return ingest.Unreadable("%s of the batch: %s", ctx.field, ctx.detail)
			case len(env.context.raw) > maxShared:
				return &ingest.Fault{Kind: ingest.TooLarge, Detail: fmt.Sprintf("context of the batch has %d bytes, bound %d", len(env.context.raw), maxShared)}
			case s.Noted() != 0:
				return ingest.Unreadable("context of the batch is nested too deeply or not UTF-8")
			}
		default:
			bit = 0
			s.Value()
		}
		if seen&bit != 0 {
			return ingest.Unreadable("the body names %s twice", key)
		}
		seen |= bit
	}
	if !s.End() {
		return ingest.Unreadable("%v", s.Err())
	}
	if seen&seenBatch == 0 {
		return ingest.Unreadable("the body has no batch")
	}
	return nil
}

// reject notes what is wrong with the message, if nothing is yet.
func (m *message) reject(code, field, detail string) {
	if m.code == "" {
		m.code, m.field, m.detail = code, field, detail
	}
}

// read reads the value that comes next as a message.
func (d *decoder) read(m *message) {
	s := &d.scan
	s.Mark()
	kind := s.Peek()
	start := s.Offset()
	if kind != scan.Object {
		m.raw = s.Value().Raw
		m.reject(ingest.CodeWrongType, "", "the event is "+kind.String()+", not an object")
		return
	}
	s.Object()
	var seen, bit int
	var twice []string
	for {
		key, ok := s.Key()
		if !ok {
			break
		}
		switch string(key) {
		case "type":
			bit, m.kind = seenType, m.text(s.Value(), "type")
		case "event":
			bit, m.event = seenEvent, m.text(s.Value(), "event")
		case "name":
			bit, m.name = seenName, m.text(s.Value(), "name")
		case "messageId":
			bit, m.messageID = seenMessageID, m.text(s.Value(), "messageId")
		case "userId":
			bit, m.userID = seenUserID, m.id(s.Value(), "userId")
		case "anonymousId":
			bit, m.anonymousID = seenAnonymousID, m.id(s.Value(), "anonymousId")
		case "groupId":
			bit, m.groupID = seenGroupID, m.id(s.Value(), "groupId")
		case "previousId":
			bit, m.previousID = seenPreviousID, m.id(s.Value(), "previousId")
		case "timestamp":
			bit, m.timestamp = seenTimestamp, s.Value()
		case "originalTimestamp":
			bit, m.original = seenOriginal, s.Value()
		case "receivedAt":
			bit, m.forwarded = 0, !s.Value().IsNull()
		case "sentAt":
			bit, m.sentAt = seenSentAt, s.Value()
		case "writeKey":
			bit, m.writeKey = seenWriteKey, s.Value().Text()
		case ingest.AmbiguousField:
			bit, m.ambiguous = 0, s.Value().Kind == scan.True
		case "category":
			bit, m.category = seenCategory, s.Value()
		case "properties":
			bit, m.properties = seenProperties, m.object(s.Value(), "properties")
		case "traits":
			bit, m.traits = seenTraits, m.object(s.Value(), "traits")
		case "context":
			bit = seenContext
			d.readContext(m)
		default:
			bit = 0
			s.Value()
		}
		if seen&bit != 0 {
			twice = append(twice, string(key))
		}
		seen |= bit
	}
	if s.Err() != nil {
		return
	}
	m.raw = s.Since(start)
	for _, name := range twice {
		if values := valuesOf(m.raw, name); !allEqual(values) {
			m.reject(ingest.CodeDuplicateField, name, "the event names "+name+" twice")
		}
	}
	if notes := s.Noted(); notes != 0 {
		m.code = "" // whatever else is wrong, this comes first
		if notes&scan.BadUTF8 != 0 {
			m.reject(ingest.CodeBadEncoding, "", "the event is not UTF-8")
		}
		m.reject(ingest.CodeTooDeep, "", "nested deeper than "+ingest.SettingMaxDepth)
	}
}

// valuesOf returns every value that an object has under a name.
func valuesOf(raw []byte, name string) (values []scan.Value) {
	var s scan.Scanner
	s.Reset(raw, len(raw))
	if !s.Object() {
		return nil
	}
	for key, ok := s.Key(); ok; key, ok = s.Key() {
		same := string(key) == name
		if v := s.Value(); same {
			values = append(values, v)
		}
	}
	return values
}

// allEqual reports whether values are written alike: a serializer that writes a
// field twice, as RudderStack's for Rust does in batches, does no harm.
func allEqual(values []scan.Value) bool {
	for _, v := range values {
		if string(v.Raw) != string(values[0].Raw) {
			return false
		}
	}
	return true
}

// text reads an id or a name: a string, or a number as it is written.
func (m *message) text(v scan.Value, field string) string {
	switch v.Kind {
	case scan.String, scan.Number:
		return v.Text()
	case scan.Null, scan.Invalid:
	default:
		m.reject(ingest.CodeWrongType, field, field+" is "+v.Kind.String())
	}
	return ""
}

// id reads an id, as package mapping does for other protocols.
func (m *message) id(v scan.Value, field string) string {
	id, ok := mapping.ID(v)
	if !ok {
		m.reject(ingest.CodeWrongType, field, field+" is "+v.Kind.String())
	}
	return id
}

func (m *message) object(v scan.Value, field string) []byte {
	switch v.Kind {
	case scan.Object:
		return v.Raw
	default:
		if !v.IsEmptyObject() {
			m.reject(ingest.CodeWrongType, field, field+" is "+v.Kind.String()+", not an object")
		}
	}
	return nil
}

// Bits of the fields of context that must not be named twice.
const (
	seenContextGroup = 1 << iota
	seenContextAgent
	seenContextLibrary
	seenContextIP
	seenContextQuantity
	seenContextTraits
)

// readContext reads the value that comes next as m's context.
func (d *decoder) readContext(m *message) {
	s := &d.scan
	kind := s.Peek()
	start := s.Offset()
	if !s.Object() {
		if v := s.Value(); !v.IsEmptyObject() {
			m.reject(ingest.CodeWrongType, "context", "context is "+kind.String()+", not an object")
		}
		return
	}
	c := &m.context
	var seen, bit int
	for {
		key, ok := s.Key()
		if !ok {
			break
		}
		switch string(key) {
		case "groupId":
			bit, c.groupID = seenContextGroup, m.id(s.Value(), "context.groupId")
		case "userAgent":
			bit, c.userAgent = seenContextAgent, s.Value().Text()
		case "ip":
			bit, c.ip = seenContextIP, s.Value()
		case "quantity":
			bit, c.quantity = seenContextQuantity, s.Value()
		case "traits":
			bit = seenContextTraits
			if v := s.Value(); v.Kind == scan.Object {
				c.traits = v.Raw
			}
		case "library":
			bit = seenContextLibrary
			if !s.Object() {
				s.Value()
				break
			}
			for {
				k, ok := s.Key()
				if !ok {
					break
				}
				isName, isVersion := string(k) == "name", string(k) == "version"
				v := s.Value()
				switch {
				case isName:
					c.library = v.Text()
				case isVersion:
					c.version = v.Text()
				}
			}
		default:
			bit = 0
			s.Value()
		}
		if seen&bit != 0 {
			m.reject(ingest.CodeDuplicateField, "context."+string(key), "context names "+string(key)+" twice")
		}
		seen |= bit
	}
	if s.Err() == nil {
		c.raw = s.Since(start)
	}
}

// precise reports whether the message has the instant of its call to less than a
// millisecond, as of RudderStack's SDK for Rust, which sends no ids and the same bytes
// again: then equal bytes are the same call.
func (d *decoder) precise(m *message) bool {
	for _, name := range []string{"originalTimestamp", "timestamp"} {
		for _, v := range valuesOf(m.raw, name) {
			if mapping.Fine(v.Text()) {
				return true
			}
		}
	}
	return false
}

// take puts a message into the batch.
func (d *decoder) take(b *ingest.Batch, m *message, env *envelope) {
	app := b.App()
	m.context.settleIP(b)
	ev := b.Item(m.raw)
	ev.MessageID = m.messageID
	if ev.MessageID == "" && d.precise(m) {
		ev.MessageID = d.retries.Next(b)
	}
	if m.code != "" {
		b.Reject(m.code, m.field, m.detail)
		return
	}
	var known bool
	if ev.Kind, known = kindOf(m.kind); !known {
		detail := "no such type: " + m.kind
		code := ingest.CodeUnknownKind
		if m.kind == "" {
			code, detail = ingest.CodeMissingField, "type is missing"
		}
		b.Reject(code, "type", detail)
		return
	}
	d.text = d.text[:0]
	c := d.merge(&m.context, &env.context)
	ev.UserID, ev.AnonymousID = m.userID, m.anonymousID
	ev.Properties, ev.Traits, ev.Context = m.properties, m.traits, c.raw
	ev.Event = m.event
	if !app.IsID(c.groupID) && app.IsID(env.context.groupID) {
		c.groupID = env.context.groupID
	}
	account, accountField := c.groupID, "context.groupId"
	switch ev.Kind {
	case event.KindPage, event.KindScreen:
		ev.Event = m.name
		ev.Properties = d.withCategory(m.properties, m.category)
	case event.KindIdentify:
		ev.Event = ""
		if ev.Traits == nil {
			ev.Traits = c.traits // where RudderStack's SDKs put them
		}
	case event.KindGroup:
		ev.Event = ""
		account, accountField = m.groupID, "groupId"
	case event.KindMetric:
		if app.IsID(m.groupID) || account == "" { // most are an account's own
			account, accountField = m.groupID, "groupId"
		}
	case event.KindAlias:
		ev.Event = ""
		ev.PreviousID = m.previousID
		if m.previousID != "" && m.previousID == m.userID {
			b.Ignore() // the browser SDK sends this after identify; it says nothing
			return
		}
	}
	if !app.IsID(account) && ev.Kind != event.KindGroup {
		v, field := d.findAccount(app, ev, c.traits)
		found := m.id(v, field)
		if m.code != "" {
			b.Reject(m.code, m.field, m.detail)
			return
		}
		if account == "" || app.IsID(found) {
			account, accountField = found, field
		}
	}
	ev.AccountID = account
	if len(account) > b.Limits().MaxIDBytes {
		b.Reject(ingest.CodeTooLong, accountField, fmt.Sprintf("%d bytes, %s is %d", len(account), ingest.SettingMaxIDBytes, b.Limits().MaxIDBytes))
		return
	}

	// RudderStack's SDKs add originalTimestamp to each message, of the moment of the
	// call; a timestamp beside it is the caller's own word. Of a message that comes
	// from another collector it is what that made of the original one.
	// Where one of the two cannot be read the other counts.
	first, field, second := m.timestamp, "timestamp", m.original
	if !absent(m.original) && (absent(m.timestamp) || (m.forwarded && !b.IsHistory())) {
		first, field, second = m.original, "originalTimestamp", m.timestamp
	}
	ts, ok := mapping.Instant(first)
	if !ok {
		if ts, ok = mapping.Instant(second); ok && ts != 0 {
			mapping.OtherTime(b, first)
		} else if !mapping.Time(b, ev, field, first) {
			return
		}
	}
	ev.Timestamp = ts
	if m.ambiguous {
		b.Ambiguous()
	}
	// sentAt is evidence about the client's clock and no more: one that cannot
	// be read is none, and of history it says nothing, since its receipt was
	// another's. There timestamp is what was made of it.
	sentAt := env.sentAt
	if absent(sentAt) {
		sentAt = m.sentAt
	}
	if !b.IsHistory() {
		ev.SentAt, _ = mapping.Instant(sentAt)
	}

	quantity, field := c.quantity, quantityField
	if quantity.IsNull() && app.QuantityKey != "" {
		quantity, field = d.lookup(ev.Properties, app.QuantityKey), "properties."+app.QuantityKey
	}
	if !quantity.IsNull() {
		n, ok := quantity.Int()
		if maximum := b.Limits().MaxQuantity; !ok || n < 1 || n > maximum {
			b.Reject(ingest.CodeBadQuantity, field, fmt.Sprintf("%s, must be a whole number from 1 to %d (%s)",
				ingest.Shorten(ingest.String(quantity.Raw), 64), maximum, ingest.SettingMaxQuantity))
			return
		}
		ev.Quantity = n
	}

	if c.library != "" {
		ev.Library = ingest.Shorten(c.library, maxLibrary)
		if c.version != "" {
			ev.Library = b.Text(ev.Library, "/", ingest.Shorten(c.version, maxLibrary))
		}
	}
	if c.userAgent != "" {
		ev.UserAgent = ingest.Shorten(c.userAgent, maxUserAgent)
	}
	if c.address.Known() {
		c.address.Set(ev)
	}
	b.Add()
}

// absent reports whether an instant was not sent.
func absent(v scan.Value) bool {
	return v.IsNull() || (v.Kind == scan.String && len(v.Raw) == len(`""`))
}

const (
	maxLibrary   = 128
	maxUserAgent = 1024
)

// kindOf returns the constant of a type.
func kindOf(kind string) (string, bool) {
	switch kind {
	case event.KindTrack:
		return event.KindTrack, true
	case event.KindIdentify:
		return event.KindIdentify, true
	case event.KindGroup:
		return event.KindGroup, true
	case event.KindPage:
		return event.KindPage, true
	case event.KindScreen:
		return event.KindScreen, true
	case event.KindAlias:
		return event.KindAlias, true
	case event.KindMetric:
		return event.KindMetric, true
	}
	return "", false
}

// settleIP reads the address that the context gives and overwrites it in the body
// unless the app stores it in full.
func (c *contextFields) settleIP(b *ingest.Batch) {
	if c.ip.IsNull() {
		return
	}
	c.address = b.ClientIP(c.ip.Text())
	if mode := b.App().IPMode; mode != ingest.IPFull {
		redactIP(c.ip, mode)
	}
}

// redactIP overwrites an address in the body with what the app lets through. The
// text must keep its length: an address never grows by losing bits, and what is
// left over becomes white space behind the value.
func redactIP(v scan.Value, mode ingest.IPMode) {
	if v.IsNull() || len(v.Raw) < len("null") {
		return
	}
	text := "null"
	if addr, ok := ingest.ParseIP(v.Text()); ok && mode == ingest.IPTruncated {
		if short := `"` + mode.Apply(addr).String() + `"`; len(short) <= len(v.Raw) {
			text = short
		}
	}
	n := copy(v.Raw, text)
	for i := n; i < len(v.Raw); i++ {
		v.Raw[i] = ' '
	}
}
