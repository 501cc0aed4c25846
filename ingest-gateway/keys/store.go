package keys

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/svc/wholefile"
)

// settle is how long a changed file must be unchanged before it is read.
const settle = 100 * time.Millisecond

// Store holds the table in force and reloads the file when it changes. A file that is
// not valid leaves the old table in force.
type Store struct {
	path    string
	logger  *slog.Logger
	metrics *metrics
	table   atomic.Pointer[Table]

	mu      sync.Mutex // covers what follows, and is held while reading
	seen    []byte     // the text that was read last, valid or not
	lastErr error      // why the text was refused, nil when it is in force
}

// Open reads the file, which must be valid.
func Open(path string, logger *slog.Logger, reg prometheus.Registerer) (*Store, error) {
	s := &Store{path: path, logger: logger, metrics: newMetrics(reg)}
	text, t, err := load(path)
	if err != nil {
		return nil, err
	}
	s.seen = text
	s.use(t)
	return s, nil
}

func (s *Store) use(t *Table) {
	s.table.Store(t)
	s.metrics.apps.Set(float64(len(t.list)))
	s.metrics.keys.Set(float64(len(t.apps)))
	s.metrics.stale.Set(0)
}

// Table returns the table in force.
func (s *Store) Table() *Table { return s.table.Load() }

// App implements ingest.Authenticator.
func (s *Store) App(key string) *ingest.App { return s.table.Load().App(key) }

// Reload reads the file and, if its text is new and valid, puts it in force. It reports
// whether it did. A file that changes while it is read, or that lacks an app, is
// refused. The error is why a new file was refused, or nil.
func (s *Store) Reload() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := wholefile.Read(s.path, maxFile)
	if err == nil && !bytes.Equal(text, s.seen) {
		text, err = wholefile.Settled(s.path, maxFile, settle)
	}
	if err != nil {
		err = fmt.Errorf("key file: %w", err)
		s.seen = nil // so that the same text counts as a change afterwards
	} else {
		if bytes.Equal(text, s.seen) {
			return false, s.lastErr
		}
		s.seen = text
		var t *Table
		t, err = Parse(text)
		if lost := s.table.Load().lost; err == nil && len(lost(t)) > 0 {
			err = fmt.Errorf("app %s is missing; if it may not send any more, write `keys: none` for it", strings.Join(lost(t), ", "))
		}
		if err == nil {
			s.use(t)
			s.lastErr = nil
			s.metrics.reloads.WithLabelValues("used").Inc()
			s.logger.Info("key file reloaded", "path", s.path, "apps", len(t.list), "keys", len(t.apps))
			return true, nil
		}
	}
	if s.lastErr == nil || err.Error() != s.lastErr.Error() {
		s.metrics.reloads.WithLabelValues("refused").Inc()
		s.logger.Error("new key file refused, the old one stays in force", "path", s.path, "error", err)
	}
	s.metrics.stale.Set(1)
	s.lastErr = err
	return false, err
}

// Run checks the file every interval, and at once for each value of now, until ctx
// ends. It compares the text and not the modification time, which does not change if
// the file is written twice within the clock's resolution.
func (s *Store) Run(ctx context.Context, every time.Duration, now <-chan struct{}) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-now:
		}
		_, _ = s.Reload() // logged and counted there
	}
}
