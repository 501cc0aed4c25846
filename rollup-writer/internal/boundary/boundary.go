// Package boundary knows where each partition starts: the group's commits, their
// metadata, and whether a writer may start there. It holds what package rollup, which
// writes, and package repair, which works while writers are stopped, have in common:
// the settings that name the log and the tables (config.go), the topics, and the table
// that each is written to. It changes nothing.
package boundary

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Topics are the topics that are written to ClickHouse.
func Topics(names *topic.Names) []string { return []string{names.Enriched, names.Rejected} }

// Tables that blocks are inserted into.
const (
	EventsTable   = "events"
	RejectedTable = "rejected_events"
	CountsTable   = "audit_blocks" // counts of the enrichers
)

// Table is the table of a topic's rows.
func Table(names *topic.Names, name string) string {
	if name == names.Rejected {
		return RejectedTable
	}
	return EventsTable
}

// AskTimeout bounds a request to Kafka or ClickHouse.
const AskTimeout = 15 * time.Second

// Uncut returns the context of a request to ClickHouse that may have to connect first:
// it has the timeout but does not end with ctx, because the embedded ClickHouse crashes
// when a handshake is cut short.
func Uncut(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), AskTimeout)
}

// State is the state of topics, and of the group's commits in them, in Kafka.
type State struct {
	Topics  kadm.TopicDetails
	Commits kadm.OffsetResponses
	First   kadm.ListedOffsets
	End     kadm.ListedOffsets
}

// Read reads the state of topics from Kafka.
func Read(ctx context.Context, admin *kadm.Client, names *topic.Names, topics []string) (State, error) {
	var st State
	var err error
	if st.Topics, err = admin.ListTopics(ctx, topics...); err != nil {
		return st, fmt.Errorf("list topics: %w", err)
	}
	st.Commits, err = admin.FetchOffsets(ctx, names.GroupRollupWriter)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // the group has no members and no commits
		return st, fmt.Errorf("fetch commits of group %s: %w", names.GroupRollupWriter, err)
	}
	if st.First, err = admin.ListStartOffsets(ctx, topics...); err != nil {
		return st, fmt.Errorf("list log starts: %w", err)
	}
	if st.End, err = admin.ListEndOffsets(ctx, topics...); err != nil {
		return st, fmt.Errorf("list log ends: %w", err)
	}
	return st, errors.Join(st.Topics.Error(), st.First.Error(), st.End.Error())
}

// Start is where a partition starts.
type Start struct {
	TopicID  string
	Boundary int64
	Mark     uint64
	End      int64 // end of the log
	// Untouched: nothing was ever appended from the boundary on, so no block from there
	// can have been sent.
	Untouched  bool
	Generation uint32
	Clean      bool  // the commit is clean: nothing was sent from it on
	Replay     int64 // see block.Commit
	Refused    error // why the partition must not start
}

// RunInit is the advice for partitions that were never written.
const RunInit = "run `rollup-writer init` on a new installation"

// Start decides where a partition starts, or why it must not.
func (st State) Start(shape block.Shape, name string, number int32) Start {
	topicID := st.Topics[name].ID.String()
	at := name + "/" + strconv.Itoa(int(number))
	out := Start{TopicID: topicID}
	refused := func(format string, args ...any) Start {
		out.Refused = fmt.Errorf(format, args...)
		return out
	}
	c, ok := st.Commits.Lookup(name, number)
	if ok && c.Err != nil {
		return refused("commit of %s: %w", at, c.Err)
	}
	if !ok || c.At < 0 {
		return refused("%s has no commit, so that it is not known what was written of it: %s; if there was one, the group's offsets have expired: "+
			"run `rollup-writer audit` and begin with `rollup-writer init -reset`", at, RunInit)
	}
	out.Boundary = c.At
	commit, err := block.ParseCommit(c.Metadata)
	if errors.Is(err, block.ErrVersion1) {
		return refused("commit of %s at %d: %w, and a block of that rule may be half done: let writers of that release catch up and stop them with SIGTERM, "+
			"so that their commits say clean, then run `rollup-writer init`, which takes such commits over", at, c.At, err)
	}
	if err != nil {
		return refused("commit of %s at %d was not made by rollup-writer: %w: blocks may be cut otherwise from there; "+
			"set it back to a boundary that rollup-writer committed, or begin with `rollup-writer init -reset`", at, c.At, err)
	}
	if commit.Rebuild {
		return refused("tables of %s are being rebuilt, or a rebuild was cut short: run `rollup-writer rebuild` to its end", at)
	}
	if commit.Shape != shape {
		return refused("commit of %s was made with block-records|block-interval %s, and this writer has %s: they are fixed for the life of the topic; give all writers the same",
			at, commit.Shape, shape)
	}
	if commit.TopicID != topicID {
		return refused("commit of %s belongs to topic id %s, and the topic's is %s: it was deleted and created again; begin it with `rollup-writer init -reset`", at, commit.TopicID, topicID)
	}
	first, ok1 := st.First.Lookup(name, number)
	end, ok2 := st.End.Lookup(name, number)
	if !ok1 || !ok2 {
		return refused("%s is not in the cluster", at)
	}
	if c.At < first.Offset {
		return refused("%s is written up to %d, and the log begins at %d: retention has deleted what is between, and it is lost; "+
			"raise retention.ms, see `rollup-writer audit`, and begin with `rollup-writer init -reset`", at, c.At, first.Offset)
	}
	if c.At > end.Offset {
		return refused("%s is written up to %d, and the log ends at %d: it was truncated; begin with `rollup-writer init -reset` once it is known what is lost", at, c.At, end.Offset)
	}
	out.End = end.Offset
	out.Mark, out.Untouched = commit.Mark, c.At == end.Offset
	out.Generation, out.Clean, out.Replay = commit.Generation, commit.Clean, commit.Replay
	return out
}
