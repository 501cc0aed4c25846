// Package ingesttest runs requests through a protocol's routes without a network
// and without Kafka, for the tests of protocols.
//
// It does what the gateway does around Decode and Answer (unpacking, routing,
// bounds, verdicts) and returns the reply together with the records that Kafka
// would have got, decoded. It fails the test when a protocol breaks a rule of
// package ingest, such as handing over properties that are no JSON object.
package ingesttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/textproto"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/body"
	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/ids"
)

// Key is the write key that Gateway knows.
const Key = "test-write-key"

// ReceivedAt is the time of receipt of every request.
var ReceivedAt = time.Date(2026, 3, 4, 5, 6, 7, 890_000_000, time.UTC)

// Gateway stands in for the gateway around protocols.
type Gateway struct {
	t      testing.TB
	router *ingest.Router
	codec  *event.Codec

	// App is the app that Key belongs to.
	App *ingest.App
	// Limits are the bounds in force.
	Limits ingest.Limits
	// Fault, when set, fails every request after Decode, as overload or an outage of
	// Kafka would.
	Fault *ingest.Fault
	// Unstored names items that the brokers do not ack; the request then gets an
	// Unavailable fault.
	Unstored map[int]bool
}

// New returns a gateway that serves the protocols to an app named "test".
func New(t testing.TB, protocols ...ingest.Protocol) *Gateway {
	t.Helper()
	router, err := ingest.NewRouter(protocols...)
	if err != nil {
		t.Fatal(err)
	}
	return &Gateway{
		t: t, router: router, codec: event.NewCodec(),
		App:    &ingest.App{ID: "test", IPMode: ingest.IPFull},
		Limits: ingest.DefaultLimits(),
	}
}

// Result is the reply to a request and the records that would be stored.
type Result struct {
	Status   int
	Header   http.Header
	Body     string
	Protocol string // which answered, "" for none
	Events   []event.RawEvent
	Keys     []string // of the events' records
	Rejected []event.Rejected
	Fault    *ingest.Fault
	Verdicts []ingest.Verdict
}

// Do runs a request. target is path and query; header fields are "Name: value".
func (g *Gateway) Do(method, target string, payload []byte, header ...string) Result {
	g.t.Helper()
	path, query, _ := strings.Cut(target, "?")
	path = ingest.TrimPath(path)
	candidates := g.router.Find(method, path, nil)
	if candidates.Len() == 0 {
		return Result{Status: http.StatusNotFound}
	}
	var r ingest.Request
	r.Bound(g.Limits.Bodies(candidates.Import()))
	h := headers{{"User-Agent", "ingesttest/1"}}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ":")
		h = append(h, [2]string{textproto.CanonicalMIMEHeaderKey(name), strings.TrimSpace(value)})
	}
	r.Method, r.Path, r.Query, r.Headers = method, path, query, h
	r.RemoteIP = netip.MustParseAddr("203.0.113.77")
	r.ReceivedAt = event.FromTime(ReceivedAt)

	fault := g.unpack(&r, bytes.Clone(payload))
	bound := candidates.Select(&r)
	b := ingest.NewBatch(g.codec, auth{g}, g.Limits)
	b.Begin(&r, &bound)
	if fault == nil {
		fault = ingest.AsFault(bound.Route.Decode(&r, b))
	}
	if fault == nil {
		fault = b.Finish()
	}
	if fault == nil {
		fault = g.Fault
	}
	res := Result{Protocol: bound.Protocol}
	if fault != nil {
		b.FailAll()
	} else {
		fault = g.store(b, &res)
	}
	var w ingest.Reply
	bound.Route.Answer(&r, b, fault, &w)
	if fault != nil {
		w.RetryAfter(fault.RetryAfter)
	}
	res.Fault = fault
	res.Status, res.Body, res.Header = w.Code(), string(w.Body), http.Header{}
	if w.ContentType != "" {
		res.Header.Set("Content-Type", w.ContentType)
	}
	w.EachHeader(func(name, value string) { res.Header.Set(name, value) })
	for i := range b.Len() {
		v := b.Verdict(i)
		v.MessageID, v.Code = strings.Clone(v.MessageID), strings.Clone(v.Code)
		v.Field, v.Detail = strings.Clone(v.Field), strings.Clone(v.Detail)
		res.Verdicts = append(res.Verdicts, v)
	}
	return res
}

func (g *Gateway) unpack(r *ingest.Request, payload []byte) *ingest.Fault {
	e, bodies := body.Detect(payload, r.Header("Content-Encoding")), r.Bodies()
	switch {
	case e == body.Plain && len(payload) > bodies.Text:
		return bodies.TooLarge("body too large")
	case e == body.Plain:
		r.Body = body.TrimMark(payload)
		return nil
	case len(payload) > bodies.Packed:
		return bodies.TooLargePacked("packed body too large")
	}
	var u body.Unpacker
	out, err := u.Unpack(nil, payload, e, bodies.Text, nil)
	switch {
	case errors.Is(err, body.ErrTooLarge):
		return bodies.TooLarge("body larger after unpacking")
	case err != nil:
		return ingest.AsFault(err)
	}
	r.Body = body.TrimMark(out)
	return nil
}

// store decodes what Kafka would get.
func (g *Gateway) store(b *ingest.Batch, res *Result) *ingest.Fault {
	g.t.Helper()
	var fault *ingest.Fault
	n, _ := b.Records()
	for i := range n {
		rec := b.Record(i)
		value := bytes.Clone(rec.Value)
		if g.Unstored[rec.Item] {
			b.Fail(rec.Item)
			fault = &ingest.Fault{Kind: ingest.Unavailable, Detail: "some events were not acked", RetryAfter: 1}
			continue
		}
		if rec.Rejected {
			var r event.Rejected
			if err := g.codec.DecodeRejected(value, &r); err != nil {
				g.t.Fatal(err)
			}
			res.Rejected = append(res.Rejected, r)
			continue
		}
		var e event.RawEvent
		if err := g.codec.DecodeRaw(value, &e); err != nil {
			g.t.Fatal(err)
		}
		for name, text := range map[string][]byte{"properties": e.Properties, "traits": e.Traits, "context": e.Context} {
			var object map[string]json.RawMessage
			if err := json.Unmarshal(text, &object); len(text) > 0 && (err != nil || object == nil) {
				g.t.Errorf("item %d: %s is no JSON object: %s", rec.Item, name, text)
			}
		}
		if e.IDRules != ids.Rules {
			g.t.Errorf("item %d: ids were read by the rules of version %d, want %d", rec.Item, e.IDRules, ids.Rules)
		}
		e.IDRules = 0 // the same in all; tests compare the rest
		res.Events = append(res.Events, e)
		res.Keys = append(res.Keys, string(rec.Key))
	}
	return fault
}

type auth struct{ g *Gateway }

func (a auth) App(key string) *ingest.App {
	if key == Key {
		return a.g.App
	}
	return nil
}

type headers [][2]string

// Get implements ingest.Headers.
func (h headers) Get(name string) []byte {
	for i := len(h) - 1; i >= 0; i-- {
		if strings.EqualFold(h[i][0], name) {
			return []byte(h[i][1])
		}
	}
	return nil
}

// Each implements ingest.Headers.
func (h headers) Each(fn func(name, value []byte)) {
	for _, f := range h {
		fn([]byte(f[0]), []byte(f[1]))
	}
}

// SortedCodes returns the codes of the rejected verdicts, for comparing.
func (r Result) SortedCodes() []string {
	var codes []string
	for _, v := range r.Verdicts {
		if v.State == ingest.Rejected {
			codes = append(codes, v.Code)
		}
	}
	sort.Strings(codes)
	return codes
}
