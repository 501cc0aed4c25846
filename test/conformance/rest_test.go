package conformance

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// httpClients make the calls that protocols have and no SDK here makes: requests
// as their documentation writes them.
func httpClients() []client {
	return []client{
		{
			protocol: "segment", sdk: "segment-http", version: "HTTP API of Segment and RudderStack, no SDK", noFaults: true,
			run: func(s scenario) outcome {
				return send(s, "Basic "+basic(s.Key), []call{
					{"POST", "/v1/track", "application/json", `{"type":"track","event":"Item Scanned","userId":"maria","messageId":"h-track","timestamp":"2026-01-02T03:04:05.678Z","properties":{"sku":"4006","company":"corner-shop"}}`, 200},
					{"POST", "/v1/import", "application/json", `{"batch":[{"type":"track","event":"Item Scanned","userId":"maria","messageId":"h-import","originalTimestamp":"2026-01-02T03:04:05.678Z","context":{"groupId":"corner-shop"}}]}`, 200},
					{"POST", "/beacon/v1/batch?writeKey=" + s.Key, "text/plain", `{"batch":[{"type":"page","name":"Cart","anonymousId":"anon-1","messageId":"h-beacon","originalTimestamp":"2026-01-02T03:04:05.678Z","properties":{"path":"/cart"}}]}`, 200},
					{"GET", "/pixel/v1/track?writeKey=" + s.Key + "&event=Item+Scanned&userId=maria&messageId=h-pixel&timestamp=2026-01-02T03:04:05.678Z&properties.sku=4006", "", "", 200},
					{"GET", "/pixel/v1/page?writeKey=" + s.Key + "&name=Cart&anonymousId=anon-1&messageId=h-pixel-page&timestamp=2026-01-02T03:04:05.678Z&properties.path=/cart", "", "", 200},
					{"POST", "/segment/v1/identify/", "application/json", `{"userId":"maria","messageId":"h-identify","timestamp":"2026-01-02T03:04:05.678Z","context":{"traits":{"plan":"pro"}}}`, 200},
				})
			},
			calls: []want{
				{call: "track", kind: event.KindTrack, event: "Item Scanned", id: "h-track", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "import", kind: event.KindTrack, event: "Item Scanned", id: "h-import", user: "maria", account: "corner-shop", at: then},
				{call: "beacon", kind: event.KindPage, event: "Cart", id: "h-beacon", anonymous: "anon-1", at: then, properties: obj{"path": "/cart"}},
				{call: "pixel track", kind: event.KindTrack, event: "Item Scanned", id: "h-pixel", user: "maria", at: then, properties: obj{"sku": "4006"}},
				{call: "pixel page", kind: event.KindPage, event: "Cart", id: "h-pixel-page", anonymous: "anon-1", at: then, properties: obj{"path": "/cart"}},
				{call: "identify, prefix", kind: event.KindIdentify, id: "h-identify", user: "maria", at: then, traits: obj{"plan": "pro"}},
			},
			users: people{"maria": {"plan": "pro"}},
		},
		{
			protocol: "posthog", sdk: "posthog-http", version: "HTTP API, no SDK", noFaults: true,
			run: func(s scenario) outcome {
				one := func(id, name string) string {
					return fmt.Sprintf(`{"api_key":%q,"uuid":%q,"event":%q,"distinct_id":"maria","timestamp":"2026-01-02T03:04:05.678Z","properties":{"sku":"4006","$groups":{"company":"corner-shop"}}}`, s.Key, id, name)
				}
				return send(s, "", []call{
					{"POST", "/capture/", "application/json", one("p-capture", "Item Scanned"), 200},
					{"POST", "/e/?compression=base64", "application/x-www-form-urlencoded", "data=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(one("p-e", "Item Scanned")))), 200},
					{"POST", "/i/v0/e/", "text/plain", "[" + one("p-i", "Item Scanned") + "]", 200},
					{"GET", "/e?data=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(one("p-get", "Item Scanned")))), "", "", 200},
					{"POST", "/engage", "application/json", fmt.Sprintf(`{"api_key":%q,"uuid":"p-engage","event":"$set","$set":{"plan":"pro"},"$unset":["trial"],"distinct_id":"maria","timestamp":"2026-01-02T03:04:05.678Z","properties":{}}`, s.Key), 200},
					{"POST", "/flags/?v=2", "application/json", fmt.Sprintf(`{"api_key":%q,"distinct_id":"maria"}`, s.Key), 200},
				})
			},
			calls: []want{
				{call: "capture", kind: event.KindTrack, event: "Item Scanned", id: "p-capture", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "e, base64 form", kind: event.KindTrack, event: "Item Scanned", id: "p-e", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "i/v0/e, array", kind: event.KindTrack, event: "Item Scanned", id: "p-i", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "e, GET", kind: event.KindTrack, event: "Item Scanned", id: "p-get", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "engage, $set and $unset", kind: event.KindIdentify, event: "$set", id: "p-engage", user: "maria", at: then, traits: obj{"plan": "pro", "$unset": []any{"trial"}}},
			},
			users: people{"maria": {"plan": "pro"}},
		},
		{
			protocol: "amplitude", sdk: "amplitude-http", version: "HTTP API, no SDK", noFaults: true,
			run: func(s scenario) outcome {
				form := func(identification string) string {
					return url.Values{"api_key": {s.Key}, "identification": {identification}}.Encode()
				}
				const kind = "application/x-www-form-urlencoded"
				return send(s, "", []call{
					{"POST", "/batch", "application/json", fmt.Sprintf(`{"api_key":%q,"events":[{"event_type":"Item Scanned","user_id":"maria","device_id":"d-1","insert_id":"a-batch","time":%d,"groups":{"company":["corner-shop"]},"event_properties":{"sku":"4006"},"user_properties":{"$set":{"plan":"pro"},"$add":{"scans":1}}}]}`, s.Key, then.UnixMilli()), 200},
					{"POST", "/identify", kind, form(`[{"user_id":"maria","user_properties":{"$set":{"plan":"max"},"$append":{"tags":"a"}}}]`), 200},
					{"POST", "/groupidentify", kind, form(`[{"group_type":"company","group_value":"corner-shop","group_properties":{"seats":3}}]`), 200},
				})
			},
			calls: []want{
				{call: "batch", kind: event.KindTrack, event: "Item Scanned", id: "a-batch", user: "maria", anonymous: "d-1", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "batch, user_properties", kind: event.KindIdentify, event: "$identify", id: "a-batch:set", user: "maria", account: "corner-shop", at: then, traits: obj{"plan": "pro", "$add": obj{"scans": 1.0}}},
				{call: "identify", kind: event.KindIdentify, event: "$identify", user: "maria", noTime: true, traits: obj{"plan": "max", "$append": obj{"tags": "a"}}},
				{call: "groupidentify", kind: event.KindGroup, event: "$groupidentify", account: "corner-shop", noTime: true, traits: obj{"seats": 3.0}},
			},
			users:    people{"maria": {"plan": "max", "scans": "1", "tags": `["a"]`}},
			accounts: people{"corner-shop": {"seats": "3"}},
		},
		{
			protocol: "mixpanel", sdk: "mixpanel-http", version: "HTTP API, no SDK", noFaults: true,
			run: func(s scenario) outcome {
				one := func(id string) string {
					return fmt.Sprintf(`{"event":"Item Scanned","properties":{"token":%q,"$insert_id":%q,"distinct_id":"maria","time":%d,"company":["corner-shop"],"sku":"4006"}}`, s.Key, id, then.UnixMilli())
				}
				return send(s, "Basic "+basic(s.Key), []call{
					{"GET", "/track/?verbose=1&data=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(one("x-get")))), "", "", 200},
					{"POST", "/mixpanel/track#live-event", "application/x-www-form-urlencoded", "data=" + url.QueryEscape(one("x-raw")), 200},
					{"POST", "/import?strict=1&project_id=1", "application/x-ndjson", one("x-line-1") + "\n" + one("x-line-2") + "\n", 200},
					{"POST", "/groups", "application/json", fmt.Sprintf(`[{"$token":%q,"$group_key":"company","$group_id":"corner-shop","$set":{"seats":3},"$union":{"tags":["a","b"]}}]`, s.Key), 200},
					{"POST", "/engage", "application/json", fmt.Sprintf(`[{"$token":%q,"$distinct_id":"maria","$time":%d,"$set":{"plan":"pro"}},{"$token":%q,"$distinct_id":"maria","$time":%d,"$delete":""}]`, s.Key, then.UnixMilli(), s.Key, then.Add(time.Second).UnixMilli()), 200},
				})
			},
			calls: []want{
				{call: "track, GET", kind: event.KindTrack, event: "Item Scanned", id: "x-get", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "track, JSON in a form", kind: event.KindTrack, event: "Item Scanned", id: "x-raw", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "import, JSON lines", kind: event.KindTrack, event: "Item Scanned", id: "x-line-1", user: "maria", account: "corner-shop", at: then},
				{call: "import, JSON lines", kind: event.KindTrack, event: "Item Scanned", id: "x-line-2", user: "maria", account: "corner-shop", at: then},
				{call: "groups, $set and $union", kind: event.KindGroup, event: "$group", account: "corner-shop", noTime: true, traits: obj{"seats": 3.0, "$union": obj{"tags": []any{"a", "b"}}}},
				{call: "engage, $set", kind: event.KindIdentify, event: "$engage", user: "maria", at: then, traits: obj{"plan": "pro"}},
				{call: "engage, $delete", kind: event.KindIdentify, event: "$engage", user: "maria", at: then.Add(time.Second), traits: obj{"$delete": ""}},
			},
			users:    people{"maria": {}},
			accounts: people{"corner-shop": {"seats": "3", "tags": `["a","b"]`}},
		},
		{
			protocol: "moesif", sdk: "moesif-http", version: "HTTP API, no SDK", noFaults: true,
			run: func(s scenario) outcome {
				one := func(id string, weight int) string {
					return fmt.Sprintf(`{"transaction_id":%q,"weight":%d,"user_id":"maria","company_id":"corner-shop","direction":"Incoming","request":{"time":"2026-01-02T03:04:05.678","verb":"POST","uri":"https://shop.example/v1/orders/4711?x=1","headers":{"Authorization":"Bearer secret"}},"response":{"time":"2026-01-02T03:04:05.778","status":201},"metadata":{"region":"eu"}}`, id, weight)
				}
				h := "X-Moesif-Application-Id: " + s.Key
				return send(s, h, []call{
					{"GET", "/v1/config", "", "", 200},
					{"GET", "/v1/rules", "", "", 200},
					{"POST", "/v1/events", "application/json", one("e-1", 1), 201},
					{"POST", "/v1/events/batch", "application/json", "[" + one("e-2", 10) + "]", 201},
				})
			},
			calls: []want{
				{call: "events", kind: event.KindAPICall, event: "POST /v1/orders/{id}", id: "e-1", user: "maria", account: "corner-shop", at: then, properties: obj{"method": "POST", "route": "/v1/orders/{id}", "path": "/v1/orders/4711", "status": 201.0, "duration_ms": 100.0, "region": "eu"}},
				{call: "events/batch, sampled", kind: event.KindAPICall, event: "POST /v1/orders/{id}", id: "e-2", user: "maria", account: "corner-shop", quantity: 10, at: then, properties: obj{"status": 201.0, "duration_ms": 100.0}},
			},
		},
		{
			protocol: "cloudevents", sdk: "openmeter-http", version: "OpenMeter's HTTP API, no SDK", noFaults: true,
			run: func(s scenario) outcome {
				one := func(id string) string {
					return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/pos/7","type":"item.scanned","subject":"corner-shop","time":%q,"data":{"user_id":"maria","sku":"4006"}}`, id, then.Format(time.RFC3339Nano))
				}
				return send(s, "Bearer "+s.Key, []call{
					{"POST", "/api/v1/events", "application/cloudevents+json", one("o-1"), 204},
					{"POST", "/api/v1/events", "application/cloudevents-batch+json", "[" + one("o-2") + "]", 204},
				})
			},
			calls: []want{
				{call: "event", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 o-1", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "batch", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 o-2", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
			},
		},
	}
}

// call is one request and the status that its client takes for success.
type call struct {
	method, path, kind, body string
	status                   int
}

func basic(key string) string { return base64.StdEncoding.EncodeToString([]byte(key + ":")) }

// send makes the calls one after the other. auth is the value of Authorization,
// or a header field with its name.
func send(s scenario, auth string, calls []call) outcome {
	var r outcome
	for _, c := range calls {
		req, err := http.NewRequest(c.method, s.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			r.fail(err)
			continue
		}
		if c.kind != "" {
			req.Header.Set("Content-Type", c.kind)
		}
		if name, value, ok := strings.Cut(auth, ": "); ok {
			req.Header.Set(name, value)
		} else if auth != "" {
			req.Header.Set("Authorization", auth)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			r.fail(err)
			continue
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil && res.StatusCode != c.status {
			err = fmt.Errorf("%s %s: got %d %s, want %d", c.method, c.path, res.StatusCode, body, c.status)
		}
		r.fail(err)
	}
	return r
}
