package enrich

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// health holds the reasons why the service is not ready.
type health struct {
	mu         sync.Mutex // covers all below
	joined     bool
	restore    map[int32]string // progress of partitions being restored
	fault      error            // error of the last session, until a transaction is committed
	partitions []int32
	others     []func() error
}

func newHealth() *health { return &health{restore: map[int32]string{}} }

// check returns the reason why the service is not ready, or nil.
func (h *health) check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.fault != nil:
		return h.fault
	case h.other() != nil:
		return h.other()
	case !h.joined:
		return errors.New("no partitions assigned yet")
	case len(h.restore) > 0:
		var all []string
		for id, what := range h.restore {
			all = append(all, fmt.Sprintf("partition %d: %s", id, what))
		}
		slices.Sort(all)
		return errors.New(strings.Join(all, "; "))
	}
	return nil
}

// serving returns the assigned partitions, and the progress of those being restored.
func (h *health) serving() ([]int32, map[int32]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.partitions), maps.Clone(h.restore)
}

func (h *health) assigned() []int32 {
	partitions, _ := h.serving()
	return partitions
}

// also adds a check.
func (h *health) also(check func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.others = append(h.others, check)
}

func (h *health) other() error {
	for _, check := range h.others {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// assign sets the assigned partitions, all of which are to be restored; nil means that
// they were revoked.
func (h *health) assign(partitions []int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.joined = partitions != nil
	h.partitions = partitions
	clear(h.restore)
	for _, p := range partitions {
		h.restore[p] = "restoring"
	}
}

func (h *health) restoring(id int32, what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.restore[id]; ok {
		h.restore[id] = what
	}
}

func (h *health) restored(id int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.restore, id)
	if len(h.restore) == 0 {
		h.fault = nil
	}
}

func (h *health) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = err
}

func (h *health) committed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = nil
}
