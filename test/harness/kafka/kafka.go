// Package kafka starts logs for tests: Apache Kafka as processes, and franz-go's
// kfake inside the test binary. Package container adds Kafka in a container. The
// three are one [Log] to what is tested on them.
//
// The Kafka of [Start] is the one that production runs: its jars come from
// Maven, pinned in pom.xml, and run on the machine's JDK in KRaft mode, every
// node broker and controller at once. Single brokers can be stopped, killed,
// paused and started again.
//
// Whoever starts a log closes it. Broker processes die with the test binary.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/test/harness/jvm"
)

// Log is something that speaks the Kafka protocol.
type Log interface {
	// Addrs are the host:port of its brokers, to be used as seeds.
	Addrs() []string
	// Kind is "kafka", "kfake" or "container".
	Kind() string
	// Close ends it and frees what it holds.
	Close() error
}

// RequireEnv is the environment variable that, set to 1, makes ForTest fail
// where it would skip.
const RequireEnv = "UPTAKE_REQUIRE_KAFKA"

// ErrMissing is wrapped by Start's error when the machine lacks a tool.
var ErrMissing = jvm.ErrMissing

// Config says what cluster to start.
type Config struct {
	// Brokers is 1 or 3. With three, topics that name no replication get 3
	// replicas and min.insync.replicas 2, and so do Kafka's own topics.
	Brokers int
	// Dir holds the brokers' data and logs. Empty: a temporary directory that
	// Close removes.
	Dir string
	// HeapMB is the heap of each broker. Default 512.
	HeapMB int
	// Properties are added to every broker's server.properties, and override
	// what is there.
	Properties map[string]string
	// Security adds listeners with TLS, and rights. The listener of Addrs, without
	// TLS, may then do everything.
	Security *Security
	// Logger gets what happens to brokers. Default: nothing.
	Logger *slog.Logger
}

// Security says what brokers show and trust on the listeners with TLS.
type Security struct {
	// Keystore is a PEM file with the brokers' key (PKCS #8) and certificate, for
	// 127.0.0.1; Truststore one with the authority of clients' certificates.
	Keystore, Truststore string
}

// Validate reports all faults at once.
func (c *Config) Validate() error {
	var errs []error
	if c.Brokers != 1 && c.Brokers != 3 {
		errs = append(errs, fmt.Errorf("Brokers must be 1 or 3 (got %d)", c.Brokers))
	}
	if c.HeapMB < 0 || (c.HeapMB > 0 && c.HeapMB < 128) {
		errs = append(errs, fmt.Errorf("HeapMB must be at least 128 (got %d)", c.HeapMB))
	}
	return errors.Join(errs...)
}

// Cluster is a running Apache Kafka.
type Cluster struct {
	cfg     Config
	jars    string
	java    string
	id      string
	tempDir bool
	brokers []*broker
	admin   *kgo.Client
}

// broker is one node. Its address and directory stay over restarts.
type broker struct {
	node       int
	addr       string
	controller string
	sasl       string // SASL_SSL with SCRAM; listens with Security only
	mtls       string // SSL with client certificates; listens with Security only
	dir        string

	mu   sync.Mutex   // covers proc
	proc *jvm.Process // nil before the first start
}

// ForTest starts a cluster for t and closes it at its end. It skips under
// -short and where a tool is missing, and says which; with RequireEnv=1 a
// missing tool fails the test.
func ForTest(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts Apache Kafka; not under -short")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c, err := Start(ctx, cfg)
	if errors.Is(err, ErrMissing) && os.Getenv(RequireEnv) != "1" {
		t.Skipf("SKIPPED, not run on Apache Kafka: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Start starts a cluster and returns when all brokers serve.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	if cfg.HeapMB == 0 {
		cfg.HeapMB = 512
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	java, err := jvm.Java(ctx, "Kafka", minJava)
	if err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	jars, err := Jars(ctx)
	if err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	// A port can be taken between the moment it was free and the broker's
	// bind. Brokers need to know each other's ports beforehand, so the whole
	// cluster is started anew then.
	for attempt := 1; ; attempt++ {
		c, err := start(ctx, cfg, java, jars)
		if err == nil {
			return c, nil
		}
		if attempt == 3 || !strings.Contains(err.Error(), "Address already in use") {
			return nil, fmt.Errorf("start kafka: %w", err)
		}
	}
}

func start(ctx context.Context, cfg Config, java, jars string) (_ *Cluster, err error) {
	c := &Cluster{cfg: cfg, java: java, jars: jars, id: "dXB0YWtlLXRlc3QtMDAwMQ"}
	if cfg.Dir == "" {
		if c.cfg.Dir, err = os.MkdirTemp("", "uptake-kafka-"); err != nil {
			return nil, err
		}
		c.tempDir = true
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	ports, err := freePorts(4 * cfg.Brokers)
	if err != nil {
		return nil, err
	}
	for i := range cfg.Brokers {
		c.brokers = append(c.brokers, &broker{
			node: i + 1, addr: ports[4*i], controller: ports[4*i+1], sasl: ports[4*i+2], mtls: ports[4*i+3],
			dir: filepath.Join(c.cfg.Dir, fmt.Sprintf("broker-%d", i+1)),
		})
	}
	var wg sync.WaitGroup
	errs := make([]error, len(c.brokers))
	for i, b := range c.brokers {
		wg.Go(func() {
			if errs[i] = c.format(ctx, b); errs[i] == nil {
				errs[i] = c.spawn(b)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.admin, err = kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.RetryTimeout(2*time.Second), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		return nil, err
	}
	if err := c.awaitServing(ctx, c.brokers...); err != nil {
		return nil, err
	}
	return c, nil
}

// Addrs implements Log. Brokers that are stopped are among them.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, b := range c.brokers {
		addrs = append(addrs, b.addr)
	}
	return addrs
}

// SASLAddrs are those of the listeners with TLS and SCRAM-SHA-512, MTLSAddrs those with
// TLS and client certificates, whose common name is the user. Both need Config.Security.
func (c *Cluster) SASLAddrs() []string {
	var addrs []string
	for _, b := range c.brokers {
		addrs = append(addrs, b.sasl)
	}
	return addrs
}

// MTLSAddrs: see SASLAddrs.
func (c *Cluster) MTLSAddrs() []string {
	var addrs []string
	for _, b := range c.brokers {
		addrs = append(addrs, b.mtls)
	}
	return addrs
}

// Kind implements Log.
func (c *Cluster) Kind() string { return "kafka" }

// Brokers is their number. Methods that take a broker count from 0.
func (c *Cluster) Brokers() int { return len(c.brokers) }

// Node is the node id of broker i, as metadata names it.
func (c *Cluster) Node(i int) int32 { return int32(c.brokers[i].node) }

// Pid is the process id of broker i's last run.
func (c *Cluster) Pid(i int) int {
	b := c.brokers[i]
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.proc.Pid()
}

// LogFile is where broker i writes its log.
func (c *Cluster) LogFile(i int) string { return filepath.Join(c.brokers[i].dir, "server.log") }

// StopBroker ends broker i with SIGTERM, upon which it hands its partitions
// over, and waits for it.
func (c *Cluster) StopBroker(ctx context.Context, i int) error {
	return c.end(ctx, c.brokers[i], syscall.SIGTERM)
}

// KillBroker ends broker i with SIGKILL and waits for it.
func (c *Cluster) KillBroker(ctx context.Context, i int) error {
	return c.end(ctx, c.brokers[i], syscall.SIGKILL)
}

// PauseBroker stops broker i where it is (SIGSTOP); its connections stay open.
func (c *Cluster) PauseBroker(i int) error { return c.signal(c.brokers[i], syscall.SIGSTOP) }

// ResumeBroker lets a paused broker go on.
func (c *Cluster) ResumeBroker(i int) error { return c.signal(c.brokers[i], syscall.SIGCONT) }

// RestartBroker starts a broker that was stopped or killed, on its data and
// address, and returns when it serves. Its replicas may still be catching up:
// see AwaitInSync.
func (c *Cluster) RestartBroker(ctx context.Context, i int) error {
	b := c.brokers[i]
	b.mu.Lock()
	runs := b.proc != nil && !b.proc.Ended()
	b.mu.Unlock()
	if runs {
		return fmt.Errorf("restart kafka broker %d: it runs", b.node)
	}
	if err := c.spawn(b); err != nil {
		return err
	}
	return c.awaitServing(ctx, b)
}

// AwaitInSync returns when every partition of every topic has a leader and all
// its replicas in sync.
func (c *Cluster) AwaitInSync(ctx context.Context) error {
	adm := kadm.NewClient(c.admin)
	return poll(ctx, func() error {
		topics, err := adm.ListTopicsWithInternal(ctx)
		if err != nil {
			return err
		}
		for _, t := range topics {
			for _, p := range t.Partitions {
				if p.Err != nil {
					return fmt.Errorf("partition %s/%d: %w", t.Topic, p.Partition, p.Err)
				}
				if p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
					return fmt.Errorf("partition %s/%d: leader %d, in sync %v of %v", t.Topic, p.Partition, p.Leader, p.ISR, p.Replicas)
				}
			}
		}
		return nil
	})
}

// Close implements Log: it ends all brokers and, if the directory is the
// cluster's own, removes it.
func (c *Cluster) Close() error {
	if c.admin != nil {
		c.admin.Close()
	}
	// A paused broker would never see the SIGTERM. The data is thrown away or
	// survives a kill by design, so nobody waits for an ordered end: with three
	// combined nodes the last one has no quorum to end in order.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var errs []error
	for _, b := range c.brokers {
		errs = append(errs, c.end(ctx, b, syscall.SIGKILL))
	}
	if c.tempDir {
		errs = append(errs, os.RemoveAll(c.cfg.Dir))
	}
	return errors.Join(errs...)
}

func (c *Cluster) signal(b *broker, sig syscall.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.proc == nil || b.proc.Ended() {
		return fmt.Errorf("signal %v to kafka broker %d: it does not run", sig, b.node)
	}
	if err := b.proc.Signal(sig); err != nil {
		return fmt.Errorf("signal %v to kafka broker %d: %w", sig, b.node, err)
	}
	return nil
}

// end is nil for a broker that has ended already.
func (c *Cluster) end(ctx context.Context, b *broker, sig syscall.Signal) error {
	b.mu.Lock()
	p := b.proc
	b.mu.Unlock()
	if p == nil || p.Ended() {
		return nil
	}
	if err := c.signal(b, sig); err != nil && !p.Ended() {
		return err
	}
	select {
	case <-p.Exited():
		c.cfg.Logger.Info("kafka broker ended", "node", b.node, "signal", sig.String())
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of kafka broker %d: %w", b.node, ctx.Err())
	}
}

// awaitServing returns when the given brokers are in the metadata that each of
// them answers with itself, and a controller is known.
func (c *Cluster) awaitServing(ctx context.Context, brokers ...*broker) error {
	for _, b := range brokers {
		cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.RetryTimeout(time.Second), kgo.DialTimeout(time.Second))
		if err != nil {
			return err
		}
		err = poll(ctx, func() error {
			b.mu.Lock()
			ended := b.proc.Ended()
			b.mu.Unlock()
			if ended {
				return &endedError{b.node, c.tail(b)}
			}
			// Asked of the broker itself: the client would answer a question
			// without topics from what it heard first, for minutes.
			req := kmsg.NewPtrMetadataRequest()
			req.Topics = []kmsg.MetadataRequestTopic{}
			meta, err := req.RequestWith(ctx, cl)
			if err != nil {
				return err
			}
			var ids []int32
			for _, known := range meta.Brokers {
				ids = append(ids, known.NodeID)
			}
			for _, want := range brokers {
				if !slices.Contains(ids, int32(want.node)) {
					return fmt.Errorf("broker %d is not registered yet (seen by %d: %v)", want.node, b.node, ids)
				}
			}
			if meta.ControllerID < 0 {
				return errors.New("no controller yet")
			}
			return nil
		})
		cl.Close()
		if err != nil {
			return fmt.Errorf("wait for kafka broker %d: %w", b.node, err)
		}
	}
	return nil
}

type endedError struct {
	node int
	tail string
}

func (e *endedError) Error() string {
	return fmt.Sprintf("broker %d has ended; end of its log:\n%s", e.node, e.tail)
}

// poll calls f until it returns nil, ctx ends, or a broker is known to be dead.
func poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil || errors.As(err, new(*endedError)) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %w)", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

func (c *Cluster) tail(b *broker) string {
	var parts []string
	for _, name := range []string{"server.log", "out.log"} {
		text, err := os.ReadFile(filepath.Join(b.dir, name))
		if err != nil {
			continue
		}
		if len(text) > 3000 {
			text = text[len(text)-3000:]
		}
		parts = append(parts, strings.TrimSpace(string(text)))
	}
	return strings.Join(parts, "\n")
}

// freePorts binds n ports at once, so that they differ, and lets them go.
func freePorts(n int) ([]string, error) {
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
