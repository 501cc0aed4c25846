// Package verdicts reads what became of single events while somebody looks at an app:
// the enrichers' verdicts, for which it asks, and what gateways rejected.
//
// It keeps the last verdicts of each app in memory, and nothing anywhere else. It does
// not read raw: what it shows of an event is what its verdict has.
package verdicts

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/verdict"
)

// Config is how to reach the log.
type Config struct {
	Options []kgo.Opt // of a client, without group and transactional id
	Names   *topic.Names
	Codec   *event.Codec
	Logger  *slog.Logger
	Now     func() time.Time // time.Now where nil
}

const (
	// Kept is how many verdicts of an app are kept.
	Kept = 500
	// lookFor is how long after a look the verdicts of an app are asked for and kept: a
	// page without scripts is reloaded by hand.
	lookFor = 90 * time.Second
	// askEvery is how often a request is repeated.
	askEvery = verdict.RequestFor / 3
	// before is how far back reading begins.
	before = 2 * time.Minute
	// mostApps bounds the apps looked at together.
	mostApps = 50
)

// Numbered is a verdict with its number, which increases as they are read.
type Numbered struct {
	Seq int64
	verdict.Record
}

// Feed reads verdicts. Create it with New and call Run once.
type Feed struct {
	cfg  Config
	wake chan struct{} // holds one token when an app is looked at anew

	mu   sync.Mutex // covers the others
	seq  int64
	apps map[string]*looked
}

type looked struct {
	until   time.Time
	asked   bool // a request was acked since the look began
	records []Numbered
	leftOut int64
}

// New returns a feed that is not connected yet.
func New(cfg Config) *Feed {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Feed{cfg: cfg, wake: make(chan struct{}, 1), apps: map[string]*looked{}}
}

// Look says that somebody looks at an app now, and returns the verdicts read after the
// given number, oldest first, and how many were left out of all that were read.
func (f *Feed) Look(app string, after int64) (records []Numbered, leftOut int64) {
	now := f.cfg.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.apps[app]
	if l == nil {
		if len(f.apps) >= mostApps {
			return nil, 0
		}
		l = &looked{}
		f.apps[app] = l
	}
	l.until = now.Add(lookFor)
	if !l.asked {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
	if after > f.seq { // of a console before this one
		after = 0
	}
	i, _ := slices.BinarySearchFunc(l.records, after+1, func(r Numbered, seq int64) int { return cmp.Compare(r.Seq, seq) })
	return slices.Clone(l.records[i:]), l.leftOut
}

// Asked reports whether enrichers were asked for the verdicts of the app, so that events
// sent from now on have one.
func (f *Feed) Asked(app string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.apps[app]
	return l != nil && l.asked
}

// inUse forgets the apps at which nobody looks any more, and returns the others.
func (f *Feed) inUse() []string {
	now := f.cfg.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	var apps []string
	for app, l := range f.apps {
		if now.After(l.until) {
			delete(f.apps, app)
			continue
		}
		apps = append(apps, app)
	}
	slices.Sort(apps)
	return apps
}

// take keeps a verdict if somebody looks at its app.
func (f *Feed) take(v *verdict.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.apps[v.App]
	switch {
	case l == nil:
		return
	case v.Verdict == verdict.LeftOut:
		l.leftOut += v.Count
		return
	}
	f.seq++
	if len(l.records) >= Kept {
		l.records = slices.Delete(l.records, 0, len(l.records)-Kept+1)
	}
	l.records = append(l.records, Numbered{f.seq, *v})
}

// Run reads while somebody looks, until ctx ends. It has a connection only then.
func (f *Feed) Run(ctx context.Context) {
	pause := backoff.Backoff{Min: 200 * time.Millisecond, Max: 10 * time.Second}
	for ctx.Err() == nil {
		if len(f.inUse()) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-f.wake:
			}
			continue
		}
		if err := f.read(ctx); err != nil && ctx.Err() == nil {
			f.cfg.Logger.Warn("verdicts cannot be read; retrying", "error", err)
			if backoff.Sleep(ctx, pause.Next()) != nil {
				return
			}
			continue
		}
		pause.Reset()
	}
}

// read asks for verdicts and reads them, until nobody looks.
func (f *Feed) read(ctx context.Context) error {
	from := f.cfg.Now().Add(-before).UnixMilli()
	cl, err := kgo.NewClient(append(slices.Clone(f.cfg.Options),
		kgo.ConsumeTopics(f.cfg.Names.Verdicts, f.cfg.Names.Rejected),
		kgo.ConsumeResetOffset(kgo.NewOffset().AfterMilli(from)),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(250*time.Millisecond),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	defer f.unasked()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() { cancel(f.ask(ctx, cl)) })
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			if cause := context.Cause(ctx); !errors.Is(cause, errNobody) && !errors.Is(cause, context.Canceled) {
				return cause
			}
			return nil
		}
		var fault error
		fetches.EachError(func(t string, p int32, err error) {
			var loss *kgo.ErrDataLoss
			if !errors.As(err, &loss) { // what was lost was an hour old
				fault = errors.Join(fault, fmt.Errorf("fetch %s/%d: %w", t, p, err))
			}
		})
		if fault != nil {
			cancel(nil)
			return fault
		}
		fetches.EachRecord(f.record)
	}
}

// errNobody ends a reading.
var errNobody = errors.New("nobody looks")

// ask repeats requests until nobody looks.
func (f *Feed) ask(ctx context.Context, cl *kgo.Client) error {
	for {
		apps := f.inUse()
		if len(apps) == 0 {
			return errNobody
		}
		var requests []*kgo.Record
		for _, app := range apps {
			requests = append(requests, &kgo.Record{Topic: f.cfg.Names.VerdictRequests, Key: []byte(app), Value: verdict.Request{App: app}.Value()})
		}
		if err := cl.ProduceSync(ctx, requests...).FirstErr(); err != nil {
			return fmt.Errorf("ask for verdicts: %w", err)
		}
		f.mu.Lock()
		for _, app := range apps {
			if l := f.apps[app]; l != nil {
				l.asked = true
			}
		}
		f.mu.Unlock()
		wait, cancel := context.WithTimeout(ctx, askEvery)
		select {
		case <-f.wake:
		case <-wait.Done():
		}
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// unasked notes that requests are no longer repeated.
func (f *Feed) unasked() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.apps {
		l.asked = false
	}
}

// record takes a record of either topic. One that cannot be read is of another release.
func (f *Feed) record(r *kgo.Record) {
	if r.Topic == f.cfg.Names.Verdicts {
		v, err := verdict.Decode(r.Value)
		if err != nil {
			f.cfg.Logger.Warn("verdict cannot be read", "partition", r.Partition, "offset", r.Offset, "error", err)
			return
		}
		f.take(&v)
		return
	}
	var e event.Rejected
	if err := f.cfg.Codec.DecodeRejected(r.Value, &e); err != nil {
		f.cfg.Logger.Warn("rejected record cannot be read", "partition", r.Partition, "offset", r.Offset, "error", err)
		return
	}
	if e.Stage != event.StageGateway { // the enricher's have a verdict
		return
	}
	v := verdict.Record{
		App: e.AppID, Verdict: verdict.Rejected, ReceivedAt: e.ReceivedAt, MessageID: e.MessageID,
		Stage: e.Stage, Code: e.Code, Field: e.Field, Detail: e.Detail,
	}
	v.Event = original(e.Original)
	f.take(&v)
}

// original is an event that a gateway rejected, as its privacy rules left it: nil if it
// is not JSON or larger than verdict.MaxEvent.
func original(text []byte) json.RawMessage {
	if len(text) == 0 || len(text) > verdict.MaxEvent || !json.Valid(text) {
		return nil
	}
	return bytes.Clone(text)
}
