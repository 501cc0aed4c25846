package bench

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/stack"
)

func gatewaySingle(ctx context.Context, r *runner) (*load, error) {
	return r.gatewayLoad(ctx, "gateway_single", r.cfg.SingleRequests, 1)
}

func gatewayBatch(ctx context.Context, r *runner) (*load, error) {
	return r.gatewayLoad(ctx, "gateway_batch", r.cfg.BatchRequests, r.cfg.BatchEvents)
}

// writeKeyOf is the write key of an app.
func writeKeyOf(app string) string { return app + "-write-key" }

// authorization is the header of requests to an app.
func authorization(app string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(writeKeyOf(app)+":"))
}

// gateway starts a gateway for apps, and returns where it takes requests.
func (c *closers) gateway(ctx context.Context, r *runner, dir string, l *log, apps []string, args ...string) (*process, string, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	file := filepath.Join(dir, "keys.yaml")
	var keys strings.Builder
	keys.WriteString("apps:\n")
	for _, app := range apps {
		fmt.Fprintf(&keys, "  - id: %s\n    keys: [\"sha256:%x\"]\n", app, sha256.Sum256([]byte(writeKeyOf(app))))
	}
	keys.WriteString("...\n")
	if err := os.WriteFile(file, []byte(keys.String()), 0o600); err != nil {
		return nil, "", err
	}
	p, err := c.serve(ctx, r, stack.Gateway, dir, append([]string{"-kafka-brokers", l.brokers(), "-addr", addr, "-keys", file}, args...)...)
	return p, "http://" + addr, err
}

// against measures what a number of requests costs the process that takes them.
func (d driver) against(ctx context.Context, p *process, requests int) (Sample, error) {
	sp, err := p.span()
	if err != nil {
		return Sample{}, err
	}
	latencies, err := d.run(ctx, requests)
	if err != nil {
		return Sample{}, err
	}
	s, err := sp.stop(requests * d.events)
	s.Latency = latencies
	return s, err
}

func (r *runner) gatewayLoad(ctx context.Context, name string, requests, events int) (_ *load, err error) {
	var c closers
	defer c.failed(ctx, &err)
	l, err := c.log(ctx, r)
	if err != nil {
		return nil, err
	}
	dir, err := r.dir(name)
	if err != nil {
		return nil, err
	}
	apps := []string{benchApp}
	for i := 1; i < r.cfg.Apps; i++ {
		apps = append(apps, fmt.Sprint("app-", i))
	}
	p, url, err := c.gateway(ctx, r, dir, l, apps, r.cfg.GatewayArgs...)
	if err != nil {
		return nil, err
	}
	d := driver{url: url, authorization: authorization(benchApp), events: events, connections: r.cfg.Connections}
	if _, err := d.run(ctx, r.cfg.Connections*4); err != nil {
		return nil, fmt.Errorf("warm up: %w", err)
	}
	round := func(ctx context.Context) (Sample, error) {
		before, err := l.committed(ctx, topic.Unprefixed.Raw)
		if err != nil {
			return Sample{}, err
		}
		s, err := d.against(ctx, p, requests)
		if err != nil {
			return Sample{}, err
		}
		after, err := l.committed(ctx, topic.Unprefixed.Raw)
		if err != nil {
			return Sample{}, err
		}
		if got := after - before; got != int64(requests*events) {
			return Sample{}, fmt.Errorf("raw holds %d of %d acked events", got, requests*events)
		}
		return s, nil
	}
	return &load{round: round, close: c.close, pprofs: map[string]string{name: p.metrics}}, nil
}

func gatewaySingleFloor(ctx context.Context, r *runner) (*load, error) {
	return r.gatewayFloor(ctx, r.cfg.SingleRequests, 1)
}

func gatewayBatchFloor(ctx context.Context, r *runner) (*load, error) {
	return r.gatewayFloor(ctx, r.cfg.BatchRequests, r.cfg.BatchEvents)
}

// gatewayFloor is a server that discards the same requests plus a producer of
// as many records of the same size.
func (r *runner) gatewayFloor(ctx context.Context, requests, events int) (_ *load, err error) {
	var c closers
	defer c.failed(ctx, &err)
	dir, err := r.dir("gateway-floor")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := startFloor(dir, floorJob{Kind: "http", Addr: addr})
	if err != nil {
		return nil, err
	}
	c.add(func(context.Context) error { p.kill(); return nil })
	err = p.await(ctx, "the discarding server", func() (bool, error) {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false, nil // not listening yet
		}
		return true, conn.Close()
	})
	if err != nil {
		return nil, err
	}
	d := driver{url: "http://" + addr, events: events, connections: r.cfg.Connections}
	if _, err := d.run(ctx, r.cfg.Connections*4); err != nil {
		return nil, err
	}
	l, err := c.log(ctx, r)
	if err != nil {
		return nil, err
	}
	raw := rawEvent(0, 0, propertiesJSON(nil, 8, 0, 0), time.Now(), r.cfg)
	job := floorJob{
		Kind: "produce", Brokers: l.Addrs(), Topic: topic.Unprefixed.Raw, Partitions: l.partitions,
		Requests: requests, Events: events, Connections: r.cfg.Connections, Bytes: len(event.NewCodec().AppendRaw(nil, &raw)),
	}
	round := func(ctx context.Context) (Sample, error) {
		s, err := d.against(ctx, p, requests)
		if err != nil {
			return Sample{}, err
		}
		produced, err := r.floor(ctx, job)
		if err != nil {
			return Sample{}, err
		}
		s.CPU += produced.CPU
		return s, nil
	}
	return &load{round: round, close: c.close}, nil
}
