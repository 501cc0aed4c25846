//go:build linux || darwin

package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// awaitUnlocked waits until no process holds the lock that ClickHouse keeps on
// its status file. The file itself stays behind when a server is killed and
// means nothing; the lock goes with the process. A predecessor whose parent was
// killed may need a moment to end.
func awaitUnlocked(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() // also unlocks
	if err := flock(ctx, f); err != nil {
		text, _ := os.ReadFile(path) // "PID: 123\nStarted at: ...\nRevision: ..."
		return fmt.Errorf("lock on %s is held (%s): %w", path, strings.Join(strings.Fields(string(text)), " "), err)
	}
	return nil
}

// lockFile takes an exclusive lock between processes on path, which it creates.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

func flock(ctx context.Context, f *os.File) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || (!errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR)) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
