package dedup

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"

	"github.com/uptakehq/uptake/schemas/collide"
)

var (
	quiet  = slog.New(slog.DiscardHandler)
	topicA = [16]byte{1}
	topicB = [16]byte{2}
)

const hour = int64(time.Hour / time.Microsecond)

// start is the instant that tests count from.
var start = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func at(h int64) int64 { return start.UnixMicro() + h*hour }

type fixture struct {
	t     testing.TB
	cfg   Config
	now   time.Time
	seal  int // ids that are sealed at once: few, so that every test has such
	store *Store
	set   *Set
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{t: t, cfg: DefaultConfig(filepath.Join(t.TempDir(), "dedup")), now: start.Add(30 * 24 * time.Hour), seal: 400}
	f.cfg.Recent = 1 << 10
	f.open()
	t.Cleanup(f.close)
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	s, err := Open(f.cfg, quiet)
	if err != nil {
		f.t.Fatal(err)
	}
	f.store, s.sealLeast = s, f.seal
	f.set = f.partition(3, topicA)
}

func (f *fixture) partition(id int32, topicID [16]byte) *Set {
	f.t.Helper()
	set, err := f.store.Set(context.Background(), id, topicID, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return set
}

func (f *fixture) close() {
	f.t.Helper()
	if f.store == nil {
		return
	}
	if err := errors.Join(f.set.Close(), f.store.Close()); err != nil {
		f.t.Error(err)
	}
	f.store = nil
}

// add says whether the id was seen, and adds it if not.
func (f *fixture) add(app, id string, received int64) bool {
	f.t.Helper()
	seen, err := f.set.Seen(app, id)
	if err != nil {
		f.t.Fatal(err)
	}
	if !seen {
		f.set.Add(received, f.now)
	}
	return seen
}

func (f *fixture) commit(next int64) {
	f.t.Helper()
	if err := f.set.Commit(next); err != nil {
		f.t.Fatal(err)
	}
}

func TestSeenWithinAndAcrossTransactions(t *testing.T) {
	f := newFixture(t)
	if f.set.Next() != Unknown {
		t.Errorf("a new set is complete up to %d", f.set.Next())
	}
	if f.add("dev", "1", at(0)) {
		t.Error("a new id was seen")
	}
	if !f.add("dev", "1", at(0)) {
		t.Error("an id of the same transaction was not seen")
	}
	if f.add("prod", "1", at(0)) {
		t.Error("an id of another app was seen")
	}
	// An app and an id are not one text.
	if f.add("de", "v1", at(0)) {
		t.Error("another app's id with the same text was seen")
	}
	f.commit(10)
	if !f.add("dev", "1", at(1)) || f.add("dev", "2", at(1)) {
		t.Error("after a commit: got the wrong answers")
	}
	f.set.Rollback()
	if f.add("dev", "2", at(1)) {
		t.Error("an id of a transaction that was rolled back was seen")
	}
	f.set.Rollback()
	// Asked for and not added, as of an event that was rejected.
	if seen, err := f.set.Seen("dev", "3"); seen || err != nil {
		t.Errorf("got %v, %v", seen, err)
	}
	if f.add("dev", "3", at(1)) {
		t.Error("an id that was asked for but not added was seen")
	}
	f.commit(Unknown)
	if got := f.set.Next(); got != 10 {
		t.Errorf("next after a commit without an offset: got %d, want 10", got)
	}
	if got := f.set.Len(); got != 4 {
		t.Errorf("ids: got %d, want 4", got)
	}
}

func TestReopenedAfterClose(t *testing.T) {
	f := newFixture(t)
	for k := range 5000 {
		f.add("dev", fmt.Sprint(k), at(int64(k%100)))
		if k%1000 == 999 {
			f.commit(int64(k + 1))
		}
	}
	f.close()
	f.open()
	if f.set.Next() != 5000 || f.set.Len() != 5000 {
		t.Errorf("reopened: next %d, ids %d; want 5000 of both", f.set.Next(), f.set.Len())
	}
	for k := range 5000 {
		if !f.add("dev", fmt.Sprint(k), at(100)) {
			t.Fatalf("id %d was forgotten", k)
		}
	}
	// Partitions do not share ids.
	other := f.partition(4, topicA)
	if seen, err := other.Seen("dev", "1"); seen || err != nil {
		t.Errorf("another partition: got %v, %v", seen, err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}

// A process that dies leaves the state of some earlier commit, with its offset:
// all ids before it are there, and none of a later commit without its offset.
func TestCrashLeavesAnEarlierCommit(t *testing.T) {
	f := newFixture(t)
	const perCommit, commits = 500, 120 // several memtables
	for c := range commits {
		for k := range perCommit {
			f.add("dev", fmt.Sprintf("%d-%d-%0100d", c, k, 0), at(int64(c)))
		}
		f.commit(int64(c+1) * perCommit)
	}
	crashed := f.crash()
	g := &fixture{t: t, cfg: f.cfg, now: f.now}
	g.cfg.Dir = crashed
	g.open()
	defer g.close()
	next := g.set.Next()
	if next <= 0 || next > commits*perCommit || next%perCommit != 0 {
		t.Fatalf("the crash left offset %d", next)
	}
	t.Logf("the crash left %d of %d", next, commits*perCommit)
	if got := int64(g.set.Len()); got != next {
		t.Errorf("ids: got %d, want %d", got, next)
	}
	for c := range commits {
		for k := range perCommit {
			want := int64(c) < next/perCommit
			if seen, err := g.set.Seen("dev", fmt.Sprintf("%d-%d-%0100d", c, k, 0)); err != nil || seen != want {
				t.Fatalf("id %d of commit %d: got %v, %v; want %v", k, c, seen, err, want)
			}
		}
	}
}

// crash returns a copy of the files as they are while the process runs: what a
// crash leaves.
func (f *fixture) crash() string {
	f.t.Helper()
	list := func() (files []string) {
		entries, err := os.ReadDir(f.cfg.Dir)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil { // or it has gone since
				files = append(files, fmt.Sprint(e.Name(), info.Size(), info.ModTime()))
			}
		}
		return files
	}
	for {
		dir, before := filepath.Join(f.t.TempDir(), "crashed"), list()
		err := os.CopyFS(dir, os.DirFS(f.cfg.Dir))
		if slices.Equal(before, list()) { // of one instant: nothing was written or merged meanwhile
			if err != nil {
				f.t.Fatal(err)
			}
			return dir
		}
	}
}

func TestForgetsAfterTheWindow(t *testing.T) {
	f := newFixture(t)
	const window = 7 * 24
	for h := range int64(3 * window) {
		id := fmt.Sprint("at hour ", h)
		if f.add("dev", id, at(h)) {
			t.Fatalf("hour %d: a new id was seen", h)
		}
		if old := h - window; old >= 0 && !f.add("dev", fmt.Sprint("at hour ", old), at(h)) {
			t.Fatalf("hour %d: an id of the window was forgotten", h)
		}
		f.commit(h)
		if h%97 == 0 {
			f.close()
			f.open()
		}
	}
	// What left goes when ids go to disk. A bucket is 6 hours: at most one more
	// than the window is kept, and what the end of the window cuts.
	f.close()
	f.open()
	if got, most := f.set.Len(), window+12; got > most || got < window {
		t.Errorf("ids: got %d, want %d to %d", got, window, most)
	}
	if f.add("dev", "at hour 10", at(3*window)) {
		t.Error("an id from before the window was seen")
	}
}

// More ids than are allowed make the window shorter, bucket by bucket, on disk as
// in memory, and what is left of it is remembered exactly. The newest bucket is
// never too large.
func TestMaxIDs(t *testing.T) {
	f := newFixture(t)
	f.close()
	const perHour, most = 100, 100 * 6 * 5 // five buckets
	f.cfg.MaxIDs = most
	f.open()
	id := func(h, k int64) string { return fmt.Sprintf("%d-%d", h, k) }
	for h := range int64(6 * 40) { // a window and a half
		for k := range int64(perHour) {
			if f.add("dev", id(h, k), at(h)) {
				t.Fatalf("a new id of hour %d was seen", h)
			}
		}
		f.commit(h)
		if h%23 == 0 {
			f.close()
			f.open()
		}
		if got := f.set.Len(); got > most+2*perHour*6 {
			t.Fatalf("hour %d: %d ids, of %d allowed and the newest bucket", h, got, most)
		}
		for _, back := range []int64{0, 6, 18} {
			if old := h - back; old >= 0 && !f.add("dev", id(old, 7), at(h)) {
				t.Fatalf("hour %d: an id of %d hours before was forgotten", h, back)
			}
		}
		if old := h - 6*8; old >= 0 {
			if seen, err := f.set.Seen("dev", id(old, 7)); seen || err != nil {
				t.Fatalf("hour %d: an id of 8 buckets before: %t, %v", h, seen, err)
			}
		}
	}
	for range 2 {
		if got := f.set.Reach(); got < 3*6*time.Hour || got > 6*6*time.Hour {
			t.Errorf("ids go back %s", got)
		}
		f.close()
		f.open()
	}

	for k := range int64(3 * most) { // all at once
		f.add("dev", id(-1, k), at(6*40))
	}
	f.commit(1000)
	f.close()
	f.open()
	for k := range int64(3 * most) {
		if !f.add("dev", id(-1, k), at(6*40)) {
			t.Fatal("an id of the newest bucket was forgotten")
		}
	}
}

// One gateway whose clock is ahead does not make a partition forget, and one
// that is behind, or a raw topic read late, adds to the window's last bucket.
func TestWrongClocks(t *testing.T) {
	f := newFixture(t)
	f.now = time.UnixMicro(at(0))
	f.add("dev", "now", at(0))
	f.commit(1)
	f.add("dev", "from the future", at(10_000))
	f.commit(2)
	f.add("dev", "from the past", at(-10_000))
	f.add("dev", "before the epoch", -hour)
	f.commit(3)
	for _, id := range []string{"now", "from the future", "from the past", "before the epoch"} {
		if !f.add("dev", id, at(1)) {
			t.Errorf("%q was forgotten", id)
		}
	}
}

// Of the first layout of keys nothing is read, and nothing stays.
func TestFirstLayoutStartsEmpty(t *testing.T) {
	f := newFixture(t)
	old := append(binary.BigEndian.AppendUint32(nil, 3), 'k')
	old = append(old, make([]byte, 4+8)...)
	meta := append(binary.BigEndian.AppendUint32(nil, 3), 'm')
	for _, key := range [][]byte{append(old, "\x03dev1"...), meta} {
		if err := f.store.db.Set(key, []byte{1}, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	f.close()
	f.open()
	if f.set.Next() != Unknown || f.set.Len() != 0 {
		t.Errorf("next %d, %d ids", f.set.Next(), f.set.Len())
	}
	it, err := f.store.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	if it.First() {
		t.Errorf("%x is left", it.Key())
	}
}

// What was written once is not written again, however many ids there are, and
// files lie beside each other, so that a look needs one.
func TestRunsAreNotMerged(t *testing.T) {
	f := newFixture(t)
	f.close()
	f.cfg.Recent = 64 * shortRun
	f.open()
	for w := range 20 {
		for k := range shortRun {
			f.add("dev", fmt.Sprintf("%08d-%064d", w, k), at(0))
		}
		f.commit(int64(w))
	}
	if err := f.store.db.Flush(); err != nil {
		t.Fatal(err)
	}
	m := f.store.db.Metrics()
	total := m.Total()
	if total.TableBytesFlushed == 0 || total.TableBytesCompacted > 0 || m.Levels[0].Sublevels > 3 { // two are of the ranges that Reset deleted
		t.Errorf("of %d bytes written %d were written again, %d files lie over each other", total.TableBytesFlushed, total.TableBytesCompacted, m.Levels[0].Sublevels)
	}
}

func TestRunNumbers(t *testing.T) {
	var r runs
	live := map[uint16]uint32{}
	take := func(bucket uint32, ids int) uint16 {
		t.Helper()
		run := r.take(bucket, ids)
		if b, ok := live[run]; ok && b != bucket {
			t.Fatalf("run %d of bucket %d was given to bucket %d", run, b, bucket)
		}
		live[run] = bucket
		return run
	}
	first := take(7, shortRun-1)
	if again := take(7, 1); again != first {
		t.Error("a short run was not continued")
	}
	if again := take(7, 1); again == first {
		t.Error("a long run was continued")
	}
	const most = manyRuns + bucketsPerWindow + 1
	for i := range uint32(3 * manyRuns) { // far more runs than numbers
		bucket := 8 + i/4000
		if i%4000 == 0 && bucket > bucketsPerWindow {
			before := bucket - bucketsPerWindow
			r.drop(before)
			maps.DeleteFunc(live, func(_ uint16, b uint32) bool { return b < before })
		}
		take(bucket-min(i%2, bucket-8), shortRun)
		if len(live) > most {
			t.Fatalf("%d runs", len(live))
		}
	}
	// What is found on disk continues what was.
	var found runs
	for _, run := range slices.SortedFunc(maps.Keys(live), func(a, b uint16) int {
		return cmp.Or(cmp.Compare(live[a], live[b]), cmp.Compare(a, b))
	}) {
		found.found(run, live[run])
	}
	found.allFound()
	if used := len(found.buckets) - len(found.free); used != len(live) {
		t.Errorf("%d runs of %d were found", used, len(live))
	}
	r = found
	for i := range 1000 {
		take(8+3*manyRuns/4000-uint32(i%2), shortRun)
	}
}

func TestAnotherTopicOrWindowStartsEmpty(t *testing.T) {
	f := newFixture(t)
	f.add("dev", "1", at(0))
	f.commit(7)
	if err := f.set.Close(); err != nil {
		t.Fatal(err)
	}
	f.set = f.partition(3, topicB)
	if f.set.Next() != Unknown || f.set.Len() != 0 || f.add("dev", "1", at(0)) {
		t.Error("a set of another topic has ids")
	}
	f.commit(9)
	f.close()
	f.cfg.Window *= 2
	f.store, f.set = nil, nil
	s, err := Open(f.cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	f.store, f.set = s, nil
	f.set = f.partition(3, topicB)
	if f.set.Next() != Unknown || f.add("dev", "1", at(0)) {
		t.Error("a set of another window has ids")
	}
}

func TestBrokenStoreIsMadeAnew(t *testing.T) {
	f := newFixture(t)
	f.add("dev", "1", at(0))
	f.commit(7)
	f.close()
	files, err := filepath.Glob(filepath.Join(f.cfg.Dir, "MANIFEST-*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		if err := os.WriteFile(name, []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.open()
	if f.set.Next() != Unknown || f.add("dev", "1", at(0)) {
		t.Error("a broken store has ids")
	}
}

func TestTwoProcessesDoNotShareAStore(t *testing.T) {
	f := newFixture(t)
	if s, err := Open(f.cfg, quiet); !errors.Is(err, errLocked) {
		t.Errorf("second open: got %v, %v", s, err)
	}
}

// Message ids that collide under XXH64 without a seed once cost the square of
// their number: in memory, on their way to disk, when they are sent again and
// when they are read from disk.
func TestCraftedIDsCostNoMoreThanOthers(t *testing.T) {
	f := newFixture(t)
	const n = 8000
	crafted := collide.XXH64("\x03dev", n)
	once := func(what string, most int64) {
		t.Helper()
		if got := f.set.Looked(); got > most {
			t.Errorf("%s: %d slots looked at, want at most %d", what, got, most)
		}
	}
	f.store.recent = 1 << 20 // all of them in memory
	for _, id := range crafted {
		if f.add("dev", id, at(0)) {
			t.Fatalf("%q was seen", id)
		}
	}
	f.commit(1)
	once("new ids", 30*n)
	for _, id := range crafted {
		if !f.add("dev", id, at(0)) {
			t.Fatalf("%q was not seen", id)
		}
	}
	once("ids in memory again", 40*n)
	f.close()
	f.open()
	once("from disk", 30*n)
	for _, id := range crafted[:n/8] {
		if !f.add("dev", id, at(0)) {
			t.Fatalf("%q on disk was not seen", id)
		}
	}
	once("ids on disk again", 60*n)
}

// An entry far from its slot gives the tables another way to mix hashes.
func TestTablesTakeAnotherMix(t *testing.T) {
	const n = maxProbes + maxProbes/4
	var f front
	f.reserve(2 * maxProbes)
	known := f.factor
	inverse := known // modulo 2^64
	for range 5 {
		inverse *= 2 - known*inverse
	}
	hash := func(i int) uint64 { return inverse * uint64(i+1) } // which is i+1 once it is mixed
	for i := range n {
		f.insert(hash(i), 0)
	}
	f.probes = 0
	for i := range n {
		if f.first(hash(i)) < 0 {
			t.Fatalf("hash %d is lost", i)
		}
	}
	if f.factor == known || f.probes > n*maxProbes/4 {
		t.Errorf("front: factor kept: %v, %d slots looked at for %d hashes", f.factor == known, f.probes, n)
	}

	var x index
	ids := make([]recentID, n)
	for i := range n {
		ids[i].hash = uint64(i) // the slot is in the upper half once it is mixed
		x.add(ids[i].hash, uint32(i), ids)
	}
	x.probes = 0
	for i := range n {
		slot, at := x.first(ids[i].hash)
		for at != i && at >= 0 {
			slot, at = x.next(slot)
		}
		if at != i {
			t.Fatalf("id %d is lost", i)
		}
	}
	if x.salt == 0 || x.probes > n*maxProbes/4 {
		t.Errorf("index: salt kept: %v, %d slots looked at for %d ids", x.salt == 0, x.probes, n)
	}
}

// With a hash that collides nearly always, no event is taken for another.
func TestCollisionsLoseNothing(t *testing.T) {
	f := newFixture(t)
	f.store.hash = func(b []byte) uint64 { return xxhash.Sum64(b) % 7 }
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[string]bool{}
	for k := range 3000 {
		id := fmt.Sprint(r.IntN(1500))
		if got := f.add("dev", id, at(int64(r.IntN(160)))); got != seen[id] {
			t.Fatalf("step %d, id %s: got %v, want %v", k, id, got, seen[id])
		}
		seen[id] = true
		if r.IntN(50) == 0 {
			f.commit(int64(k))
		}
	}
}

// A stop does not wait for a disk that takes nothing.
func TestCloseWithoutADisk(t *testing.T) {
	f := newFixture(t)
	f.add("dev", "1", at(0))
	f.commit(1)
	store := f.store
	store.patience = 50 * time.Millisecond
	f.store = nil // it is closed here
	if err := os.RemoveAll(f.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- errors.Join(f.set.Close(), store.Close()) }()
	select {
	case err := <-closed:
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("closed with %v, want an error of the disk", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for the disk")
	}
	// Pebble goes on trying, and lets the store go when it can.
	if err := os.Mkdir(f.cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	store.late.Wait()
}

// Random transactions against a map of what was committed.
func TestAgainstAMap(t *testing.T) {
	f := newFixture(t)
	r := rand.New(rand.NewPCG(3, 4))
	committed := map[string]bool{}
	for txn := range 300 {
		added := map[string]bool{}
		for range r.IntN(200) {
			id := fmt.Sprint(r.IntN(20_000))
			if got, want := f.add("dev", id, at(int64(txn/10))), committed[id] || added[id]; got != want {
				t.Fatalf("transaction %d, id %s: got %v, want %v", txn, id, got, want)
			}
			added[id] = true
		}
		switch r.IntN(10) {
		case 0:
			f.set.Rollback()
			continue
		case 1:
			f.commit(int64(txn))
			f.close()
			f.open()
		default:
			f.commit(int64(txn))
		}
		for id := range added {
			committed[id] = true
		}
	}
	if got := f.set.Len(); got != len(committed) {
		t.Errorf("ids: got %d, want %d", got, len(committed))
	}
}

func TestValidateNamesEverySetting(t *testing.T) {
	c := Config{Window: time.Second, Recent: 1, MaxIDs: -1}
	err := c.Validate()
	want := "dedup directory must be named\n" +
		"dedup-window must be at least 28s (got 1s)\n" +
		"dedup-cache-bytes must be at least 1 MiB (got 0)\n" +
		"dedup-recent-bytes must be 1 KiB to 1 GiB (got 1)\n" +
		"dedup-max-ids must be >= 0 (got -1)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// ids returns n message ids as an SDK makes them.
func ids(n int) []string {
	r := rand.New(rand.NewPCG(5, 6))
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", r.Uint32(), r.Uint32()&0xffff, r.Uint32()&0xfff, r.Uint32()&0xfff, r.Uint64()&0xffffffffffff)
	}
	return out
}

// cpu returns a function that reports the processor time used since, which the
// neighbours on a shared machine do not change as they do the wall time.
func cpu(b *testing.B) func() {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	began := used()
	return func() { b.ReportMetric(float64(used()-began)/float64(b.N), "cpu-ns/op") }
}

// A new id against a set of 2 million: what nearly every event costs.
func BenchmarkSeenNew(b *testing.B) {
	f := newFixture(b)
	f.cfg.Recent = 4 << 20
	f.set.runs.take(0, 2_000_000)
	h := uint64(1)
	for range 2_000_000 {
		h = h*0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03
		f.set.front.insert(h, 0)
	}
	f.set.sealed = seal(nil, f.set.front.hashes, f.set.front.runs, f.set.runs.buckets, 0, 2_000_000/blockIDs)
	f.set.front = front{}
	all := ids(1 << 16)
	one := func(k int) {
		if k%10_000 == 0 {
			f.set.Rollback()
		}
		if seen, err := f.set.Seen("mypos", all[k%len(all)]); err != nil {
			b.Fatal(err)
		} else if !seen {
			f.set.Add(at(0), f.now)
		}
	}
	for k := range 10_000 { // the room for a transaction is there
		one(k)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len("mypos") + len(all[0])))
	b.ResetTimer()
	report := cpu(b)
	for k := 0; b.Loop(); k++ {
		one(k)
	}
	report()
	b.ReportMetric(float64(f.set.MemoryBytes())/float64(f.set.Len()), "bytes/id")
}

// A new id with its share of the commit, to memory and to disk.
func BenchmarkNewAndCommit(b *testing.B) {
	f := newFixture(b)
	f.close()
	f.cfg.Recent, f.seal = 4<<20, sealLeast
	f.open()
	b.ReportAllocs()
	var id [36]byte
	b.SetBytes(int64(len("mypos") + len(id)))
	copy(id[:], "00000000-0000-4000-8000-000000000000")
	n, next := uint64(0), int64(0)
	report := cpu(b)
	for b.Loop() {
		n++
		h := n * 0x9E3779B97F4A7C15
		for i := range 8 {
			id[i] = "0123456789abcdef"[h>>(4*i)&15]
			id[i+28] = "0123456789abcdef"[h>>(4*i+32)&15]
		}
		if seen, err := f.set.Seen("mypos", string(id[:])); err != nil {
			b.Fatal(err)
		} else if !seen {
			f.set.Add(at(int64(n/1_000_000)), f.now)
		}
		if n%10_000 == 0 {
			next += 10_000
			f.commit(next)
		}
	}
	report()
}

// A duplicate: confirmed on disk.
func BenchmarkSeenDuplicate(b *testing.B) {
	f := newFixture(b)
	f.close()
	f.cfg.Recent, f.seal = 4<<20, sealLeast
	f.open()
	all := ids(1 << 18)
	for i, id := range all {
		f.add("mypos", id, at(0))
		if i%10_000 == 0 {
			f.commit(int64(i))
		}
	}
	f.commit(int64(len(all)))
	b.ReportAllocs()
	b.SetBytes(int64(len("mypos") + len(all[0])))
	b.ResetTimer()
	report := cpu(b)
	for k := 0; b.Loop(); k++ {
		if seen, err := f.set.Seen("mypos", all[(k*7919)%len(all)]); !seen || err != nil {
			b.Fatal(seen, err)
		}
	}
	report()
}
