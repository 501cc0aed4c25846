package conformance

import (
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// client is an SDK and what is expected of it.
type client struct {
	protocol string
	sdk      string // of the driver, and of the table
	version  string
	prefix   bool   // the scenario without a fault goes below the protocol's prefix
	path     string // for SDKs that are given a whole address
	batch    bool
	sentAt   bool // its events carry when they were sent
	calls    []want
	rejected []string // codes of what the calls make the gateway put aside
	users    people   // traits of users afterwards; nil: not compared
	accounts people
	faults   map[string]string // fault to result, of those that are not "once"
	limits   string            // what does not work with it, beside the faults
	noFaults bool
	noLeave  bool
	language string                   // of the SDK's driver; "" is Node
	run      func(s scenario) outcome // makes the calls itself, without an SDK
}

// Results of a scenario with a fault.
const (
	once     = "once"
	onceTold = "once, and the SDK reports an error"
	told     = "not sent again, the SDK reports an error"
	silent   = "not sent again, the SDK says nothing"
)

// want is one event that an SDK was told to send. What is left out must be
// absent, of properties, traits and context only what is named is compared.
type want struct {
	call       string
	kind       string
	event      string
	id         string // "" is any
	user       string
	anonymous  string // anyID is any
	account    string
	previous   string
	quantity   int64 // 0 is 1
	at         time.Time
	noTime     bool // the SDK sends none
	properties map[string]any
	traits     map[string]any
	context    map[string]any
}

const anyID = "*"

// goLanguage is the language of SDKs that run beside Node's.
const goLanguage = "Go"

var then = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)

type obj = map[string]any

// people are the traits of users or accounts by id.
type people map[string]map[string]string

// neverAgain is of SDKs that send nothing a second time: what was refused is not
// there, and of what was stored without an answer they say that it failed.
func neverAgain() map[string]string {
	return map[string]string{err5: told, busy: told, limit: told, cut: told, lost: onceTold, slow: onceTold}
}

func clients() []client {
	segmentCalls := []want{
		{call: "track", kind: event.KindTrack, event: "Item Scanned", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
		{call: "identify", kind: event.KindIdentify, user: "maria", anonymous: "anon-1", traits: obj{"plan": "pro"}},
		{call: "group", kind: event.KindGroup, user: "maria", account: "corner-shop", traits: obj{"seats": 3.0}},
		{call: "page", kind: event.KindPage, event: "Cart", user: "maria", properties: obj{"path": "/cart"}},
		{call: "alias", kind: event.KindAlias, user: "maria", previous: "maria-old"},
	}
	return []client{
		{
			protocol: "segment", sdk: "segment-node", version: "@segment/analytics-node 3.1.0", sentAt: true,
			calls: append([]want{{call: "screen", kind: event.KindScreen, event: "Home", anonymous: "anon-1"}}, segmentCalls...),
			users: people{"maria": {"plan": "pro"}}, accounts: people{"corner-shop": {"seats": "3"}},
		},
		{
			protocol: "segment", sdk: "rudder-node", version: "@rudderstack/rudder-sdk-node 3.0.13", sentAt: true,
			calls: append([]want{{call: "screen", kind: event.KindScreen, event: "Home", user: "maria"}}, segmentCalls...),
			users: people{"maria": {"plan": "pro"}}, accounts: people{"corner-shop": {"seats": "3"}},
			faults: map[string]string{slow: onceTold},
		},
		{
			protocol: "posthog", sdk: "posthog-node", version: "posthog-node 5.70.0", prefix: true, sentAt: true,
			calls: posthogCalls(),
			users: posthogUsers(), accounts: people{"corner-shop": {"seats": "3"}},
		},
		{
			protocol: "posthog", sdk: "posthog-node-v1", version: "posthog-node 5.70.0, capture mode v1", sentAt: true,
			calls: posthogCalls(),
			users: posthogUsers(), accounts: people{"corner-shop": {"seats": "3"}},
		},
		{
			protocol: "posthog", sdk: "posthog-js-lite", version: "posthog-js-lite 4.12.1", sentAt: true,
			users: spreadUsers, accounts: people{"corner-shop": {"seats": "3"}},
			calls: []want{
				{call: "capture before identify", kind: event.KindTrack, event: "Seen", anonymous: anyID, properties: obj{"where": "home"}},
				{call: "identify", kind: event.KindIdentify, event: "$identify", user: "maria", anonymous: anyID, traits: obj{"plan": "pro"}},
				{call: "identify", kind: event.KindAlias, event: "$identify", user: "maria", anonymous: anyID, previous: anyID},
				{call: "group", kind: event.KindGroup, event: "$groupidentify", user: "maria", account: "corner-shop", traits: obj{"seats": 3.0}},
				{call: "capture", kind: event.KindTrack, event: "Item Scanned", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "alias", kind: event.KindAlias, event: "$create_alias", user: "maria", previous: "maria-new", account: "corner-shop"},
			},
		},
		{
			protocol: "cloudevents", sdk: "openmeter-node", version: "@openmeter/sdk 1.0.0-beta.232", noFaults: true,
			calls: []want{
				{call: "ingest", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 o-1", account: "corner shop", at: then, properties: obj{"sku": "4006"}},
				{call: "ingest, array", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 o-2", account: "corner shop", at: then, properties: obj{"sku": "4006"}},
				{call: "ingest, array", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 o-3", account: "corner shop", at: then, properties: obj{"sku": "4006"}},
			},
		},
		{
			protocol: "moesif", sdk: "moesif-node", version: "moesif-nodejs 3.11.0", prefix: true,
			calls: []want{
				{call: "updateUser", kind: event.KindIdentify, user: "maria", account: "corner-shop", noTime: true, traits: obj{"plan": "pro"}},
				{call: "updateUsersBatch", kind: event.KindIdentify, user: "jo", noTime: true},
				{call: "updateUsersBatch", kind: event.KindIdentify, user: "ann", noTime: true},
				{call: "updateCompany", kind: event.KindGroup, account: "corner-shop", noTime: true, traits: obj{"company_domain": "corner.example", "seats": 3.0}},
				{call: "updateCompaniesBatch", kind: event.KindGroup, account: "other", noTime: true},
				{call: "updateSubscription", kind: event.KindGroup, event: "subscription", account: "corner-shop", noTime: true, traits: obj{"subscription": obj{"subscription_id": "s-1", "status": "active"}}},
				{call: "updateSubscriptionsBatch", kind: event.KindGroup, event: "subscription", account: "other", noTime: true, traits: obj{"subscription": obj{"subscription_id": "s-2"}}},
				{call: "sendAction", kind: event.KindTrack, event: "Item Scanned", id: "m-action", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "sendActionsBatch", kind: event.KindTrack, event: "Paid", user: "maria", noTime: true},
				{
					call: "API call", kind: event.KindAPICall, event: "POST /v1/orders/{id}", user: "maria", account: "corner-shop",
					properties: obj{"method": "POST", "route": "/v1/orders/{id}", "path": "/v1/orders/4711", "status": 201.0, "region": "eu"},
				},
			},
			users: people{"maria": {"plan": "pro"}, "jo": {}, "ann": {}},
			accounts: people{
				"corner-shop": {"company_domain": "corner.example", "seats": "3", "subscription": `{"status":"active","subscription_id":"s-1"}`},
				"other":       {"subscription": `{"status":"active","subscription_id":"s-2"}`},
			},
			faults: map[string]string{err5: told, busy: told, limit: told, slow: onceTold}, // a broken connection it does try again
		},
		{
			protocol: "mixpanel", sdk: "mixpanel-node", version: "mixpanel 0.24.0", prefix: true,
			calls: []want{
				{call: "track", kind: event.KindTrack, event: "Item Scanned", id: "m-track", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "track_batch", kind: event.KindTrack, event: "A", id: "m-a", user: "maria", noTime: true, properties: obj{"q": ">>>???ü"}},
				{call: "track_batch", kind: event.KindTrack, event: "B", id: "m-b", user: "maria", anonymous: "d-1", noTime: true},
				{call: "import", kind: event.KindTrack, event: "Old", id: "m-old", user: "maria", at: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)},
				{call: "import_batch", kind: event.KindTrack, event: "Older", id: "m-older", user: "maria", at: time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC)},
				{call: "alias", kind: event.KindAlias, event: "$create_alias", user: "maria", previous: "anon-1", noTime: true},
				{call: "people.set", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"plan": "pro"}},
				{call: "people.set_once", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$set_once": obj{"first": 1.0}}},
				{call: "people.increment", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$add": obj{"logins": 1.0}}},
				{call: "people.append", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$append": obj{"tags": "a"}}},
				{call: "people.union", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$union": obj{"list": []any{"x"}}}},
				{call: "people.remove", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$remove": obj{"list": "x"}}},
				{call: "people.unset", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$unset": []any{"plan"}}},
				{call: "people.delete_user", kind: event.KindIdentify, event: "$engage", user: "jo", noTime: true, traits: obj{"$delete": ""}},
				{call: "groups.set", kind: event.KindGroup, event: "$group", account: "corner-shop", noTime: true, traits: obj{"seats": 3.0}},
			},
			// plan was set and unset, of list's x nothing is left, and jo was deleted.
			users:    people{"maria": {"first": "1", "logins": "1", "tags": `["a"]`, "list": "[]"}, "jo": {}},
			accounts: people{"corner-shop": {"seats": "3"}},
			faults:   neverAgain(),
		},
		{
			protocol: "amplitude", sdk: "amplitude-node", version: "@amplitude/analytics-node 1.5.73", prefix: true, sentAt: true,
			calls:    amplitudeCalls(),
			users:    amplitudeUsers(),
			accounts: people{"corner-shop": {"seats": "3"}},
			faults:   map[string]string{cut: told, lost: onceTold}, // it takes a broken connection for an end
		},
		{
			protocol: "csb", sdk: "csb-node", version: "csb-node 2.0.4", prefix: true,
			calls: []want{
				{call: "login", kind: event.KindTrack, event: "User Login", user: "maria", account: "corner-shop"},
				{call: "account", kind: event.KindGroup, account: "corner-shop", noTime: true, traits: obj{"plan": "pro", "seats": 3.0}},
				{call: "user", kind: event.KindIdentify, user: "maria", account: "corner-shop", noTime: true, traits: obj{"email": "m@example.com"}},
				{call: "subscription", kind: event.KindGroup, event: "subscription", account: "corner-shop", noTime: true, traits: obj{"subscription": obj{"subscription_id": "s-1", "plan_name": "pro"}}},
				{call: "invoice", kind: event.KindGroup, event: "invoice", account: "corner-shop", noTime: true, traits: obj{"invoice": obj{"subscription_id": "s-1", "invoice_id": "i-1", "amount": 12.5}}},
				{call: "feature, total 12", kind: event.KindTrack, event: "scan-item", user: "maria", account: "corner-shop", quantity: 12, properties: obj{"product_id": "pos", "module_id": "checkout"}},
				{call: "feature", kind: event.KindTrack, event: "pay", user: "maria", account: "corner-shop", properties: obj{"product_id": "pos", "module_id": "checkout"}},
				{call: "logout", kind: event.KindTrack, event: "User Logout", user: "maria", account: "corner-shop"},
			},
			users: people{"maria": {"email": "m@example.com"}},
			accounts: people{"corner-shop": {
				"plan": "pro", "seats": "3", "subscription": `{"plan_name":"pro","subscription_id":"s-1"}`,
				"invoice": `{"amount":12.5,"invoice_id":"i-1","subscription_id":"s-1"}`,
			}},
			faults: neverAgain(),
		},
		{
			protocol: "cloudevents", sdk: "cloudevents-node", version: "cloudevents 10.0.0", path: "/",
			calls: []want{
				{call: "structured", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 structured", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "binary", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 binary", user: "maría", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "batch", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 b-1", user: "maria", account: "corner-shop", at: then},
				{call: "batch", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 b-2", user: "maria", account: "corner-shop", at: then},
			},
			// What becomes of a reply is up to who emits; the driver looks at none.
			faults: map[string]string{err5: silent, busy: silent, limit: silent, cut: told, lost: onceTold, slow: onceTold},
		},
		{
			protocol: "otlp", sdk: "otlp-json-node", version: "@opentelemetry/exporter-logs-otlp-http 0.223.1", prefix: true,
			calls: otlpCalls(), faults: map[string]string{err5: told, slow: onceTold},
		},
		{
			protocol: "otlp", sdk: "otlp-proto-node", version: "@opentelemetry/exporter-logs-otlp-proto 0.223.1, gzip",
			calls: otlpCalls(), faults: map[string]string{err5: told, slow: onceTold},
		},
	}
}

func posthogCalls() []want {
	return []want{
		{call: "capture", kind: event.KindTrack, event: "Item Scanned", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
		{call: "capture with $set", kind: event.KindIdentify, event: "$set", user: "maria", account: "corner-shop", at: then, traits: obj{"tier": "gold", "$set_once": obj{"first": 1.0}}},
		{call: "capture without an id", kind: event.KindTrack, event: "Job Ran", anonymous: anyID},
		{call: "identify", kind: event.KindIdentify, event: "$identify", user: "maria", anonymous: "anon-1", traits: obj{"plan": "pro", "$set_once": obj{"since": 2020.0}}},
		{call: "identify", kind: event.KindAlias, event: "$identify", user: "maria", anonymous: "anon-1", previous: "anon-1"},
		{call: "groupIdentify", kind: event.KindGroup, event: "$groupidentify", account: "corner-shop", traits: obj{"seats": 3.0}},
		{call: "alias", kind: event.KindAlias, event: "$create_alias", user: "maria", previous: "maria-old"},
		{call: "$pageview", kind: event.KindPage, event: "$pageview", user: "maria", context: obj{"page": obj{"url": "https://shop.example/cart", "path": "/cart"}}},
		{call: "captureImmediate", kind: event.KindTrack, event: "At Once", user: "maria"},
	}
}

func posthogUsers() people {
	return people{"maria": {"plan": "pro", "tier": "gold", "first": "1", "since": "2020"}}
}

func amplitudeUsers() people {
	return people{"maria": {"plan": "pro", "first": "1", "logins": "1", "tags": `["a"]`, "company": "corner-shop"}}
}

func amplitudeCalls() []want {
	return []want{
		{call: "track", kind: event.KindTrack, event: "Item Scanned", id: "m-track", user: "maria", anonymous: "d-1", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
		{
			call: "identify", kind: event.KindIdentify, event: "$identify", user: "maria", anonymous: "d-1",
			traits: obj{"plan": "pro", "$setOnce": obj{"first": 1.0}, "$add": obj{"logins": 1.0}, "$append": obj{"tags": "a"}, "$unset": obj{"gone": "-"}},
		},
		{call: "setGroup", kind: event.KindIdentify, event: "$identify", user: "maria", anonymous: "d-1", account: "corner-shop", traits: obj{"company": "corner-shop"}},
		{call: "groupIdentify", kind: event.KindGroup, event: "$groupidentify", user: "maria", anonymous: "d-1", account: "corner-shop", traits: obj{"seats": 3.0}},
		{call: "revenue", kind: event.KindTrack, event: "revenue_amount", user: "maria", anonymous: "d-1", properties: obj{"$price": 2.5, "$quantity": 2.0, "$productId": "p-1"}},
	}
}

func otlpCalls() []want {
	return []want{
		{
			// ClickHouse gives the elements of an array one type.
			call: "emit", kind: event.KindTrack, event: "item.scanned", user: "maria", account: "corner-shop", at: then,
			properties: obj{"price": 1.5, "ok": true, "list": []any{"a", "2"}, "sku": "4006", "deep": obj{"n": -5.0}},
			context:    obj{"scope": obj{"name": "scanner", "version": "1.0"}},
		},
	}
}
