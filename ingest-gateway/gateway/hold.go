package gateway

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// bounds holds the bounds on bytes of bodies and records in flight: in total, for
// requests whose write key is not known yet, and per client address.
type bounds struct {
	bytes           budget
	unauthenticated budget
	addresses       shares
}

// hold is what one request has reserved of the bounds.
type hold struct {
	bounds  *bounds
	address network
	taken   int64 // reserved of the total and of the address
	unknown int64 // reserved of unauthenticated
	counted bool  // further reservations count against unauthenticated
}

// begin starts the reading of a body. An exempt body does not count against the bound
// on unauthenticated requests: its key is in the header, or it is so short that the
// bound on connections suffices.
func (h *hold) begin(exempt bool) { h.counted = !exempt }

// reserve reserves n bytes of every bound that applies; if one has no room it reserves
// nothing and returns a Fault that names the bound.
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

// authenticated returns what counts against the bound on unauthenticated requests.
func (h *hold) authenticated() {
	h.bounds.unauthenticated.give(h.unknown)
	h.unknown, h.counted = 0, false
}

// release returns everything.
func (h *hold) release() {
	h.authenticated()
	if h.taken > 0 {
		h.bounds.addresses.give(h.address, h.taken)
		h.bounds.bytes.give(h.taken)
		h.taken = 0
	}
}

// network returns what counts as one client: an IPv4 address, or the /64 of an IPv6
// address, all of which usually belongs to one customer.
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

// shares bounds a resource by network. Networks that hold nothing occupy no memory.
type shares struct {
	limit int64
	mu    sync.Mutex // covers held
	held  map[network]int64
}

func newShares(limit int64) shares { return shares{limit: limit, held: map[network]int64{}} }

// take reserves n; without room it reserves nothing and returns false.
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

// largest is the largest amount that one network holds.
func (s *shares) largest() (most int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.held {
		most = max(most, n)
	}
	return most
}
