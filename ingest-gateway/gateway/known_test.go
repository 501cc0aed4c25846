package gateway

import (
	"strings"
	"testing"
)

// What one gateway has stored every other one knows, and so does the next after a
// restart: clients of Gainsight PX take their branch by it, whichever replica
// they are sent to.
func TestGatewaysAgreeOnWhatExists(t *testing.T) {
	cluster := newCluster(t)
	a := startGateway(t, cluster.ListenAddrs(), "", nil)
	b := startGateway(t, cluster.ListenAddrs(), "", nil)
	a.awaitReady()
	b.awaitReady()
	ask := func(r *running, method, path, body string, want int) {
		t.Helper()
		if res := r.do(method, path, strings.NewReader(body), "X-APTRINSIC-API-KEY", testKey); res.err != nil || res.status != want {
			t.Errorf("%s %s: got %d %s %v, want %d", method, path, res.status, res.body, res.err, want)
		}
	}
	const maria, title = `{"identifyId":"maria","accountId":"corner-shop"}`, `{"title":"Owner"}`
	ask(b, "GET", "/v1/users/maria", "", 404)
	ask(b, "PUT", "/v1/users/maria", title, 404)
	ask(a, "POST", "/v1/users", maria, 201)
	ask(b, "GET", "/v1/users/maria", "", 200)
	ask(b, "POST", "/v1/users", maria, 400)
	ask(b, "PUT", "/v1/users/maria", title, 204)
	ask(b, "POST", "/v1/accounts", `{"id":"corner-shop"}`, 201)
	ask(a, "GET", "/v1/accounts/corner-shop", "", 200)
	if err := a.stopped(); err != nil {
		t.Fatal(err)
	}
	next := startGateway(t, cluster.ListenAddrs(), "", nil)
	next.awaitReady()
	ask(next, "GET", "/v1/users/maria", "", 200)
	ask(next, "POST", "/v1/accounts", `{"id":"corner-shop"}`, 400)
	ask(next, "GET", "/v1/users/nobody", "", 404)
}
