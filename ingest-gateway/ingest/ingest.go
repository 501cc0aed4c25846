// Package ingest is the interface between the gateway and the wire protocols.
//
// Each wire protocol (Segment, PostHog, Mixpanel, ...) is a package of its own beside this one.
// It knows the form of its SDKs' requests and which replies keep the SDKs from retrying
// forever, and nothing else: no socket, no Kafka and no configuration file. This package owns
// what both share: Request, Batch, Fault, Reply, the routes, the application that a write key
// belongs to, and the bounds on every event. The gateway package owns the flow.
//
// # The path of one request
//
//  1. The gateway reads the request, bounded, and unpacks gzip, zstd and the
//     like by their first bytes (package body). Router finds the Route by method
//     and path, and where several routes claim the same path, by Route.Match.
//  2. Route.Decode reads the write key where its protocol puts it and calls
//     Batch.Authenticate with it. Then it walks the body and, for each event in
//     it, calls Batch.Item once and either Batch.Add, Batch.Reject or
//     Batch.Ignore. It returns an error only when the request as a whole cannot
//     be used: what Authenticate returned, or Unreadable(...).
//  3. The gateway checks the batch against rate limit, quota and the bounds on
//     records in flight, writes its records to Kafka and waits for the brokers.
//  4. Route.Answer writes the reply. It sees a Fault when the request failed as
//     a whole, or nil and a Verdict for each item. It is called once for every
//     request that reached a route, also when Decode was never called (body too
//     large, overload), so that even these answers come in the protocol's form.
//
// Nothing that Decode fills in is kept after Answer: strings and slices of an
// event may alias the request's body (see String), whose bytes live until then.
//
// # Writing a protocol
//
//	type Protocol struct{}
//
//	func (Protocol) Name() string          { return "acme" }
//	func (Protocol) Fields() ingest.Fields { return ingest.Fields{UserID: "uid"} }
//	func (p Protocol) Routes() []ingest.Route {
//		return []ingest.Route{
//			{Method: "POST", Path: "/collect", Decode: decode, Answer: answer},
//			{Method: "GET", Path: "/config/{key}", Decode: authenticateOnly, Answer: config},
//		}
//	}
//
//	func decode(r *ingest.Request, b *ingest.Batch) error {
//		text, err := r.Text() // without form and base64 wrapping
//		if err != nil {
//			return err
//		}
//		... find the key ...
//		if err := b.Authenticate(key); err != nil {
//			return err
//		}
//		for ... each event, raw its JSON text ... {
//			ev := b.Item(raw) // app, protocol, received at, ip, user agent, quantity 1 are set
//			ev.Kind, ev.Event, ev.UserID = ...
//			ts, ok := ingest.ParseTime(when)
//			if !ok {
//				b.Reject(ingest.CodeBadTimestamp, "time", "...")
//				continue
//			}
//			ev.Timestamp = ts
//			b.Add()
//		}
//		return nil
//	}
//
// List it in the gateway package's Protocols and test it with package
// ingesttest, which runs requests through the routes without a network.
//
// Rules that keep the whole right:
//
//   - Each Route serves its natural path and the same under "/" + Name(), with
//     and without a trailing slash; paths are case-sensitive. Write Path without
//     the slash. "{name}" stands for one segment and "{name...}" for the rest of
//     the path (Request.Param). Match is asked only where several routes share
//     method and path, in the order of the protocols; when none matches, the
//     first of them answers. Under the prefix a protocol competes only with
//     itself.
//   - A key is read where the protocol's SDKs put it: Request.BasicUser, Bearer,
//     Query, Header, or the body. A route of things that are no secret (an SDK's
//     switches) may leave Authenticate out and has then no items; an item before
//     Authenticate is a fault of the program and ends as BadKey, stored nowhere.
//   - The status code is chosen in one function per protocol, from the Fault:
//     Fault.Kind.Status is the plain choice, a protocol whose SDKs lose events or
//     storm on it chooses otherwise. The gateway adds Retry-After, CORS headers
//     and, for HEAD, drops the body. Never redirect. Never panic on input.
//   - Message ids: leave MessageID empty where the client sent none, and Batch
//     makes a UUIDv7. Never derive one from corrected times, and from a hash of
//     what was sent only where something in it tells one call from the next
//     (mapping.RetryIDs): genuine repeats would merge.
//   - Add checks the bounds on ids, names, size and quantity and that the kind
//     has the ids it needs, and rejects the item in the words of Fields. The
//     protocol checks types and syntax: Properties, Traits and Context must be
//     valid JSON objects or empty (package scan validates as it walks; ingesttest
//     checks).
//   - One item may be several events (PostHog's capture with $set is a track and
//     an identify): call Add again after changing the event. Add clears nothing
//     but MessageID: give each further event of an item an id of its own, the
//     item's id with a suffix, or the second is dropped as a duplicate of the
//     first.
package ingest

// Protocol is one wire protocol.
type Protocol interface {
	// Name is a lower-case word: the path prefix, the metrics' label and
	// RawEvent.Protocol.
	Name() string
	// Fields names the event's fields as clients of the protocol know them.
	Fields() Fields
	// Routes lists what the protocol serves. Called once.
	Routes() []Route
}

// Route is one method and path of a protocol.
type Route struct {
	Method string // upper case
	Path   string // "/v1/track"; see the package doc for "{name}" and "{name...}"

	// Match reports whether a request on a shared path belongs to this protocol.
	// Request.Text may be called. Nil matches everything.
	Match func(*Request) bool

	// Import marks a route on which clients send history, in bodies of up to
	// max-import-bytes.
	Import bool

	// Decode fills the batch; see the package doc.
	Decode func(*Request, *Batch) error

	// Answer writes the reply. fault is nil when every item has its verdict. Answer may
	// be called with an empty batch and without an app.
	Answer func(r *Request, b *Batch, fault *Fault, w *Reply)
}

// Fields names the fields of an event in a protocol's own terms, for rejections. An
// empty one is named as in event.RawEvent's schema.
type Fields struct {
	Kind, Event, MessageID, UserID, AnonymousID, PreviousID, AccountID, Quantity string

	// KeyHeader is the header field in which the protocol's clients send the write
	// key, where it is neither Authorization nor X-Api-Key.
	KeyHeader string
}

func (f Fields) withDefaults() Fields {
	for _, d := range []struct {
		field *string
		name  string
	}{
		{&f.Kind, "kind"},
		{&f.Event, "event"},
		{&f.MessageID, "message_id"},
		{&f.UserID, "user_id"},
		{&f.AnonymousID, "anonymous_id"},
		{&f.PreviousID, "previous_id"},
		{&f.AccountID, "account_id"},
		{&f.Quantity, "quantity"},
	} {
		if *d.field == "" {
			*d.field = d.name
		}
	}
	return f
}
