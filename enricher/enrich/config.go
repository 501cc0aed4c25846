package enrich

import (
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/identity"
	"github.com/uptakehq/uptake/enricher/internal/metadata"
	"github.com/uptakehq/uptake/enricher/internal/timing"
	"github.com/uptakehq/uptake/schemas/svc/kafka"
	"github.com/uptakehq/uptake/schemas/svc/registry"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Config is the enricher's settings.
type Config struct {
	Kafka    kafka.Config
	Registry registry.Config

	DataDir    string
	Group      string
	InstanceID string
	// NewInstallation allows starting without the state or the group's offsets where
	// these were lost.
	NewInstallation bool

	CommitInterval     time.Duration
	MaxRecords         int
	TransactionTimeout time.Duration
	SessionTimeout     time.Duration
	RebalanceTimeout   time.Duration
	// StallTimeout is how long records may wait without a commit until the client is
	// replaced.
	StallTimeout time.Duration

	FetchBytes  int
	RecordBytes int
	OutputBytes int
	Compression string

	DedupWindow      time.Duration
	DedupCacheBytes  int64
	DedupRecentBytes int
	DedupMaxIDs      int

	Timing   timing.Config
	Metadata metadata.Limits
	// PrivacyFile names the file of privacy rules; empty: none.
	PrivacyFile string
	// Identity bounds the state kept of users. Its Partitions are those of the topics.
	Identity identity.Config

	extra      []kgo.Opt        // options of every client, for tests
	watchPause time.Duration    // for tests; 0: as usual
	now        func() time.Time // for tests; nil: that of Dependencies
}

// DefaultConfig returns the settings for one instance on one machine.
func DefaultConfig() Config {
	return Config{
		Kafka:              kafka.DefaultConfig("uptake-enricher"),
		DataDir:            "data/enricher",
		Group:              topic.BaseGroupEnricher,
		CommitInterval:     100 * time.Millisecond,
		MaxRecords:         20_000,
		TransactionTimeout: 20 * time.Second,
		SessionTimeout:     10 * time.Second,
		RebalanceTimeout:   30 * time.Second,
		StallTimeout:       3 * time.Minute,
		FetchBytes:         16 << 20,
		RecordBytes:        1 << 20,
		OutputBytes:        4 << 20,
		Compression:        "snappy",
		DedupWindow:        topic.DedupWindow,
		DedupCacheBytes:    32 << 20,
		DedupRecentBytes:   4 << 20,
		Timing:             timing.DefaultConfig(),
		Metadata:           metadata.DefaultLimits(),
		Identity:           identity.DefaultConfig(1),
	}
}

// Flags binds the config to flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	c.Kafka.Flags(set)
	c.Registry.Flags(set)
	set.StringVar(&c.DataDir, "data-dir", c.DataDir, "`folder` for local state; all of it can be rebuilt from the log")
	set.StringVar(&c.Group, "group", c.Group, "consumer `group` that the instances share; kafka-prefix is put before it")
	set.StringVar(&c.InstanceID, "instance-id", c.InstanceID, "`name` of this instance, unique among the instances and stable across restarts; empty: a generated name kept in data-dir")
	set.BoolVar(&c.NewInstallation, "new-installation", c.NewInstallation, "start although offsets or state of an earlier installation were lost: read raw from its start where the group has no offsets, and continue without the lost state; use it for one start only")
	set.DurationVar(&c.CommitInterval, "commit-interval", c.CommitInterval, "how long a transaction gathers records; the largest part of the latency")
	set.IntVar(&c.MaxRecords, "max-records", c.MaxRecords, "number of records at which a transaction ends early")
	set.DurationVar(&c.TransactionTimeout, "transaction-timeout", c.TransactionTimeout, "after this time brokers abort the transaction of a hanging instance; until then consumers of its partitions wait")
	set.DurationVar(&c.SessionTimeout, "session-timeout", c.SessionTimeout, "after this time without a heartbeat brokers give an instance's partitions to others")
	set.DurationVar(&c.RebalanceTimeout, "rebalance-timeout", c.RebalanceTimeout, "how long a rebalance waits for an instance to finish its transaction")
	set.DurationVar(&c.StallTimeout, "stall-timeout", c.StallTimeout, "how long records may wait without a commit of their partition until the client is replaced")
	set.IntVar(&c.FetchBytes, "fetch-bytes", c.FetchBytes, "`bytes` that one fetch asks a broker for")
	set.IntVar(&c.RecordBytes, "record-bytes", c.RecordBytes, "`bytes` of a raw record above which it is rejected")
	set.IntVar(&c.OutputBytes, "output-bytes", c.OutputBytes, "`bytes` of an output record above which its raw record is rejected; below max.message.bytes of the topics")
	set.StringVar(&c.PrivacyFile, "privacy-file", c.PrivacyFile, "YAML `file` of privacy rules (docs/privacy.md); reloaded when it changes; empty for none")
	set.StringVar(&c.Compression, "compression", c.Compression, "compression of produced records: none, snappy, lz4 or zstd")
	set.DurationVar(&c.DedupWindow, "dedup-window", c.DedupWindow, "how long message ids are remembered; at most the retention of enriched, from which they are rebuilt")
	set.Int64Var(&c.DedupCacheBytes, "dedup-cache-bytes", c.DedupCacheBytes, "`bytes` of the dedup store's blocks kept in memory")
	set.IntVar(&c.DedupRecentBytes, "dedup-recent-bytes", c.DedupRecentBytes, "`bytes` of ids that a partition gathers before writing them to disk; after a crash they are read from enriched again")
	set.IntVar(&c.DedupMaxIDs, "dedup-max-ids", c.DedupMaxIDs, "largest number of message ids remembered per partition, to bound memory; more ids shorten the partition's window; 0: no bound")
	c.timingFlags(set)
	c.metadataFlags(set)
	c.identityFlags(set)
}

// timingFlags defines the settings that decide at which time an event counts.
func (c *Config) timingFlags(set *flag.FlagSet) {
	t := &c.Timing
	set.DurationVar(&t.SkewThreshold, "time-skew-threshold", t.SkewThreshold, "offset of a client's clock at or above which it is corrected")
	set.Var((*setting.Strings)(&t.FreshLibraries), "time-fresh-libraries", "comma-separated `names` of libraries that set sent_at anew with every attempt, so that a late sent_at means a clock that runs behind")
	set.DurationVar(&t.MaxFuture, "time-max-future", t.MaxFuture, "how far an event's time may lie after its receipt; an event further ahead counts at its time of receipt")
	set.DurationVar(&t.MaxAge, "time-max-age", t.MaxAge, "how old an event may be at its receipt; an older event counts at its time of receipt")
}

// metadataFlags defines the bounds on an event's keys and values.
func (c *Config) metadataFlags(set *flag.FlagSet) {
	m := &c.Metadata
	set.IntVar(&m.Keys, "metadata-keys", m.Keys, "keys per object of an event; further keys are kept under conflicts")
	set.IntVar(&m.Depth, "metadata-depth", m.Depth, "nesting depth of objects and arrays")
	set.IntVar(&m.KeyBytes, "metadata-key-bytes", m.KeyBytes, "`bytes` of a key")
	set.IntVar(&m.ValueBytes, "metadata-value-bytes", m.ValueBytes, "`bytes` of a string")
	set.IntVar(&m.AppKeys, "metadata-app-keys", m.AppKeys, "different key paths of one app")
	set.IntVar(&m.SourceKeys, "metadata-source-keys", m.SourceKeys, "new key paths per hour that one source (a network of senders) of an app may create, and no more than a quarter of those that the app has left; further ones are kept under conflicts")
}

// identityFlags defines the settings of identity: which fields it reads, and bounds on
// its state.
func (c *Config) identityFlags(set *flag.FlagSet) {
	i := &c.Identity
	set.Var((*setting.Strings)(&i.RoleTraits), "identity-role-traits", "comma-separated `traits` that hold a member's role; the first one present counts")
	set.Var((*setting.Strings)(&i.ParentTraits), "identity-parent-traits", "comma-separated `traits` of a group call that hold the account's parent")
	set.Var((*setting.Strings)(&i.InventingLibraries), "identity-inventing-libraries", "comma-separated `prefixes` of library names (with version) that generate an anonymous id for each message; such an id beside a user is used only when seen a second time")
	set.IntVar(&i.MaxLinks, "identity-max-links", i.MaxLinks, "users remembered per anonymous id")
	set.IntVar(&i.MaxAnonymous, "identity-max-anonymous", i.MaxAnonymous, "anonymous ids linked to one user")
	set.IntVar(&i.MaxMemberships, "identity-max-memberships", i.MaxMemberships, "memberships remembered per user")
	set.IntVar(&i.MaxAliasDepth, "identity-max-alias-depth", i.MaxAliasDepth, "aliases followed from one user")
	set.IntVar(&i.MaxIDBytes, "identity-max-id-bytes", i.MaxIDBytes, "`bytes` of an id that can be linked")
	set.Int64Var(&i.MaxStateBytes, "identity-max-state-bytes", i.MaxStateBytes, "`bytes` of memory of one partition's identity state; at the bound nothing new is learnt")
	set.Int64Var(&i.MaxRecordBytes, "identity-max-record-bytes", i.MaxRecordBytes, "`bytes` of identity state and outputs that one record may cause; a record above it is rejected")
	set.Int64Var(&i.MaxRecordMoves, "identity-max-record-moves", i.MaxRecordMoves, "moves that one record may order; a record above it is rejected")
	set.Int64Var(&i.MaxRecordSteps, "identity-max-record-steps", i.MaxRecordSteps, "table slots and memberships that one record may make identity look at; a record above it is rejected")
}

// Validate reports all faults.
func (c *Config) Validate() error {
	errs := []error{c.Kafka.Validate(), c.Registry.Validate()}
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(c.DataDir == "", "data-dir must be named")
	fault(c.Group == "", "group must be named")
	fault(c.CommitInterval < time.Millisecond || c.CommitInterval > 10*time.Second, "commit-interval must be 1ms to 10s (got %s)", c.CommitInterval)
	fault(c.MaxRecords < 1, "max-records must be > 0 (got %d)", c.MaxRecords)
	fault(c.TransactionTimeout < time.Second || c.TransactionTimeout > 15*time.Minute, "transaction-timeout must be 1s to 15m (got %s)", c.TransactionTimeout)
	fault(c.TransactionTimeout < 2*c.CommitInterval, "transaction-timeout must be at least twice commit-interval (got %s and %s)", c.TransactionTimeout, c.CommitInterval)
	fault(c.SessionTimeout < time.Second, "session-timeout must be at least 1s (got %s)", c.SessionTimeout)
	fault(c.RebalanceTimeout < c.SessionTimeout, "rebalance-timeout must be at least session-timeout (got %s and %s)", c.RebalanceTimeout, c.SessionTimeout)
	fault(c.StallTimeout < 3*c.TransactionTimeout, "stall-timeout must be at least three times transaction-timeout (got %s and %s)", c.StallTimeout, c.TransactionTimeout)
	fault(c.FetchBytes < 64<<10 || c.FetchBytes > 1<<30, "fetch-bytes must be 64 KiB to 1 GiB (got %d)", c.FetchBytes)
	fault(c.RecordBytes < 1<<10 || c.RecordBytes > 16<<20, "record-bytes must be 1 KiB to 16 MiB (got %d)", c.RecordBytes)
	fault(c.OutputBytes < c.RecordBytes, "output-bytes must be at least record-bytes (got %d and %d)", c.OutputBytes, c.RecordBytes)
	if _, err := compression(c.Compression); err != nil {
		errs = append(errs, err)
	}
	d := (&Service{cfg: *c}).dedupConfig()
	errs = append(errs, d.Validate(), c.Timing.Validate(), c.Metadata.Validate(), c.Identity.Validate())
	return errors.Join(errs...)
}

func compression(name string) (kgo.CompressionCodec, error) {
	switch name {
	case "none":
		return kgo.NoCompression(), nil
	case "snappy":
		return kgo.SnappyCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	}
	return kgo.NoCompression(), fmt.Errorf("compression must be none, snappy, lz4 or zstd (got %q)", name)
}
