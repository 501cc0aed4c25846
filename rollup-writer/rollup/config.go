package rollup

import (
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
)

// Config is all that a writer is told.
type Config struct {
	boundary.Config

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
	// HaltRetry is the pause after an error that someone has to repair.
	HaltRetry time.Duration
	// RevokeWait is how long a partition that is taken away may finish what is
	// under way; then it is let go.
	RevokeWait time.Duration
	// StopTimeout bounds the same at the end of the process.
	StopTimeout time.Duration
}

// DefaultConfig serves one machine.
func DefaultConfig() Config {
	return Config{
		Config:           boundary.DefaultConfig(),
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
	c.Config.Flags(set)
	set.DurationVar(&c.SessionTimeout, "session-timeout", c.SessionTimeout, "after this long without a sign of life another writer takes over the partitions")
	set.DurationVar(&c.RebalanceTimeout, "rebalance-timeout", c.RebalanceTimeout, "how long a rebalance waits for a writer to give up partitions and join again")
	set.IntVar(&c.QueueBytes, "queue-bytes", c.QueueBytes, "bytes of fetched records kept per partition before fetching of it pauses")
	set.IntVar(&c.MaxInserts, "max-inserts", c.MaxInserts, "inserts under way at once")
	set.DurationVar(&c.RetryMax, "retry-max", c.RetryMax, "longest pause between two attempts of a block")
	set.DurationVar(&c.HaltRetry, "halt-retry", c.HaltRetry, "pause after a permanent error: schema, rights, settings")
	set.DurationVar(&c.RevokeWait, "revoke-wait", c.RevokeWait, "how long a partition that is taken away may finish the insert that is under way")
	set.DurationVar(&c.StopTimeout, "stop-timeout", c.StopTimeout, "how long a stopping writer waits for inserts that are under way")
}

// Validate reports all faults, each with the setting's name.
func (c *Config) Validate() error {
	errs := []error{c.Config.Validate()}
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
	return errors.Join(errs...)
}
