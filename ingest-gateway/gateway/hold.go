package gateway

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// bounds are on the bytes of bodies and records in flight: in all, of requests
// whose write key is not known yet, and of one client address.
type bounds struct {
	bytes           budget
	unauthenticated budget
	addresses       shares
}

// hold is what one request has taken of the bounds.
type hold struct {
	bounds  *bounds
	address network
	taken   int64 // of bytes and of the address
	unknown int64 // of unauthenticated
	counted bool  // what is reserved is of an unauthenticated request
}

// begin starts the reading of a body. With exempt it does not count against the
// bound on unauthenticated requests: its key is in the header, or it is so short
// that the bound on connections bounds it.
func (h *hold) begin(exempt bool) { h.counted = !exempt }

// reserve takes n bytes of every bound that applies, or nothing and returns a
// Fault that names the bound.
func (h *hold) reserve(n int) error {
	if n <= 0 {
		return nil
	}
	b, size := h.bounds, int64(n)
	if h.counted && !b.unauthenticated.take(size) {
		return overloaded(settingMaxUnauthenticatedShare, "requests whose write key is not known yet hold %d bytes", b.unauthenticated.limit)
	}
	fault := error(nil)
	switch {
	case !b.bytes.take(size):
		fault = overloaded(settingMaxInflightBytes, "more than %d bytes are in flight", b.bytes.limit)
	case !b.addresses.take(h.address, size):
		b.bytes.give(size)
		fault = overloaded(settingMaxAddressShare, "requests of this client address hold %d bytes", b.addresses.limit)
	default:
		h.taken += size
	}
	switch {
	case !h.counted:
	case fault != nil:
		b.unauthenticated.give(size)
	default:
		h.unknown += size
	}
	return fault
}

func overloaded(setting, format string, bound int64) error {
	return &ingest.Fault{Kind: ingest.Overloaded, Setting: setting, RetryAfter: 1, Detail: fmt.Sprintf(format, bound)}
}

// authenticated ends what counts against the bound on unauthenticated requests.
func (h *hold) authenticated() {
	h.bounds.unauthenticated.give(h.unknown)
	h.unknown, h.counted = 0, false
}

// release gives everything back.
func (h *hold) release() {
	h.authenticated()
	if h.taken > 0 {
		h.bounds.addresses.give(h.address, h.taken)
		h.bounds.bytes.give(h.taken)
		h.taken = 0
	}
}

// network is what counts as one client: an IPv4 address, or the /64 of an IPv6
// address, of which a single customer has all.
type network [16]byte

func networkOf(addr netip.Addr) network {
	if !addr.IsValid() {
		return network{}
	}
	n := network(addr.As16())
	if addr = addr.Unmap(); addr.Is6() {
		clear(n[8:])
	}
	return n
}

// shares bounds something by network. Networks that hold nothing are not in memory.
type shares struct {
	limit int64
	mu    sync.Mutex // covers held
	held  map[network]int64
}

func newShares(limit int64) shares { return shares{limit: limit, held: map[network]int64{}} }

// take takes n, or nothing and reports false.
func (s *shares) take(who network, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.held[who] + n
	if now > s.limit {
		return false
	}
	s.held[who] = now
	return true
}

func (s *shares) give(who network, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.held[who] - n; now > 0 {
		s.held[who] = now
	} else {
		delete(s.held, who)
	}
}

// largest is what the network that holds most holds.
func (s *shares) largest() (most int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.held {
		most = max(most, n)
	}
	return most
}
