package loadgen

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Progress shows how far something is: one line that is drawn anew on a
// terminal, a line at each tenth elsewhere.
type Progress struct {
	w        io.Writer
	what     string
	total    int
	terminal bool
	now      func() time.Time

	mu      sync.Mutex // covers all below
	done    int
	started time.Time
	drawn   time.Time
	tenth   int
}

// NewProgress returns a progress display of total units of what, written to w.
func NewProgress(w io.Writer, what string, total int, now func() time.Time) *Progress {
	return &Progress{w: w, what: what, total: total, terminal: IsTerminal(w), now: now, started: now()}
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Add counts n more units. It does nothing on a nil Progress.
func (p *Progress) Add(n int) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	now := p.now()
	last := p.done >= p.total
	if p.terminal {
		if last || now.Sub(p.drawn) >= 100*time.Millisecond {
			p.drawn = now
			end := ""
			if last {
				end = "\n"
			}
			fmt.Fprintf(p.w, "\r\x1b[K%s%s", p.line(now), end)
		}
		return
	}
	if tenth := p.done * 10 / max(p.total, 1); tenth > p.tenth {
		p.tenth = tenth
		fmt.Fprintln(p.w, p.line(now))
	}
}

func (p *Progress) line(now time.Time) string {
	const width = 30
	share := float64(p.done) / float64(max(p.total, 1))
	full := min(int(share*width), width)
	rate, left := 0.0, "?"
	if s := now.Sub(p.started).Seconds(); s > 0 && p.done > 0 {
		rate = float64(p.done) / s
		left = time.Duration(float64(p.total-p.done) / rate * float64(time.Second)).Round(time.Second).String()
	}
	return fmt.Sprintf("%s [%s%s] %3.0f %%  %d of %d  %.0f/s  %s left", p.what,
		strings.Repeat("=", full), strings.Repeat(" ", width-full), share*100, p.done, p.total, rate, left)
}
