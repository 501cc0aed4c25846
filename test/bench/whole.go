package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/repository"
	"github.com/uptakehq/uptake/test/loadgen"
)

// traffic is what goes through the whole path.
type traffic struct {
	name  string
	links int // of a thousand events, calls that tie a visitor to a user
	keys  int // different property keys over all events; 0: as the run says
	// generated is the traffic that tests and the demo send, of accounts, people,
	// visitors, late, repeated and wrong events, in place of the bench's own.
	generated bool
}

var (
	noLinks    = traffic{name: "whole_0"}
	onePercent = traffic{name: "whole_1", links: 10}
	tenPercent = traffic{name: "whole_10", links: 100}
	manyKeys   = traffic{name: "whole_keys", keys: 400}
	mixture    = traffic{name: "whole_mixture", generated: true}
)

// mixtureApp is the app of generated traffic, which has a catalog of its own.
const mixtureApp = "mixture"

// wholeOf drives the whole path at a rate below its capacity, with blocks as in
// production. The figure is of the three services and of ClickHouse together,
// with the merges of a round's rows.
func wholeOf(m traffic) func(context.Context, *runner) (*load, error) {
	return func(ctx context.Context, r *runner) (_ *load, err error) {
		var c closers
		defer c.failed(ctx, &err)
		w, err := c.whole(ctx, r, m.name, blockInterval)
		if err != nil {
			return nil, err
		}
		send, err := w.sender(ctx, r, m)
		if err != nil {
			return nil, err
		}
		rows := 0
		round := func(ctx context.Context) (Sample, error) {
			spans, err := w.spans()
			if err != nil {
				return Sample{}, err
			}
			before, err := w.writer.blocks(ctx)
			if err != nil {
				return Sample{}, err
			}
			begin := time.Now()
			events, err := send(ctx)
			if err != nil {
				return Sample{}, err
			}
			rows += events
			err = w.writer.await(ctx, "the rows", func() (bool, error) {
				have, err := count(ctx, w.server, "uptake.events")
				return have >= rows, err
			})
			wall := time.Since(begin)
			if err == nil {
				err = merged(ctx, w.writer, w.server)
			}
			if err != nil {
				return Sample{}, err
			}
			s, err := spans.stop(events)
			for _, p := range s.Parts {
				s.CPU += p.CPU
				s.PeakRSS += p.PeakRSS
			}
			after, scrapeErr := w.writer.blocks(ctx)
			s.Wall, s.Blocks = wall, after.less(before)
			return s, errors.Join(err, scrapeErr)
		}
		return &load{round: round, close: c.close, server: w.server, pprofs: map[string]string{
			m.name + "_gateway": w.gateway.metrics, m.name + "_enricher": w.enricher.metrics, m.name + "_writer": w.writer.metrics,
		}}, nil
	}
}

// sender returns what sends a round of such traffic, and how many rows of events that
// makes.
func (w *whole) sender(ctx context.Context, r *runner, m traffic) (func(context.Context) (int, error), error) {
	if m.generated {
		return w.generated(ctx, r)
	}
	cfg := r.cfg
	if m.keys > 0 {
		cfg.Keys = m.keys
	}
	d := driver{url: w.url, authorization: authorization(benchApp), events: cfg.BatchEvents, connections: 8, rate: float64(cfg.PathRate)}
	sent, base := int64(0), int64(0) // a load's events follow each other, whatever other loads send in between
	d.body = func(dst []byte, first int64) []byte {
		dst = append(dst, `{"batch":[`...)
		for i := range int64(d.events) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = sessionEvent(dst, first-base+i, m.links, cfg)
		}
		return append(dst, `]}`...)
	}
	requests := cfg.PathRate * cfg.PathSeconds / d.events
	return func(ctx context.Context) (int, error) {
		base = nextID.Load() - sent
		_, err := d.run(ctx, requests)
		sent += int64(requests * d.events)
		return requests * d.events, err
	}, nil
}

// generated sends plans of the load generator.
func (w *whole) generated(ctx context.Context, r *runner) (func(context.Context) (int, error), error) {
	root, err := repository.Root()
	if err != nil {
		return nil, err
	}
	if err := r.applyCatalogFile(ctx, w.log, w.dir, mixtureApp, filepath.Join(root, "schemas", "catalog", "sample", "mypos.yaml")); err != nil {
		return nil, err
	}
	sender := loadgen.Sender{URLs: []string{w.url}, WriteKey: writeKeyOf(mixtureApp), Workers: 8, Rate: float64(r.cfg.PathRate)}
	seed := uint64(0)
	return func(ctx context.Context) (int, error) {
		seed++
		cfg := loadgen.DefaultConfig(time.Now())
		cfg.Seed, cfg.IDPrefix, cfg.Events = seed, fmt.Sprintf("m%d-", seed), r.cfg.PathRate*r.cfg.PathSeconds
		plan, err := loadgen.New(cfg)
		if err != nil {
			return 0, err
		}
		return plan.Good(), sender.Run(ctx, plan, loadgen.NewLedger(), 0, len(plan.Requests))
	}, nil
}

// Sessions of the whole path: a round is of people who are all there at once,
// each for so many events, the first half of them as a visitor.
const (
	wholeSession  = 10
	linkedVisits  = wholeSession / 2 // the event at which a visitor signs in
	thousandLinks = 1000 / wholeSession
)

// sessionEvent appends the i-th event of the traffic whose links are measured:
// people come as visitors and sign in half way. links of a thousand events say
// that the visitor is the user; who does not say so does the same under the same
// ids, so that traffic with and without links has the same events.
func sessionEvent(dst []byte, i int64, links int, cfg Config) []byte {
	people := max(int64(cfg.PathRate*cfg.PathSeconds/wholeSession), 1)
	wave, step := i/(people*wholeSession), i%(people*wholeSession)/people
	person := wave*people + i%people
	f := int((mix(person) + mix(^i)%sessionFeature) % int64(cfg.Features-cfg.RuleFeatures))
	identifies := step == linkedVisits && person%thousandLinks < int64(links)
	dst = append(dst, `{"messageId":"whole-`...)
	dst = strconv.AppendInt(dst, i, 10)
	if identifies || step < linkedVisits {
		dst = append(dst, `","anonymousId":"7c1e3b2a-5a0e-4f3b-9d53-`...)
		dst = strconv.AppendInt(dst, 100_000_000_000+person, 10)
	}
	if step >= linkedVisits {
		dst = append(dst, `","userId":"user-`...)
		dst = strconv.AppendInt(dst, 10_000_000+person, 10)
	}
	dst = append(dst, `","timestamp":"`...)
	dst = time.Now().UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	if identifies {
		return append(dst, `","type":"identify","traits":{"plan":"team"}}`...)
	}
	dst = append(dst, `","type":"track","event":"`...)
	dst = append(dst, featureOf(f, cfg).event...)
	dst = append(dst, `","context":{"groupId":"account-`...)
	dst = strconv.AppendInt(dst, person%int64(cfg.Accounts), 10)
	dst = append(dst, `","library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"en-GB"},"properties":`...)
	dst = propertiesJSON(dst, cfg.Properties, cfg.Keys, i)
	return append(dst, '}')
}

// blocks reads the writer's counters.
func (p *process) blocks(ctx context.Context) (Blocks, error) {
	enriched := `{topic="` + topic.Unprefixed.Enriched + `"}`
	values := map[string]float64{
		"uptake_writer_blocks_total" + enriched: 0, "uptake_writer_rows_written_total" + enriched: 0, "uptake_writer_statements_total": 0,
		"uptake_writer_correction_read_rows_total": 0, "uptake_writer_corrected_rows_total": 0,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.metrics+"/metrics", nil)
	if err != nil {
		return Blocks{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return Blocks{}, fmt.Errorf("read the writer's metrics: %w", err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		if _, ok := values[name]; ok {
			if values[name], err = strconv.ParseFloat(text, 64); err != nil {
				return Blocks{}, fmt.Errorf("metric %s: %w", name, err)
			}
		}
	}
	return Blocks{
		Blocks: int(values["uptake_writer_blocks_total"+enriched]), Rows: int(values["uptake_writer_rows_written_total"+enriched]),
		Statements: int(values["uptake_writer_statements_total"]),
		Read:       int(values["uptake_writer_correction_read_rows_total"]), Moved: int(values["uptake_writer_corrected_rows_total"]),
	}, lines.Err()
}

// less is what was added since before.
func (b Blocks) less(before Blocks) Blocks {
	return Blocks{b.Blocks - before.Blocks, b.Rows - before.Rows, b.Statements - before.Statements, b.Read - before.Read, b.Moved - before.Moved}
}
