package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// hog opens a connection, sends the beginning of a request and leaves it at that.
func (r *running) hog(sent string) net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, sent); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// sendsFine asserts that an honest sender is served.
func (r *running) sendsFine(what string, header ...string) {
	r.t.Helper()
	for i := range 5 {
		if res := r.post("/v1/track", track(fmt.Sprintf("%s-%d", what, i), "u"), header...); res.err != nil || res.status != 200 {
			r.t.Fatalf("%s: an honest sender got %v %d %s", what, res.err, res.status, res.body)
		}
	}
}

const hogBody = 8 << 20

// begun is the beginning of a request that declares a large body.
func begun(sent int, header ...string) string {
	return fmt.Sprintf("POST /v1/track HTTP/1.1\r\nHost: gw\r\n%s\r\n\r\n%s",
		strings.Join(append(header, fmt.Sprintf("Content-Length: %d", hogBody)), "\r\n"), strings.Repeat(" ", sent))
}

// Sockets that declare bodies and send little of them hold what they sent, and
// nobody else notices them.
func TestDeclaredBodiesHoldNothing(t *testing.T) {
	g, _ := quick(t, "", nil)
	for range 100 { // 33 declare more than max-inflight-bytes
		g.hog(begun(readStep + 1))
	}
	await(t, "the beginnings are read", func() bool { return g.bytes.used.Load() >= 100*readStep })
	g.sendsFine("beside idle sockets")
	if held := g.bytes.used.Load(); held > 100*3*readStep {
		t.Errorf("%d bytes are held for %d that were sent", held, 100*(readStep+1))
	}
	if held := g.metric("uptake_gateway_unauthenticated_bytes"); held < 100*readStep {
		t.Errorf("%v bytes are counted as unauthenticated", held)
	}
}

// What requests without a key hold is bounded, and the rest is for those who
// name a known key before their body.
func TestUnauthenticatedShare(t *testing.T) {
	g, _ := quick(t, "", func(c *Config, _ *Dependencies) {
		c.Limits.MaxImportBytes = hogBody
		c.MaxInflightBytes, c.MaxUnauthenticatedShare, c.MaxAddressShare = 32*hogBody, 0.125, 1 // 4 bodies
	})
	key := "Authorization: " + basicAuth(testKey)
	stranger := "X: y"
	var open []net.Conn
	for range 4 { // each without its last byte
		open = append(open, g.hog(begun(hogBody-1, stranger)))
	}
	await(t, "the bound is reached", func() bool { return g.unauthenticated.used.Load() == 4*hogBody })
	g.sendsFine("beside strangers")
	before := g.bytes.used.Load()
	g.hog(begun(hogBody-1, key))
	await(t, "a body of somebody known is read", func() bool { return g.bytes.used.Load() >= before+hogBody-1 })
	if res := g.post("/v1/track", strings.Repeat(" ", 2*readStep)+track("large", "u")); res.status != 200 {
		t.Errorf("a large body with a known key got %d %s", res.status, res.body)
	}
	unknown := g.post("/v1/track", strings.Repeat(" ", hogBody-1000)+track("m", "u"), "Authorization", "")
	if v := unknown.verdict(t); unknown.status != 503 || v.Error.Setting != settingMaxUnauthenticatedShare || unknown.header.Get("Retry-After") == "" {
		t.Errorf("a stranger's body got %d %s", unknown.status, unknown.body)
	}
	for _, c := range open {
		c.Close()
	}
	await(t, "strangers hold nothing", func() bool { return g.unauthenticated.used.Load() == 0 })
	if res := g.post("/v1/track", strings.Repeat(" ", 2*readStep)+track("m", "u"), "Authorization", ""); res.status != 401 {
		t.Errorf("afterwards a stranger got %d %s", res.status, res.body)
	}
}

// One address takes its share and no more; behind a trusted proxy that is the
// client's address and not the proxy's.
func TestAddressShare(t *testing.T) {
	g, _ := quick(t, "", func(c *Config, _ *Dependencies) {
		c.TrustedProxies = []string{"127.0.0.0/8"}
		c.Limits.MaxImportBytes = hogBody
		c.MaxInflightBytes, c.MaxAddressShare, c.MaxConnections = 32*hogBody, 0.125, 8 // 4 bodies and 1 connection
	})
	key := "Authorization: " + basicAuth(testKey)
	for range 4 {
		g.hog(begun(hogBody-1, key, "X-Forwarded-For: 203.0.113.9"))
	}
	await(t, "the bound is reached", func() bool { return g.bytes.used.Load() == 4*hogBody })
	body := strings.Repeat(" ", hogBody-1000) + track("m", "u")
	res := g.post("/v1/track", body, "X-Forwarded-For", "203.0.113.9")
	if v := res.verdict(t); res.status != 503 || v.Error.Setting != settingMaxAddressShare {
		t.Errorf("the same address got %d %s", res.status, res.body)
	}
	if res := g.post("/v1/track", body, "X-Forwarded-For", "203.0.113.10"); res.status != 200 {
		t.Errorf("another address got %d %s", res.status, res.body)
	}
	if held, bound := g.metric("uptake_gateway_address_bytes"), g.metric("uptake_gateway_address_bytes_limit"); held != bound || bound != 4*hogBody {
		t.Errorf("the address that holds most holds %v of %v", held, bound)
	}
}

// One address cannot take all connections, and a trusted proxy can.
func TestConnectionsOfOneAddress(t *testing.T) {
	for _, tc := range []struct {
		name    string
		trusted []string
		open    int // of 10
	}{{"stranger", nil, 5}, {"proxy", []string{"127.0.0.1"}, 10}} {
		g, _ := quick(t, "", func(c *Config, _ *Dependencies) {
			c.MaxConnections, c.MaxAddressShare, c.TrustedProxies = 10, 0.5, tc.trusted
		})
		var open []net.Conn
		for range 10 {
			open = append(open, g.hog("POST /v1"))
		}
		await(t, "connections are accepted", func() bool {
			return g.server.connections() == tc.open && int(g.server.refused()) == 10-tc.open
		})
		if tc.open < 10 {
			reply := g.raw(request("POST /v1/track", track("m", "u"), "X: y"))
			if statuses(reply) != "503" || !strings.Contains(reply[0].body, settingMaxAddressShare) {
				t.Errorf("one too many got %+v", reply)
			}
			if got := g.metric("uptake_gateway_limited_total", "setting", settingMaxAddressShare); got != 10-5+1 {
				t.Errorf("%v are counted", got)
			}
		}
		for _, c := range open {
			c.Close()
		}
		await(t, "the connections are gone", func() bool { return g.server.connections() == 0 })
		g.sendsFine(tc.name)
	}
}

// A request that comes slower than its pace ends long before read-timeout, in the
// header, at the beginning of its body and far in it.
func TestSlowRequests(t *testing.T) {
	g, _ := quick(t, "", func(c *Config, _ *Dependencies) {
		c.MinRequestRate, c.ReadTimeout = 1<<20, time.Minute
	})
	chunk := "POST /v1/track HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n"
	parts := []string{"POST /v1/tr", begun(10), begun(readStep + 10), chunk + "5\r\nabc", chunk + "5", chunk + "5\r\nabcde\r\n"}
	replies := make(chan string, len(parts))
	began := time.Now()
	for _, part := range parts {
		c := g.hog(part)
		go func() { // ends when the gateway closes the connection
			b, err := io.ReadAll(c)
			replies <- fmt.Sprintf("%v %s", err, b)
		}()
	}
	g.sendsFine("beside slow senders")
	for range parts {
		if reply := <-replies; !strings.HasPrefix(reply, "<nil> HTTP/1.1 408") || !strings.Contains(reply, settingMinRequestRate) {
			t.Errorf("got %s", reply)
		}
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s, read-timeout is a minute", took)
	}
	if got := g.metric("uptake_gateway_limited_total", "setting", settingMinRequestRate); got != float64(len(parts)) {
		t.Errorf("%v are counted, want %d", got, len(parts))
	}
	g.idle()
}

// The pace counts from the first byte, lets bytes buy time, and begins anew with
// every request.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := time.Time{}
		p := pace{rate: 100, active: true}
		if due, slow := p.due(never); slow || !due.IsZero() {
			t.Errorf("before the first byte: due %s", due)
		}
		p.read(100)
		began := time.Now()
		time.Sleep(2 * time.Second)
		p.read(400)
		if due, slow := p.due(never); !slow || !due.Equal(began.Add(paceGrace+5*time.Second)) {
			t.Errorf("with 500 bytes: due after %s", due.Sub(began))
		}
		soon := began.Add(time.Second)
		if due, slow := p.due(soon); slow || !due.Equal(soon) {
			t.Errorf("with an earlier deadline: due after %s", due.Sub(began))
		}
		p = pace{active: true}
		p.read(1)
		if _, slow := p.due(never); slow {
			t.Error("without a rate there is a pace")
		}
		p = pace{rate: 100}
		p.read(1)
		if _, slow := p.due(never); slow {
			t.Error("between requests there is a pace")
		}
	})
}

func TestNetworks(t *testing.T) {
	of := func(s string) network { return networkOf(netip.MustParseAddr(s)) }
	for _, same := range [][2]string{{"2001:db8:1:2::1", "2001:db8:1:2:ffff::"}, {"192.0.2.1", "::ffff:192.0.2.1"}} {
		if of(same[0]) != of(same[1]) {
			t.Errorf("%v are two clients", same)
		}
	}
	for _, other := range [][2]string{{"2001:db8:1:2::1", "2001:db8:1:3::1"}, {"192.0.2.1", "192.0.2.2"}} {
		if of(other[0]) == of(other[1]) {
			t.Errorf("%v are one client", other)
		}
	}
}

// A reply that says that a bound was hit is readable on a connection that goes on.
func TestRefusedBodyKeepsTheConnection(t *testing.T) {
	g, _ := quick(t, "", func(c *Config, _ *Dependencies) {
		c.Limits.MaxBodyBytes, c.Limits.MaxImportBytes, c.MaxInflightBytes, c.MaxAddressShare = 20_000, 20_000, 200_000, 0.4
	})
	if !g.addresses.take(networkOf(netip.MustParseAddr("127.0.0.1")), 79_000) {
		t.Fatal("the share is smaller than it was set")
	}
	sent := request("POST /v1/track", strings.Repeat(" ", 15_000)+track("refused", "u"), "X: y") + "GET /v1/projects/" + testKey + "/settings HTTP/1.1\r\nHost: gw\r\n\r\n"
	c := g.hog(sent)
	br := bufio.NewReader(c)
	for _, want := range []int{503, 200} {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != want {
			t.Errorf("got %d, %v, want %d", resp.StatusCode, err, want)
		}
		resp.Body.Close()
	}
}
