// Package segment speaks the Segment tracking API, the gateway's native
// protocol, as Segment's and RudderStack's SDKs send it.
//
// Served, each also under /segment and with a trailing slash:
//
//   - POST /v1/track, identify, group, page, screen, alias and their one-letter
//     forms of browsers: one message
//   - POST /v1/metric: one message of our own, a number that is reported rather
//     than counted; in a batch its type is metric
//   - POST /v1/batch, /v1/b, /v1/import and /beacon/v1/batch: many
//   - GET /pixel/v1/track and /pixel/v1/page: one, in the query
//   - POST /v1/m: the browser SDK's own counters, taken and dropped
//   - GET /v1/projects/<write key>/settings: what the browser SDK loads first
//   - GET /sourceConfig: the same of RudderStack's
//
// The write key is the user of Basic, the query parameter writeKey or the body's
// field of that name, in this order.
//
// Everything that is read well is answered with 200, bad events included: SDKs
// send what gets 4xx again up to ten times, or end their host's process. What is
// wrong with an event is in the reply and in the rejected topic. See status for
// the rest.
package segment

import (
	"strconv"
	"sync"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/event"
)

// Protocol is the Segment protocol. Make it with New.
type Protocol struct {
	decoders *sync.Pool // of *decoder
}

// New returns the protocol.
func New() Protocol {
	return Protocol{decoders: &sync.Pool{New: func() any { return new(decoder) }}}
}

// Name implements ingest.Protocol.
func (Protocol) Name() string { return "segment" }

// Fields implements ingest.Protocol.
func (Protocol) Fields() ingest.Fields {
	return ingest.Fields{
		Kind: "type", Event: "event", MessageID: "messageId", UserID: "userId", AnonymousID: "anonymousId",
		PreviousID: "previousId", AccountID: "groupId", Quantity: quantityField,
	}
}

// Routes implements ingest.Protocol.
func (p Protocol) Routes() []ingest.Route {
	single := func(path, kind string) ingest.Route {
		return ingest.Route{
			Method: "POST", Path: path, Answer: answer,
			Decode: func(r *ingest.Request, b *ingest.Batch) error { return p.decodeSingle(r, b, kind) },
		}
	}
	many := func(path string) ingest.Route {
		return ingest.Route{Method: "POST", Path: path, Decode: p.decodeBatch, Answer: answer}
	}
	imports := many("/v1/import")
	imports.Import = true
	pixel := func(path, kind string) ingest.Route {
		return ingest.Route{
			Method: "GET", Path: path, Answer: answerPixel,
			Decode: func(r *ingest.Request, b *ingest.Batch) error { return p.decodePixel(r, b, kind) },
		}
	}
	return []ingest.Route{
		single("/v1/track", event.KindTrack), single("/v1/t", event.KindTrack),
		single("/v1/identify", event.KindIdentify), single("/v1/i", event.KindIdentify),
		single("/v1/group", event.KindGroup), single("/v1/g", event.KindGroup),
		single("/v1/page", event.KindPage), single("/v1/p", event.KindPage),
		single("/v1/screen", event.KindScreen), single("/v1/s", event.KindScreen),
		single("/v1/alias", event.KindAlias), single("/v1/a", event.KindAlias),
		single("/v1/metric", event.KindMetric),
		{Method: "POST", Path: "/v1/merge", Decode: decodeMerge, Answer: answer},
		many("/v1/batch"), many("/v1/b"), imports, many("/beacon/v1/batch"),
		pixel("/pixel/v1/track", event.KindTrack), pixel("/pixel/v1/page", event.KindPage),
		{Method: "POST", Path: "/v1/m", Decode: decodeNothing, Answer: answer},
		{Method: "GET", Path: "/v1/projects/{key}/settings", Decode: decodeSettings, Answer: answerSettings},
		{Method: "GET", Path: "/sourceConfig", Decode: decodeSourceConfig, Answer: answerSourceConfig},
	}
}

func decodeNothing(*ingest.Request, *ingest.Batch) error { return nil }

func decodeSettings(r *ingest.Request, b *ingest.Batch) error { return b.Authenticate(r.Param("key")) }

// status is the one place that chooses a status code. 401 for a bad key and 503
// or 429 for what may do better later make every SDK keep or drop what it has;
// 400 is left for a body in which no event can be told from another.
func status(fault *ingest.Fault) int {
	if fault == nil {
		return 200
	}
	return fault.Kind.Status()
}

// maxListed bounds the events that a reply lists; the rejected topic has all.
const maxListed = 1000

// answer writes {"success":true}, which is all that SDKs look for, or what went
// wrong with the request and with which of its events.
func answer(_ *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	w.Status = status(fault)
	if fault == nil && b.Count(ingest.Rejected) == 0 {
		w.WriteString(`{"success":true}`)
		return
	}
	w.WriteString(`{"success":false`)
	if fault != nil {
		w.WriteString(`,"error":{"code":`)
		w.WriteQuoted(fault.Kind.String())
		if fault.Setting != "" {
			w.WriteString(`,"setting":`)
			w.WriteQuoted(fault.Setting)
		}
		w.WriteString(`,"detail":`)
		w.WriteQuoted(fault.Detail)
		w.WriteString(`}`)
	}
	if fault == nil || b.Count(ingest.Accepted)+b.Count(ingest.Rejected) > 0 {
		w.WriteString(`,"accepted":`)
		w.Body = strconv.AppendInt(w.Body, int64(b.Count(ingest.Accepted)), 10)
		list(w, b, ingest.Rejected, "rejected")
		list(w, b, ingest.Unstored, "unstored")
	}
	w.WriteString(`}`)
}

// list writes the items in a state, if there are any.
func list(w *ingest.Reply, b *ingest.Batch, s ingest.State, name string) {
	if b.Count(s) == 0 {
		return
	}
	w.WriteString(`,"` + name + `":[`)
	n := 0
	for i := range b.Len() {
		v := b.Verdict(i)
		if v.State != s {
			continue
		}
		if n == maxListed {
			break
		}
		if n > 0 {
			w.WriteString(`,`)
		}
		n++
		w.WriteString(`{"index":`)
		w.Body = strconv.AppendInt(w.Body, int64(i), 10)
		w.WriteString(`,"message_id":`)
		w.WriteQuoted(v.MessageID)
		if s == ingest.Rejected {
			w.WriteString(`,"code":`)
			w.WriteQuoted(v.Code)
			w.WriteString(`,"field":`)
			w.WriteQuoted(v.Field)
			w.WriteString(`,"detail":`)
			w.WriteQuoted(v.Detail)
		}
		w.WriteString(`}`)
	}
	w.WriteString(`]`)
}

// answerSettings writes the document that the browser SDK loads before it sends:
// where to send. The SDK puts the scheme before apiHost itself.
func answerSettings(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		answer(r, b, fault, w)
		return
	}
	w.WriteString(`{"integrations":{"Segment.io":{"apiKey":`)
	w.WriteQuoted(r.Param("key"))
	w.WriteString(`,"apiHost":`)
	w.WriteQuoted(r.Header("Host") + r.Prefix + "/v1")
	w.WriteString(`}}}`)
}

func decodeSourceConfig(r *ingest.Request, b *ingest.Batch) error {
	return b.Authenticate(writeKey(r, ""))
}

// answerSourceConfig writes the document that RudderStack's browser SDK loads before
// it sends: a source that is switched on and has no destinations of its own in the
// browser. The SDK refuses one without id, config and destinations.
func answerSourceConfig(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		answer(r, b, fault, w)
		return
	}
	w.WriteString(`{"source":{"id":`)
	w.WriteQuoted(b.App().ID)
	w.WriteString(`,"name":`)
	w.WriteQuoted(b.App().ID)
	w.WriteString(`,"writeKey":`)
	w.WriteQuoted(writeKey(r, ""))
	w.WriteString(`,"enabled":true,"workspaceId":"uptake","config":{"statsCollection":{"errors":{"enabled":false},"metrics":{"enabled":false}}},"destinations":[],"dataplanes":{}}}`)
}
