package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// StandaloneConfig says where a standalone lives.
type StandaloneConfig struct {
	Dir      string    // its data and log
	Keep     bool      // leave Dir in place on Close
	Progress io.Writer // gets what it says while it starts; may be nil
}

// Standalone is deploy/standalone as a process, on free ports.
type Standalone struct {
	*Process
	Gateway        string // host:port
	Kafka          string
	ClickHouse     string // native
	ClickHouseHTTP string
	Console        string // host:port of the pages

	cfg StandaloneConfig
}

// StartStandalone builds standalone and starts it. Close it.
func StartStandalone(ctx context.Context, cfg StandaloneConfig) (*Standalone, error) {
	binary, err := Binary(ctx, "deploy/standalone", Build{})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("start standalone: %w", err)
	}
	addrs, err := freeAddrs(6)
	if err != nil {
		return nil, err
	}
	s := &Standalone{
		Gateway: addrs[0], Kafka: addrs[1], ClickHouse: addrs[2], ClickHouseHTTP: addrs[3], Console: addrs[5],
		Process: &Process{
			Name: "standalone", Metrics: addrs[4], binary: binary, log: filepath.Join(cfg.Dir, "standalone.log"),
			args: []string{
				"-data", filepath.Join(cfg.Dir, "data"), "-gateway-addr", addrs[0], "-kafka-addr", addrs[1],
				"-clickhouse-addr", addrs[2], "-clickhouse-http-addr", addrs[3], "-metrics-addr", addrs[4], "-console-addr", addrs[5],
			},
		},
		cfg: cfg,
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// ConsoleToken returns the token with which the pages open.
func (s *Standalone) ConsoleToken() (string, error) {
	b, err := os.ReadFile(filepath.Join(s.cfg.Dir, "data", "console-token"))
	return strings.TrimSpace(string(b)), err
}

// Start starts it, on the data and addresses that it has, and waits until it
// serves.
func (s *Standalone) Start(ctx context.Context) error {
	if err := s.Process.Start(); err != nil {
		return err
	}
	// The first start may fetch ClickHouse.
	ctx, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()
	return s.AwaitReady(ctx)
}

// Close stops it if it runs, and removes its data unless they are to be kept.
func (s *Standalone) Close() error {
	var errs []error
	if s.Running() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			errs = append(errs, err)
			s.Kill()
		}
	}
	if !s.cfg.Keep {
		errs = append(errs, os.RemoveAll(s.cfg.Dir))
	}
	return errors.Join(append(errs, Cleanup())...)
}
