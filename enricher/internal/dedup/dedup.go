// Package dedup remembers which messages of a partition were processed.
//
// A Set belongs to one partition and to the one goroutine that owns it. It
// answers whether a message id of an app was seen within the window, from three
// layers:
//
//   - the ids of the open transaction and the most recent committed ones, in
//     memory, exactly;
//   - for those that went to disk lately an open-addressed table of 64-bit hashes,
//     each with the run that it went to disk in, and for all older ones a table of
//     less than three bytes an id (sealed.go). They say "certainly not" for nearly
//     every event. Senders choose the ids: the hashes have a secret seed, a new one
//     in each process;
//   - Pebble on disk, which holds the older ids themselves and confirms a hit in
//     a table, so that two ids with one hash never cost an event.
//
// A run is the set of ids of one bucket of time that were written together, with a key
// range of its own. Runs do not overlap, so Pebble has nothing to merge, however many
// ids there are, and a hit is looked up in one file.
//
// The ids of a transaction are visible to its own records at once; Commit keeps them,
// Rollback drops them. The disk is a cache of the enriched topic: recent ids are
// written together, sorted, in one batch with the offset up to which they are complete,
// and without a write-ahead log. A crash leaves the state after some earlier batch,
// with its offset, because Pebble flushes batches whole and in order; the caller reads
// the topic from that offset on. A store that is missing, broken, or belongs to another
// topic or window is replaced by an empty one.
package dedup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/uptakehq/uptake/schemas/topic"
)

// bucketsPerWindow is how many buckets of time the window has. Ids leave by whole
// buckets, so they stay for up to this fraction longer than the window.
const bucketsPerWindow = 28

// maxAhead bounds how far a received_at may be after the append time of its record and
// still advance the window: neither a gateway nor this machine with a wrong clock may
// make a partition lose ids early.
const maxAhead = time.Hour

// Config holds the location and the bounds of a Store.
type Config struct {
	Dir       string
	Window    time.Duration
	CacheSize int64 // bytes of blocks kept in memory
	Recent    int   // bytes of ids that a partition gathers before writing them to disk
	MaxIDs    int   // ids per partition; more shorten its window, by whole buckets. 0: no bound
}

// DefaultConfig has the window that enrichers have by default.
func DefaultConfig(dir string) Config {
	return Config{Dir: dir, Window: topic.DedupWindow, CacheSize: 32 << 20, Recent: 4 << 20}
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
	if c.Recent < 1<<10 || c.Recent > 1<<30 {
		errs = append(errs, fmt.Errorf("dedup-recent-bytes must be 1 KiB to 1 GiB (got %d)", c.Recent))
	}
	if c.MaxIDs < 0 {
		errs = append(errs, fmt.Errorf("dedup-max-ids must be >= 0 (got %d)", c.MaxIDs))
	}
	return errors.Join(errs...)
}

// Store is the disk storage shared by the Sets of one process. Each Set is used by one
// goroutine; the Store is safe for concurrent use by its Sets.
type Store struct {
	db       *pebble.DB
	lock     *pebble.Lock
	log      *slog.Logger
	width    int64 // of a bucket, microseconds
	recent   int
	maxIDs   int
	hash     func([]byte) uint64 // of ids in memory
	patience time.Duration       // how long Close waits for a disk that cannot be written
	late     sync.WaitGroup      // closing after such a disk
	state    *state

	sealLeast int             // ids that are sealed at once
	building  chan struct{}   // full while a table is made
	builds    sync.WaitGroup  // makes tables
	ctx       context.Context // ends with the store
	stop      context.CancelFunc
}

// state is what Pebble reports about the disk.
type state struct {
	fault  atomic.Pointer[error] // of the last attempt to write files, if it failed
	broken atomic.Bool           // something cannot be read
}

// Open opens the store below cfg.Dir. A store that cannot be read is removed and
// created again: it is a cache. If the disk is full, the store is left unchanged.
func Open(cfg Config, logger *slog.Logger) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	state, seed := &state{}, maphash.MakeSeed()
	db, lock, err := openDB(cfg, logger, state)
	if err != nil && !errors.Is(err, errLocked) && !errors.Is(err, syscall.ENOSPC) {
		logger.Warn("dedup store cannot be read; rebuilding it from the log", "dir", cfg.Dir, "error", err)
		if err := os.RemoveAll(cfg.Dir); err != nil {
			return nil, fmt.Errorf("remove broken dedup store %s: %w", cfg.Dir, err)
		}
		db, lock, err = openDB(cfg, logger, state)
	}
	if err != nil {
		return nil, fmt.Errorf("open dedup store %s: %w", cfg.Dir, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Store{
		db:     db,
		lock:   lock,
		log:    logger,
		width:  (cfg.Window / bucketsPerWindow).Microseconds(),
		recent: cfg.Recent,
		maxIDs: cfg.MaxIDs,
		hash:   func(id []byte) uint64 { return maphash.Bytes(seed, id) },

		patience: 5 * time.Second,
		state:    state,

		sealLeast: sealLeast,
		building:  make(chan struct{}, 1),
		ctx:       ctx,
		stop:      stop,
	}, nil
}

const memTable = 1 << 20

// retryPause is how long Pebble waits after files could not be written. By default it
// retries at once, and a full disk costs a whole core. Pebble holds its state lock
// during the wait, so the pause is short: writers may need the lock.
const retryPause = 20 * time.Millisecond

// ErrUnreadable is in the chain of the errors of reads that failed: see Broken.
var ErrUnreadable = errors.New("dedup set cannot be read")

var errLocked = errors.New("another process has it open")

func openDB(cfg Config, logger *slog.Logger, state *state) (*pebble.DB, *pebble.Lock, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, nil, err
	}
	lock, err := pebble.LockDirectory(cfg.Dir, vfs.Default)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errLocked, err)
	}
	opts := &pebble.Options{
		FS:         vfs.Default,
		Lock:       lock,
		DisableWAL: true,
		CacheSize:  cfg.CacheSize,
		// A batch larger than half a memtable is not copied to one but flushed
		// directly. Batches are large here, so the memtable is small.
		MemTableSize:                memTable,
		MemTableStopWritesThreshold: 64,
		// Files of different runs do not overlap. Only the ends of short runs do, which
		// may accumulate.
		L0CompactionThreshold: 16,
		L0StopWritesThreshold: 128,
		LBaseMaxBytes:         512 << 20,
		MaxOpenFiles:          2048,
		FormatMajorVersion:    pebble.FormatNewest,
		Logger:                pebbleLogger{logger},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				state.fault.Store(&err)
				time.Sleep(retryPause)
			},
			// Without this Pebble would end the process.
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				if !state.broken.Swap(true) {
					logger.Error("dedup store is broken on disk", "path", info.Path, "error", info.Details)
				}
			},
			FlushEnd: func(info pebble.FlushInfo) {
				if info.Err == nil {
					state.fault.Store(nil)
				}
			},
		},
	}
	for i := range opts.TargetFileSizes {
		opts.TargetFileSizes[i] = 32 << 20 // a run is one file
	}
	db, err := pebble.Open(cfg.Dir, opts)
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return db, lock, nil
}

// Close writes the ids in memory to disk and closes the store. Sets must be idle. If
// the disk cannot be written, for example because it is full, Close gives up after a
// few seconds with the disk's error: the next start then reads the missing ids from the
// log. Until there is free space, or the process ends, the store stays locked.
func (s *Store) Close() error {
	s.stop()
	s.builds.Wait()
	// Without a write-ahead log closing alone would forget the last batches.
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		return errors.Join(err, s.db.Close(), s.lock.Close())
	}
	tick := time.NewTicker(s.patience)
	defer tick.Stop()
	for {
		select {
		case <-flushed:
			return errors.Join(s.db.Close(), s.lock.Close())
		case <-tick.C:
		}
		if fault := s.Err(); fault != nil {
			// Pebble retries forever, and cannot be closed meanwhile.
			s.late.Go(func() { // ends when there is free space
				<-flushed
				if err := errors.Join(s.db.Close(), s.lock.Close()); err != nil {
					s.log.Warn("dedup store could not be closed", "error", err)
				}
			})
			return fmt.Errorf("closed without its last ids: %w", fault)
		}
	}
}

// Err returns the reason why ids cannot be written to disk, or nil. Pebble retries by
// itself; when its memory is full, Commit waits for it.
func (s *Store) Err() error {
	if err := s.state.fault.Load(); err != nil {
		return fmt.Errorf("dedup store cannot be written: %w", *err)
	}
	return nil
}

// Broken reports whether something on disk cannot be read. The caller then closes and
// removes the store: it is a cache.
func (s *Store) Broken() bool { return s.state.broken.Load() }

// unreadable returns the error of a read that failed.
func (s *Store) unreadable(partition int32, err error) error {
	s.state.broken.Store(true)
	return fmt.Errorf("%w: partition %d: %w", ErrUnreadable, partition, err)
}

// DiskBytes returns how much disk the store takes.
func (s *Store) DiskBytes() uint64 { return s.db.Metrics().DiskSpaceUsage() }

// Keys on disk: partition (4 bytes), kind, bucket (4 bytes), run (2 bytes), order (8 bytes) and
// the id, which is the length of the app as a varint, the app and the message, as event.Message
// has it. The order is the XXH64 of the id. It only scatters ids, so crafted ids with equal
// orders do no harm. Every write includes a meta record, under the order 0 and no id in one of
// the runs that it writes: a key of its own would make each write overlap with all others. The
// record of the last write counts.
const (
	kindID = 's'

	bucketAt  = 4 + 1
	runAt     = bucketAt + 4
	orderAt   = runAt + 2
	keyHeader = orderAt + 8
)

// partitionPrefix is the prefix of all keys of a partition, of any kind.
func partitionPrefix(dst []byte, partition int32) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(partition))
}

func bucketPrefix(dst []byte, partition int32, bucket uint32) []byte {
	return binary.BigEndian.AppendUint32(append(partitionPrefix(dst, partition), kindID), bucket)
}

// metaVersion changes with the layout of values, and the kind with that of keys.
const metaVersion = 2

// meta describes what a partition's keys are complete for.
type meta struct {
	topicID [16]byte
	width   int64
	next    int64
	head    uint32
	ids     int64 // at most
}

// later reports whether m was written after o, which is of the same topic.
func (m meta) later(o meta) bool { return m.next > o.next || m.next == o.next && m.head > o.head }

func (m meta) append(dst []byte) []byte {
	dst = append(dst, metaVersion)
	dst = append(dst, m.topicID[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.width))
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.next))
	dst = binary.BigEndian.AppendUint32(dst, m.head)
	return binary.BigEndian.AppendUint64(dst, uint64(m.ids))
}

func parseMeta(b []byte) (meta, bool) {
	var m meta
	if len(b) != 1+16+8+8+4+8 || b[0] != metaVersion {
		return m, false
	}
	copy(m.topicID[:], b[1:])
	m.width = int64(binary.BigEndian.Uint64(b[17:]))
	m.next = int64(binary.BigEndian.Uint64(b[25:]))
	m.head = binary.BigEndian.Uint32(b[33:])
	m.ids = int64(binary.BigEndian.Uint64(b[37:]))
	return m, true
}

// Unknown is the Next of a Set that holds no ids of its partition.
const Unknown = int64(-1)

// Set remembers the messages of one partition.
type Set struct {
	store     *Store
	partition int32
	meta      meta  // of what is on disk
	front     front // hashes of what went to disk lately, each with its run
	runs      runs  // on disk

	sealed  *sealed    // what went to disk before; nil: nothing
	sealing *front     // between the two: a table is being made of both
	built   chan built // that table

	// Ids in memory: ids[:done] are committed, the others the open transaction's.
	ids   []recentID
	done  int
	arena []byte // their text up to kept, then the id asked for
	kept  int
	index index

	// As of the last commit, and including the open transaction.
	next       int64
	head, live uint32 // newest bucket

	asked uint64 // hash of what Seen was last asked for

	batch *pebble.Batch
	key   []byte
}

// recentID is an id in memory: arena[off:off+n].
type recentID struct {
	hash   uint64
	order  uint64 // once it is sorted for the disk
	bucket uint32
	off, n uint32
	run    uint16 // once it is on disk
}

// compare orders ids like the keys on disk. One comparison nearly always decides:
// orders differ, and most ids of a flush are in one bucket.
func (a recentID) compare(b recentID) int {
	switch {
	case a.bucket < b.bucket:
		return -1
	case a.bucket > b.bucket:
		return 1
	case a.order < b.order:
		return -1
	case a.order > b.order:
		return 1
	}
	return 0
}

// Set opens a partition's set and reads its hashes into memory. topicID is the id of
// the enriched topic; if the stored set belongs to another topic, or does not exist,
// Next is Unknown. progress, if not nil, is called from time to time with the number of
// ids read so far.
func (s *Store) Set(ctx context.Context, partition int32, topicID [16]byte, progress func(ids int)) (*Set, error) {
	t := &Set{store: s, partition: partition, batch: s.db.NewBatch()}
	known, err := t.load(ctx, topicID, progress)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, s.unreadable(partition, err)
	case !known:
		return t, t.Reset(topicID)
	}
	t.next, t.head, t.live = t.meta.next, t.meta.head, t.meta.head
	return t, nil
}

// load reads the ids on disk, and reports whether there are any of the topic and of the
// store's window.
func (t *Set) load(ctx context.Context, topicID [16]byte, progress func(ids int)) (known bool, err error) {
	it, err := t.iterate(ctx)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	t.meta = lastMeta(it)
	if err := it.Error(); err != nil || t.meta.topicID != topicID || t.meta.width != t.store.width {
		return false, err
	}
	b := t.store.newBuilder(int(t.meta.ids))
	if err := b.read(ctx, it, progress); err != nil {
		return false, err
	}
	t.sealed, t.front, t.runs = b.table, b.rest, b.runs
	return true, nil
}

// lastMeta returns the last meta record of a partition, or a zero one. A run that has a
// meta record begins with it.
func lastMeta(it *pebble.Iterator) meta {
	last := meta{next: Unknown - 1}
	for ok := it.First(); ok; {
		k := it.Key()
		if len(k) == keyHeader {
			if m, ok := parseMeta(it.Value()); ok && m.later(last) {
				last = m
			}
		}
		// Continue with the next run: the first key after all keys with this prefix.
		following := append([]byte(nil), k[:min(orderAt, len(k))]...)
		for i := len(following) - 1; i >= 0; i-- {
			if following[i]++; following[i] != 0 {
				break
			}
		}
		ok = it.SeekGE(following)
	}
	return last
}

// Reset empties the set, for a topic of the given id.
func (t *Set) Reset(topicID [16]byte) error {
	t.clear()
	t.front, t.runs = front{}, runs{}
	t.sealed, t.sealing, t.built = nil, nil, nil
	t.meta = meta{topicID: topicID, width: t.store.width, next: Unknown}
	t.next, t.head, t.live = Unknown, 0, 0
	t.batch.Reset()
	err := t.batch.DeleteRange(partitionPrefix(nil, t.partition), append(partitionPrefix(nil, t.partition), 0xFF), nil)
	if err == nil {
		err = t.batch.Commit(pebble.NoSync)
	}
	if err != nil {
		return fmt.Errorf("empty dedup set of partition %d: %w", t.partition, err)
	}
	return nil
}

// Next returns the offset in the enriched partition up to which the set holds all ids
// within the window, or Unknown.
func (t *Set) Next() int64 { return t.next }

// Len returns the number of ids in the set, without those of the open transaction.
func (t *Set) Len() int { return t.runs.total() + t.done }

// MemoryBytes returns the memory of the set.
func (t *Set) MemoryBytes() int {
	n := 10*len(t.front.hashes) + t.sealed.bytes()
	if t.sealing != nil {
		n += 10 * len(t.sealing.hashes)
	}
	return n + 4*cap(t.runs.buckets) + cap(t.arena) + 32*cap(t.ids) + 4*len(t.index.slots)
}

// Looked returns how many slots of its tables the set has looked at since it was
// opened.
func (t *Set) Looked() int64 {
	return t.front.probes + t.front.placed + t.index.probes + t.index.placed
}

// Pending returns how many ids the open transaction added.
func (t *Set) Pending() int { return len(t.ids) - t.done }

// oldest returns the first bucket of the window that ends with head.
func oldest(head uint32) uint32 { return head - min(head, bucketsPerWindow) }

// Reach returns how far back the ids on disk go: up to the store's window, or less if
// Config.MaxIDs shortened it or the log begins later.
func (t *Set) Reach() time.Duration {
	return t.store.buckets(t.head - min(t.head, t.runs.oldest()))
}

func (s *Store) buckets(n uint32) time.Duration {
	return time.Duration(n) * time.Duration(s.width) * time.Microsecond
}

// shortened returns the first bucket to keep of the window that ends with head, so that
// no more ids are kept than allowed. The newest bucket is always kept.
func (t *Set) shortened(head uint32) uint32 {
	first := oldest(head)
	if t.store.maxIDs == 0 {
		return first
	}
	forgets := false
	for left := t.Len(); left > t.store.maxIDs && first < head; first++ {
		ids := t.runs.idsOf(first)
		left -= ids
		forgets = forgets || ids > 0
	}
	if forgets {
		t.store.log.Warn("more message ids than dedup-max-ids: older ones leave early, and events sent again under them count again",
			"partition", t.partition, "ids", t.Len(), "dedup_max_ids", t.store.maxIDs, "remembered", t.store.buckets(head-first))
	}
	return first
}

// bucket returns the bucket of an instant, clamped to the window, and advances the
// window's head.
func (t *Set) bucket(received int64, appended time.Time) uint32 {
	b := uint32(max(received, 0) / t.store.width)
	if b > t.live { // once per bucket
		limit := uint32(max(appended.Add(maxAhead).UnixMicro(), 0) / t.store.width)
		t.live = max(t.live, min(b, limit))
	}
	return min(max(b, oldest(t.live)), t.live)
}

// Seen reports whether the message was seen within the window, in this transaction or
// before. id identifies it within the app, as event.Message; app and id may change
// afterwards.
func (t *Set) Seen(app, id string) (bool, error) {
	t.arena = t.arena[:t.kept]
	t.arena = binary.AppendUvarint(t.arena, uint64(len(app)))
	t.arena = append(t.arena, app...)
	t.arena = append(t.arena, id...)
	key := t.arena[t.kept:]
	t.asked = t.store.hash(key)
	for slot, i := t.index.first(t.asked); i >= 0; slot, i = t.index.next(slot) {
		p := &t.ids[i]
		if p.hash == t.asked && string(t.arena[p.off:p.off+p.n]) == string(key) {
			return true, nil
		}
	}
	return t.onDisk(t.asked, key)
}

// Add adds the message of the last call of Seen, which must have returned false.
// received is its received_at in microseconds since the epoch, and appended the append
// time of its record.
func (t *Set) Add(received int64, appended time.Time) {
	t.ids = append(t.ids, recentID{
		hash: t.asked, bucket: t.bucket(received, appended), off: uint32(t.kept), n: uint32(len(t.arena) - t.kept),
	})
	t.kept = len(t.arena)
	t.index.add(t.asked, uint32(len(t.ids)-1), t.ids)
}

// onDisk reports whether the id is on disk. Every entry of its hash in the
// tables is confirmed there, in the runs that the entry names.
func (t *Set) onDisk(h uint64, id []byte) (bool, error) {
	for _, f := range [2]*front{&t.front, t.sealing} {
		if f == nil {
			continue
		}
		for i := f.first(h); i >= 0; i = f.next(h, i) {
			if seen, err := t.inRun(runOf{f.runs[i], t.runs.buckets[f.runs[i]]}, id); seen || err != nil {
				return seen, err
			}
		}
	}
	return t.sealed.find(h, func(runs []runOf) (bool, error) {
		for _, r := range runs {
			if seen, err := t.inRun(r, id); seen || err != nil {
				return seen, err
			}
		}
		return false, nil
	})
}

// inRun reports whether the id is in a run on disk.
func (t *Set) inRun(r runOf, id []byte) (bool, error) {
	t.key = t.diskKey(t.key[:0], r, xxhash.Sum64(id), id)
	_, closer, err := t.store.db.Get(t.key)
	switch {
	case err == nil:
		return true, closer.Close()
	case errors.Is(err, pebble.ErrNotFound):
		return false, nil
	}
	return false, t.store.unreadable(t.partition, err)
}

func (t *Set) diskKey(dst []byte, r runOf, order uint64, id []byte) []byte {
	dst = bucketPrefix(dst, t.partition, r.bucket)
	dst = binary.BigEndian.AppendUint16(dst, r.run)
	dst = binary.BigEndian.AppendUint64(dst, order)
	return append(dst, id...)
}

// Commit keeps the ids of the open transaction, which was committed. next is the offset
// after its last record in the enriched partition, or Unknown if it wrote none there.
// From time to time Commit writes ids to disk.
func (t *Set) Commit(next int64) error {
	t.done, t.head = len(t.ids), t.live
	if next != Unknown {
		t.next = next
	}
	if t.kept < t.store.recent {
		return nil
	}
	return t.flush()
}

// flush writes the recent ids to disk. No transaction may have added ids.
func (t *Set) flush() error {
	t.Rollback()
	m := t.meta
	m.next, m.head = t.next, t.head
	if m == t.meta && t.done == 0 {
		return nil
	}
	m.ids = int64(t.Len())
	// Pebble handles a sorted batch faster.
	for i := range t.ids {
		p := &t.ids[i]
		p.order = xxhash.Sum64(t.arena[p.off : p.off+p.n])
	}
	slices.SortFunc(t.ids, recentID.compare)
	first := t.shortened(m.head)
	if err := t.write(m, first); err != nil {
		return fmt.Errorf("write dedup set of partition %d: %w", t.partition, err)
	}
	if t.runs.oldest() < first {
		t.front.drop(func(run uint16) bool { return t.runs.buckets[run] < first })
		t.runs.drop(first)
	}
	t.meta = m
	for i := range t.ids {
		t.front.insert(t.ids[i].hash, t.ids[i].run)
	}
	t.clear()
	return t.seal()
}

// write writes the recent ids, and removes the keys before the first bucket.
func (t *Set) write(m meta, first uint32) error {
	b := t.batch
	b.Reset()
	if t.runs.oldest() < first {
		err := b.DeleteRange(bucketPrefix(nil, t.partition, 0), bucketPrefix(nil, t.partition, first), nil)
		if err != nil {
			return err
		}
	}
	ids := t.ids
	for len(ids) > 0 {
		// A set that was not written to for long may have many buckets to remove at
		// once.
		bucket := max(ids[0].bucket, first)
		n := 1
		for n < len(ids) && max(ids[n].bucket, first) == bucket {
			n++
		}
		run := t.runs.take(bucket, n)
		if n == len(ids) {
			if err := t.writeMeta(m, run); err != nil {
				return err
			}
		}
		for i := range ids[:n] {
			p := &ids[i]
			p.run = run
			op := b.SetDeferred(keyHeader+int(p.n), 0)
			t.diskKey(op.Key[:0], runOf{run, bucket}, p.order, t.arena[p.off:p.off+p.n])
			if err := op.Finish(); err != nil {
				return err
			}
		}
		ids = ids[n:]
	}
	if len(t.ids) == 0 {
		if err := t.writeMeta(m, t.runs.take(m.head, 0)); err != nil {
			return err
		}
	}
	return b.Commit(pebble.NoSync)
}

func (t *Set) writeMeta(m meta, run uint16) error {
	t.key = t.diskKey(t.key[:0], runOf{run, t.runs.buckets[run]}, 0, nil)
	return t.batch.Set(t.key, m.append(nil), nil)
}

// Rollback drops the ids of the open transaction.
func (t *Set) Rollback() {
	t.live = t.head
	if len(t.ids) == t.done {
		return
	}
	t.kept = int(t.ids[t.done].off)
	t.ids, t.arena = t.ids[:t.done], t.arena[:t.kept]
	t.index.clear()
	for i := range t.ids {
		t.index.add(t.ids[i].hash, uint32(i), t.ids)
	}
}

func (t *Set) clear() {
	t.ids, t.arena, t.done, t.kept = t.ids[:0], t.arena[:0], 0, 0
	if cap(t.arena) > 4*t.store.recent { // one huge transaction
		t.ids, t.arena = nil, nil
	}
	t.index.clear()
}

// Close writes the committed ids to disk and releases the set's memory.
func (t *Set) Close() error {
	err := t.flush()
	t.sealed, t.sealing = nil, nil
	t.front, t.runs, t.ids, t.arena, t.index = front{}, runs{}, nil, nil, index{}
	return errors.Join(err, t.batch.Close())
}
