package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/posthog/posthog-go"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/event"
)

// goClients are the SDKs for Go, and a protocol that has none.
func goClients() []client {
	return []client{
		{
			protocol: "posthog", sdk: "posthog-go", version: "posthog-go 1.5.2", prefix: true, run: runPostHog,
			calls: []want{
				{call: "Capture", kind: event.KindTrack, event: "Item Scanned", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "Identify", kind: event.KindIdentify, event: "$identify", user: "maria", traits: obj{"plan": "pro"}},
				{call: "GroupIdentify", kind: event.KindGroup, event: "$groupidentify", account: "corner-shop", traits: obj{"seats": 3.0}},
				{call: "Alias", kind: event.KindAlias, event: "$create_alias", user: "maria", previous: "maria-old"},
			},
			users: people{"maria": {"plan": "pro"}}, accounts: people{"corner-shop": {"seats": "3"}},
		},
		{
			protocol: "cloudevents", sdk: "cloudevents-go", version: "cloudevents/sdk-go 2.16.2, with retries", prefix: true, run: runCloudEvents,
			calls: []want{
				{call: "binary", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 binary", user: "maría", account: "corner shop", at: then, properties: obj{"sku": "4006"}},
				{call: "structured", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 structured", user: "maría", account: "corner shop", at: then, properties: obj{"sku": "4006"}},
				{call: "batch", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 b-1", user: "maría", account: "corner shop", at: then},
				{call: "batch", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 b-2", user: "maría", account: "corner shop", at: then},
			},
			faults: map[string]string{err5: told}, // not one of the statuses that it sends again on
		},
		{
			protocol: "gainsightpx", sdk: "gainsightpx-rest", version: "REST API, no SDK", run: runGainsightPX, noFaults: true,
			rejected: []string{ingest.CodeBadEvent}, // the change of a user that is not there
			users:    people{"maria": {"firstName": "Maria", "tier": "gold", "title": "Owner"}},
			accounts: people{"corner-shop": {"name": "Corner", "parentGroupId": "retail-group"}},
			calls: []want{
				{call: "create user", kind: event.KindIdentify, user: "maria", account: "corner-shop", noTime: true, traits: obj{"firstName": "Maria", "tier": "gold"}},
				{call: "change user", kind: event.KindIdentify, user: "maria", noTime: true, traits: obj{"title": "Owner"}},
				{call: "create account", kind: event.KindGroup, account: "corner-shop", noTime: true, traits: obj{"name": "Corner Shop", "parentGroupId": "retail-group"}},
				{call: "change account", kind: event.KindGroup, account: "corner-shop", noTime: true, traits: obj{"name": "Corner"}},
				{call: "custom event", kind: event.KindTrack, event: "Item Scanned", id: "e-1", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "custom event of a visitor", kind: event.KindTrack, event: "Seen", id: "e-2", anonymous: "v-1", at: then},
			},
		},
	}
}

// report collects what an SDK for Go says.
type report struct {
	mu sync.Mutex // covers o
	o  outcome

	messages sync.WaitGroup // that have not been called back for
}

func (r *report) fail(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.o.Errors = append(r.o.Errors, err.Error())
}

// Success implements posthog.Callback.
func (r *report) Success(posthog.APIMessage) { r.messages.Done() }

// Failure implements posthog.Callback.
func (r *report) Failure(_ posthog.APIMessage, err error) {
	r.fail(err)
	r.messages.Done()
}

type quiet struct{}

func (quiet) Debugf(string, ...any) {}
func (quiet) Logf(string, ...any)   {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}

// impatient gives up on a reply after four seconds.
func impatient() *http.Transport {
	return &http.Transport{ResponseHeaderTimeout: 4 * time.Second}
}

// batchSize is as many messages as the scenario sends, so that they go as one.
func (s scenario) batchSize(calls int) int {
	if s.Calls {
		return calls
	}
	return s.N
}

func runPostHog(s scenario) outcome {
	var r report
	transport := impatient()
	defer transport.CloseIdleConnections()
	c, err := posthog.NewWithConfig(s.Key, posthog.Config{
		Endpoint: s.URL, Transport: transport, Callback: &r, Logger: quiet{}, Interval: time.Hour,
		BatchSize:  s.batchSize(4),
		RetryAfter: func(int) time.Duration { return 100 * time.Millisecond },
	})
	if err != nil {
		r.fail(err)
		return r.o
	}
	r.messages.Add(s.batchSize(4))
	if s.Calls {
		r.fail(c.Enqueue(posthog.Capture{
			DistinctId: "maria", Event: "Item Scanned", Timestamp: then,
			Properties: posthog.NewProperties().Set("sku", "4006"), Groups: posthog.NewGroups().Set("company", "corner-shop"),
		}))
		r.fail(c.Enqueue(posthog.Identify{DistinctId: "maria", Properties: posthog.NewProperties().Set("plan", "pro")}))
		r.fail(c.Enqueue(posthog.GroupIdentify{Type: "company", Key: "corner-shop", Properties: posthog.NewProperties().Set("seats", 3)}))
		r.fail(c.Enqueue(posthog.Alias{DistinctId: "maria", Alias: "maria-old"}))
	}
	for i := range s.N {
		if !s.Calls {
			r.fail(c.Enqueue(posthog.Capture{DistinctId: fmt.Sprintf("u%d", i), Event: "Retried"}))
		}
	}
	r.messages.Wait() // closing ends its retries
	r.fail(c.Close())
	return r.o
}

func runCloudEvents(s scenario) outcome {
	var r report
	transport := impatient()
	defer transport.CloseIdleConnections()
	c, err := cloudevents.NewClientHTTP(
		cloudevents.WithTarget(s.URL), cehttp.WithRoundTripper(transport), cehttp.WithHeader("Authorization", "Bearer "+s.Key),
	)
	if err != nil {
		r.fail(err)
		return r.o
	}
	ctx := cloudevents.ContextWithRetriesExponentialBackoff(context.Background(), 50*time.Millisecond, 5)
	newEvent := func(id, kind, user string) cloudevents.Event {
		e := cloudevents.NewEvent()
		e.SetID(id)
		e.SetSource("/pos/7")
		e.SetType(kind)
		e.SetSubject("corner shop")
		e.SetTime(then)
		e.SetExtension("userid", user)
		r.fail(e.SetData(cloudevents.ApplicationJSON, map[string]string{"sku": "4006"}))
		return e
	}
	send := func(ctx context.Context, e cloudevents.Event) {
		if result := c.Send(ctx, e); !cloudevents.IsACK(result) {
			r.fail(result)
		}
	}
	if s.Calls {
		send(cloudevents.WithEncodingBinary(ctx), newEvent("binary", "item.scanned", "maría"))
		send(cloudevents.WithEncodingStructured(ctx), newEvent("structured", "item.scanned", "maría"))
		req, err := cehttp.NewHTTPRequestFromEvents(ctx, s.URL, []cloudevents.Event{newEvent("b-1", "item.scanned", "maría"), newEvent("b-2", "item.scanned", "maría")})
		if err != nil {
			r.fail(err)
			return r.o
		}
		req.Header.Set("Authorization", "Bearer "+s.Key)
		r.fail(statusOf(http.DefaultClient.Do(req)).is(204))
		return r.o
	}
	for i := range s.N {
		send(ctx, newEvent(fmt.Sprint("t-", i), "Retried", fmt.Sprintf("u%d", i)))
	}
	return r.o
}

// status is what a plain client sees of a reply.
type status struct {
	code int
	err  error
}

func statusOf(res *http.Response, err error) status {
	if err != nil {
		return status{err: err}
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return status{res.StatusCode, err}
}

func (s status) is(want int) error {
	if s.err == nil && s.code != want {
		return fmt.Errorf("got status %d, want %d", s.code, want)
	}
	return s.err
}

// runGainsightPX does what integrations do: ask, and branch on the answer.
func runGainsightPX(s scenario) outcome {
	var r report
	do := func(method, path, body string) status {
		req, err := http.NewRequest(method, s.URL+path, bytes.NewReader([]byte(body)))
		if err != nil {
			return status{err: err}
		}
		req.Header.Set("X-APTRINSIC-API-KEY", s.Key)
		return statusOf(http.DefaultClient.Do(req))
	}
	upsert := func(path, id, body string) {
		switch probe := do("GET", path+"/"+id, ""); {
		case probe.err != nil:
			r.fail(probe.err)
		case probe.code == 404:
			r.fail(do("POST", path, body).is(201))
		case probe.code == 200:
			r.fail(do("PUT", path+"/"+id, body).is(204))
		default:
			r.fail(errors.New("the probe says neither yes nor no"))
		}
	}
	upsert("/v1/users", "maria", `{"identifyId":"maria","firstName":"Maria","accountId":"corner-shop","customAttributes":{"tier":"gold"}}`)
	upsert("/v1/users", "maria", `{"title":"Owner"}`)
	r.fail(do("POST", "/v1/users", `{"identifyId":"maria"}`).is(400))
	r.fail(do("PUT", "/v1/users/nobody", `{"title":"Owner"}`).is(404))
	upsert("/v1/accounts", "corner-shop", `{"id":"corner-shop","name":"Corner Shop","parentGroupId":"retail-group"}`)
	upsert("/v1/accounts", "corner-shop", `{"name":"Corner"}`)
	event := func(name, id, who, kind, account string) string {
		return fmt.Sprintf(`{"eventName":%q,"eventId":%q,"identifyId":%q,"userType":%q,"accountId":%q,"date":%d,"propertyKey":"AP-1","attributes":{"sku":"4006"}}`,
			name, id, who, kind, account, then.UnixMilli())
	}
	r.fail(do("POST", "/v1/events/custom", event("Item Scanned", "e-1", "maria", "USER", "corner-shop")).is(201))
	r.fail(do("POST", "/v1/events/custom", event("Seen", "e-2", "v-1", "VISITOR", "")).is(201))
	return r.o
}
