// Package locallog is the log of one machine: franz-go's kfake inside this
// process, with its data on disk and every write synced before it is acked.
//
// It is a testing broker: one node, no replicas, for trying Uptake out and for
// tests. The package owns the broker, its address and its data directory, and
// adds what kfake leaves out of the protocol and Uptake relies on: the broker's
// clock on topics whose timestamps are append times (see [StampAppendTime]).
//
// Whoever starts a log closes it.
package locallog

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Config says where a log listens and what it keeps.
type Config struct {
	// Addr is the host:port of the one broker; port 0 picks a free one.
	// Clients are sent to the same address, so it must not be a wildcard.
	Addr string
	// DataDir holds topics, groups and transactions. Empty: they live in
	// memory. One log at a time uses it: kfake does not check that.
	DataDir string
	// Options are kfake's, for what tests need beyond this.
	Options []kfake.Opt
}

// Validate reports all faults at once.
func (c *Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("Addr must be host:port: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		return fmt.Errorf("Addr must name the host that clients are to connect to (got %q)", c.Addr)
	}
	return nil
}

// AddrInUseError says that another process holds the address.
type AddrInUseError struct {
	Addr string
	Err  error
}

func (e *AddrInUseError) Error() string {
	return fmt.Sprintf("Addr %s is in use by another process: %v", e.Addr, e.Err)
}

func (e *AddrInUseError) Unwrap() error { return e.Err }

// Log is a running broker. The methods of kfake's cluster are for tests.
type Log struct {
	*kfake.Cluster
	addr string
}

// Start starts a log. What it acks from then on is on disk, if it has one.
func Start(cfg Config) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("start log: %w", err)
	}
	ready := make(chan struct{})
	listen := func(network, _ string) (net.Listener, error) {
		ln, err := net.Listen(network, cfg.Addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = &AddrInUseError{Addr: cfg.Addr, Err: err}
		}
		if err != nil {
			return nil, err
		}
		return &gatedListener{Listener: ln, ready: ready, closed: make(chan struct{})}, nil
	}
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.ClusterID("uptake-local"), kfake.ListenFn(listen)}
	if cfg.DataDir != "" {
		opts = append(opts, kfake.DataDir(cfg.DataDir), kfake.SyncWrites())
	}
	cluster, err := kfake.NewCluster(append(opts, cfg.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("start log: %w", err)
	}
	StampAppendTime(cluster)
	ListAborted(cluster)
	close(ready)
	return &Log{Cluster: cluster, addr: cluster.ListenAddrs()[0]}, nil
}

// Addr is the host:port to give to clients.
func (l *Log) Addr() string { return l.addr }

// Close ends the broker and writes out what it keeps.
func (l *Log) Close() { l.Cluster.Close() }

// gatedListener holds connections back until ready is closed: kfake serves
// before its caller can add anything to it.
type gatedListener struct {
	net.Listener
	ready  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *gatedListener) Accept() (net.Conn, error) {
	select {
	case <-l.ready:
		return l.Listener.Accept()
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *gatedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
