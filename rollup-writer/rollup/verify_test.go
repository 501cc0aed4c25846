package rollup

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// lose removes the parts of a table that were inserted between two marks from the disk
// and keeps their tokens: what a server leaves behind that dies between the record
// of a token and the rename of the part.
func (b *bench) lose(table string, after, to int64) (rows int64) {
	b.T.Helper()
	ctx := context.Background()
	where := fmt.Sprintf("database = currentDatabase() AND table = '%s' AND active AND min_block_number > %d AND min_block_number <= %d", table, after, to)
	rows = b.Number("SELECT sum(rows) FROM system.parts WHERE " + where)
	list, err := b.SQL.Query(ctx, "SELECT path FROM system.parts WHERE "+where)
	if err != nil {
		b.T.Fatal(err)
	}
	var paths []string
	for list.Next() {
		var p string
		if err := list.Scan(&p); err != nil {
			b.T.Fatal(err)
		}
		paths = append(paths, p)
	}
	list.Close()
	if err := b.SQL.Exec(ctx, "DETACH TABLE "+table+" SYNC"); err != nil {
		b.T.Fatal(err)
	}
	for _, p := range paths {
		if err := os.RemoveAll(p); err != nil {
			b.T.Fatal(err)
		}
	}
	if err := b.SQL.Exec(ctx, "ATTACH TABLE "+table); err != nil {
		b.T.Fatal(err)
	}
	if err := b.SQL.Exec(ctx, "SYSTEM STOP MERGES "+table); err != nil {
		b.T.Fatal(err)
	}
	return rows
}

func (b *bench) markOf(table string) int64 {
	b.T.Helper()
	return b.Number("SELECT max(max_block_number) FROM system.parts WHERE database = currentDatabase() AND table = '" + table + "'")
}

// contents is what a table says, whatever its parts are.
func (b *bench) contents(table string) string {
	b.T.Helper()
	var query string
	switch t := tables.TableOf(table); {
	case len(t.Key) > 0:
		list := "app_id, " + t.Columns()
		query = "SELECT " + list + ", sum(events) AS e, sum(quantity) AS q FROM " + table + " GROUP BY " + list + " HAVING e != 0 OR q != 0"
	case table == "events":
		query = "SELECT source_partition, source_offset, message_id, actor_id, toString(properties) FROM events"
	default:
		query = "SELECT * FROM " + table + " FINAL"
	}
	var s string
	if err := b.SQL.QueryRow(context.Background(), "SELECT concat(toString(count()), ' rows, ', toString(sum(cityHash64(*)))) FROM ("+query+")").Scan(&s); err != nil {
		b.T.Fatal(err)
	}
	return s
}

// A part of any table is lost after its token was recorded, and two writers repeat
// the block at the same time, one as a zombie: in the end each table has all of it
// once.
func TestALostPartIsWrittenAgain(t *testing.T) {
	lost := []string{
		"events", "usage_hourly", "account_feature_daily", "account_module_daily", "account_product_daily", "user_feature_daily",
		"corrections", "audit_blocks", "identity_facts", "identity_unlinks", "events,usage_hourly", "events,user_feature_daily,corrections",
	}
	if !long {
		lost = []string{"events,account_feature_daily", "usage_hourly,audit_blocks", "corrections,identity_facts"}
	}
	b := newBench(t, func(c *Config) { c.RetryMax = 100_000_000 })
	s := b.driven()
	all := []string{
		"events", "usage_hourly", "account_feature_daily", "account_module_daily", "account_product_daily", "user_feature_daily",
		"corrections", "audit_blocks", "identity_facts", "identity_unlinks",
	}
	for _, name := range all {
		if err := b.SQL.Exec(context.Background(), "SYSTEM STOP MERGES "+name); err != nil {
			t.Fatal(err)
		}
	}
	for n, names := range lost {
		t.Run(names, func(t *testing.T) {
			b.T = t
			r := rand.New(rand.NewPCG(uint64(n), 19))
			number := int32(300 + n)
			log := [][]writertest.Entry{writertest.Mixed(r, number, fmt.Sprintf("l%d-", n), 40), nil, nil}
			entries := writertest.Mixed(r, number, fmt.Sprintf("l%d-", n), 120)
			log[0], log[1], log[2] = entries[:40], entries[40:80], entries[80:]
			first := newSteps(t, s, number, log)
			for block := range log {
				marks := map[string]int64{}
				for _, name := range all {
					marks[name] = b.markOf(name)
				}
				first.begin(block)
				first.counted(block)
				if err := first.insertBlock(first.item); err != nil {
					t.Fatal(err)
				}
				first.before = false
				if block != 1 {
					continue
				}
				want := map[string]string{}
				for _, name := range all {
					want[name] = b.contents(name)
				}
				for name := range strings.SplitSeq(names, ",") {
					if b.lose(name, marks[name], math.MaxInt64) == 0 {
						t.Errorf("no row of %s was lost", name)
					}
					if b.contents(name) == want[name] {
						t.Errorf("%s is as before", name)
					}
				}
				var wg sync.WaitGroup
				for range 2 {
					w := newSteps(t, s, number, log)
					w.before = true
					w.begin(block)
					w.counted(block)
					wg.Go(func() {
						if err := w.insertBlock(w.item); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				for _, name := range all {
					if got := b.contents(name); got != want[name] {
						t.Errorf("%s has %s, want %s", name, got, want[name])
					}
				}
			}
			b.checkPartition(number, entries)
		})
	}
}

// Parts of blocks of several partitions are lost at once, in cells that these share:
// each is repaired once, by whoever has the partition.
func TestPartsOfSeveralBlocksAreLostAtOnce(t *testing.T) {
	// By table, the partitions whose part is lost.
	cases := []map[string][]int{
		{"usage_hourly": {0, 1, 2}, "account_product_daily": {0, 2}},
		{"account_product_daily": {0, 1}},
		{"usage_hourly": {0, 1}},
		{"account_product_daily": {1}, "account_module_daily": {0}},
		{"usage_hourly": {1}, "account_feature_daily": {0, 1, 2}, "account_product_daily": {0}},
		{"events": {0, 1}, "account_module_daily": {0, 1}},
		{"usage_hourly": {2}, "account_product_daily": {0, 1}},
	}
	if !long {
		cases = cases[:1]
	}
	b := newBench(t, func(c *Config) { c.RetryMax = 100_000_000 })
	s := b.driven()
	s.cfg.SessionTimeout = time.Second // how long an ambiguous difference must stand still
	all := []string{"events", "usage_hourly", "account_feature_daily", "account_module_daily", "account_product_daily", "user_feature_daily"}
	for _, name := range all {
		if err := b.SQL.Exec(context.Background(), "SYSTEM STOP MERGES "+name); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex // covers committed
	committed := map[int32]int64{}
	s.commits = func(context.Context) (map[int32]int64, error) {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(committed), nil
	}
	for n, lost := range cases {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			b.T = t
			logs := map[int32][]writertest.Entry{}
			first := int32(700 + 10*n)
			marks := map[string][]int64{} // by table, before each partition's block and at the end
			mark := func() {
				for _, name := range all {
					marks[name] = append(marks[name], b.markOf(name))
				}
			}
			for number := first; number < first+3; number++ {
				logs[number] = writertest.Mixed(rand.New(rand.NewPCG(uint64(number), 19)), number, fmt.Sprintf("s%d-", number), 40)
				w := newSteps(t, s, number, [][]writertest.Entry{logs[number]})
				mark()
				w.begin(0)
				if err := w.insertBlock(w.item); err != nil {
					t.Fatal(err)
				}
				mu.Lock()
				committed[number] = w.starts[0]
				mu.Unlock()
			}
			mark()
			want := map[string]string{}
			for _, name := range all {
				want[name] = b.contents(name)
			}
			for name, of := range lost {
				for _, k := range of {
					if b.lose(name, marks[name][k], marks[name][k+1]) == 0 {
						t.Errorf("no row of %s was lost", name)
					}
				}
			}
			var wg sync.WaitGroup
			writers := 1
			if long {
				writers = 2 // one of them a zombie
			}
			for number := first; number < first+3; number++ {
				for range writers {
					w := newSteps(t, s, number, [][]writertest.Entry{logs[number]})
					w.before = true
					w.begin(0)
					wg.Go(func() {
						if err := w.insertBlock(w.item); err != nil {
							t.Error(err)
						}
						mu.Lock()
						committed[w.number] = w.starts[1]
						mu.Unlock()
					})
				}
			}
			wg.Wait()
			for _, name := range all {
				if got := b.contents(name); got != want[name] {
					t.Errorf("%s has %s, want %s", name, got, want[name])
				}
			}
		})
	}
}

// The head of a plan is lost after its token was recorded: the block is planned
// again by whoever comes, once.
func TestALostPlanIsPlannedAgain(t *testing.T) {
	b := newBench(t, func(c *Config) { c.RetryMax = 100_000_000 })
	s := b.driven()
	if err := b.SQL.Exec(context.Background(), "SYSTEM STOP MERGES correction_plans"); err != nil {
		t.Fatal(err)
	}
	for n := range 1 {
		r := rand.New(rand.NewPCG(uint64(n), 29))
		number := int32(400 + n)
		entries := writertest.Mixed(r, number, fmt.Sprintf("p%d-", n), 80)
		log := [][]writertest.Entry{entries[:40], entries[40:]}
		w := newSteps(t, s, number, log)
		w.begin(0)
		if err := w.insertBlock(w.item); err != nil {
			t.Fatal(err)
		}
		mark := b.markOf("correction_plans")
		w.before = false
		w.begin(1)
		for range 3 {
			w.next()
		}
		if b.lose("correction_plans", mark, math.MaxInt64) == 0 {
			t.Fatal("no plan was lost")
		}
		var wg sync.WaitGroup
		for range 2 {
			z := newSteps(t, s, number, log)
			z.before = true
			z.begin(1)
			wg.Go(func() {
				if err := z.insertBlock(z.item); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		b.checkPartition(number, entries)
	}
}

// ClickHouse fails while two blocks are verified: neither verification waits for the
// other to end.
func TestVerificationsDoNotWaitForEachOther(t *testing.T) {
	b := newBench(t)
	s := b.driven()
	ctx := context.Background()
	exec := func(query string) {
		t.Helper()
		if err := b.SQL.Exec(ctx, query); err != nil {
			t.Fatal(err)
		}
	}
	var list []*steps
	s.partitions[topic.Unprefixed.Enriched] = map[int32]*partition{}
	for n := range int32(2) {
		r := rand.New(rand.NewPCG(uint64(n), 31))
		w := newSteps(t, s, 500+n, [][]writertest.Entry{writertest.Mixed(r, 500+n, fmt.Sprintf("v%d-", n), 40)})
		s.partitions[topic.Unprefixed.Enriched][w.number] = w.partition
		w.begin(0)
		if err := w.insertBlock(w.item); err != nil {
			t.Fatal(err)
		}
		list = append(list, w)
	}
	exec("RENAME TABLE account_module_daily TO away")
	var wg sync.WaitGroup
	for _, w := range list {
		w.doubt = true
		wg.Go(func() {
			if err := w.verify(w.item, w.token, nil); err != nil {
				t.Error(err)
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err := s.health.check()
		if err != nil && strings.Contains(err.Error(), list[0].name) && strings.Contains(err.Error(), list[1].name) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the verifications do not fail: %v", err)
		}
	}
	exec("RENAME TABLE away TO account_module_daily")
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		for _, w := range list {
			w.revoke()
		}
		<-done
		t.Fatal("the verifications wait for each other")
	}
	for _, w := range list {
		if err := s.health.check(); err != nil && strings.Contains(err.Error(), w.name) {
			t.Errorf("not ready: %v", err)
		}
	}
}

// counted gives the block what an enricher counted.
func (w *steps) counted(block int) {
	at := w.starts[block] + int64(len(w.log[block]))
	w.item.rows.count(w.src, at, w.item.millis, &event.Counts{
		RawTopicID: "raw", First: w.starts[block], Next: w.starts[block+1], Cells: []event.Cell{{AppID: "dev", Hour: 1_795_000_000, Accepted: 7, Stored: 7}},
	})
}

// driven is a service whose partitions a test leads step by step.
func (b *bench) driven() *Service {
	b.T.Helper()
	s, err := New(b.cfg, Dependencies{Logger: b.Log})
	if err != nil {
		b.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.T.Cleanup(cancel)
	s.killed, s.sql = ctx, b.SQL
	s.commits = func(context.Context) (map[int32]int64, error) { return nil, nil }
	sizes, err := s.schema.Windows(ctx, b.SQL)
	if err != nil {
		b.T.Fatal(err)
	}
	for _, table := range []string{boundary.EventsTable, boundary.RejectedTable} {
		s.windows[windowKey{0, table}] = newWindow(s.schema, table, sizes)
	}
	return s
}

// What a table lacks is told apart from what others left in the same cells.
func TestMultiples(t *testing.T) {
	for _, c := range []struct {
		name   string
		adds   [][]int64 // by cell and unit
		lacks  []int64
		final  bool
		want   []int64
		unsure bool
	}{
		{"nothing", [][]int64{{2}, {1}}, []int64{0, 0}, false, []int64{0}, false},
		{"lost", [][]int64{{2}, {1}}, []int64{2, 1}, false, []int64{1}, false},
		{"twice", [][]int64{{2}, {1}}, []int64{-2, -1}, false, []int64{-1}, false},
		{"another block is half there", [][]int64{{2}, {1}}, []int64{0, 1}, false, nil, true},
		{"another block was lost", [][]int64{{2}, {1}}, []int64{3, 0}, true, []int64{0}, false},
		{"both were lost", [][]int64{{2}, {1}}, []int64{3, 4}, true, []int64{1}, false},
		{"lost, and one cell has expired", [][]int64{{2}, {1}, {4}}, []int64{2, 1, -70}, true, []int64{1}, false},
		{"nothing of this block", [][]int64{{2}, {3}}, []int64{-7, 1}, true, nil, true},
		{"the second of two parts", [][]int64{{2, 1}, {1, 0}, {0, 3}}, []int64{1, 0, 3}, false, []int64{0, 1}, false},
		{"one of four parts, and another twice", [][]int64{{2, 1, 0, 0}, {1, 0, 0, 0}, {0, 3, 0, 9}, {0, 0, 5, 0}}, []int64{2, 1, -9, 0}, false, []int64{1, 0, 0, -1}, false},
	} {
		cells, lacks := map[string]*cell{}, map[string][2]int64{}
		for i, adds := range c.adds {
			k := &cell{}
			for _, a := range adds {
				k.add = append(k.add, [2]int64{a, 2 * a})
			}
			cells[fmt.Sprint(i)] = k
			if c.lacks[i] != 0 {
				lacks[fmt.Sprint(i)] = [2]int64{c.lacks[i], 2 * c.lacks[i]}
			}
		}
		got, ok := multiples(cells, lacks, len(c.adds[0]), c.final)
		if ok == c.unsure || ok && fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, ok, c.want)
		}
	}
}

// What shared cells lack is told apart into the blocks of which parts are lost.
func TestBlocksAreToldApart(t *testing.T) {
	for _, c := range []struct {
		name     string
		adds     [][]int64 // by cell and unit
		lacks    []int64
		own      int
		want     []int64
		unsure   bool
		unsolved bool
	}{
		{name: "nothing", adds: [][]int64{{2, 3}, {1, 0}}, lacks: []int64{0, 0}, want: []int64{0, 0}},
		{name: "both were lost", adds: [][]int64{{2, 3}, {1, 0}}, lacks: []int64{5, 1}, want: []int64{1, 1}},
		{name: "the other one was lost", adds: [][]int64{{2, 3}, {1, 0}}, lacks: []int64{3, 0}, want: []int64{0, 1}},
		{name: "one was lost and one is there twice", adds: [][]int64{{2, 3, 0}, {1, 0, 4}, {0, 5, 5}}, lacks: []int64{-1, 1, -5}, want: []int64{1, -1, 0}},
		{name: "in one cell, which sums tell apart", adds: [][]int64{{2, 3, 100}}, lacks: []int64{5}, want: []int64{1, 1, 0}},
		{name: "either", adds: [][]int64{{3, 3}}, lacks: []int64{3}, want: []int64{1, 0}, unsure: true},
		{name: "either, seen by the second", adds: [][]int64{{3, 3}}, lacks: []int64{3}, own: 1, want: []int64{1, 0}, unsure: true},
		{name: "either of the others, which is nothing to this one", adds: [][]int64{{0, 3, 3}, {1, 0, 0}}, lacks: []int64{3, 0}, want: []int64{0, 1, 0}},
		{name: "something else", adds: [][]int64{{2, 3}, {1, 0}}, lacks: []int64{4, 1}, unsolved: true},
		{name: "a fraction", adds: [][]int64{{2}}, lacks: []int64{1}, unsolved: true},
	} {
		all, lacks := equations{}, map[string][2]int64{}
		for i, adds := range c.adds {
			for u, a := range adds {
				all.add(fmt.Sprint(i), u, a, 2*a)
			}
			lacks[fmt.Sprint(i)] = [2]int64{c.lacks[i], 2 * c.lacks[i]}
		}
		n, sure, ok := all.solve(lacks, len(c.adds[0]), c.own, c.own+1)
		if ok == c.unsolved || ok && (fmt.Sprint(n) != fmt.Sprint(c.want) || sure == c.unsure) {
			t.Errorf("%s: %v, sure %v, solved %v, want %v", c.name, n, sure, ok, c.want)
		}
	}
}
