// Package e2e runs the whole path on real parts: the binaries that ship, an SDK
// that people run, a log, a ClickHouse. What goes in over HTTP has to be what
// SELECT shows, to the last cell.
package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/proxy"
	"github.com/uptakehq/uptake/test/harness/repository"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

// Apps of the shared stack: tests that count everything of an app have their own.
const (
	appSDK = "sdk"
	appBad = "bad"
)

var apps = []string{stack.App, appSDK, appBad}

// shared is the stack that most tests use: over kfake, which a proxy stands in
// front of. It is started by the first test that asks and closed by TestMain.
var shared struct {
	once  sync.Once
	stack *stack.Stack
	kafka *proxy.Proxy
	fake  *kafka.Fake
	dir   string
	err   error
}

func TestMain(m *testing.M) {
	embedded.ChildMain()
	code := m.Run()
	if code == 0 && shared.stack != nil {
		// After all that the tests did to it: each accepted event is somewhere.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if _, err := conserved(ctx, shared.stack); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		cancel()
	}
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := stack.Cleanup(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func forTest(t *testing.T) (*stack.Stack, *proxy.Proxy) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts the services and ClickHouse; not under -short")
	}
	shared.once.Do(func() { shared.err = startShared() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(shared.stack.Tails(40))
		}
	})
	return shared.stack, shared.kafka
}

func startShared() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute) // it may have to fetch and build
	defer cancel()
	if shared.dir, err = os.MkdirTemp("", "uptake-e2e-"); err != nil {
		return err
	}
	shared.fake, err = kafka.StartFake(kfake.ListenFn(func(network, address string) (net.Listener, error) {
		ln, err := net.Listen(network, address)
		if err != nil {
			return nil, err
		}
		var front net.Listener
		front, shared.kafka, err = proxy.Front(ln)
		return front, err
	}))
	if err != nil {
		return err
	}
	ids := apps
	for _, app := range privateApps() {
		ids = append(ids, app.id)
	}
	arguments, err := privacyArguments(shared.dir, privateApps())
	if err != nil {
		return err
	}
	shared.stack, err = stack.Start(ctx, stack.Config{Dir: shared.dir, Log: shared.fake, Apps: ids, Args: arguments, KeyLines: []string{"ip: full"}})
	return err
}

func closeShared() error {
	var err error
	if shared.stack != nil {
		err = shared.stack.Close()
	}
	if shared.fake != nil {
		_ = shared.fake.Close()
		shared.kafka.Close()
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	return err
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// plan makes traffic whose ids start with prefix.
func plan(t *testing.T, prefix string, events int) *loadgen.Plan {
	t.Helper()
	c := loadgen.DefaultConfig(time.Now())
	c.IDPrefix, c.Events, c.Accounts, c.BatchMax = prefix, events, 30, 40
	c.Resend, c.Repeat, c.Bad = 0.1, 0.05, 0.01
	p, err := loadgen.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// equal waits until ClickHouse holds what the oracle says, and fails the test
// with the difference when it does not come to it.
func equal(t *testing.T, s *stack.Stack, o *loadgen.Oracle) {
	t.Helper()
	d, err := loadgen.AwaitEqual(within(t, 90*time.Second), s.Conn, stack.Database, o)
	if err != nil {
		t.Fatal(err)
	}
	if !d.Equal() {
		t.Fatalf("ClickHouse does not hold what was acked:\n%s", d)
	}
}

// underLoad sends a plan while during breaks something, then holds ClickHouse
// against what was acked. during gets a function that waits until n more
// requests are acked.
func underLoad(t *testing.T, s *stack.Stack, prefix string, events int, during func(acked func(n int))) {
	t.Helper()
	p, l := plan(t, prefix, events), loadgen.NewLedger()
	ctx := within(t, 4*time.Minute)
	acks := make(chan struct{}, len(p.Requests))
	sender := loadgen.Sender{
		URLs: s.URLs(), WriteKey: stack.WriteKeyOf(stack.App), Workers: 4, Rate: 1500, MaxBackoff: 500 * time.Millisecond,
		Acked: func(int, time.Time) { acks <- struct{}{} },
	}
	sent := make(chan error, 1)
	go func() { sent <- sender.Run(ctx, p, l, 0, len(p.Requests)) }() // waited for below
	during(func(n int) {
		for range min(n, len(p.Requests)/2) {
			select {
			case <-acks:
			case <-ctx.Done():
				t.Error("no ack comes any more")
				return
			}
		}
	})
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	o := loadgen.NewOracle(stack.App, loadgen.Resolved)
	o.Prefix = prefix
	o.Add(p, l)
	if o.Acked() != p.Good() || o.Unknown() != 0 {
		t.Errorf("%d of %d good events acked, %d of unknown fate", o.Acked(), p.Good(), o.Unknown())
	}
	equal(t, s, o)
}

// root is the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := repository.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
