package console

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// snippets are the lines that send a first event, by SDK, for the gateway at this address.
func snippets(gateway, key string) []page.Pair {
	host := gateway
	if u, err := url.Parse(gateway); err == nil && u.Host != "" {
		host = u.Host
	}
	fill := strings.NewReplacer("GATEWAY", gateway, "HOST", host, "KEY", key)
	pairs := []page.Pair{
		{Name: "curl", Value: `curl -s GATEWAY/v1/track -u KEY: -d '{"userId": "maria", "event": "Item Scanned", "context": {"groupId": "corner-shop"}}'`},
		{Name: "Segment, browser", Value: "const analytics = AnalyticsBrowser.load({ writeKey: 'KEY', cdnURL: 'GATEWAY' },\n  { integrations: { 'Segment.io': { apiHost: 'HOST/v1' } } })\nanalytics.track('Item Scanned')"},
		{Name: "Segment, Node", Value: "const analytics = new Analytics({ writeKey: 'KEY', host: 'GATEWAY' })\nanalytics.track({ userId: 'maria', event: 'Item Scanned', context: { groupId: 'corner-shop' } })"},
		{Name: "RudderStack", Value: "rudderanalytics.load('KEY', 'GATEWAY', { configUrl: 'GATEWAY' })\nrudderanalytics.track('Item Scanned')"},
		{Name: "PostHog", Value: "posthog.init('KEY', { api_host: 'GATEWAY' })\nposthog.capture('Item Scanned')"},
		{Name: "Mixpanel", Value: "mixpanel.init('KEY', { api_host: 'GATEWAY' })\nmixpanel.track('Item Scanned')"},
		{Name: "Amplitude", Value: "amplitude.init('KEY', { serverUrl: 'GATEWAY/2/httpapi' })\namplitude.track('Item Scanned')"},
		{Name: "CustomerSuccessBox", Value: "const csb = new CSB('GATEWAY', 'KEY')\ncsb.login('corner-shop', 'maria')\ncsb.feature('Item Scanned', 'sales', 'till')"},
	}
	for i := range pairs {
		pairs[i].Value = fill.Replace(pairs[i].Value)
	}
	return pairs
}

// testForm is the form that sends a test event, with what happened to the last.
type testForm struct {
	Key, Event, User, Account string
	Answer                    string // of the gateway, in words; empty: none was sent
	Good                      bool
}

// Values of an empty form, and bounds.
const (
	testEvent   = "Uptake Test Event"
	testUser    = "uptake-test"
	maxTestText = 200 // bytes
	testFor     = 10 * time.Second
	testAsked   = time.Second // how long to wait until enrichers were asked for verdicts
)

func (c *Console) testForm(r *http.Request) *testForm {
	q := r.URL.Query()
	f := &testForm{Key: c.cfg.WriteKey, Event: testEvent, User: testUser}
	switch sent := q.Get("sent"); sent {
	case "":
	case "200":
		f.Good, f.Answer = true, "The gateway accepted the test event. If it is not shown within two seconds, the key belongs to another app."
	case "401", "403":
		f.Answer = "The gateway does not know this key."
	case "429", "503":
		f.Answer = "The gateway takes no event at present; try again in a moment."
	case "unreachable":
		f.Answer = "The gateway cannot be reached by the console; its log says why. console-send-url names its address."
	default:
		f.Answer = "The gateway did not take the test event; the console's log has its answer."
	}
	return f
}

// sendTest sends an event through the gateway, as an SDK would, with the key in the form.
// The key is stored nowhere, and in no address.
func (c *Console) sendTest(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if err := r.ParseForm(); err != nil {
		c.fail(w, r, http.StatusBadRequest, "The form cannot be read.", "Open the page again.")
		return
	}
	get := func(name string) string { return strings.TrimSpace(r.PostForm.Get(name)) }
	key, app := get("key"), get("app")
	name, user, account := cmp.Or(get("event"), testEvent), cmp.Or(get("user"), testUser), get("account")
	if err := may(r, "live", app); err != nil {
		c.failed(w, r, err)
		return
	}
	if key == "" {
		c.fail(w, r, http.StatusBadRequest, "The form names no write key.", "Paste the key that your SDK uses.")
		return
	}
	for field, value := range map[string]string{"key": key, "event": name, "user": user, "account": account, "app": app} {
		if len(value) > maxTestText {
			c.fail(w, r, http.StatusBadRequest, fmt.Sprintf("%s has %d bytes.", field, len(value)), fmt.Sprintf("It may have %d.", maxTestText))
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), testFor)
	defer cancel()
	if c.verdicts != nil && app != "" {
		c.verdicts.Look(app, 0)
		for wait := c.now().Add(testAsked); !c.verdicts.Asked(app) && c.now().Before(wait); {
			if backoff.Sleep(ctx, 20*time.Millisecond) != nil {
				return
			}
		}
	}
	message := "uptake-test-" + uuid.NewString()
	sent := c.post(ctx, key, message, name, user, account)
	back := url.Values{"app": {app}, "p": {get("p")}, "zone": {get("zone")}, "sent": {sent}}
	if sent == "200" {
		back.Set("q", message)
	}
	http.Redirect(w, r, "/live?"+back.Encode(), http.StatusSeeOther)
}

// post sends the event and returns the gateway's status, or "unreachable".
func (c *Console) post(ctx context.Context, key, message, name, user, account string) string {
	call := map[string]any{"messageId": message, "event": name, "userId": user, "properties": map[string]any{"sent_by": "uptake console"}}
	if account != "" {
		call["context"] = map[string]any{"groupId": account}
	}
	body, _ := json.Marshal(call) // cannot fail: texts
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(cmp.Or(c.cfg.SendURL, c.cfg.GatewayURL), "/")+"/v1/track", bytes.NewReader(body))
	if err != nil {
		c.log.Warn("test event not sent", "error", err)
		return "unreachable"
	}
	req.SetBasicAuth(key, "")
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.gateway.Do(req)
	if err != nil {
		c.log.Warn("test event not sent", "error", err)
		return "unreachable"
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // for the log
	if resp.StatusCode != http.StatusOK {
		c.log.Warn("gateway did not take the test event", "status", resp.StatusCode, "answer", string(answer))
	}
	return fmt.Sprint(resp.StatusCode)
}

// newGatewayClient returns the client that sends test events. It follows no redirect: a
// key goes to the configured address and to no other.
func newGatewayClient() *http.Client {
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
