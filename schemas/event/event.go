// Package event holds the records that the services exchange and their codec.
//
// It owns the Go types of the Avro schemas in schemas/avro, a hand-written
// append encoder and zero-copy decoder for the current version of each, and the
// resolution of every other published version through hamba/avro, which no
// other package imports. Every value starts with a header that names its
// schema: Avro single-object encoding (0xC3 0x01 and the CRC-64-AVRO
// fingerprint, little endian), or, with a schema registry, the Confluent wire
// format (0x00 and the schema id, big endian).
//
// It does not own topics (schemas/topic) or what the fields mean to a stage.
package event

import "time"

// Kinds of calls, the values of RawEvent.Kind and EnrichedEvent.Kind.
const (
	KindTrack    = "track"
	KindIdentify = "identify"
	KindGroup    = "group"
	KindAlias    = "alias"
	KindPage     = "page"
	KindScreen   = "screen"
	KindMetric   = "metric"
	KindAPICall  = "api_call"
)

// IsUsage reports whether events of the kind count in the usage rollups:
// track, page, screen and api_call do; identify, group, alias and metric say
// something about an actor, an account or a period and do not.
func IsUsage(kind string) bool {
	switch kind {
	case KindTrack, KindPage, KindScreen, KindAPICall:
		return true
	}
	return false
}

// Values of EnrichedEvent.ActorKind.
const (
	ActorUser      = "user"
	ActorAnonymous = "anonymous"
	ActorAccount   = "account"
)

// Values of EnrichedEvent.AccountSource.
const (
	AccountFromEvent      = "event"
	AccountFromMembership = "membership"
	AccountNone           = "none"
)

// ControlTick is the Control.Kind of a record that closes the open block of an
// idle partition and orders nothing.
const ControlTick = "tick"

// Micros is an instant in microseconds since the Unix epoch, UTC; 0 is absent.
type Micros = int64

// FromTime returns t as Micros; the zero time is absent. The epoch itself reads
// as one microsecond past it, so that it is not taken for an absent instant.
func FromTime(t time.Time) Micros {
	if t.IsZero() {
		return 0
	}
	if us := t.UnixMicro(); us != 0 {
		return us
	}
	return 1
}

// ToTime returns us as a time in UTC; absent is the zero time.
func ToTime(us Micros) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// RawEvent is one call as a producer sent it. An empty string is absent.
// Properties, Traits and Context are JSON object text or empty.
//
// After Codec.DecodeRaw every string and slice aliases the decoded bytes: they
// live as long as those stay unchanged; copy to keep.
type RawEvent struct {
	AppID       string
	Kind        string
	Event       string
	MessageID   string
	UserID      string
	AnonymousID string
	PreviousID  string
	AccountID   string
	Timestamp   Micros
	SentAt      Micros
	ReceivedAt  Micros
	Quantity    int64
	Properties  []byte
	Traits      []byte
	Context     []byte
	Protocol    string
	Library     string
	IP          string
	UserAgent   string

	// Unread is JSON object text, or empty: fields of the call that were sent and
	// are not used, with their text (package ids, and "timestamp"). IDRules is the
	// version of the rules by which ids were read; 0: none. Since version 2.
	Unread  []byte
	IDRules int64

	// TimeNotes are the sender's notes about Timestamp, as bits of TimeAnyAge and
	// TimeAmbiguous. Since version 3.
	TimeNotes int64

	// Country is that of the client's whole address, where the gateway knows it. Since
	// version 4.
	Country string
}

// Bits of RawEvent.TimeNotes.
const (
	TimeAnyAge    = 1 // history that counts however old it is
	TimeAmbiguous = 2 // of a local time that was shown twice, when daylight saving time ended
)

func (e *RawEvent) appendTo(b []byte) []byte {
	b = appendString(b, e.AppID)
	b = appendString(b, e.Kind)
	b = appendString(b, e.Event)
	b = appendString(b, e.MessageID)
	b = appendString(b, e.UserID)
	b = appendString(b, e.AnonymousID)
	b = appendString(b, e.PreviousID)
	b = appendString(b, e.AccountID)
	b = appendLong(b, e.Timestamp)
	b = appendLong(b, e.SentAt)
	b = appendLong(b, e.ReceivedAt)
	b = appendLong(b, e.Quantity)
	b = appendBytes(b, e.Properties)
	b = appendBytes(b, e.Traits)
	b = appendBytes(b, e.Context)
	b = appendString(b, e.Protocol)
	b = appendString(b, e.Library)
	b = appendString(b, e.IP)
	b = appendString(b, e.UserAgent)
	b = appendBytes(b, e.Unread)
	b = appendLong(b, e.IDRules)
	b = appendLong(b, e.TimeNotes)
	return appendString(b, e.Country)
}

func (e *RawEvent) readFrom(r *reader) {
	e.AppID = r.string()
	e.Kind = r.string()
	e.Event = r.string()
	e.MessageID = r.string()
	e.UserID = r.string()
	e.AnonymousID = r.string()
	e.PreviousID = r.string()
	e.AccountID = r.string()
	e.Timestamp = r.long()
	e.SentAt = r.long()
	e.ReceivedAt = r.long()
	e.Quantity = r.long()
	e.Properties = r.bytes()
	e.Traits = r.bytes()
	e.Context = r.bytes()
	e.Protocol = r.string()
	e.Library = r.string()
	e.IP = r.string()
	e.UserAgent = r.string()
	e.Unread = r.bytes()
	e.IDRules = r.long()
	e.TimeNotes = r.long()
	e.Country = r.string()
}

// EnrichedEvent is a raw event, resolved: see avro/enriched_event.v4.avsc for
// each field. Lifetimes are those of RawEvent.
type EnrichedEvent struct {
	AppID          string
	Kind           string
	Event          string
	MessageID      string
	UserID         string
	AnonymousID    string
	PreviousID     string
	ActorID        string
	ActorKind      string
	AccountID      string
	AccountSource  string
	Role           string
	FeatureID      string
	ModuleID       string
	ProductID      string
	CatalogVersion int64
	EventTime      Micros
	Timestamp      Micros
	SentAt         Micros
	ReceivedAt     Micros
	Quantity       int64
	Properties     []byte
	Traits         []byte
	Context        []byte
	Conflicts      []byte
	SessionID      string
	Protocol       string
	Library        string
	IP             string
	UserAgent      string
	Flags          string
	RawOffset      int64

	// Since version 2.
	LinkedUserID    string
	ParentAccountID string

	// Metric is what a metric event reports, as JSON object text, or empty.
	// Since version 3.
	Metric []byte

	Client // since version 4
}

// Client is what an event says of the client that it came from, and of what brought
// the client there. An empty text: nothing is known.
type Client struct {
	Country     string // two letters of ISO 3166-1
	Browser     string
	OS          string
	DeviceClass string // desktop, mobile, tablet, tv, console, wearable or bot
	Referrer    string // host of another site
	UTMSource   string
	UTMMedium   string
	UTMCampaign string
}

func (c *Client) appendClient(b []byte) []byte {
	b = appendString(b, c.Country)
	b = appendString(b, c.Browser)
	b = appendString(b, c.OS)
	b = appendString(b, c.DeviceClass)
	b = appendString(b, c.Referrer)
	b = appendString(b, c.UTMSource)
	b = appendString(b, c.UTMMedium)
	return appendString(b, c.UTMCampaign)
}

func (c *Client) readClient(r *reader) {
	c.Country = r.string()
	c.Browser = r.string()
	c.OS = r.string()
	c.DeviceClass = r.string()
	c.Referrer = r.string()
	c.UTMSource = r.string()
	c.UTMMedium = r.string()
	c.UTMCampaign = r.string()
}

func (e *EnrichedEvent) appendTo(b []byte) []byte {
	b = appendString(b, e.AppID)
	b = appendString(b, e.Kind)
	b = appendString(b, e.Event)
	b = appendString(b, e.MessageID)
	b = appendString(b, e.UserID)
	b = appendString(b, e.AnonymousID)
	b = appendString(b, e.PreviousID)
	b = appendString(b, e.ActorID)
	b = appendString(b, e.ActorKind)
	b = appendString(b, e.AccountID)
	b = appendString(b, e.AccountSource)
	b = appendString(b, e.Role)
	b = appendString(b, e.FeatureID)
	b = appendString(b, e.ModuleID)
	b = appendString(b, e.ProductID)
	b = appendLong(b, e.CatalogVersion)
	b = appendLong(b, e.EventTime)
	b = appendLong(b, e.Timestamp)
	b = appendLong(b, e.SentAt)
	b = appendLong(b, e.ReceivedAt)
	b = appendLong(b, e.Quantity)
	b = appendBytes(b, e.Properties)
	b = appendBytes(b, e.Traits)
	b = appendBytes(b, e.Context)
	b = appendBytes(b, e.Conflicts)
	b = appendString(b, e.SessionID)
	b = appendString(b, e.Protocol)
	b = appendString(b, e.Library)
	b = appendString(b, e.IP)
	b = appendString(b, e.UserAgent)
	b = appendString(b, e.Flags)
	b = appendLong(b, e.RawOffset)
	b = appendString(b, e.LinkedUserID)
	b = appendString(b, e.ParentAccountID)
	b = appendBytes(b, e.Metric)
	return e.appendClient(b)
}

func (e *EnrichedEvent) readFrom(r *reader) {
	e.AppID = r.string()
	e.Kind = r.string()
	e.Event = r.string()
	e.MessageID = r.string()
	e.UserID = r.string()
	e.AnonymousID = r.string()
	e.PreviousID = r.string()
	e.ActorID = r.string()
	e.ActorKind = r.string()
	e.AccountID = r.string()
	e.AccountSource = r.string()
	e.Role = r.string()
	e.FeatureID = r.string()
	e.ModuleID = r.string()
	e.ProductID = r.string()
	e.CatalogVersion = r.long()
	e.EventTime = r.long()
	e.Timestamp = r.long()
	e.SentAt = r.long()
	e.ReceivedAt = r.long()
	e.Quantity = r.long()
	e.Properties = r.bytes()
	e.Traits = r.bytes()
	e.Context = r.bytes()
	e.Conflicts = r.bytes()
	e.SessionID = r.string()
	e.Protocol = r.string()
	e.Library = r.string()
	e.IP = r.string()
	e.UserAgent = r.string()
	e.Flags = r.string()
	e.RawOffset = r.long()
	e.LinkedUserID = r.string()
	e.ParentAccountID = r.string()
	e.Metric = r.bytes()
	e.readClient(r)
}

// Control is a record in enriched that is no event: it orders something at its
// point of its partition. Lifetimes are those of RawEvent.
type Control struct {
	Kind      string
	AppID     string
	ControlID string
	CreatedAt Micros
	Payload   []byte
}

func (e *Control) appendTo(b []byte) []byte {
	b = appendString(b, e.Kind)
	b = appendString(b, e.AppID)
	b = appendString(b, e.ControlID)
	b = appendLong(b, e.CreatedAt)
	return appendBytes(b, e.Payload)
}

func (e *Control) readFrom(r *reader) {
	e.Kind = r.string()
	e.AppID = r.string()
	e.ControlID = r.string()
	e.CreatedAt = r.long()
	e.Payload = r.bytes()
}

// Stages that reject, the values of Rejected.Stage.
const (
	StageGateway  = "gateway"
	StageEnricher = "enricher"
	// StageWriter: no release can have written the record, which the writer of
	// ClickHouse found in enriched or rejected.
	StageWriter = "writer"
)

// Rejected is something accepted that cannot be used, with its reason.
// Lifetimes are those of RawEvent.
type Rejected struct {
	AppID           string
	Stage           string
	Code            string
	Field           string
	Detail          string
	MessageID       string
	Protocol        string
	ReceivedAt      Micros
	RejectedAt      Micros
	SourcePartition int64 // -1 from the gateway
	SourceOffset    int64 // -1 from the gateway
	Original        []byte
	Route           string // method and path of the gateway's route, empty from the enricher
	Envelope        []byte // what stood around Original, JSON; empty where nothing is needed
}

func (e *Rejected) appendTo(b []byte) []byte {
	b = appendString(b, e.AppID)
	b = appendString(b, e.Stage)
	b = appendString(b, e.Code)
	b = appendString(b, e.Field)
	b = appendString(b, e.Detail)
	b = appendString(b, e.MessageID)
	b = appendString(b, e.Protocol)
	b = appendLong(b, e.ReceivedAt)
	b = appendLong(b, e.RejectedAt)
	b = appendLong(b, e.SourcePartition)
	b = appendLong(b, e.SourceOffset)
	b = appendBytes(b, e.Original)
	b = appendString(b, e.Route)
	return appendBytes(b, e.Envelope)
}

func (e *Rejected) readFrom(r *reader) {
	e.AppID = r.string()
	e.Stage = r.string()
	e.Code = r.string()
	e.Field = r.string()
	e.Detail = r.string()
	e.MessageID = r.string()
	e.Protocol = r.string()
	e.ReceivedAt = r.long()
	e.RejectedAt = r.long()
	e.SourcePartition = r.long()
	e.SourceOffset = r.long()
	e.Original = r.bytes()
	e.Route = r.string()
	e.Envelope = r.bytes()
}

// Values of Link.Kind.
const (
	LinkClaim      = "claim"
	LinkAlias      = "alias"
	LinkNamesake   = "namesake" // an alias unless the previous id is an identified user
	LinkSubscribe  = "subscribe"
	LinkProfile    = "profile"
	LinkMembership = "membership"
	LinkRetract    = "retract"
	LinkUnlink     = "unlink"
)

// CallOperator is the Link.Call of what no event said.
const CallOperator = "operator"

// Link is what the enricher of one partition tells the enricher of another
// about identity. Lifetimes are those of RawEvent.
type Link struct {
	Kind         string
	AppID        string
	ID           string
	IDKind       string // ActorAnonymous or ActorUser
	UserID       string
	Since        Micros
	Call         string
	MessageID    string
	RecordedAt   Micros
	RawPartition int64 // -1 of an operator
	RawOffset    int64 // -1 of an operator
	Partition    int64 // -1 of an operator
	Version      int64
	Profile      []byte
}

func (e *Link) appendTo(b []byte) []byte {
	b = appendString(b, e.Kind)
	b = appendString(b, e.AppID)
	b = appendString(b, e.ID)
	b = appendString(b, e.IDKind)
	b = appendString(b, e.UserID)
	b = appendLong(b, e.Since)
	b = appendString(b, e.Call)
	b = appendString(b, e.MessageID)
	b = appendLong(b, e.RecordedAt)
	b = appendLong(b, e.RawPartition)
	b = appendLong(b, e.RawOffset)
	b = appendLong(b, e.Partition)
	b = appendLong(b, e.Version)
	return appendBytes(b, e.Profile)
}

func (e *Link) readFrom(r *reader) {
	e.Kind = r.string()
	e.AppID = r.string()
	e.ID = r.string()
	e.IDKind = r.string()
	e.UserID = r.string()
	e.Since = r.long()
	e.Call = r.string()
	e.MessageID = r.string()
	e.RecordedAt = r.long()
	e.RawPartition = r.long()
	e.RawOffset = r.long()
	e.Partition = r.long()
	e.Version = r.long()
	e.Profile = r.bytes()
}

// Values of IdentityState.Kind.
const (
	StateAnonymous = "anonymous"
	StateUser      = "user"
	StateKnown     = "known"
	StateWhy       = "why"
)

// IdentityState is one fact of a partition's identity state. Lifetimes are
// those of RawEvent.
type IdentityState struct {
	Kind         string
	AppID        string
	ID           string
	Other        string
	Relation     string
	Since        Micros
	Call         string
	MessageID    string
	RecordedAt   Micros
	RawPartition int64
	RawOffset    int64
	Version      int64
	Body         []byte
}

func (e *IdentityState) appendTo(b []byte) []byte {
	b = appendString(b, e.Kind)
	b = appendString(b, e.AppID)
	b = appendString(b, e.ID)
	b = appendString(b, e.Other)
	b = appendString(b, e.Relation)
	b = appendLong(b, e.Since)
	b = appendString(b, e.Call)
	b = appendString(b, e.MessageID)
	b = appendLong(b, e.RecordedAt)
	b = appendLong(b, e.RawPartition)
	b = appendLong(b, e.RawOffset)
	b = appendLong(b, e.Version)
	return appendBytes(b, e.Body)
}

func (e *IdentityState) readFrom(r *reader) {
	e.Kind = r.string()
	e.AppID = r.string()
	e.ID = r.string()
	e.Other = r.string()
	e.Relation = r.string()
	e.Since = r.long()
	e.Call = r.string()
	e.MessageID = r.string()
	e.RecordedAt = r.long()
	e.RawPartition = r.long()
	e.RawOffset = r.long()
	e.Version = r.long()
	e.Body = r.bytes()
}
