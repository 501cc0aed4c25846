// Package machine runs all of Uptake in one process on one machine: the embedded
// log, the embedded ClickHouse (a child process), and the three services with
// their own metrics and health.
//
// It owns the data folder, the order in which the parts start and stop, and what
// is there from the first start: topics, tables, an app with a write key, a
// sample catalog. The services themselves are what ships, with their own
// defaults; this package sets their addresses and folders and nothing that
// changes what they promise.
package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/uptakehq/uptake/enricher/enrich"
	"github.com/uptakehq/uptake/ingest-gateway/gateway"
	"github.com/uptakehq/uptake/rollup-writer/alert"
	"github.com/uptakehq/uptake/rollup-writer/alert/deliver"
	"github.com/uptakehq/uptake/rollup-writer/console"
	"github.com/uptakehq/uptake/rollup-writer/definitions"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/rollup-writer/rollup"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	insightsample "github.com/uptakehq/uptake/schemas/insight/sample"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/locallog"
)

// Dependencies are what a Machine is given.
type Dependencies struct {
	Logger *slog.Logger
	// Out gets what people read: progress, what runs where, what to try.
	Out io.Writer
}

// Machine is one standalone. Make it with New, then call Run once.
type Machine struct {
	cfg Config
	log *slog.Logger
	out io.Writer
	// started ends the quiet of the start: [quietStart].
	started atomic.Bool

	access     *embedded.Access // nil: an external ClickHouse
	consoleURL string
}

// New returns a machine. cfg must be valid.
func New(cfg Config, deps Dependencies) (*Machine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &Machine{cfg: cfg, out: deps.Out}
	m.log = slog.New(quietStart{deps.Logger.Handler(), &m.started})
	return m, nil
}

// How long a part may take to end before it is cut short.
const stopTimeout = 30 * time.Second

// Run starts everything, serves until signals.Stop ends, and stops in order: the
// gateway, the enricher, the writer, ClickHouse, the log. signals.Kill cuts that
// short; then nothing is lost either, and the next start takes longer.
func (m *Machine) Run(signals process.Signals) (err error) {
	data, err := openDataDir(m.cfg.Data)
	if err != nil {
		return err
	}
	defer data.close()
	if err := m.awaitPredecessor(signals.Stop, data); err != nil {
		return withoutError(signals, err)
	}
	if err := m.checkAddrs(); err != nil {
		return err
	}
	fmt.Fprintln(m.out, "Starting the log, ClickHouse and the services: a few seconds, or a minute on a slow machine.")

	services := []*service{newService("ingest-gateway", m.log), newService("enricher", m.log)}
	if !m.cfg.WithoutWriter {
		services = append(services, newService("rollup-writer", m.log), newService(alertsName, m.log))
	}
	if m.cfg.ConsoleAddr != "" {
		services = append(services, newService(consoleName, m.log))
	}
	health, err := m.serveHealth(services)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, health.close()) }()

	log, err := locallog.Start(locallog.Config{Addr: m.cfg.KafkaAddr, DataDir: data.in("log")})
	if err != nil {
		return fmt.Errorf("-kafka-addr, -data: %w", err)
	}
	defer func() {
		log.Close()
		m.log.Info("log closed")
	}()

	var clickhouse *embedded.Kept
	var givenUp <-chan struct{}
	if !m.cfg.ExternalClickHouse {
		if m.access, err = m.cfg.access(data); err != nil {
			return err
		}
		clickhouse, err = embedded.Keep(signals.Stop, embedded.Config{
			Access: m.access, DataDir: data.in("clickhouse"), NativeAddr: m.cfg.ClickHouseAddr, HTTPAddr: m.cfg.ClickHouseHTTPAddr,
			LibraryPath: m.cfg.ClickHouseLibrary, Fsync: m.cfg.ClickHouseFsync, Remote: m.cfg.ClickHouseRemote, Logger: m.log, Progress: m.out,
		})
		if err != nil {
			return withoutError(signals, err)
		}
		givenUp = clickhouse.Done()
		health.watch("clickhouse", clickhouse.Err)
		defer func() {
			ctx, cancel := context.WithTimeout(signals.Kill, stopTimeout)
			defer cancel()
			err = errors.Join(err, clickhouse.Close(ctx))
		}()
	}
	first, err := prepareLog(signals.Stop, log.Addr(), m.log)
	if err != nil {
		return withoutError(signals, err)
	}
	if err := repair.Migrate(signals.Stop, m.writer(log.Addr()).Config, m.log); err != nil {
		return withoutError(signals, err)
	}
	if first {
		w := m.writer(log.Addr())
		if _, err := definitions.ApplyFirst(signals.Stop, &w.ClickHouse, App, "standalone", insightsample.MyPOS); err != nil {
			return withoutError(signals, fmt.Errorf("apply sample definitions: %w", err))
		}
	}
	if m.cfg.WithoutWriter {
		m.log.Warn("the rollup-writer does not run: what arrives waits in the log", "rebuild", "rollup-writer rebuild -kafka-brokers "+log.Addr()+
			" -clickhouse-addr "+m.cfg.ClickHouseAddr+" -clickhouse-database "+m.cfg.ClickHouseDatabase+m.login(data.path))
	} else if err := repair.Init(signals.Stop, m.writer(log.Addr()).Config, false, m.log); err != nil {
		return withoutError(signals, err)
	}

	ended := make(chan *service, len(services))
	defer func() { // in order; the next one is still there for what the one before hands it
		for _, s := range services {
			err = errors.Join(err, s.stop())
		}
	}()
	if err := m.startServices(signals.Kill, services, data, log.Addr(), ended); err != nil {
		return err
	}
	ready, stopWaiting := health.await(services, m.log)
	defer stopWaiting()
	for {
		select {
		case <-ready:
			ready = nil
			m.banner(data.path)
			m.started.Store(true)
		case <-signals.Stop.Done():
			m.started.Store(true)
			m.log.Info("stopping in order; a second signal cuts it short")
			return nil
		case s := <-ended:
			// Its own error is joined when it is stopped.
			return fmt.Errorf("%s ended by itself, stopping the others", s.name)
		case <-givenUp:
			return fmt.Errorf("clickhouse: %w", clickhouse.Err())
		}
	}
}

// withoutError is nil for what failed because the start was cut short.
func withoutError(signals process.Signals, err error) error {
	if signals.Stop.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// awaitPredecessor waits for the ClickHouse of a run that was killed: it ends by
// itself, and holds its ports until then. The lock on the folder is ours, so it
// can be nobody else's.
func (m *Machine) awaitPredecessor(ctx context.Context, data *dataDir) error {
	if m.cfg.ExternalClickHouse {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if err := embedded.AwaitFree(ctx, data.in("clickhouse")); err != nil {
		return fmt.Errorf("wait for the ClickHouse of the run before: %w", err)
	}
	return nil
}

// checkAddrs finds an address that is taken before anything is started, and
// names its flag.
func (m *Machine) checkAddrs() error {
	var errs []error
	for _, a := range m.cfg.addrs() {
		if !a.ours {
			continue
		}
		ln, err := net.Listen("tcp", a.value)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			errs = append(errs, fmt.Errorf("-%s: %s is in use by another program: stop that, or choose another address with -%s or %s",
				a.flag, a.value, a.flag, setting.Env(a.flag)))
		case err != nil:
			errs = append(errs, fmt.Errorf("-%s: %w", a.flag, err))
		default:
			_ = ln.Close() // it was opened to be closed
		}
	}
	return errors.Join(errs...)
}

// writer is the writer's config, also for what is done before it runs.
func (m *Machine) writer(brokers string) rollup.Config {
	w := rollup.DefaultConfig()
	w.Kafka.Brokers = setting.Strings{brokers}
	w.ClickHouse.Addr, w.ClickHouse.Database = m.cfg.ClickHouseAddr, m.cfg.ClickHouseDatabase
	w.ClickHouse.User, w.ClickHouse.Password = m.cfg.ClickHouseUser, m.cfg.ClickHousePassword
	if a := m.access; a != nil {
		w.ClickHouse.User, w.ClickHouse.Password, w.ClickHouse.ViewDefiner = a.Owner, setting.Secret(a.Password), a.Definer()
	}
	return w
}

const (
	consoleName = "console"
	alertsName  = "alerts"

	consoleToken = "console-token"
)

// alerts evaluates what the definitions say, with the rights of a reader.
func (m *Machine) alerts(data *dataDir, brokers string, secret setting.Secret, s *service) (*alert.Service, error) {
	cfg := alert.DefaultConfig()
	cfg.Kafka.Brokers = setting.Strings{brokers}
	cfg.ClickHouse = m.writer(brokers).ClickHouse
	cfg.ClickHouse.User, cfg.ClickHouse.Password = m.readOnly()
	cfg.Targets = m.cfg.AlertsTargets
	if m.cfg.ConsoleAddr != "" {
		token, err := console.ReadToken(data.in(consoleToken))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		cfg.ConsoleURL, cfg.FeedbackSecret = "http://"+dialable(m.cfg.ConsoleAddr), secret
		cfg.ReportsURL, cfg.ReportsToken = cfg.ConsoleURL, setting.Secret(token)
	}
	service, err := alert.New(cfg, alert.Dependencies{Logger: s.logger, Metrics: s.registry, Health: s.health, Now: time.Now})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return service, nil
}

// readOnly is the login of what only reads the views.
func (m *Machine) readOnly() (user string, password setting.Secret) {
	if a := m.access; a != nil {
		return a.Console(), setting.Secret(a.ConsolePassword)
	}
	return m.cfg.ClickHouseUser, m.cfg.ClickHousePassword
}

// console returns the pages, with the first event to send for the app and the key
// that exist from the first start.
func (m *Machine) console(data *dataDir, brokers string, secret setting.Secret, s *service) (*console.Console, error) {
	cfg := console.DefaultConfig()
	cfg.ClickHouse = m.writer("").ClickHouse
	cfg.ClickHouse.User, cfg.ClickHouse.Password = m.readOnly()
	cfg.Addr, cfg.TokenFile = m.cfg.ConsoleAddr, data.in(consoleToken)
	cfg.GatewayURL, cfg.WriteKey = "http://"+dialable(m.cfg.GatewayAddr), WriteKey
	cfg.FeedbackSecret = secret
	k := m.writer(brokers).Kafka
	opts, err := k.Options(s.logger, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	cfg.Live, cfg.Notes, cfg.Kafka.Brokers = true, true, setting.Strings{brokers}
	if m.cfg.AlertsTargets != "" {
		targets, err := deliver.LoadTargets(m.cfg.AlertsTargets)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		cfg.MailTargets = targets.ReportNames()
	}
	pages, err := console.New(cfg, console.Dependencies{Logger: s.logger, Metrics: s.registry, Acknowledge: alert.Acknowledger(opts, topic.Unprefixed)})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return pages, nil
}

func (m *Machine) startServices(kill context.Context, services []*service, data *dataDir, brokers string, ended chan<- *service) error {
	keys, err := data.keysFile()
	if err != nil {
		return err
	}
	feedback, err := data.password(feedbackSecret)
	if err != nil {
		return err
	}
	intake, enricher := services[0], services[1]

	e := enrich.DefaultConfig()
	e.Kafka.Brokers = setting.Strings{brokers}
	e.DataDir, e.PrivacyFile = data.in("enricher"), m.cfg.PrivacyFile
	en, err := enrich.New(e, enrich.Dependencies{Logger: enricher.logger, Metrics: enricher.registry, Health: enricher.health})
	if err != nil {
		return fmt.Errorf("%s: %w", enricher.name, err)
	}

	// The last one: it listens from here on.
	g := gateway.DefaultConfig()
	g.Kafka.Brokers = setting.Strings{brokers}
	g.Addr, g.Keys, g.PrivacyFile, g.GeoFile = m.cfg.GatewayAddr, keys, m.cfg.PrivacyFile, m.cfg.GeoFile
	gw, err := gateway.New(g, gateway.Dependencies{Logger: intake.logger, Metrics: intake.registry, Health: intake.health})
	if err != nil {
		return fmt.Errorf("%s: %w", intake.name, err)
	}

	// From the end of the path to its beginning.
	for _, s := range services[2:] {
		var run func(process.Signals) error
		switch s.name {
		case consoleName:
			pages, err := m.console(data, brokers, setting.Secret(feedback), s)
			if err != nil {
				return err
			}
			m.consoleURL, run = pages.URL(), pages.Run
		case alertsName:
			service, err := m.alerts(data, brokers, setting.Secret(feedback), s)
			if err != nil {
				return err
			}
			run = service.Run
		default:
			writer, err := rollup.New(m.writer(brokers), rollup.Dependencies{Logger: s.logger, Metrics: s.registry, Health: s.health})
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			run = writer.Run
		}
		s.start(kill, run, ended)
	}
	enricher.start(kill, en.Run, ended)
	intake.start(kill, gw.Run, ended)
	return nil
}
