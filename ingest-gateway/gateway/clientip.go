package gateway

import (
	"net/netip"
	"strings"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// clientIP returns the client's address: the peer's, or, when the peer is a
// trusted proxy, the last address in the forwarded header that is not one of
// them. What stands before that in the header is whatever the client wrote.
func clientIP(peer netip.Addr, h ingest.Headers, header string, trusted []netip.Prefix) netip.Addr {
	peer = peer.Unmap().WithZone("")
	if len(trusted) == 0 || !within(peer, trusted) {
		return peer
	}
	// Proxies append to the field or add another one of the name.
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
