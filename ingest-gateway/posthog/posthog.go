// Package posthog speaks the wire protocol of PostHog's SDKs.
//
// It owns the capture endpoints of both generations and the side calls that the
// SDKs make at start (flags, remote config), which it answers with everything
// switched off. Session recordings are taken and dropped.
//
// A capture that sets person properties is two events: the event itself and an
// identify, whose message id is the capture's with the suffix ":set". An $identify
// with $anon_distinct_id is an identify and an alias, with the suffix ":alias": PostHog
// has one namespace of ids, and many SDKs do not say which distinct_id is a visitor's,
// so what was counted for that id may have been counted for a user of that name.
package posthog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/instant"
)

// Protocol is PostHog's.
type Protocol struct{}

// Name implements ingest.Protocol.
func (Protocol) Name() string { return "posthog" }

// Fields implements ingest.Protocol.
func (Protocol) Fields() ingest.Fields {
	return ingest.Fields{
		Kind: "event", Event: "event", MessageID: "uuid", UserID: "distinct_id",
		AnonymousID: "properties.$anon_distinct_id", PreviousID: "properties.alias", AccountID: "properties.$groups",
	}
}

// Routes implements ingest.Protocol.
func (Protocol) Routes() []ingest.Route {
	var routes []ingest.Route
	for _, path := range []string{"/e", "/i/v0/e", "/i/v0/ai/batch", "/capture", "/batch", "/track", "/engage"} {
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			route := ingest.Route{Method: method, Path: path, Decode: decode, Answer: answer}
			switch path {
			case "/batch":
				route.Match, route.Import = isBatch, true
			case "/track", "/engage":
				route.Match = hasPostHogKey
			}
			routes = append(routes, route)
		}
	}
	return append(append(routes, ingest.Route{
		Method: http.MethodPost, Path: "/i/v1/analytics/events", Decode: decodeV1, Answer: answerV1,
	}), sideRoutes()...)
}

// isBatch tells a batch from Amplitude's on the same path.
func isBatch(r *ingest.Request) bool {
	text, err := r.Text()
	return err == nil && mapping.TopKey(text, "batch", "events") != "events"
}

// hasPostHogKey tells PostHog's first API from Mixpanel's, which it took its
// paths from: only PostHog names the key api_key, and only its own keys start
// with phc_.
func hasPostHogKey(r *ingest.Request) bool {
	if packed(r) {
		return true // Mixpanel knows no such
	}
	text, err := r.Text()
	if err != nil {
		return false
	}
	first := mapping.FirstObject(text)
	if first.Has("api_key") || isProjectKey(first.Get("token")) {
		return true
	}
	var properties mapping.Object
	properties.Of(first.Get("properties"))
	return isProjectKey(properties.Get("token"))
}

func isProjectKey(v scan.Value) bool {
	return len(v.Text()) > 4 && v.Text()[:4] == "phc_"
}

// decoder is the state of one request.
type decoder struct {
	r        *ingest.Request
	b        *ingest.Batch
	sentAt   event.Micros
	sdk      string     // name/version that the request carries
	migrated scan.Value // historical_migration of the envelope
	retries  mapping.RetryIDs

	top, properties, groups, set, options mapping.Object
	traits, context, page                 mapping.Writer
}

func decode(r *ingest.Request, b *ingest.Batch) error {
	text, err := requestText(r, r.Bodies().Text)
	if err != nil {
		return err
	}
	env, err := mapping.Read(text, b.Limits(), "batch")
	if err != nil {
		return err
	}
	if err := authenticate(r, b, env); err != nil {
		return err
	}
	if err := oneProject(env); err != nil {
		return err
	}
	if env.Fields.Get("historical_migration").Kind == scan.True {
		b.History()
	}
	d := &decoder{r: r, b: b, migrated: env.Fields.Get("historical_migration"), retries: mapping.NewRetryIDs(r.Body)}
	sentAt := env.Fields.Get("sent_at")
	if d.sentAt, _ = mapping.Instant(sentAt); d.sentAt == 0 {
		d.sentAt = sentAtOfQuery(r)
	}
	for _, it := range env.Items {
		d.item(it)
	}
	return nil
}

func decodeV1(r *ingest.Request, b *ingest.Batch) error {
	text, err := r.Text()
	if err != nil {
		return err
	}
	env, err := mapping.Read(text, b.Limits(), "batch")
	if err != nil {
		return err
	}
	if err := mapping.FirstKey(b, r.Bearer(), bodyKey(env)); err != nil {
		return err
	}
	if env.Fields.Get("historical_migration").Kind == scan.True {
		b.History()
	}
	d := &decoder{r: r, b: b, migrated: env.Fields.Get("historical_migration"), retries: mapping.NewRetryIDs(r.Body), sdk: mapping.Valid(r.Header("PostHog-Sdk-Info"))}
	var ok bool
	if d.sentAt, ok = instant.Parse(r.Header("PostHog-Request-Timestamp")); !ok {
		d.sentAt, _ = mapping.Instant(env.Fields.Get("created_at"))
	}
	for _, it := range env.Items {
		d.item(it)
	}
	return nil
}

// authenticate looks for the key where the SDKs of one time or another put it.
func authenticate(r *ingest.Request, b *ingest.Batch, env *mapping.Envelope) error {
	return mapping.FirstKey(b, bodyKey(env), r.Bearer(), r.QueryValue("api_key"), r.QueryValue("token"))
}

func bodyKey(env *mapping.Envelope) string {
	if key := env.Fields.First("api_key", "token").Text(); key != "" {
		return key
	}
	if len(env.Items) == 0 {
		return ""
	}
	var first, properties mapping.Object
	first.Parse(env.Items[0].Raw)
	if key := first.First("api_key", "token").Text(); key != "" {
		return key
	}
	properties.Of(first.Get("properties"))
	return properties.First("token", "api_key").Text()
}

// oneProject refuses an array of events with several projects' keys, as PostHog does:
// whose the request is could not be said.
func oneProject(env *mapping.Envelope) error {
	var o, properties mapping.Object
	first := ""
	for _, it := range env.Items {
		o.Parse(it.Raw)
		properties.Of(o.Get("properties"))
		for _, v := range []scan.Value{o.First("api_key", "token"), properties.Get("token")} {
			switch key := v.Text(); {
			case key == "":
			case first == "":
				first = key
			case key != first:
				return ingest.Unreadable("the events have the keys of several projects")
			}
		}
	}
	return nil
}

// sentAtOfQuery reads when the client sent the request: milliseconds in "_" or
// "sent_at".
func sentAtOfQuery(r *ingest.Request) event.Micros {
	for _, name := range []string{"_", "sent_at"} {
		if us, ok := instant.Number(r.QueryValue(name)); ok && us > 0 {
			return us
		}
	}
	return 0
}

// item maps one captured event.
func (d *decoder) item(it mapping.Item) {
	ev, ok := mapping.Begin(d.b, it, &d.top)
	if !ok {
		return
	}
	f := mapping.Fields{Object: &d.top}
	ev.MessageID = f.ID("uuid")
	f.Sub("properties", &d.properties)
	name := f.ID("event")
	if ev.MessageID == "" {
		if ev.MessageID = f.ID("messageId", "message_id"); ev.MessageID == "" {
			ev.MessageID, _ = mapping.ID(d.properties.Get("$insert_id"))
		}
	}
	if f.RejectWrong(d.b) {
		return
	}
	distinctID := d.distinctID()
	d.eraseKeys(it.Raw)
	// posthog-go sends no ids, and the same bytes again.
	if ev.MessageID == "" && mapping.Fine(d.top.Get("timestamp").Text()) {
		ev.MessageID = d.retries.Next(d.b)
	}
	d.groups.Of(d.properties.Get("$groups"))
	d.options.Of(d.top.Get("options"))

	if !mapping.Time(d.b, ev, "timestamp", d.top.Take("timestamp")) {
		return
	}
	d.setClock(ev)
	d.setSource(ev)
	if !mapping.SetQuantity(d.b, ev, &d.properties) {
		return
	}
	ev.AccountID = mapping.AccountOfGroups(d.b.App(), &d.groups)
	switch {
	case distinctID == cookieless:
		ev.AnonymousID = d.cookielessID(ev)
	case d.isAnonymous(distinctID):
		ev.AnonymousID = distinctID
	default:
		ev.UserID = distinctID
		ev.AnonymousID = d.linked("$device_id")
	}
	ev.Properties = d.properties.Raw
	ev.Traits = d.personTraits()
	ev.Context = d.writeContext(name)
	d.add(ev, name)
}

// add says which call the event is and adds it.
func (d *decoder) add(ev *event.RawEvent, name string) {
	ev.Event = name
	switch name {
	case "$snapshot", "$snapshot_items":
		d.b.Ignore()
		return
	case "$identify":
		ev.Kind = event.KindIdentify
		if ev.UserID != "" {
			// Only what the SDK says it was until now is tied to the user: a
			// device id outlives the people who use it.
			ev.AnonymousID = d.linked("$anon_distinct_id")
		}
	case "$set", "$set_once", "$unset":
		ev.Kind = event.KindIdentify
		if ev.UserID != "" {
			ev.AnonymousID = ""
		}
	case "$groupidentify":
		d.addGroup(ev)
		return
	case "$create_alias", "$merge_dangerously":
		ev.Kind = event.KindAlias
		ev.PreviousID = idOf(d.properties.Get("alias"))
		if d.properties.Get("alias").Text() == cookieless || ev.AnonymousID != "" && ev.UserID == "" && d.isCookieless() {
			d.b.Ignore()
			return
		}
		switch {
		case ev.UserID == "":
			// Of a visitor who gets a name, the name is the alias.
			ev.UserID, ev.PreviousID = ev.PreviousID, ev.AnonymousID
		case d.namesPreviousFirst():
			ev.UserID, ev.PreviousID = ev.PreviousID, ev.UserID
		}
		ev.AnonymousID, ev.Traits = "", nil
	case "$pageview":
		ev.Kind = event.KindPage
	case "$screen":
		ev.Kind = event.KindScreen
		if s := d.properties.Get("$screen_name").Text(); s != "" {
			ev.Event = s
		}
	case "":
		anonymous := d.linked("$anon_distinct_id")
		if ev.Traits != nil || anonymous != "" {
			ev.Kind, ev.Event = event.KindIdentify, "$identify" // engage has no event
			if ev.UserID != "" {
				ev.AnonymousID = anonymous
			}
			break
		}
		ev.Kind = event.KindTrack
	default:
		ev.Kind = event.KindTrack
	}
	traits := ev.Traits
	if ev.Kind != event.KindIdentify {
		ev.Traits = nil
	}
	if ev.MessageID == "" {
		ev.MessageID = d.b.NewID()
	}
	id := ev.MessageID
	if !d.b.Add() {
		return
	}
	if ev.Kind == event.KindIdentify {
		mapping.Namesake(d.b, ev, id)
		return
	}
	if traits == nil {
		return
	}
	ev.Kind, ev.Event, ev.MessageID = event.KindIdentify, "$set", mapping.Suffixed(d.b, id, "set")
	ev.Properties, ev.Traits, ev.Quantity = nil, traits, 1
	if ev.UserID != "" {
		ev.AnonymousID = ""
	}
	d.b.Add()
}

func (d *decoder) addGroup(ev *event.RawEvent) {
	ev.Kind = event.KindGroup
	groupType := d.properties.Get("$group_type").Text()
	key, _ := mapping.ID(d.properties.Get("$group_key"))
	switch {
	case groupType == "":
		d.b.Reject(ingest.CodeMissingField, "properties.$group_type", "$groupidentify needs properties.$group_type")
		return
	case !mapping.IsAccountType(d.b.App(), groupType):
		mapping.RejectGroupType(d.b, "properties.$group_type", groupType)
		return
	case key == "":
		d.b.Reject(ingest.CodeMissingField, "properties.$group_key", "$groupidentify needs properties.$group_key")
		return
	}
	ev.AccountID = key
	// SDKs without a user at hand make one up; the Python one a UUID for each call.
	if ev.UserID == "$"+groupType+"_"+key || isRandom(ev.UserID) && d.properties.Get("$lib").Text() == "posthog-python" {
		ev.UserID, ev.AnonymousID = "", ""
	}
	d.set.Of(d.properties.Get("$group_set"))
	if d.set.Len() > 0 {
		ev.Traits = d.set.Raw
	} else {
		ev.Traits = nil
	}
	d.b.Add()
}

// setClock sets the event's sent_at, and its timestamp from an offset.
func (d *decoder) setClock(ev *event.RawEvent) {
	if d.properties.Get("$ignore_sent_at").Kind != scan.True && d.options.Get("disable_skew_correction").Kind != scan.True {
		if ev.SentAt = d.sentAt; ev.SentAt == 0 {
			ev.SentAt, _ = mapping.Instant(d.top.Get("sent_at")) // of an event in a bare array
		}
	}
	if ev.Timestamp != 0 {
		return
	}
	const most = 1000 * 86400 * 365
	if ms, ok := d.top.Get("offset").Float(); ok && ms >= 0 && ms <= most {
		d.top.Take("offset")
		ev.Timestamp = ev.ReceivedAt - int64(ms*1000)
	}
}

// setSource sets library, address and user agent.
func (d *decoder) setSource(ev *event.RawEvent) {
	if ev.Library = mapping.Library(d.b, d.properties.Get("$lib"), d.properties.Get("$lib_version")); ev.Library == "" {
		ev.Library = mapping.Library(d.b, d.top.Take("library"), d.top.Take("library_version"))
	}
	if ev.Library == "" {
		ev.Library = d.sdk
	}
	if a := mapping.ClientIP(d.b, d.properties.Get("$ip")); a.Known() {
		a.Set(ev)
	}
	if agent := d.properties.First("$raw_user_agent", "$useragent").Text(); agent != "" {
		ev.UserAgent = mapping.UserAgent(agent)
	}
}

// cookieless stands for the ids of visitors of whom the SDK may keep none,
// https://posthog.com/tutorials/cookieless-tracking: everybody has the same.
const cookieless = "$posthog_cookieless"

func (d *decoder) isCookieless() bool {
	for _, o := range []*mapping.Object{&d.top, &d.properties} {
		if o.First("distinct_id", "$distinct_id").Text() == cookieless {
			return true
		}
	}
	return false
}

// cookielessID keeps such visitors apart, as PostHog does, by a hash of the day and
// of what the request tells of them, their address only as far as it may be stored.
func (d *decoder) cookielessID(ev *event.RawEvent) string {
	h := sha256.New()
	for _, s := range []string{ev.AppID, event.ToTime(ev.ReceivedAt).Format(time.DateOnly), ev.IP, ev.UserAgent, d.properties.Get("$host").Text()} {
		_, _ = io.WriteString(h, s+"\x00") // a hash takes everything
	}
	return d.b.Text("cookieless_", hex.EncodeToString(h.Sum(nil)[:16]))
}

// distinctID returns the id of whose the event is: beside the properties, else in
// them.
func (d *decoder) distinctID() string {
	c := mapping.Choice{App: d.b.App()}
	for _, o := range []*mapping.Object{&d.top, &d.properties} {
		for _, name := range []string{"distinct_id", "$distinct_id"} {
			v := o.Get(name)
			if o == &d.top {
				o.Take(name)
			}
			if c.Offer(idOf(v)) {
				return c.Text
			}
		}
	}
	return c.Text
}

// idOf returns the id that a value is. What is neither text nor number is an id by
// its JSON text, as PostHog has it.
func idOf(v scan.Value) string {
	id, ok := mapping.ID(v)
	if !ok {
		var text bytes.Buffer
		if json.Compact(&text, v.Raw) == nil {
			id = text.String()
		}
	}
	return cutID(id)
}

// linked returns the id in a property or beside the properties that the event ties to
// its user, "" where there is none or it is everybody's.
func (d *decoder) linked(name string) string {
	c := mapping.Choice{App: d.b.App()}
	for _, v := range []scan.Value{d.properties.Get(name), d.top.Get(name)} {
		if id := idOf(v); id != cookieless && c.Offer(id) {
			break
		}
	}
	return c.Text
}

// namesPreviousFirst tells SDKs whose alias takes the id so far first and the
// user's second, and sends them as distinct_id and alias: posthog.alias(previous_id,
// distinct_id). The others send the user as distinct_id.
func (d *decoder) namesPreviousFirst() bool {
	switch d.properties.Get("$lib").Text() {
	case "posthog-python", "posthog-rs", "posthog-rust":
		return true
	}
	return false
}

// isAnonymous tells ids that an SDK made up from those of users.
func (d *decoder) isAnonymous(distinctID string) bool {
	switch d.properties.Get("$is_identified").Kind {
	case scan.False:
		return true
	case scan.True:
		return false
	}
	if device, _ := mapping.ID(d.properties.Get("$device_id")); device != "" {
		return device == distinctID
	}
	// A server's capture without a distinct id gets a random UUID, of version 4 in
	// Python and 7 in others, and no profile.
	personless := d.properties.Get("$process_person_profile").Kind == scan.False || d.options.Get("process_person_profile").Kind == scan.False
	return personless && isRandom(distinctID)
}

// isRandom reports whether an id looks like a random UUID, of version 4 or 7.
func isRandom(id string) bool {
	return len(id) == 36 && (id[14] == '7' || id[14] == '4') && id[8] == '-' && id[13] == '-'
}

// operators besides $set that stay as they are in traits.
var operators = []string{"$set_once", "$unset", "$add", "$increment", "$append", "$union", "$remove", "$delete"}

// personTraits returns what the event says of its person, nil for nothing.
func (d *decoder) personTraits() []byte {
	d.traits.Reset()
	for _, o := range []*mapping.Object{&d.top, &d.properties} {
		d.set.Of(o.Take("$set"))
		d.traits.Merge(&d.set)
	}
	for _, op := range operators {
		for _, v := range []scan.Value{d.top.Take(op), d.properties.Get(op)} {
			switch {
			case string(v.Raw) != "{}":
				d.traits.Value(op, v)
			case op == "$delete":
				d.traits.Raw(op, []byte(`""`))
			}
		}
	}
	return d.traits.Object()
}

// writeContext returns what has no field of its own: of the envelope, and of
// pages what the native API has in context.page.
func (d *decoder) writeContext(name string) []byte {
	d.context.Reset()
	d.page.Reset()
	if name == "$pageview" {
		d.page.Value("url", d.properties.Get("$current_url"))
		d.page.Value("path", d.properties.Get("$pathname"))
		d.page.Value("referrer", d.properties.Get("$referrer"))
		d.page.Value("title", d.properties.Get("title"))
		if page := d.page.Object(); page != nil {
			d.context.Raw("page", page)
		}
	}
	for _, key := range []string{"api_key", "token", "sent_at", "historical_migration", "batch"} {
		d.top.Take(key)
	}
	d.top.Rest(&d.context)
	d.context.Value("historical_migration", d.migrated)
	return d.context.Object()
}

// eraseKeys keeps write keys out of what is stored.
func (d *decoder) eraseKeys(raw []byte) {
	if d.properties.Has("token") {
		mapping.Erase(d.properties.Raw, "token")
	}
	for _, name := range []string{"api_key", "token"} {
		if d.top.Has(name) {
			mapping.Erase(raw, name)
		}
	}
}

// maxIDRunes is where PostHog cuts ids.
const maxIDRunes = 200

func cutID(id string) string {
	if len(id) <= maxIDRunes {
		return id
	}
	n := 0
	for i := range id {
		if n == maxIDRunes {
			return id[:i]
		}
		n++
	}
	return id
}
