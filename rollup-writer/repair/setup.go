package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/erase"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// Migrate brings both databases to the schema of this release. It may be run at any
// time, also after it was interrupted.
func Migrate(ctx context.Context, cfg boundary.Config, log *slog.Logger) (err error) {
	if err := cfg.ClickHouse.Validate(); err != nil {
		return err
	}
	schema := cfg.ClickHouse.Schema()
	root, err := clickhouse.OpenServer(&cfg.ClickHouse)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	var version string
	if err := root.QueryRow(ctx, "SELECT version()").Scan(&version); err != nil {
		return fmt.Errorf("ask ClickHouse for its version: %w", err)
	}
	if _, err := clickhouse.CheckVersion(version, schema.Form.Cluster != ""); err != nil {
		return err
	}
	applied, err := schema.Apply(ctx, root)
	for _, name := range applied {
		log.Debug("migration or view applied", "name", name)
	}
	if err != nil {
		return fmt.Errorf("migrate database %s: %w", cfg.ClickHouse.Database, err)
	}
	if _, err := schema.Windows(ctx, root); err != nil {
		return err
	}
	log.Info("schema is up to date", "database", schema.Database, "form", schema.Form.String(), "applied", len(applied))
	return nil
}

// Roles creates or updates the roles, row policies, limits and users of rights, on
// a server with SQL access management. It may be run at any time, also before the
// schema exists.
func Roles(ctx context.Context, cfg *clickhouse.Config, rights *tables.Rights, log *slog.Logger) (err error) {
	root, err := clickhouse.OpenServer(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := rights.Apply(ctx, root); err != nil {
		var exception *clickhousego.Exception
		if errors.As(err, &exception) && (exception.Code == noAccessStorage || exception.Code == accessDenied) {
			return fmt.Errorf("%w: log in as a user that may manage access; if the server keeps users in files only, print them with `-roles-print xml` and put them into its folder users.d", err)
		}
		return err
	}
	open, err := rights.Unprotected(ctx, root, rights.Name(tables.Analyst))
	if err != nil {
		return err
	}
	if len(open) > 0 {
		log.Warn("names without a row policy; analysts have no grant on them", "database", rights.Schema.Database, "names", open)
	}
	log.Info("roles are up to date", "database", rights.Schema.Database, "apps", len(rights.Apps), "users", len(rights.Users))
	return nil
}

const (
	// noAccessStorage is ACCESS_STORAGE_FOR_INSERTION_NOT_FOUND: the server has no
	// place for what SQL says about access.
	noAccessStorage = 514
	accessDenied    = 497
)

// Init commits the start offsets of a new installation. It does so for a partition only
// when that cannot lose or double anything: the group has no commit for it, the log
// begins at 0, and ClickHouse holds no row of it. Partitions that have a commit of this
// writer are left unchanged, so that Init may be run again at any time. Commits of a
// release that cut blocks by another rule are taken over if they show that no block is
// open.
//
// It refuses a Kafka that was made anew beside a ClickHouse that knows identities, as Reset
// does, unless withoutIdentities.
func Init(ctx context.Context, cfg boundary.Config, withoutIdentities bool, log *slog.Logger) error {
	return withLog(ctx, cfg, log, func(s *session) error {
		if err := s.identities(ctx, withoutIdentities); err != nil {
			return err
		}
		return s.begin(ctx)
	})
}

// identities returns an error if nothing of these topics was ever written, ClickHouse knows
// identities, and identity state knows none: then Kafka is another one than that which
// ClickHouse was written from, and events would count for others than before.
func (s *session) identities(ctx context.Context, without bool) error {
	for _, name := range boundary.Topics(s.names) {
		for _, n := range s.state.Topics[name].Partitions.Numbers() {
			c, ok := s.state.Commits.Lookup(name, n)
			if !ok || c.At < 0 {
				continue
			}
			if commit, err := block.ParseCommit(c.Metadata); err != nil || commit.TopicID == s.state.Topics[name].ID.String() {
				return nil //nolint:nilerr // a commit of another release, which is of these topics
			}
		}
	}
	for _, name := range boundary.Topics(s.names) {
		newest, err := boundary.Newest(ctx, s.sql, s.cfg.ClickHouse.Schema(), s.names, name, s.state.Topics[name].ID.String(), true)
		if err != nil || len(newest) > 0 {
			return err // rows of these topics: only the group's offsets were lost
		}
	}
	var facts uint64
	if err := s.sql.QueryRow(ctx, "SELECT count() FROM (SELECT 1 FROM "+s.cfg.ClickHouse.Schema().Table("identity_facts")+" LIMIT 1)").Scan(&facts); err != nil {
		return fmt.Errorf("look for identities: %w", err)
	}
	if facts == 0 {
		return nil
	}
	has, err := erase.HasIdentities(ctx, s.client, s.names)
	if err != nil || has {
		return err
	}
	if without {
		s.log.Warn("identity state holds no identity and ClickHouse does: links and memberships are learnt again as clients send them", "topic", s.names.EnricherState)
		return nil
	}
	return fmt.Errorf("ClickHouse knows identities and %s none, so Kafka was made anew: events would count for others than before, and persons who were erased would be written again. "+
		"Put the topic back with `enricher state import`, or accept that links and memberships are learnt again, and erasures are not known: -without-identities; see docs/recovery.md", s.names.EnricherState)
}

// Reset commits new start offsets where the existing commits cannot be used: after the
// newest row of each partition in events or rejected_events, or at the log's start
// where that is later. All writers must be stopped. It reports what it sets. Rows that
// unfinished blocks left in some tables only are for Rebuild.
func Reset(ctx context.Context, cfg boundary.Config, withoutIdentities bool, log *slog.Logger) error {
	return withLog(ctx, cfg, log, func(s *session) error {
		if err := s.identities(ctx, withoutIdentities); err != nil {
			return err
		}
		return s.reset(ctx)
	})
}

// each calls do for every partition, in order.
func (s *session) each(ctx context.Context, do func(name string, number int32, newest int64, has bool) error) error {
	var errs []error
	for _, name := range boundary.Topics(s.names) {
		newest, err := boundary.Newest(ctx, s.sql, s.cfg.ClickHouse.Schema(), s.names, name, s.state.Topics[name].ID.String(), true)
		if err != nil {
			return err
		}
		var numbers []int32
		for n := range s.state.Topics[name].Partitions {
			numbers = append(numbers, n)
		}
		sort.Slice(numbers, func(a, b int) bool { return numbers[a] < numbers[b] })
		for _, n := range numbers {
			o, has := newest[n]
			errs = append(errs, do(name, n, o, has))
		}
	}
	return errors.Join(errs...)
}

func (s *session) begin(ctx context.Context) error {
	var offsets kadm.Offsets
	kept := 0
	err := s.each(ctx, func(name string, n int32, newest int64, has bool) error {
		if c, ok := s.state.Commits.Lookup(name, n); ok && c.At >= 0 {
			if commit, err := block.TakeOver(c.Metadata); err == nil && commit.Shape == s.cfg.Shape() && commit.TopicID == s.state.Topics[name].ID.String() {
				s.log.Info("taking over a commit of an earlier block rule", "topic", name, "partition", n, "boundary", c.At)
				s.add(&offsets, name, n, c.At, commit.Generation, 0)
				return nil
			}
			if st := s.state.Start(s.cfg.Shape(), name, n); st.Refused != nil {
				return st.Refused
			}
			kept++
			return nil
		}
		if first, ok := s.state.First.Lookup(name, n); !ok || first.Offset != 0 {
			return fmt.Errorf("%s/%d has no commit and its log begins at %d, not at 0: this is no new installation; see `rollup-writer init -reset`", name, n, first.Offset)
		}
		if has {
			return fmt.Errorf("%s/%d has no commit, but %s holds rows of it up to offset %d: the group's offsets were lost; see `rollup-writer init -reset`", name, n, boundary.Table(s.names, name), newest)
		}
		s.add(&offsets, name, n, 0, 0, 0)
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.commit(ctx, offsets); err != nil {
		return err
	}
	s.log.Info("start offsets committed", "begun", len(offsets.Sorted()), "kept", kept, "group", s.names.GroupRollupWriter)
	return nil
}

func (s *session) reset(ctx context.Context) error {
	var offsets kadm.Offsets
	err := s.each(ctx, func(name string, n int32, newest int64, has bool) error {
		first, ok := s.state.First.Lookup(name, n)
		if !ok {
			return fmt.Errorf("%s/%d is not in the cluster", name, n)
		}
		at := first.Offset
		if has {
			at = max(at, newest+1)
		}
		before, generation := int64(-1), unknownGeneration()
		if c, ok := s.state.Commits.Lookup(name, n); ok {
			before = c.At
			if commit, err := block.ParseCommit(c.Metadata); err == nil {
				generation = commit.Generation + 1
			}
		}
		s.log.Warn("boundary set", "topic", name, "partition", n, "from", before, "to", at, "newest_in_clickhouse", newest, "log_start", first.Offset)
		replay := int64(0)
		if end, ok := s.state.End.Lookup(name, n); ok && at < end.Offset {
			replay = end.Offset
		}
		s.add(&offsets, name, n, at, generation, replay)
		return nil
	})
	if err != nil {
		return err
	}
	return s.commit(ctx, offsets)
}

// unknownGeneration is higher than any generation that a lost commit may have had:
// generations are counted up one by one from 0, or from a value like this one.
func unknownGeneration() uint32 { return uint32(time.Now().Unix()) }

func (s *session) add(offsets *kadm.Offsets, name string, n int32, at int64, generation uint32, replay int64) {
	offsets.Add(kadm.Offset{
		Topic: name, Partition: n, At: at, LeaderEpoch: -1,
		Metadata: block.Commit{Shape: s.cfg.Shape(), TopicID: s.state.Topics[name].ID.String(), Generation: generation, Clean: true, Replay: replay}.Metadata(),
	})
}
