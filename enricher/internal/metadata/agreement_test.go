package metadata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// cluster returns how to reach kfake, or the real cluster that
// UPTAKE_TEST_KAFKA_BROKERS names, with an empty metadata topic.
func cluster(t *testing.T) []kgo.Opt {
	t.Helper()
	var seeds []string
	if real := os.Getenv("UPTAKE_TEST_KAFKA_BROKERS"); real != "" {
		seeds = strings.Split(real, ",")
	} else {
		c, err := kfake.NewCluster(kfake.NumBrokers(3))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		seeds = c.ListenAddrs()
	}
	opts := []kgo.Opt{kgo.SeedBrokers(seeds...)}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	adm := kadm.NewClient(cl)
	if resp, err := adm.DeleteTopic(t.Context(), topic.Unprefixed.Metadata); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Fatal(resp, err)
	}
	for {
		topics, err := adm.ListTopics(t.Context(), topic.Unprefixed.Metadata)
		if err != nil {
			t.Fatal(err)
		}
		if errors.Is(topics[topic.Unprefixed.Metadata].Err, kerr.UnknownTopicOrPartition) {
			break
		}
	}
	if err := topic.Unprefixed.Ensure(t.Context(), adm, topic.SingleLayout()); err != nil {
		t.Fatal(err)
	}
	return opts
}

func newAgreement(t *testing.T, opts []kgo.Opt, limits Limits) *Agreement {
	t.Helper()
	a, err := NewAgreement(AgreementConfig{
		Names:   topic.Unprefixed,
		Options: opts, Limits: limits, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: func() time.Time { return time.Unix(1_800_000_000, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// follow runs a until the test ends.
func follow(t *testing.T, a *Agreement) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }() // ends with cancel
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-a.Ready()
}

// records reads the metadata topic.
func records(t *testing.T, opts []kgo.Opt) []Change {
	t.Helper()
	r, err := reader.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := r.Bounds(t.Context(), topic.Unprefixed.Metadata, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []Change
	if _, err := r.Read(t.Context(), topic.Unprefixed.Metadata, 0, b.Start, b.End, func(rec *kgo.Record) error {
		c, err := parse(rec)
		out = append(out, c)
		return err
	}, nil); err != nil {
		t.Fatal(err)
	}
	return out
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestInstancesAgree has instances see the same new keys with different types
// at once, over and over.
func TestInstancesAgree(t *testing.T) {
	opts := cluster(t)
	const instances, rounds = 3, 5
	all := make([]*Agreement, instances)
	for i := range all {
		all[i] = newAgreement(t, opts, DefaultLimits())
		follow(t, all[i])
	}
	natural := []Type{Integer, String, Object}
	for round := range rounds {
		keys := []Key{{"a", fmt.Sprintf("properties.k%d", round)}, {"a", fmt.Sprintf("properties.l%d.[]", round)}, {"b", fmt.Sprintf("traits.k%d", round)}}
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i, a := range all {
			wg.Go(func() {
				var ps []Proposal
				for _, k := range keys {
					ps = append(ps, Proposal{Key: k, Type: natural[i]})
				}
				<-start
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := a.Agree(ctx, ps); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		for _, k := range keys {
			want := all[0].View().Type(k)
			if want == None {
				t.Errorf("%v: no type after Agree", k)
			}
			for i, a := range all {
				if got := a.View().Type(k); got != want {
					t.Errorf("%v: instance %d has %s, instance 0 has %s", k, i, got, want)
				}
			}
		}
	}
	// One record per key, or compaction would leave another one's word.
	seen := map[Key]int{}
	for _, c := range records(t, opts) {
		seen[c.Key]++
	}
	if len(seen) != 3*rounds {
		t.Errorf("keys in the log: got %d, want %d", len(seen), 3*rounds)
	}
	for k, n := range seen {
		if n != 1 {
			t.Errorf("%v has %d records, want 1", k, n)
		}
	}
	late := newAgreement(t, opts, DefaultLimits())
	follow(t, late)
	if got, want := late.View().Paths("a"), all[0].View().Paths("a"); !slices.Equal(got, want) {
		t.Errorf("an instance that starts later: got %v, want %v", got, want)
	}
	for _, p := range late.View().Paths("a") {
		if got, want := late.View().Type(Key{"a", p}), all[0].View().Type(Key{"a", p}); got != want {
			t.Errorf("%s, an instance that starts later: got %s, want %s", p, got, want)
		}
	}
}

// TestInstancesWidenTogether has instances see a fraction in a key that is an
// integer so far, and a new key as an integer and as a float, at once.
func TestInstancesWidenTogether(t *testing.T) {
	opts := cluster(t)
	all := make([]*Agreement, 3)
	for i := range all {
		all[i] = newAgreement(t, opts, DefaultLimits())
		follow(t, all[i])
	}
	price, pinned, fresh := Key{"a", "properties.price"}, Key{"a", "properties.id"}, Key{"a", "properties.l.[]"}
	if err := all[0].Agree(t.Context(), []Proposal{{Key: price, Type: Integer}, {Key: pinned, Type: Integer}}); err != nil {
		t.Fatal(err)
	}
	if err := all[0].Pin(t.Context(), pinned, Integer, "an analyst", "ids have no fraction"); err != nil {
		t.Fatal(err)
	}
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i, a := range all {
		wg.Go(func() {
			<-start
			if err := a.Agree(t.Context(), []Proposal{{Key: price, Type: Float}, {Key: pinned, Type: Float}, {Key: fresh, Type: []Type{Integer, Float, Integer}[i]}}); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	late := newAgreement(t, opts, DefaultLimits())
	follow(t, late)
	for i, a := range append(all, late) {
		// Who took a type before another one widened it reads so from the log.
		until(t, fmt.Sprintf("instance %d to know that both are floats", i), func() bool {
			return a.View().Type(price) == Float && a.View().Type(fresh) == Float
		})
		if got := a.View().Type(pinned); got != Integer {
			t.Errorf("instance %d: the pinned key is %s, want integer", i, got)
		}
	}
	var said []string
	for _, c := range records(t, opts) {
		if c.Key == price {
			said = append(said, c.Entry.Type.String()+" "+c.Entry.Reason)
		}
	}
	if want := []string{"integer ", "float " + widened}; !slices.Equal(said, want) {
		t.Errorf("the log says of the price: got %q, want %q", said, want)
	}
}

func TestPinAndReset(t *testing.T) {
	opts := cluster(t)
	a, person := newAgreement(t, opts, DefaultLimits()), newAgreement(t, opts, DefaultLimits())
	follow(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	prop := func(path string, typ Type) Proposal { return Proposal{Key: Key{"a", path}, Type: typ} }
	if err := a.Agree(ctx, []Proposal{
		prop("properties.price", Integer), prop("properties.cart", Object), prop("properties.cart.id", String), prop("properties.cart.lines", Array),
		prop("properties.cart.lines.[]", Object), prop("properties.cart.lines.[].sku", String), prop("properties.cartoon", String),
	}); err != nil {
		t.Fatal(err)
	}
	types := func(a *Agreement) map[string]Type {
		out := map[string]Type{}
		for path, e := range a.Entries("a") {
			out[path] = e.Type
		}
		return out
	}
	if err := person.Pin(ctx, Key{"a", "properties.price"}, Float, "billing team", "prices have cents"); err != nil {
		t.Fatal(err)
	}
	if got := person.Entries("a")["properties.price"]; got.Type != Float || !got.Pinned || got.Author != "billing team" || got.Reason != "prices have cents" {
		t.Errorf("pinned: got %+v", got)
	}
	until(t, "the pin to arrive", func() bool { return a.View().Type(Key{"a", "properties.price"}) == Float })
	// The keys of the elements go when the array becomes an object, and all
	// within when it becomes a scalar.
	if err := person.Pin(ctx, Key{"a", "properties.cart.lines"}, Object, "x", "y"); err != nil {
		t.Fatal(err)
	}
	want := map[string]Type{"properties.price": Float, "properties.cart": Object, "properties.cart.id": String, "properties.cart.lines": Object, "properties.cartoon": String}
	if got := types(person); !reflect.DeepEqual(got, want) {
		t.Errorf("array pinned as object: got %v, want %v", got, want)
	}
	if err := person.Reset(ctx, Key{"a", "properties.cart"}); err != nil {
		t.Fatal(err)
	}
	want = map[string]Type{"properties.price": Float, "properties.cartoon": String}
	until(t, "the reset to arrive", func() bool { return reflect.DeepEqual(types(a), want) })
	if got := a.View().Count("a"); got != len(want) {
		t.Errorf("keys: got %d, want %d", got, len(want))
	}
	if err := person.Reset(ctx, Key{"a", "properties.cart"}); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("reset again: got %v, want ErrUnknownKey", err)
	}
	if err := person.Pin(ctx, Key{"a", "price"}, Float, "x", "y"); err == nil {
		t.Error("pin of a path without properties or traits: got no error")
	}
	// The next value decides.
	if err := a.Agree(ctx, []Proposal{prop("properties.cart", String)}); err != nil {
		t.Fatal(err)
	}
	if got := a.View().Type(Key{"a", "properties.cart"}); got != String {
		t.Errorf("after the reset: got %s, want string", got)
	}
}

func TestAgreementKeepsTheLimit(t *testing.T) {
	opts := cluster(t)
	limits := DefaultLimits()
	limits.AppKeys = 5
	one, other := newAgreement(t, opts, limits), newAgreement(t, opts, limits)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i, a := range []*Agreement{one, other} {
		wg.Go(func() {
			var ps []Proposal
			for k := range 4 {
				ps = append(ps, Proposal{Key: Key{"a", fmt.Sprintf("properties.i%dk%d", i, k)}, Type: String})
			}
			if err := a.Agree(ctx, ps); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := len(records(t, opts)); got != limits.AppKeys {
		t.Errorf("records: got %d, want %d", got, limits.AppKeys)
	}
	if err := one.Load(ctx); err != nil {
		t.Fatal(err)
	}
	if got := one.View().Count("a"); got != limits.AppKeys {
		t.Errorf("keys: got %d, want %d", got, limits.AppKeys)
	}
}

// One sender who has a public key and floods an app with keys takes part of the
// room, in one instance or several, over restarts and with keys that widen; the
// others go on, and what it made can be taken away.
func TestKeyFlood(t *testing.T) {
	opts := cluster(t)
	limits := DefaultLimits()
	limits.AppKeys, limits.SourceKeys = 400, 60
	now := time.Unix(1_800_000_000, 0)
	start := func() *Agreement {
		a := newAgreement(t, opts, limits)
		a.cfg.Now = func() time.Time { return now }
		if err := a.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		return a
	}
	flooder, other := Source("a", "203.0.113.7"), Source("a", "198.51.100.7")
	keys := func(prefix, source string, n int, typ Type) []Proposal {
		var ps []Proposal
		for k := range n {
			ps = append(ps, Proposal{Key: Key{"a", fmt.Sprintf("properties.%s%03d", prefix, k)}, Type: typ, Source: source})
		}
		return ps
	}
	agree := func(a *Agreement, ps []Proposal, want int) {
		t.Helper()
		if err := a.Agree(t.Context(), ps); err != nil {
			t.Fatal(err)
		}
		if got := a.View().Count("a"); got != want {
			t.Errorf("keys: got %d, want %d", got, want)
		}
	}
	a := start()
	agree(a, keys("flood", flooder, 300, Integer), 60)
	agree(a, keys("flood", flooder, 300, Float), 60) // those it has are widened
	a = start()
	if got := a.Room("a", flooder); got > 0 {
		t.Errorf("room of the flooder after a restart: got %d, want none", got)
	}
	agree(a, keys("more", flooder, 300, String), 60)
	agree(a, keys("mine", other, 50, String), 110)
	// Hour after hour it takes a quarter of what is left at most.
	for hour := range 8 {
		now = now.Add(sourceWindow + time.Minute)
		if err := a.Agree(t.Context(), keys(fmt.Sprintf("hour%d.", hour), flooder, 300, String)); err != nil {
			t.Fatal(err)
		}
	}
	if left, room := limits.AppKeys-a.View().Count("a"), a.Room("a", other); left < 16 || room < 16 {
		t.Errorf("after 8 hours %d keys are left, and room for %d of others", left, room)
	}
	if err := a.Pin(t.Context(), Key{"a", "properties.flood000"}, Float, "x", "y"); err != nil {
		t.Fatal(err)
	}
	if n, err := a.ResetAll(t.Context(), "a", "properties.flood00*", ""); n != 9 || err != nil {
		t.Errorf("reset of a prefix: got %d, %v, want 9", n, err)
	}
	if n, err := a.ResetAll(t.Context(), "a", "*", flooder); n < 60 || err != nil {
		t.Errorf("reset of a source: got %d, %v", n, err)
	}
	if got, want := a.View().Count("a"), 51; got != want { // the other's, and what a person pinned
		t.Errorf("keys after the resets: got %d, want %d", got, want)
	}
	if n, err := a.ResetAll(t.Context(), "a", "properties", ""); n != 50 || err != nil {
		t.Errorf("reset of the root: got %d, %v, want 50", n, err)
	}
}

func TestSource(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		same bool
	}{
		{"203.0.113.7", "203.0.113.200", true},
		{"203.0.113.7", "::ffff:203.0.113.9", true},
		{"203.0.113.7", "203.0.114.7", false},
		{"2001:db8:1:2::1", "2001:db8:1:3::1", true},
		{"2001:db8:1::1", "2001:db8:2::1", false},
		{"", "unix", true},
		{"", "203.0.113.7", false},
	} {
		if got := Source("a", tc.a) == Source("a", tc.b); got != tc.same {
			t.Errorf("%q and %q are one source: got %v, want %v", tc.a, tc.b, got, tc.same)
		}
	}
}

// TestUnreadableRecord holds that one bad record stops nothing.
func TestUnreadableRecord(t *testing.T) {
	opts := cluster(t)
	cl, err := kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, rec := range []*kgo.Record{
		{Key: []byte("nonsense"), Value: []byte("{}")},
		{Key: []byte("a\x00properties.x"), Value: []byte(`{"type":"colour"}`)},
		{Key: []byte("a\x00properties.x"), Value: []byte(`{"type":"bool"}`)},
		{Key: []byte("a\x00properties.x"), Value: []byte(`[`)},
	} {
		rec.Topic = topic.Unprefixed.Metadata
		if err := cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	a := newAgreement(t, opts, DefaultLimits())
	if err := a.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := a.View().Type(Key{"a", "properties.x"}); got != Bool {
		t.Errorf("got %s, want bool", got)
	}
}

func TestRegistryTakesChangesInAnyOrder(t *testing.T) {
	changes := []Change{
		{Key{"a", "properties.x"}, 1, Entry{Type: Bool}},
		{Key{"a", "properties.x"}, 4, Entry{Type: String}},
		{Key{"a", "properties.y.z"}, 2, Entry{Type: Float}},
		{Key{"a", "properties.y.z"}, 3, Entry{}},
		{Key{"a", "properties.y"}, 5, Entry{Type: Object}},
	}
	forward, backward := NewRegistry(), NewRegistry()
	forward.Apply(changes...)
	for _, c := range slices.Backward(changes) {
		old := backward.View()
		paths := old.Paths("a")
		backward.Apply(c)
		backward.Apply(c)
		if got := old.Paths("a"); !slices.Equal(got, paths) {
			t.Fatalf("a view changed from %v to %v", paths, got)
		}
	}
	want := []string{"properties.x", "properties.y"}
	for name, r := range map[string]*Registry{"forward": forward, "backward": backward} {
		v := r.View()
		if got := v.Paths("a"); !slices.Equal(got, want) || v.Count("a") != 2 || v.Type(Key{"a", "properties.x"}) != String || v.Type(Key{"a", "properties.y.z"}) != None {
			t.Errorf("%s: got %v, %d keys", name, got, v.Count("a"))
		}
	}
}
