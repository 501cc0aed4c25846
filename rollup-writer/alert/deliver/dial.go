package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// ErrRefused is in the chain of the error about a delivery to an address that is not
// allowed.
var ErrRefused = errors.New("address is not allowed")

// special are ranges that are not on the internet and not covered by the properties of
// an address: shared and benchmark space, documentation, reserved, and prefixes that
// carry an IPv4 address elsewhere.
func special() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// public reports whether an address is on the internet. IPv4 in IPv6 is taken as the
// IPv4 address.
func public(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range special() {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// named reports whether allow contains the address's network.
func (ts *Targets) named(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, p := range ts.networks {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// allowedHost reports whether a host of a target may be dialled at all.
func (ts *Targets) allowedHost(host string) error {
	if ip, err := netip.ParseAddr(host); err == nil {
		if !ts.named(ip) {
			return fmt.Errorf("%w: %s is in no network of allow", ErrRefused, host)
		}
		return nil
	}
	if !ts.hosts[strings.ToLower(host)] {
		return fmt.Errorf("%w: host %s is not in allow", ErrRefused, host)
	}
	return nil
}

// dialer refuses addresses at the moment of the connection, after names were resolved:
// a name may resolve to another address at each attempt.
func (ts *Targets) dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: timeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: %s", ErrRefused, address)
		}
		if !public(at.Addr()) && !ts.named(at.Addr()) {
			return fmt.Errorf("%w: %s is not on the internet, and in no network of allow", ErrRefused, at.Addr())
		}
		return nil
	}}
}

// client follows no redirects and uses no proxy.
func (ts *Targets) client(timeout time.Duration) *http.Client {
	d := ts.dialer(timeout)
	return &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: nil,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return d.DialContext(ctx, network, addr)
			},
			TLSHandshakeTimeout:    timeout,
			ResponseHeaderTimeout:  timeout,
			DisableKeepAlives:      true, // each attempt resolves, dials and is checked
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
}
