package privacy

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// File is a rules file that is read again when it, or a list that it names, has
// changed. Policy is safe for concurrent use; Follow is for one goroutine.
type File struct {
	path string
	now  atomic.Pointer[Policy]
	seen []stamp
}

// stamp says which state of a file was read.
type stamp struct {
	path     string
	size     int64
	modified time.Time
}

// Open reads a rules file. A path of no bytes is a File without rules.
func Open(path string) (*File, error) {
	f := &File{path: path}
	if path == "" {
		return f, nil
	}
	if err := f.read(); err != nil {
		return nil, err
	}
	return f, nil
}

// Policy returns the rules in force, nil if there are none.
func (f *File) Policy() *Policy {
	if f == nil {
		return nil
	}
	return f.now.Load()
}

// read puts the rules in force that the files have now, if they are right. The
// stamps are of the time before, so that a file that changes while it is read is
// read again at the next look.
func (f *File) read() error {
	var lists []string
	for _, s := range f.seen {
		if s.path != f.path {
			lists = append(lists, s.path)
		}
	}
	for {
		f.seen = stamps(append([]string{f.path}, lists...))
		p, named, err := load(f.path)
		if !slices.Equal(named, lists) {
			lists = named // their stamps were not taken
			continue
		}
		if err != nil {
			return err
		}
		if lost := f.now.Load().lost(p); len(lost) > 0 {
			return fmt.Errorf("privacy rules %s: no rules are left of %s; if that is meant, write `none` for each: apps: {%s: none}", f.path, strings.Join(lost, ", "), lost[0])
		}
		f.now.Store(p)
		return nil
	}
}

func stamps(paths []string) []stamp {
	var out []stamp
	for _, path := range paths {
		s := stamp{path: path}
		if info, err := os.Stat(path); err == nil {
			s.size, s.modified = info.Size(), info.ModTime()
		}
		out = append(out, s)
	}
	return out
}

// changed returns the stamps of the files if one of them is another than when it
// was read, nil otherwise.
func (f *File) changed() []stamp {
	paths := make([]string, 0, len(f.seen))
	for _, s := range f.seen {
		paths = append(paths, s.path)
	}
	if now := stamps(paths); !same(now, f.seen) {
		return now
	}
	return nil
}

func same(a, b []stamp) bool {
	return slices.EqualFunc(a, b, func(a, b stamp) bool {
		return a.path == b.path && a.size == b.size && a.modified.Equal(b.modified)
	})
}

// Follow looks every now and then whether the files have changed, until ctx ends.
// They are read again when two looks in a row found them alike, so that a file that
// is being written over in place is left alone until it is done. tell is called
// after each time they were read again; with an error the rules before stay in
// force.
func (f *File) Follow(ctx context.Context, every time.Duration, tell func(error)) {
	if f.path == "" {
		return
	}
	t := time.NewTicker(every)
	defer t.Stop()
	var before []stamp // of the last look, if the files had changed
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := f.changed()
		settled := now != nil && same(now, before)
		if before = now; !settled {
			continue
		}
		err := f.read()
		if err != nil {
			err = fmt.Errorf("the rules before stay in force: %w", err)
		}
		before = nil
		tell(err)
	}
}
