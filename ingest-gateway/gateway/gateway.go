// Package gateway receives events over HTTP and writes them to Kafka.
//
// It owns the flow of a request (exchange.go), the HTTP server (http.go, the only file
// that depends on its library), the producer and the records in flight, the bounds on
// both, and the order in which everything stops. The wire protocols are packages of
// their own, behind the interfaces of package ingest; write keys are in package keys.
//
// Everything here serves one promise: a request is answered with success only after
// every record of it was acked by all in-sync replicas, and a request that was answered
// otherwise may be sent again under the same message ids without harm.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/ingest-gateway/body"
	"github.com/uptakehq/uptake/ingest-gateway/geo"
	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/keys"
	"github.com/uptakehq/uptake/ingest-gateway/known"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/privacy"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// Dependencies of a Gateway.
type Dependencies struct {
	Logger  *slog.Logger
	Metrics prometheus.Registerer
	Health  *ops.Health
	// Protocols, in the order in which they are asked where paths collide; nil selects
	// Protocols() with a memory of known ids shared by all gateways.
	Protocols []ingest.Protocol
	// Reload triggers an immediate check of the key file; may be nil.
	Reload <-chan struct{}
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Gateway is one ingest gateway. Create it with New, then call Run once.
type Gateway struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	metrics  *metrics
	router   *ingest.Router
	keys     *keys.Store
	privacy  *privacy.File
	geo      *geo.File
	reload   <-chan struct{}
	proxies  []netip.Prefix
	unpacker body.Unpacker
	meters   meters
	producer *producer
	known    *known.Shared
	server   *server
	codec    *event.Codec

	bounds
	crowd     crowd // requests that wait for acks
	exchanges sync.Pool
	killed    <-chan struct{} // ends waiting for acks; set by Run
	stopping  atomic.Bool
}

// New checks the settings, reads the key file and opens the listening socket, but
// serves nothing yet. Kafka need not be reachable; the schema registry must be, if one
// is configured.
func New(cfg Config, deps Dependencies) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	g := &Gateway{cfg: cfg, log: deps.Logger, now: deps.Now, reload: deps.Reload}
	reach, err := cfg.Kafka.Options(g.log, nil) // the metrics are the producer's
	if err != nil {
		return nil, err
	}
	g.known = known.NewShared(known.Config{Options: reach, Names: cfg.Kafka.Names(), Limit: known.DefaultLimit, Timeout: cfg.AckTimeout})
	if deps.Protocols == nil {
		deps.Protocols = protocols(g.known)
	}
	g.metrics = newMetrics(deps.Metrics)
	g.bytes.limit = cfg.MaxInflightBytes
	g.unauthenticated.limit = cfg.shareOfBytes(cfg.MaxUnauthenticatedShare)
	g.addresses = newShares(cfg.shareOfBytes(cfg.MaxAddressShare))
	g.meters.metrics = g.metrics
	if g.router, err = ingest.NewRouter(deps.Protocols...); err != nil {
		return nil, err
	}
	if g.proxies, err = parseProxies(cfg.TrustedProxies); err != nil {
		return nil, err
	}
	if g.keys, err = keys.Open(cfg.Keys, g.log, deps.Metrics); err != nil {
		return nil, err
	}
	if g.privacy, err = privacy.Open(cfg.PrivacyFile); err != nil {
		return nil, err
	}
	if g.geo, err = geo.Open(cfg.GeoFile); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), registryTimeout)
	defer cancel()
	if g.codec, err = cfg.Registry.Codec(ctx); err != nil {
		return nil, err
	}
	if g.producer, err = newProducer(cfg, g.log, deps.Metrics, g.metrics, g.now); err != nil {
		return nil, err
	}
	g.exchanges.New = func() any { return g.newExchange() }
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		g.producer.client.Load().Close()
		return nil, fmt.Errorf("addr: %w", err)
	}
	g.server = newServer(g, ln)
	g.metrics.observe(g, deps.Metrics)
	deps.Health.Register("kafka", g.producer.ready)
	deps.Health.Register("intake", func() error {
		if g.stopping.Load() {
			return errors.New("stopping")
		}
		return nil
	})
	return g, nil
}

// privacyPoll and geoPoll are how often the privacy rules and the database of countries
// are checked for changes.
const (
	privacyPoll = 5 * time.Second
	geoPoll     = 30 * time.Second
)

// geoRead logs that the database of countries was reloaded, or why it was not.
func (g *Gateway) geoRead(err error) {
	if err != nil {
		g.log.Error("database of countries cannot be used", "file", g.cfg.GeoFile, "error", err)
		return
	}
	g.log.Info("database of countries loaded", "file", g.cfg.GeoFile, "built", g.geo.Built())
}

// privacyRead logs that the privacy rules were reloaded, or why they were not.
func (g *Gateway) privacyRead(err error) {
	if err != nil {
		g.log.Error("privacy rules cannot be used", "file", g.cfg.PrivacyFile, "error", err)
		return
	}
	g.log.Info("privacy rules loaded", "file", g.cfg.PrivacyFile)
}

// registryTimeout bounds the registration of the schemas.
const registryTimeout = 30 * time.Second

// Addr is the address on which the gateway listens.
func (g *Gateway) Addr() string { return g.server.addr() }

// Run serves until signals.Stop ends, and then stops in order: it accepts no new
// connections, finishes requests in progress or cuts them off at stop-timeout, flushes
// the producer and closes the client. signals.Kill cuts this short. Run closes what New
// opened.
func (g *Gateway) Run(signals process.Signals) error {
	g.killed = signals.Kill.Done()
	background, stopBackground := context.WithCancel(signals.Kill)
	var wg sync.WaitGroup
	start := func(run func()) { // each ends with background
		wg.Add(1)
		go func() { defer wg.Done(); run() }()
	}
	start(func() { g.keys.Run(background, g.cfg.KeysPoll, g.reload) })
	start(func() { g.privacy.Follow(background, privacyPoll, g.privacyRead) })
	start(func() { g.geo.Follow(background, geoPoll, g.geoRead) })
	start(func() { g.producer.watch(background) })
	served := make(chan error, 1)
	go func() { served <- g.server.serve() }() // ends with server.stop, or by itself when accepting fails
	g.log.Info("serving", "addr", g.Addr())

	var err error
	select {
	case <-signals.Stop.Done():
	case err = <-served:
		served <- err
		err = fmt.Errorf("accept connections on %s: %w", g.Addr(), err)
	}

	g.stopping.Store(true)
	g.log.Info("stopping", "open_connections", g.server.connections(), "unacked_records", g.producer.unacked())
	began := g.now()
	deadline, cancel := context.WithTimeout(signals.Kill, g.cfg.StopTimeout)
	defer cancel()
	cut := g.server.stop(deadline)
	if failed := <-served; failed != nil && err == nil {
		g.log.Warn("listener failed while stopping", "error", failed)
	}
	g.known.Close()
	flushed, lost := g.producer.close(deadline)
	stopBackground()
	wg.Wait()
	g.log.Info("stopped", "seconds", g.now().Sub(began).Seconds(), "connections_cut", cut,
		"records_flushed", flushed, "records_not_acked", lost, "events_accepted", g.metrics.acceptedEver.Load())
	if signals.Kill.Err() != nil {
		err = errors.Join(err, context.Cause(signals.Kill))
	}
	return err
}
