package gateway

import (
	"net/netip"
	"strings"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// clientIP returns the client's address: the peer's address or, when the peer is a
// trusted proxy, the last address in the forwarded header that is not a trusted
// proxy's. Anything before that in the header was written by the client and proves
// nothing.
func clientIP(peer netip.Addr, h ingest.Headers, header string, trusted []netip.Prefix) netip.Addr {
	peer = peer.Unmap().WithZone("")
	if len(trusted) == 0 || !within(peer, trusted) {
		return peer
	}
	// A proxy may append to the field or add a second field of the same name.
	var hops []string
	h.Each(func(name, value []byte) {
		if strings.EqualFold(ingest.String(name), header) {
			hops = append(hops, strings.Split(string(value), ",")...)
		}
	})
	addr := peer
	for i := len(hops) - 1; i >= 0; i-- {
		hop, ok := ingest.ParseIP(hops[i])
		if !ok {
			break
		}
		addr = hop
		if !within(hop, trusted) {
			break
		}
	}
	return addr
}

func within(addr netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
