// Package deploy_test checks the files of grafana as far as that is possible
// without Grafana: that they parse, and that each metric they name is a metric. The
// chart is checked by test/chart, the compose files by test/compose.
package deploy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/enricher/enrich"
	"github.com/uptakehq/uptake/ingest-gateway/gateway"
	"github.com/uptakehq/uptake/ingest-gateway/keys"
	"github.com/uptakehq/uptake/rollup-writer/alert"
	"github.com/uptakehq/uptake/rollup-writer/rollup"
	"github.com/uptakehq/uptake/schemas/privacy"
	"github.com/uptakehq/uptake/schemas/svc/ops"
)

func decode(t *testing.T, name string, text []byte, into any) {
	t.Helper()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestKeysAndPrivacyRules(t *testing.T) {
	if _, err := privacy.Load("compose/privacy/privacy.yaml"); err != nil {
		t.Error(err)
	}
	table, err := keys.Load("compose/keys.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if app := table.App("dev-write-key"); app == nil {
		t.Error("compose/keys.yaml does not know dev-write-key")
	}
}

// registries returns a registry for each service, as it is after New.
func registries(t *testing.T) map[string]*prometheus.Registry {
	t.Helper()
	regs := map[string]*prometheus.Registry{"ingest-gateway": prometheus.NewRegistry(), "enricher": prometheus.NewRegistry(), "rollup-writer": prometheus.NewRegistry(), "alerts": prometheus.NewRegistry()}
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	g := gateway.DefaultConfig()
	g.Addr, g.Keys = "127.0.0.1:0", "compose/keys.yaml"
	_, err := gateway.New(g, gateway.Dependencies{Logger: logger, Metrics: regs["ingest-gateway"], Health: &ops.Health{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enrich.New(enrich.DefaultConfig(), enrich.Dependencies{Logger: logger, Metrics: regs["enricher"], Health: &ops.Health{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := rollup.New(rollup.DefaultConfig(), rollup.Dependencies{Logger: logger, Metrics: regs["rollup-writer"], Health: &ops.Health{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := alert.New(alert.DefaultConfig(), alert.Dependencies{Logger: logger, Metrics: regs["alerts"], Health: &ops.Health{}}); err != nil {
		t.Fatal(err)
	}
	return regs
}

var (
	fqName     = regexp.MustCompile(`fqName: "([^"]+)"`)
	metricName = regexp.MustCompile(`\buptake_[a-z0-9_]+`)
)

// metrics are the names that the services export, with those that histograms add.
func metrics(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for service, reg := range registries(t) {
		descs := make(chan *prometheus.Desc)
		go func() { // ends with Describe
			reg.Describe(descs)
			close(descs)
		}()
		n := 0
		for d := range descs {
			m := fqName.FindStringSubmatch(d.String())
			if m == nil {
				t.Fatalf("no name in %s", d)
			}
			n++
			for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
				names[m[1]+suffix] = true
			}
		}
		if n == 0 {
			t.Errorf("%s exports nothing", service)
		}
	}
	return names
}

func checkMetrics(t *testing.T, file, text string, known map[string]bool) {
	t.Helper()
	used := metricName.FindAllString(text, -1)
	if len(used) == 0 {
		t.Errorf("%s names no metric", file)
	}
	for _, name := range used {
		if !known[name] {
			t.Errorf("%s: no service exports %s", file, name)
		}
	}
}

func TestGrafana(t *testing.T) {
	known := metrics(t)
	var dashboard struct {
		Title  string
		UID    string
		Panels []struct {
			ID      int
			Title   string
			Type    string
			Targets []struct{ Expr string }
			GridPos struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal(read(t, "grafana/uptake.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	var exprs strings.Builder
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q: id or place is wrong: %+v", p.Title, p)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			fmt.Fprintln(&exprs, target.Expr)
		}
	}
	checkMetrics(t, "grafana/uptake.json", exprs.String(), known)

	var alerts struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	decode(t, "grafana/alerts.yaml", read(t, "grafana/alerts.yaml"), &alerts)
	exprs.Reset()
	sections := map[string]bool{}
	for _, g := range alerts.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || r.Expr == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["action"] == "" {
				t.Errorf("alert %q lacks an expression, severity, summary or action", r.Alert)
			}
			fmt.Fprintln(&exprs, r.Expr)
			sections[r.Alert] = true
			if want := "https://github.com/uptakehq/uptake/blob/main/docs/runbook.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
				t.Errorf("alert %s: runbook_url is %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
			}
		}
	}
	checkMetrics(t, "grafana/alerts.yaml", exprs.String(), known)
	for _, m := range regexp.MustCompile(`(?m)^## (\S+)\n\n\S`).FindAllStringSubmatch(string(read(t, "../docs/runbook.md")), -1) {
		if !sections[m[1]] {
			t.Errorf("docs/runbook.md has the section %s, which is of no alert", m[1])
		}
		delete(sections, m[1])
	}
	for name := range sections {
		t.Errorf("docs/runbook.md has no section %s", name)
	}
}
