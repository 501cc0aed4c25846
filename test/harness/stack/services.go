package stack

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
		p.args = append(p.args, "-clickhouse-addr", s.writersClickHouse(), "-clickhouse-database", Database)
	}
	p.args = append(p.args, s.cfg.Args[service]...)
	p.env = s.cfg.Env[service]
	return p, nil
}

// common are the flags of every command that reaches the log.
func (s *Stack) common() []string {
	return []string{"-kafka-brokers", strings.Join(s.cfg.Log.Addrs(), ",")}
}

// writersClickHouse is where the writers find ClickHouse.
func (s *Stack) writersClickHouse() string {
	if s.Proxy != nil {
		return s.Proxy.Addr()
	}
	return s.ClickHouse.NativeAddr()
}

// prepare makes topics, tables, keys and catalog as an operator would.
func (s *Stack) prepare(ctx context.Context) error {
	l := s.cfg.Layout
	topics := append([]string{"topics", "apply"}, s.common()...)
	topics = append(topics, "-partitions", strconv.Itoa(int(l.Partitions)), "-rejected-partitions", strconv.Itoa(int(l.RejectedPartitions)),
		"-replication", strconv.Itoa(int(l.Replication)), "-min-insync", strconv.Itoa(l.MinInsync), "-max-message-bytes", strconv.Itoa(l.MaxMessageBytes))
	if err := command(ctx, s.binaries[Enricher], topics...); err != nil {
		return err
	}
	root, err := Root()
	if err != nil {
		return err
	}
	var keys strings.Builder
	keys.WriteString("apps:\n")
	for _, app := range s.cfg.Apps {
		fmt.Fprintf(&keys, "  - id: %s\n    keys: [\"sha256:%x\"]\n", app, sha256.Sum256([]byte(WriteKeyOf(app))))
		catalog := append([]string{"catalog", "apply", "-app", app, "-author", "test", "-reason", "a new installation"}, s.common()...)
		if err := command(ctx, s.binaries[Enricher], append(catalog, filepath.Join(root, "schemas", "catalog", "sample", "mypos.yaml"))...); err != nil {
			return err
		}
	}
	if err := os.WriteFile(s.KeysFile(), []byte(keys.String()), 0o600); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	writer := append([]string{"migrate", "-clickhouse-addr", s.ClickHouse.NativeAddr(), "-clickhouse-database", Database}, s.cfg.Args[Writer]...)
	if err := command(ctx, s.binaries[Writer], writer...); err != nil {
		return err
	}
	writer[0] = "init"
	return command(ctx, s.binaries[Writer], append(writer, s.common()...)...)
}
