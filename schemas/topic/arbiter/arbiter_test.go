package arbiter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic/reader"
)

const log = "arbiter.test"

// brokers returns a cluster with the one topic log: kfake, or the real one
// that UPTAKE_TEST_KAFKA_BROKERS names.
func brokers(t *testing.T) []kgo.Opt {
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
	if _, err := adm.DeleteTopic(t.Context(), log); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Fatal(err)
	}
	for {
		_, err := adm.CreateTopic(t.Context(), 1, -1, nil, log)
		if err == nil {
			return opts
		}
		if !errors.Is(err, kerr.TopicAlreadyExists) || t.Context().Err() != nil { // a real cluster is still deleting it
			t.Fatal(err)
		}
	}
}

// values reads the log to its end.
func values(ctx context.Context, r *reader.Reader) ([]string, error) {
	b, err := r.Bounds(ctx, log, 0)
	if err != nil {
		return nil, err
	}
	var out []string
	_, err = r.Read(ctx, log, 0, b.Start, b.End, func(rec *kgo.Record) error {
		out = append(out, string(rec.Value))
		return nil
	}, nil)
	return out, err
}

func newReader(t *testing.T, opts []kgo.Opt) *reader.Reader {
	t.Helper()
	r, err := reader.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// TestOneWriterAtATime has several writers add one to the last number in the
// log. Any two that decided on the same log would write the same number.
func TestOneWriterAtATime(t *testing.T) {
	opts := brokers(t)
	const writers, each = 4, 5
	var wg sync.WaitGroup
	for w := range writers {
		r := newReader(t, opts)
		wg.Go(func() {
			for i := range each {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				_, err := Write(ctx, Config{Options: opts, TransactionalID: "t"}, func(ctx context.Context) ([]*kgo.Record, error) {
					vs, err := values(ctx, r)
					if err != nil {
						return nil, err
					}
					last := 0
					if len(vs) > 0 {
						last, _ = strconv.Atoi(vs[len(vs)-1])
					}
					return []*kgo.Record{{Topic: log, Value: []byte(strconv.Itoa(last + 1))}}, nil
				})
				cancel()
				if err != nil {
					t.Errorf("writer %d, %d: %v", w, i, err)
				}
			}
		})
	}
	wg.Wait()
	got, err := values(t.Context(), newReader(t, opts))
	if err != nil {
		t.Fatal(err)
	}
	// A commit whose answer was lost is tried again, so there may be more
	// numbers than calls, but never one twice or left out.
	if len(got) < writers*each {
		t.Errorf("got %d numbers, want at least %d", len(got), writers*each)
	}
	for i, v := range got {
		if want := strconv.Itoa(i + 1); v != want {
			t.Fatalf("number %d: got %s, want %s in %v", i, v, want, got)
		}
	}
}

// TestLateWriterIsFenced holds a writer between its decision and its commit
// while another one writes.
func TestLateWriterIsFenced(t *testing.T) {
	opts := brokers(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := newReader(t, opts)
	if _, err := Write(ctx, Config{Options: opts, TransactionalID: "t"}, func(context.Context) ([]*kgo.Record, error) {
		return []*kgo.Record{{Topic: log, Value: []byte("first")}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	var seen [][]string
	var again []error
	written, err := Write(ctx, Config{Options: opts, TransactionalID: "t", Attempted: func(err error) { again = append(again, err) }}, func(ctx context.Context) ([]*kgo.Record, error) {
		vs, err := values(ctx, r)
		if err != nil {
			return nil, err
		}
		seen = append(seen, vs)
		if len(seen) == 1 {
			// The other one comes right now, and is through.
			if _, err := Write(ctx, Config{Options: opts, TransactionalID: "t"}, func(context.Context) ([]*kgo.Record, error) {
				return []*kgo.Record{{Topic: log, Value: []byte("other")}}, nil
			}); err != nil {
				return nil, err
			}
		}
		return []*kgo.Record{{Topic: log, Value: []byte(fmt.Sprintf("late after %d", len(vs)))}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// An attempt that the client ended with an abort of its own accord (see
	// errAborted) is repeated as well; it is not what this test is about.
	aborted := 0
	for _, err := range again {
		if errors.Is(err, errAborted) {
			aborted++
		}
	}
	if len(again)-aborted != 1 || len(seen) != 2+aborted {
		t.Errorf("attempts made again: got %v, want one that was fenced", again)
	}
	got, err := values(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if want := "[first other late after 2]"; fmt.Sprint(got) != want {
		t.Errorf("log: got %v, want %v", got, want)
	}
	if len(written) != 1 || written[0].Offset <= 0 {
		t.Errorf("written: got %+v, want one record with its offset", written)
	}
}

func TestDecisionEndsIt(t *testing.T) {
	opts := brokers(t)
	refuse := errors.New("no")
	if _, err := Write(t.Context(), Config{Options: opts, TransactionalID: "t"}, func(context.Context) ([]*kgo.Record, error) { return nil, refuse }); !errors.Is(err, refuse) {
		t.Errorf("got %v, want %v", err, refuse)
	}
	written, err := Write(t.Context(), Config{Options: opts, TransactionalID: "t"}, func(context.Context) ([]*kgo.Record, error) { return nil, nil })
	if err != nil || len(written) != 0 {
		t.Errorf("nothing to do: got %v, %v", written, err)
	}
}
