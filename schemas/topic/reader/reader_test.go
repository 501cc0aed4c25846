package reader

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/schemas/topic/locallog"
)

const name = "topic"

type fixture struct {
	t      *testing.T
	ctx    context.Context
	fake   *kfake.Cluster
	reader *Reader
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(2, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	locallog.ListAborted(fake)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	r, err := New(kgo.SeedBrokers(fake.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return &fixture{t: t, ctx: ctx, fake: fake, reader: r}
}

// producer returns a client with an open transaction.
func (f *fixture) producer(id string) *kgo.Client {
	f.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(f.fake.ListenAddrs()...), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(cl.Close)
	if err := cl.BeginTransaction(); err != nil {
		f.t.Fatal(err)
	}
	return cl
}

func (f *fixture) produce(cl *kgo.Client, values ...string) {
	f.t.Helper()
	for _, v := range values {
		if err := cl.ProduceSync(f.ctx, &kgo.Record{Topic: name, Value: []byte(v)}).FirstErr(); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fixture) end(cl *kgo.Client, how kgo.TransactionEndTry) {
	f.t.Helper()
	if err := cl.EndTransaction(f.ctx, how); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) bounds() Bounds {
	f.t.Helper()
	b, err := f.reader.Bounds(f.ctx, name, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// read reads from one offset to another and returns the values and the position.
func (f *fixture) read(from, to int64) ([]string, int64) {
	f.t.Helper()
	var got []string
	next, err := f.reader.Read(f.ctx, name, 0, from, to, func(r *kgo.Record) error {
		got = append(got, string(r.Value))
		return nil
	}, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return got, next
}

func TestReadsWhatWasCommitted(t *testing.T) {
	f := newFixture(t)
	if got, next := f.read(0, f.bounds().End); got != nil || next != 0 {
		t.Errorf("empty partition: got %v up to %d", got, next)
	}
	a, b := f.producer("a"), f.producer("b")
	f.produce(a, "a1")
	f.produce(b, "b1")
	f.produce(a, "a2")
	f.end(b, kgo.TryAbort)
	f.end(a, kgo.TryCommit)
	end := f.bounds().End
	got, next := f.read(0, end)
	if want := []string{"a1", "a2"}; !reflect.DeepEqual(got, want) || next != end {
		t.Errorf("got %v up to %d, want %v up to %d", got, next, want, end)
	}
	if got, _ := f.read(1, end); !reflect.DeepEqual(got, []string{"a2"}) {
		t.Errorf("from 1: got %v", got)
	}
	// What is last in the log may be no record: an aborted one and its marker.
	c := f.producer("c")
	f.produce(c, "c1")
	f.end(c, kgo.TryAbort)
	if got, next := f.read(end, f.bounds().End); got != nil || next != f.bounds().End {
		t.Errorf("only aborted: got %v up to %d", got, next)
	}
}

// An aborted transaction is left out also where a fetch ends after it because it is full.
func TestAbortedInAFullFetch(t *testing.T) {
	f := newFixture(t)
	f.reader.FetchBytes = 300
	for i, how := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		cl := f.producer("p")
		for n := range 5 {
			f.produce(cl, fmt.Sprintf("%d-%d", i, n))
		}
		f.end(cl, how)
		cl.Close()
	}
	var got []string
	err := f.reader.All(f.ctx, name, 0, func(r *kgo.Record) error {
		got = append(got, string(r.Value))
		return nil
	})
	want := "[0-0 0-1 0-2 0-3 0-4 2-0 2-1 2-2 2-3 2-4 4-0 4-1 4-2 4-3 4-4]"
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
}

// A mark above the last stable offset is waited for, whichever way the
// transaction below it ends.
func TestWaitsForOpenTransactions(t *testing.T) {
	for _, how := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		t.Run(fmt.Sprint("commit=", how), func(t *testing.T) {
			f := newFixture(t)
			done := f.producer("done")
			f.produce(done, "before")
			f.end(done, kgo.TryCommit)
			open := f.producer("open")
			f.produce(open, "open")
			mark := f.bounds().End
			waiting := make(chan struct{})
			var told bool
			var got []string
			ended := make(chan error, 1)
			go func() { // ends with the read
				_, err := f.reader.Read(f.ctx, name, 0, 0, mark, func(r *kgo.Record) error {
					got = append(got, string(r.Value))
					return nil
				}, func(p Position) {
					if p.Next >= p.Stable && p.Next < mark && !told {
						told = true
						close(waiting)
					}
				})
				ended <- err
			}()
			<-waiting
			select {
			case err := <-ended:
				t.Fatalf("the read ended before the transaction, with %v", err)
			default:
			}
			f.end(open, how)
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			want := []string{"before"}
			if how == kgo.TryCommit {
				want = append(want, "open")
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// What passes by itself is retried; what does not is returned.
func TestErrors(t *testing.T) {
	f := newFixture(t)
	a := f.producer("a")
	f.produce(a, "1", "2")
	f.end(a, kgo.TryCommit)
	end := f.bounds().End
	f.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition, Count: 2})
	if err := f.fake.MoveTopicPartition(name, 0, (f.fake.LeaderFor(name, 0)+1)%3); err != nil {
		t.Fatal(err)
	}
	if got, _ := f.read(0, end); !reflect.DeepEqual(got, []string{"1", "2"}) {
		t.Errorf("after the leader moved: got %v", got)
	}
	f.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.OffsetNotAvailable, Count: 3})
	if got := f.bounds().End; got != end {
		t.Errorf("while no leader knows its end: got %d, want %d", got, end)
	}
	nothing := func(*kgo.Record) error { return nil }
	if _, err := f.reader.Read(f.ctx, name, 0, end+10, end+20, nothing, nil); !errors.Is(err, kerr.OffsetOutOfRange) {
		t.Errorf("behind the end: got %v", err)
	}
	stop := errors.New("stop")
	if _, err := f.reader.Read(f.ctx, name, 0, 0, end, func(*kgo.Record) error { return stop }, nil); !errors.Is(err, stop) {
		t.Errorf("an error of the caller: got %v", err)
	}
	if _, err := f.reader.Bounds(f.ctx, name, 9); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("bounds of no partition: got %v", err)
	}
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	if _, err := f.reader.Read(ctx, name, 0, 0, end, nothing, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context: got %v", err)
	}
}

// Follow tells once that it has caught up, and goes on.
func TestFollow(t *testing.T) {
	f := newFixture(t)
	a := f.producer("a")
	f.produce(a, "1", "2")
	f.end(a, kgo.TryCommit)
	ctx, cancel := context.WithCancel(f.ctx)
	values := make(chan string, 10)
	ended := make(chan error, 1)
	go func() { // ends with cancel
		ended <- f.reader.Follow(ctx, name, 0, func(r *kgo.Record) error {
			values <- string(r.Value)
			return nil
		}, func() { values <- "caught up" })
	}()
	for _, want := range []string{"1", "2", "caught up"} {
		if got := <-values; got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	if err := a.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	f.produce(a, "3")
	f.end(a, kgo.TryCommit)
	if got := <-values; got != "3" {
		t.Errorf("got %s, want 3", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Span gives the records below the offset, although one fetch brings more.
func TestSpanEndsExactly(t *testing.T) {
	f := newFixture(t)
	a := f.producer("a")
	f.produce(a, "0", "1", "2", "3")
	f.end(a, kgo.TryCommit)
	for _, tc := range []struct{ from, to int64 }{{0, 0}, {0, 1}, {1, 3}, {2, 4}, {0, 5}} { // the marker is at 4
		var got, want []string
		err := f.reader.Span(f.ctx, name, 0, tc.from, tc.to, func(r *kgo.Record) error {
			got = append(got, string(r.Value))
			return nil
		})
		for i := tc.from; i < min(tc.to, 4); i++ {
			want = append(want, fmt.Sprint(i))
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("from %d to %d: got %v, %v, want %v", tc.from, tc.to, got, err, want)
		}
	}
}

// The newest record of a key counts, a deleted key does not, and one that was
// written again after it was deleted does.
func TestNewestOfEachKey(t *testing.T) {
	f := newFixture(t)
	cl := f.producer("keys")
	for _, r := range []kgo.Record{
		{Key: []byte("k-a"), Value: []byte("old")},
		{Key: []byte("k-b"), Value: []byte("x")},
		{Key: []byte("other"), Value: []byte("x")},
		{Key: []byte("k-c"), Value: []byte("x")},
		{Key: []byte("k-b")},
		{Key: []byte("k-a"), Value: []byte("new")},
		{Key: []byte("k-c")},
		{Key: []byte("k-c"), Value: []byte("again")},
	} {
		r.Topic = name
		if err := cl.ProduceSync(f.ctx, &r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	f.end(cl, kgo.TryCommit)
	newest, err := f.reader.Newest(f.ctx, name, 0, func(key []byte) bool { return string(key[:2]) == "k-" })
	got := map[string]string{}
	for key, r := range newest {
		got[key] = string(r.Value)
	}
	if want := map[string]string{"k-a": "new", "k-c": "again"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

// Brokers that have gone away are waited for as long as Silence says.
func TestSilenceEnds(t *testing.T) {
	f := newFixture(t)
	cl := f.producer("a")
	f.produce(cl, "0")
	f.end(cl, kgo.TryCommit)
	f.reader.Silence = time.Millisecond
	f.fake.ControlKey(int16(kmsg.Fetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		f.fake.KeepControl()
		resp := kreq.ResponseKind().(*kmsg.FetchResponse)
		resp.ErrorCode = kerr.NotLeaderForPartition.Code
		return resp, nil, true
	})
	err := f.reader.Span(f.ctx, name, 0, 0, 1, func(*kgo.Record) error { return nil })
	if !errors.Is(err, kerr.NotLeaderForPartition) || f.ctx.Err() != nil {
		t.Errorf("got %v, want the brokers' error", err)
	}
}
