// Package otlp takes events that come as OpenTelemetry log records over HTTP, as
// JSON or protobuf (OTLP 1.x, ExportLogsServiceRequest).
//
// A record with an event name is an event; any other is a line of a log and is
// dropped without a fault, since exporters send both down one pipe. A request in
// protobuf is written as OTLP's JSON first, so that one mapping serves both and a
// quarantined record can be read.
package otlp

import (
	"bytes"
	"net/http"
	"unicode/utf8"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
)

// Protocol is OTLP's logs.
type Protocol struct{}

// Name implements ingest.Protocol.
func (Protocol) Name() string { return "otlp" }

// Fields implements ingest.Protocol.
func (Protocol) Fields() ingest.Fields {
	return ingest.Fields{
		Kind: "eventName", Event: "eventName", MessageID: "log.record.uid", UserID: "user.id", AnonymousID: "app.installation.id", AccountID: "account.id",
	}
}

// Routes implements ingest.Protocol.
func (Protocol) Routes() []ingest.Route {
	return []ingest.Route{{Method: http.MethodPost, Path: "/v1/logs", Decode: decode, Answer: answer}}
}

// Attributes that say who and what, in the order in which they are looked for.
var (
	accountAttributes   = []string{"account.id", "account_id", "company.id", "company_id", "organization.id", "organization_id", "tenant.id"}
	userAttributes      = []string{"user.id", "enduser.id"}
	anonymousAttributes = []string{"app.installation.id", "device.id"}
)

// isJSON tells the two forms by their first byte: no protobuf message that we
// know starts with a brace.
func isJSON(body []byte) bool {
	body = bytes.TrimLeft(body, " \t\r\n")
	return len(body) > 0 && body[0] == '{'
}

func decode(r *ingest.Request, b *ingest.Batch) error {
	if err := b.Authenticate(mapping.HeaderKey(r)); err != nil {
		return err
	}
	text := r.Body
	if !isJSON(text) {
		var err error
		if text, err = toJSON(text, 4*b.Limits().MaxBodyBytes); err != nil {
			return err
		}
	}
	if !mapping.IsJSON(text) {
		return ingest.Unreadable("the body is neither OTLP's JSON nor its protobuf")
	}
	d := &decoder{b: b, retries: mapping.NewRetryIDs(r.Body)}
	b.Around(d.envelope)
	var request mapping.Object
	request.Parse(text)
	return each(request.First("resourceLogs", "resource_logs"), d.resourceLogs)
}

// each calls fn for every object of an array.
func each(v scan.Value, fn func(*mapping.Object) error) error {
	if v.IsNull() {
		return nil
	}
	var s scan.Scanner
	s.Reset(v.Raw, len(v.Raw))
	if !s.Array() {
		return ingest.Unreadable("not an array where OTLP has one")
	}
	for s.More() {
		var o mapping.Object
		if !o.Of(s.Value()) {
			return ingest.Unreadable("not an object where OTLP has one")
		}
		if err := fn(&o); err != nil {
			return err
		}
	}
	return nil
}

// decoder is the state of one request.
type decoder struct {
	b *ingest.Batch

	resource, scope     attributes // around the records
	badResource         bool       // what is around them is not UTF-8
	badScope            bool
	scopeText, library  string
	resourceRaw         []byte // as sent, for what is rejected
	scopeRaw            []byte
	retries             mapping.RetryIDs
	top                 mapping.Object
	own                 attributes
	properties, context mapping.Writer
}

// attributes are OTLP's list of keys and values as an object.
type attributes struct {
	writer mapping.Writer
	object mapping.Object
}

func (a *attributes) read(list scan.Value) {
	a.writer.Reset()
	appendList(&a.writer, list, maxNesting)
	a.object.Parse(a.writer.Object())
}

func (d *decoder) resourceLogs(o *mapping.Object) error {
	var resource mapping.Object
	resource.Of(o.Get("resource"))
	d.badResource = !utf8.Valid(resource.Raw)
	d.resourceRaw = resource.Raw
	d.resource.read(resource.Get("attributes"))
	d.library = mapping.Library(d.b, d.resource.object.Get("telemetry.sdk.name"), d.resource.object.Get("telemetry.sdk.version"))
	return each(o.First("scopeLogs", "scope_logs"), d.scopeLogs)
}

func (d *decoder) scopeLogs(o *mapping.Object) error {
	var scope mapping.Object
	scope.Of(o.Get("scope"))
	d.badScope = !utf8.Valid(scope.Raw)
	d.scopeRaw = scope.Raw
	d.scope.read(scope.Get("attributes"))
	var w mapping.Writer
	w.Value("name", scope.Get("name"))
	w.Value("version", scope.Get("version"))
	if d.scope.object.Len() > 0 {
		w.Raw("attributes", d.scope.object.Raw)
	}
	d.scopeText = string(w.Object())
	records := o.First("logRecords", "log_records")
	if records.IsNull() {
		return nil
	}
	if records.Kind != scan.Array {
		return ingest.Unreadable("not an array where OTLP has one")
	}
	env, err := mapping.Read(records.Raw, d.b.Limits(), "")
	if err != nil {
		return err
	}
	for _, it := range env.Items {
		d.item(it)
	}
	return nil
}

// envelope is what a rejected log record needs around it to be sent again.
func (d *decoder) envelope() []byte {
	if d.badResource || d.badScope {
		return nil // what is no text cannot be sent again as it was
	}
	var w mapping.Writer
	if len(d.resourceRaw) > 0 {
		w.Raw("resource", d.resourceRaw)
	}
	if len(d.scopeRaw) > 0 {
		w.Raw("scope", d.scopeRaw)
	}
	if text := w.Object(); text != nil {
		return text
	}
	return []byte("{}")
}

func (d *decoder) item(it mapping.Item) {
	ev, ok := mapping.Begin(d.b, it, &d.top)
	if !ok {
		return
	}
	if d.badResource || d.badScope {
		d.b.Reject(ingest.CodeBadEncoding, "", "resource or scope is not UTF-8")
		return
	}
	d.own.read(d.top.Take("attributes"))
	own := &d.own.object
	f := &mapping.Fields{Object: &d.top}
	ev.Kind = event.KindTrack
	if ev.Event = f.ID("eventName", "event_name"); ev.Event == "" {
		if ev.Event = own.Get("event.name").Text(); ev.Event == "" {
			d.b.Ignore()
			return
		}
	}
	if f.RejectWrong(d.b) || !d.clock(ev) {
		return
	}
	if ev.MessageID, _ = mapping.ID(own.Get("log.record.uid")); ev.MessageID == "" && ev.Timestamp != 0 {
		ev.MessageID = d.retries.Next(d.b) // exporters have no ids and send again what was not answered
	}
	ev.UserID = d.find(userAttributes)
	ev.AnonymousID = d.find(anonymousAttributes)
	ev.AccountID = mapping.Account(d.b.App(), accountAttributes, own, &d.scope.object, &d.resource.object)
	ev.Library = d.library
	if ip := mapping.ClientIP(d.b, own.Get("client.address")); ip != "" {
		ev.IP = ip
	}
	if agent := own.Get("user_agent.original").Text(); agent != "" {
		ev.UserAgent = mapping.UserAgent(agent)
	}
	if !mapping.SetQuantity(d.b, ev, own) {
		return
	}
	d.context.Reset()
	d.readBody(d.top.Take("body"))
	ev.Properties = d.properties.Object()
	if d.resource.object.Len() > 0 {
		d.context.Raw("resource", d.resource.object.Raw)
	}
	if d.scopeText != "" {
		d.context.Raw("scope", []byte(d.scopeText))
	}
	d.context.Value("session_id", own.Get("session.id"))
	d.top.Rest(&d.context)
	ev.Context = d.context.Object()
	d.b.Add()
}

// find returns the id under the first of the names that the record or its
// resource has.
func (d *decoder) find(names []string) string {
	for _, o := range []*mapping.Object{&d.own.object, &d.resource.object} {
		for _, name := range names {
			if id, _ := mapping.ID(o.Get(name)); id != "" {
				return id
			}
		}
	}
	return ""
}

// clock sets the timestamp: when it happened, else when it was observed. Exporters
// write nanoseconds; other instants are read as in every protocol. It reports false
// when it rejected the item.
func (d *decoder) clock(ev *event.RawEvent) bool {
	var wrong scan.Value
	var field string
	for _, name := range []string{"timeUnixNano", "observedTimeUnixNano"} {
		v := d.top.Get(name)
		if v.IsNull() || v.Text() == "0" {
			continue
		}
		at, ok := mapping.Instant(v)
		if ev.Timestamp = at; at != 0 {
			break
		}
		if !ok && field == "" {
			wrong, field = v, name
		}
	}
	d.top.Take("timeUnixNano")
	switch {
	case field == "":
		return true
	case ev.Timestamp != 0:
		mapping.OtherTime(d.b, wrong)
		return true
	}
	return d.b.Unreadable(field, wrong.Text())
}

// readBody makes the properties of the attributes and a body that is a list of
// keys and values. Any other body stays in the context, and so does one that
// names what an attribute names too.
func (d *decoder) readBody(v scan.Value) {
	d.properties.Reset()
	d.properties.Merge(&d.own.object)
	if v.IsNull() {
		return
	}
	plain := appendValue(nil, v, maxNesting)
	var fields mapping.Object
	fields.Parse(plain)
	if fields.Raw == nil || d.properties.Merge(&fields) {
		d.context.Raw("body", plain)
	}
}
