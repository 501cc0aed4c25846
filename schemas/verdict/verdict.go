// Package verdict declares the records by which an engineer sees whether an event
// arrived: what the enricher decided about each event (topic.Verdicts), and who asks for
// that (topic.VerdictRequests). Both are JSON, are kept for an hour, and are read by the
// console only; no total depends on them.
package verdict

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// Verdicts, the values of Record.Verdict.
const (
	Counted   = "counted"   // usage, attributed to a feature
	Unmapped  = "unmapped"  // usage without a feature
	Noted     = "noted"     // no usage: identify, group, alias and metric
	Duplicate = "duplicate" // an event with this message id was counted before
	Rejected  = "rejected"  // Code, Field and Detail have the reason
	OptedOut  = "opted_out" // of somebody who opted out or was erased: nothing else is filled in
	LeftOut   = "left_out"  // Count events were processed beyond PerSecond, without a verdict
)

// Bounds.
const (
	// PerSecond is how many verdicts of one app all enrichers together write in a second.
	PerSecond = 100
	// RequestFor is how long enrichers write verdicts after a request for them.
	RequestFor = 30 * time.Second
	// MaxEvent is how many bytes of JSON of an event are kept in its verdict.
	MaxEvent = 64 << 10
)

// Record is a verdict. Event is JSON with the names of the events table, as the privacy
// rules leave it; nil where nothing may be kept or it is larger than MaxEvent.
type Record struct {
	App        string       `json:"app"`
	Verdict    string       `json:"verdict"`
	ReceivedAt event.Micros `json:"received_at"`

	Kind        string `json:"kind,omitempty"`
	Name        string `json:"event_name,omitempty"`
	MessageID   string `json:"message_id,omitempty"`
	UserID      string `json:"user_id,omitempty"`
	AnonymousID string `json:"anonymous_id,omitempty"`

	// Whom the event counts for, and why.
	ActorID       string `json:"actor_id,omitempty"`
	ActorKind     string `json:"actor_kind,omitempty"`
	AccountID     string `json:"account_id,omitempty"`
	AccountSource string `json:"account_source,omitempty"` // event.AccountFromEvent, ...
	FeatureID     string `json:"feature_id,omitempty"`

	Nearest   string   `json:"nearest,omitempty"` // of an unmapped event: the feature with the most similar name
	Flags     string   `json:"flags,omitempty"`
	Conflicts []string `json:"conflicts,omitempty"` // metadata keys whose values are of another type than their columns

	Stage  string `json:"stage,omitempty"` // of a rejected event: event.StageGateway or event.StageEnricher
	Code   string `json:"code,omitempty"`
	Field  string `json:"field,omitempty"`
	Detail string `json:"detail,omitempty"`

	Count int64           `json:"count,omitempty"` // of LeftOut
	Event json.RawMessage `json:"event,omitempty"`
}

// Append appends the record as JSON.
func (r *Record) Append(dst []byte) ([]byte, error) { return AppendJSON(dst, r) }

// AppendJSON appends v as JSON that people can read: < and & as they are.
func AppendJSON(dst []byte, v any) ([]byte, error) {
	b := bytes.NewBuffer(dst)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return dst, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Decode reads a record.
func Decode(value []byte) (r Record, err error) {
	return r, json.Unmarshal(value, &r)
}

// Request asks for the verdicts of an app, for RequestFor from when it is read. Who asks
// repeats it for as long as somebody looks.
type Request struct {
	App string `json:"app"`
}

// Value is the request as JSON.
func (r Request) Value() []byte {
	b, _ := json.Marshal(r) // cannot fail: a string
	return b
}

// DecodeRequest reads a request.
func DecodeRequest(value []byte) (r Request, err error) {
	return r, json.Unmarshal(value, &r)
}
