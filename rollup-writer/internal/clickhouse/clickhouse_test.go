package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

func config(t *testing.T) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Addr, cfg.Database = embedded.Database(t)
	if _, err := embedded.ForTest(t).Query(t.Context(), "CREATE DATABASE "+clickhouse.Internal(cfg.Database)); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// letters is a block of one String column.
type letters struct{ proto.ColStr }

func (l *letters) Into(table string) string { return "INSERT INTO " + table + " (l) VALUES" }
func (l *letters) Input() proto.Input       { return proto.Input{{Name: "l", Data: &l.ColStr}} }

func block(values ...string) *letters {
	l := &letters{}
	l.AppendArr(values)
	return l
}

func count(t *testing.T, c *Conn, table string) (n uint64) {
	t.Helper()
	var col proto.ColUInt64
	err := c.Select(context.Background(), "SELECT count() AS n FROM "+table, proto.Results{{Name: "n", Data: &col}}, func() error {
		n = col.Row(0)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A token decides, not the rows; the settings that make it so hold against a
// profile that says otherwise.
func TestInsertOnceForEachToken(t *testing.T) {
	ctx := context.Background()
	cfg := config(t)
	for _, compression := range []string{"none", "lz4"} {
		cfg.Compression = compression
		c, err := NewConn(&cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		table := "t_" + compression
		if err := c.Exec(ctx, "CREATE TABLE "+table+" (l String) ENGINE = MergeTree ORDER BY l SETTINGS non_replicated_deduplication_window = 100"); err != nil {
			t.Fatal(err)
		}
		for i, in := range []struct {
			token string
			rows  *letters
			want  uint64
		}{{"1", block("a", "b"), 2}, {"1", block("a", "b"), 2}, {"1", block("c"), 2}, {"2", block("a", "b"), 4}} {
			if err := c.Insert(ctx, table, in.rows, in.token); err != nil {
				t.Fatal(err)
			}
			if got := count(t, c, table); got != in.want {
				t.Errorf("%s: after insert %d: %d rows, want %d", compression, i, got, in.want)
			}
		}
	}
}

// Each pinned setting is one that the server knows, or is marked as one that it
// may not know.
func TestPinnedSettingsExist(t *testing.T) {
	cfg := config(t)
	c, err := NewConn(&cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, s := range Pinned {
		if s.Why == "" {
			t.Errorf("%s: no reason", s.Name)
		}
		if n := count(t, c, "system.settings WHERE name = "+Quote(s.Name)); n != 1 && !s.Optional {
			t.Errorf("the server does not know %s", s.Name)
		}
	}
}

// What fails is told by its class, and the connection works again after it.
func TestErrorsHaveTheirClass(t *testing.T) {
	ctx := context.Background()
	cfg := config(t)
	c, err := NewConn(&cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exec := func(q string) {
		t.Helper()
		if err := c.Exec(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE t (l String) ENGINE = MergeTree ORDER BY l")
	exec("CREATE TABLE n (l UInt8) ENGINE = MergeTree ORDER BY l")
	exec("CREATE MATERIALIZED VIEW v ENGINE = MergeTree ORDER BY l AS SELECT l FROM t WHERE throwIf(l = 'boom') = 0")
	for _, tc := range []struct {
		name string
		do   func() error
		want Class
	}{
		{"no table", func() error { return c.Insert(ctx, "nowhere", block("a"), "1") }, Permanent},
		{"other type", func() error { return c.Insert(ctx, "n", block("a"), "1") }, Data},
		{"view throws", func() error { return c.Insert(ctx, "t", block("boom"), "1") }, Server},
		{"syntax", func() error { return c.Exec(ctx, "SELEKT 1") }, Permanent},
		{"memory", func() error {
			return c.Exec(ctx, "SELECT groupArray(number) FROM numbers(10000000) SETTINGS max_memory_usage = 1000000 FORMAT Null")
		}, Busy},
		{"fine", func() error { return c.Insert(ctx, "t", block("a"), "2") }, ""},
	} {
		err := tc.do()
		if (err == nil) != (tc.want == "") || (err != nil && Classify(err) != tc.want) {
			t.Errorf("%s: got %v, class %s, want %q", tc.name, err, Classify(err), tc.want)
		}
	}
	sql, err := OpenSQL(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer sql.Close()
	if err := sql.Exec(ctx, "SELECT * FROM nowhere"); Classify(err) != Permanent {
		t.Errorf("error of the SQL driver: class %s of %v", Classify(err), err)
	}
	if got := Classify(fmt.Errorf("x: %w", net.ErrClosed)); got != Lost {
		t.Errorf("closed connection: class %s", got)
	}
}

func TestConnectFailures(t *testing.T) {
	ctx := context.Background()
	cfg := DefaultConfig()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Addr = ln.Addr().String()
	cfg.DialTimeout = 300 * time.Millisecond
	silent, err := NewConn(&cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := silent.Exec(ctx, "SELECT 1"); err == nil || Classify(err) != Lost {
		t.Errorf("a server that does not greet: %v", err)
	}
	ln.Close()
	if err := silent.Exec(ctx, "SELECT 1"); err == nil || Classify(err) != Lost || !strings.Contains(err.Error(), "connect to ClickHouse") {
		t.Errorf("nobody listens: %v", err)
	}
}

// muted stands before a server and, while mute is set, keeps its answers back.
func muted(t *testing.T, server string, mute *atomic.Bool) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			wg.Go(func() {
				defer up.Close()
				_, _ = io.Copy(up, client) // until the client closes
			})
			wg.Go(func() {
				defer client.Close()
				buf := make([]byte, 4096)
				for {
					n, err := up.Read(buf)
					if err != nil {
						return
					}
					if mute.Load() {
						continue
					}
					if _, err := client.Write(buf[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	return ln.Addr().String()
}

// A server that falls silent within a request is given up.
func TestSilence(t *testing.T) {
	cfg := config(t)
	var mute atomic.Bool
	cfg.Addr, cfg.Silence = muted(t, cfg.Addr, &mute), time.Second
	c, err := NewConn(&cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	for _, silent := range []bool{false, true, false} {
		mute.Store(false)
		if err := c.Exec(ctx, "SELECT 1 FORMAT Null"); err != nil {
			t.Fatal(err)
		}
		mute.Store(silent)
		err := c.Exec(ctx, "SELECT 2 FORMAT Null")
		if errors.Is(err, ErrSilent) != silent || (silent && Classify(err) != Lost) {
			t.Errorf("silent %v: got %v", silent, err)
		}
	}
}

// What was sent is not cancelled: when the caller gives up, the server goes on.
func TestGivingUpDoesNotCancel(t *testing.T) {
	cfg := config(t)
	c, err := NewConn(&cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := c.Exec(ctx, "SELECT sleep(1) FORMAT Null"); err == nil || Classify(err) != Lost {
		t.Errorf("given up: %v", err)
	}
}

func TestHasDatabase(t *testing.T) {
	cfg := config(t)
	for _, want := range []bool{true, false} {
		if got, err := HasDatabase(context.Background(), &cfg); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", cfg.Database, got, err, want)
		}
		cfg.Database = "nowhere"
	}
}

func TestQuote(t *testing.T) {
	cfg := config(t)
	c, err := NewConn(&cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, s := range []string{"", "it's", `\`, `\'`, "a\nb\tc", "\x00x", "\xff\xfe", "{x:y}", "?", "-- /*", "ü€😀"} {
		var col proto.ColStr
		var got string
		err := c.Select(context.Background(), "SELECT "+Quote(s)+" AS s", proto.Results{{Name: "s", Data: &col}}, func() error {
			got = col.Row(0)
			return nil
		})
		if err != nil || got != s {
			t.Errorf("%q came back as %q: %v", s, got, err)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	for _, tc := range []struct {
		version           string
		cluster           bool
		notice, mustError bool
	}{
		{"26.7.2.1", false, true, false},
		{"26.7.2.1", true, false, true},
		{"26.7.3.9", true, false, false},
		{"26.6.3.18", true, false, true},
		{"26.6.3.19", true, false, false},
		{"26.5.7.20", true, false, false},
		{"26.8.36.3", true, false, false},
		{"27.1.1.1-lts", true, false, false},
		{"26.4.9.9", false, false, true},
		{"25.8.1.1", false, false, true},
		{"nightly", false, false, true},
	} {
		notice, err := CheckVersion(tc.version, tc.cluster)
		if (notice != "") != tc.notice || (err != nil) != tc.mustError {
			t.Errorf("%s, cluster %v: notice %q, error %v", tc.version, tc.cluster, notice, err)
		}
	}
}
