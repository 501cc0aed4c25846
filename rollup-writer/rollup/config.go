package rollup

import (
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
)

// Config is the configuration of a writer.
type Config struct {
	boundary.Config

	// SessionTimeout is how long the group waits for a writer's heartbeat.
	// RebalanceTimeout is how long a rebalance waits for a writer to rejoin; it is also
	// how long the group waits for a writer that was killed while joining.
	SessionTimeout   time.Duration
	RebalanceTimeout time.Duration
	// QueueBytes is how many bytes of undecoded records are kept per partition before
	// its fetching is paused.
	QueueBytes int
	// MaxInserts is how many inserts may run at once.
	MaxInserts int
	// RetryMax bounds the growing pause between attempts of a block.
	RetryMax time.Duration
	// HaltRetry is the pause after an error that needs an operator.
	HaltRetry time.Duration
	// RevokeWait is how long a revoked partition may finish the insert in progress
	// before it is abandoned.
	RevokeWait time.Duration
	// StopTimeout bounds the same wait at the end of the process.
	StopTimeout time.Duration
	// StallTimeout is how long records may wait without a commit and without a reason
	// until the client is replaced.
	StallTimeout time.Duration

	watchPause time.Duration // between two looks of the watch; tests shorten it
}

// DefaultConfig is for one machine.
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
		StallTimeout:     5 * time.Minute,
		watchPause:       5 * time.Second,
	}
}

// Flags defines the settings as flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	c.Config.Flags(set)
	set.DurationVar(&c.SessionTimeout, "session-timeout", c.SessionTimeout, "after this long without a heartbeat another writer takes over the partitions")
	set.DurationVar(&c.RebalanceTimeout, "rebalance-timeout", c.RebalanceTimeout, "how long a rebalance waits for a writer to give up partitions and join again")
	set.IntVar(&c.QueueBytes, "queue-bytes", c.QueueBytes, "bytes of fetched records kept per partition before fetching of it pauses")
	set.IntVar(&c.MaxInserts, "max-inserts", c.MaxInserts, "inserts in progress at once")
	set.DurationVar(&c.RetryMax, "retry-max", c.RetryMax, "longest pause between two attempts of a block")
	set.DurationVar(&c.HaltRetry, "halt-retry", c.HaltRetry, "pause after a permanent error: schema, rights, settings")
	set.DurationVar(&c.RevokeWait, "revoke-wait", c.RevokeWait, "how long a revoked partition may finish the insert in progress")
	set.DurationVar(&c.StallTimeout, "stall-timeout", c.StallTimeout, "how long records may wait without a commit and without a reason until the client is replaced")
	set.DurationVar(&c.StopTimeout, "stop-timeout", c.StopTimeout, "how long a stopping writer waits for inserts in progress")
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
	positive("stall-timeout", c.StallTimeout)
	if c.RevokeWait < 0 || c.RevokeWait > c.SessionTimeout {
		errs = append(errs, fmt.Errorf("revoke-wait must be 0 to session-timeout (got %s)", c.RevokeWait))
	}
	return errors.Join(errs...)
}
