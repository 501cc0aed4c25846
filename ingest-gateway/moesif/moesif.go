// Package moesif speaks the wire protocol of Moesif's SDKs: actions, API calls
// ("events"), users, companies and subscriptions, each alone or as a batch.
//
// An API call becomes an event of kind api_call whose name is its method and
// route. The server SDKs do not send again what was refused, so nothing here is
// refused that could be kept.
package moesif

import (
	"net/http"
	"strings"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
)

// keyHeader carries the write key.
const keyHeader = "X-Moesif-Application-Id"

// Protocol is Moesif's. It shares POST /v1/users with Gainsight PX.
type Protocol struct{}

// Name implements ingest.Protocol.
func (Protocol) Name() string { return "moesif" }

// Fields implements ingest.Protocol.
func (Protocol) Fields() ingest.Fields {
	return ingest.Fields{KeyHeader: keyHeader, Event: "action_name", MessageID: "transaction_id", AccountID: "company_id", Quantity: "weight"}
}

// Routes implements ingest.Protocol.
func (Protocol) Routes() []ingest.Route {
	var routes []ingest.Route
	for _, r := range []struct {
		path string
		item func(*decoder, *event.RawEvent, *mapping.Fields)
	}{
		{"/v1/actions", (*decoder).action},
		{"/v1/events", (*decoder).call},
		{"/v1/users", (*decoder).user},
		{"/v1/companies", (*decoder).company},
		{"/v1/subscriptions", (*decoder).subscription},
	} {
		route := ingest.Route{Method: http.MethodPost, Path: r.path, Match: hasKey, Decode: decodeWith(r.item), Answer: answer}
		routes = append(routes, route)
		route.Path += "/batch"
		routes = append(routes, route)
	}
	return append(
		routes,
		ingest.Route{Method: http.MethodGet, Path: "/v1/config", Match: hasKey, Decode: authenticate, Answer: answerWith(`{"sample_rate":100}`)},
		ingest.Route{Method: http.MethodGet, Path: "/v1/rules", Match: hasKey, Decode: authenticate, Answer: answerWith(`[]`)},
	)
}

func hasKey(r *ingest.Request) bool { return r.Header(keyHeader) != "" }

func authenticate(r *ingest.Request, b *ingest.Batch) error {
	return b.Authenticate(r.Header(keyHeader))
}

// decoder is the state of one request.
type decoder struct {
	b       *ingest.Batch
	retries mapping.RetryIDs

	top, metadata, request, response, headers mapping.Object
	properties, context                       mapping.Writer
}

func decodeWith(item func(*decoder, *event.RawEvent, *mapping.Fields)) func(*ingest.Request, *ingest.Batch) error {
	return func(r *ingest.Request, b *ingest.Batch) error {
		if err := authenticate(r, b); err != nil {
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
		d := &decoder{b: b, retries: mapping.NewRetryIDs(r.Body)}
		library := ""
		if sdk := r.Header("X-Moesif-SDK"); sdk != "" {
			library = mapping.Cut(mapping.Valid(sdk), 256)
		} else if agent, _, _ := strings.Cut(r.UserAgent(), " "); strings.HasPrefix(strings.ToLower(agent), "moesif") {
			library = agent // the product alone: what follows it may be about the machine
		}
		for _, it := range env.Items {
			ev, ok := mapping.Begin(b, it, &d.top)
			if !ok {
				continue
			}
			ev.Library = library
			f := &mapping.Fields{Object: &d.top}
			d.read(ev, f)
			item(d, ev, f)
		}
		return nil
	}
}

// read reads what every kind of item may have.
func (d *decoder) read(ev *event.RawEvent, f *mapping.Fields) {
	d.properties.Reset()
	d.context.Reset()
	ev.UserID = f.ID("user_id")
	ev.AnonymousID = f.ID("anonymous_id")
	ev.AccountID = f.ID("company_id")
	ev.MessageID = f.ID("transaction_id")
	f.Sub("metadata", &d.metadata)
	if !d.request.Of(d.top.Get("request")) {
		f.Wrong = "request"
	}
	if !d.response.Of(d.top.Get("response")) {
		f.Wrong = "response"
	}
	d.maskCredentials(&d.request)
	d.maskCredentials(&d.response)
	for _, o := range []*mapping.Object{&d.top, &d.request} {
		if a := mapping.ClientIP(d.b, o.Get("ip_address")); a.Known() {
			a.Set(ev)
		}
	}
	if agent := d.request.First("user_agent_string").Text(); agent != "" {
		ev.UserAgent = mapping.UserAgent(agent)
	} else if agent := d.top.First("user_agent_string").Text(); agent != "" {
		ev.UserAgent = mapping.UserAgent(agent)
	} else if agent := d.header("User-Agent").Text(); agent != "" {
		ev.UserAgent = mapping.UserAgent(agent) // the call's: that of the request is the SDK's
	}
}

// header returns a header field of the recorded request.
func (d *decoder) header(name string) scan.Value {
	d.headers.Of(d.request.Get("headers"))
	for _, n := range d.headers.Names() {
		if strings.EqualFold(n, name) {
			return d.headers.Get(n)
		}
	}
	return scan.Value{}
}

// timed sets the event's timestamp from a field of o; it reports false when it
// rejected the item.
func (d *decoder) timed(ev *event.RawEvent, o *mapping.Object, path, name string) bool {
	v := o.Get(name)
	ok := mapping.Time(d.b, ev, path+name, v)
	if ev.MessageID == "" && ev.Timestamp != 0 {
		ev.MessageID = d.retries.Next(d.b) // a broken connection makes its server SDKs send again
	}
	return ok
}

// weighed sets the quantity: of sampled calls weight says how many each stands
// for.
func (d *decoder) weighed(ev *event.RawEvent) bool {
	v := d.top.Take("weight")
	n, ok := mapping.Quantity(v)
	if !ok {
		d.b.Reject(ingest.CodeBadQuantity, "weight", "must be a whole number")
		return false
	}
	if n == 0 {
		n = 1 // the Java SDK sends 0 where nobody set one
	}
	ev.Quantity = n
	return true
}

// action maps what a user did.
func (d *decoder) action(ev *event.RawEvent, f *mapping.Fields) {
	ev.Kind, ev.Event = event.KindTrack, f.ID("action_name")
	if f.RejectWrong(d.b) || !d.timed(ev, &d.request, "request.", "time") || !d.weighed(ev) {
		return
	}
	ev.Properties = d.metadata.Raw
	d.top.Rest(&d.context)
	ev.Context = d.context.Object()
	d.b.Add()
}

// call maps an API call.
func (d *decoder) call(ev *event.RawEvent, f *mapping.Fields) {
	if ev.MessageID == "" {
		ev.MessageID, _ = mapping.ID(d.header("X-Moesif-Transaction-Id"))
	}
	if f.RejectWrong(d.b) || !d.timed(ev, &d.request, "request.", "time") || !d.weighed(ev) {
		return
	}
	ev.Kind = event.KindAPICall
	end, _ := mapping.Instant(d.response.Get("time"))
	status, _ := d.response.Get("status").Int()
	verb, uri := d.request.First("verb", "method").Text(), d.request.Get("uri").Text()
	if uri == "" {
		d.b.Reject(ingest.CodeMissingField, "request.uri", "an API call needs request.uri")
		return
	}
	ev.Event = mapping.Call{Method: verb, URI: uri, Status: status, Start: ev.Timestamp, End: end}.Write(&d.properties)
	d.properties.Value("direction", d.top.Take("direction"))
	if d.properties.Merge(&d.metadata) {
		d.context.Raw("metadata", d.metadata.Raw)
	}
	ev.Properties = d.properties.Object()
	d.top.Rest(&d.context)
	ev.Context = d.context.Object()
	d.b.Add()
}

// user maps a user, who is a member of the company that is named.
func (d *decoder) user(ev *event.RawEvent, f *mapping.Fields) {
	ev.Kind = event.KindIdentify
	if f.RejectWrong(d.b) || !d.timed(ev, &d.top, "", "modified_time") {
		return
	}
	d.top.Take("modified_time")
	ev.Traits = d.metadata.Raw
	d.top.Rest(&d.context)
	ev.Context = d.context.Object()
	d.b.Add()
}

// company maps a company.
func (d *decoder) company(ev *event.RawEvent, f *mapping.Fields) {
	ev.Kind = event.KindGroup
	if f.RejectWrong(d.b) || !d.timed(ev, &d.top, "", "modified_time") {
		return
	}
	d.top.Take("modified_time")
	d.properties.Value("company_domain", d.top.Take("company_domain"))
	if campaign := d.top.Take("campaign"); string(campaign.Raw) != "{}" { // as its SDK sends none
		d.properties.Value("campaign", campaign)
	}
	if d.properties.Merge(&d.metadata) {
		d.context.Raw("metadata", d.metadata.Raw)
	}
	ev.Traits = d.properties.Object()
	d.top.Rest(&d.context)
	ev.Context = d.context.Object()
	d.b.Add()
}

// subscription maps a company's subscription: a trait of the company.
func (d *decoder) subscription(ev *event.RawEvent, f *mapping.Fields) {
	ev.Kind, ev.Event = event.KindGroup, "subscription"
	if f.RejectWrong(d.b) || !d.timed(ev, &d.top, "", "modified_time") {
		return
	}
	d.top.Rest(&d.properties)
	d.properties.Value("metadata", d.top.Get("metadata"))
	if o := d.properties.Object(); o != nil {
		d.context.Raw("subscription", o)
		ev.Traits = d.context.Object()
	}
	d.b.Add()
}

// credentials are headers whose values are let through nowhere.
var credentials = []string{"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-moesif-application-id"}

// maskCredentials overwrites what lets its holder in, in place: a table of usage
// is no place for it.
func (d *decoder) maskCredentials(message *mapping.Object) {
	d.headers.Of(message.Get("headers"))
	d.headers.Each(func(name string, v scan.Value) {
		for _, c := range credentials {
			if strings.EqualFold(name, c) {
				mapping.Mask(v.Raw)
			}
		}
	})
}
