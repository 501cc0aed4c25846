package replay

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// protocol is how one event of a wire protocol is sent to a gateway.
type protocol struct {
	// sign puts the write key into the header, unless a route's body has it.
	sign func(h http.Header, key string)
	// routes are those that events come by, by their paths without the protocol's
	// prefix, as Rejected.Route has them.
	routes map[string]route
	// unnamed is where events go whose record names no route, since it is of version
	// 1: only where one route takes all of the protocol's events.
	unnamed route
}

// route is where an event goes, and where it has what it must have.
type route struct {
	path string
	// body puts around an event what its protocol asks for; nil: nothing.
	body func(key string, m *repaired) any
	id   []string // its message id; nil: nowhere, so the request names it
	when []string // its instant
	// millis: the instant is in milliseconds since the epoch, else in ISO 8601.
	millis bool
	// form is the field of a form that holds the event; empty: the body is JSON.
	form string
	// change is where what exists already is changed, by PUT.
	change string
	// complete adds to an event what it needs of its envelope. It returns the
	// message id if it knows where that stands, or why the event cannot be sent.
	complete func(x *row, doc, envelope map[string]any) (message, why string)
	// whole makes the event's message id of the one in doc; nil: they are the same.
	whole func(doc map[string]any, id string) string
}

func basic(h http.Header, key string) { (&http.Request{Header: h}).SetBasicAuth(key, "") }

func field(name string) func(http.Header, string) {
	return func(h http.Header, key string) { h.Set(name, key) }
}

func unsigned(http.Header, string) {}

// keyed puts events into a list beside the write key.
func keyed(list string) func(string, *repaired) any {
	return func(key string, m *repaired) any { return map[string]any{"api_key": key, list: []any{m.doc}} }
}

// at returns a copy of r for each path, which it is sent to, under prefix.
func (r route) at(prefix string, paths ...string) map[string]route {
	all := map[string]route{}
	for _, p := range paths {
		r.path = prefix + p
		all[p] = r
	}
	return all
}

// instead returns r, which keeps the path that it is sent to, for each path.
func (r route) instead(paths ...string) map[string]route {
	all := map[string]route{}
	for _, p := range paths {
		all[p] = r
	}
	return all
}

func join(some ...map[string]route) map[string]route {
	all := map[string]route{}
	for _, m := range some {
		maps.Copy(all, m)
	}
	return all
}

// protocols that events can be sent by.
var protocols = func() map[string]protocol {
	segment := route{id: []string{"messageId"}, when: []string{"timestamp"}}
	segments := segment
	segments.body = func(_ string, m *repaired) any { return map[string]any{"batch": []any{m.doc}} }
	track, page, batch := segment, segment, segments
	track.path, page.path, batch.path = "/v1/track", "/v1/page", "/v1/batch"

	posthog := route{path: "/batch", body: keyed("batch"), id: []string{"uuid"}, when: []string{"timestamp"}}

	amplitude := route{path: "/2/httpapi", body: keyed("events"), id: []string{"insert_id"}, when: []string{"time"}, millis: true}
	form := route{form: "identification", id: []string{"insert_id"}, when: []string{"time"}, millis: true}

	list := func(_ string, m *repaired) any { return []any{m.doc} }
	mixpanel := route{path: "/import", body: list, id: []string{"properties", "$insert_id"}, when: []string{"properties", "time"}, millis: true}
	profile := route{body: list, when: []string{"$time"}, millis: true}

	cloud := route{path: "/cloudevents", id: []string{"id"}, when: []string{"time"}, whole: withSource}

	moesif := func(path string, when ...string) map[string]route {
		return route{path: "/moesif" + path, id: []string{"transaction_id"}, when: when}.instead(path, path+"/batch")
	}
	object := func(path, id string) map[string]route {
		r := route{path: "/gainsightpx" + path, change: "/gainsightpx" + path + "/update", when: []string{"lastModifiedDate"}, millis: true}
		r.complete = func(_ *row, doc, envelope map[string]any) (message, why string) {
			if doc[id] == nil && envelope["id"] != nil {
				doc[id] = envelope["id"] // of the path
			}
			return "", ""
		}
		return r.instead(path, path+"/update", path+"/{id}")
	}
	return map[string]protocol{
		"segment": {sign: basic, unnamed: batch, routes: join(
			segment.at("", "/v1/track", "/v1/t", "/v1/identify", "/v1/i", "/v1/group", "/v1/g", "/v1/page", "/v1/p", "/v1/screen", "/v1/s", "/v1/alias", "/v1/a", "/v1/metric"),
			segments.at("", "/v1/batch", "/v1/b", "/v1/import", "/beacon/v1/batch"),
			track.instead("/pixel/v1/track"), page.instead("/pixel/v1/page"),
		)},
		"posthog": {sign: unsigned, unnamed: posthog, routes: posthog.instead("/e", "/i/v0/e", "/i/v0/ai/batch", "/capture", "/batch", "/track", "/engage", "/i/v1/analytics/events")},
		"amplitude": {sign: unsigned, unnamed: amplitude, routes: join(
			amplitude.instead("/2/httpapi"), amplitude.at("/amplitude", "/batch"), form.at("/amplitude", "/identify", "/groupidentify"),
		)},
		"mixpanel":    {sign: basic, unnamed: mixpanel, routes: join(mixpanel.instead("/track", "/import"), profile.at("/mixpanel", "/engage", "/groups"))},
		"cloudevents": {sign: basic, unnamed: cloud, routes: cloud.instead("/", "/api/v1/events")},
		"moesif": {sign: field("X-Moesif-Application-Id"), routes: join(
			moesif("/v1/actions", "request", "time"), moesif("/v1/events", "request", "time"),
			moesif("/v1/users", "modified_time"), moesif("/v1/companies", "modified_time"), moesif("/v1/subscriptions", "modified_time"),
		)},
		"csb": {sign: basic, routes: route{when: []string{"timestamp"}}.at("/csb",
			"/api/v1_1/login", "/api/v1_1/logout", "/api/v1_1/feature", "/api/v1_1/account", "/api/v1_1/user", "/api/v1_1/subscription", "/api/v1_1/invoice")},
		"gainsightpx": {sign: field("X-APTRINSIC-API-KEY"), routes: join(
			route{id: []string{"eventId"}, when: []string{"date"}, millis: true}.at("/gainsightpx", "/v1/events/custom"),
			object("/v1/users", "identifyId"), object("/v1/accounts", "id"),
		)},
		"otlp": {sign: basic, routes: route{path: "/v1/logs", body: exportLogs, complete: logRecord}.instead("/v1/logs")},
	}
}()

// withSource is the message id of a CloudEvent: an id is its source's own.
func withSource(doc map[string]any, id string) string {
	source, _ := doc["source"].(string)
	return source + " " + id
}

// exportLogs is a request of OTLP with one log record, and what stood around it.
func exportLogs(_ string, m *repaired) any {
	logs, scoped := map[string]any{}, map[string]any{"logRecords": []any{m.doc}}
	if v, ok := m.envelope["resource"]; ok {
		logs["resource"] = v
	}
	if v, ok := m.envelope["scope"]; ok {
		scoped["scope"] = v
	}
	logs["scopeLogs"] = []any{scoped}
	return map[string]any{"resourceLogs": []any{logs}}
}

// uidAttribute is the attribute of a log record that holds its message id.
const uidAttribute = "log.record.uid"

// logRecord gives a log record of OTLP the message id that it was rejected with,
// and, if it has no instant, that of its receipt.
func logRecord(x *row, doc, _ map[string]any) (message, why string) {
	if x.envelope == "" {
		return "", "the resource and scope around it were not kept, which may say whose it is: have its exporter send it again"
	}
	if isZero(doc["timeUnixNano"]) && isZero(doc["observedTimeUnixNano"]) {
		doc["timeUnixNano"] = strconv.FormatInt(x.received.UnixNano(), 10)
	}
	attributes, _ := doc["attributes"].([]any)
	for _, a := range attributes {
		pair, _ := a.(map[string]any)
		value, _ := pair["value"].(map[string]any)
		if own, _ := value["stringValue"].(string); pair["key"] == uidAttribute && own != "" {
			return own, ""
		}
	}
	doc["attributes"] = append(attributes, map[string]any{"key": uidAttribute, "value": map[string]any{"stringValue": x.messageID}})
	return x.messageID, ""
}

// isZero reports whether an instant of OTLP, a number or a text, is absent.
func isZero(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case json.Number:
		return v == "0"
	}
	return v == "" || v == "0"
}

// routeOf returns where a rejected event goes, by the route that it came by.
func routeOf(x *row) (route, string) {
	p, ok := protocols[x.protocol]
	if !ok {
		return route{}, "events of " + x.protocol + " can only be sent by their producer"
	}
	if x.route == "" {
		if p.unnamed.path == "" {
			return route{}, "its record is of an earlier version and does not name the route it came by: have its producer send it again"
		}
		return p.unnamed, ""
	}
	_, path, _ := strings.Cut(x.route, " ")
	to, ok := p.routes[path]
	if !ok {
		return route{}, "events of the route " + x.route + " of " + x.protocol + " can only be sent by their producer"
	}
	return to, ""
}

// repairDocument patches the JSON that a gateway rejected.
func (r *run) repairDocument(x *row) (*repaired, string) {
	to, why := routeOf(x)
	if why != "" {
		return nil, why
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
	envelope, message := map[string]any{}, x.messageID
	if x.envelope != "" {
		v, _ := decode([]byte(x.envelope)) // what the gateway wrote is JSON
		envelope, _ = v.(map[string]any)
	}
	if to.complete != nil {
		own, why := to.complete(x, doc, envelope)
		if why != "" {
			return nil, why
		}
		message = cmp.Or(own, message)
	}
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
	return &repaired{row: x, id: id{x.app, message}, to: toGateway, doc: doc, envelope: envelope, route: to}, ""
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
