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
