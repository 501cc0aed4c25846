package enrich

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// newer is a value of a schema that this release does not know.
var newer = []byte("\xC3\x01abcdefgh and a body")

// garbageState are, for the records of identity in enricher-state, values that are
// none, and for some of them bodies that are none.
func (c *cluster) garbageState() (bodies, values []*kgo.Record) {
	for p := range int32(partitions) {
		for _, r := range c.committed(topic.Unprefixed.EnricherState, p) {
			var rec event.IdentityState
			if r.Key[0] == 0 || c.codec.DecodeIdentityState(r.Value, &rec) != nil {
				continue
			}
			values = append(values, &kgo.Record{Topic: r.Topic, Partition: p, Key: r.Key, Value: []byte("garbage")})
			if rec.Kind == event.StateAnonymous {
				rec.Body = []byte(`{"broken`)
				bodies = append(bodies, &kgo.Record{Topic: r.Topic, Partition: p, Key: r.Key, Value: c.codec.AppendIdentityState(nil, &rec)})
			}
		}
	}
	return bodies, values
}

// What no release can have written to the topics from which an enricher restores,
// or to links, holds nobody up and changes nothing.
func TestGarbageHoldsNobodyUp(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	dir := t.TempDir()
	i := c.start(filepath.Join(dir, "a"))
	known := event.RawEvent{
		AppID: "dev", Kind: event.KindIdentify, MessageID: "i-1", UserID: "ada", AnonymousID: "browser", Protocol: "segment",
		Timestamp: track("dev", 0).Timestamp, ReceivedAt: track("dev", 0).ReceivedAt, Quantity: 1,
	}
	c.send(c.raw(track("dev", 1)), c.raw(known))
	c.drained()
	var bodies, values []*kgo.Record
	c.wait("the claim to be applied", func() bool {
		bodies, values = c.garbageState()
		return len(bodies) > 0
	})
	i.stopped()
	garbage := append(values, bodies...)
	for _, r := range []kgo.Record{
		{Topic: topic.Unprefixed.EnricherState, Key: []byte("no key of ours"), Value: []byte("garbage")},
		{Topic: topic.Unprefixed.EnricherState, Key: []byte("no key of ours")},
		{Topic: topic.Unprefixed.EnricherState, Key: catalogStateKey("dev"), Value: []byte{0xC3, 0x01}},
		{Topic: topic.Unprefixed.Enriched, Value: []byte("garbage")},
		{Topic: topic.Unprefixed.Enriched, Value: c.codec.AppendEnriched(nil, &event.EnrichedEvent{})[:12]},
	} {
		garbage = append(garbage, &r)
	}
	skipped := len(garbage)
	garbage = append(garbage, &kgo.Record{Topic: topic.Unprefixed.Links, Value: []byte("garbage")}, &kgo.Record{Topic: topic.Unprefixed.Raw, Value: []byte("garbage")})
	c.send(garbage...)

	i = c.start(filepath.Join(dir, "b"))
	seen := track("dev", 2)
	seen.MessageID, seen.UserID, seen.AnonymousID = "seen", "", "browser"
	c.send(c.raw(track("dev", 1)), c.raw(seen))
	c.drained(func() { t.Fatalf("nothing moves: %v, %v", i.health.Ready(), i.ended()) })
	c.wait("what cannot be read to be rejected", func() bool { return len(c.rejects()) == 2 })
	for _, r := range c.rejects() {
		if r.Code != codeUndecodable || string(r.Original) != "garbage" {
			t.Errorf("rejected: %+v", r)
		}
	}
	if got := i.metric("uptake_enricher_restore_skipped_total"); got != float64(skipped) {
		t.Errorf("skipped: got %v, want %d", got, skipped)
	}
	i.stopped()
	actors := map[string]string{}
	for p := range int32(partitions) {
		for _, r := range c.committed(topic.Unprefixed.Enriched, p) {
			var e event.EnrichedEvent
			if c.codec.DecodeEnriched(r.Value, &e) == nil {
				actors[e.MessageID] += e.ActorID + " "
			}
		}
	}
	want := map[string]string{"m-1": "u-1 ", "i-1": "ada ", "seen": "ada "}
	if fmt.Sprint(actors) != fmt.Sprint(want) {
		t.Errorf("actors by message id: got %v, want %v", actors, want)
	}
}

// A record of a newer release halts whoever would have to know what it says.
func TestNewerRecordsHalt(t *testing.T) {
	parallel(t)
	for _, r := range []kgo.Record{
		{Topic: topic.Unprefixed.EnricherState, Key: topic.Key(nil, "dev", topic.KeyUser, "ada"), Value: newer},
		{Topic: topic.Unprefixed.EnricherState, Key: catalogStateKey("dev"), Value: newer},
		{Topic: topic.Unprefixed.Enriched, Value: newer},
		{Topic: topic.Unprefixed.Links, Value: newer},
	} {
		c := newCluster(t)
		dir := t.TempDir()
		i := c.start(filepath.Join(dir, "a"))
		c.send(c.raw(track("dev", 1)))
		c.drained()
		i.stopped()
		c.send(&r)
		i = c.start(filepath.Join(dir, "b"))
		if err := i.ended(); !errors.Is(err, errPermanent) || !strings.Contains(err.Error(), "newer release") || !strings.Contains(err.Error(), "offset") {
			t.Errorf("%s, key %q: got %v", r.Topic, r.Key, err)
		}
	}
}
