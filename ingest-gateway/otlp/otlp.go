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
	"math"
	"net/http"
	"sync"

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
	tree := trees.Get().(*scan.Tree)
	defer release(tree)
	if tree.Parse(text) != nil {
		return ingest.Unreadable("the body is neither OTLP's JSON nor its protobuf")
	}
	d := &decoder{b: b, retries: mapping.NewRetryIDs(r.Body)}
	b.Around(d.envelope)
	return each(first(tree.Root(), "resourceLogs", "resource_logs"), d.resourceLogs)
}

// trees are used again by later requests.
var trees = sync.Pool{New: func() any { return new(scan.Tree) }}

// release keeps a tree for later requests, unless its request was an unusual one.
func release(t *scan.Tree) {
	const most = 1 << 17 // 2 MiB
	if t.Size() <= most {
		trees.Put(t)
	}
}

// first returns the value of the first of the names that an object has and that is
// not null.
func first(n scan.Node, names ...string) scan.Node {
	for _, name := range names {
		if v := n.Get(name); v.Kind() > scan.Null {
			return v
		}
	}
	return scan.Node{}
}

// each calls fn for every object of an array.
func each(array scan.Node, fn func(scan.Node) error) error {
	if array.Kind() <= scan.Null {
		return nil
	}
	if array.Kind() != scan.Array {
		return ingest.Unreadable("not an array where OTLP has one")
	}
	for n := range array.Elements() {
		if n.Kind() != scan.Object && !n.Value().IsEmptyObject() {
			return ingest.Unreadable("not an object where OTLP has one")
		}
		if err := fn(n); err != nil {
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

func (a *attributes) read(list scan.Node) {
	a.writer.Reset()
	appendList(&a.writer, list, maxNesting)
	a.object.Written(&a.writer)
}

func (d *decoder) resourceLogs(n scan.Node) error {
	resource := n.Get("resource")
	d.badResource, d.resourceRaw = around(resource)
	d.resource.read(resource.Get("attributes"))
	d.library = mapping.Library(d.b, d.resource.object.Get("telemetry.sdk.name"), d.resource.object.Get("telemetry.sdk.version"))
	return each(first(n, "scopeLogs", "scope_logs"), d.scopeLogs)
}

// around returns the text of an object that stands around records, and whether it is
// not UTF-8.
func around(n scan.Node) (bad bool, raw []byte) {
	if n.Kind() != scan.Object {
		return false, nil
	}
	return n.Notes(math.MaxInt)&scan.BadUTF8 != 0, n.Value().Raw
}

func (d *decoder) scopeLogs(n scan.Node) error {
	scope := n.Get("scope")
	d.badScope, d.scopeRaw = around(scope)
	d.scope.read(scope.Get("attributes"))
	var w mapping.Writer
	w.Value("name", scope.Get("name").Value())
	w.Value("version", scope.Get("version").Value())
	if d.scope.object.Len() > 0 {
		w.Raw("attributes", d.scope.object.Raw)
	}
	d.scopeText = string(w.Object())
	records := first(n, "logRecords", "log_records")
	if records.Kind() == scan.Invalid {
		return nil
	}
	if records.Kind() != scan.Array {
		return ingest.Unreadable("not an array where OTLP has one")
	}
	items, err := mapping.Elements(records, d.b.Limits())
	if err != nil {
		return err
	}
	for _, it := range items {
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
	d.top.Take("attributes")
	d.own.read(it.Node().Get("attributes"))
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
	if a := mapping.ClientIP(d.b, own.Get("client.address")); a.Known() {
		a.Set(ev)
	}
	for _, o := range []*mapping.Object{own, &d.resource.object} {
		if agent := o.Get("user_agent.original").Text(); agent != "" {
			ev.UserAgent = mapping.UserAgent(agent)
			break
		}
	}
	if !mapping.SetQuantity(d.b, ev, own) {
		return
	}
	d.context.Reset()
	d.top.Take("body")
	ev.Properties = d.propertiesOf(it.Node().Get("body"))
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
	var values []scan.Value
	for _, o := range []*mapping.Object{&d.own.object, &d.resource.object} {
		for _, name := range names {
			values = append(values, o.Get(name))
		}
	}
	return mapping.FirstOf(d.b.App(), values...)
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

// propertiesOf makes the properties of the attributes and a body that is a list of
// keys and values. Any other body stays in the context, and so does one that
// names what an attribute names too.
func (d *decoder) propertiesOf(body scan.Node) []byte {
	if body.Kind() <= scan.Null {
		return d.own.object.Raw
	}
	plain := appendValue(nil, body, maxNesting)
	var fields mapping.Object
	fields.Parse(plain)
	if fields.Raw == nil {
		d.context.Raw("body", plain)
		return d.own.object.Raw
	}
	d.properties.Reset()
	d.properties.Merge(&d.own.object)
	if d.properties.Merge(&fields) {
		d.context.Raw("body", plain)
	}
	return d.properties.Object()
}
