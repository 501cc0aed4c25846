package enrich

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/verdict"
)

// verdicts returns what is in the topic, in the order of its partitions.
func (c *cluster) verdicts() []verdict.Record {
	c.t.Helper()
	var all []verdict.Record
	for p := range int32(partitions) {
		for _, r := range c.committed(topic.Unprefixed.Verdicts, p) {
			v, err := verdict.Decode(r.Value)
			if err != nil {
				c.t.Fatal(err)
			}
			all = append(all, v)
		}
	}
	return all
}

// look asks for the verdicts of an app, and waits until the instance has read that.
func (c *cluster) look(i *instance, app string) {
	c.t.Helper()
	c.wait("a request for verdicts to be read", func() bool {
		c.send(&kgo.Record{Topic: topic.Unprefixed.VerdictRequests, Value: verdict.Request{App: app}.Value()})
		looked := i.svc.verdicts.looked.Load()
		return looked != nil && (*looked)[app] != nil
	})
}

// Each event has the verdict of what became of it, with the reason and what may be kept
// of it, while somebody looks at its app.
func TestVerdicts(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	dir := t.TempDir()
	rules := filepath.Join(dir, "privacy.yaml")
	if err := os.WriteFile(rules, []byte(`
apps:
  dev:
    ip: none
    rules:
      - {path: properties.pin, action: drop}
    opt_out: {users: [gone]}
...
`), 0o600); err != nil {
		t.Fatal(err)
	}
	c.apply("dev", 1, catalogOf("billing", "Item Scanned"))
	i := c.start(filepath.Join(dir, "a"), func(cfg *Config) { cfg.PrivacyFile = rules })
	at := event.FromTime(time.Now())
	send := func(app, message, kind, name, user, account, properties string) {
		c.send(c.raw(event.RawEvent{
			AppID: app, Kind: kind, Event: name, MessageID: message, UserID: user, AccountID: account,
			Timestamp: at, ReceivedAt: at + 1, Quantity: 1, Properties: []byte(properties), IP: "203.0.113.77",
		}))
		c.drained()
	}
	send("dev", "early", event.KindTrack, "Item Scanned", "u", "shop", `{"pin":"1234","n":1}`) // nobody looks yet
	c.look(i, "dev")
	send("dev", "counted", event.KindTrack, "Item Scanned", "u", "shop", `{"pin":"1234","n":2}`)
	send("dev", "member", event.KindGroup, "", "u", "shop", ``)
	send("dev", "later", event.KindTrack, "Item Scanned", "u", "", `{"n":"two"}`)
	send("dev", "unmapped", event.KindTrack, "Scan Item <script>", "v", "", ``)
	send("dev", "counted", event.KindTrack, "Item Scanned", "u", "shop", `{"pin":"1234","n":2}`)
	send("dev", "gone", event.KindTrack, "Item Scanned", "gone", "shop", `{"n":3}`)
	send("dev", "odd", "odd kind", "Item Scanned", "u", "shop", `{"pin":"1234"}`)
	send("other", "other", event.KindTrack, "Item Scanned", "u", "", ``)
	i.stopped()

	feature := c.find()["counted"].FeatureID
	if feature == "" {
		t.Fatal("the catalog maps nothing")
	}
	got := map[string]verdict.Record{}
	for _, v := range c.verdicts() {
		if v.App != "dev" {
			t.Errorf("a verdict on app %q, at which nobody looks", v.App)
		}
		if strings.Contains(string(v.Event), "1234") || strings.Contains(string(v.Event), "203.0.113") {
			t.Errorf("a verdict has what the privacy rules drop: %s", v.Event)
		}
		if v.MessageID != "" && len(v.Event) == 0 {
			t.Errorf("the verdict on %s has no event", v.MessageID)
		}
		if v.ReceivedAt != at+1 {
			t.Errorf("%s: received at %d, want %d", v.MessageID, v.ReceivedAt, at+1)
		}
		v.App, v.ReceivedAt, v.Event = "", 0, nil
		got[v.Verdict+" "+v.MessageID] = v
	}
	want := map[string]verdict.Record{
		"counted counted":   {Kind: "track", Name: "Item Scanned", MessageID: "counted", UserID: "u", ActorID: "u", ActorKind: "user", AccountID: "shop", AccountSource: "event", FeatureID: feature},
		"noted member":      {Kind: "group", MessageID: "member", UserID: "u", ActorID: "u", ActorKind: "user", AccountID: "shop", AccountSource: "event"},
		"counted later":     {Kind: "track", Name: "Item Scanned", MessageID: "later", UserID: "u", ActorID: "u", ActorKind: "user", AccountID: "shop", AccountSource: "membership", FeatureID: feature, Conflicts: []string{"properties.n"}},
		"unmapped unmapped": {Kind: "track", Name: "Scan Item <script>", MessageID: "unmapped", UserID: "v", ActorID: "v", ActorKind: "user", AccountSource: "none", Nearest: feature},
		"duplicate counted": {Kind: "track", Name: "Item Scanned", MessageID: "counted", UserID: "u", AccountID: "shop"},
		"opted_out ":        {},
		"rejected odd":      {Kind: "odd kind", Name: "Item Scanned", MessageID: "odd", UserID: "u", AccountID: "shop", Stage: "enricher", Code: "unknown_kind", Field: "type", Detail: `unknown kind "odd kind"`},
	}
	for id, w := range want {
		w.Verdict, _, _ = strings.Cut(id, " ")
		if g := got[id]; !reflect.DeepEqual(g, w) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", id, g, w)
		}
		delete(got, id)
	}
	for id := range got {
		t.Errorf("a verdict more: %s", id)
	}
}

// Of a burst there are as many verdicts as the bound allows, and how many were left out:
// no event is missing in the sum, nor in enriched.
func TestVerdictsAreBounded(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	stands := time.Now() // a second that does not end
	i := c.start(filepath.Join(t.TempDir(), "a"), func(cfg *Config) { cfg.now = func() time.Time { return stands } })
	c.look(i, "dev")
	const events = 1000
	records := make([]*kgo.Record, events)
	for n := range records {
		records[n] = c.raw(track("dev", n))
	}
	c.send(records...)
	c.drained()
	i.stopped()
	written, leftOut := 0, int64(0)
	for _, v := range c.verdicts() {
		if v.Verdict == verdict.LeftOut {
			leftOut += v.Count
		} else {
			written++
		}
	}
	if written != 100 || leftOut != events-100 {
		t.Errorf("%d verdicts and %d left out, want 100 and %d", written, leftOut, events-100)
	}
	if n := c.count(); n != events {
		t.Errorf("%d events in enriched, want %d", n, events)
	}
}

// Nobody has to end a look: it ends by itself. An instance with a part of the partitions
// writes its part.
func TestLooksEnd(t *testing.T) {
	v := &verdicts{}
	now := time.Unix(1_800_000_000, 0)
	v.note("dev", now)
	v.note("shop", now.Add(10*time.Second))
	apps := func() string {
		looked := v.looked.Load()
		if looked == nil {
			return "none"
		}
		return fmt.Sprint(len(*looked))
	}
	for _, tc := range []struct {
		after time.Duration
		want  string
	}{{29 * time.Second, "2"}, {30 * time.Second, "1"}, {39 * time.Second, "1"}, {40 * time.Second, "none"}} {
		v.note("", now.Add(tc.after))
		if got := apps(); got != tc.want {
			t.Errorf("after %s: %s, want %s", tc.after, got, tc.want)
		}
	}
	for n := range 1000 {
		v.note(fmt.Sprintf("app-%d", n), now)
	}
	if got := apps(); got != "100" {
		t.Errorf("%s apps, want 100", got)
	}
	for _, tc := range []struct {
		have, all int
		want      int64
	}{{12, 12, 100}, {4, 12, 33}, {1, 1000, 1}} {
		v.assigned(tc.have, tc.all)
		if got := v.share.Load(); got != tc.want {
			t.Errorf("%d of %d partitions: %d, want %d", tc.have, tc.all, got, tc.want)
		}
	}
}
