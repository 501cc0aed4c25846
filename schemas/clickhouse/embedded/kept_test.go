package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// buffer takes a log while it is read.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.b.String(), text)
}

const restarted = "embedded clickhouse ended, starting it again"

func keepIn(t *testing.T, cfg embedded.Config) (*embedded.Kept, *buffer) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the embedded ClickHouse; not under -short")
	}
	var log buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	cfg.Progress = os.Stderr
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	k, err := embedded.Keep(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := k.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return k, &log
}

// crash kills the server behind its keeper's back, and waits until that has seen
// it.
func crash(t *testing.T, k *embedded.Kept, log *buffer) {
	t.Helper()
	seen := log.count(restarted)
	if err := syscall.Kill(k.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); log.count(restarted) == seen; {
		if time.Now().After(deadline) {
			t.Fatal("nobody saw that the server ended")
		}
		time.Sleep(time.Millisecond)
	}
}

func await(t *testing.T, k *embedded.Kept) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := k.Await(ctx); err != nil {
		t.Fatal(err)
	}
}

func answers(t *testing.T, k *embedded.Kept, query, want string) {
	t.Helper()
	if got, err := k.Query(t.Context(), query); err != nil || got != want {
		t.Errorf("%s: got %q, %v; want %q", query, got, err, want)
	}
}

func TestKeptComesBackAsItWas(t *testing.T) {
	k, log := keepIn(t, embedded.Config{DataDir: t.TempDir()})
	conn := connect(t, k.NativeAddr(), "")
	exec1(t, conn, "CREATE DATABASE d")
	exec1(t, conn, "CREATE TABLE d.t (id UInt64, name String) ENGINE = MergeTree ORDER BY id")
	for n := range 2 { // the second one after a pause
		insert(t, conn, "d.t", 100)
		pid := k.Pid()
		crash(t, k, log)
		await(t, k)
		if k.Pid() == pid || k.Err() != nil {
			t.Errorf("after crash %d: pid %d as before, or %v", n, k.Pid(), k.Err())
		}
		if got, want := count(t, connect(t, k.NativeAddr(), ""), "d.t"), uint64(100*(n+1)); got != want {
			t.Errorf("rows after crash %d: got %d, want %d", n, got, want)
		}
		answers(t, k, "SELECT 1", "1\n")
	}
}

// What a test does to the server on purpose is not undone.
func TestKeptStaysAsTold(t *testing.T) {
	k, log := keepIn(t, embedded.Config{DataDir: t.TempDir()})
	pid := k.Pid()
	if err := errors.Join(k.Signal(syscall.SIGSTOP), k.Signal(syscall.SIGCONT)); err != nil {
		t.Fatal(err)
	}
	answers(t, k, "SELECT 1", "1\n")
	if err := k.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "it runs") || k.Pid() != pid {
		t.Errorf("start of one that runs: got %v, pid %d", err, k.Pid())
	}
	for _, end := range []struct {
		name string
		do   func() error
		want string
	}{
		{"kill", func() error { k.Kill(); return nil }, "it was killed"},
		{"stop", func() error { return k.Stop(t.Context()) }, "it was stopped"},
	} {
		for range 2 { // the second time it is down
			if err := end.do(); err != nil {
				t.Fatalf("%s: %v", end.name, err)
			}
		}
		if err := k.Err(); err == nil || err.Error() != end.want {
			t.Errorf("after %s: got %v, want %q", end.name, err, end.want)
		}
		if _, err := k.Query(t.Context(), "SELECT 1"); err == nil {
			t.Errorf("answers after %s", end.name)
		}
		if err := k.Signal(syscall.SIGCONT); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal after %s: got %v", end.name, err)
		}
		if err := k.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		answers(t, k, "SELECT 1", "1\n")
		if err := k.Err(); err != nil {
			t.Errorf("after the start: %v", err)
		}
	}
	// One that was told to end, and then ends by itself, is one that ended.
	crash(t, k, log)
	await(t, k)
	if got := log.count(restarted); got != 1 {
		t.Errorf("started again %d times, want once", got)
	}
	if err := k.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-k.Done()
	if err := k.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "for good") {
		t.Errorf("start after Close: got %v", err)
	}
	if err := k.Await(t.Context()); err == nil {
		t.Error("await after Close: got nil")
	}
}

// A server that cannot come back is given up, and its end is in its error.
func TestKeptIsGivenUp(t *testing.T) {
	lib, err := embedded.Library(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "libchdb.so")
	if err := os.Symlink(lib, link); err != nil {
		t.Fatal(err)
	}
	k, log := keepIn(t, embedded.Config{DataDir: t.TempDir(), LibraryPath: link, MaxRestarts: 2})
	if err := errors.Join(os.Remove(link), os.WriteFile(link, []byte("no library"), 0o600)); err != nil {
		t.Fatal(err)
	}
	crash(t, k, log)
	select {
	case <-k.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("never given up")
	}
	if err := k.Err(); err == nil || !strings.Contains(err.Error(), "given up after 2 restarts in a row") || !strings.Contains(err.Error(), "child.log: load "+link) {
		t.Errorf("got %v, want why it cannot start", err)
	}
	if err := k.Await(t.Context()); err == nil {
		t.Error("await: got nil")
	}
	if got := log.count("embedded clickhouse cannot be started"); got != 2 {
		t.Errorf("tried %d times, want 2", got)
	}
}

// Close does not wait for a restart that does not succeed.
func TestKeptIsClosedBetweenRestarts(t *testing.T) {
	k, log := keepIn(t, embedded.Config{DataDir: t.TempDir(), MaxRestarts: 1000})
	k.Kill()
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 { // each time after a longer pause
		await(t, k)
		crash(t, k, log)
	}
	if err := k.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := k.Signal(syscall.SIGCONT); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after Close: got %v", err)
	}
}
