// Package topic names the topics between the services and says how each is
// made, keyed and checked.
//
// It owns names (with the schema major), partition counts, topic settings, the
// mapping of a key to a partition, and the check that what a cluster has is
// what the services rely on. Nobody else writes a topic's name: every name begins
// with the prefix of its installation and comes from a Names.
package topic

import (
	"fmt"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Settings of topics that the services check.
const (
	configCleanup       = "cleanup.policy"
	configRetention     = "retention.ms"
	configMinInsync     = "min.insync.replicas"
	configTimestampType = "message.timestamp.type"
	configMaxMessage    = "max.message.bytes"
	configSegment       = "segment.ms"

	appendTime = "LogAppendTime"
	createTime = "CreateTime"
	compact    = "compact"
	deletes    = "delete"
)

// Layout is what differs from one installation to another: all of it is fixed
// when the topics are made.
type Layout struct {
	// Partitions of raw, links, enriched and enricher-state, which share their
	// numbering.
	Partitions int32
	// RejectedPartitions of rejected.
	RejectedPartitions int32
	// Replication is the number of replicas; -1 leaves it to the brokers.
	Replication int16
	// MinInsync is how many replicas must have a record before it is acked.
	MinInsync int
	// MaxMessageBytes bounds a batch of records.
	MaxMessageBytes int
}

// DefaultLayout is for a cluster of three brokers.
func DefaultLayout() Layout {
	return Layout{Partitions: 12, RejectedPartitions: 3, Replication: 3, MinInsync: 2, MaxMessageBytes: 8 << 20}
}

// SingleLayout is for one broker on one machine.
func SingleLayout() Layout {
	return Layout{Partitions: 4, RejectedPartitions: 1, Replication: 1, MinInsync: 1, MaxMessageBytes: 8 << 20}
}

// Validate reports what is wrong with the layout.
func (l Layout) Validate() error {
	switch {
	case l.Partitions < 1 || l.Partitions > 10_000:
		return fmt.Errorf("topics.partitions must be 1 to 10000 (got %d)", l.Partitions)
	case l.RejectedPartitions < 1 || l.RejectedPartitions > 10_000:
		return fmt.Errorf("topics.rejected_partitions must be 1 to 10000 (got %d)", l.RejectedPartitions)
	case l.Replication == 0 || l.Replication < -1:
		return fmt.Errorf("topics.replication must be -1 or at least 1 (got %d)", l.Replication)
	case l.MinInsync < 1 || (l.Replication > 0 && l.MinInsync > int(l.Replication)):
		return fmt.Errorf("topics.min_insync must be 1 to topics.replication (got %d)", l.MinInsync)
	case l.MaxMessageBytes < 1<<20:
		return fmt.Errorf("topics.max_message_bytes must be at least 1 MiB (got %d)", l.MaxMessageBytes)
	}
	return nil
}

// Spec is how one topic is made.
type Spec struct {
	Name        string
	Partitions  int32
	Replication int16
	Configs     map[string]string
}

const day = 24 * time.Hour

// DedupWindow is how long enrichers remember message ids unless they are told otherwise.
// The ids are read from enriched again, so its retention bounds every window.
const DedupWindow = 7 * day

// Specs returns every topic in the order in which they are made.
func (n *Names) Specs(l Layout) []Spec {
	spec := func(name string, partitions int32, cleanup string, retention time.Duration, timestamps string) Spec {
		configs := map[string]string{
			configCleanup:       cleanup,
			configTimestampType: timestamps,
			configMinInsync:     strconv.Itoa(l.MinInsync),
			configMaxMessage:    strconv.Itoa(l.MaxMessageBytes),
		}
		if cleanup == deletes {
			configs[configRetention] = strconv.FormatInt(retention.Milliseconds(), 10)
		}
		return Spec{Name: name, Partitions: partitions, Replication: l.Replication, Configs: configs}
	}
	// Blocks are cut by the append time of enriched and rejected records
	// (rollup-writer), and the windows of message ids are measured by that of raw
	// and enriched ones, so the brokers' clock stamps those, not the producers'.
	// So does retention: a producer whose clock is behind loses nothing.
	return []Spec{
		spec(n.Raw, l.Partitions, deletes, 7*day, appendTime),
		spec(n.Links, l.Partitions, deletes, 7*day, appendTime),
		spec(n.Enriched, l.Partitions, deletes, 14*day, appendTime),
		spec(n.Rejected, l.RejectedPartitions, deletes, 30*day, appendTime),
		spec(n.Catalog, 1, compact, 0, createTime),
		spec(n.Metadata, 1, compact, 0, createTime),
		spec(n.EnricherState, l.Partitions, compact, 0, createTime),
		spec(n.KnownIDs, 1, compact, 0, createTime),
		spec(n.Alerts, 1, deletes, 90*day, createTime),
		spec(n.AlertState, 1, compact, 0, createTime),
		spec(n.Notes, 1, compact, 0, createTime),
		spec(n.Looks, 1, deletes, 90*day, createTime),
		short(spec(n.Verdicts, l.Partitions, deletes, time.Hour, appendTime)),
		short(spec(n.VerdictRequests, 1, deletes, time.Hour, appendTime)),
	}
}

// short makes a topic whose records live for an hour lose them about then: brokers delete
// whole segments, and none that is being written, which is a week by default.
func short(s Spec) Spec {
	s.Configs[configSegment] = strconv.FormatInt((10 * time.Minute).Milliseconds(), 10)
	return s
}

// Key appends the record key of an id of an app. ids of one kind never collide
// with another kind's: kind is 'u' for a user, 'a' for an anonymous id, 'c' for
// an account.
func Key(dst []byte, appID string, kind byte, id string) []byte {
	dst = append(dst, appID...)
	dst = append(dst, 0, kind)
	return append(dst, id...)
}

// Kinds of ids in keys.
const (
	KeyUser      = 'u'
	KeyAnonymous = 'a'
	KeyAccount   = 'c'
	KeyMessage   = 'm' // of an event without any id: its message id
)

// RawKey appends the key of a raw record: app and user id, else anonymous id,
// else account id.
func RawKey(dst []byte, appID, userID, anonymousID, accountID string) []byte {
	switch {
	case userID != "":
		return Key(dst, appID, KeyUser, userID)
	case anonymousID != "":
		return Key(dst, appID, KeyAnonymous, anonymousID)
	default:
		return Key(dst, appID, KeyAccount, accountID)
	}
}

// Partition maps a key to one of n partitions. Producers set the partition of
// every record themselves, so this is the only place that decides it, and it
// can never change while a topic lives.
func Partition(key []byte, n int32) int32 {
	return int32(xxhash.Sum64(key) % uint64(n))
}
