// Package cloudevents takes CloudEvents over HTTP: structured, batched and binary
// (CloudEvents 1.0, HTTP protocol binding), on the root path, on OpenMeter's and
// under the prefix.
//
// An event's type is the event's name, its subject the account, unless one of the
// app's account keys is among its extensions or in its data. Source and id
// together are the message id.
package cloudevents

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
)

// Protocol is CloudEvents.
type Protocol struct{}

// Name implements ingest.Protocol.
func (Protocol) Name() string { return "cloudevents" }

// Fields implements ingest.Protocol.
func (Protocol) Fields() ingest.Fields {
	return ingest.Fields{
		Kind: "type", Event: "type", MessageID: "id", UserID: "userid", AnonymousID: "anonymousid", AccountID: "subject",
	}
}

// Routes implements ingest.Protocol.
func (Protocol) Routes() []ingest.Route {
	return []ingest.Route{
		{Method: http.MethodPost, Path: "/", Decode: decode, Answer: answer},
		{Method: http.MethodPost, Path: "/api/v1/events", Decode: decode, Answer: answer}, // OpenMeter's
	}
}

func decode(r *ingest.Request, b *ingest.Batch) error {
	if err := b.Authenticate(mapping.HeaderKey(r)); err != nil {
		return err
	}
	text, wrong := r.Body, false
	if isBinary(r) {
		text, wrong = structured(r)
	}
	env, err := mapping.Read(text, b.Limits(), "")
	if err != nil {
		return err
	}
	d := &decoder{b: b, notJSON: wrong}
	for _, it := range env.Items {
		d.item(it)
	}
	return nil
}

// isBinary tells events whose attributes are header fields. Without specversion
// they are bad events, and not other ones. Senders of the other
// modes may copy some of these, but then the body is an event of its own.
func isBinary(r *ingest.Request) bool {
	return r.Header("Ce-Specversion")+r.Header("Ce-Id")+r.Header("Ce-Type") != "" &&
		!strings.HasPrefix(strings.ToLower(strings.TrimSpace(r.Header("Content-Type"))), "application/cloudevents")
}

// structured writes an event in binary mode as the JSON that it would be in
// structured mode. wrong reports that the body is not the JSON that its content type
// promises.
func structured(r *ingest.Request) (text []byte, wrong bool) {
	var w mapping.Writer
	r.Headers.Each(func(name, value []byte) {
		attribute := strings.ToLower(string(name))
		attribute, ok := strings.CutPrefix(attribute, "ce-")
		if !ok || attribute == "data" || attribute == "data_base64" {
			return
		}
		w.Sent(mapping.Valid(attribute), headerValue(value))
	})
	contentType := r.Header("Content-Type")
	w.Text("datacontenttype", mapping.Valid(contentType))
	media, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	media = strings.TrimSpace(media)
	isJSON := mapping.IsJSON(r.Body)
	switch {
	case len(r.Body) == 0:
	case isJSON && (strings.Contains(contentType, "json") || contentType == "" && json.Valid(r.Body)):
		w.Raw("data", r.Body)
	case utf8.Valid(r.Body):
		w.Text("data", ingest.String(r.Body))
	default:
		w.Text("data_base64", base64.StdEncoding.EncodeToString(r.Body))
	}
	if text = w.Object(); text == nil {
		text = []byte("{}")
	}
	return text, !isJSON && len(r.Body) > 0 && (media == "application/json" || strings.HasSuffix(media, "+json"))
}

// headerValue undoes the percent-encoding of the HTTP binding, and its quotes.
// Some senders leave spaces and other characters as they are: Go in UTF-8, Node in
// Latin-1. What is encoded must be UTF-8: else the event is rejected.
func headerValue(value []byte) string {
	s := string(value)
	if !utf8.ValidString(s) {
		latin := make([]rune, len(value))
		for i, c := range value {
			latin[i] = rune(c)
		}
		s = string(latin)
	}
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = strings.ReplaceAll(strings.ReplaceAll(s[1:len(s)-1], `\"`, `"`), `\\`, `\`)
	}
	if decoded, err := url.PathUnescape(s); err == nil {
		s = decoded
	}
	return s
}

// decoder is the state of one request.
type decoder struct {
	b       *ingest.Batch
	notJSON bool // the data of an event in binary mode is not the JSON that it should be

	top, data           mapping.Object
	properties, context mapping.Writer
}

func (d *decoder) item(it mapping.Item) {
	ev, ok := mapping.Begin(d.b, it, &d.top)
	if !ok {
		return
	}
	f := &mapping.Fields{Object: &d.top}
	ev.Kind = event.KindTrack
	id, source := f.ID("id"), f.ID("source")
	if id != "" {
		ev.MessageID = messageID(d.b, source, id)
	}
	ev.Event = f.ID("type")
	if version := d.top.Get("specversion").Text(); version != "1.0" && f.Wrong == "" {
		d.b.Reject(ingest.CodeMissingField, "specversion", "specversion must be 1.0, not "+strconv.Quote(ingest.Shorten(version, 16)))
		return
	}
	if d.notJSON {
		d.b.Reject(ingest.CodeBadEvent, "data", "not JSON, which the content type says it is")
		return
	}
	when := d.top.Take("time")
	if f.RejectWrong(d.b) {
		return
	}
	if !mapping.Time(d.b, ev, "time", when) {
		return
	}
	ev.Properties = d.readData()
	ev.UserID = d.find("userid", "user_id", "userId", "user")
	ev.AnonymousID = d.find("anonymousid", "anonymous_id", "anonymousId")
	if keys := d.b.App().AccountKeys; len(keys) > 0 {
		ev.AccountID = mapping.AccountOfProperties(d.b.App(), &d.top, &d.data)
	}
	if account := (mapping.Choice{App: d.b.App()}); !account.Offer(ev.AccountID) {
		subject, ok := mapping.ID(d.top.Get("subject"))
		if !ok {
			d.b.Reject(ingest.CodeWrongType, "subject", "must be text")
			return
		}
		account.Offer(subject)
		ev.AccountID = account.Text
	}
	if !mapping.SetQuantity(d.b, ev, &d.data) {
		return
	}
	d.context.Reset()
	d.context.Text("id", id)
	d.context.Text("source", source)
	d.top.Rest(&d.context)
	ev.Context = d.context.Object()
	d.b.Add()
}

// find looks for an id among the extensions, whose names have neither case nor
// underscores, and then in the data.
func (d *decoder) find(extension string, names ...string) string {
	values := []scan.Value{d.top.Get(extension)}
	for _, name := range names {
		values = append(values, d.data.Get(name))
	}
	return mapping.FirstOf(d.b.App(), values...)
}

// readData returns the properties: data when it is an object, else data or
// data_base64 under its own name.
func (d *decoder) readData() []byte {
	data := d.top.Take("data")
	if data.Kind == scan.Object {
		d.data.Of(data)
		return data.Raw
	}
	d.data.Of(scan.Value{})
	d.properties.Reset()
	d.properties.Value("data", data)
	d.properties.Value("data_base64", d.top.Take("data_base64"))
	return d.properties.Object()
}

// messageID puts source and id together, as a hash when they are too long.
func messageID(b *ingest.Batch, source, id string) string {
	if len(source)+1+len(id) <= b.Limits().MaxIDBytes {
		return b.Text(source, " ", id)
	}
	sum := sha256.Sum256([]byte(source + " " + id))
	return hex.EncodeToString(sum[:])
}

// answer says 204, which the SDKs take for delivered, only when every event is
// stored as one: senders see nothing but the status. What a sender of a batch sends
// again after a 400 has the ids that it had.
func answer(_ *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	rejected := b.Count(ingest.Rejected)
	if fault == nil && rejected == 0 {
		w.Status = http.StatusNoContent
		return
	}
	detail := ""
	if fault != nil {
		w.Status, detail = fault.Kind.Status(), fault.Error()
	} else {
		w.Status = http.StatusBadRequest
		for i := 0; detail == ""; i++ {
			if v := b.Verdict(i); v.State == ingest.Rejected {
				detail = fmt.Sprintf("%d of %d events are bad, the others are stored; event %d: %s: %s", rejected, b.Len(), i, v.Code, v.Detail)
			}
		}
	}
	w.ContentType = "application/problem+json"
	w.WriteString(`{"type":"about:blank","title":`)
	w.WriteQuoted(http.StatusText(w.Status))
	w.WriteString(`,"status":`)
	w.Body = strconv.AppendInt(w.Body, int64(w.Status), 10)
	w.WriteString(`,"detail":`)
	w.WriteQuoted(detail)
	w.WriteString("}")
}
