package known

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic"
)

// newCluster returns the address of a log with the topics of an installation.
func newCluster(t *testing.T) (*kfake.Cluster, []kgo.Opt) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := topic.Unprefixed.Ensure(t.Context(), kadm.NewClient(client), topic.SingleLayout()); err != nil {
		t.Fatal(err)
	}
	return c, []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}
}

// gateway returns the memory of one gateway.
func gateway(t *testing.T, opts []kgo.Opt, limit int) *Shared {
	t.Helper()
	s := NewShared(Config{Names: topic.Unprefixed, Options: opts, Limit: limit, Timeout: 10 * time.Second})
	t.Cleanup(s.Close)
	return s
}

func has(t *testing.T, s *Shared, id string) bool {
	t.Helper()
	ok, err := s.Has("app", 'u', id)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// TestWhatOneAddsAllKnow: from the moment that Add returns, on every gateway and
// on those that start later, and for this app and kind alone.
func TestWhatOneAddsAllKnow(t *testing.T) {
	_, opts := newCluster(t)
	a, b := gateway(t, opts, 1000), gateway(t, opts, 1000)
	for i := range 50 {
		id := fmt.Sprint("user-", i)
		if has(t, b, id) {
			t.Fatalf("%s is known before it was added", id)
		}
		if err := a.Add("app", 'u', id); err != nil {
			t.Fatal(err)
		}
		if !has(t, b, id) || !has(t, a, id) {
			t.Fatalf("%s is not known after it was added", id)
		}
		a, b = b, a
	}
	late := gateway(t, opts, 1000)
	if !has(t, late, "user-0") || !has(t, late, "user-49") || has(t, late, "user-50") {
		t.Error("a gateway that starts later does not know the same")
	}
	for _, other := range []struct {
		app  string
		kind byte
	}{{"app", 'a'}, {"other", 'u'}} {
		if ok, err := late.Has(other.app, other.kind, "user-0"); err != nil || ok {
			t.Errorf("of %s %c: got %v, %v", other.app, other.kind, ok, err)
		}
	}
}

// TestAtOnce has many ask and add at the same time.
func TestAtOnce(t *testing.T) {
	_, opts := newCluster(t)
	a, b := gateway(t, opts, 10_000), gateway(t, opts, 10_000)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				id := fmt.Sprintf("%d-%d", w, i)
				err := a.Add("app", 'u', id)
				ok, err2 := b.Has("app", 'u', id)
				if err := errors.Join(err, err2); err != nil || !ok {
					t.Errorf("%s: got %v, %v", id, ok, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestAway: nobody guesses while the brokers are away, and what is in memory is
// known all the same.
func TestAway(t *testing.T) {
	cluster, opts := newCluster(t)
	s := NewShared(Config{Names: topic.Unprefixed, Options: opts, Limit: 10, Timeout: time.Second})
	defer s.Close()
	if err := s.Add("app", 'u', "here"); err != nil {
		t.Fatal(err)
	}
	cluster.Close()
	if ok, err := s.Has("app", 'u', "here"); err != nil || !ok {
		t.Errorf("in memory: got %v, %v", ok, err)
	}
	if ok, err := s.Has("app", 'u', "elsewhere"); err == nil {
		t.Errorf("elsewhere: got %v without an error", ok)
	}
	if err := s.Add("app", 'u', "new"); err == nil {
		t.Error("an id was added without brokers")
	}
	if has(t, s, "here") != true {
		t.Error("it forgets")
	}
}

func TestMissingTopicSaysWhatToDo(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := NewShared(Config{Names: topic.Unprefixed, Options: []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, Limit: 10, Timeout: 5 * time.Second})
	defer s.Close()
	if _, err := s.Has("app", 'u', "a"); !errors.Is(err, topic.ErrMissing) {
		t.Errorf("got %v, want %v", err, topic.ErrMissing)
	}
}

// TestClosed: a gateway that stops answers, and does not hang.
func TestClosed(t *testing.T) {
	_, opts := newCluster(t)
	s := NewShared(Config{Names: topic.Unprefixed, Options: opts, Limit: 10, Timeout: time.Minute})
	s.Close()
	if _, err := s.Has("app", 'u', "a"); err == nil {
		t.Error("it says something after its end")
	}
	if err := s.Add("app", 'u', "a"); err == nil {
		t.Error("it takes something after its end")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := NewMemory(10)
	for i := range 1000 {
		m.add(HashOf("app", 'u', fmt.Sprint(i)))
		if n := len(m.young) + len(m.old); n > 10 {
			t.Fatalf("%d ids remembered, bound 10", n)
		}
		for back := range 5 {
			if i >= back && !m.has(HashOf("app", 'u', fmt.Sprint(i-back))) {
				t.Fatalf("id %d of %d was forgotten", i-back, i)
			}
		}
	}
}
