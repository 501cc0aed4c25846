package topic

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func admin(t *testing.T) *kadm.Client {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

func allNames() []string {
	var names []string
	for _, s := range Unprefixed.Specs(SingleLayout()) {
		names = append(names, s.Name)
	}
	return names
}

func TestEnsureMakesWhatCheckAsksFor(t *testing.T) {
	ctx, adm := context.Background(), admin(t)
	if _, err := Unprefixed.Check(ctx, adm, Unprefixed.Raw, Unprefixed.Enriched); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), Unprefixed.Raw) {
		t.Errorf("check of an empty cluster: got %v, want %v naming %s", err, ErrMissing, Unprefixed.Raw)
	}
	for range 2 { // rerunnable
		if err := Unprefixed.Ensure(ctx, adm, SingleLayout()); err != nil {
			t.Fatal(err)
		}
	}
	infos, err := Unprefixed.Check(ctx, adm, allNames()...)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := infos[Unprefixed.Enriched].Partitions, SingleLayout().Partitions; got != want {
		t.Errorf("enriched has %d partitions, want %d", got, want)
	}
	if got := infos[Unprefixed.Enriched].Retention; got < DedupWindow {
		t.Errorf("enriched keeps %s, less than message ids are remembered by default, %s", got, DedupWindow)
	}
	if got := infos[Unprefixed.EnricherState].Retention; got != 0 {
		t.Errorf("enricher-state is compacted, and keeps %s", got)
	}
	if infos[Unprefixed.Enriched].ID == (kadm.TopicID{}) {
		t.Error("enriched has no topic id")
	}
}

func TestCheckNamesEveryDifference(t *testing.T) {
	ctx, adm := context.Background(), admin(t)
	for _, s := range Unprefixed.Specs(SingleLayout()) {
		configs := map[string]*string{}
		if s.Name == Unprefixed.Catalog {
			configs[configCleanup] = kadm.StringPtr(compact)
		}
		partitions := s.Partitions
		if s.Name == Unprefixed.Enriched {
			partitions++
		}
		if _, err := adm.CreateTopic(ctx, partitions, 1, configs, s.Name); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Unprefixed.Check(ctx, adm, allNames()...)
	if err == nil {
		t.Fatal("check passed")
	}
	if _, ok := errors.AsType[*FaultError](err); !ok {
		t.Errorf("error is a %T, want a FaultError", err)
	}
	for _, want := range []string{
		fmt.Sprintf("%s has 5 partitions and", Unprefixed.Enriched),
		`uptake.enriched.v1 has message.timestamp.type="CreateTime", must be "LogAppendTime"`,
		`uptake.rejected.v1 has message.timestamp.type="CreateTime", must be "LogAppendTime"`,
		`uptake.metadata.v1 has cleanup.policy="delete", must be "compact"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), Unprefixed.Catalog) {
		t.Errorf("error names %s, which is right:\n%v", Unprefixed.Catalog, err)
	}
}

// Topics of a release whose producers stamped raw and links are set right.
func TestEnsureSetsWhoStamps(t *testing.T) {
	ctx, adm := context.Background(), admin(t)
	for _, name := range []string{Unprefixed.Raw, Unprefixed.Links} {
		if _, err := adm.CreateTopic(ctx, SingleLayout().Partitions, 1, map[string]*string{configTimestampType: kadm.StringPtr(createTime)}, name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Unprefixed.Check(ctx, adm, Unprefixed.Raw, Unprefixed.Links); err == nil {
		t.Error("check passed before")
	}
	if err := Unprefixed.Ensure(ctx, adm, SingleLayout()); err != nil {
		t.Fatal(err)
	}
	if _, err := Unprefixed.Check(ctx, adm, allNames()...); err != nil {
		t.Error(err)
	}
}

// A cluster that cannot be asked is no fault of its topics.
func TestCheckOfACutConnection(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	adm := admin(t)
	cancel()
	if _, err := Unprefixed.Check(ctx, adm, Unprefixed.Raw); err == nil {
		t.Error("check passed")
	} else if _, ok := errors.AsType[*FaultError](err); ok {
		t.Errorf("error is a FaultError: %v", err)
	}
}

// The mapping of keys to partitions can never change while topics live.
func TestPartitionIsPinned(t *testing.T) {
	for _, tc := range []struct {
		key  []byte
		want int32
	}{
		{RawKey(nil, "dev", "u-1", "a-1", "c-1"), Partition([]byte("dev\x00uu-1"), 1<<30)},
		{RawKey(nil, "dev", "", "a-1", "c-1"), Partition([]byte("dev\x00aa-1"), 1<<30)},
		{RawKey(nil, "dev", "", "", "c-1"), Partition([]byte("dev\x00cc-1"), 1<<30)},
	} {
		if got := Partition(tc.key, 1<<30); got != tc.want {
			t.Errorf("Partition(%q) = %d, want %d", tc.key, got, tc.want)
		}
	}
	if got, want := Partition([]byte("dev\x00uu-1"), 12), int32(1); got != want {
		t.Errorf("Partition = %d, want %d", got, want)
	}
}

func TestLayoutValidate(t *testing.T) {
	for _, tc := range []struct {
		change func(*Layout)
		want   string
	}{
		{func(*Layout) {}, ""},
		{func(l *Layout) { l.Partitions = 0 }, "topics.partitions must be 1 to 10000 (got 0)"},
		{func(l *Layout) { l.RejectedPartitions = -1 }, "topics.rejected_partitions"},
		{func(l *Layout) { l.Replication = 0 }, "topics.replication"},
		{func(l *Layout) { l.MinInsync = 4 }, "topics.min_insync"},
		{func(l *Layout) { l.MaxMessageBytes = 1 }, "topics.max_message_bytes"},
	} {
		l := DefaultLayout()
		tc.change(&l)
		err := l.Validate()
		if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("Validate(%+v) = %v, want %q", l, err, tc.want)
		}
	}
}
