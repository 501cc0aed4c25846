package enrich

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// What must not be kept is not in enriched, not in conflicts either, and the
// events of those who opted out are counted and not there at all.
func TestPrivacy(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	rules := filepath.Join(dir, "privacy.yaml")
	if err := os.WriteFile(rules, []byte(`
apps:
  dev:
    ip: truncated
    user_agent: drop
    rules:
      - {path: properties.pin, action: drop}
      - {path: properties.session_id, action: drop}
      - {path: traits.role, action: drop}
      - {path: "properties.**", detect: [email], action: mask}
    opt_out: {users: [gone], accounts: [secret corp]}
...
`), 0o600); err != nil {
		t.Fatal(err)
	}
	i := c.start(filepath.Join(dir, "a"), func(cfg *Config) { cfg.PrivacyFile = rules })
	at := event.FromTime(time.Now())
	send := func(app, message, user, account, properties string) {
		c.send(c.raw(event.RawEvent{
			AppID: app, Kind: event.KindTrack, Event: "Item Scanned", MessageID: message, UserID: user, AccountID: account,
			Timestamp: at, ReceivedAt: at + 1, Quantity: 1, Properties: []byte(properties), IP: "203.0.113.77", UserAgent: "Till/1",
		}))
	}
	send("dev", "first", "u", "", `{"pin":"1234","session_id":"maria-7","note":"to m@shop.example","n":1}`)
	c.drained()
	send("dev", "conflict", "u", "", `{"n":"ask m@shop.example","pin":{"x":1}}`)
	send("dev", "gone", "gone", "", `{"n":1}`)
	send("dev", "corp", "u2", "secret corp", `{"n":1}`)
	send("other", "other", "gone", "", `{"note":"to m@shop.example","session_id":"s-7"}`)
	c.drained()
	// A role is a trait: what the rules drop is nobody's role, in the event, in those after
	// it and in identity state.
	for _, app := range []string{"dev", "plain"} {
		for n, kind := range []string{event.KindGroup, event.KindIdentify, event.KindTrack} {
			c.send(c.raw(event.RawEvent{
				AppID: app, Kind: kind, Event: "Item Scanned", MessageID: app + "-" + kind, UserID: "member", AccountID: "acme",
				Timestamp: at + int64(n), ReceivedAt: at + int64(n), Quantity: 1, Traits: []byte(`{"role":"nurse of ward 7"}`),
			}))
		}
	}
	c.drained()
	i.stopped()

	got := c.find()
	for _, kind := range []string{event.KindGroup, event.KindIdentify, event.KindTrack} {
		if e := got["dev-"+kind]; e.Role != "" || strings.Contains(string(e.Traits), "nurse") {
			t.Errorf("%s has role %q and traits %s", kind, e.Role, e.Traits)
		}
		if e := got["plain-"+kind]; e.Role != "nurse of ward 7" {
			t.Errorf("%s of an app without rules has role %q", kind, e.Role)
		}
		delete(got, "dev-"+kind)
		delete(got, "plain-"+kind)
	}
	for id, want := range map[string][4]string{
		"first":    {`{"note":"to [email]","n":1}`, "", "203.0.113.0", ""},
		"conflict": {`{}`, `{"properties.n":"ask [email]"}`, "203.0.113.0", ""},
		"other":    {`{"note":"to m@shop.example","session_id":"s-7"}`, "", "203.0.113.77", "Till/1"},
	} {
		e := got[id]
		if want := map[bool]string{true: "s-7"}[id == "other"]; e.SessionID != want {
			t.Errorf("%s: session %q, want %q", id, e.SessionID, want)
		}
		if have := [4]string{string(e.Properties), string(e.Conflicts), e.IP, e.UserAgent}; have != want {
			t.Errorf("%s: got %q, want %q", id, have, want)
		}
	}
	if len(got) != 3 {
		t.Errorf("got %d events, want 3: those who opted out must not be there", len(got))
	}
	for p := range got {
		if strings.Contains(string(got[p].Conflicts), "pin") {
			t.Errorf("%s: a dropped key is in conflicts: %s", p, got[p].Conflicts)
		}
	}
	if n := i.metric("uptake_enricher_records_total", "app=dev", "fate=opted_out"); n != 2 {
		t.Errorf("opted out: got %v, want 2", n)
	}
}

// The client of an event is read from what the rules let through, from properties as
// they were sent, and the rules about user agents and addresses hold for what a sender
// states too.
func TestClientsAndPrivacy(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	rules := filepath.Join(dir, "privacy.yaml")
	if err := os.WriteFile(rules, []byte(`
apps:
  strict: {ip: none, user_agent: drop}
  dev:
    rules:
      - {path: context.page.referrer, action: drop}
      - {path: properties.utm_source, action: drop}
      - {path: properties.utm_campaign, action: mask}
      - {path: "properties.**", detect: [token], action: mask}
  mails:
    rules:
      - {path: "context.**", detect: [email], action: mask}
...
`), 0o600); err != nil {
		t.Fatal(err)
	}
	i := c.start(filepath.Join(dir, "a"), func(cfg *Config) { cfg.PrivacyFile = rules })
	at := event.FromTime(time.Now())
	const agent = "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"
	send := func(app, message, properties string) {
		c.send(c.raw(event.RawEvent{
			AppID: app, Kind: event.KindTrack, Event: "Item Scanned", MessageID: message, UserID: "u", Timestamp: at, ReceivedAt: at, Quantity: 1, UserAgent: agent,
			Properties: []byte(properties), Context: []byte(`{"location":{"country":"AT"},"page":{"referrer":"https://search.example/"}}`),
		}))
	}
	// The first campaign makes an integer key, in which the second is a conflict.
	send("plain", "number", `{"utm_campaign":21546,"utm_source":"news"}`)
	c.drained()
	send("plain", "text", `{"utm_campaign":"spring","$os":"Mac OS X"}`)
	send("dev", "rules", `{"utm_campaign":"spring","utm_source":"news","utm_medium":"mail","$current_url":"https://shop.example/?utm_source=url&token=abcdefgh"}`)
	send("mails", "encoded", `{"$current_url":"https://shop.example/?utm_campaign=to+maria%40private.example&utm_medium=a%2Bb"}`)
	send("strict", "strict", `{"$browser":"Chrome","$device_type":"Mobile","utm_source":"news"}`)
	c.drained()
	i.stopped()
	got := c.find()
	for id, want := range map[string]event.Client{
		"number":  {Country: "AT", Browser: "Firefox", OS: "Linux", DeviceClass: "desktop", Referrer: "search.example", UTMSource: "news", UTMCampaign: "21546"},
		"text":    {Country: "AT", Browser: "Firefox", OS: "macOS", DeviceClass: "desktop", Referrer: "search.example", UTMCampaign: "spring"},
		"rules":   {Country: "AT", Browser: "Firefox", OS: "Linux", DeviceClass: "desktop", UTMMedium: "mail", UTMCampaign: "[masked]"},
		"encoded": {Country: "AT", Browser: "Firefox", OS: "Linux", DeviceClass: "desktop", Referrer: "search.example", UTMMedium: "a+b", UTMCampaign: "to [email]"},
		"strict":  {Referrer: "search.example", UTMSource: "news"},
	} {
		if have := got[id].Client; have != want {
			t.Errorf("%s: got %+v, want %+v", id, have, want)
		}
	}
}
