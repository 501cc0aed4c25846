package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/test/harness/kit"
)

// goSDKs are the SDKs for Go: one program that is a module of its own.
var goSDKs = kit.Kit{
	Name: "sdks-go", Tools: []string{"go"}, From: "drivers/go", Files: []string{"go.mod", "go.sum", "main.go", "sdks.go"},
	Install: []string{"env", "GOWORK=off", "go", "build", "-o", "drivers", "."}, Timeout: 5 * time.Minute,
}

// runGo runs the driver of an SDK for Go over scenarios.
func runGo(t *testing.T, dir, sdk string, scenarios []scenario) map[string]outcome {
	t.Helper()
	return drive(t, exec.Command(filepath.Join(dir, "drivers")), sdk, scenarios)
}

// goClients are the SDKs for Go, and a protocol that has none.
func goClients() []client {
	return []client{
		{
			protocol: "segment", sdk: "segment-go", version: "gopkg.in/segmentio/analytics-go.v3 3.1.0", language: goLanguage, sentAt: true,
			calls: spread(), users: spreadUsers, accounts: seats,
		},
		{
			protocol: "posthog", sdk: "posthog-go", version: "posthog-go 1.5.2", prefix: true, language: goLanguage,
			calls: []want{
				{call: "Capture", kind: event.KindTrack, event: "Item Scanned", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "Identify", kind: event.KindIdentify, event: "$identify", user: "maria", traits: obj{"plan": "pro"}},
				{call: "GroupIdentify", kind: event.KindGroup, event: "$groupidentify", account: "corner-shop", traits: obj{"seats": 3.0}},
				{call: "Alias", kind: event.KindAlias, event: "$create_alias", user: "maria", previous: "maria-old"},
			},
			users: people{"maria": {"plan": "pro"}}, accounts: people{"corner-shop": {"seats": "3"}},
		},
		{
			protocol: "cloudevents", sdk: "cloudevents-go", version: "cloudevents/sdk-go 2.16.2, with retries", prefix: true, language: goLanguage,
			calls: []want{
				{call: "binary", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 binary", user: "maría", account: "corner shop", at: then, properties: obj{"sku": "4006"}},
				{call: "structured", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 structured", user: "maría", account: "corner shop", at: then, properties: obj{"sku": "4006"}},
				{call: "batch", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 b-1", user: "maría", account: "corner shop", at: then},
				{call: "batch", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 b-2", user: "maría", account: "corner shop", at: then},
			},
			faults: map[string]string{err5: told}, // not one of the statuses that it sends again on
		},
		{
			protocol: "otlp", sdk: "otlp-go", version: "otlploghttp (Go) 0.23.0, gzip", prefix: true, language: goLanguage,
			calls: recordCalls(), faults: map[string]string{err5: told, cut: told, lost: onceTold},
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
	var r outcome
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
	return r
}
