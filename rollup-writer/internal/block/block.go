// Package block cuts a partition's log into the blocks that are inserted.
//
// Where a block begins and ends is a function of the log alone: of offsets, append times, kinds
// and sizes of its committed records, and of the [Shape] that belongs to the topic. So every
// reader of the partition, from any boundary and in fetches of any size, builds the same blocks
// with the same tokens, and inserting one again is harmless. The package is pure: it reads no
// clock, and nothing in it depends on when or how often it is called.
//
//   - A content record (an event, or a control record with moves or counts) whose key differs
//     from its predecessor's begins a block. The key is (offset div N, append time div T).
//   - A content record that would take the block above [MaxBytes] begins a block,
//     so that what has to be kept in memory is bounded. A block is only ever read
//     from its beginning, so every reader sees the same sum.
//   - A tick has no content and begins no block. It ends the open block if its key
//     differs.
//   - A transaction marker has no effect: it ends no block.
//
// A block's Start is the offset of its first content record, its End the offset
// of the record that ended it.
//
// Completed work is always a prefix of the log, up to a boundary: the Start of the open
// block, or, when none is open, the offset after the last record seen. Starting at any
// boundary gives the same blocks from there on, because no block is open there. That
// holds for boundaries after ticks and markers too, so an idle partition's boundary is
// the end of its log, and the partition can still be started after retention has
// deleted all of it.
//
// In version 1 of the rule a control record that orders corrections ended the
// open block and was a block of its own. A reader of one version must not
// continue within a block of the other: see [ErrVersion1] and [TakeOver].
package block

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxBytes bounds the values of the records of one block. It is part of the
// format version in tokens and metadata, as a constant.
const MaxBytes = 32 << 20

// Versions of the rules above.
const (
	version  = "v2"
	version1 = "v1"
)

// Shape is N and T. It is fixed for the life of a topic: other values cut other blocks,
// whose tokens are in no dedup window.
type Shape struct {
	// Records is N: no block contains offsets on both sides of a multiple of N.
	Records int64
	// Interval is T, in whole milliseconds: no block contains append times on both
	// sides of a multiple of T since the epoch.
	Interval time.Duration
}

// Validate reports all faults.
func (s Shape) Validate() error {
	switch {
	case s.Records < 1 || s.Records > 1_000_000:
		return fmt.Errorf("block-records must be 1 to 1000000 (got %d)", s.Records)
	case s.Interval < 10*time.Millisecond || s.Interval > time.Hour || s.Interval%time.Millisecond != 0:
		return fmt.Errorf("block-interval must be 10ms to 1h, in whole milliseconds (got %s)", s.Interval)
	}
	return nil
}

// String is N|T, T in milliseconds.
func (s Shape) String() string {
	return strconv.FormatInt(s.Records, 10) + "|" + strconv.FormatInt(s.Interval.Milliseconds(), 10)
}

// key identifies the block that a record falls into.
type key struct{ records, interval int64 }

func (s Shape) key(offset, appendMillis int64) key {
	return key{offset / s.Records, floorDiv(appendMillis, s.Interval.Milliseconds())}
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// EndOfInterval returns the first append time, in milliseconds, at which a record has
// another key than one appended at appendMillis.
func (s Shape) EndOfInterval(appendMillis int64) int64 {
	t := s.Interval.Milliseconds()
	return (floorDiv(appendMillis, t) + 1) * t
}

// Kind is the kind of a record, as the cutter distinguishes them.
type Kind uint8

// Kinds of records.
const (
	Content Kind = iota // belongs to a block: an event, or a control record
	Tick                // carries nothing
	Marker              // of a transaction
)

// Record is the part of a record that the cutter needs.
type Record struct {
	Offset       int64
	AppendMillis int64
	Kind         Kind
	Bytes        int // of the value
}

// Block is a complete block.
type Block struct {
	Start, End int64
	Records    int // Content records
	Bytes      int // of their values
	// Next is the boundary after this block: End, or the offset after the tick that
	// ended it.
	Next int64
}

// Token is the insert_deduplication_token of the block. A generation above 0 is part of
// it: after tables were repaired, windows may still hold tokens of blocks whose rows
// were removed.
func (b Block) Token(s Shape, topicID string, partition int32, generation uint32) string {
	token := version + "|" + topicID + "|" + strconv.FormatInt(int64(partition), 10) + "|" +
		strconv.FormatInt(b.Start, 10) + "-" + strconv.FormatInt(b.End, 10) + "|" + s.String()
	if generation > 0 {
		token += "|g" + strconv.FormatUint(uint64(generation), 10)
	}
	return token
}

// Cutter cuts one partition's log.
type Cutter struct {
	shape Shape

	open     bool
	block    Block // open: Start, Rows, Bytes so far
	key      key
	boundary int64
}

// NewCutter returns a cutter that starts at a boundary.
func NewCutter(s Shape, boundary int64) *Cutter {
	return &Cutter{shape: s, boundary: boundary}
}

// Next takes the next record. It returns the block that the record ended, if it ended
// one. A Content record then belongs to the open block.
func (c *Cutter) Next(r Record) (ended Block, ok bool) {
	if r.Kind == Marker {
		if !c.open {
			c.boundary = r.Offset + 1
		}
		return Block{}, false
	}
	k := c.shape.key(r.Offset, r.AppendMillis)
	if c.open && (k != c.key || (r.Kind == Content && c.block.Bytes+r.Bytes > MaxBytes)) {
		ended, ok = c.block, true
		ended.End, ended.Next = r.Offset, r.Offset
		c.open = false
	}
	if r.Kind == Content {
		if !c.open {
			c.open, c.key, c.block, c.boundary = true, k, Block{Start: r.Offset}, r.Offset
		}
		c.block.Records++
		c.block.Bytes += r.Bytes
		return ended, ok
	}
	if !c.open {
		c.boundary = r.Offset + 1
		if ok {
			ended.Next = c.boundary
		}
	}
	return ended, ok
}

// Open returns the number of content records in the open block; 0 if none is open.
func (c *Cutter) Open() int {
	if !c.open {
		return 0
	}
	return c.block.Records
}

// Boundary is the offset up to which the log is complete once every ended block is
// done.
func (c *Cutter) Boundary() int64 { return c.boundary }

// Commit is the metadata that is committed with a boundary. A reader must cut blocks by
// the same rule, from the same topic, with tokens of the same generation.
type Commit struct {
	Shape   Shape
	TopicID string
	// Mark is how many parts the tables of the partition's server had when the boundary
	// was committed, as far as the writer knew: blocks sent after it are in the dedup
	// windows as long as the tables got fewer than a window of further parts.
	Mark       uint64
	Generation uint32
	// Clean means that nothing was sent from the boundary on. An orderly stop commits
	// it; a writer withdraws it before it sends anything.
	Clean bool
	// Rebuild means that tables are being rebuilt: no block is open, and no writer may
	// start before the rebuild is done.
	Rebuild bool
	// Replay is the offset before which the log is read for another time, after
	// `init -reset` or a restore; 0: no record is.
	Replay int64
}

// Words for Clean and Rebuild in metadata.
const (
	clean   = "clean"
	perhaps = "open"
	rebuild = "rebuild"
)

// Metadata is the commit's text form.
func (c Commit) Metadata() string {
	state := perhaps
	switch {
	case c.Rebuild:
		state = rebuild
	case c.Clean:
		state = clean
	}
	text := strings.Join([]string{
		version, c.Shape.String(), c.TopicID, strconv.FormatUint(c.Mark, 10), strconv.FormatUint(uint64(c.Generation), 10), state,
	}, "|")
	if c.Replay > 0 {
		text += "|" + strconv.FormatInt(c.Replay, 10)
	}
	return text
}

// ErrVersion1 is in the chain of the error about a commit of a release that cut blocks
// by another rule.
var ErrVersion1 = errors.New("it was committed by a release that cut blocks by another rule (v1)")

// ParseCommit reads the metadata of a commit. A commit of version 1 fails with
// [ErrVersion1].
func ParseCommit(metadata string) (Commit, error) {
	c, v, err := parse(metadata)
	switch {
	case err != nil:
		return Commit{}, err
	case v == version1:
		return Commit{}, fmt.Errorf("metadata %q: %w", metadata, ErrVersion1)
	}
	return c, nil
}

// TakeOver reads a commit of version 1 as one of this version. That is possible only if
// the commit is clean: then nothing was sent from its boundary on, and no block of
// version 1 is open there.
func TakeOver(metadata string) (Commit, error) {
	c, v, err := parse(metadata)
	switch {
	case err != nil:
		return Commit{}, err
	case v != version1:
		return Commit{}, fmt.Errorf("metadata %q is of %s, not of %s", metadata, v, version1)
	case !c.Clean:
		return Commit{}, fmt.Errorf("metadata %q: %w and does not say %s: a block may be half done", metadata, ErrVersion1, clean)
	}
	return c, nil
}

func parse(metadata string) (c Commit, v string, err error) {
	fault := fmt.Errorf("metadata %q is not %s|N|T|topic id|mark|generation|%s, %s or %s, and perhaps |offset", metadata, version, clean, perhaps, rebuild)
	f := strings.Split(metadata, "|")
	var replay int64
	if len(f) == 8 {
		var err error
		if replay, err = strconv.ParseInt(f[7], 10, 64); err != nil || replay <= 0 {
			return Commit{}, "", fault
		}
		f = f[:7]
	}
	if len(f) != 7 || (f[0] != version && f[0] != version1) || f[3] == "" || (f[6] != clean && f[6] != perhaps && f[6] != rebuild) {
		return Commit{}, "", fault
	}
	n, err1 := strconv.ParseInt(f[1], 10, 64)
	t, err2 := strconv.ParseInt(f[2], 10, 64)
	mark, err3 := strconv.ParseUint(f[4], 10, 64)
	generation, err4 := strconv.ParseUint(f[5], 10, 32)
	c = Commit{
		Shape: Shape{Records: n, Interval: time.Duration(t) * time.Millisecond}, TopicID: f[3],
		Mark: mark, Generation: uint32(generation), Clean: f[6] == clean, Rebuild: f[6] == rebuild, Replay: replay,
	}
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || c.Shape.Validate() != nil {
		return Commit{}, "", fault
	}
	return c, f[0], nil
}
