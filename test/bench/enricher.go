package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// applyCatalog puts the catalog of the run in force for an app.
func (r *runner) applyCatalog(ctx context.Context, l *log, dir, app string) error {
	file := filepath.Join(dir, "catalog.yaml")
	if err := os.WriteFile(file, catalogText(r.cfg), 0o600); err != nil {
		return err
	}
	return r.applyCatalogFile(ctx, l, dir, app, file)
}

// applyCatalogFile puts the catalog of a file in force for an app.
func (r *runner) applyCatalogFile(ctx context.Context, l *log, dir, app, file string) error {
	p, err := r.service(ctx, stack.Enricher, dir, "catalog", "apply", "-app", app, "-author", "bench", "-reason", "measure", "-kafka-brokers", l.brokers(), file)
	if err != nil {
		return err
	}
	<-p.done
	if p.err != nil {
		text, _ := os.ReadFile(p.log) // the error says where it is
		return fmt.Errorf("catalog apply: %w: %s", p.err, text)
	}
	return nil
}

// rawRecords fills raw with events from first on.
func (l *log) rawRecords(ctx context.Context, cfg Config, first int64, n int) error {
	codec := event.NewCodec()
	now := time.Now()
	return l.fill(ctx, n, func(i int) *kgo.Record {
		e := anyEvent(first+int64(i), now, cfg)
		return l.rawRecord(codec, &e, now)
	})
}

func (l *log) rawRecord(codec *event.Codec, e *event.RawEvent, now time.Time) *kgo.Record {
	key := topic.RawKey(nil, e.AppID, e.UserID, e.AnonymousID, e.AccountID)
	return &kgo.Record{Topic: topic.Unprefixed.Raw, Partition: topic.Partition(key, l.partitions), Key: key, Value: codec.AppendRaw(nil, e), Timestamp: now}
}

// warmEvents go through the enricher before the first round.
const warmEvents = 20_000

func enricher(ctx context.Context, r *runner) (_ *load, err error) {
	var c closers
	defer c.failed(ctx, &err)
	l, err := c.log(ctx, r)
	if err != nil {
		return nil, err
	}
	dir, err := r.dir("enricher")
	if err != nil {
		return nil, err
	}
	if err := r.applyCatalog(ctx, l, dir, benchApp); err != nil {
		return nil, err
	}
	if err := l.known(ctx, r.cfg.KnownIDs); err != nil {
		return nil, fmt.Errorf("make known message ids: %w", err)
	}
	binary, err := stack.Binary(ctx, stack.Enricher, stack.Build{})
	if err != nil {
		return nil, err
	}
	p, err := c.serveEnv(ctx, stack.Enricher, dir, r.cfg.enricherEnv, binary,
		append([]string{"-kafka-brokers", l.brokers(), "-data-dir", filepath.Join(dir, "data")}, r.cfg.enricherArgs...)...)
	if err != nil {
		return nil, err
	}
	run := func(ctx context.Context, fill func() error) error {
		if err := fill(); err != nil {
			return err
		}
		return p.await(ctx, "the enricher", func() (bool, error) { return l.enriched(ctx) })
	}
	if err := run(ctx, func() error { return l.identities(ctx, r.cfg) }); err != nil {
		return nil, fmt.Errorf("make known identities: %w", err)
	}
	if err := run(ctx, func() error {
		return l.rawRecords(ctx, r.cfg, nextID.Add(warmEvents)-warmEvents, warmEvents)
	}); err != nil {
		return nil, fmt.Errorf("warm up: %w", err)
	}
	round := func(ctx context.Context) (Sample, error) {
		n := r.cfg.EnricherEvents
		before, err := l.committed(ctx, topic.Unprefixed.Enriched)
		if err != nil {
			return Sample{}, err
		}
		sp, err := p.span()
		if err != nil {
			return Sample{}, err
		}
		if err := run(ctx, func() error { return l.rawRecords(ctx, r.cfg, nextID.Add(int64(n))-int64(n), n) }); err != nil {
			return Sample{}, err
		}
		s, err := sp.stop(n)
		if err != nil {
			return Sample{}, err
		}
		after, err := l.committed(ctx, topic.Unprefixed.Enriched) // markers count too
		if err == nil && after-before < int64(n) {
			err = fmt.Errorf("enriched grew by %d of %d events", after-before, n)
		}
		return s, err
	}
	return &load{round: round, close: c.close, pprofs: map[string]string{"enricher": p.metrics}}, nil
}

// known fills enriched with events whose ids the dedup store has to know.
func (l *log) known(ctx context.Context, n int) error {
	codec := event.NewCodec()
	now := time.Now()
	return l.fill(ctx, n, func(i int) *kgo.Record {
		e := event.EnrichedEvent{
			AppID: benchApp, Kind: event.KindTrack, MessageID: fmt.Sprintf("known-%012d", i), ActorID: "u", ActorKind: event.ActorUser,
			EventTime: now.UnixMicro(), ReceivedAt: now.UnixMicro(), Quantity: 1, RawOffset: int64(i),
		}
		return &kgo.Record{Topic: topic.Unprefixed.Enriched, Partition: int32(i) % l.partitions, Value: codec.AppendEnriched(nil, &e)}
	})
}

// identities fills raw with an identify call of each known user, which ties the
// user's anonymous id to it.
func (l *log) identities(ctx context.Context, cfg Config) error {
	codec := event.NewCodec()
	now := time.Now()
	first := nextID.Add(int64(cfg.KnownIdentities)) - int64(cfg.KnownIdentities)
	return l.fill(ctx, cfg.KnownIdentities, func(i int) *kgo.Record {
		e := rawEvent(first+int64(i), int64(i), nil, now, cfg)
		e.Kind, e.Event = event.KindIdentify, ""
		e.AnonymousID, e.AccountID = anonymousOf(int64(i), cfg), ""
		return l.rawRecord(codec, &e, now)
	})
}

// enricherFloor consumes the same records and produces them again.
func enricherFloor(ctx context.Context, r *runner) (_ *load, err error) {
	var c closers
	defer c.failed(ctx, &err)
	l, err := c.log(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := l.rawRecords(ctx, r.cfg, 0, r.cfg.EnricherEvents); err != nil {
		return nil, err
	}
	job := floorJob{Kind: "copy", Brokers: l.Addrs(), Topic: topic.Unprefixed.Raw, To: topic.Unprefixed.Enriched, Partitions: l.partitions, Events: r.cfg.EnricherEvents}
	return &load{round: func(ctx context.Context) (Sample, error) { return r.floor(ctx, job) }, close: c.close}, nil
}
