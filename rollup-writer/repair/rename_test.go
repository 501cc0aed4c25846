package repair_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/svc/systemcall"
)

// ClickHouse without replication writes the token of a block down before it
// renames the block's part. If the rename fails, or the server dies just before
// it, the part is lost and the repeat of the block is skipped. The writer verifies
// such a block, and repairs it. What a full disk left empty later is found by the
// audit and repaired by a rebuild.
func TestAPartThatIsLostBeforeItsRename(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the embedded ClickHouse; not under -short")
	}
	systemcall.Need(t)
	ctx := context.Background()
	cfg := embedded.Config{DataDir: t.TempDir()}
	server, err := embedded.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { server.Kill() }()
	cfg.NativeAddr, cfg.HTTPAddr = server.NativeAddr(), server.HTTPAddr()
	b := newBenchAt(t, server.NativeAddr(), "uptake")
	b.init()
	w := b.start()
	b.Send(events(1, 100))
	b.Check()
	w.End()

	tables := []struct{ name, partition, level string }{
		{"events", firstReceipt.Format("200601"), "0"},
		{"usage_hourly", "all", "1"},
		{"account_feature_daily", "all", "1"},
		{"account_module_daily", "all", "1"},
		{"account_product_daily", "all", "1"},
		{"user_feature_daily", "all", "1"},
	}
	seeds := uint64(2)
	if longtest.Enabled() {
		seeds = 12
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 3))
		table, killed := tables[seed%6], r.IntN(2) == 0
		if table.name == "events" { // once each
			killed = seed == 0
		}
		t.Run(fmt.Sprintf("seed %d: %s, killed %v", seed, table.name, killed), func(t *testing.T) {
			b.T = t
			w := b.start()
			b.AwaitSettled()
			// What a part is called before its rename is counted from the start
			// of the server on, blocks that were skipped included.
			var paths []string
			err := b.SQL.QueryRow(ctx, `SELECT arrayMap(i -> concat(assumeNotNull((SELECT data_paths[1] FROM system.tables WHERE database = currentDatabase() AND name = ?)), 'tmp_insert_', ?, '_', toString(i), '_', toString(i), '_', ?, '/'), range(1, n + 40))
FROM (SELECT toUInt64(max(max_block_number)) AS n FROM system.parts WHERE database = currentDatabase() AND table = ? AND partition_id = ?)`,
				table.name, table.partition, table.level, table.name, table.partition).Scan(&paths)
			if err != nil {
				t.Fatal(err)
			}
			what := "error=EIO"
			if killed {
				what = "error=EIO:signal=SIGKILL"
			}
			tr := systemcall.Rename(t, server.Pid(), paths, what)
			list := events(100+seed, 40+r.IntN(40))
			b.Send(list)
			if killed {
				b.Await("the server to be killed at the rename", func() bool {
					select {
					case <-server.Done():
						return true
					default:
						return false
					}
				})
				tr.End()
				if server, err = embedded.Start(ctx, cfg); err != nil {
					t.Fatal(err)
				}
			} else {
				b.Await("an attempt to fail", func() bool { return w.Metric("uptake_writer_retries_total") > 0 })
				tr.End()
			}
			// The block goes again under its token, and is skipped: only the look at
			// the tables finds what is missing.
			b.AwaitSettled()
			if w.Metric("uptake_writer_retries_total") == 0 {
				t.Error("no attempt failed")
			}
			w.End()
			rows := b.Number("SELECT count() FROM events")
			if lost := int64(len(b.Sent)) - rows; lost > 0 {
				t.Errorf("events lacks %d rows", lost)
			}
			if n := w.Metric("uptake_writer_verified_blocks_total", "unknown"); n > 0 {
				t.Errorf("%g blocks could not be verified", n)
			}
			if equal, found := b.Audited(); !equal {
				t.Errorf("the writer did not repair what was lost:\n%s", found)
			}
			if w.Metric("uptake_writer_verified_blocks_total", "repaired") == 0 {
				t.Error("nothing was lost")
			}
			b.Check()
		})
		if t.Failed() {
			return
		}
	}
	t.Run("one that a full disk left empty", func(t *testing.T) {
		b.T = t
		// A part that was merged would come back from those it was made of, which stay
		// on the disk for a while.
		if err := b.SQL.Exec(ctx, "SYSTEM STOP MERGES events"); err != nil {
			t.Fatal(err)
		}
		w := b.start()
		b.Send(events(280, 20))
		b.Check()
		w.End()
		var dir string
		// A part with rows that count: of others only the facts of identity are compared.
		err := b.SQL.QueryRow(ctx, `SELECT any(p.path) FROM events AS e, system.parts AS p WHERE p.database = currentDatabase() AND p.table = 'events' AND p.active AND p.level = 0
AND e._part = p.name AND e.kind = 'track' GROUP BY e._part ORDER BY any(p.rows) LIMIT 1`).Scan(&dir)
		if err != nil {
			t.Fatal(err)
		}
		server.Kill()
		files, err := os.ReadDir(dir)
		if err != nil || len(files) == 0 {
			t.Fatalf("files of %s: %d, %v", dir, len(files), err)
		}
		for _, f := range files {
			if err := os.Truncate(filepath.Join(dir, f.Name()), 0); err != nil {
				t.Fatal(err)
			}
		}
		// Started again, ClickHouse puts it aside.
		if server, err = embedded.Start(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		if equal, found := b.Audited(); equal || !strings.Contains(found, "a part of events was lost") {
			t.Errorf("the audit does not tell what was lost:\n%s", found)
		}
		b.mustRebuild(func(c *repair.RebuildConfig) { c.FromLog = true })
		if equal, found := b.Audited(); !equal {
			t.Errorf("after the rebuild:\n%s", found)
		}
		b.Check()
	})
	b.T = t
	b.start()
	b.Send(events(300, 60))
	b.Check()
}
