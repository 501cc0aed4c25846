package enrich

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/replay"
	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/topic"
)

// appCatalog is the catalog of an app that is in force.
type appCatalog struct {
	number  int64
	matcher *catalog.Matcher
	// versions are all that the topic holds, by number.
	versions map[int64]*catalog.Version
}

// snapshot is the catalog of every app. It is never changed.
type snapshot map[string]*appCatalog

// catalogs follows the catalog topic.
type catalogs struct {
	svc   *Service
	now   atomic.Pointer[snapshot]
	ready chan struct{} // closed when the topic was read once
}

func newCatalogs(s *Service) *catalogs {
	c := &catalogs{svc: s, ready: make(chan struct{})}
	c.now.Store(&snapshot{})
	return c
}

func (c *catalogs) current() snapshot { return *c.now.Load() }

// wait waits until the topic was read to its end once.
func (c *catalogs) wait(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run follows the topic until ctx ends.
func (c *catalogs) run(ctx context.Context) {
	backoff := backoff{min: 100 * time.Millisecond, max: 10 * time.Second}
	for {
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		c.svc.health.failed(fmt.Errorf("catalog topic cannot be read: %w", err))
		c.svc.log.Warn("catalog topic cannot be read", "error", err)
		if sleep(ctx, backoff.next()) != nil {
			return
		}
	}
}

func (c *catalogs) follow(ctx context.Context) error {
	opts, err := c.svc.clientOptions("catalog", nil)
	if err != nil {
		return err
	}
	r, err := replay.New(opts...)
	if err != nil {
		return err
	}
	defer r.Close()
	// Until the topic was read once, versions are gathered and then put in force
	// together: an event must not be mapped with a version that is not in force.
	gathered, caughtUp := snapshot{}, false
	for app, a := range c.current() {
		gathered[app] = a
	}
	apply := func(rec *kgo.Record) error {
		c.take(gathered, rec)
		if caughtUp {
			c.publish(gathered)
		}
		return nil
	}
	return r.Follow(ctx, topic.Catalog, 0, apply, func() {
		caughtUp = true
		c.publish(gathered)
		select {
		case <-c.ready:
		default:
			close(c.ready)
		}
	})
}

// take adds the version that a record holds. One that cannot be read leaves the
// version before it in force, and says so.
func (c *catalogs) take(into snapshot, rec *kgo.Record) {
	v, err := catalog.Decode(rec.Value)
	if err != nil {
		c.svc.metrics.catalogErrors.Inc()
		c.svc.log.Error("catalog version cannot be read, the one before it stays in force", "offset", rec.Offset, "error", err)
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

// publish puts a copy of what was gathered in force.
func (c *catalogs) publish(gathered snapshot) {
	s := make(snapshot, len(gathered))
	for app, a := range gathered {
		s[app] = a
	}
	c.now.Store(&s)
	c.svc.metrics.catalogs(s)
}
