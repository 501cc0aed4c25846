package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/enricher/enrich"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

var update = flag.Bool("update", false, "write the tables of DESIGN.md")

// section returns the lines of a table of DESIGN.md and what surrounds them.
func section(t *testing.T, text, heading string) (before, table, after string) {
	t.Helper()
	at := strings.Index(text, "\n## "+heading+"\n")
	if at < 0 {
		t.Fatalf("DESIGN.md has no section %s", heading)
	}
	start := at + strings.Index(text[at:], "|---|")
	start += strings.Index(text[start:], "\n") + 1
	end := start
	for end < len(text) && text[end] == '|' {
		end += strings.Index(text[end:], "\n") + 1
	}
	return text[:start], text[start:end], text[end:]
}

// The lists of settings and metrics are those of the code.
func TestDesignListsSettingsAndMetrics(t *testing.T) {
	b, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for heading, want := range map[string]string{"Settings": settings(t), "Metrics": metrics(t)} {
		before, have, after := section(t, text, heading)
		if have == want {
			continue
		}
		if *update {
			text = before + want + after
			continue
		}
		t.Errorf("section %s of DESIGN.md is not what the code says; run go test -run Design -update .\ngot:\n%s\nwant:\n%s", heading, have, want)
	}
	if *update {
		if err := os.WriteFile("DESIGN.md", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func settings(t *testing.T) string {
	t.Helper()
	set := process.NewFlags("x", "info", io.Discard)
	newServeFlags(set.FlagSet)
	var b strings.Builder
	set.VisitAll(func(f *flag.Flag) {
		if strings.HasPrefix(f.Name, "kafka-") || strings.HasPrefix(f.Name, "schema-registry") {
			return
		}
		_, what := flag.UnquoteUsage(f)
		value := "`" + f.DefValue + "`"
		if f.DefValue == "" {
			value = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, value, what)
	})
	return b.String()
}

var descPattern = regexp.MustCompile(`fqName: "([^"]*)", help: "((?:[^"\\]|\\.)*)".*variableLabels: \{([^}]*)\}`)

func metrics(t *testing.T) string {
	t.Helper()
	var all collected
	if _, err := enrich.New(enrich.DefaultConfig(), enrich.Dependencies{Metrics: &all}); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range all {
		descs := make(chan *prometheus.Desc, 10)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			m := descPattern.FindStringSubmatch(d.String())
			if m == nil {
				t.Fatalf("cannot read %s", d)
			}
			lines = append(lines, fmt.Sprintf("| `%s` | %s | %s |\n", m[1], strings.ReplaceAll(m[3], ",", ", "), m[2]))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// collected is a registerer that keeps what is registered.
type collected []prometheus.Collector

func (c *collected) Register(x prometheus.Collector) error  { c.MustRegister(x); return nil }
func (c *collected) MustRegister(x ...prometheus.Collector) { *c = append(*c, x...) }
func (c *collected) Unregister(prometheus.Collector) bool   { return false }
