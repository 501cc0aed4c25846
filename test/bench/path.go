package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// probeApp is the app whose events are looked for one by one: few, so that
// looking costs little.
const probeApp = "probe"

// pathInterval is the writer's block interval on the whole path, the default of
// one machine. The greater part of the latency is this.
const pathInterval = "1s"

// whole is the whole path as processes.
type whole struct {
	dir               string
	log               *log
	server            *embedded.Server
	gateway, enricher *process
	writer            *process
	url               string
}

// whole starts gateway, enricher and writer over a log and a ClickHouse.
func (c *closers) whole(ctx context.Context, r *runner, name, interval string, gatewayArgs ...string) (_ *whole, err error) {
	w := &whole{}
	if w.dir, err = r.dir(name); err != nil {
		return nil, err
	}
	if w.log, err = c.log(ctx, r); err != nil {
		return nil, err
	}
	if w.server, err = c.clickhouse(ctx, r, w.dir, w.log, interval); err != nil {
		return nil, err
	}
	for _, app := range []string{benchApp, probeApp} {
		if err := r.applyCatalog(ctx, w.log, w.dir, app); err != nil {
			return nil, err
		}
	}
	if w.writer, err = c.writer(ctx, r, w.dir, w.log, w.server, interval); err != nil {
		return nil, err
	}
	if w.enricher, err = c.serve(ctx, r, stack.Enricher, w.dir, "-kafka-brokers", w.log.brokers(), "-data-dir", filepath.Join(w.dir, "data")); err != nil {
		return nil, err
	}
	w.gateway, w.url, err = c.gateway(ctx, r, w.dir, w.log, []string{benchApp, probeApp, mixtureApp}, gatewayArgs...)
	return w, err
}

// parts measure the processes of the whole path.
type parts []struct {
	name string
	span span
}

func (w *whole) spans() (parts, error) {
	var all parts
	for _, p := range []struct {
		name string
		pid  int
	}{{"gateway", w.gateway.cmd.Process.Pid}, {"enricher", w.enricher.cmd.Process.Pid}, {"writer", w.writer.cmd.Process.Pid}, {"clickhouse", w.server.Pid()}} {
		sp, err := startSpan(p.pid)
		if err != nil {
			return nil, err
		}
		all = append(all, struct {
			name string
			span span
		}{p.name, sp})
	}
	return all, nil
}

// stop returns a sample with the parts only.
func (p parts) stop(events int) (Sample, error) {
	s := Sample{Events: events}
	for _, part := range p {
		got, err := part.span.stop(events)
		if err != nil {
			return s, err
		}
		s.Parts = append(s.Parts, Part{part.name, got.CPU, got.PeakRSS})
	}
	return s, nil
}

// path drives the whole path at a rate below its capacity. The figure is of the
// three services together; its latency is from the start of a request to the
// first query that sees its event.
func path(ctx context.Context, r *runner) (_ *load, err error) {
	var c closers
	defer c.failed(ctx, &err)
	w, err := c.whole(ctx, r, "path", pathInterval)
	if err != nil {
		return nil, err
	}
	d := driver{url: w.url, authorization: authorization(benchApp), events: r.cfg.BatchEvents, connections: 8, rate: float64(r.cfg.PathRate)}
	rows := 0
	round := func(ctx context.Context) (Sample, error) {
		spans, err := w.spans()
		if err != nil {
			return Sample{}, err
		}
		begin := time.Now()
		probing, stop := context.WithCancel(ctx)
		defer stop()
		probes := probes{url: w.url, server: w.server}
		var wg sync.WaitGroup
		wg.Go(func() { probes.run(probing) }) // ends with probing
		requests := r.cfg.PathRate * r.cfg.PathSeconds / r.cfg.BatchEvents
		_, err = d.run(ctx, requests)
		stop()
		wg.Wait()
		if err != nil {
			return Sample{}, err
		}
		if err := probes.rest(ctx); err != nil {
			return Sample{}, err
		}
		events := requests * r.cfg.BatchEvents
		rows += events
		err = w.writer.await(ctx, "the rows", func() (bool, error) {
			n, err := count(ctx, w.server, "uptake.events WHERE app_id = '"+benchApp+"'")
			return n >= rows, err
		})
		if err != nil {
			return Sample{}, err
		}
		s, err := spans.stop(events)
		for _, p := range s.Parts[:min(3, len(s.Parts))] { // the services
			s.CPU += p.CPU
			s.PeakRSS += p.PeakRSS
		}
		s.Wall, s.Latency = time.Since(begin), probes.seen
		return s, err
	}
	return &load{round: round, close: c.close, pprofs: map[string]string{
		"path_gateway": w.gateway.metrics, "path_enricher": w.enricher.metrics, "path_writer": w.writer.metrics,
	}}, nil
}

// probes are single events whose way to a visible row is timed.
type probes struct {
	url    string
	server *embedded.Server

	sent    atomic.Int64 // names probes
	mu      sync.Mutex   // covers the rest
	waiting map[string]time.Time
	seen    []time.Duration
	err     error
}

const (
	probeEvery = 97 * time.Millisecond // no part of any interval of the services
	lookEvery  = 50 * time.Millisecond // adds half of this to each latency
)

// run sends probes and looks for them until ctx ends.
func (p *probes) run(ctx context.Context) {
	p.waiting = map[string]time.Time{}
	var wg sync.WaitGroup
	wg.Go(func() { // ends with ctx
		for backoff.Sleep(ctx, probeEvery) == nil {
			p.keep(p.send())
		}
	})
	for backoff.Sleep(ctx, lookEvery) == nil {
		p.keep(p.look(ctx))
	}
	wg.Wait()
}

// keep keeps the first error.
func (p *probes) keep(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

func (p *probes) send() error {
	id := fmt.Sprintf("probe-%d", nextID.Add(1))
	var req fasthttp.Request
	var resp fasthttp.Response
	req.SetRequestURI(p.url + "/v1/track")
	req.Header.SetMethod(fasthttp.MethodPost)
	req.Header.Set("Authorization", authorization(probeApp))
	req.SetBodyString(`{"type":"track","event":"Probe","userId":"u","messageId":"` + id + `"}`)
	p.mu.Lock()
	p.waiting[id] = time.Now()
	p.mu.Unlock()
	p.sent.Add(1)
	if err := fasthttp.Do(&req, &resp); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	if resp.StatusCode() != fasthttp.StatusOK {
		return fmt.Errorf("probe: reply %d: %.200s", resp.StatusCode(), resp.Body())
	}
	return nil
}

// look asks once which of the probes that wait are visible.
func (p *probes) look(ctx context.Context) error {
	p.mu.Lock()
	var ids []string
	for id := range p.waiting {
		ids = append(ids, "'"+id+"'")
	}
	p.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	text, err := p.server.Query(ctx, "SELECT message_id FROM uptake.events WHERE app_id = '"+probeApp+"' AND message_id IN ("+strings.Join(ids, ",")+")")
	if ctx.Err() != nil {
		return nil // cut short: rest asks again
	}
	if err != nil {
		return fmt.Errorf("look for probes: %w", err)
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range strings.Fields(text) {
		if sent, ok := p.waiting[id]; ok {
			p.seen = append(p.seen, now.Sub(sent))
			delete(p.waiting, id)
		}
	}
	return nil
}

// rest waits for the probes that are not seen yet.
func (p *probes) rest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for p.err == nil && len(p.waiting) > 0 {
		if backoff.Sleep(ctx, lookEvery) != nil {
			return fmt.Errorf("%d of %d probes were not seen: %w", len(p.waiting), p.sent.Load(), ctx.Err())
		}
		p.keep(p.look(ctx))
	}
	return p.err
}
