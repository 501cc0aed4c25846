package ops

import (
	"fmt"
	"log/slog"
	"sync"
)

// Lag follows how many records a service is behind the log, by partition. It logs
// when the sum grows and when it is small again, and says on /readyz how large it is:
// a service that is behind is ready all the same.
type Lag struct {
	log   *slog.Logger
	floor int64

	mu     sync.Mutex // covers all below
	parts  map[string]int64
	sum    int64
	logged int64 // sum of the last warning; 0: none is open
}

// LagFloor is the sum of records at which the first warning is logged. A working
// service has less in flight.
const LagFloor = 100_000

// NewLag returns a Lag whose first warning comes at floor records.
func NewLag(log *slog.Logger, floor int64) *Lag {
	return &Lag{log: log, floor: floor, parts: map[string]int64{}}
}

// Set notes the lag of a partition, such as "uptake.raw.v1/3". Warnings come at the
// floor and each time that the sum has doubled since the last one, so that a lag that
// grows for days takes a few lines.
func (l *Lag) Set(partition string, records int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum += records - l.parts[partition]
	l.parts[partition] = records
	l.report()
}

// Forget drops partitions that the service no longer has, without a line: another
// instance has them, and their lag.
func (l *Lag) Forget(partitions ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range partitions {
		l.sum -= l.parts[p]
		delete(l.parts, p)
	}
	if l.sum < l.floor/2 {
		l.logged = 0
	}
}

// report logs what changed. l.mu is held.
func (l *Lag) report() {
	switch {
	case l.sum >= l.floor && l.sum >= 2*l.logged:
		most := l.most()
		l.log.Warn("lag grows", "records", l.sum, "partitions", len(l.parts), "most_in", most, "records_there", l.parts[most])
		l.logged = l.sum
	case l.logged > 0 && l.sum < l.floor/2:
		l.log.Info("lag is small again", "records", l.sum, "was", l.logged)
		l.logged = 0
	}
}

// most is the partition with the largest lag, of equal ones the first by name.
func (l *Lag) most() (name string) {
	for p, n := range l.parts {
		if name == "" || n > l.parts[name] || (n == l.parts[name] && p < name) {
			name = p
		}
	}
	return name
}

// String says how far behind the service is; empty while it has no partitions.
func (l *Lag) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.parts) == 0 {
		return ""
	}
	if l.sum == 0 {
		return fmt.Sprintf("0 records behind in %d partitions", len(l.parts))
	}
	most := l.most()
	return fmt.Sprintf("%d records behind in %d partitions, %d of them in %s", l.sum, len(l.parts), l.parts[most], most)
}
