package replay

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/instant"
)

// repairRaw patches the raw record that an enricher rejected.
func (r *run) repairRaw(x *row) (*repaired, string) {
	e := &event.RawEvent{}
	if x.original == "" {
		return nil, "its bytes were not kept"
	}
	if err := r.codec.DecodeRaw([]byte(x.original), e); err != nil {
		return nil, "its bytes are no raw record, or were cut"
	}
	changes, err := evaluated(r.cfg.Patch.changes, document(e))
	if err != nil {
		return nil, "the patch fails: " + err.Error()
	}
	if err := apply(e, changes.(map[string]any)); err != nil {
		return nil, "the patch does not fit: " + err.Error()
	}
	if e.ReceivedAt <= 0 || e.ReceivedAt >= event.MaxReceived {
		e.ReceivedAt = x.received.UnixMicro()
	}
	if e.MessageID == "" { // it never had one: its place in the log is as good
		e.MessageID = fmt.Sprintf("rejected-%s-%d-%d", x.place.topicID, x.place.partition, x.place.offset)
	}
	return &repaired{row: x, id: id{e.AppID, e.MessageID}, to: toRaw, raw: e, doc: document(e)}, ""
}

// texts, instants and objects are the fields of a raw event by the names that
// patches know them under.
func texts(e *event.RawEvent) map[string]*string {
	return map[string]*string{
		"app_id": &e.AppID, "kind": &e.Kind, "event": &e.Event, "message_id": &e.MessageID, "user_id": &e.UserID,
		"anonymous_id": &e.AnonymousID, "previous_id": &e.PreviousID, "account_id": &e.AccountID,
		"protocol": &e.Protocol, "library": &e.Library, "ip": &e.IP, "user_agent": &e.UserAgent, "country": &e.Country,
	}
}

func instants(e *event.RawEvent) map[string]*event.Micros {
	return map[string]*event.Micros{"timestamp": &e.Timestamp, "sent_at": &e.SentAt, "received_at": &e.ReceivedAt}
}

func objects(e *event.RawEvent) map[string]*[]byte {
	return map[string]*[]byte{"properties": &e.Properties, "traits": &e.Traits, "context": &e.Context}
}

// apply merges changes into e. Fields that they do not name keep their bytes.
func apply(e *event.RawEvent, changes map[string]any) error {
	for name, v := range changes {
		if to, ok := texts(e)[name]; ok {
			text, ok := v.(string)
			if !ok && v != nil {
				return fmt.Errorf("%s must be text", name)
			}
			*to = text
			continue
		}
		if to, ok := instants(e)[name]; ok {
			text, ok := v.(string)
			at, readable := instant.Parse(text)
			if (!ok || !readable) && v != nil {
				return fmt.Errorf("%s must be an instant like 2026-11-21T10:00:00Z", name)
			}
			*to = at
			continue
		}
		if to, ok := objects(e)[name]; ok {
			if _, ok := v.(map[string]any); !ok && v != nil {
				return fmt.Errorf("%s must be an object", name)
			}
			if v == nil {
				*to = nil
				continue
			}
			before, err := decode(*to)
			if err != nil {
				before = nil // what is no JSON is replaced
			}
			after, err := encode(merge(before, v))
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			*to = after
			continue
		}
		if name == "quantity" {
			number, _ := v.(json.Number)
			n, err := number.Int64()
			if err != nil {
				return fmt.Errorf("quantity must be a whole number")
			}
			e.Quantity = n
			continue
		}
		return fmt.Errorf("a raw event has no field %q", name)
	}
	return nil
}

// document is e for people.
func document(e *event.RawEvent) map[string]any {
	doc := map[string]any{"quantity": e.Quantity}
	for name, v := range texts(e) {
		if *v != "" {
			doc[name] = *v
		}
	}
	for name, v := range instants(e) {
		if *v != 0 {
			doc[name] = event.ToTime(*v).Format(time.RFC3339Nano)
		}
	}
	for name, v := range objects(e) {
		switch {
		case len(*v) == 0:
		case json.Valid(*v):
			doc[name] = json.RawMessage(*v)
		default:
			doc[name] = string(*v)
		}
	}
	return doc
}
