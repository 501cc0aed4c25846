// Package dedup remembers which messages of a partition were processed.
//
// A Set belongs to one partition and to the one goroutine that owns it. It
// answers whether a message id of an app was seen within the window, from two
// layers: an open-addressed table in memory, of 64-bit hashes with the bucket
// of time each was seen in, which says "certainly not" for nearly every event;
// and Pebble on disk, which holds the ids themselves and confirms a hit, so
// that two ids with one hash never cost an event.
//
// What a transaction adds stays in an overlay until Commit, and is gone with
// Rollback. The disk is a cache of what the enriched topic says: each commit
// writes the ids and the offset up to which they are complete in one batch,
// without a write-ahead log. A crash leaves the state after some earlier commit
// together with its offset, because Pebble flushes batches whole and in order;
// the caller reads the topic from that offset on. A store that is missing,
// broken, of another topic or of another window is made empty.
package dedup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// bucketsPerWindow is how many buckets of time the window has: ids leave by
// whole buckets, so they stay up to this fraction longer than the window.
const bucketsPerWindow = 28

// maxAhead bounds how far a received_at may lie ahead of this machine's clock
// and still move the window: one gateway with a wrong clock must not make a
// partition forget.
const maxAhead = time.Hour

// Config says where and how much a Store holds.
type Config struct {
	Dir       string
	Window    time.Duration
	CacheSize int64            // bytes of blocks kept in memory
	MemTable  uint64           // bytes of ids gathered before they are written to disk
	Now       func() time.Time // nil: time.Now
}

// DefaultConfig remembers a week.
func DefaultConfig(dir string) Config {
	return Config{Dir: dir, Window: 7 * 24 * time.Hour, CacheSize: 32 << 20, MemTable: 32 << 20}
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("dedup directory must be named"))
	}
	if c.Window < bucketsPerWindow*time.Second {
		errs = append(errs, fmt.Errorf("dedup-window must be at least %ds (got %s)", bucketsPerWindow, c.Window))
	}
	if c.CacheSize < 1<<20 {
		errs = append(errs, fmt.Errorf("dedup-cache-bytes must be at least 1 MiB (got %d)", c.CacheSize))
	}
	if c.MemTable < 1<<20 || c.MemTable > 1<<30 {
		errs = append(errs, fmt.Errorf("dedup-memtable-bytes must be 1 MiB to 1 GiB (got %d)", c.MemTable))
	}
	return errors.Join(errs...)
}

// Store is the disk that the Sets of one process share. Sets are used by one
// goroutine each; the Store is safe for all of them together.
type Store struct {
	db    *pebble.DB
	lock  *pebble.Lock
	width int64 // of a bucket, microseconds
	now   func() time.Time
	hash  func([]byte) uint64
}

// Open opens the store below cfg.Dir. One that cannot be read is removed and
// made anew: it is a cache.
func Open(cfg Config, logger *slog.Logger) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	db, lock, err := openDB(cfg, logger)
	if err != nil && !errors.Is(err, errLocked) {
		logger.Warn("dedup store cannot be read, it is made anew from the log", "dir", cfg.Dir, "error", err)
		if err := os.RemoveAll(cfg.Dir); err != nil {
			return nil, fmt.Errorf("remove broken dedup store %s: %w", cfg.Dir, err)
		}
		db, lock, err = openDB(cfg, logger)
	}
	if err != nil {
		return nil, fmt.Errorf("open dedup store %s: %w", cfg.Dir, err)
	}
	return &Store{
		db:    db,
		lock:  lock,
		width: (cfg.Window / bucketsPerWindow).Microseconds(),
		now:   cfg.Now,
		hash:  xxhash.Sum64,
	}, nil
}

var errLocked = errors.New("another process has it open")

func openDB(cfg Config, logger *slog.Logger) (*pebble.DB, *pebble.Lock, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, nil, err
	}
	lock, err := pebble.LockDirectory(cfg.Dir, vfs.Default)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errLocked, err)
	}
	opts := &pebble.Options{
		FS:                          vfs.Default,
		Lock:                        lock,
		DisableWAL:                  true,
		CacheSize:                   cfg.CacheSize,
		MemTableSize:                cfg.MemTable,
		MemTableStopWritesThreshold: 4,
		// Ids are read only to confirm a duplicate, so files may pile up in L0
		// before they are merged, which saves rewriting the same bucket.
		L0CompactionThreshold: 8,
		L0StopWritesThreshold: 64,
		LBaseMaxBytes:         512 << 20,
		MaxOpenFiles:          512,
		FormatMajorVersion:    pebble.FormatNewest,
		Logger:                pebbleLogger{logger},
	}
	db, err := pebble.Open(cfg.Dir, opts)
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return db, lock, nil
}

// Close writes what is in memory to disk and closes the store. Sets must be
// idle.
func (s *Store) Close() error {
	// Without a write-ahead log Close alone would forget the last ids, and the
	// next start would read them from the log again.
	return errors.Join(s.db.Flush(), s.db.Close(), s.lock.Close())
}

// DiskBytes returns how much disk the store takes.
func (s *Store) DiskBytes() uint64 { return s.db.Metrics().DiskSpaceUsage() }

// Keys on disk: partition (4 bytes), then 'k', bucket (4 bytes) and the id, or
// 'm' for the partition's meta record. An id is the length of the app as a
// varint, the app and the message id.
const (
	kindKey  = 'k'
	kindMeta = 'm'

	keyHeader = 4 + 1 + 4
)

func prefix(dst []byte, partition int32, kind byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(partition)), kind)
}

func bucketPrefix(dst []byte, partition int32, bucket uint32) []byte {
	return binary.BigEndian.AppendUint32(prefix(dst, partition, kindKey), bucket)
}

// metaVersion changes with the layout of keys and values.
const metaVersion = 1

// meta is what a partition's keys are complete for.
type meta struct {
	topicID [16]byte
	width   int64
	next    int64
	head    uint32
}

func (m meta) append(dst []byte) []byte {
	dst = append(dst, metaVersion)
	dst = append(dst, m.topicID[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.width))
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.next))
	return binary.BigEndian.AppendUint32(dst, m.head)
}

func parseMeta(b []byte) (meta, bool) {
	var m meta
	if len(b) != 1+16+8+8+4 || b[0] != metaVersion {
		return m, false
	}
	copy(m.topicID[:], b[1:])
	m.width = int64(binary.BigEndian.Uint64(b[17:]))
	m.next = int64(binary.BigEndian.Uint64(b[25:]))
	m.head = binary.BigEndian.Uint32(b[33:])
	return m, true
}

// Unknown is the Next of a Set that holds nothing of its partition.
const Unknown = int64(-1)

// Set is the memory of one partition.
type Set struct {
	store     *Store
	partition int32
	meta      meta
	front     front

	// The overlay: what the open transaction added.
	pending []pendingKey
	arena   []byte
	index   index
	head    uint32 // newest bucket, meta.head or later

	batch *pebble.Batch
	key   []byte
}

// pendingKey is an id added by the open transaction: arena[off:off+n].
type pendingKey struct {
	hash   uint64
	bucket uint32
	off, n uint32
}

// Set opens a partition's set and reads its hashes into memory. topicID is that
// of the enriched topic; with a set of another one, or none, Next is Unknown.
// progress, if not nil, is called now and then with the ids read so far.
func (s *Store) Set(ctx context.Context, partition int32, topicID [16]byte, progress func(ids int)) (*Set, error) {
	t := &Set{store: s, partition: partition, batch: s.db.NewBatch()}
	value, closer, err := s.db.Get(prefix(nil, partition, kindMeta))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return t, t.Reset(topicID)
	case err != nil:
		return nil, fmt.Errorf("read dedup meta of partition %d: %w", partition, err)
	}
	m, ok := parseMeta(value)
	if err := closer.Close(); err != nil {
		return nil, fmt.Errorf("read dedup meta of partition %d: %w", partition, err)
	}
	if !ok || m.topicID != topicID || m.width != s.width {
		return t, t.Reset(topicID)
	}
	t.meta, t.head = m, m.head
	if err := t.load(ctx, progress); err != nil {
		return nil, fmt.Errorf("load dedup set of partition %d: %w", partition, err)
	}
	return t, nil
}

func (t *Set) load(ctx context.Context, progress func(ids int)) error {
	it, err := t.store.db.NewIterWithContext(ctx, &pebble.IterOptions{
		LowerBound: bucketPrefix(nil, t.partition, t.oldest(t.head)),
		UpperBound: prefix(nil, t.partition, kindKey+1),
	})
	if err != nil {
		return err
	}
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if len(k) <= keyHeader {
			continue
		}
		bucket := binary.BigEndian.Uint32(k[5:])
		t.front.insert(t.store.hash(k[keyHeader:]), tag(bucket))
		if n++; n%(1<<18) == 0 {
			if err := ctx.Err(); err != nil {
				return errors.Join(err, it.Close())
			}
			if progress != nil {
				progress(n)
			}
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// Reset empties the set, for a topic of the given id.
func (t *Set) Reset(topicID [16]byte) error {
	t.Rollback()
	t.front = front{}
	t.meta = meta{topicID: topicID, width: t.store.width, next: Unknown}
	t.head = 0
	t.batch.Reset()
	err := t.batch.DeleteRange(prefix(nil, t.partition, kindKey), prefix(nil, t.partition, kindMeta+1), nil)
	if err == nil {
		err = t.batch.Commit(pebble.NoSync)
	}
	if err != nil {
		return fmt.Errorf("empty dedup set of partition %d: %w", t.partition, err)
	}
	return nil
}

// Next returns the offset in the enriched partition up to which the set holds
// everything within the window, or Unknown.
func (t *Set) Next() int64 { return t.meta.next }

// Len returns how many ids the set holds, without the overlay.
func (t *Set) Len() int { return t.front.n }

// MemoryBytes returns what the table in memory takes.
func (t *Set) MemoryBytes() int { return 9 * len(t.front.hashes) }

// Pending returns how many ids the overlay holds.
func (t *Set) Pending() int { return len(t.pending) }

func (t *Set) oldest(head uint32) uint32 {
	if head < bucketsPerWindow {
		return 0
	}
	return head - bucketsPerWindow
}

// bucket returns the bucket of an instant, held within the window, and moves
// the window's head on.
func (t *Set) bucket(received int64) uint32 {
	b := uint32(max(received, 0) / t.store.width)
	if b > t.head { // once per bucket
		limit := uint32(t.store.now().Add(maxAhead).UnixMicro() / t.store.width)
		t.head = max(t.head, min(b, limit))
	}
	return min(max(b, t.oldest(t.head)), t.head)
}

// Seen reports whether the message was seen within the window, in this
// transaction or before. One that was not is added to the overlay. received is
// its received_at in microseconds since the epoch. app and id are copied.
func (t *Set) Seen(app, id string, received int64) (bool, error) {
	off := len(t.arena)
	t.arena = binary.AppendUvarint(t.arena, uint64(len(app)))
	t.arena = append(t.arena, app...)
	t.arena = append(t.arena, id...)
	key := t.arena[off:]
	h := t.store.hash(key)

	found, err := t.committed(h, key)
	if err != nil {
		t.arena = t.arena[:off]
		return false, err
	}
	if found || t.index.find(h, func(i uint32) bool {
		p := &t.pending[i]
		return p.hash == h && string(t.arena[p.off:p.off+p.n]) == string(key)
	}) {
		t.arena = t.arena[:off]
		return true, nil
	}
	t.pending = append(t.pending, pendingKey{hash: h, bucket: t.bucket(received), off: uint32(off), n: uint32(len(key))})
	t.index.add(h, uint32(len(t.pending)-1), func(i uint32) uint64 { return t.pending[i].hash })
	return false, nil
}

// committed reports whether the id is held outside the overlay. Every entry of
// its hash is confirmed on disk, in the bucket that the entry names.
func (t *Set) committed(h uint64, id []byte) (bool, error) {
	f := &t.front
	for i := f.first(h); i >= 0; i = f.next(h, i) {
		t.key = append(bucketPrefix(t.key[:0], t.partition, t.bucketOf(f.tags[i])), id...)
		_, closer, err := t.store.db.Get(t.key)
		if err == nil {
			err = closer.Close()
			return true, err
		}
		if !errors.Is(err, pebble.ErrNotFound) {
			return false, fmt.Errorf("read dedup set of partition %d: %w", t.partition, err)
		}
	}
	return false, nil
}

// A tag is a bucket modulo 255, plus one. All buckets of the window differ in
// it.
func tag(bucket uint32) uint8 { return uint8(bucket%255) + 1 }

func (t *Set) bucketOf(g uint8) uint32 {
	back := (uint32(tag(t.meta.head)) + 255 - uint32(g)) % 255
	return t.meta.head - back
}

// Commit merges the overlay: the transaction that carried it was committed, and
// next is the offset behind its last record in the enriched partition, or
// Unknown when it wrote none there.
func (t *Set) Commit(next int64) error {
	if len(t.pending) == 0 && (next == Unknown || next == t.meta.next) {
		t.Rollback()
		return nil
	}
	m := t.meta
	m.head = t.head
	if next != Unknown {
		m.next = next
	}
	if err := t.write(m); err != nil {
		return fmt.Errorf("write dedup set of partition %d: %w", t.partition, err)
	}
	if from, to := t.oldest(t.meta.head), t.oldest(m.head); from < to {
		// Entries of buckets that left are told by their distance from the head.
		t.front.drop(func(g uint8) bool { return t.bucketOf(g) < to })
	}
	t.meta = m
	for i := range t.pending {
		t.front.insert(t.pending[i].hash, tag(t.pending[i].bucket))
	}
	t.clear()
	return nil
}

func (t *Set) write(m meta) error {
	b := t.batch
	b.Reset()
	if from, to := t.oldest(t.meta.head), t.oldest(m.head); from < to {
		err := b.DeleteRange(bucketPrefix(nil, t.partition, 0), bucketPrefix(nil, t.partition, to), nil)
		if err != nil {
			return err
		}
	}
	for i := range t.pending {
		p := &t.pending[i]
		op := b.SetDeferred(keyHeader+int(p.n), 0)
		copy(bucketPrefix(op.Key[:0], t.partition, p.bucket)[keyHeader:keyHeader+int(p.n)], t.arena[p.off:p.off+p.n])
		if err := op.Finish(); err != nil {
			return err
		}
	}
	t.key = prefix(t.key[:0], t.partition, kindMeta)
	if err := b.Set(t.key, m.append(nil), nil); err != nil {
		return err
	}
	return b.Commit(pebble.NoSync)
}

// Rollback drops the overlay.
func (t *Set) Rollback() {
	t.head = t.meta.head
	t.clear()
}

// keepBytes is the most memory that the overlay keeps for the next transaction.
const keepBytes = 8 << 20

func (t *Set) clear() {
	t.pending, t.arena = t.pending[:0], t.arena[:0]
	if cap(t.arena) > keepBytes {
		t.pending, t.arena = nil, nil
	}
	t.index.clear()
}

// Close releases the set's memory; the disk keeps what was committed.
func (t *Set) Close() error {
	t.front, t.pending, t.arena, t.index = front{}, nil, nil, index{}
	return t.batch.Close()
}
