// Package stack runs the three services as processes over a log and a
// ClickHouse, for end-to-end and fault tests: the binaries that ship, started
// with the flags that people use.
//
// It owns the processes it starts, their addresses and logs, the ClickHouse, and
// the proxies that it was asked to put between. The log is the caller's: any of
// package kafka. Close ends everything in it; every process dies with the test
// binary in any case. A program that starts a stack calls embedded.ChildMain
// first and Cleanup last.
package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/proxy"
	"github.com/uptakehq/uptake/test/harness/replicated"
)

// Names of the services, as their folders have them.
const (
	Gateway  = "ingest-gateway"
	Enricher = "enricher"
	Writer   = "rollup-writer"
	// Alerts is `rollup-writer alerts`, for Spawn.
	Alerts = "alerts"
)

// What every stack serves.
const (
	App      = "dev"
	Database = "uptake"
	// Internal is the database of the machinery.
	Internal = Database + "_internal"
)

// WriteKeyOf returns the write key of an app.
func WriteKeyOf(app string) string { return app + "-write-key" }

// Config says what to start.
type Config struct {
	Dir    string    // data and logs of everything
	Log    kafka.Log // running
	Prefix string    // kafka-prefix of everything
	Apps   []string  // that have a write key and the sample catalog; default App
	// KeyLines are further settings of every app in the key file, as "name: value".
	KeyLines []string
	Layout   topic.Layout
	// Bare makes topics, tables, keys and catalog and starts no process: the
	// caller runs the services.
	Bare     bool
	Gateways int // how many processes of each service; default 1
	Enricher int
	Writers  int
	Build    Build
	// Args are further flags of a service, by its name.
	Args map[string][]string
	// Env are environment variables of a service, as NAME=value, by its name.
	Env map[string][]string
	// Proxied puts a proxy between the writers and ClickHouse.
	Proxied bool
	// Keeper is host:port of a ZooKeeper: the tables are then in the cluster form,
	// over Replicated engines. The program calls replicated.ChildMain first.
	Keeper string
	// KeeperNodes is what that Keeper has, for system.zookeeper.
	KeeperNodes *replicated.Listing
}

// Stack is what runs.
type Stack struct {
	Gateways   []*Process
	Enrichers  []*Process
	Writers    []*Process
	ClickHouse *ClickHouse
	Proxy      *proxy.Proxy // before ClickHouse; nil unless Proxied
	Conn       driver.Conn  // to ClickHouse, past the proxy

	cfg      Config
	binaries map[string]string
	mu       sync.Mutex // covers extra
	extra    []*Process // started by Spawn
}

// ForTest starts a stack for t and closes it at its end. When the test has
// failed then, the ends of all logs are shown.
func ForTest(t testing.TB, cfg Config) *Stack {
	t.Helper()
	if testing.Short() {
		t.Skip("starts the services and ClickHouse; not under -short")
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute) // it may have to fetch and build
	defer cancel()
	s, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(s.Tails(60))
		}
	})
	return s
}

// Start builds the services, makes topics, tables and catalog by the services'
// own commands, and starts the processes. It returns when all are ready.
func Start(ctx context.Context, cfg Config) (_ *Stack, err error) {
	for _, n := range []*int{&cfg.Gateways, &cfg.Enricher, &cfg.Writers} {
		*n = max(*n, 1)
		if cfg.Bare {
			*n = 0
		}
	}
	if cfg.Layout == (topic.Layout{}) {
		cfg.Layout = topic.SingleLayout()
	}
	if len(cfg.Apps) == 0 {
		cfg.Apps = []string{App}
	}
	s := &Stack{cfg: cfg, binaries: map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			if t := s.Tails(40); t != "" {
				err = fmt.Errorf("%w\n%s", err, t)
			}
		}
	}()
	for _, name := range []string{Gateway, Enricher, Writer} {
		if s.binaries[name], err = Binary(ctx, name, cfg.Build); err != nil {
			return nil, err
		}
	}
	if err := s.startClickHouse(ctx); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	for range cfg.Gateways {
		if err := s.add(&s.Gateways, Gateway); err != nil {
			return nil, err
		}
	}
	for range cfg.Enricher {
		if err := s.add(&s.Enrichers, Enricher); err != nil {
			return nil, err
		}
	}
	for range cfg.Writers {
		if err := s.add(&s.Writers, Writer); err != nil {
			return nil, err
		}
	}
	return s, s.AwaitReady(ctx)
}

func (s *Stack) startClickHouse(ctx context.Context) error {
	dir := filepath.Join(s.cfg.Dir, "clickhouse")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}
	cfg := embedded.Config{
		DataDir: dir, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Progress: os.Stderr,
		MaxRestarts: 100, // tests have it end on purpose
	}
	if s.cfg.Keeper != "" {
		addrs, err := freeAddrs(1)
		if err != nil {
			return err
		}
		cfg.NativeAddr, cfg.Unconfined = addrs[0], true // it connects to a Keeper
		if err := replicated.Prepare(ctx, cfg, s.cfg.Keeper, s.cfg.KeeperNodes); err != nil {
			return err
		}
	}
	var err error
	if s.ClickHouse, err = StartClickHouse(ctx, cfg); err != nil {
		return err
	}
	if s.cfg.Proxied {
		if s.Proxy, err = proxy.Listen(s.ClickHouse.NativeAddr()); err != nil {
			return err
		}
		// The embedded server ends itself when a connection is reset.
		s.Proxy.Gentle()
	}
	s.Conn, err = clickhouse.Open(&clickhouse.Options{Addr: []string{s.ClickHouse.NativeAddr()}})
	return err
}

// add starts one more process of a service and puts it in list.
func (s *Stack) add(list *[]*Process, service string) error {
	p, err := s.process(service, fmt.Sprintf("%s-%d", service, len(*list)))
	if err != nil {
		return err
	}
	*list = append(*list, p)
	return p.Start()
}

// Spawn starts one more process of a service beside those of the config.
func (s *Stack) Spawn(service string) (*Process, error) {
	s.mu.Lock()
	name := fmt.Sprintf("%s-extra-%d", service, len(s.extra))
	s.mu.Unlock()
	p, err := s.process(service, name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.extra = append(s.extra, p)
	s.mu.Unlock()
	return p, p.Start()
}

// Processes returns all that were started.
func (s *Stack) Processes() []*Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Process
	for _, list := range [][]*Process{s.Gateways, s.Enrichers, s.Writers, s.extra} {
		all = append(all, list...)
	}
	return all
}

// Prefix is that of the config.
func (s *Stack) Prefix() string { return s.cfg.Prefix }

// KeysFile is where the write keys of the apps are.
func (s *Stack) KeysFile() string { return filepath.Join(s.cfg.Dir, "keys.yaml") }

// Dir holds the data and logs of everything.
func (s *Stack) Dir() string { return s.cfg.Dir }

// URLs are the roots of the gateways.
func (s *Stack) URLs() []string {
	var urls []string
	for _, g := range s.Gateways {
		urls = append(urls, "http://"+g.Addr)
	}
	return urls
}

// AwaitReady returns when every process of the config is ready.
func (s *Stack) AwaitReady(ctx context.Context) error {
	for _, list := range [][]*Process{s.Gateways, s.Enrichers, s.Writers} {
		for _, p := range list {
			if err := p.AwaitReady(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Tails returns the ends of all logs.
func (s *Stack) Tails(lines int) string {
	var b strings.Builder
	for _, p := range s.Processes() {
		fmt.Fprintf(&b, "==== %s\n%s\n", p.Name, p.Tail(lines))
	}
	return b.String()
}

// Close ends every process in order of the data path, and ClickHouse.
func (s *Stack) Close() error {
	var errs []error
	for _, p := range s.Processes() {
		if p.Running() {
			_ = p.Resume() // a paused one would not see the signal; fails when it has ended
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			if err := p.Stop(ctx); err != nil {
				errs = append(errs, err)
				p.Kill()
			}
			cancel()
		}
	}
	if s.Conn != nil {
		errs = append(errs, s.Conn.Close())
	}
	if s.Proxy != nil {
		s.Proxy.Close()
	}
	if s.ClickHouse != nil {
		errs = append(errs, s.ClickHouse.Close())
	}
	return errors.Join(errs...)
}
