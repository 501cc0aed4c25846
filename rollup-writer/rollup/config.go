package rollup

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/kafka"
	"github.com/uptakehq/uptake/schemas/svc/registry"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// Config is all that a writer is told.
type Config struct {
	Kafka      kafka.Config
	Registry   registry.Config
	ClickHouse clickhouse.Config

	// BlockRecords (N) and BlockInterval (T) belong to the topics: Init writes
	// them down, and a writer with others refuses to serve.
	BlockRecords  int64
	BlockInterval time.Duration

	// SessionTimeout is how long the group waits for a sign of life of a writer,
	// RebalanceTimeout for it to join again when others come or go. One that is
	// killed while it joins is waited for as long as the latter.
	SessionTimeout   time.Duration
	RebalanceTimeout time.Duration
	// QueueBytes of records are kept undecoded per partition before fetching of
	// it pauses.
	QueueBytes int
	// MaxInserts are under way at once.
	MaxInserts int
	// RetryMax bounds the growing pause between attempts of a block.
	RetryMax time.Duration
	// HaltRetry is the pause after an error that someone has to mend.
	HaltRetry time.Duration
	// RevokeWait is how long a partition that is taken away may finish what is
	// under way; then it is let go.
	RevokeWait time.Duration
	// StopTimeout bounds the same at the end of the process.
	StopTimeout time.Duration
	// SkipRecords are topic/partition@offset of records that no release can
	// decode; each counts as if it were not there.
	SkipRecords setting.Strings
}

// DefaultConfig serves one machine.
func DefaultConfig() Config {
	return Config{
		Kafka:            kafka.DefaultConfig("rollup-writer"),
		ClickHouse:       clickhouse.DefaultConfig(),
		BlockRecords:     50_000,
		BlockInterval:    time.Second,
		SessionTimeout:   15 * time.Second,
		RebalanceTimeout: 20 * time.Second,
		QueueBytes:       8 << 20,
		MaxInserts:       4,
		RetryMax:         5 * time.Second,
		HaltRetry:        time.Minute,
		RevokeWait:       5 * time.Second,
		StopTimeout:      30 * time.Second,
	}
}

// Flags binds the config to flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	c.Kafka.Flags(set)
	c.Registry.Flags(set)
	c.ClickHouse.Flags(set)
	set.Int64Var(&c.BlockRecords, "block-records", c.BlockRecords, "a block of rows never reaches over a multiple of this many offsets; fixed for the life of the topics")
	set.DurationVar(&c.BlockInterval, "block-interval", c.BlockInterval, "a block of rows never reaches over a multiple of this in append time; fixed for the life of the topics")
	set.DurationVar(&c.SessionTimeout, "session-timeout", c.SessionTimeout, "after this long without a sign of life another writer takes over the partitions")
	set.DurationVar(&c.RebalanceTimeout, "rebalance-timeout", c.RebalanceTimeout, "how long a rebalance waits for a writer to let go of partitions and join again")
	set.IntVar(&c.QueueBytes, "queue-bytes", c.QueueBytes, "bytes of fetched records kept per partition before fetching of it pauses")
	set.IntVar(&c.MaxInserts, "max-inserts", c.MaxInserts, "inserts under way at once")
	set.DurationVar(&c.RetryMax, "retry-max", c.RetryMax, "longest pause between two attempts of a block")
	set.DurationVar(&c.HaltRetry, "halt-retry", c.HaltRetry, "pause after an error that someone has to mend: schema, rights, settings")
	set.DurationVar(&c.RevokeWait, "revoke-wait", c.RevokeWait, "how long a partition that is taken away may finish the insert that is under way")
	set.DurationVar(&c.StopTimeout, "stop-timeout", c.StopTimeout, "how long a stopping writer waits for inserts that are under way")
	set.Var(&c.SkipRecords, "skip-records", "comma-separated `topic/partition@offset` of records that cannot be decoded and shall count as not there; the same on all writers")
}

func (c *Config) shape() block.Shape {
	return block.Shape{Records: c.BlockRecords, Interval: c.BlockInterval}
}

// Validate reports all faults, each with the setting's name.
func (c *Config) Validate() error {
	errs := []error{c.Kafka.Validate(), c.Registry.Validate(), c.ClickHouse.Validate(), c.shape().Validate()}
	positive := func(name string, d time.Duration) {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("%s must be > 0 (got %s)", name, d))
		}
	}
	if c.SessionTimeout < time.Second || c.SessionTimeout > 30*time.Minute {
		errs = append(errs, fmt.Errorf("session-timeout must be 1s to 30m (got %s)", c.SessionTimeout))
	}
	if c.RebalanceTimeout < c.SessionTimeout || c.RebalanceTimeout > 30*time.Minute {
		errs = append(errs, fmt.Errorf("rebalance-timeout must be session-timeout to 30m (got %s)", c.RebalanceTimeout))
	}
	if c.QueueBytes < 1<<16 {
		errs = append(errs, fmt.Errorf("queue-bytes must be at least 64 KiB (got %d)", c.QueueBytes))
	}
	if c.MaxInserts < 1 || c.MaxInserts > 1000 {
		errs = append(errs, fmt.Errorf("max-inserts must be 1 to 1000 (got %d)", c.MaxInserts))
	}
	positive("retry-max", c.RetryMax)
	positive("halt-retry", c.HaltRetry)
	positive("stop-timeout", c.StopTimeout)
	if c.RevokeWait < 0 || c.RevokeWait > c.SessionTimeout {
		errs = append(errs, fmt.Errorf("revoke-wait must be 0 to session-timeout (got %s)", c.RevokeWait))
	}
	if _, err := parseSkips(c.SkipRecords); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// place is a record's place in the log.
type place struct {
	topic     string
	partition int32
	offset    int64
}

func parseSkips(list []string) (map[place]bool, error) {
	skips := map[place]bool{}
	for _, s := range list {
		path, offset, ok1 := strings.Cut(s, "@")
		topic, partition, ok2 := strings.Cut(path, "/")
		p, err1 := strconv.ParseInt(partition, 10, 32)
		o, err2 := strconv.ParseInt(offset, 10, 64)
		if !ok1 || !ok2 || topic == "" || err1 != nil || err2 != nil || p < 0 || o < 0 {
			return nil, fmt.Errorf("skip-records must be topic/partition@offset (got %q)", s)
		}
		skips[place{topic, int32(p), o}] = true
	}
	return skips, nil
}
