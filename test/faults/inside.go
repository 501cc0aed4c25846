package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/enricher/enrich"
	"github.com/uptakehq/uptake/ingest-gateway/gateway"
	"github.com/uptakehq/uptake/rollup-writer/rollup"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/test/harness/proxy"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// instance is a member that runs in this process. It is killed by severing its
// network and then giving it up: goroutines that go on for a while are of no
// consequence, but for an enricher's folder, whose lock they hold.
//
// Its clients reach a gateway through a proxy that stays over its lives.
type instance struct {
	name    string
	service string
	e       *env
	front   *proxy.Proxy // of a gateway; refuses while there is none
	log     *os.File

	mu     sync.Mutex // covers all below
	clock  time.Duration
	life   *life
	past   []*life // that may not have ended
	folder int     // which one the next life has
}

// life is one run of an instance.
type life struct {
	link   *link
	health *ops.Health
	stop   context.CancelFunc
	kill   context.CancelCauseFunc
	done   chan struct{}
	err    error // valid after done
}

func (l *life) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// newInstance returns one that does not run yet.
func (e *env) newInstance(service, name string) (*instance, error) {
	i := &instance{name: name, service: service, e: e}
	var err error
	if i.log, err = os.OpenFile(filepath.Join(e.cfg.Dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if service == stack.Gateway {
		if i.front, err = proxy.Listen("127.0.0.1:9"); err != nil {
			return nil, err
		}
		i.front.Refuse(true)
	}
	return i, nil
}

// Label implements member.
func (i *instance) Label() string { return i.name }

// SetClock sets what the clock of the lives to come is off by.
func (i *instance) SetClock(off time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.clock = off
}

func (i *instance) current() *life {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.life
}

// Start implements member.
func (i *instance) Start() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.life != nil && !i.life.ended() && !i.life.link.severed() {
		return fmt.Errorf("start %s: it runs", i.name)
	}
	if i.life != nil {
		// One that was killed may hold the lock of its folder for a while, which
		// the end of a process would have freed. A successor that cannot wait
		// finds an empty one, as on another machine.
		select {
		case <-i.life.done:
		case <-time.After(folderWait):
			i.folder++
		}
		i.past = append(slices.DeleteFunc(i.past, (*life).ended), i.life)
	}
	link, err := newLink(i.e.addrs()[0])
	if err != nil {
		return fmt.Errorf("start %s: %w", i.name, err)
	}
	killCtx, kill := context.WithCancelCause(context.Background())
	stopCtx, stop := context.WithCancel(killCtx)
	l := &life{link: link, health: &ops.Health{}, stop: stop, kill: kill, done: make(chan struct{})}
	run, err := i.serve(l)
	if err != nil {
		kill(err)
		link.close()
		return fmt.Errorf("start %s: %w", i.name, err)
	}
	i.life = l
	go func() { // ends with kill; close waits for it
		defer close(l.done)
		l.err = run(process.Signals{Stop: stopCtx, Kill: killCtx})
		link.sever()
		link.close()
	}()
	return nil
}

// serve makes the service of a life.
func (i *instance) serve(l *life) (func(process.Signals) error, error) {
	logger := slog.New(slog.NewTextHandler(i.log, nil))
	reg := ops.NewRegistry()
	off := i.clock
	now := func() time.Time { return time.Now().Add(off) }
	brokers := setting.Strings(i.e.addrs())
	switch i.service {
	case stack.Gateway:
		c := gateway.DefaultConfig()
		c.Kafka.Brokers, c.Kafka.ClientID, c.Kafka.Dial = brokers, i.name, l.link.dial
		c.Addr, c.Keys = "127.0.0.1:0", i.e.stack.KeysFile()
		g, err := gateway.New(c, gateway.Dependencies{Logger: logger, Metrics: reg, Health: l.health, Now: now})
		if err != nil {
			return nil, err
		}
		i.front.SetTarget(g.Addr())
		i.front.Refuse(false)
		l.link.front = i.front
		return g.Run, nil
	case stack.Enricher:
		c := enrich.DefaultConfig()
		c.Kafka.Brokers, c.Kafka.ClientID, c.Kafka.Dial = brokers, i.name, l.link.dial
		c.DataDir, c.InstanceID = filepath.Join(i.e.cfg.Dir, i.name, strconv.Itoa(i.folder)), i.name
		if err := settings(c.Flags, i.e.cfg.serviceArgs()[stack.Enricher]); err != nil {
			return nil, err
		}
		s, err := enrich.New(c, enrich.Dependencies{Logger: logger, Metrics: reg, Health: l.health, Now: now})
		if err != nil {
			return nil, err
		}
		return s.Run, nil
	}
	p, err := proxy.Listen(i.e.stack.Proxy.Addr())
	if err != nil {
		return nil, err
	}
	l.link.own = append(l.link.own, p)
	c := rollup.DefaultConfig()
	c.Kafka.Brokers, c.Kafka.ClientID, c.Kafka.Dial = brokers, i.name, l.link.dial
	c.ClickHouse.Addr, c.ClickHouse.Database = p.Addr(), stack.Database
	if err := settings(c.Flags, i.e.cfg.serviceArgs()[stack.Writer]); err != nil {
		return nil, err
	}
	s, err := rollup.New(c, rollup.Dependencies{Logger: logger, Metrics: reg, Health: l.health, Now: now})
	if err != nil {
		return nil, err
	}
	return s.Run, nil
}

// settings sets flags as a command line would.
func settings(bind func(*flag.FlagSet), args []string) error {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	bind(set)
	return set.Parse(args)
}

const (
	// endTimeout bounds how long an instance that was killed may go on.
	endTimeout = 90 * time.Second
	// folderWait is how long a successor waits for its predecessor's folder.
	folderWait = 300 * time.Millisecond
)

var errKilled = errors.New("killed")

// Kill implements member.
func (i *instance) Kill() {
	if l := i.current(); l != nil {
		l.link.sever()
		l.kill(errKilled)
	}
}

// Stop implements member.
func (i *instance) Stop(ctx context.Context) error {
	l := i.current()
	l.stop()
	select {
	case <-l.done:
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w; end of its log:\n%s", i.name, ctx.Err(), i.Tail(30))
	}
	if l.err != nil && !errors.Is(l.err, errKilled) {
		return fmt.Errorf("stop %s: %w; end of its log:\n%s", i.name, l.err, i.Tail(30))
	}
	return nil
}

// Pause implements member: nothing of it gets out or in, and its clock runs on.
func (i *instance) Pause() error {
	i.current().link.hold(true)
	return nil
}

// Resume implements member.
func (i *instance) Resume() error {
	i.current().link.hold(false)
	return nil
}

// Running implements member.
func (i *instance) Running() bool {
	l := i.current()
	return l != nil && !l.ended() && !l.link.severed()
}

// ExitError implements member.
func (i *instance) ExitError() error {
	l := i.current()
	if l == nil || !l.ended() {
		return nil
	}
	return l.err
}

// AwaitReady implements member.
func (i *instance) AwaitReady(ctx context.Context) error {
	l := i.current()
	return stack.Await(ctx, "readiness of "+i.name, func() error {
		if l.ended() {
			return &stack.Hopeless{Err: fmt.Errorf("%s has ended (%w); end of its log:\n%s", i.name, l.err, i.Tail(40))}
		}
		if faults := l.health.Ready(); len(faults) > 0 {
			return fmt.Errorf("%v", faults)
		}
		return nil
	})
}

// Tail implements member.
func (i *instance) Tail(lines int) string {
	text, err := os.ReadFile(i.log.Name())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// crashAt severs the running life at a request.
func (i *instance) crashAt(key kmsg.Key, n int, after bool) *crash {
	return i.current().link.arm(key, n, after)
}

// cutAt severs the running life of a writer at a byte of its path to ClickHouse.
func (i *instance) cutAt(d proxy.Direction, after int64) <-chan struct{} {
	l := i.current()
	armed := l.link.own[1].Arm(proxy.Fault{Direction: d, After: after, Action: proxy.Cut})
	killed := make(chan struct{})
	go func() { // ends when it is met, or with the life
		select {
		case <-armed.Fired():
			l.link.sever()
			close(killed)
		case <-l.done:
		}
	}()
	return killed
}

// close kills what runs and waits for every life.
func (i *instance) close() error {
	i.Kill()
	i.mu.Lock()
	all := i.past
	if i.life != nil {
		all = append(all, i.life)
	}
	i.mu.Unlock()
	var errs []error
	timeout := time.After(endTimeout)
	for _, l := range all {
		select {
		case <-l.done:
		case <-timeout:
			errs = append(errs, fmt.Errorf("%s was killed and has not ended after %s", i.name, endTimeout))
		}
	}
	if i.front != nil {
		i.front.Close()
	}
	return errors.Join(append(errs, i.log.Close())...)
}
