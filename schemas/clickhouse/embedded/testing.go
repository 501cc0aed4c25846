package embedded

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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
	views  map[string]string // databases that have views and nothing else, and what [views] says of them
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
	must(t, s, "CREATE DATABASE "+db)
	t.Cleanup(func() { drop(t, s, db) })
	return s.NativeAddr(), db
}

// Installed is [Database] with what install makes in it and in
// <database>_internal: the tables and views of a schema. install is to make what
// is missing, and only that, and means the same in all tests of a binary.
//
// ClickHouse takes 0.7 s of CPU to parse the views and 0.1 s to make the tables.
// So when the test ends, all but its plain views and the table that records them,
// schema_views, is dropped, and a later test gets the database unless a test
// changed a view.
func Installed(t testing.TB, install func(nativeAddr, db string) error) (nativeAddr, db string) {
	t.Helper()
	s := ForTest(t)
	shared.mu.Lock()
	had := ""
	for db, had = range shared.views {
		delete(shared.views, db)
		break
	}
	if had == "" {
		shared.dbs++
		db = fmt.Sprintf("test_%d", shared.dbs)
	}
	shared.mu.Unlock()
	if had == "" {
		must(t, s, "CREATE DATABASE "+db)
	}
	t.Cleanup(func() {
		now, err := views(s, db)
		if t.Failed() || err != nil || now != had || dropTables(s, db) != nil {
			drop(t, s, db)
			return
		}
		shared.mu.Lock()
		defer shared.mu.Unlock()
		if shared.views == nil {
			shared.views = map[string]string{}
		}
		shared.views[db] = had
	})
	if err := install(s.NativeAddr(), db); err != nil {
		t.Fatal(err)
	}
	if had == "" {
		var err error
		if had, err = views(s, db); err != nil {
			t.Fatal(err)
		}
	}
	return s.NativeAddr(), db
}

const internalSuffix = "_internal"

// views says in a few bytes which plain views a schema's databases have, and what
// is recorded of them.
func views(s *Kept, db string) (string, error) {
	hash := sha256.New()
	for _, name := range []string{db, db + internalSuffix} {
		files, err := filepath.Glob(filepath.Join(s.cfg.DataDir, "data", "metadata", name, "*.sql"))
		if err != nil {
			return "", err
		}
		for _, file := range files { // sorted
			text, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			if bytes.HasPrefix(text, []byte("ATTACH VIEW ")) {
				fmt.Fprintf(hash, "%s %d ", filepath.Base(file), len(text))
				hash.Write(text)
			}
		}
	}
	record, err := s.Query(context.Background(), "SELECT count(), sum(cityHash64(name, checksum)) FROM "+db+internalSuffix+".schema_views FINAL")
	return fmt.Sprintf("%x %s", hash.Sum(nil), record), err
}

// dropTables drops all of a schema but plain views and what records them.
func dropTables(s *Kept, db string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	names, err := s.Query(ctx, fmt.Sprintf("SELECT arrayStringConcat(groupArray(concat(database, '.`', name, '`')), ', ') FROM system.tables"+
		" WHERE database IN ('%[1]s', '%[1]s%[2]s') AND engine != 'View' AND name != 'schema_views'", db, internalSuffix))
	if err != nil || strings.TrimSpace(names) == "" {
		return err
	}
	_, err = s.Query(ctx, "DROP TABLE "+strings.TrimSpace(names)+" SYNC")
	return err
}

func drop(t testing.TB, s *Kept, db string) {
	t.Helper()
	for _, name := range []string{db, db + internalSuffix} {
		must(t, s, "DROP DATABASE IF EXISTS "+name+" SYNC")
	}
}

func must(t testing.TB, s *Kept, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := s.Query(ctx, statement); err != nil {
		t.Error(err)
	}
}
