package block

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

var (
	cases = flag.Int("block.cases", 1_000_000, "cases of the property test")
	seed  = flag.Uint64("block.seed", 1, "seed of the property test")
)

// cut is a block as a reader built it: what it would insert, under which token.
type cut struct {
	Token string
	Rows  string // offsets, in order
	Next  int64
}

// entry is a slot of the log: a record, or an offset that no reader sees because
// its transaction was aborted or retention took it.
type entry struct {
	Record
	hidden bool
}

var shapes = []Shape{
	{Records: 1, Interval: 10 * time.Millisecond},
	{Records: 3, Interval: 20 * time.Millisecond},
	{Records: 7, Interval: 10 * time.Millisecond},
	{Records: 1000, Interval: 30 * time.Millisecond},
	{Records: 4, Interval: time.Hour},
}

// logOf makes a log: runs of content, aborted transactions, markers, ticks, large
// values, append times that mostly grow and sometimes do not.
func logOf(r *rand.Rand, buf []entry) []entry {
	buf = buf[:0]
	offset, ms := int64(r.IntN(12)), int64(1_795_000_000_000+r.IntN(100))
	for n := 1 + r.IntN(14); n > 0; n-- {
		e := entry{Record: Record{Offset: offset, AppendMillis: ms, Bytes: r.IntN(100)}}
		switch x := r.IntN(20); {
		case x < 3:
			e.Kind = Tick
		case x < 5:
			e.Kind = Marker
		case x < 10:
			e.hidden = true
		case x == 10:
			e.Bytes = MaxBytes/2 + r.IntN(MaxBytes)
		}
		buf = append(buf, e)
		offset++
		switch r.IntN(8) {
		case 0:
			offset += int64(r.IntN(3)) // compacted away, or aborted
		case 1:
			ms -= int64(r.IntN(25)) // another broker's clock
		case 2, 3, 4:
			ms += int64(r.IntN(30))
		}
	}
	return buf
}

// read builds blocks from boundary on and appends them to dst, and the
// boundaries that it could have committed to bounds.
func read(s Shape, log []entry, boundary int64, dst []cut, bounds []int64) ([]cut, []int64) {
	c := NewCutter(s, boundary)
	rows := make([]byte, 0, 64)
	emit := func(b Block, rows []byte) {
		dst = append(dst, cut{b.Token(s, "t", 3, 0), string(rows), b.Next})
	}
	for _, e := range log {
		if e.hidden || e.Offset < boundary {
			continue
		}
		b, ok := c.Next(e.Record)
		if ok {
			emit(b, rows)
			rows = rows[:0]
		}
		if e.Kind == Content {
			rows = fmt.Append(rows, e.Offset, " ")
		}
		bounds = append(bounds, c.Boundary())
	}
	return dst, bounds
}

// Whoever reads, from whichever boundary, whatever retention deleted of what is
// done: the blocks from there on are the same, byte for byte.
func TestBlocksAreAFunctionOfTheLog(t *testing.T) {
	n := *cases
	if testing.Short() {
		n /= 20
	}
	var (
		log          []entry
		all, got     []cut
		ruled        []cut
		bounds, seen []int64
	)
	for i := range n {
		r := rand.New(rand.NewPCG(*seed, uint64(i)))
		s := shapes[r.IntN(len(shapes))]
		log = logOf(r, log)
		all, bounds = read(s, log, 0, all[:0], bounds[:0])
		if len(bounds) == 0 {
			continue
		}
		from := bounds[r.IntN(len(bounds))]
		got, seen = read(s, log, from, got[:0], seen[:0])
		// The blocks that are done at the boundary are those that end before it.
		want := all
		for len(want) > 0 && want[0].Next <= from {
			want = want[1:]
		}
		if len(got) != len(want) || (len(got) > 0 && !reflect.DeepEqual(got, want)) {
			t.Fatalf("-block.seed=%d, case %d: shape %v, log %+v\nfrom boundary %d\ngot  %+v\nwant %+v", *seed, i, s, log, from, got, want)
		}
		if ruled = byTheRules(s, log, ruled[:0]); len(all) != len(ruled) || (len(all) > 0 && !reflect.DeepEqual(all, ruled)) {
			t.Fatalf("-block.seed=%d, case %d: shape %v, log %+v\ngot  %+v\nby the rules %+v", *seed, i, s, log, all, ruled)
		}
	}
}

// byTheRules builds the blocks of a log as the package comment words them, from the
// positions of records and without a state that a Cutter could share.
func byTheRules(s Shape, log []entry, buf []cut) []cut {
	interval := s.Interval.Milliseconds()
	sameKey := func(a, b Record) bool {
		return a.Offset/s.Records == b.Offset/s.Records && a.AppendMillis/interval == b.AppendMillis/interval
	}
	blocks, rows := buf, make([]byte, 0, 64)
	var first *Record // of the open block
	bytes := 0
	for _, e := range log {
		if e.hidden || e.Kind == Marker {
			continue
		}
		if first != nil && (!sameKey(*first, e.Record) || e.Kind == Content && bytes+e.Bytes > MaxBytes) {
			next := e.Offset
			if e.Kind == Tick {
				next++
			}
			blocks = append(blocks, cut{fmt.Sprintf("v2|t|3|%d-%d|%d|%d", first.Offset, e.Offset, s.Records, interval), string(rows), next})
			first, bytes, rows = nil, 0, rows[:0]
		}
		if e.Kind == Content {
			if first == nil {
				first = &Record{Offset: e.Offset, AppendMillis: e.AppendMillis}
			}
			bytes += e.Bytes
			rows = fmt.Append(rows, e.Offset, " ")
		}
	}
	return blocks
}

func TestCutterByHand(t *testing.T) {
	s := Shape{Records: 100, Interval: 10 * time.Millisecond}
	c := NewCutter(s, 5)
	type step struct {
		rec      Record
		ended    Block
		ok       bool
		boundary int64
	}
	for i, st := range []step{
		{Record{Offset: 5, AppendMillis: 20, Kind: Marker}, Block{}, false, 6},
		{Record{Offset: 6, AppendMillis: 20, Kind: Tick}, Block{}, false, 7},
		{Record{Offset: 8, AppendMillis: 20, Bytes: 10}, Block{}, false, 8},
		{Record{Offset: 9, AppendMillis: 29, Kind: Tick}, Block{}, false, 8}, // same key
		{Record{Offset: 10, AppendMillis: 29, Bytes: 10}, Block{}, false, 8},
		{Record{Offset: 11, AppendMillis: 29, Kind: Marker}, Block{}, false, 8},
		{Record{Offset: 12, AppendMillis: 30, Kind: Tick}, Block{Start: 8, End: 12, Records: 2, Bytes: 20, Next: 13}, true, 13},
		{Record{Offset: 13, AppendMillis: 30, Bytes: 1}, Block{}, false, 13},
		{Record{Offset: 14, AppendMillis: 41, Kind: Tick}, Block{Start: 13, End: 14, Records: 1, Bytes: 1, Next: 15}, true, 15},
		{Record{Offset: 99, AppendMillis: 30, Bytes: MaxBytes}, Block{}, false, 99},
		{Record{Offset: 100, AppendMillis: 30, Bytes: 1}, Block{Start: 99, End: 100, Records: 1, Bytes: MaxBytes, Next: 100}, true, 100},
		{Record{Offset: 101, AppendMillis: 30, Bytes: MaxBytes}, Block{Start: 100, End: 101, Records: 1, Bytes: 1, Next: 101}, true, 101},
	} {
		got, ok := c.Next(st.rec)
		if got != st.ended || ok != st.ok || c.Boundary() != st.boundary {
			t.Errorf("step %d: got %+v, %v, boundary %d; want %+v, %v, %d", i, got, ok, c.Boundary(), st.ended, st.ok, st.boundary)
		}
	}
}

// Tokens and metadata are on disk: they never change within a version.
func TestTokenAndMetadataAreGolden(t *testing.T) {
	s := Shape{Records: 50_000, Interval: 5 * time.Second}
	for generation, want := range map[uint32]string{0: "v2|AAAA|3|8-12|50000|5000", 2: "v2|AAAA|3|8-12|50000|5000|g2"} {
		if got := (Block{Start: 8, End: 12}).Token(s, "AAAA", 3, generation); got != want {
			t.Errorf("token of generation %d: got %s, want %s", generation, got, want)
		}
	}
	for want, c := range map[string]Commit{
		"v2|50000|5000|AAAA|77|0|open":   {Shape: s, TopicID: "AAAA", Mark: 77},
		"v2|50000|5000|AAAA|77|3|clean":  {Shape: s, TopicID: "AAAA", Mark: 77, Generation: 3, Clean: true},
		"v2|50000|5000|AAAA|0|1|rebuild": {Shape: s, TopicID: "AAAA", Generation: 1, Rebuild: true},
		"v2|50000|5000|AAAA|7|1|open|99": {Shape: s, TopicID: "AAAA", Mark: 7, Generation: 1, Replay: 99},
	} {
		if got := c.Metadata(); got != want {
			t.Errorf("metadata: got %s, want %s", got, want)
		}
		if got, err := ParseCommit(want); err != nil || got != c {
			t.Errorf("parsed: got %+v, %v, want %+v", got, err, c)
		}
	}
	for _, bad := range []string{
		"", "v2|50000|5000", "v2|50000|5000|A|1", "v3|50000|5000|A|1|0|open", "v2|0|5000|A|1|0|open", "v2|5|x|A|1|0|open", "v2|5|5000||1|0|open",
		"v2|5|5000|A|-1|0|open", "v2|5|5000|A|1|-1|open", "v2|5|5000|A|1|0|dirty", "v2|5|5000|A|1|0|open|x",
		"v2|5|5000|A|1|0|open|0", "v2|5|5000|A|1|0|open|-1", "v2|5|5000|A|1|0|open|1|1",
	} {
		if _, err := ParseCommit(bad); err == nil {
			t.Errorf("metadata %q was taken", bad)
		}
	}
}

// A commit of version 1 is never taken for one of this version; it is taken over
// where it says that nothing was sent from its boundary on.
func TestCommitsOfVersion1(t *testing.T) {
	const clean, open = "v1|50000|5000|AAAA|77|3|clean", "v1|50000|5000|AAAA|77|3|open"
	for _, m := range []string{clean, open} {
		if _, err := ParseCommit(m); !errors.Is(err, ErrVersion1) {
			t.Errorf("%s: got %v, want %v", m, err, ErrVersion1)
		}
	}
	want := Commit{Shape: Shape{Records: 50_000, Interval: 5 * time.Second}, TopicID: "AAAA", Mark: 77, Generation: 3, Clean: true}
	if got, err := TakeOver(clean); err != nil || got != want {
		t.Errorf("taken over: got %+v, %v, want %+v", got, err, want)
	}
	for _, m := range []string{open, "v2|50000|5000|AAAA|77|3|clean", "v1|50000|5000|AAAA|77|3|rebuild", "", "v1|5"} {
		if c, err := TakeOver(m); err == nil {
			t.Errorf("%q was taken over as %+v", m, c)
		}
	}
}

func TestEndOfInterval(t *testing.T) {
	s := Shape{Records: 1, Interval: 10 * time.Millisecond}
	for _, tc := range [][2]int64{{0, 10}, {9, 10}, {10, 20}, {-1, 0}, {-10, 0}} {
		if got := s.EndOfInterval(tc[0]); got != tc[1] {
			t.Errorf("EndOfInterval(%d) = %d, want %d", tc[0], got, tc[1])
		}
		if s.key(0, tc[0]) == s.key(0, tc[1]) || s.key(0, tc[0]) != s.key(0, tc[1]-1) {
			t.Errorf("key around %d", tc[1])
		}
	}
}

func TestShapeValidate(t *testing.T) {
	for _, s := range []Shape{{}, {Records: 1}, {Records: 0, Interval: time.Second}, {Records: 1, Interval: time.Microsecond * 10500}, {Records: 2_000_000, Interval: time.Second}} {
		if s.Validate() == nil {
			t.Errorf("%+v was taken", s)
		}
	}
	if err := (Shape{Records: 50_000, Interval: time.Second}).Validate(); err != nil {
		t.Error(err)
	}
}

func BenchmarkCutter(b *testing.B) {
	c := NewCutter(Shape{Records: 50_000, Interval: time.Second}, 0)
	b.ReportAllocs()
	for i := range b.N {
		c.Next(Record{Offset: int64(i), AppendMillis: int64(i / 50), Bytes: 400})
	}
	b.ReportMetric(1, "records/op") // it reads none of their bytes
}
