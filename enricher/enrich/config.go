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
	// NewInstallation lets it begin where the state or the group's offsets are
	// gone.
	NewInstallation bool

	CommitInterval     time.Duration
	MaxRecords         int
	TransactionTimeout time.Duration
	SessionTimeout     time.Duration
	RebalanceTimeout   time.Duration
	// StallTimeout is how long records may wait without a commit until the client
	// is replaced.
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
	// PrivacyFile names the rules of what must not be kept; empty: none.
	PrivacyFile string
	// Identity bounds what is kept of users. Its Partitions are the topics'.
	Identity identity.Config

	extra      []kgo.Opt        // of every client; for tests
	watchPause time.Duration    // for tests; 0: as usual
	now        func() time.Time // for tests; nil: that of Dependencies
}

// DefaultConfig returns the settings for one instance on one machine.
func DefaultConfig() Config {
	return Config{
		Kafka:              kafka.DefaultConfig("uptake-enricher"),
		DataDir:            "data/enricher",
		Group:              topic.GroupEnricher,
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
		DedupWindow:        7 * 24 * time.Hour,
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
	set.StringVar(&c.DataDir, "data-dir", c.DataDir, "`folder` for what the instance keeps between runs; all of it can be rebuilt from the log")
	set.StringVar(&c.Group, "group", c.Group, "consumer `group` that the instances share")
	set.StringVar(&c.InstanceID, "instance-id", c.InstanceID, "`name` of this instance, unlike every other's and the same after a restart; empty keeps one in data-dir")
	set.BoolVar(&c.NewInstallation, "new-installation", c.NewInstallation, "begin anew although something began before: read raw from its start where the group has no offsets, and without the state that is gone; for one start")
	set.DurationVar(&c.CommitInterval, "commit-interval", c.CommitInterval, "how long a transaction gathers records: the greater part of the latency")
	set.IntVar(&c.MaxRecords, "max-records", c.MaxRecords, "records at which a transaction ends early")
	set.DurationVar(&c.TransactionTimeout, "transaction-timeout", c.TransactionTimeout, "when brokers abort the transaction of an instance that hangs; it holds back all readers of its partitions that long")
	set.DurationVar(&c.SessionTimeout, "session-timeout", c.SessionTimeout, "when brokers give the partitions of a silent instance to others")
	set.DurationVar(&c.RebalanceTimeout, "rebalance-timeout", c.RebalanceTimeout, "how long a rebalance waits for an instance to finish its transaction")
	set.DurationVar(&c.StallTimeout, "stall-timeout", c.StallTimeout, "how long records may wait while nothing is committed of their partition, until the client is replaced")
	set.IntVar(&c.FetchBytes, "fetch-bytes", c.FetchBytes, "`bytes` that one fetch asks a broker for")
	set.IntVar(&c.RecordBytes, "record-bytes", c.RecordBytes, "`bytes` of a raw record above which it is rejected")
	set.IntVar(&c.OutputBytes, "output-bytes", c.OutputBytes, "`bytes` of an output record above which its raw record is rejected; below max.message.bytes of the topics")
	set.StringVar(&c.PrivacyFile, "privacy-file", c.PrivacyFile, "YAML `file` of what must not be kept: docs/privacy.md; read again when it changes; empty for none")
	set.StringVar(&c.Compression, "compression", c.Compression, "of what is produced: none, snappy, lz4 or zstd")
	set.DurationVar(&c.DedupWindow, "dedup-window", c.DedupWindow, "how long a message id is remembered; at most the retention of enriched, from which it is rebuilt")
	set.Int64Var(&c.DedupCacheBytes, "dedup-cache-bytes", c.DedupCacheBytes, "`bytes` of the dedup store's blocks kept in memory")
	set.IntVar(&c.DedupRecentBytes, "dedup-recent-bytes", c.DedupRecentBytes, "`bytes` of ids that a partition gathers before they go to disk; after a crash they are read from enriched again")
	set.IntVar(&c.DedupMaxIDs, "dedup-max-ids", c.DedupMaxIDs, "message ids of a partition that are remembered at most, to bound memory: more make its window shorter; 0: as many as the window has")
	c.timingFlags(set)
	c.metadataFlags(set)
	c.identityFlags(set)
}

// timingFlags binds when an event counts.
func (c *Config) timingFlags(set *flag.FlagSet) {
	t := &c.Timing
	set.DurationVar(&t.SkewThreshold, "time-skew-threshold", t.SkewThreshold, "offset of a client's clock from which on it counts as wrong and is corrected")
	set.Var((*setting.Strings)(&t.FreshLibraries), "time-fresh-libraries", "comma-separated `names` of libraries that set sent_at anew with every attempt: a late one then says that the clock is behind")
	set.DurationVar(&t.MaxFuture, "time-max-future", t.MaxFuture, "how far an event may lie ahead of its receipt; beyond, it counts when it was received")
	set.DurationVar(&t.MaxAge, "time-max-age", t.MaxAge, "how old an event may be at its receipt; beyond, it counts when it was received")
}

// metadataFlags binds what one event may bring.
func (c *Config) metadataFlags(set *flag.FlagSet) {
	m := &c.Metadata
	set.IntVar(&m.Keys, "metadata-keys", m.Keys, "keys of one object of an event; what is beyond is kept under conflicts")
	set.IntVar(&m.Depth, "metadata-depth", m.Depth, "objects and arrays within each other")
	set.IntVar(&m.KeyBytes, "metadata-key-bytes", m.KeyBytes, "`bytes` of a key")
	set.IntVar(&m.ValueBytes, "metadata-value-bytes", m.ValueBytes, "`bytes` of a string")
	set.IntVar(&m.AppKeys, "metadata-app-keys", m.AppKeys, "different key paths of one app")
	set.IntVar(&m.SourceKeys, "metadata-source-keys", m.SourceKeys, "new key paths that one source (a network of senders) of an app may make within an hour, and no more than a quarter of those that the app has left; what is beyond is kept under conflicts")
}

// identityFlags binds what identity keeps and reads.
func (c *Config) identityFlags(set *flag.FlagSet) {
	i := &c.Identity
	set.Var((*setting.Strings)(&i.RoleTraits), "identity-role-traits", "comma-separated `traits` that hold a member's role: the first that exists counts")
	set.Var((*setting.Strings)(&i.ParentTraits), "identity-parent-traits", "comma-separated `traits` of a group call that hold the account's parent")
	set.Var((*setting.Strings)(&i.InventingLibraries), "identity-inventing-libraries", "comma-separated `beginnings` of the names, with version, of libraries that make up an anonymous id for each message: one beside a user is used from the second time on")
	set.IntVar(&i.MaxLinks, "identity-max-links", i.MaxLinks, "users that one anonymous id is remembered to have had")
	set.IntVar(&i.MaxAnonymous, "identity-max-anonymous", i.MaxAnonymous, "anonymous ids that are linked to one user")
	set.IntVar(&i.MaxMemberships, "identity-max-memberships", i.MaxMemberships, "memberships that are remembered of one user")
	set.IntVar(&i.MaxAliasDepth, "identity-max-alias-depth", i.MaxAliasDepth, "aliases that are followed from one user")
	set.IntVar(&i.MaxIDBytes, "identity-max-id-bytes", i.MaxIDBytes, "`bytes` of an id that can be linked")
	set.Int64Var(&i.MaxStateBytes, "identity-max-state-bytes", i.MaxStateBytes, "`bytes` of memory that one partition's identity state may take: nothing new is learnt beyond")
	set.Int64Var(&i.MaxRecordBytes, "identity-max-record-bytes", i.MaxRecordBytes, "`bytes` of state and outputs that one record may ask identity for; beyond, it is rejected")
	set.Int64Var(&i.MaxRecordMoves, "identity-max-record-moves", i.MaxRecordMoves, "moves of history that one record may order; beyond, it is rejected")
	set.Int64Var(&i.MaxRecordSteps, "identity-max-record-steps", i.MaxRecordSteps, "slots of tables and memberships that one record may make identity look at; beyond, it is rejected")
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
