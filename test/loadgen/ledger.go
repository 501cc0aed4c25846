package loadgen

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Verdict is what a reply said of one event of its request.
type Verdict struct {
	Index     int    `json:"index"`
	MessageID string `json:"message_id"`
	Code      string `json:"code"`
	Field     string `json:"field"`
	Detail    string `json:"detail"`
}

// Outcome is what became of one request.
type Outcome struct {
	Request  int       `json:"request"`
	Attempts int       `json:"attempts"` // how often it went out, the acked one included
	Acked    bool      `json:"acked"`
	Rejected []Verdict `json:"rejected,omitempty"` // of the ack
}

// Ledger is what is known of a plan's requests. It can lie in a file, so that a
// later process goes on where this one was ended: a request that the file does
// not have as acked is sent (again). Its methods may be called from any
// goroutine.
type Ledger struct {
	mu       sync.Mutex // covers all below
	outcomes map[int]Outcome
	file     *os.File
	w        *bufio.Writer
}

// NewLedger returns an empty ledger in memory.
func NewLedger() *Ledger { return &Ledger{outcomes: map[int]Outcome{}} }

// ledgerHead is the first line of a ledger's file: it says whose outcomes follow.
type ledgerHead struct {
	Plan Config `json:"plan"`
}

// OpenLedger opens or makes the ledger file of a plan. A file of another plan
// is refused. A line that was cut off by a kill is dropped. Close it.
func OpenLedger(path string, p *Plan) (*Ledger, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := NewLedger()
	l.file = f
	if err := l.load(p); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger %s: %w", path, err), f.Close())
	}
	l.w = bufio.NewWriter(f)
	return l, nil
}

func (l *Ledger) load(p *Plan) error {
	text, err := io.ReadAll(l.file)
	if err != nil {
		return err
	}
	whole := 0
	for n := 0; whole < len(text); n++ {
		end := whole
		for end < len(text) && text[end] != '\n' {
			end++
		}
		if end == len(text) {
			break
		}
		line := text[whole:end]
		if n == 0 {
			var head ledgerHead
			if err := json.Unmarshal(line, &head); err != nil {
				return err
			}
			if head.Plan != p.Config {
				return fmt.Errorf("it is of another plan: %+v", head.Plan)
			}
		} else {
			var o Outcome
			if err := json.Unmarshal(line, &o); err != nil {
				return fmt.Errorf("line %d: %w", n+1, err)
			}
			l.merge(o)
		}
		whole = end + 1
	}
	if err := l.file.Truncate(int64(whole)); err != nil {
		return err
	}
	if _, err := l.file.Seek(int64(whole), io.SeekStart); err != nil {
		return err
	}
	if whole == 0 {
		head, err := json.Marshal(ledgerHead{p.Config})
		if err != nil {
			return err
		}
		if _, err := l.file.Write(append(head, '\n')); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) merge(o Outcome) {
	was := l.outcomes[o.Request]
	o.Attempts += was.Attempts
	if was.Acked && !o.Acked {
		o.Acked, o.Rejected = true, was.Rejected
	}
	l.outcomes[o.Request] = o
}

// Add records an outcome; attempts of the same request add up.
func (l *Ledger) Add(o Outcome) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.merge(o)
	if l.w == nil {
		return nil
	}
	line, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("record outcome of request %d: %w", o.Request, err)
	}
	if _, err := l.w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("record outcome of request %d: %w", o.Request, err)
	}
	if err := l.w.Flush(); err != nil {
		return fmt.Errorf("record outcome of request %d: %w", o.Request, err)
	}
	return nil
}

// Outcome returns what became of request n; the zero Outcome if it was never
// sent.
func (l *Ledger) Outcome(n int) Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outcomes[n]
}

// Close closes the ledger's file, if it has one.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return errors.Join(l.w.Flush(), l.file.Close())
}
