// Package gainsightpx speaks Gainsight PX's REST API: custom events, users and
// accounts.
//
// Its clients ask before they write (GET, then POST or PUT) or branch on the
// answer to a write: creating what exists is 400, changing what does not is 404.
// So the package asks a Memory which ids it has stored: the gateways' shared one
// (package known) holds on all of them and over restarts. Its bound is the one
// way to forget: a client that follows the answers then creates again what was
// there, which stores the same. A change of something unknown is answered 404 and
// put aside, not lost.
//
// The wire format of PX's browser tag is closed; only the REST API is here.
package gainsightpx

import (
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
)

// keyHeader carries the write key.
const keyHeader = "X-APTRINSIC-API-KEY"

// Memory knows which users and accounts exist.
type Memory interface {
	Has(app string, kind byte, id string) (bool, error)
	Add(app string, kind byte, id string) error
}

// Protocol is Gainsight PX's. It shares POST /v1/users with Moesif.
type Protocol struct{ memory Memory }

// New returns the protocol over a memory.
func New(memory Memory) *Protocol { return &Protocol{memory: memory} }

// Name implements ingest.Protocol.
func (*Protocol) Name() string { return "gainsightpx" }

// Fields implements ingest.Protocol.
func (*Protocol) Fields() ingest.Fields {
	return ingest.Fields{
		KeyHeader: keyHeader, Kind: "eventName", Event: "eventName", MessageID: "eventId", UserID: "identifyId", AnonymousID: "identifyId of a visitor", AccountID: "accountId",
	}
}

// Routes implements ingest.Protocol.
func (p *Protocol) Routes() []ingest.Route {
	routes := []ingest.Route{
		{Method: http.MethodPost, Path: "/v1/events/custom", Match: hasKey, Decode: p.decodeEvent, Answer: p.answerCreated},
	}
	for _, k := range []resource{users, accounts} {
		decode := func(r *ingest.Request, b *ingest.Batch) error { return p.decodeObject(k, r, b) }
		answer := func(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
			p.answerObject(k, r, b, fault, w)
		}
		question := func(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
			p.answerQuestion(k, r, b, fault, w)
		}
		routes = append(
			routes,
			ingest.Route{Method: http.MethodPost, Path: k.path, Match: hasKey, Decode: decode, Answer: answer},
			ingest.Route{Method: http.MethodPut, Path: k.path + "/update", Match: hasKey, Decode: decode, Answer: answer},
			ingest.Route{Method: http.MethodPut, Path: k.path + "/{id}", Match: hasKey, Decode: decode, Answer: answer},
			ingest.Route{Method: http.MethodGet, Path: k.path + "/{id}", Match: hasKey, Decode: authenticate, Answer: question},
		)
	}
	return routes
}

// resource is one of the two things that clients create and change.
type resource struct {
	path string
	kind byte     // in the memory
	ids  []string // fields that hold its id
}

var (
	users    = resource{"/v1/users", 'u', []string{"identifyId", "id"}}
	accounts = resource{"/v1/accounts", 'a', []string{"id"}}
)

func hasKey(r *ingest.Request) bool { return r.Header(keyHeader) != "" }

func authenticate(r *ingest.Request, b *ingest.Batch) error {
	return b.Authenticate(r.Header(keyHeader))
}

// decodeEvent maps a custom event.
func (p *Protocol) decodeEvent(r *ingest.Request, b *ingest.Batch) error {
	env, err := readBody(r, b)
	if err != nil {
		return err
	}
	var top, attributes mapping.Object
	for _, it := range env.Items {
		ev, ok := mapping.Begin(b, it, &top)
		if !ok {
			continue
		}
		f := &mapping.Fields{Object: &top}
		ev.Kind, ev.Event = event.KindTrack, f.ID("eventName")
		ev.MessageID = f.ID("eventId")
		ev.AccountID = f.ID("accountId")
		id := f.ID("identifyId")
		f.Sub("attributes", &attributes)
		if f.RejectWrong(b) {
			continue
		}
		switch top.Get("userType").Text() {
		case "VISITOR", "EMPTY_USER_TYPE":
			ev.AnonymousID = id
		default:
			ev.UserID = id
		}
		when := top.Take("date")
		if !mapping.Time(b, ev, "date", when) {
			continue
		}
		if !mapping.SetQuantity(b, ev, &attributes) {
			continue
		}
		if a := mapping.ClientIP(b, top.Get("remoteHost")); a.Known() {
			a.Set(ev)
		}
		var context, page mapping.Writer
		page.Value("url", top.Get("url"))
		page.Value("referrer", top.Get("referrer"))
		if o := page.Object(); o != nil {
			context.Raw("page", o)
		}
		top.Rest(&context)
		ev.Properties, ev.Context = attributes.Raw, context.Object()
		b.Add()
	}
	return nil
}

func readBody(r *ingest.Request, b *ingest.Batch) (*mapping.Envelope, error) {
	if err := authenticate(r, b); err != nil {
		return nil, err
	}
	text, err := r.Text()
	if err != nil {
		return nil, err
	}
	env, err := mapping.Read(text, b.Limits(), "")
	if err != nil {
		return nil, err
	}
	if len(env.Items) != 1 {
		return nil, ingest.Unreadable("the body must be one object")
	}
	return env, nil
}

// decodeObject maps the creation or change of a user or account. One that exists
// is not created again and one that is not known is put aside; see answerObject.
func (p *Protocol) decodeObject(k resource, r *ingest.Request, b *ingest.Batch) error {
	env, err := readBody(r, b)
	if err != nil {
		return err
	}
	if id := pathID(r); id != "" {
		b.Around(func() []byte { return append(ingest.AppendQuoted([]byte(`{"id":`), id), '}') })
	}
	var top, custom mapping.Object
	ev, ok := mapping.Begin(b, env.Items[0], &top)
	if !ok {
		return nil
	}
	f := &mapping.Fields{Object: &top}
	id := idOf(k, r, f)
	f.Sub("customAttributes", &custom)
	if k.kind == 'u' {
		ev.Kind, ev.UserID, ev.AccountID = event.KindIdentify, id, f.ID("accountId")
	} else {
		ev.Kind, ev.AccountID = event.KindGroup, id
	}
	if f.RejectWrong(b) {
		return nil
	}
	if id != "" {
		switch exists, err := p.memory.Has(b.App().ID, k.kind, id); {
		case err != nil:
			return unavailable(err)
		case r.Method == http.MethodPost && exists:
			b.Ignore()
			return nil
		case r.Method == http.MethodPut && !exists:
			b.Reject(ingest.CodeBadEvent, k.ids[0], unknown+": "+id)
			return nil
		}
	}
	when := top.Get("lastModifiedDate")
	if when.IsNull() {
		when = top.Get("createDate")
	}
	if when.Kind == scan.Number {
		ev.Timestamp, _ = mapping.Instant(when)
	}
	var traits mapping.Writer
	top.Rest(&traits)
	if traits.Merge(&custom) {
		traits.Raw("customAttributes", custom.Raw)
	}
	ev.Traits = traits.Object()
	b.Add()
	return nil
}

// unknown starts the detail of a change of something that was never created here.
const unknown = "unknown: not created here"

// unavailable is the fault of a request about an id of which nobody can say
// whether it exists.
func unavailable(err error) *ingest.Fault {
	return &ingest.Fault{Kind: ingest.Unavailable, RetryAfter: 1, Detail: err.Error()}
}

// idOf returns the id that the path names, else the body.
func idOf(k resource, r *ingest.Request, f *mapping.Fields) string {
	inBody := f.ID(k.ids...)
	if id := pathID(r); id != "" {
		return id
	}
	return inBody
}

func pathID(r *ingest.Request) string {
	id, err := url.PathUnescape(r.Param("id"))
	if err != nil {
		id = r.Param("id")
	}
	if !utf8.ValidString(id) {
		return url.PathEscape(id) // ids that differ in such bytes alone are two
	}
	return id
}
