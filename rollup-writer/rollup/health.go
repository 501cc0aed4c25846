package rollup

import (
	"errors"
	"sort"
	"strings"
	"sync"
)

// health holds the reasons why the writer is not ready, by part: starting, kafka, or a
// partition.
type health struct {
	mu     sync.Mutex // covers faults
	faults map[string]string
}

func newHealth() *health { return &health{faults: map[string]string{}} }

func (h *health) set(part, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults[part] = reason
}

func (h *health) clear(part string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.faults, part)
}

// parts are those that have a reason, but not a given one.
func (h *health) parts(but string) map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := map[string]bool{}
	for part := range h.faults {
		list[part] = true
	}
	delete(list, but)
	return list
}

// check returns an error that names every fault.
func (h *health) check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.faults) == 0 {
		return nil
	}
	list := make([]string, 0, len(h.faults))
	for part, reason := range h.faults {
		list = append(list, part+": "+reason)
	}
	sort.Strings(list)
	return errors.New(strings.Join(list, "; "))
}
