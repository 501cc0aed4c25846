package stack

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/uptakehq/uptake/test/harness/replicated"
	"github.com/uptakehq/uptake/test/harness/repository"
)

// process returns a process of a service, not yet started.
func (s *Stack) process(service, name string) (*Process, error) {
	addrs, err := freeAddrs(2)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.cfg.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{Name: name, Metrics: addrs[0], binary: s.binaries[service], log: filepath.Join(s.cfg.Dir, name+".log")}
	p.args = append([]string{"serve"}, s.common()...)
	p.args = append(p.args, "-metrics-addr", p.Metrics, "-kafka-client-id", name)
	switch service {
	case Gateway:
		p.Addr = addrs[1]
		p.args = append(p.args, "-addr", p.Addr, "-keys", s.KeysFile())
	case Enricher:
		p.args = append(p.args, "-data-dir", dir, "-instance-id", name)
	case Writer:
		p.args = append(p.args, s.tables(s.writersClickHouse())...)
	case Alerts:
		p.binary, p.args[0] = s.binaries[Writer], "alerts"
		p.args = append(p.args, s.tables(s.writersClickHouse())...)
	}
	p.args = append(p.args, s.cfg.Args[service]...)
	p.env = s.cfg.Env[service]
	return p, nil
}

// common are the flags of every command that reaches the log.
func (s *Stack) common() []string {
	return []string{"-kafka-brokers", strings.Join(s.cfg.Log.Addrs(), ","), "-kafka-prefix", s.cfg.Prefix}
}

// writer runs a command of the writer.
func (s *Stack) writer(ctx context.Context, name string, args ...string) error {
	args = slices.Concat([]string{name}, s.tables(s.ClickHouse.NativeAddr()), args, s.cfg.Args[Writer])
	return command(ctx, s.binaries[Writer], args...)
}

// tables are the flags of every command that reaches ClickHouse.
func (s *Stack) tables(addr string) []string {
	flags := []string{"-clickhouse-addr", addr, "-clickhouse-database", Database}
	if s.cfg.Keeper != "" {
		flags = append(flags, "-clickhouse-cluster", replicated.Cluster)
	}
	return flags
}

// writersClickHouse is where the writers find ClickHouse.
func (s *Stack) writersClickHouse() string {
	if s.Proxy != nil {
		return s.Proxy.Addr()
	}
	return s.ClickHouse.NativeAddr()
}

// ApplyTopics makes the topics that are missing.
func (s *Stack) ApplyTopics(ctx context.Context) error {
	l := s.cfg.Layout
	_, err := s.Run(ctx, Enricher, "topics apply", "-partitions", strconv.Itoa(int(l.Partitions)), "-rejected-partitions", strconv.Itoa(int(l.RejectedPartitions)),
		"-replication", strconv.Itoa(int(l.Replication)), "-min-insync", strconv.Itoa(l.MinInsync), "-max-message-bytes", strconv.Itoa(l.MaxMessageBytes))
	return err
}

// ApplyCatalog applies the sample catalog to an app.
func (s *Stack) ApplyCatalog(ctx context.Context, app string) error {
	root, err := repository.Root()
	if err == nil {
		_, err = s.Run(ctx, Enricher, "catalog apply", "-app", app, "-author", "test", "-reason", "a new installation", filepath.Join(root, "schemas", "catalog", "sample", "mypos.yaml"))
	}
	return err
}

// prepare makes topics, tables, keys and catalog as an operator would.
func (s *Stack) prepare(ctx context.Context) error {
	if err := s.ApplyTopics(ctx); err != nil {
		return err
	}
	var keys strings.Builder
	keys.WriteString("apps:\n")
	for _, app := range s.cfg.Apps {
		fmt.Fprintf(&keys, "  - id: %s\n    keys: [\"sha256:%x\"]\n", app, sha256.Sum256([]byte(WriteKeyOf(app))))
		for _, line := range s.cfg.KeyLines {
			fmt.Fprintf(&keys, "    %s\n", line)
		}
		if err := s.ApplyCatalog(ctx, app); err != nil {
			return err
		}
	}
	keys.WriteString("...\n")
	if err := os.WriteFile(s.KeysFile(), []byte(keys.String()), 0o600); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	var err error
	if s.cfg.Keeper != "" {
		err = replicated.Migrate(ctx, s.ClickHouse.NativeAddr(), Database)
	} else {
		err = s.writer(ctx, "migrate")
	}
	if err != nil {
		return err
	}
	return s.writer(ctx, "init", s.common()...)
}
