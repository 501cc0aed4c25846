package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/proxy"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// env is what the faults of a run break.
type env struct {
	cfg        Config
	layout     topic.Layout
	stack      *stack.Stack
	fake       *kafka.Fake    // or
	real       *kafka.Cluster // that
	kafkaProxy *proxy.Proxy   // before fake
	producer   *kgo.Client

	locks   map[string]*sync.Mutex // by process: one fault at a time
	store   sync.Mutex             // ClickHouse: one fault of the server itself at a time
	brokers sync.Mutex             // real brokers: one of three at a time

	prefix string // of the round's ids

	watched chan struct{} // closed when watch has ended
	stop    chan struct{} // ends watch

	mu     sync.Mutex // covers poison
	poison []poisoned
}

// poisoned is a record of the harness that the enricher has to reject.
type poisoned struct{ code, original string }

func newEnv(ctx context.Context, c Config) (_ *env, err error) {
	e := &env{cfg: c, locks: map[string]*sync.Mutex{}, layout: topic.SingleLayout()}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	var log kafka.Log
	if c.Brokers > 0 {
		e.layout = topic.DefaultLayout()
		e.layout.Partitions = 6
		e.real, err = kafka.Start(ctx, kafka.Config{Brokers: c.Brokers, Dir: filepath.Join(c.Dir, "kafka"), Properties: map[string]string{"group.min.session.timeout.ms": "1000"}})
		log = e.real
	} else {
		e.fake, err = kafka.StartFake(kfake.GroupMinSessionTimeout(time.Second), kfake.ListenFn(func(network, address string) (net.Listener, error) {
			ln, err := net.Listen(network, address)
			if err != nil {
				return nil, err
			}
			front, p, err := proxy.Front(ln)
			e.kafkaProxy = p
			return front, err
		}))
		log = e.fake
	}
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
		Dir: c.Dir, Log: log, Layout: e.layout, Gateways: 1, Enricher: 2, Writers: 2, Proxied: true,
		Build: stack.Build{Failpoints: true}, Args: serviceArgs(),
		Env: map[string][]string{stack.Writer: e.plan(stack.Writer)},
	})
	if err != nil {
		return nil, err
	}
	for _, p := range e.stack.Processes() {
		e.locks[p.Name] = &sync.Mutex{}
	}
	e.stop, e.watched = make(chan struct{}), make(chan struct{})
	go e.watch() // ends with close
	return e, nil
}

// serviceArgs are short time-outs: what takes minutes in production is to happen
// many times in a run.
func serviceArgs() map[string][]string {
	return map[string][]string{
		stack.Enricher: {"-session-timeout", "3s", "-rebalance-timeout", "6s", "-transaction-timeout", "5s"},
		stack.Writer:   {"-session-timeout", "3s", "-revoke-wait", "2s", "-retry-max", "500ms", "-halt-retry", "1s", "-block-interval", "500ms", "-clickhouse-silence", "3s"},
	}
}

// watch starts ClickHouse again when it has ended by itself, as its supervisor
// would: the embedded server does so when a connection is reset.
func (e *env) watch() {
	defer close(e.watched)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
		}
		if !e.stack.ClickHouse.Ended() || !e.store.TryLock() {
			continue
		}
		if e.stack.ClickHouse.Ended() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			fmt.Fprintf(e.cfg.Out, "clickhouse had ended by itself; started again: %v\n", e.stack.ClickHouse.Start(ctx))
			cancel()
		}
		e.store.Unlock()
	}
}

// plan returns the environment of a service: the mistake that the run is about,
// and the failpoints of one run of one process.
func (e *env) plan(service string, points ...string) []string {
	if m := mistakes[e.cfg.Control]; m != "" && service == stack.Writer {
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

func (e *env) service(name string) []*stack.Process {
	switch name {
	case stack.Gateway:
		return e.stack.Gateways
	case stack.Enricher:
		return e.stack.Enrichers
	}
	return e.stack.Writers
}

// mend puts everything back as it was before the round, should a fault have left
// something, and waits until all processes are ready.
func (e *env) mend(ctx context.Context) error {
	if e.kafkaProxy != nil {
		e.kafkaProxy.Disarm()
	}
	e.stack.Proxy.Disarm()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, service := range []string{stack.Gateway, stack.Enricher, stack.Writer} {
		for _, p := range e.service(service) {
			if !p.Running() {
				// A process that ended by itself gave up: the stack's user
				// would start it again, as any supervisor does. It is told.
				fmt.Fprintf(e.cfg.Out, "%s had ended by itself: %v\n%s\n", p.Name, p.ExitError(), p.Tail(5))
				if err := p.Start(); err != nil {
					return err
				}
			}
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
	return errors.Join(errs...)
}
