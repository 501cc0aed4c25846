package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestCrowd(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	var c crowd
	wave := func(what string, want ...bool) {
		t.Helper()
		for i, complete := range want {
			if got := c.join(now); got != complete {
				t.Errorf("%s: complete with %d: %t, want %t", what, i+1, got, complete)
			}
		}
		for range want {
			c.leave()
		}
	}
	wave("nobody was here before", true, true, true)
	wave("three were here", false, false, true)
	wave("one more comes", false, false, true, true)
	now = now.Add(crowdWindow)
	wave("four were here in the window before", false, false, false, true)
	now = now.Add(crowdWindow)
	wave("and in the one before this", false, false)
	now = now.Add(crowdWindow)
	wave("two were", false, true)
	now = now.Add(2 * crowdWindow)
	wave("nobody was lately", true)
}

// A linger that outlasts the deadline of acks ends for a producer that sends one
// request after the other, and the client has not much to say about it.
func TestLingerEndsWhenAllWait(t *testing.T) {
	brokers := newCluster(t).ListenAddrs()
	g := startGateway(t, brokers, "", func(c *Config, _ *Dependencies) {
		c.AckTimeout = 2 * time.Second
		c.extra = []kgo.Opt{kgo.ProducerLinger(time.Minute), kgo.RecordDeliveryTimeout(time.Minute)}
	})
	g.awaitReady()
	// The client learns of the topic with the first record, which is sent with
	// the second. Later ones linger only where hurrying took so long that it rests.
	const requests = 20
	lingered := 0
	for i := range requests {
		r := g.post("/v1/track", track(fmt.Sprint("m-", i), "u"))
		switch {
		case r.status == 503:
			lingered++
		case r.status != 200:
			t.Fatalf("request %d: %d %s %v", i, r.status, r.body, r.err)
		}
	}
	if lingered == 0 || lingered > requests/4 {
		t.Errorf("%d of %d requests lingered to the deadline, the first should, and hardly another", lingered, requests)
	}
	for tries := 1; g.post("/v1/track", track("last", "u")).status != 200; tries++ { // sends what lingers
		if tries == 5 {
			t.Fatal("the last request lingers")
		}
	}
	if got := len(readLog(t, brokers).ids()); got != requests+1 {
		t.Errorf("the log holds %d of %d events", got, requests+1)
	}
	if logs := g.logs.String(); strings.Contains(logs, "flush") {
		t.Errorf("each end of a linger is logged:\n%s", logs)
	}
}
