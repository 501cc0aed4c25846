// Package amplitude speaks the wire protocol of Amplitude's SDKs: the HTTP API of
// the second version, its batch form, and the form APIs identify and
// groupidentify.
//
// An event that names both a device and a user ties them, as Amplitude does, and
// an identify that names an account makes its user a member: the enricher takes
// both from the ids. User properties on an event that is no identify make one of
// their own, with the event's insert id and the suffix ":set".
package amplitude

import (
	"net/http"
	"strings"

	"github.com/uptakehq/uptake/ingest-gateway/body"
	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
	"github.com/uptakehq/uptake/schemas/event"
)

// Protocol is Amplitude's.
type Protocol struct{}

// Name implements ingest.Protocol.
func (Protocol) Name() string { return "amplitude" }

// Fields implements ingest.Protocol.
func (Protocol) Fields() ingest.Fields {
	return ingest.Fields{
		Kind: "event_type", Event: "event_type", MessageID: "insert_id", UserID: "user_id",
		AnonymousID: "device_id", AccountID: "groups",
	}
}

// Routes implements ingest.Protocol.
func (Protocol) Routes() []ingest.Route {
	return []ingest.Route{
		{Method: http.MethodPost, Path: "/2/httpapi", Decode: decode, Answer: answer},
		{Method: http.MethodPost, Path: "/batch", Match: isBatch, Import: true, Decode: decode, Answer: answer},
		{Method: http.MethodPost, Path: "/identify", Decode: decodeForm(false), Answer: answerForm},
		{Method: http.MethodPost, Path: "/groupidentify", Decode: decodeForm(true), Answer: answerForm},
	}
}

// isBatch tells a batch from PostHog's on the same path.
func isBatch(r *ingest.Request) bool {
	text, err := r.Text()
	return err == nil && mapping.TopKey(text, "batch", "events") == "events"
}

// decoder is the state of one request.
type decoder struct {
	b      *ingest.Batch
	sentAt event.Micros
	named  []bool // of each item: it has an insert id

	top, properties, user, groups, groupProperties mapping.Object
	traits, context                                mapping.Writer
}

func decode(r *ingest.Request, b *ingest.Batch) error {
	text, err := r.Text()
	if err != nil {
		return err
	}
	env, err := mapping.Read(text, b.Limits(), "events")
	if err != nil {
		return err
	}
	if err := mapping.FirstKey(b, env.Fields.First("api_key", "apiKey").Text(), r.Bearer()); err != nil {
		return err
	}
	if !env.Listed {
		return ingest.Unreadable("the body has no array of events")
	}
	d := &decoder{b: b}
	d.sentAt, _ = mapping.Instant(env.Fields.Get("client_upload_time"))
	for _, it := range env.Items {
		d.event(it)
	}
	if invalid(b) {
		// The answer lists what is invalid, and the client sends the other events
		// again: those without an insert id could not be recognized then.
		for i, named := range d.named {
			if !named {
				b.Withdraw(i)
			}
		}
	}
	return nil
}

// event maps an event of the HTTP API.
func (d *decoder) event(it mapping.Item) {
	ev, ok := mapping.Begin(d.b, it, &d.top)
	d.named = append(d.named, false)
	if !ok {
		return
	}
	f := &mapping.Fields{Object: &d.top}
	ev.MessageID = f.ID("insert_id")
	d.named[len(d.named)-1] = ev.MessageID != ""
	ev.Event = f.ID("event_type")
	if !d.read(ev, f) {
		return
	}
	if !mapping.SetQuantity(d.b, ev, &d.properties) {
		return
	}
	ev.Properties = d.properties.Raw
	switch ev.Event {
	case "$identify":
		d.addIdentify(ev)
	case "$groupidentify":
		d.addGroup(ev)
	default:
		ev.Kind = event.KindTrack
		d.addTrack(ev)
	}
}

// read fills in what every kind of event has. It reports false when it rejected
// the item.
func (d *decoder) read(ev *event.RawEvent, f *mapping.Fields) bool {
	ev.UserID, ev.AnonymousID = f.ID("user_id"), f.ID("device_id")
	f.Sub("event_properties", &d.properties)
	f.Sub("user_properties", &d.user)
	f.Sub("group_properties", &d.groupProperties)
	f.Sub("groups", &d.groups)
	if f.RejectWrong(d.b) {
		return false
	}
	when := d.top.Take("time")
	if !mapping.Time(d.b, ev, "time", when) {
		return false
	}
	ev.SentAt = d.sentAt
	ev.AccountID = mapping.AccountOfGroups(d.b.App(), &d.groups)
	ev.Library = mapping.Cut(d.top.Take("library").Text(), 256)
	if a := mapping.ClientIP(d.b, d.top.Get("ip")); a.Known() {
		d.top.Take("ip")
		a.Set(ev)
	}
	if agent := d.top.Get("user_agent").Text(); agent != "" {
		ev.UserAgent = mapping.UserAgent(agent)
	}
	d.context.Reset()
	if d.groups.Len() > 0 {
		d.context.Raw("groups", d.groups.Raw)
	}
	if id, _ := mapping.ID(d.top.Get("session_id")); id == "-1" {
		d.top.Take("session_id") // out of any session
	}
	for _, key := range []string{"api_key", "apiKey", "options", "client_upload_time"} {
		d.top.Take(key)
	}
	d.top.Rest(&d.context)
	ev.Context = d.context.Object()
	if ev.MessageID == "" {
		ev.MessageID = d.b.NewID()
	}
	return true
}

// userTraits returns what the event says of its user, nil for nothing.
func (d *decoder) userTraits() []byte { return d.traitsOf(&d.user) }

func (d *decoder) traitsOf(o *mapping.Object) []byte {
	d.traits.Reset()
	mapping.Traits(&d.traits, o)
	o.Rest(&d.traits) // without operators
	return d.traits.Object()
}

// addTrack adds an event and what it says of its user.
func (d *decoder) addTrack(ev *event.RawEvent) {
	id := ev.MessageID
	if !d.b.Add() {
		return
	}
	if ev.Traits = d.userTraits(); ev.Traits == nil {
		return
	}
	ev.Kind, ev.Event, ev.MessageID = event.KindIdentify, "$identify", mapping.Suffixed(d.b, id, "set")
	ev.Properties, ev.Context, ev.Quantity = nil, nil, 1
	if ev.UserID != "" {
		ev.AnonymousID = "" // the event has said it
	}
	d.b.Add()
}

// addIdentify adds what is said of a user.
func (d *decoder) addIdentify(ev *event.RawEvent) {
	ev.Kind, ev.Traits = event.KindIdentify, d.userTraits()
	d.b.Add()
}

func (d *decoder) addGroup(ev *event.RawEvent) {
	if ev.AccountID == "" && d.groups.Len() > 0 {
		mapping.RejectGroupType(d.b, "groups", strings.Join(d.groups.Names(), ", "))
		return
	}
	ev.Kind, ev.Traits = event.KindGroup, d.traitsOf(&d.groupProperties)
	d.b.Add()
}

// decodeForm decodes identify and groupidentify: a form with api_key and
// identification, which is an object or an array of them.
func decodeForm(group bool) func(*ingest.Request, *ingest.Batch) error {
	return func(r *ingest.Request, b *ingest.Batch) error {
		key, text := r.FormValue("api_key"), r.FormValue("identification")
		if key == "" && text == "" {
			key, text = r.QueryValue("api_key"), r.QueryValue("identification")
		}
		if err := b.Authenticate(key); err != nil {
			return err
		}
		if text == "" {
			return ingest.Unreadable("the form has no identification")
		}
		env, err := mapping.Read(body.TrimMark([]byte(text)), b.Limits(), "")
		if err != nil {
			return err
		}
		d := &decoder{b: b}
		for _, it := range env.Items {
			ev, ok := mapping.Begin(b, it, &d.top)
			if !ok {
				continue
			}
			if f := (&mapping.Fields{Object: &d.top}); group {
				d.groupForm(ev, f)
			} else if ev.MessageID, ev.Event = f.ID("insert_id"), "$identify"; d.read(ev, f) {
				d.addIdentify(ev)
			}
		}
		return nil
	}
}

// groupForm maps an identification of groupidentify: one type, one or several
// ids.
func (d *decoder) groupForm(ev *event.RawEvent, f *mapping.Fields) {
	ev.MessageID, ev.Event = f.ID("insert_id"), "$groupidentify"
	groupType, value := f.ID("group_type"), d.top.Take("group_value")
	if !d.read(ev, f) {
		return
	}
	if !mapping.IsAccountType(d.b.App(), groupType) {
		mapping.RejectGroupType(d.b, "group_type", groupType)
		return
	}
	if ev.AccountID = mapping.FirstID(d.b.App(), value); ev.AccountID == "" {
		d.b.Reject(ingest.CodeMissingField, "group_value", "groupidentify needs group_value")
		return
	}
	ev.Kind, ev.Traits = event.KindGroup, d.traitsOf(&d.groupProperties)
	d.b.Add()
}
