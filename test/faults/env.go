package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/proxy"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// env is what the faults of a run break.
type env struct {
	cfg        Config
	app        string  // that the traffic is of
	control    control // that the writers run under; zero: none
	begun      int     // rounds of the runs before this one
	known      map[string]*expected
	layout     topic.Layout
	stack      *stack.Stack
	fake       *kafka.Fake    // or
	real       *kafka.Cluster // that
	kafkaProxy *proxy.Proxy   // before fake
	producer   *kgo.Client

	members map[string][]member    // by service
	locks   map[string]*sync.Mutex // by member: one fault at a time
	store   sync.Mutex             // ClickHouse: one fault of the server itself at a time
	brokers sync.Mutex             // real brokers: one of three at a time
	disks   map[string]*disk       // small ones, by the folder that is on them

	prefix  string   // of the round's ids
	traffic *traffic // of the round

	watched chan struct{} // closed when watch has ended
	stop    chan struct{} // ends watch

	anonymousIDs, messageIDs *crafted // of hostile senders

	mu     sync.Mutex // covers all below
	poison []poisoned
	aside  []poisoned // the writer sets it aside
	sent   []*sent    // by hostile senders, in the round
	marks  int
	extra  []member // started by spawn
	spawns int
}

// poisoned is a record of the harness that the enricher has to reject.
type poisoned struct{ code, original string }

func newEnv(ctx context.Context, c Config) (_ *env, err error) {
	e := &env{cfg: c, app: stack.App, control: controls[c.Control], known: map[string]*expected{}, members: map[string][]member{}, locks: map[string]*sync.Mutex{}, disks: map[string]*disk{}, layout: topic.SingleLayout()}
	e.layout.Partitions = 3
	// What identity and dedup hash begins so.
	e.anonymousIDs, e.messageIDs = newCrafted(e.app+"\x00a"), newCrafted("\x03"+e.app)
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if err := e.mountDisks(); err != nil {
		return nil, err
	}
	log, err := e.startLog(ctx)
	if err != nil {
		return nil, err
	}
	// Retries are few: a poison record that is lost would be looked for in vain.
	e.producer, err = kgo.NewClient(kgo.SeedBrokers(log.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(4<<20))
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	startCtx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	e.stack, err = stack.Start(startCtx, stack.Config{
		Dir: c.Dir, Log: log, Apps: c.apps, Layout: e.layout, Gateways: 2, Enricher: 2, Writers: 2, Proxied: true, Bare: c.Inside,
		Build: stack.Build{Failpoints: !c.Inside}, Args: c.serviceArgs(),
		Env: map[string][]string{stack.Writer: e.plan(stack.Writer)},
	})
	if err != nil {
		return nil, err
	}
	if err := e.join(startCtx); err != nil {
		return nil, err
	}
	e.stop, e.watched = make(chan struct{}), make(chan struct{})
	go e.watch() // ends with close
	return e, nil
}

func (e *env) startLog(ctx context.Context) (kafka.Log, error) {
	var err error
	if e.cfg.Brokers > 0 {
		e.layout.RejectedPartitions, e.layout.Replication, e.layout.MinInsync = 3, 3, 2
		e.real, err = kafka.Start(ctx, kafka.Config{Brokers: e.cfg.Brokers, Dir: filepath.Join(e.cfg.Dir, "kafka"), Properties: map[string]string{"group.min.session.timeout.ms": "1000"}})
		return e.real, err
	}
	opts := []kfake.Opt{kfake.GroupMinSessionTimeout(500 * time.Millisecond), kfake.ListenFn(func(network, address string) (net.Listener, error) {
		ln, err := net.Listen(network, address)
		if err != nil {
			return nil, err
		}
		front, p, err := proxy.Front(ln)
		e.kafkaProxy = p
		return front, err
	})}
	if e.cfg.Classic {
		opts = append(opts, kfake.MaxVersions(kversion.V3_7_0()))
	}
	e.fake, err = kafka.StartFake(opts...)
	return e.fake, err
}

// join makes the members, of the form that the run is about.
func (e *env) join(ctx context.Context) error {
	if !e.cfg.Inside {
		e.members[stack.Gateway], e.members[stack.Enricher], e.members[stack.Writer] = processes(e.stack.Gateways), processes(e.stack.Enrichers), processes(e.stack.Writers)
	} else {
		for service, n := range map[string]int{stack.Gateway: 2, stack.Enricher: 3, stack.Writer: 3} {
			for k := range n {
				i, err := e.newInstance(service, fmt.Sprintf("%s-%d", service, k))
				if err != nil {
					return err
				}
				e.members[service] = append(e.members[service], i)
				if err := i.Start(); err != nil {
					return err
				}
			}
		}
	}
	for _, list := range e.members {
		for _, m := range list {
			e.locks[m.Label()] = &sync.Mutex{}
			if err := m.AwaitReady(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// spawn starts one more member of a service.
func (e *env) spawn(service string) (member, error) {
	if !e.cfg.Inside {
		p, err := e.stack.Spawn(service)
		if err != nil {
			return nil, err
		}
		e.keep(outside{p})
		return outside{p}, nil
	}
	e.mu.Lock()
	e.spawns++
	name := fmt.Sprintf("%s-extra-%d", service, e.spawns)
	e.mu.Unlock()
	i, err := e.newInstance(service, name)
	if err != nil {
		return nil, err
	}
	e.keep(i)
	return i, i.Start()
}

func (e *env) keep(m member) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.extra = append(e.extra, m)
}

// spawned returns what spawn has started.
func (e *env) spawned() []member {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.extra)
}

// urls are where producers send to.
func (e *env) urls() []string {
	if !e.cfg.Inside {
		return e.stack.URLs()
	}
	var urls []string
	for _, m := range e.members[stack.Gateway] {
		urls = append(urls, "http://"+m.(*instance).front.Addr())
	}
	return urls
}

// serviceArgs are short time-outs: what takes minutes in production is to happen
// many times in a run. Clocks that are off must not move events to other hours:
// when they happened is not what is recounted, but whether.
func (c Config) serviceArgs() map[string][]string {
	session := "2s"
	if c.Inside {
		session = "1s"
	}
	return map[string][]string{
		stack.Enricher: {"-session-timeout", session, "-rebalance-timeout", "3s", "-transaction-timeout", "4s", "-time-skew-threshold", "24h"},
		stack.Writer:   {"-session-timeout", session, "-rebalance-timeout", "3s", "-revoke-wait", "1s", "-retry-max", "500ms", "-halt-retry", "1s", "-block-interval", "500ms", "-clickhouse-silence", "10s"},
	}
}

// watch starts again what has ended by itself, as a supervisor would: an enricher
// whose disk is full.
func (e *env) watch() {
	defer close(e.watched)
	var ghosts undertaker
	n := 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
		}
		if n++; e.fake != nil && n%10 == 0 {
			_ = ghosts.bury(context.Background(), e) // or the next time
		}
		for _, list := range e.members {
			for _, m := range list {
				if !m.Running() {
					e.restart(m)
				}
			}
		}
	}
}

// restart starts a member that no fault is at.
func (e *env) restart(m member) {
	mu := e.locks[m.Label()]
	if !mu.TryLock() {
		return
	}
	defer mu.Unlock()
	if !m.Running() {
		fmt.Fprintf(e.cfg.Out, "%s had ended by itself (%v); started again: %v\n", m.Label(), m.ExitError(), m.Start())
	}
}

// plan returns the environment of a service: the mistake that the run is about,
// and the failpoints of one run of one process.
func (e *env) plan(service string, points ...string) []string {
	if m := e.control.mistake; m != "" && service == stack.Writer {
		points = append(points, m+"=on")
	}
	return []string{"UPTAKE_FAILPOINTS=" + strings.Join(points, ";")}
}

// addrs are the brokers.
func (e *env) addrs() []string {
	if e.fake != nil {
		return e.fake.Addrs()
	}
	return e.real.Addrs()
}

// repair puts everything back as it was before the round, should a fault have left
// something, and waits until all processes are ready.
func (e *env) repair(ctx context.Context) error {
	if e.kafkaProxy != nil {
		e.kafkaProxy.Disarm()
	}
	e.stack.Proxy.Disarm()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, service := range []string{stack.Gateway, stack.Enricher, stack.Writer} {
		for _, p := range e.members[service] {
			e.restart(p)
			if err := p.AwaitReady(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *env) close() error {
	var errs []error
	if e.stop != nil {
		close(e.stop)
		<-e.watched
	}
	if e.producer != nil {
		e.producer.Close()
	}
	for _, m := range slices.Concat(e.members[stack.Gateway], e.members[stack.Enricher], e.members[stack.Writer], e.spawned()) {
		if i, ok := m.(*instance); ok {
			errs = append(errs, i.close())
		}
	}
	if e.stack != nil {
		errs = append(errs, e.stack.Close())
	}
	if e.fake != nil {
		errs = append(errs, e.fake.Close())
	}
	if e.kafkaProxy != nil {
		e.kafkaProxy.Close()
	}
	if e.real != nil {
		errs = append(errs, e.real.Close())
	}
	errs = append(errs, e.unmountDisks())
	return errors.Join(errs...)
}
