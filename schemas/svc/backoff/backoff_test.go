package backoff_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

func TestDoublesUpToMax(t *testing.T) {
	b := backoff.Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	var got []time.Duration
	for range 6 {
		got = append(got, b.Next()/time.Millisecond)
	}
	b.Reset()
	got = append(got, b.Next()/time.Millisecond)
	if want := []time.Duration{100, 200, 400, 800, 1000, 1000, 100}; !slices.Equal(got, want) {
		t.Errorf("got %d ms, want %d", got, want)
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := backoff.Sleep(t.Context(), time.Hour); err != nil || time.Since(began) != time.Hour {
			t.Errorf("slept %s, %v; want an hour", time.Since(began), err)
		}

		why := errors.New("no more")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			_ = backoff.Sleep(t.Context(), time.Minute)
			cancel(why)
		}()
		began = time.Now()
		if err := backoff.Sleep(ctx, time.Hour); !errors.Is(err, why) || time.Since(began) != time.Minute {
			t.Errorf("slept %s, %v; want a minute and the cause", time.Since(began), err)
		}
		for _, d := range []time.Duration{0, -time.Second} {
			if err := backoff.Sleep(t.Context(), d); err != nil {
				t.Errorf("no time: %v", err)
			}
			if err := backoff.Sleep(ctx, d); !errors.Is(err, why) {
				t.Errorf("no time, ended: got %v, want the cause", err)
			}
		}
	})
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		passes, lasts := errors.New("passes"), errors.New("lasts")
		try := func(ctx context.Context, answers ...error) (calls int, took time.Duration, err error) {
			began := time.Now()
			b := backoff.Backoff{Min: time.Second, Max: time.Second}
			err = b.Retry(ctx, 10*time.Second, func() error {
				calls++
				return answers[min(calls, len(answers))-1]
			}, func(err error) bool { return errors.Is(err, passes) })
			return calls, time.Since(began), err
		}
		if calls, took, err := try(t.Context(), passes, passes, nil); calls != 3 || took != 2*time.Second || err != nil {
			t.Errorf("success in the end: %d calls in %s, %v", calls, took, err)
		}
		if calls, took, err := try(t.Context(), passes, lasts); calls != 2 || took != time.Second || !errors.Is(err, lasts) {
			t.Errorf("an error that lasts: %d calls in %s, %v", calls, took, err)
		}
		if calls, took, err := try(t.Context(), passes); calls != 12 || took != 11*time.Second || !errors.Is(err, passes) {
			t.Errorf("no success in time: %d calls in %s, %v", calls, took, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		if calls, took, err := try(ctx, passes); calls != 3 || took != 2500*time.Millisecond || !errors.Is(err, passes) {
			t.Errorf("its context ends: %d calls in %s, %v", calls, took, err)
		}
	})
}

func TestSpread(t *testing.T) {
	b := backoff.Backoff{Min: 100 * time.Millisecond, Max: 400 * time.Millisecond, Spread: true}
	differ := false
	for i, most := range []time.Duration{100, 200, 400, 400, 400, 400, 400, 400} {
		most *= time.Millisecond
		d := b.Next()
		if d < most/2 || d > most {
			t.Errorf("wait %d: got %s, want %s to %s", i+1, d, most/2, most)
		}
		differ = differ || d != most
	}
	if !differ {
		t.Error("eight waits are all as long as they may be: there is no spread")
	}
}
