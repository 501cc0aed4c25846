// Package repair changes the tables and the group's commits from outside the running
// writers: it creates the schema and the first commits (setup.go), rebuilds an app's
// tables (rebuild.go), stores lost counts again (recount.go), sends rejected events
// again (replay.go), and reads for the audit what the log holds beyond the tables
// (tail.go). Each is one command of rollup-writer. It does not know package rollup,
// which writes: what both must agree on is in package boundary.
package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// session is what every command here works with: its settings, connections to Kafka and
// ClickHouse, and the state of the topics. withLog opens and closes it.
type session struct {
	cfg    boundary.Config
	log    *slog.Logger
	client *kgo.Client
	names  *topic.Names
	admin  *kadm.Client
	sql    driver.Conn
	state  boundary.State
}

func withLog(ctx context.Context, cfg boundary.Config, log *slog.Logger, do func(*session) error) (err error) {
	if err := cfg.Validate(); err != nil {
		return err
	}
	has, err := clickhouse.HasDatabase(ctx, &cfg.ClickHouse)
	if err == nil && !has {
		err = tables.ErrNoSchema
	}
	if err != nil {
		return fmt.Errorf("database %s: %w", cfg.ClickHouse.Database, err)
	}
	s := &session{cfg: cfg, log: log, names: cfg.Kafka.Names()}
	if s.sql, err = clickhouse.OpenSQL(&cfg.ClickHouse); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.sql.Close()) }()
	if err := cfg.ClickHouse.Schema().Check(ctx, s.sql); err != nil {
		return err
	}
	opts, err := cfg.Kafka.Options(log, nil)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	s.client, s.admin = client, kadm.NewClient(client)
	err = settled(ctx, log, func() error {
		if _, err := s.names.Check(ctx, s.admin, boundary.Topics(s.names)...); err != nil {
			return err
		}
		s.state, err = boundary.Read(ctx, s.admin, s.names, boundary.Topics(s.names))
		return err
	})
	if err != nil {
		return err
	}
	return do(s)
}

// settleTime is how long commands wait for a cluster that is starting.
const (
	settleTime  = 30 * time.Second
	settlePause = 500 * time.Millisecond
)

// settled calls do until it succeeds, fails permanently, or settleTime is over. A
// cluster that was just started has no group coordinator yet.
func settled(ctx context.Context, log *slog.Logger, do func() error) error {
	pause := backoff.Every(settlePause)
	return pause.Retry(ctx, settleTime, do, func(err error) bool {
		if !kerr.IsRetriable(err) {
			return false
		}
		log.Info("the cluster is not ready yet", "error", err)
		return true
	})
}

// commit commits without a group member, which Kafka accepts only while the group is
// empty.
func (s *session) commit(ctx context.Context, offsets kadm.Offsets) error {
	if len(offsets) == 0 {
		return nil
	}
	err := settled(ctx, s.log, func() error {
		resp, err := s.admin.CommitOffsets(ctx, s.names.GroupRollupWriter, offsets)
		if err != nil {
			return err
		}
		return resp.Error()
	})
	switch {
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.RebalanceInProgress), errors.Is(err, kerr.IllegalGeneration):
		return fmt.Errorf("group %s has running writers: stop them first: %w", s.names.GroupRollupWriter, err)
	case err != nil:
		return fmt.Errorf("commit first offsets of group %s: %w", s.names.GroupRollupWriter, err)
	}
	return nil
}

// silentFor is how long the brokers may give no answer before reading fails.
const silentFor = 30 * time.Second

// partitions reads the log one partition after the other.
func partitions(client *kgo.Client) *reader.Reader {
	r := reader.On(client)
	r.Silence, r.FetchBytes = silentFor, 8<<20
	return r
}
