package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// disk is a small file system that a fault can fill.
type disk struct {
	dir string
	mu  sync.Mutex // one fault at a time
}

// Sizes of the disks. ClickHouse keeps a run on its own; an enricher what it
// remembers of it.
const (
	clickhouseDisk = 1 << 30
	enricherDisk   = 96 << 20
)

// mountDisks puts ClickHouse and two enrichers on small disks, if that is
// allowed here. Without them no disk is ever full.
func (e *env) mountDisks() error {
	for name, size := range map[string]int64{"clickhouse": clickhouseDisk, "enricher-0": enricherDisk, "enricher-1": enricherDisk} {
		dir := filepath.Join(e.cfg.Dir, name)
		ok, err := mountSmall(dir, size)
		if err != nil {
			return err
		}
		if !ok {
			fmt.Fprintln(e.cfg.Out, "no disk will be full: mounting small ones takes root")
			return nil
		}
		e.disks[name] = &disk{dir: dir}
	}
	return nil
}

func (e *env) unmountDisks() error {
	var errs []error
	for _, d := range e.disks {
		errs = append(errs, unmount(d.dir))
	}
	return errors.Join(errs...)
}

// fillDisk fills a disk to its last byte for a while.
func fillDisk(names ...string) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		d := e.disks[names[f.rng.IntN(len(names))]]
		full := between(f.rng, 500*time.Millisecond, 4*time.Second)
		if d == nil {
			return "no small disk", errMissed
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if filepath.Base(d.dir) == "clickhouse" {
			// One that sleeps meanwhile wakes on a full disk amid what it has begun.
			e.store.Lock()
			defer e.store.Unlock()
		}
		path := filepath.Join(d.dir, "fill")
		fillErr := fill(ctx, path, full)
		return fmt.Sprintf("%s for %s", filepath.Base(d.dir), full), errors.Join(fillErr, os.Remove(path))
	}
}

// A disk fills fast up to the last slowly bytes, and those at 100 MB/s, as a log
// gone wild fills one: ClickHouse refuses work while some bytes are free, and what
// it has begun has that long to end. With all of them gone at once 26.7
// acknowledges an insert although it could write nothing.
const (
	slowly    = 384 << 20
	fillChunk = 1 << 20
	fillPause = 10 * time.Millisecond // for a chunk
)

// fill writes a file until nothing more fits, and keeps it so for a while: what
// others free is taken, too.
func fill(ctx context.Context, path string, lasts time.Duration) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("fill a disk: %w", err)
	}
	defer file.Close()
	chunk := make([]byte, fillChunk)
	var end time.Time // from when it is full
	for ctx.Err() == nil && (end.IsZero() || time.Now().Before(end)) {
		for n := len(chunk); n > 0 && ctx.Err() == nil; {
			_, err := file.Write(chunk[:n])
			switch {
			case errors.Is(err, syscall.ENOSPC):
				n /= 2
				continue
			case err != nil:
				return fmt.Errorf("fill a disk: %w", err)
			case n < len(chunk):
				n *= 2 // somebody freed more than what fitted last
				continue
			}
			free, err := freeBytes(path)
			if err != nil {
				return err
			}
			if free < slowly {
				wait(ctx, fillPause)
			}
		}
		if end.IsZero() {
			end = time.Now().Add(lasts)
		}
		wait(ctx, fillPause)
	}
	return nil
}
