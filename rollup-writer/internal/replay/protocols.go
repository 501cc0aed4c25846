package replay

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// protocol is how one event of a wire protocol is sent to a gateway.
type protocol struct {
	// route says what an event is, or, with a route that has no path, what has to
	// be patched to tell. It may complete the event.
	route func(x *row, doc map[string]any) (r route, why string)
	body  func(key string, doc any) any
	// sign puts the write key into the header, unless body has it.
	sign func(h http.Header, key string)
}

// route is where an event goes, and where it has what it must have.
type route struct {
	path string
	id   []string // its message id; nil: nowhere, so the request names it
	when []string // its instant
	// millis: the instant is in milliseconds since the epoch, else in ISO 8601.
	millis bool
	// change is where what exists already is changed, by PUT.
	change string
	// whole makes the event's message id of the one in doc; nil: they are the same.
	whole func(doc map[string]any, id string) string
}

func always(r route) func(*row, map[string]any) (route, string) {
	return func(*row, map[string]any) (route, string) { return r, "" }
}

func alone(_ string, doc any) any { return doc }

func basic(h http.Header, key string) {
	(&http.Request{Header: h}).SetBasicAuth(key, "")
	h.Set("Content-Type", "application/json")
}

func plain(h http.Header, _ string) { h.Set("Content-Type", "application/json") }

func field(name string) func(http.Header, string) {
	return func(h http.Header, key string) {
		h.Set(name, key)
		h.Set("Content-Type", "application/json")
	}
}

// protocols that events can be sent by.
var protocols = map[string]protocol{
	"segment": {
		always(route{path: "/v1/batch", id: []string{"messageId"}, when: []string{"timestamp"}}),
		func(_ string, doc any) any { return map[string]any{"batch": []any{doc}} }, basic,
	},
	"posthog": {
		always(route{path: "/batch", id: []string{"uuid"}, when: []string{"timestamp"}}),
		func(key string, doc any) any { return map[string]any{"api_key": key, "batch": []any{doc}} }, plain,
	},
	"amplitude": {
		always(route{path: "/2/httpapi", id: []string{"insert_id"}, when: []string{"time"}, millis: true}),
		func(key string, doc any) any { return map[string]any{"api_key": key, "events": []any{doc}} }, plain,
	},
	"mixpanel": {
		always(route{path: "/import", id: []string{"properties", "$insert_id"}, when: []string{"properties", "time"}, millis: true}),
		func(_ string, doc any) any { return []any{doc} }, basic,
	},
	"cloudevents": {always(route{path: "/cloudevents", id: []string{"id"}, when: []string{"time"}, whole: withSource}), alone, basic},
	"moesif":      {moesif, alone, field("X-Moesif-Application-Id")},
	"csb":         {csb, alone, basic},
	"gainsightpx": {gainsightPX, alone, field("X-APTRINSIC-API-KEY")},
}

// unsendable says of the other protocols why not, and what to do.
func unsendable(protocol string) string {
	if protocol == "otlp" {
		return "a log record of otlp is kept without the resource and scope around it, which may say whose it is: have its exporter send it again"
	}
	return "events of " + protocol + " can only be sent by their producer"
}

// withSource is the message id of a CloudEvent: an id is its source's own.
func withSource(doc map[string]any, id string) string {
	source, _ := doc["source"].(string)
	return source + " " + id
}

// moesif tells by what is in it to which of the paths an item was sent.
func moesif(_ *row, doc map[string]any) (route, string) {
	id := []string{"transaction_id"}
	request, _ := doc["request"].(map[string]any)
	switch {
	case doc["action_name"] != nil:
		return route{path: "/moesif/v1/actions", id: id, when: []string{"request", "time"}}, ""
	case request["verb"] != nil || request["method"] != nil:
		return route{path: "/moesif/v1/events", id: id, when: []string{"request", "time"}}, ""
	case request != nil:
		return route{}, "nothing in it tells an action from an API call: patch its action_name, or its request.verb"
	case doc["subscription_id"] != nil:
		return route{path: "/moesif/v1/subscriptions", id: id, when: []string{"modified_time"}}, ""
	case doc["user_id"] != nil:
		return route{path: "/moesif/v1/users", id: id, when: []string{"modified_time"}}, ""
	case doc["company_id"] != nil:
		return route{path: "/moesif/v1/companies", id: id, when: []string{"modified_time"}}, ""
	}
	return route{}, "nothing in it tells what of moesif it is: patch its action_name, user_id or company_id"
}

// csb tells by what is in it to which of the paths a call was sent. No body has a
// message id.
func csb(_ *row, doc map[string]any) (route, string) {
	to := func(name string) (route, string) {
		return route{path: "/csb/api/v1_1/" + name, when: []string{"timestamp"}}, ""
	}
	traits := 0
	for name := range doc {
		if name != "account_id" && name != "user_id" && name != "timestamp" {
			traits++
		}
	}
	switch {
	case doc["feature_id"] != nil || doc["type"] == "feature":
		return to("feature")
	case doc["event"] != nil:
		return to("login") // logout differs in the event's name alone, which it has
	case doc["type"] == "track" || traits == 0:
		return route{}, "nothing in it tells a login from a logout: patch its event"
	case doc["invoice_id"] != nil:
		return to("invoice")
	case doc["subscription_id"] != nil:
		return to("subscription")
	case doc["user_id"] != nil:
		return to("user")
	case doc["account_id"] != nil:
		return to("account")
	}
	return route{}, "nothing in it tells what of csb it is: patch its feature_id, event, user_id or account_id"
}

// gainsightPX tells by what is in it what an object is. Users and accounts have no
// message id.
func gainsightPX(x *row, doc map[string]any) (route, string) {
	if doc["eventName"] != nil {
		return route{path: "/gainsightpx/v1/events/custom", id: []string{"eventId"}, when: []string{"date"}, millis: true}, ""
	}
	// The change of one that the gateway did not know had its id in its path.
	if id, ok := strings.CutPrefix(x.detail, "unknown: not created here: "); ok && doc[x.field] == nil {
		doc[x.field] = id
	}
	objects := func(name string) (route, string) {
		return route{path: "/gainsightpx/v1/" + name, when: []string{"lastModifiedDate"}, millis: true, change: "/gainsightpx/v1/" + name + "/update"}, ""
	}
	switch {
	case doc["identifyId"] != nil:
		return objects("users")
	case doc["id"] != nil && doc["accountId"] == nil && doc["email"] == nil:
		return objects("accounts")
	}
	return route{}, "nothing in it tells what of gainsightpx it is: patch its eventName, its identifyId, or, of an account, its id"
}

// mendDocument patches the JSON that a gateway rejected.
func (r *run) mendDocument(x *row) (*mended, string) {
	p, ok := protocols[x.protocol]
	if !ok {
		return nil, unsendable(x.protocol)
	}
	if r.cfg.Gateway == "" && !r.cfg.DryRun {
		return nil, "it was rejected by a gateway: see -gateway"
	}
	v, err := decode([]byte(x.original))
	doc, ok := v.(map[string]any)
	if err != nil || !ok {
		return nil, "its bytes are no JSON object, or were cut"
	}
	if err := fixedIn(r.cfg.Patch.changes, x.protocol); err != nil {
		return nil, err.Error()
	}
	changes, err := evaluated(r.cfg.Patch.changes, doc)
	if err != nil {
		return nil, "the patch fails: " + err.Error()
	}
	doc, _ = merge(doc, changes).(map[string]any)
	to, why := p.route(x, doc)
	if why != "" {
		return nil, why
	}
	message := x.messageID
	if to.id != nil {
		if message, why = messageID(doc, to.id, x.messageID); why != "" {
			return nil, why
		}
	}
	if to.whole != nil {
		message = to.whole(doc, message)
	}
	if why := to.date(x, doc); why != "" {
		return nil, why
	}
	return &mended{row: x, id: id{x.app, message}, to: toGateway, doc: doc, route: to}, ""
}

// date gives an event without an instant of its own that of its receipt: it counts
// then, and not when it is sent again.
func (to *route) date(x *row, doc map[string]any) (why string) {
	if to.when == nil || x.protocol == "segment" && doc["originalTimestamp"] != nil {
		return ""
	}
	in, last, why := inside(doc, to.when)
	switch {
	case why != "" || in[last] != nil && in[last] != "":
		return why
	case to.millis:
		in[last] = x.received.UnixMilli()
	default:
		in[last] = x.received.UTC().Format(time.RFC3339Nano)
	}
	return ""
}

// inside returns the object that has the last key of path, made where it is
// missing.
func inside(doc map[string]any, path []string) (object map[string]any, last, why string) {
	for _, key := range path[:len(path)-1] {
		next, ok := doc[key].(map[string]any)
		if doc[key] != nil && !ok {
			return nil, "", key + " is no object"
		}
		if next == nil {
			next = map[string]any{}
			doc[key] = next
		}
		doc = next
	}
	return doc, path[len(path)-1], ""
}

// messageID returns the id that doc has, or gives it the one that the gateway
// gave it when it rejected it.
func messageID(doc map[string]any, path []string, given string) (message, why string) {
	in, last, why := inside(doc, path)
	if why != "" {
		return "", why
	}
	switch v := in[last].(type) {
	case string:
		if v != "" {
			return v, ""
		}
	case json.Number:
		return v.String(), ""
	case nil:
	default:
		return "", "its message id is no text"
	}
	in[last] = given
	return given, ""
}
