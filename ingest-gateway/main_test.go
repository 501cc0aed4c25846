package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/ingest-gateway/gateway"
	"github.com/uptakehq/uptake/ingest-gateway/keys"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

func noEnv(string) (string, bool) { return "", false }

func TestKeyNew(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"key", "new"}, noEnv, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?s)^write key \(shown this once\): (uk_\S+)\nline .*- ("sha256:[0-9a-f]{64}")\n$`).FindStringSubmatch(out.String())
	if m == nil {
		t.Fatalf("got %q", out.String())
	}
	table, err := keys.Parse([]byte("apps:\n  - id: a\n    keys:\n      - " + m[2] + "\n...\n"))
	if err != nil || table.App(m[1]) == nil {
		t.Errorf("the line does not know the key: %v", err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"fly"}, {"key"}, {"serve", "extra"}, {"serve", "-no-such-flag"}, {"-max-depth", "0"}, {"-log-level", "loud"}} {
		if err := run(args, noEnv, io.Discard, io.Discard); !errors.Is(err, process.ErrUsage) {
			t.Errorf("%v: got %v, want a usage error", args, err)
		}
	}
	var out bytes.Buffer
	if err := run([]string{"help"}, noEnv, &out, io.Discard); err != nil || !strings.Contains(out.String(), "key new") {
		t.Errorf("got %v, %q", err, out.String())
	}
}

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	args := []string{"serve", "-check", "-keys", file}
	if err := run(args, noEnv, io.Discard, io.Discard); err == nil {
		t.Error("a key file that is not there passes")
	}
	if err := os.WriteFile(file, []byte(fmt.Sprintf("apps: [{id: a, keys: ['%s']}]\n...\n", keys.HashOf("k"))), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(args, noEnv, io.Discard, io.Discard); err != nil {
		t.Error(err)
	}
}

// recorder is a registry that remembers the names of what is registered.
type recorder struct {
	*prometheus.Registry
	names map[string]bool
}

var fqName = regexp.MustCompile(`fqName: "([^"]+)"`)

// MustRegister implements prometheus.Registerer.
func (r recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		ch := make(chan *prometheus.Desc, 100)
		c.Describe(ch)
		close(ch)
		for d := range ch {
			r.names[fqName.FindStringSubmatch(d.String())[1]] = true
		}
	}
	r.Registry.MustRegister(cs...)
}

// Every setting and every metric is in DESIGN.md, and nothing there is gone from
// the code.
func TestDesignListsAll(t *testing.T) {
	text, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := func(pattern string) map[string]bool {
		names := map[string]bool{}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		return names
	}
	compare := func(what string, inCode, inText map[string]bool) {
		t.Helper()
		var all []string
		for n := range inCode {
			all = append(all, n)
		}
		for n := range inText {
			all = append(all, n)
		}
		slices.Sort(all)
		for _, n := range slices.Compact(all) {
			if inCode[n] != inText[n] {
				t.Errorf("%s %s: in the code %v, in DESIGN.md %v", what, n, inCode[n], inText[n])
			}
		}
	}

	cfg := gateway.DefaultConfig()
	set := process.NewFlags("x", "info", io.Discard)
	flags(set.FlagSet, &cfg)
	settings := map[string]bool{}
	set.VisitAll(func(f *flag.Flag) { settings[f.Name] = true })
	compare("setting", settings, listed("(?m)^\\| `-([a-z-]+)` \\|"))
	for _, m := range regexp.MustCompile("(?m)^\\| `-([a-z-]+)` \\| `?([^`|]*)`? \\|").FindAllStringSubmatch(string(text), -1) {
		f := set.Lookup(m[1])
		if f != nil && strings.TrimSpace(m[2]) != f.DefValue && strings.TrimSpace(m[2]) != "" {
			t.Errorf("setting %s: default is %q, DESIGN.md says %q", m[1], f.DefValue, m[2])
		}
	}

	cfg.Addr = "127.0.0.1:0"
	cfg.Keys = filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(cfg.Keys, []byte(fmt.Sprintf("apps: [{id: a, keys: ['%s']}]\n...\n", keys.HashOf("k"))), 0o600); err != nil {
		t.Fatal(err)
	}
	reg := recorder{prometheus.NewRegistry(), map[string]bool{}}
	g, err := gateway.New(cfg, gateway.Dependencies{Logger: slog.New(slog.DiscardHandler), Metrics: reg, Health: &ops.Health{}})
	if err != nil {
		t.Fatal(err)
	}
	stopped := stoppedSignals()
	if err := g.Run(stopped); err != nil && !errors.Is(err, process.ErrCutShort) {
		t.Error(err)
	}
	metrics := map[string]bool{}
	for n := range reg.names {
		if strings.HasPrefix(n, "uptake_gateway_") {
			metrics[n] = true
		}
	}
	compare("metric", metrics, listed("(?m)^\\| `(uptake_gateway_[a-z_]+)`"))
}

// stoppedSignals are those of a process that was told to stop before it ran.
func stoppedSignals() process.Signals {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(process.ErrCutShort)
	return process.Signals{Stop: ctx, Kill: ctx}
}
