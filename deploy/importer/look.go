package importer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// ErrTooOld is the error of an export with events that the enricher would count when
// they are received.
var ErrTooOld = errors.New("older than max-age")

// look reads the whole export before anything of it is sent: it learns who its persons
// are, and refuses one with events that are too old. What cannot be read the import itself reports.
func (r *run) look(ctx context.Context) error {
	if !r.cfg.History {
		r.least = event.FromTime(r.now()) - r.cfg.MaxAge.Microseconds()
	}
	if info, err := os.Stat(r.cfg.File); err != nil || !info.Mode().IsRegular() {
		return nil // it can be read once
	}
	file, _, err := open(&r.cfg)
	if err != nil {
		return err
	}
	defer file.Close()
	r.persons.learning = true
	defer func() { r.persons.learning = false }()
	format, c := formats[r.cfg.From](r.persons), row{zone: r.row.zone}
	all := newLines(file, r.cfg.MaxLineBytes)
	for line := int64(1); ctx.Err() == nil; line++ {
		text, _, err := all.next()
		c.begin()
		if text = bytes.TrimSpace(text); len(text) > 0 {
			if _, err := format.event(line, text, &c); err == nil {
				if err := r.tooOld(line, c.at); err != nil {
					return fmt.Errorf("%w; nothing was sent", err)
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return nil //nolint:nilerr // the import says where, and sends what comes before
		}
	}
	return context.Cause(ctx)
}

// tooOld reports an event that happened before those that count at their time.
func (r *run) tooOld(line int64, at event.Micros) error {
	if r.cfg.History || at == 0 || at >= r.least {
		return nil
	}
	return fmt.Errorf("%w: line %d of %s is of %s, more than %s ago, and would count today; raise the enricher's time-max-age and set -max-age alike, or import with -history",
		ErrTooOld, line, r.cfg.File, event.ToTime(at).Format(time.RFC3339), r.cfg.MaxAge)
}
