package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"
)

// shared is the one server of a test binary. It is started by the first test
// that asks, and stopped by TestMain.
var shared struct {
	mu     sync.Mutex // covers all below
	cfg    Config
	ready  bool // TestMain runs
	server *Kept
	err    error
	dir    string // to remove at the end; empty if the caller named one
	dbs    int
}

// TestMain runs the tests of a package that uses [ForTest] or [Database]:
//
//	func TestMain(m *testing.M) { embedded.TestMain(m, nil) }
//
// cfg may be nil. It calls ChildMain, runs the tests, stops the server if a
// test has started it, and exits.
func TestMain(m *testing.M, cfg *Config) {
	ChildMain()
	shared.mu.Lock()
	if cfg != nil {
		shared.cfg = *cfg
	}
	shared.ready = true
	shared.mu.Unlock()
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func stopShared() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := shared.server.Close(ctx); err != nil {
		return err
	}
	if shared.dir == "" {
		return nil
	}
	return os.RemoveAll(shared.dir)
}

// ForTest returns the shared server of this test binary and starts it if it
// does not run yet. It skips under -short and fails when the server cannot
// start. Tests that stop or kill a server start their own with [Start] or
// [Keep].
func ForTest(t testing.TB) *Kept {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the embedded ClickHouse; not under -short")
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.ready {
		t.Fatal("this package needs: func TestMain(m *testing.M) { embedded.TestMain(m, nil) }")
	}
	if shared.server == nil && shared.err == nil {
		startShared()
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	if err := shared.server.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	return shared.server
}

const scratchPrefix = "uptake-clickhouse-"

// startShared starts the shared server. What it says on standard error is that it
// ended by itself. shared.mu is held.
func startShared() {
	cfg := &shared.cfg
	if cfg.DataDir == "" {
		dir, err := os.MkdirTemp(scratchBase(), scratchPrefix)
		if err != nil {
			shared.err = fmt.Errorf("make data directory: %w", err)
			return
		}
		cfg.DataDir, shared.dir = dir, dir
	}
	if cfg.Progress == nil {
		cfg.Progress = os.Stderr
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute) // it may have to be fetched
	defer cancel()
	shared.server, shared.err = Keep(ctx, *cfg)
}

// Database makes a fresh database on the shared server and returns the address
// of the native protocol and the database's name. It is dropped when the test
// ends, as is the one named <database>_internal that a schema has beside it.
func Database(t testing.TB) (nativeAddr, db string) {
	t.Helper()
	s := ForTest(t)
	shared.mu.Lock()
	shared.dbs++
	db = fmt.Sprintf("test_%d", shared.dbs)
	shared.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := s.Query(ctx, "CREATE DATABASE "+db); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		for _, name := range []string{db, db + "_internal"} {
			if _, err := s.Query(ctx, "DROP DATABASE IF EXISTS "+name+" SYNC"); err != nil {
				t.Error(err)
			}
		}
	})
	return s.NativeAddr(), db
}
