// Package backoff waits between attempts: for a time that doubles with each
// failure, and no longer than its context lives.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is how long to wait after each failure in a row: Min, then twice as
// long each time, up to Max.
type Backoff struct {
	Min, Max time.Duration
	// Spread makes each wait a random one, of half as long up to the whole: those
	// who failed together do not come back together.
	Spread bool
	last   time.Duration
}

// Every is the pause of whoever asks at regular intervals until something is so.
func Every(d time.Duration) Backoff { return Backoff{Min: d, Max: d} }

// Next returns how long to wait after one more failure.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, b.Min), b.Max)
	if b.Spread {
		return b.last/2 + rand.N(b.last/2+1)
	}
	return b.last
}

// Reset makes the next failure the first one.
func (b *Backoff) Reset() { b.last = 0 }

// Retry calls do until it succeeds, fails permanently, or d or ctx ends, and returns
// the last result of do. It waits between attempts.
func (b *Backoff) Retry(ctx context.Context, d time.Duration, do func() error, again func(error) bool) error {
	for end := time.Now().Add(d); ; {
		err := do()
		if err == nil || !again(err) || time.Now().After(end) || Sleep(ctx, b.Next()) != nil {
			return err
		}
	}
}

// Sleep waits for d, or until ctx ends; then it returns the context's cause.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
