package gateway

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/uptakehq/uptake/ingest-gateway/keys"
)

// quick starts a gateway that is ready, with a cluster of its own.
func quick(t testing.TB, extra string, change func(*Config, *Dependencies)) (*running, *kfake.Cluster) {
	t.Helper()
	cluster := newCluster(t)
	g := startGateway(t, cluster.ListenAddrs(), extra, change)
	g.awaitReady()
	return g, cluster
}

func pack(t testing.TB, codec, s string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch codec {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zstd":
		var err error
		if w, err = zstd.NewWriter(&b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestBounds(t *testing.T) {
	g, cluster := quick(t, "", func(c *Config, _ *Dependencies) {
		c.Limits.MaxCompressedBytes, c.Limits.MaxBodyBytes, c.Limits.MaxEventBytes, c.Limits.MaxBatchEvents = 1000, 5000, 2000, 3
		c.Limits.MaxImportBytes, c.MaxInflightBytes, c.MaxAddressShare = 5000, 200_000, 1
	})
	one := track("m", "u")
	big := func(n int) string {
		return strings.Replace(one, `"sku"`, `"text":"`+strings.Repeat("x", n)+`","sku"`, 1)
	}
	noisy := make([]byte, 0, 1500) // packs badly
	for i := range 1500 {
		noisy = fmt.Appendf(noisy, "%x", i*7919)
	}
	for _, tc := range []struct {
		name    string
		body    io.Reader
		status  int
		setting string
	}{
		{"plain", strings.NewReader(one), 200, ""},
		{"chunked", chunked(one), 200, ""},
		{"gzip", strings.NewReader(pack(t, "gzip", big(1500))), 200, ""},
		{"zstd", strings.NewReader(pack(t, "zstd", big(1500))), 200, ""},
		{"above max-body-bytes", strings.NewReader(big(6000)), 413, "max-body-bytes"},
		{"above max-body-bytes, chunked", chunked(big(6000)), 413, "max-body-bytes"},
		{"gzip bomb", strings.NewReader(pack(t, "gzip", big(500_000))), 413, "max-body-bytes"},
		{"zstd bomb", strings.NewReader(pack(t, "zstd", big(1<<20))), 413, "max-body-bytes"},
		{"above max-compressed-bytes", strings.NewReader(pack(t, "gzip", string(noisy))), 413, "max-compressed-bytes"},
		{"cut gzip", strings.NewReader(pack(t, "gzip", one)[:40]), 400, ""},
		{"empty", strings.NewReader(""), 400, ""},
	} {
		res := g.do("POST", "/v1/track", tc.body)
		if res.err != nil || res.status != tc.status {
			t.Errorf("%s: got %v %d %s, want %d", tc.name, res.err, res.status, res.body, tc.status)
			continue
		}
		if v := res.verdict(t); v.Error.Setting != tc.setting || v.Success != (tc.status == 200) {
			t.Errorf("%s: got %s, want %s named", tc.name, res.body, tc.setting)
		}
		if tc.setting != "" && g.metric("uptake_gateway_limited_total", "setting", tc.setting) == 0 {
			t.Errorf("%s: %s is not counted", tc.name, tc.setting)
		}
	}
	if v := g.post("/v1/batch", batchOf(one, one, one, one)).verdict(t); v.Error.Setting != "max-batch-events" {
		t.Errorf("got %+v", v)
	}
	if v := g.post("/v1/batch", batchOf(one, big(3000))).verdict(t); v.Accepted != 1 || v.Rejected[0].Code != "too_large" {
		t.Errorf("got %+v", v)
	}
	if got := len(readLog(t, cluster.ListenAddrs()).events); got != 5 {
		t.Errorf("log holds %d events, want 5", got)
	}
	g.idle()
}

// chunked hides a body's length, so that it is sent in chunks.
func chunked(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) }

// The bound on bytes holds for bodies and for the records made of them.
func TestInflightBytes(t *testing.T) {
	g, cluster := quick(t, "", func(c *Config, _ *Dependencies) {
		c.Limits.MaxBodyBytes, c.Limits.MaxImportBytes, c.MaxInflightBytes, c.MaxAddressShare = 10_000, 10_000, 160_000, 1
	})
	release := stall(cluster)
	defer release()
	body := strings.Replace(track("m", "u"), `"sku"`, `"text":"`+strings.Repeat("x", 9000)+`","sku"`, 1)
	var wg sync.WaitGroup
	for range 2 { // each takes its body, 9200 bytes, and one step of records, 64 KiB
		wg.Add(1)
		go func() {
			defer wg.Done()
			if res := g.post("/v1/track", body); res.status != 200 {
				t.Errorf("got %d %s", res.status, res.body)
			}
		}()
	}
	await(t, "both are in flight", func() bool { return g.producer.inflight.used.Load() == 2 })
	res := g.post("/v1/track", body)
	if v := res.verdict(t); res.status != 503 || v.Error.Setting != "max-inflight-bytes" || res.header.Get("Retry-After") != "1" {
		t.Errorf("got %d %s", res.status, res.body)
	}
	release()
	wg.Wait()
	g.idle()
	if res := g.post("/v1/track", body); res.status != 200 {
		t.Errorf("afterwards: got %d %s", res.status, res.body)
	}
}

// raw sends bytes over a connection of its own and returns the replies.
func (r *running) raw(parts ...string) []reply {
	r.t.Helper()
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	for _, p := range parts {
		if _, err := io.WriteString(c, p); err != nil {
			return []reply{{err: err}}
		}
	}
	if tc, ok := c.(*net.TCPConn); ok {
		_ = tc.CloseWrite()
	}
	var replies []reply
	br := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return replies
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		replies = append(replies, reply{resp.StatusCode, resp.Header, string(b), err, resp.Close})
	}
}

func request(line, body string, header ...string) string {
	return line + " HTTP/1.1\r\nHost: gw\r\nAuthorization: " + basicAuth(testKey) + "\r\n" + strings.Join(header, "\r\n") +
		fmt.Sprintf("\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func statuses(replies []reply) string {
	var s []string
	for _, r := range replies {
		s = append(s, fmt.Sprint(r.status))
	}
	return strings.Join(s, " ")
}

// A request's bytes are never taken for another request, whatever the client
// says of their length.
func TestConnections(t *testing.T) {
	g, cluster := quick(t, "", func(c *Config, _ *Dependencies) {
		c.Limits.MaxBodyBytes, c.Limits.MaxCompressedBytes, c.ReadTimeout = 5000, 1000, time.Second
	})
	ok := func(id string) string { return request("POST /v1/track", track(id, "u"), "X: y") }
	hidden := ok("hidden")
	both := func(header string) string {
		one := track("both", "u")
		return fmt.Sprintf("POST /v1/track HTTP/1.1\r\nHost: gw\r\nAuthorization: %s\r\n%s\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", basicAuth(testKey), header, len(one), one)
	}
	closes := func(r reply) bool { return r.closed }
	for _, tc := range []struct {
		name  string
		sent  string
		want  string
		check func(reply) bool
	}{
		{"pipelined", ok("p1") + ok("p2") + ok("p3"), "200 200 200", nil},
		{"unknown path with a body", request("POST /nowhere", hidden, "X: y") + ok("a1"), "404 200", nil},
		{"wrong method with a body", request("PUT /v1/track", hidden, "X: y") + ok("a2"), "405 200", nil},
		{"too large, little more than the bound", request("POST /v1/track", strings.Repeat("x", 5001)+hidden, "X: y") + ok("a3"), "413 200", nil},
		{"too large, far more", request("POST /v1/track", strings.Repeat("x", 12000)+hidden, "X: y"), "413", func(r reply) bool { return r.closed }},
		{"GET with a body", request("GET /v1/projects/"+testKey+"/settings", hidden, "X: y") + ok("a4"), "200 200", nil},
		{"preflight with a body", request("OPTIONS /v1/track", hidden, "X: y") + ok("a5"), "204 200", nil},
		{"asks before it sends", strings.Replace(ok("a6"), "X: y", "Expect: 100-continue", 1), "100 200", nil},
		{"cut body", ok("cut")[:len(ok("cut"))-5], "400", nil},
		{"body without its end", strings.Replace(ok("slow"), "Content-Length: ", "Content-Length: 1", 1), "400", nil},
		{"chunks", "POST /v1/track HTTP/1.1\r\nHost: gw\r\nAuthorization: " + basicAuth(testKey) + "\r\nTransfer-Encoding: chunked\r\n\r\n" +
			fmt.Sprintf("10\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", track("c1", "u")[:16], len(track("c1", "u"))-16, track("c1", "u")[16:]) + ok("a7"), "200 200", nil},
		{"both lengths", strings.Replace(ok("both"), "X: y", "Transfer-Encoding: chunked", 1), "400", nil},
		{"both lengths, sent in chunks", both("Content-Length: 4\r\nTransfer-Encoding: chunked") + ok("after"), "400", closes},
		{"both lengths, the coding first", both("Transfer-Encoding: chunked\r\nContent-Length: 4") + ok("after"), "400", closes},
		{"both lengths, in other letters", both("transfer-encoding: chunked\r\ncONTENT-lENGTH: 4") + ok("after"), "400", closes},
		{"two lengths", both("Content-Length: 4\r\nContent-Length: 4") + ok("after"), "400", closes},
		{"a coding that is not chunked", both("Transfer-Encoding: identity") + ok("after"), "400", closes},
		{"two codings", both("Transfer-Encoding: gzip, chunked") + ok("after"), "400", closes},
		{"a folded header", both("X: a\r\n b\r\nTransfer-Encoding: chunked") + ok("after"), "400", closes},
		{"a folded header with a tab", both("X: a\r\n\tb\r\nTransfer-Encoding: chunked") + ok("after"), "400", closes},
		{"a folded length", both("Content-Length:\r\n 4") + ok("after"), "400", closes},
		{"no HTTP", "hello\r\n\r\n", "400", nil},
		{"header too large", request("POST /v1/track", "{}", "X: "+strings.Repeat("y", 20000)), "431", func(r reply) bool { return strings.Contains(r.body, "max-header-bytes") }},
		{"HEAD", strings.Replace(request("HEAD /v1/projects/"+testKey+"/settings", "", "X: y"), "Content-Length: 0\r\n", "", 1), "200", nil},
	} {
		replies := g.raw(tc.sent)
		if tc.name == "HEAD" && len(replies) == 0 {
			t.Errorf("%s: no reply", tc.name)
		}
		if got := statuses(replies); got != tc.want && tc.name != "HEAD" {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
			continue
		}
		if tc.check != nil && !tc.check(replies[0]) {
			t.Errorf("%s: got %+v", tc.name, replies[0])
		}
	}
	ids := readLog(t, cluster.ListenAddrs()).ids()
	for _, id := range []string{"hidden", "cut", "slow", "both", "after"} {
		if ids[id] > 0 {
			t.Errorf("%s was taken", id)
		}
	}
	if len(ids) != 11 {
		t.Errorf("log holds %v", ids)
	}
	g.idle()
}

// A body that ends early is not taken, even if what came is JSON. The HTTP server
// tells only of those that it reads at once, which are short.
func TestBodyThatEndsEarly(t *testing.T) {
	g, cluster := quick(t, "", nil)
	for _, size := range []int{10, 20_000} {
		body := strings.Replace(track("cut", "u"), `"sku"`, `"text":"`+strings.Repeat("x", size)+`","sku"`, 1)
		sent := strings.TrimSuffix(request("POST /v1/track", body+"   ", "X: y"), "   ")
		if replies := g.raw(sent); len(replies) != 1 || replies[0].status != 400 {
			t.Errorf("%d bytes: got %v", size, replies)
		}
	}
	if ids := readLog(t, cluster.ListenAddrs()).ids(); len(ids) != 0 {
		t.Errorf("log holds %v", ids)
	}
	g.idle()
}

// A client that sends slowly is cut off and holds nothing.
func TestSlowClient(t *testing.T) {
	g, _ := quick(t, "", func(c *Config, _ *Dependencies) { c.ReadTimeout = 100 * time.Millisecond })
	for _, part := range []string{"POST /v1/tr", request("POST /v1/track", track("m", "u"), "X: y")[:150]} {
		c, err := net.Dial("tcp", g.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, part); err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		b, err := io.ReadAll(c) // ends when the gateway closes the connection
		if err != nil {
			t.Errorf("%v", err)
		}
		if !bytes.HasPrefix(b, []byte("HTTP/1.1 408")) && !bytes.HasPrefix(b, []byte("HTTP/1.1 400")) {
			t.Errorf("got %q", b)
		}
		c.Close()
	}
	g.idle()
	await(t, "the connections are gone", func() bool { return g.server.connections() == 0 })
}

func TestTooManyConnections(t *testing.T) {
	g, _ := quick(t, "", func(c *Config, _ *Dependencies) { c.MaxConnections, c.MaxAddressShare = 2, 1 })
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range 2 {
		c, err := net.Dial("tcp", g.Addr())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		if _, err := io.WriteString(c, request("POST /v1/track", track("m", "u"), "X: y")); err != nil {
			t.Fatal(err)
		}
		if err := readReply(bufio.NewReader(c)); err != nil {
			t.Fatal(err)
		}
	}
	if got := statuses(g.raw(request("POST /v1/track", track("m", "u"), "X: y"))); got != "503" {
		t.Errorf("got %s", got)
	}
	if got := g.metric("uptake_gateway_connections_refused_total"); got != 1 {
		t.Errorf("%v refused", got)
	}
}

func TestCORS(t *testing.T) {
	g, _ := quick(t, "    origins: ['https://shop.example.com']\n", nil)
	const good, bad = "https://shop.example.com", "https://other.example.com"
	for _, tc := range []struct {
		method, path, origin string
		key                  string
		status               int
		allowed              bool
	}{
		{"OPTIONS", "/v1/t", good, "", 204, true},
		{"OPTIONS", "/segment/v1/t/", good, "", 204, true},
		{"OPTIONS", "/v1/t", bad, "", 204, false},
		{"OPTIONS", "/nowhere", good, "", 404, true},
		{"POST", "/v1/t", good, testKey, 200, true},
		{"POST", "/v1/t", bad, testKey, 403, false},
		{"POST", "/v1/t", good, "wrong", 401, true},
		{"GET", "/v1/projects/" + testKey + "/settings", good, "", 200, true},
		{"POST", "/v1/t", "", testKey, 200, false},
	} {
		header := []string{"Origin", tc.origin, "Authorization", basicAuth(tc.key)}
		if tc.method == "OPTIONS" {
			header = append(header, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization, x-retry-count")
		}
		res := g.do(tc.method, tc.path, strings.NewReader(track("m", "u")), header...)
		name := tc.method + " " + tc.path + " from " + tc.origin
		if res.status != tc.status {
			t.Errorf("%s: got %d %s, want %d", name, res.status, res.body, tc.status)
		}
		want := map[string]string{"Access-Control-Allow-Origin": "", "Access-Control-Allow-Credentials": "", "Access-Control-Allow-Methods": "", "Access-Control-Allow-Headers": "", "Access-Control-Expose-Headers": ""}
		if tc.allowed {
			want["Access-Control-Allow-Origin"], want["Access-Control-Allow-Credentials"] = tc.origin, "true"
			if tc.method == "OPTIONS" && tc.status == 204 {
				want["Access-Control-Allow-Methods"], want["Access-Control-Allow-Headers"] = "GET, POST, PUT, OPTIONS", "authorization, x-retry-count"
			} else {
				want["Access-Control-Expose-Headers"] = "Retry-After"
			}
		}
		for k, w := range want {
			if got := res.header.Get(k); got != w {
				t.Errorf("%s: %s is %q, want %q", name, k, got, w)
			}
		}
		if tc.allowed && !strings.Contains(strings.Join(res.header.Values("Vary"), ","), "Origin") {
			t.Errorf("%s: Vary is %q", name, res.header.Values("Vary"))
		}
	}
}

func TestRedirectsNever(t *testing.T) {
	g, _ := quick(t, "", nil)
	for _, path := range []string{"/v1/track/", "//v1//track", "/segment/v1/track", "/v1/../v1/track", "/", "", "/v1/projects//settings"} {
		for _, method := range []string{"GET", "POST"} {
			if res := g.do(method, path, strings.NewReader(track("m", "u"))); res.status/100 == 3 || res.header.Get("Location") != "" {
				t.Errorf("%s %s: got %d to %s", method, path, res.status, res.header.Get("Location"))
			}
		}
	}
}

// The client's address comes from trusted proxies only, and is stored as the app
// says.
func TestForwardedAddress(t *testing.T) {
	g, cluster := quick(t, "", func(c *Config, _ *Dependencies) { c.TrustedProxies = []string{"127.0.0.1", "10.0.0.0/8"} })
	h, other := startGateway(t, cluster.ListenAddrs(), "", nil), "203.0.113.5, 198.51.100.7, 10.1.2.3"
	h.awaitReady()
	g.post("/v1/track", track("trusted", "u"), "X-Forwarded-For", other)
	h.post("/v1/track", track("untrusted", "u"), "X-Forwarded-For", other)
	g.post("/v1/track", track("garbage", "u"), "X-Forwarded-For", "203.0.113.5, unknown")
	got := map[string]string{}
	for _, e := range readLog(t, cluster.ListenAddrs()).events {
		got[e.MessageID] = e.IP
	}
	for id, want := range map[string]string{"trusted": "198.51.100.7", "untrusted": "127.0.0.1", "garbage": "127.0.0.1"} {
		if got[id] != want {
			t.Errorf("%s: got %q, want %q", id, got[id], want)
		}
	}
}

// clock is set by tests.
type clock struct {
	mu sync.Mutex // covers now
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func TestRateAndQuota(t *testing.T) {
	// A minute before a midnight to come: records are stamped by this clock, and
	// the client gives up on those that are old by its own.
	c := &clock{t: time.Now().UTC().Truncate(24 * time.Hour).Add(48*time.Hour - time.Minute)}
	g, cluster := quick(t, "    rate: 2\n    burst: 4\n    daily_quota: 12\n", func(_ *Config, d *Dependencies) { d.Now = c.now })
	step := func(name string, n, status int, code, retry string) {
		t.Helper()
		var events []string
		for i := range n {
			events = append(events, track(fmt.Sprintf("%s%d", name, i), "u"))
		}
		res := g.post("/v1/batch", batchOf(events...))
		if v := res.verdict(t); res.status != status || v.Error.Code != code || res.header.Get("Retry-After") != retry {
			t.Errorf("%s: got %d %s %q, want %d %s %q", name, res.status, res.body, res.header.Get("Retry-After"), status, code, retry)
		}
	}
	step("burst", 3, 200, "", "")
	step("larger than what is left", 5, 200, "", "") // now 4 are owed
	step("owing", 1, 429, "rate_limited", "3")
	c.add(3 * time.Second)
	step("again", 4, 200, "", "")
	c.add(30 * time.Second)
	step("over quota", 1, 429, "over_quota", "27")
	c.add(27 * time.Second)
	step("next day", 1, 200, "", "")
	if got := len(readLog(t, cluster.ListenAddrs()).events); got != 13 {
		t.Errorf("log holds %d events, want 13", got)
	}
	for _, setting := range []string{"keys: rate", "keys: daily_quota"} {
		if g.metric("uptake_gateway_limited_total", "setting", setting) != 1 {
			t.Errorf("%s is not counted", setting)
		}
	}
}

// Keys are rotated without a restart, and a bad file leaves the old in force.
func TestKeysAreReadAgain(t *testing.T) {
	reload := make(chan struct{})
	g, _ := quick(t, "", func(c *Config, d *Dependencies) { d.Reload, c.KeysPoll = reload, time.Hour })
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(g.keyFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		reload <- struct{}{}
		reload <- struct{}{} // the first is done when the second is taken
	}
	status := func(key string) int {
		return g.post("/v1/track", track("m", "u"), "Authorization", basicAuth(key)).status
	}
	write(keyFile("", "second"))
	if a, b := status(testKey), status("second"); a != 401 || b != 200 {
		t.Errorf("after rotation: got %d and %d", a, b)
	}
	write("apps: nonsense")
	if b := status("second"); b != 200 || g.metric("uptake_gateway_keys_stale") != 1 {
		t.Errorf("after a bad file: got %d", b)
	}
	write(fmt.Sprintf("apps:\n  - id: dev\n    keys: ['%s', '%s']\n...\n", keys.HashOf(testKey), keys.HashOf("second")))
	if a, b := status(testKey), status("second"); a != 200 || b != 200 {
		t.Errorf("with both: got %d and %d", a, b)
	}
}

// Imports of Mixpanel's size, 2,000 events and 10 MB, fit the default bounds on
// their path, and on no other.
func TestImportsFit(t *testing.T) {
	if testing.Short() {
		t.Skip("10 MB take a minute under the race detector; not under -short")
	}
	// On a busy machine the embedded log takes its time.
	g, _ := quick(t, "", func(c *Config, _ *Dependencies) { c.AckTimeout = 2 * time.Minute })
	var b strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&b, `,{"event":"Old","properties":{"distinct_id":"u%d","time":1577836800,"$insert_id":"i-%d","text":"`, i, i)
		for j := range 600 { // packs badly
			fmt.Fprintf(&b, "%x", uint32(i*600+j)*2654435761)
		}
		b.WriteString(`"}}`)
	}
	body := "[" + b.String()[1:] + "]"
	if len(body) < 9<<20 || len(body) > 10_000_000 {
		t.Fatalf("the body has %d bytes", len(body))
	}
	const answer = `{"code":200,"status":"OK","num_records_imported":2000}`
	for _, packed := range []string{body, pack(t, "gzip", body)} {
		if res := g.post("/import?strict=1&project_id=7&verbose=1", packed); res.status != 200 || res.body != answer {
			t.Errorf("%d bytes: got %d %.300s", len(packed), res.status, res.body)
		}
		if res := g.post("/track", packed); res.status != 413 {
			t.Errorf("%d bytes that are no import: got %d %.300s", len(packed), res.status, res.body)
		}
	}
	if res := g.post("/import?strict=1", strings.Repeat(" ", 16<<20+1)); res.status != 413 || !strings.Contains(res.body, "max-import-bytes") {
		t.Errorf("more than the bound: got %d %s", res.status, res.body)
	}
	g.idle()
}

// A key may do less than its app: protocols, origins, rate, quota, time.
func TestKeyScopes(t *testing.T) {
	c := &clock{t: time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)}
	hash := keys.HashOf("narrow")
	extra := fmt.Sprintf("  - id: lab\n    keys:\n      - {hash: %q, expires: %s, protocols: [segment], origins: [https://lab.example], rate: 2, daily_quota: 6}\n      - %q\n",
		hash, c.now().Add(time.Hour).Format(time.RFC3339), keys.HashOf("wide"))
	g, cluster := quick(t, extra, func(_ *Config, d *Dependencies) { d.Now = c.now })
	n := 0
	send := func(key, origin string, events, status int, code string) {
		t.Helper()
		var all []string
		for range events {
			n++
			all = append(all, track(fmt.Sprintf("s%d", n), "u"))
		}
		res := g.do("POST", "/v1/batch", strings.NewReader(batchOf(all...)), "Authorization", basicAuth(key), "Origin", origin)
		if v := res.verdict(t); res.status != status || v.Error.Code != code {
			t.Errorf("%s from %q: got %d %s, want %d %s", key, origin, res.status, res.body, status, code)
		}
	}
	const lab = "https://lab.example"
	send("narrow", lab, 4, 200, "") // the burst
	send("narrow", lab, 1, 429, "rate_limited")
	send("wide", "", 20, 200, "") // the app has no bound
	c.add(10 * time.Second)
	send("narrow", lab, 2, 200, "")
	c.add(10 * time.Second)
	send("narrow", lab, 1, 429, "over_quota")
	send("wide", "", 20, 200, "")
	send("narrow", "https://other.example", 1, 403, "bad_origin")
	capture := func(key string) int {
		return g.do("POST", "/capture/", strings.NewReader(`{"api_key":"`+key+`","event":"e","distinct_id":"u"}`)).status
	}
	if got := capture("narrow"); got != 403 {
		t.Errorf("PostHog by a key for Segment: got %d, want 403", got)
	}
	if got := capture("wide"); got != 200 {
		t.Errorf("PostHog by a key for all: got %d, want 200", got)
	}
	c.add(time.Hour)
	send("narrow", lab, 1, 401, "bad_key")
	send("wide", lab, 1, 200, "")
	if got, want := g.metric("uptake_gateway_newest_accepted_timestamp_seconds"), float64(c.now().UnixMicro())/1e6; got != want {
		t.Errorf("the newest accepted event is of %v, want %v", got, want)
	}
	if got, want := len(readLog(t, cluster.ListenAddrs()).events), 4+20+2+20+1+1; got != want {
		t.Errorf("log holds %d events, want %d", got, want)
	}
}

// The key file may name each protocol, and no other.
func TestKeyFileKnowsTheProtocols(t *testing.T) {
	var names []string
	for _, p := range Protocols() {
		names = append(names, p.Name())
	}
	slices.Sort(names)
	if !slices.Equal(names, keys.Protocols) {
		t.Errorf("keys.Protocols is %v, the gateway has %v", keys.Protocols, names)
	}
}
