package enrich

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// refused waits for the end of an instance that must not serve.
func (i *instance) refused(want string) {
	i.t.Helper()
	err := i.ended()
	if err == nil || !strings.Contains(err.Error(), want) {
		i.t.Errorf("the instance ended with %v, want a refusal: %s", err, want)
	}
}

// began has an instance enrich some events, and stops it.
func (c *cluster) began(dir string) {
	c.t.Helper()
	i := c.start(dir)
	for n := range 40 {
		c.send(c.raw(track("dev", n)))
	}
	c.drained()
	i.stopped()
}

// A gateway may be there first: nothing was taken yet, so nothing is taken twice.
func TestNewInstallation(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	for n := range 40 {
		c.send(c.raw(track("dev", n)))
	}
	dir := t.TempDir()
	c.began(dir)
	c.check()
	for p := range int32(partitions) {
		var rec event.IdentityState
		list := c.committed(topic.Unprefixed.EnricherState, p)
		if len(list) == 0 || string(list[0].Key) != string(markKey) || c.codec.DecodeIdentityState(list[0].Value, &rec) != nil || rec.Version != partitions {
			t.Errorf("partition %d of the state begins with %+v, want the mark of %d partitions", p, rec, partitions)
		}
	}
	c.start(dir).stopped() // and again
}

// A partition that had claims of other partitions, and no event yet, was not read
// before: its first event may arrive while no enricher runs.
func TestClaimsBeforeTheFirstEvent(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	dir := t.TempDir()
	i := c.start(dir)
	// The key of both ids is the user's; the anonymous id has another home.
	anonymous := ""
	home := func(key []byte) int32 { return topic.Partition(key, partitions) }
	user := home(topic.RawKey(nil, "dev", "ada", "", ""))
	for n := 0; anonymous == "" || home(topic.RawKey(nil, "dev", "", anonymous, "")) == user; n++ {
		anonymous = fmt.Sprintf("browser-%d", n)
	}
	e := track("dev", 1)
	e.Kind, e.UserID, e.AnonymousID = event.KindIdentify, "ada", anonymous
	c.send(c.raw(e))
	c.wait("the claim to be applied", func() bool {
		return len(c.committed(topic.Unprefixed.EnricherState, home(topic.RawKey(nil, "dev", "", anonymous, "")))) > 1
	})
	c.drained()
	i.stopped()
	e = track("dev", 2)
	e.UserID, e.AnonymousID = "", anonymous
	c.send(c.raw(e))
	i = c.start(dir)
	c.drained(func() { t.Fatalf("nothing moves: %v", i.ended()) })
	i.stopped()
	c.check()
}

// A new catalog moves history in every partition, those without records too: in one
// transaction with records of others, it commits offsets of all. Otherwise a partition whose
// first events arrive while no enricher runs would look as if its offsets had been lost.
func TestCatalogBeforeTheFirstEvent(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	dir := t.TempDir()
	none, billing := "", "billing"
	c.apply("dev", 1, catalogOf(billing, "Item Scanned"), event.Move{Match: event.Attribution{ModuleID: &none}, Set: event.Attribution{ModuleID: &billing}})
	c.send(c.raw(track("dev", 1)))
	i := c.start(dir)
	c.wait("the catalog to be in force everywhere", func() bool {
		for p := range int32(partitions) {
			if len(c.committed(topic.Unprefixed.Enriched, p)) == 0 {
				return false
			}
		}
		return true
	})
	c.drained()
	i.stopped()
	for n := range 40 {
		c.send(c.raw(track("dev", n)))
	}
	i = c.start(dir)
	c.drained(func() { t.Fatalf("nothing moves: %v", i.ended()) })
	i.stopped()
	c.check()
}

func TestWindowBeyondRetention(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	c.start(t.TempDir(), func(cfg *Config) { cfg.DedupWindow = 15 * 24 * time.Hour }).
		refused("dedup-window must be at most 336h0m0s, the retention.ms of topic uptake.enriched.v1, from which the ids are rebuilt (got 360h0m0s)")
}

func TestOffsetsOfTheGroupGone(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	dir := t.TempDir()
	c.began(dir)
	if _, err := kadm.NewClient(c.cl).DeleteGroup(c.ctx(time.Minute), topic.Unprefixed.GroupEnricher); err != nil {
		t.Fatal(err)
	}
	c.start(dir).refused("has no offsets for partitions")
	c.check()
	c.start(dir, func(cfg *Config) { cfg.NewInstallation = true })
	c.drained()
	if got := c.count(); got != 40 { // the ids are known; the counts of the audit double, as the refusal says
		t.Errorf("%d events, want 40", got)
	}
}

func TestStateGone(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	dir := t.TempDir()
	c.began(dir)
	adm := kadm.NewClient(c.cl)
	if _, err := adm.DeleteTopic(c.ctx(time.Minute), topic.Unprefixed.EnricherState); err != nil {
		t.Fatal(err)
	}
	layout := topic.SingleLayout()
	layout.Partitions = partitions
	c.wait("the topic to be made again", func() bool { return topic.Unprefixed.Ensure(c.ctx(time.Minute), adm, layout) == nil })
	c.start(dir).refused(topic.Unprefixed.EnricherState + " is empty")
	i := c.start(dir, func(cfg *Config) { cfg.NewInstallation = true })
	c.send(c.raw(track("dev", 1000)))
	c.drained()
	i.stopped()
	c.start(dir).stopped() // once is enough
	c.check()
}

// A topic that is lost under running enrichers, and made again, is not waited for in
// silence: they end and say it, and a start goes on.
func TestTopicsMadeAgain(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	dir := t.TempDir()
	c.began(dir)
	i := c.start(dir, func(cfg *Config) { cfg.watchPause = 50 * time.Millisecond })
	c.send(c.raw(track("dev", 2000)))
	c.drained()
	adm := kadm.NewClient(c.cl)
	if _, err := adm.DeleteTopic(c.ctx(time.Minute), topic.Unprefixed.Enriched); err != nil {
		t.Fatal(err)
	}
	layout := topic.SingleLayout()
	layout.Partitions = partitions
	c.wait("the topic to be made again", func() bool { return topic.Unprefixed.Ensure(c.ctx(time.Minute), adm, layout) == nil })
	i.refused("topic " + topic.Unprefixed.Enriched + " was deleted and created again")
	c.start(dir)
	c.send(c.raw(track("dev", 2001)))
	c.drained()
	if got := c.count(); got != 1 { // in the new topic
		t.Errorf("%d events, want 1", got)
	}
}

func TestPartitionsRaised(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	dir := t.TempDir()
	c.began(dir)
	adm := kadm.NewClient(c.cl)
	if _, err := topic.Unprefixed.Check(c.ctx(time.Minute), adm, topic.Unprefixed.Raw, topic.Unprefixed.Rejected); err != nil {
		t.Fatalf("before: %v", err)
	}
	if _, err := adm.CreatePartitions(c.ctx(time.Minute), partitions, topic.Unprefixed.Raw, topic.Unprefixed.Links, topic.Unprefixed.Enriched, topic.Unprefixed.EnricherState); err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{{topic.Unprefixed.Raw, topic.Unprefixed.Rejected}, {topic.Unprefixed.Enriched, topic.Unprefixed.Rejected}} { // a gateway's, a writer's
		if _, err := topic.Unprefixed.Check(c.ctx(time.Minute), adm, names...); !errors.Is(err, topic.ErrRaised) {
			t.Errorf("check of %v: %v, want %v", names, err, topic.ErrRaised)
		}
	}
	c.start(dir).refused(topic.ErrRaised.Error())
}

// A machine whose clock is ahead, with a new disk, once forgot every id.
func TestClockAheadOnANewDisk(t *testing.T) {
	parallel(t)
	c := newCluster(t)
	c.began(t.TempDir())
	i := c.start(t.TempDir(), func(cfg *Config) { cfg.now = func() time.Time { return time.Now().Add(90 * 24 * time.Hour) } })
	for n := range 40 {
		c.send(c.raw(track("dev", n)))
	}
	c.drained()
	c.check()
	if got := i.metric("uptake_enricher_records_total", "fate=duplicates"); got != 40 {
		t.Errorf("%v duplicates, want 40", got)
	}
}
