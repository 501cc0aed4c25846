package metadata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/arbiter"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// Agreement makes all instances agree on the types of keys, through the metadata topic.
//
// The type of a key is that of the last record about it, so compaction keeps it. The
// first instance that sees a key decides: to add a key, an instance reads the log to
// its end and adds only what is missing, as the only writer of the app at that time
// (package arbiter). If two instances see a new key with two types at once, they write
// one after the other, and the second adopts the type of the first. A person's pin or
// reset goes the same way. So does the one automatic change: a key that was first seen
// as 12 and then as 12.5 is widened from integer to float, unless its type is pinned.
// From that record on it is a float for all instances.
//
// Until a key is agreed on, no event with it is processed further: its partition waits
// for Agree. That takes a few tens of milliseconds for all new keys of a batch, and
// happens as often as an app has new keys, at most Limits.AppKeys.
//
// A change of a type takes effect when its record reaches an instance, so for a moment
// two instances may use the old and the new type.
type Agreement struct {
	cfg     AgreementConfig
	reg     *Registry
	reader  *reader.Reader
	metrics *metrics
	ready   chan struct{} // closed when the log was read to its end once
	once    sync.Once

	warnedMu sync.Mutex // covers warned
	warned   map[origin]time.Time

	turn chan struct{} // one writer at a time; covers next
	next int64         // the log is applied up to here by writers
}

// AgreementConfig configures an Agreement.
type AgreementConfig struct {
	Options []kgo.Opt // how to reach the cluster
	Names   *topic.Names
	Limits  Limits
	Logger  *slog.Logger
	Metrics prometheus.Registerer // may be nil
	Now     func() time.Time
}

// NewAgreement returns an Agreement that has read nothing yet. Close ends it.
func NewAgreement(cfg AgreementConfig) (*Agreement, error) {
	if err := cfg.Limits.Validate(); err != nil {
		return nil, err
	}
	r, err := reader.New(cfg.Options...)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	a := &Agreement{
		cfg: cfg, reg: NewRegistry(), reader: r, metrics: newMetrics(cfg.Metrics),
		ready: make(chan struct{}), turn: make(chan struct{}, 1), warned: map[origin]time.Time{},
	}
	return a, nil
}

// Close ends the client. Run must have returned.
func (a *Agreement) Close() { a.reader.Close() }

// Room returns how many new keys a source of an app may create at present. When a
// source has none left, that is logged once an hour.
func (a *Agreement) Room(app, source string) int {
	now := a.cfg.Now()
	room := a.reg.Room(app, source, a.cfg.Limits, now)
	if room > 0 {
		return room
	}
	a.warnedMu.Lock()
	defer a.warnedMu.Unlock()
	if o := (origin{app, source}); now.Sub(a.warned[o]) >= sourceWindow {
		a.warned[o] = now
		a.cfg.Logger.Warn("source has used up its new keys for now; further values are kept under conflicts; see metadata show and reset -source",
			"app", app, "source", source, "keys", a.View().Count(app), "metadata-source-keys", a.cfg.Limits.SourceKeys, "metadata-app-keys", a.cfg.Limits.AppKeys)
	}
	return 0
}

// View returns the types that are known now.
func (a *Agreement) View() *View { return a.reg.View() }

// Entries returns what is known of an app's keys, by path.
func (a *Agreement) Entries(app string) map[string]Entry { return a.reg.Entries(app) }

// Ready is closed when Run has read the log to its end once.
func (a *Agreement) Ready() <-chan struct{} { return a.ready }

// Run follows the log until ctx ends, or reading fails permanently. It may then be
// called again.
func (a *Agreement) Run(ctx context.Context) error {
	var gathered []Change
	caughtUp := false
	err := a.reader.Follow(ctx, a.cfg.Names.Metadata, 0, func(rec *kgo.Record) error {
		if c, ok := a.parse(rec); ok {
			gathered = append(gathered, c)
		}
		if caughtUp {
			a.apply(gathered)
			gathered = gathered[:0]
		}
		return nil
	}, func() {
		caughtUp = true
		a.apply(gathered)
		gathered = nil
		a.once.Do(func() { close(a.ready) })
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("follow metadata: %w", err)
}

// parse reads a record. One that cannot be read is skipped and reported: the key keeps
// its previous type, or has none.
func (a *Agreement) parse(rec *kgo.Record) (Change, bool) {
	c, err := parse(rec)
	if err != nil {
		a.metrics.unreadable.Inc()
		a.cfg.Logger.Error("metadata record cannot be read and is skipped", "offset", rec.Offset, "error", err)
		return Change{}, false
	}
	return c, true
}

func (a *Agreement) apply(changes []Change) {
	a.reg.Apply(changes...)
	v := a.reg.View()
	for app := range v.apps {
		a.metrics.keys.WithLabelValues(app).Set(float64(v.Count(app)))
	}
}

// catchUp applies the log up to its end. The caller has the turn.
func (a *Agreement) catchUp(ctx context.Context) error {
	b, err := a.reader.Bounds(ctx, a.cfg.Names.Metadata, 0)
	if err != nil {
		return err
	}
	var changes []Change
	next, err := a.reader.Read(ctx, a.cfg.Names.Metadata, 0, max(a.next, b.Start), b.End, func(rec *kgo.Record) error {
		if c, ok := a.parse(rec); ok {
			changes = append(changes, c)
		}
		return nil
	}, nil)
	if err != nil {
		return err
	}
	a.next = next
	a.apply(changes)
	return nil
}

// take waits for the turn to write.
func (a *Agreement) take(ctx context.Context) error {
	select {
	case a.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *Agreement) release() { <-a.turn }

// Load reads the log to its end, for those who do not Run.
func (a *Agreement) Load(ctx context.Context) error {
	if err := a.take(ctx); err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	defer a.release()
	if err := a.catchUp(ctx); err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	return nil
}

// Agree returns when each of the keys has a type that all instances use: the proposed
// type, or that of the instance that wrote first; a widened one, unless the key is
// pinned. View then contains them. Keys above Limits.AppKeys, or above Room, stay
// without a type.
func (a *Agreement) Agree(ctx context.Context, proposals []Proposal) error {
	start := a.cfg.Now()
	byApp := map[string][]Proposal{}
	for _, p := range proposals {
		byApp[p.App] = append(byApp[p.App], p)
	}
	for app, ps := range byApp {
		if err := a.agree(ctx, app, ps); err != nil {
			return fmt.Errorf("agree on %d keys of %s: %w", len(ps), app, err)
		}
	}
	a.metrics.wait.Observe(a.cfg.Now().Sub(start).Seconds())
	return nil
}

func (a *Agreement) agree(ctx context.Context, app string, proposals []Proposal) error {
	if err := a.take(ctx); err != nil {
		return err
	}
	defer a.release()
	// Another partition of this instance may have requested the same keys.
	if len(a.fresh(app, proposals)) == 0 {
		return nil
	}
	written, err := a.write(ctx, app, func() ([]*kgo.Record, error) {
		var records []*kgo.Record
		now := a.cfg.Now()
		for _, p := range a.fresh(app, proposals) {
			e := Entry{Type: p.Type, At: now, Source: p.Source}
			if was, known := a.reg.Entry(p.Key); known {
				e.Reason, e.Source = widened, was.Source
			}
			rec, err := a.record(p.Key, e)
			if err != nil {
				return nil, err
			}
			records = append(records, rec)
		}
		return records, nil
	})
	a.metrics.added.Add(float64(written))
	return err
}

// widened is the reason of an entry that nobody gave.
const widened = "widened from integer: a value has a fraction"

// fresh returns the proposals that change the registry: the first for each key, and no
// more new keys than the app may have and each source may create.
func (a *Agreement) fresh(app string, proposals []Proposal) []Proposal {
	v := a.reg.View()
	room := a.cfg.Limits.AppKeys - v.Count(app)
	seen, bySource := map[string]bool{}, map[string]int{}
	var out []Proposal
	for _, p := range proposals {
		if seen[p.Path] || !v.takes(p) {
			continue
		}
		if v.Type(p.Key) == None {
			if _, asked := bySource[p.Source]; !asked {
				bySource[p.Source] = room
				if p.Source != "" {
					bySource[p.Source] = a.reg.Room(app, p.Source, a.cfg.Limits, a.cfg.Now())
				}
			}
			if room <= 0 || bySource[p.Source] <= 0 {
				continue
			}
			room--
			bySource[p.Source]--
		}
		seen[p.Path] = true
		out = append(out, p)
	}
	return out
}

// write writes what decide returns, as the app's only writer and with the log applied
// to its end. The caller has the turn.
func (a *Agreement) write(ctx context.Context, app string, decide func() ([]*kgo.Record, error)) (int, error) {
	written, err := arbiter.Write(ctx, arbiter.Config{
		Options:         a.cfg.Options,
		TransactionalID: a.cfg.Names.Metadata + "." + app,
		Attempted: func(err error) {
			a.metrics.retries.Inc()
			a.cfg.Logger.Debug("retrying the write of metadata", "app", app, "error", err)
		},
	}, func(ctx context.Context) ([]*kgo.Record, error) {
		if err := a.catchUp(ctx); err != nil {
			return nil, err
		}
		return decide()
	})
	if err != nil {
		return 0, err
	}
	var changes []Change
	for _, rec := range written {
		if c, ok := a.parse(rec); ok {
			changes = append(changes, c)
		}
	}
	a.apply(changes)
	return len(written), nil
}

// Pin sets the type of a key by a person's decision. Keys below it lose theirs if they
// are no longer possible.
func (a *Agreement) Pin(ctx context.Context, k Key, typ Type, author, reason string) error {
	return a.decree(ctx, k, Entry{Type: typ, Pinned: true, Author: author, Reason: reason})
}

// Reset removes the type of a key and of all keys below it: the next value decides.
func (a *Agreement) Reset(ctx context.Context, k Key) error {
	return a.decree(ctx, k, Entry{})
}

// ErrUnknownKey is in the chain of Reset's error about a key without a type.
var ErrUnknownKey = errors.New("key has no type")

// ResetAll removes the types of all keys of an app that match a pattern and, if source
// is not empty, that this source created. A pattern is a path, for the key and all keys
// below it, including properties and traits themselves; or a prefix of paths followed
// by *; or * for all keys. It returns how many keys there were. Pinned keys, and the
// objects that contain them, stay: Reset removes them by their path.
func (a *Agreement) ResetAll(ctx context.Context, app, pattern, source string) (int, error) {
	prefix, open := strings.CutSuffix(pattern, "*")
	if first, _, _ := strings.Cut(prefix, "."); !open && first != Properties && first != Traits {
		return 0, fmt.Errorf("key path must start with %s or %s (got %q)", Properties, Traits, pattern)
	}
	named := func(path string) bool {
		return open && strings.HasPrefix(path, prefix) || path == prefix || strings.HasPrefix(path, prefix+".")
	}
	if err := a.take(ctx); err != nil {
		return 0, err
	}
	defer a.release()
	return a.write(ctx, app, func() ([]*kgo.Record, error) {
		entries := a.reg.Entries(app)
		keep := map[string]bool{}
		for path, e := range entries {
			if !e.Pinned {
				continue
			}
			for at, c := range path {
				if c == '.' {
					keep[path[:at]] = true
				}
			}
			keep[path] = true
		}
		var records []*kgo.Record
		for _, path := range slices.Sorted(maps.Keys(entries)) {
			if keep[path] || !named(path) || (source != "" && entries[path].Source != source) {
				continue
			}
			rec, err := a.record(Key{App: app, Path: path}, Entry{})
			if err != nil {
				return nil, err
			}
			records = append(records, rec)
		}
		return records, nil
	})
}

func (a *Agreement) decree(ctx context.Context, k Key, e Entry) error {
	if err := checkPath(k.Path); err != nil {
		return err
	}
	if err := a.take(ctx); err != nil {
		return err
	}
	defer a.release()
	_, err := a.write(ctx, k.App, func() ([]*kgo.Record, error) {
		e.At = a.cfg.Now()
		var changed []Key
		for path := range a.reg.Entries(k.App) {
			within, ok := strings.CutPrefix(path, k.Path+".")
			if !ok {
				continue
			}
			first, _, _ := strings.Cut(within, ".")
			if (e.Type != Object || first == elements) && (e.Type != Array || first != elements) {
				changed = append(changed, Key{App: k.App, Path: path})
			}
		}
		if e.Type == None && a.reg.View().Type(k) == None && len(changed) == 0 {
			return nil, fmt.Errorf("%s of %s: %w", k.Path, k.App, ErrUnknownKey)
		}
		slices.SortFunc(changed, func(x, y Key) int { return strings.Compare(x.Path, y.Path) })
		first, err := a.record(k, e)
		if err != nil {
			return nil, err
		}
		records := []*kgo.Record{first}
		for _, c := range changed {
			rec, err := a.record(c, Entry{})
			if err != nil {
				return nil, err
			}
			records = append(records, rec)
		}
		return records, nil
	})
	return err
}
