// Package csb speaks CustomerSuccessBox's API: login, logout, account, user,
// subscription, invoice and feature, one call a request.
//
// A feature call is usage: its feature is the event's name, its total how many
// actions it stands for. The protocol has no message ids, so a call that is sent
// twice counts twice; its SDK never does so by itself.
package csb

import (
	"net/http"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
)

// Protocol is CustomerSuccessBox's.
type Protocol struct{}

// Name implements ingest.Protocol.
func (Protocol) Name() string { return "csb" }

// Fields implements ingest.Protocol.
func (Protocol) Fields() ingest.Fields {
	return ingest.Fields{Kind: "type", Event: "feature_id", Quantity: "total"}
}

// Routes implements ingest.Protocol.
func (Protocol) Routes() []ingest.Route {
	var routes []ingest.Route
	for _, r := range []struct {
		name string
		item func(*decoder, *event.RawEvent)
	}{
		{"login", session("User Login")},
		{"logout", session("User Logout")},
		{"feature", (*decoder).feature},
		{"account", (*decoder).account},
		{"user", (*decoder).user},
		{"subscription", part("subscription")},
		{"invoice", part("invoice")},
	} {
		routes = append(routes, ingest.Route{
			Method: http.MethodPost, Path: "/api/v1_1/" + r.name, Decode: decodeWith(r.item), Answer: answer,
		})
	}
	return routes
}

// decoder is the state of one request.
type decoder struct {
	b *ingest.Batch

	top          mapping.Object
	body, nested mapping.Writer
}

func decodeWith(item func(*decoder, *event.RawEvent)) func(*ingest.Request, *ingest.Batch) error {
	return func(r *ingest.Request, b *ingest.Batch) error {
		if err := mapping.FirstKey(b, r.Bearer(), r.BasicUser()); err != nil {
			return err
		}
		text, err := r.Text()
		if err != nil {
			return err
		}
		env, err := mapping.Read(text, b.Limits(), "")
		if err != nil {
			return err
		}
		d := &decoder{b: b}
		for _, it := range env.Items {
			if ev, ok := mapping.Begin(b, it, &d.top); ok && d.read(ev) {
				item(d, ev)
			}
		}
		return nil
	}
}

// read reads what every call has. It reports false when it rejected the item.
func (d *decoder) read(ev *event.RawEvent) bool {
	d.body.Reset()
	d.nested.Reset()
	f := mapping.Fields{Object: &d.top}
	ev.UserID, ev.AccountID = f.ID("user_id"), f.ID("account_id")
	if f.RejectWrong(d.b) {
		return false
	}
	when := d.top.Take("timestamp")
	return mapping.Time(d.b, ev, "timestamp", when)
}

func session(name string) func(*decoder, *event.RawEvent) {
	return func(d *decoder, ev *event.RawEvent) {
		ev.Kind, ev.Event = event.KindTrack, d.top.Take("event").Text()
		if ev.Event == "" {
			ev.Event = name
		}
		d.top.Take("type")
		d.top.Rest(&d.body)
		ev.Properties = d.body.Object()
		d.b.Add()
	}
}

func (d *decoder) feature(ev *event.RawEvent) {
	f := mapping.Fields{Object: &d.top}
	ev.Kind, ev.Event = event.KindTrack, f.ID("feature_id")
	if f.RejectWrong(d.b) {
		return
	}
	total := d.top.Take("total")
	n, ok := mapping.Quantity(total)
	switch {
	case !ok:
		d.b.Reject(ingest.CodeBadQuantity, "total", "must be a whole number")
		return
	case n == 0:
		d.b.Ignore() // as the protocol says: nothing happened
		return
	}
	ev.Quantity = n
	d.top.Take("type")
	d.top.Rest(&d.body)
	ev.Properties = d.body.Object()
	d.b.Add()
}

// account maps an account, whose traits stand beside its id.
func (d *decoder) account(ev *event.RawEvent) {
	ev.Kind, ev.UserID = event.KindGroup, ""
	d.top.Rest(&d.body)
	ev.Traits = d.body.Object()
	d.b.Add()
}

// user maps a user, who is a member of the account that is named.
func (d *decoder) user(ev *event.RawEvent) {
	ev.Kind = event.KindIdentify
	d.top.Rest(&d.body)
	ev.Traits = d.body.Object()
	d.b.Add()
}

// part maps what an account has: a trait of it, an object under the name.
func part(name string) func(*decoder, *event.RawEvent) {
	return func(d *decoder, ev *event.RawEvent) {
		ev.Kind, ev.Event, ev.UserID = event.KindGroup, name, ""
		if ev.AccountID == "" && d.top.Get("subscription_id").Kind != scan.Invalid {
			d.b.Reject(ingest.CodeMissingField, "account_id", "an "+name+" without account_id is nobody's: subscriptions are not looked up")
			return
		}
		d.top.Rest(&d.nested)
		if o := d.nested.Object(); o != nil {
			d.body.Raw(name, o)
			ev.Traits = d.body.Object()
		}
		d.b.Add()
	}
}

// answer says success also of a call that was put aside, and why it was: its SDK
// would throw on anything else and could do nothing about it.
func answer(_ *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		w.Status = fault.Kind.Status()
		w.WriteString(`{"success":false,"error":`)
		w.WriteQuoted(fault.Error())
		w.WriteString("}")
		return
	}
	for i := range b.Len() {
		if v := b.Verdict(i); v.State == ingest.Rejected {
			w.WriteString(`{"success":true,"warning":`)
			w.WriteQuoted(v.Code + ": " + v.Detail)
			w.WriteString("}")
			return
		}
	}
	w.WriteString(`{"success":true}`)
}
