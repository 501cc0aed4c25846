package enrich

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// A version of an app's catalog comes into force at one point of each partition: at the
// start of the partition's first transaction after the version was read. In that
// transaction the partition writes the version's moves of history to enriched as
// control records, and the version's number to enricher-state. So each partition
// applies each version's moves exactly once, including those of versions that appeared
// while no instance served it, and a reader of the partition's log can tell which
// version mapped which event. An aborted transaction leaves nothing behind; the next
// one may bring a later version into force, with the moves of all versions up to it, in
// order.

// appCatalog is the newest catalog of an app.
type appCatalog struct {
	number  int64
	matcher *catalog.Matcher
	// versions are all versions in the topic, by number.
	versions map[int64]*catalog.Version
}

// snapshot holds the catalog of every app. It is immutable.
type snapshot map[string]*appCatalog

// catalogs follows the catalog topic.
type catalogs struct {
	svc   *Service
	now   atomic.Pointer[snapshot]
	ready chan struct{} // closed when the topic was read to its end once
}

func newCatalogs(s *Service) *catalogs {
	c := &catalogs{svc: s, ready: make(chan struct{})}
	c.now.Store(&snapshot{})
	return c
}

func (c *catalogs) current() *snapshot { return c.now.Load() }

// follow follows the topic until ctx ends.
func (c *catalogs) follow(ctx context.Context) error {
	opts, err := c.svc.clientOptions("catalog", nil)
	if err != nil {
		return err
	}
	r, err := reader.New(opts...)
	if err != nil {
		return err
	}
	defer r.Close()
	// Until the topic was read once, versions are gathered and then put in force
	// together: no event may be mapped with an older version first.
	gathered, caughtUp := snapshot{}, false
	for app, a := range *c.current() {
		gathered[app] = a
	}
	apply := func(rec *kgo.Record) error {
		c.take(gathered, rec)
		if caughtUp {
			c.publish(gathered)
		}
		return nil
	}
	return r.Follow(ctx, c.svc.names.Catalog, 0, apply, func() {
		caughtUp = true
		c.publish(gathered)
		select {
		case <-c.ready:
		default:
			close(c.ready)
		}
	})
}

// take adds the version in a record. If it cannot be read, it is logged and the
// previous version stays in force.
func (c *catalogs) take(into snapshot, rec *kgo.Record) {
	v, err := catalog.Decode(rec.Value)
	if err != nil {
		c.svc.metrics.catalogErrors.Inc()
		c.svc.log.Error("catalog version cannot be read; the previous version stays in force", "offset", rec.Offset, "error", err)
		return
	}
	a := &appCatalog{versions: map[int64]*catalog.Version{}}
	if old := into[v.App]; old != nil {
		*a = appCatalog{number: old.number, matcher: old.matcher, versions: map[int64]*catalog.Version{}}
		for n, o := range old.versions {
			a.versions[n] = o
		}
	}
	a.versions[v.Number] = v
	if v.Number >= a.number {
		a.number, a.matcher = v.Number, catalog.Compile(v.Catalog)
	}
	into[v.App] = a
	c.svc.log.Info("catalog version read", "app", v.App, "version", v.Number, "author", v.Author, "features", a.matcher.Features())
}

// publish puts a copy of the gathered versions in force.
func (c *catalogs) publish(gathered snapshot) {
	s := make(snapshot, len(gathered))
	for app, a := range gathered {
		s[app] = a
	}
	c.now.Store(&s)
	c.svc.metrics.catalogs(s)
}

// keyCatalog is the kind of the keys of catalog versions in enricher-state; the
// other kinds are identity's.
const keyCatalog = 'v'

// stateCatalog is the kind of such a record: AppID and Version identify the version in
// force in the partition.
const stateCatalog = "catalog"

func catalogStateKey(app string) []byte {
	return append([]byte(app), 0, keyCatalog)
}

// catalogStateApp returns the app that a key of a catalog version names.
func catalogStateApp(key []byte) (string, bool) {
	app, rest, ok := bytes.Cut(key, []byte{0})
	if !ok || len(rest) != 1 || rest[0] != keyCatalog {
		return "", false
	}
	return string(app), true
}

// applyCatalogState applies a record of enricher-state about an app.
func (w *worker) applyCatalogState(app string, value []byte) error {
	if value == nil {
		delete(w.part.catalogs, app)
		return nil
	}
	var rec event.IdentityState
	if err := w.n.svc.codec.DecodeIdentityState(value, &rec); err != nil {
		return fmt.Errorf("catalog version of %s: %w", app, err)
	}
	w.part.catalogs[app] = rec.Version
	return nil
}

// settleCatalogs notes in the session that the newest versions are already in force, if
// they are.
func (w *worker) settleCatalogs() {
	now := w.n.svc.catalogs.current()
	for app, c := range *now {
		if c.number > w.part.catalogs[app] {
			return
		}
	}
	w.inForce.Store(now)
}

// swapCatalogs brings newer versions into force, as the first action of a partition in
// a transaction.
func (w *worker) swapCatalogs() error {
	if w.inForce.Load() == w.catalogs {
		return nil
	}
	for _, app := range slices.Sorted(maps.Keys(*w.catalogs)) {
		c := (*w.catalogs)[app]
		had := w.part.catalogs[app]
		if c.number <= had {
			continue
		}
		for _, number := range slices.Sorted(maps.Keys(c.versions)) {
			if number <= had || number > c.number {
				continue
			}
			if err := w.moveHistory(c.versions[number]); err != nil {
				return err
			}
		}
		rec := event.IdentityState{Kind: stateCatalog, AppID: app, Version: c.number, RawPartition: -1, RawOffset: -1}
		w.emit(w.n.svc.names.EnricherState, w.id, catalogStateKey(app), w.out.keep(w.out.codec.AppendIdentityState(w.out.room(256), &rec)))
		w.swapped[app] = c.number
	}
	return nil
}

// moveHistory writes the control record that moves what was counted before a version.
func (w *worker) moveHistory(v *catalog.Version) error {
	for i, moves := range v.Moves() {
		payload, err := moves.Payload()
		if err != nil {
			return fmt.Errorf("catalog version %d of %s: %w", v.Number, v.App, err)
		}
		c := event.Control{
			Kind:  event.ControlMove,
			AppID: v.App,
			// The id is the same in every partition and after every abort; records of
			// different partitions are distinguished by the partition.
			ControlID: fmt.Sprintf("catalog-%s-%d-%d", v.App, v.Number, i),
			CreatedAt: event.FromTime(v.AppliedAt),
			Payload:   payload,
		}
		w.emit(w.n.svc.names.Enriched, w.id, []byte(v.App), w.out.keep(w.out.codec.AppendControl(w.out.room(len(payload)+256), &c)))
	}
	return nil
}
