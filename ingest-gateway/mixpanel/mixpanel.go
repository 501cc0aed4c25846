// Package mixpanel speaks the wire protocol of Mixpanel's SDKs: track, import,
// engage and groups.
//
// An event that names both a device and a user ties them, as Mixpanel's ID merge
// does: the enricher takes that from any event with both ids.
package mixpanel

import (
	"net/http"
	"strings"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
)

// Protocol is Mixpanel's. It shares /track and /engage with PostHog's first API
// and takes what that does not claim.
type Protocol struct{}

// Name implements ingest.Protocol.
func (Protocol) Name() string { return "mixpanel" }

// Fields implements ingest.Protocol.
func (Protocol) Fields() ingest.Fields {
	return ingest.Fields{
		Kind: "event", Event: "event", MessageID: "properties.$insert_id", UserID: "distinct_id",
		AnonymousID: "$device_id", PreviousID: "properties.distinct_id", AccountID: "$group_id",
	}
}

// Routes implements ingest.Protocol.
func (Protocol) Routes() []ingest.Route {
	var routes []ingest.Route
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		for _, r := range []struct {
			path string
			item func(*decoder, mapping.Item)
		}{
			{"/track", (*decoder).event},
			{"/engage", (*decoder).profile},
			{"/groups", (*decoder).group},
			{"/import", (*decoder).event},
		} {
			route := ingest.Route{Method: method, Path: r.path, Decode: decodeWith(r.item), Answer: answer}
			if r.path == "/import" {
				route.Answer, route.Import = answerImport, true
			}
			routes = append(routes, route)
		}
	}
	// Session recordings are taken and dropped.
	return append(routes, ingest.Route{
		Method: http.MethodPost, Path: "/record", Answer: answer,
		Decode: func(*ingest.Request, *ingest.Batch) error { return nil },
	})
}

// decoder is the state of one request.
type decoder struct {
	r     *ingest.Request
	b     *ingest.Batch
	token string // of the first event
	noIP  bool   // the request's address is not the user's

	claimed map[string]string // persons by visitor, of claims in this request

	top, properties         mapping.Object
	traits, context, nested mapping.Writer
}

func decodeWith(item func(*decoder, mapping.Item)) func(*ingest.Request, *ingest.Batch) error {
	return func(r *ingest.Request, b *ingest.Batch) error {
		text, err := r.Text()
		if err != nil {
			return err
		}
		env, err := mapping.Read(text, b.Limits(), "")
		if err != nil {
			return err
		}
		d := &decoder{r: r, b: b, noIP: option(r, "ip") == "0"}
		if len(env.Items) > 0 {
			d.top.Parse(env.Items[0].Raw)
			d.properties.Of(d.top.Get("properties"))
			d.token = strings.Clone(tokenOf(&d.top, &d.properties))
		}
		user, password := r.Basic()
		if err := mapping.FirstKey(b, d.token, user, password, option(r, "api_key"), option(r, "token")); err != nil {
			return err
		}
		for _, it := range env.Items {
			item(d, it)
		}
		return nil
	}
}

// option is a parameter of the query or, as the Python, Ruby and PHP SDKs send
// them, a field of the form.
func option(r *ingest.Request, name string) string {
	v, _ := r.Option(name)
	return v
}

func tokenOf(top, properties *mapping.Object) string {
	if t := properties.First("token", "$token").Text(); t != "" {
		return t
	}
	return top.First("$token", "token").Text()
}

// begin starts an item, holds its token against the request's and erases it.
func (d *decoder) begin(it mapping.Item) (*event.RawEvent, *mapping.Fields, bool) {
	ev, ok := mapping.Begin(d.b, it, &d.top)
	if !ok {
		return nil, nil, false
	}
	f := &mapping.Fields{Object: &d.top}
	f.Sub("properties", &d.properties)
	if f.RejectWrong(d.b) {
		return nil, nil, false
	}
	token := tokenOf(&d.top, &d.properties)
	other := token != "" && token != d.token
	for _, name := range []string{"token", "$token"} {
		if d.properties.Has(name) {
			mapping.Erase(d.properties.Raw, name)
		}
		if d.top.Has(name) {
			d.top.Take(name)
			mapping.Erase(it.Raw, name)
		}
	}
	if other {
		d.b.Reject(ingest.CodeBadEvent, "token", "another token than that of the request's first event")
		return nil, nil, false
	}
	if d.noIP {
		ingest.Address{}.Set(ev)
	}
	return ev, f, true
}

// event maps an item of track and import.
func (d *decoder) event(it mapping.Item) {
	ev, f, ok := d.begin(it)
	if !ok {
		return
	}
	ev.Kind, ev.Event = event.KindTrack, f.ID("event")
	p := mapping.Fields{Object: &d.properties}
	ev.MessageID = p.ID("$insert_id")
	user, device, distinct := p.ID("$user_id"), p.ID("$device_id"), p.ID("distinct_id")
	// Exports name the person to whom Mixpanel gave an event later, and beside it the
	// id under which it was sent, by which one that also came live is known.
	person := ""
	if before := p.ID("$distinct_id_before_identity"); before != "" && before != distinct && d.b.IsHistory() {
		person, distinct = distinct, before
	}
	d.identity(ev, user, device, distinct)
	if p.Wrong != "" {
		d.b.Reject(ingest.CodeWrongType, "properties."+p.Wrong, "must be text or a number")
		return
	}
	if f.RejectWrong(d.b) {
		return
	}
	when := d.properties.Get("time")
	if !mapping.Time(d.b, ev, "properties.time", when) {
		return
	}
	ev.AccountID = mapping.Account(d.b.App(), accountKeys, &d.properties)
	ev.Library = mapping.Library(d.b, d.properties.Get("mp_lib"), d.properties.Get("$lib_version"))
	if a := mapping.ClientIP(d.b, d.properties.First("ip", "$ip")); a.Known() {
		a.Set(ev)
	}
	if !mapping.SetQuantity(d.b, ev, &d.properties) {
		return
	}
	ev.Properties = d.properties.Raw
	d.context.Reset()
	namesake := false
	switch ev.Event {
	case "$identify":
		d.identify(ev)
		namesake = ev.AnonymousID != device // events of a device are known as such
	case "$create_alias":
		// Mixpanel's alias is the name that the id so far gets.
		device := ev.AnonymousID
		ev.Kind, ev.PreviousID, ev.AnonymousID = event.KindAlias, ev.UserID, ""
		if ev.PreviousID == "" {
			ev.PreviousID = device
		}
		ev.UserID, _ = mapping.ID(d.properties.Get("alias"))
		ev.UserID = undeviced(ev.UserID)
	case "$merge":
		if !d.merge(ev) {
			return
		}
	case "$mp_web_page_view":
		ev.Kind = event.KindPage
		d.page()
	}
	d.top.Rest(&d.context)
	ev.Context = d.context.Object()
	if ev.MessageID == "" {
		ev.MessageID = d.b.NewID()
	}
	id, visitor := ev.MessageID, ev.AnonymousID
	if ev.UserID != "" {
		visitor = ev.UserID
	}
	switch usage := event.IsUsage(ev.Kind); {
	case !d.b.Add():
	case usage:
		d.claim(ev, id, visitor, person)
	case namesake:
		mapping.Namesake(d.b, ev, id)
	}
}

// claim adds that a visitor of an export was the person, once in a request.
func (d *decoder) claim(ev *event.RawEvent, id, visitor, person string) {
	if person == "" || person == visitor || strings.HasPrefix(person, devicePrefix) || d.claimed[visitor] == person {
		return
	}
	if d.claimed == nil {
		d.claimed = map[string]string{}
	}
	d.claimed[visitor] = person
	ev.Kind, ev.Event, ev.MessageID = event.KindIdentify, "$identify", mapping.Suffixed(d.b, id, "claim")
	wasUser := ev.UserID != ""
	ev.UserID, ev.AnonymousID, ev.AccountID = person, visitor, ""
	ev.Properties, ev.Context, ev.Quantity = nil, nil, 1
	if d.b.Add() && wasUser {
		mapping.Namesake(d.b, ev, id)
	}
}

// identity sets user and anonymous id. Until someone logs in a distinct id is the
// device's, in present SDKs with a prefix that marks it.
func (d *decoder) identity(ev *event.RawEvent, user, device, distinct string) {
	ev.AnonymousID = device
	switch {
	case d.b.App().IsID(user) || (user != "" && !d.b.App().IsID(distinct)):
		ev.UserID = user
	case strings.HasPrefix(distinct, devicePrefix):
		ev.AnonymousID = undeviced(distinct)
	case distinct != device:
		ev.UserID = distinct
	}
}

const devicePrefix = "$device:"

func undeviced(id string) string { return strings.TrimPrefix(id, devicePrefix) }

func (d *decoder) identify(ev *event.RawEvent) {
	ev.Kind = event.KindIdentify
	app, p := d.b.App(), &d.properties
	if id := mapping.FirstOf(app, p.Get("$identified_id")); app.IsID(id) || ev.UserID == "" {
		ev.UserID = id
	}
	if id := undeviced(mapping.FirstOf(app, p.Get("$anon_distinct_id"), p.Get("$anon_id"))); app.IsID(id) || ev.AnonymousID == "" {
		ev.AnonymousID = id
	}
	if ev.AnonymousID == ev.UserID {
		ev.AnonymousID = ""
	}
}

// merge maps the union of two ids that Mixpanel's original merge has: one of a
// device becomes that of the other, else the second that of the first.
func (d *decoder) merge(ev *event.RawEvent) bool {
	var ids []string
	var s scan.Scanner
	raw := d.properties.Get("$distinct_ids").Raw
	s.Reset(raw, len(raw))
	if s.Array() {
		for s.More() {
			if id, _ := mapping.ID(s.Value()); id != "" && len(ids) <= 2 {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) != 2 {
		d.b.Reject(ingest.CodeMissingField, "properties.$distinct_ids", "$merge needs two ids")
		return false
	}
	if strings.HasPrefix(ids[0], devicePrefix) {
		ids[0], ids[1] = ids[1], ids[0]
	}
	ev.Kind, ev.UserID, ev.PreviousID, ev.AnonymousID = event.KindAlias, undeviced(ids[0]), undeviced(ids[1]), ""
	return true
}

// page writes what the native API has in context.page.
func (d *decoder) page() {
	d.nested.Reset()
	d.nested.Value("url", d.properties.Get("$current_url"))
	d.nested.Value("path", d.properties.Get("current_url_path"))
	d.nested.Value("title", d.properties.Get("current_page_title"))
	d.nested.Value("referrer", d.properties.Get("$referrer"))
	if page := d.nested.Object(); page != nil {
		d.context.Raw("page", page)
	}
}

// profile maps an item of engage.
func (d *decoder) profile(it mapping.Item) {
	ev, f, ok := d.begin(it)
	if !ok {
		return
	}
	ev.Kind, ev.Event = event.KindIdentify, "$engage"
	ev.MessageID = f.ID("$insert_id")
	d.identity(ev, f.ID("$user_id"), f.ID("$device_id"), f.ID("$distinct_id"))
	if ev.UserID != "" {
		ev.AnonymousID = "" // a profile's change ties nobody to a device
	}
	if a := mapping.ClientIP(d.b, d.top.Get("$ip")); a.Known() {
		a.Set(ev)
	}
	d.finishProfile(ev, f)
}

// group maps an item of groups.
func (d *decoder) group(it mapping.Item) {
	ev, f, ok := d.begin(it)
	if !ok {
		return
	}
	ev.Kind, ev.Event = event.KindGroup, "$group"
	ev.MessageID = f.ID("$insert_id")
	key := f.ID("$group_key")
	ev.AccountID = f.ID("$group_id")
	if f.Wrong == "" && !mapping.IsAccountKey(d.b.App(), accountKeys, key) {
		mapping.RejectGroupType(d.b, "$group_key", key)
		return
	}
	d.finishProfile(ev, f)
}

// accountKeys hold where the app names none: a group key of Mixpanel is a property
// that the project declares as one, most often company.
var accountKeys = []string{"account_id", "company_id", "organization_id", "account", "company", "organization"}

// notOperators are fields of a profile's change that are no traits.
var notOperators = []string{
	"$time", "$ip", "$ignore_time", "$ignore_alias", "$had_persisted_distinct_id", "$latitude", "$longitude", "$geolocation_by_ip", "properties",
}

func (d *decoder) finishProfile(ev *event.RawEvent, f *mapping.Fields) {
	if f.RejectWrong(d.b) {
		return
	}
	when := d.top.Get("$time")
	if !mapping.Time(d.b, ev, "$time", when) {
		return
	}
	d.traits.Reset()
	d.context.Reset()
	for _, name := range notOperators {
		d.context.Value(name, d.top.Take(name))
	}
	mapping.Traits(&d.traits, &d.top)
	ev.Traits = d.traits.Object()
	d.top.Rest(&d.context)
	ev.Context = d.context.Object()
	d.b.Add()
}
