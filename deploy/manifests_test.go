// Package deploy_test checks the files of compose, helm and grafana as far as
// that is possible without Docker, Kubernetes and Grafana: that they parse, that
// each setting they name is a setting, and each metric a metric.
package deploy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/enricher/enrich"
	"github.com/uptakehq/uptake/ingest-gateway/gateway"
	"github.com/uptakehq/uptake/ingest-gateway/keys"
	"github.com/uptakehq/uptake/rollup-writer/rollup"
	"github.com/uptakehq/uptake/schemas/privacy"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// settings returns the environment variables that a service reads.
func settings(service string) map[string]bool {
	set := flag.NewFlagSet(service, flag.ContinueOnError)
	switch service {
	case "ingest-gateway":
		c := gateway.DefaultConfig()
		c.Flags(set)
	case "enricher":
		c := enrich.DefaultConfig()
		c.Flags(set)
	case "rollup-writer":
		c := rollup.DefaultConfig()
		c.Flags(set)
	}
	names := map[string]bool{}
	set.VisitAll(func(f *flag.Flag) { names[setting.Env(f.Name)] = true })
	for _, name := range []string{"metrics-addr", "log-format", "log-level"} { // of every main
		names[setting.Env(name)] = true
	}
	return names
}

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

func TestCompose(t *testing.T) {
	var file struct {
		Services map[string]struct {
			Image       string
			Build       map[string]string
			Command     []string
			Environment map[string]string
			Volumes     []string
			DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		}
		Volumes map[string]any
	}
	if err := yaml.Unmarshal(read(t, "compose/compose.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	dockerfile := string(read(t, "docker/Dockerfile"))
	for name, s := range file.Services {
		for other := range s.DependsOn {
			if _, ok := file.Services[other]; !ok {
				t.Errorf("%s depends on %s, which is not there", name, other)
			}
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if !strings.HasPrefix(source, ".") {
				if _, ok := file.Volumes[source]; !ok {
					t.Errorf("%s mounts the volume %s, which is not there", name, source)
				}
			} else if _, err := os.Stat(filepath.Join("compose", source)); err != nil {
				t.Errorf("%s mounts %v", name, err)
			}
		}
		target := s.Build["target"]
		if target == "" {
			continue
		}
		if s.Image != "uptake/"+target || !strings.Contains(dockerfile, " AS "+target+"\n") {
			t.Errorf("%s: image %s and target %s do not go together, or the Dockerfile lacks the target", name, s.Image, target)
		}
		known := settings(target)
		for env := range s.Environment {
			if !known[env] {
				t.Errorf("%s: %s has no setting %s", name, target, env)
			}
		}
	}
	for _, name := range []string{"ingest-gateway", "enricher", "rollup-writer", "topics", "migrate", "catalog", "kafka", "clickhouse"} {
		if _, ok := file.Services[name]; !ok {
			t.Errorf("compose has no %s", name)
		}
	}

	for _, name := range []string{"ingest-gateway", "enricher"} {
		s := file.Services[name]
		if !slices.Contains(s.Volumes, "./privacy:"+filepath.Dir(s.Environment["UPTAKE_PRIVACY_FILE"])+":ro") {
			t.Errorf("%s has no folder of its privacy file %q", name, s.Environment["UPTAKE_PRIVACY_FILE"])
		}
	}
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
	regs := map[string]*prometheus.Registry{"ingest-gateway": prometheus.NewRegistry(), "enricher": prometheus.NewRegistry(), "rollup-writer": prometheus.NewRegistry()}
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
	for _, g := range alerts.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || r.Expr == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["action"] == "" {
				t.Errorf("alert %q lacks an expression, severity, summary or action", r.Alert)
			}
			fmt.Fprintln(&exprs, r.Expr)
		}
	}
	checkMetrics(t, "grafana/alerts.yaml", exprs.String(), known)
}

const chart = "helm/uptake"

// render runs the chart's templates with the few functions of Helm that they use.
func render(t *testing.T, values map[string]any) (map[string]string, error) {
	t.Helper()
	tmpl := template.New("chart")
	toYAML := func(v any) (string, error) {
		text, err := yaml.Marshal(v)
		return strings.TrimSuffix(string(text), "\n"), err
	}
	indent := func(n int, s string) string {
		return strings.Repeat(" ", n) + strings.ReplaceAll(s, "\n", "\n"+strings.Repeat(" ", n))
	}
	tmpl.Funcs(template.FuncMap{
		"include": func(name string, data any) (string, error) {
			var b strings.Builder
			err := tmpl.ExecuteTemplate(&b, name, data)
			return b.String(), err
		},
		"dict": func(pairs ...any) map[string]any {
			m := map[string]any{}
			for i := 0; i < len(pairs); i += 2 {
				m[pairs[i].(string)] = pairs[i+1]
			}
			return m
		},
		"list": func(items ...any) []any { return items },
		"concat": func(lists ...[]any) []any {
			return slices.Concat(lists...)
		},
		"join": func(sep string, items []any) string {
			var parts []string
			for _, i := range items {
				parts = append(parts, fmt.Sprint(i))
			}
			return strings.Join(parts, sep)
		},
		"default": func(fallback, v any) any {
			if v == nil || v == "" {
				return fallback
			}
			return v
		},
		"required": func(message string, v any) (any, error) {
			if v == nil || v == "" {
				return nil, errors.New(message)
			}
			return v, nil
		},
		"quote":   func(v any) string { return fmt.Sprintf("%q", fmt.Sprint(v)) },
		"toYaml":  toYAML,
		"toJson":  func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
		"indent":  indent,
		"nindent": func(n int, s string) string { return "\n" + indent(n, s) },
	})
	tmpl.Option("missingkey=error")
	files, err := filepath.Glob(chart + "/templates/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, err := tmpl.New(filepath.Base(f)).Parse(string(read(t, f))); err != nil {
			t.Fatal(err)
		}
	}
	out := map[string]string{}
	for _, f := range files {
		name := filepath.Base(f)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var b strings.Builder
		data := map[string]any{
			"Values": values, "Release": map[string]any{"Name": "prod"}, "Chart": map[string]any{"AppVersion": "1.2.3"},
		}
		if err := tmpl.ExecuteTemplate(&b, name, data); err != nil {
			return nil, err
		}
		out[name] = b.String()
	}
	return out, nil
}

func defaults(t *testing.T) map[string]any {
	t.Helper()
	var values map[string]any
	if err := yaml.Unmarshal(read(t, chart+"/values.yaml"), &values); err != nil {
		t.Fatal(err)
	}
	return values
}

// merge lays over on base, map by map.
func merge(base, over map[string]any) map[string]any {
	out := maps.Clone(base)
	for k, v := range over {
		if m, ok := v.(map[string]any); ok {
			if b, ok := out[k].(map[string]any); ok {
				out[k] = merge(b, m)
				continue
			}
		}
		out[k] = v
	}
	return out
}

type object = map[string]any

func at(v any, path ...string) any {
	for _, p := range path {
		m, ok := v.(object)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

func TestHelm(t *testing.T) {
	base := defaults(t)
	if _, err := render(t, base); err == nil || !strings.Contains(err.Error(), "must name") {
		t.Errorf("without brokers: got %v, want an error that says what must be named", err)
	}
	least := merge(base, object{
		"kafka": object{"brokers": []any{"a:9092", "b:9092"}}, "clickhouse": object{"addr": "ch:9000", "existingSecret": "ch"},
		"gateway": object{"existingKeysSecret": "keys"},
	})
	most := merge(least, object{
		"kafka":      object{"tls": true, "sasl": object{"mechanism": "SCRAM-SHA-512", "user": "u", "existingSecret": "s"}},
		"image":      object{"pullSecrets": []any{object{"name": "p"}}, "tag": "x"},
		"clickhouse": object{"formArgs": []any{"-clickhouse-cluster", "main"}},
		"gateway": object{
			"ingress":     object{"enabled": true, "host": "in.example.com", "className": "nginx", "tlsSecret": "tls"},
			"autoscaling": object{"enabled": true}, "args": []any{"-linger", "5ms"},
		},
		"enricher":    object{"storage": object{"className": "fast"}},
		"privacy":     object{"existingSecret": "rules"},
		"podMonitor":  object{"enabled": true, "labels": object{"release": "prometheus"}},
		"tolerations": []any{object{"key": "k"}}, "nodeSelector": object{"a": "b"},
	})
	for name, values := range map[string]object{"least": least, "most": most} {
		files, err := render(t, values)
		if err != nil {
			t.Fatal(err)
		}
		kinds := map[string]int{}
		var private []string // who has the file of privacy rules
		for file, text := range files {
			dec := yaml.NewDecoder(strings.NewReader(text))
			for {
				var o object
				err := dec.Decode(&o)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%s: %s: %v\n%s", name, file, err, text)
				}
				if o == nil {
					continue
				}
				kinds[fmt.Sprint(o["kind"])]++
				if checkObject(t, file, o)["UPTAKE_PRIVACY_FILE"] {
					private = append(private, file)
				}
			}
		}
		var wantPrivate []string
		want := map[string]int{"Deployment": 2, "StatefulSet": 1, "Service": 2, "Job": 3, "PodDisruptionBudget": 1}
		if name == "most" {
			want["Ingress"], want["HorizontalPodAutoscaler"], want["PodMonitor"] = 1, 1, 1
			wantPrivate = []string{"enricher.yaml", "ingest-gateway.yaml"}
		}
		if slices.Sort(private); !slices.Equal(private, wantPrivate) {
			t.Errorf("%s: privacy rules are in %v, want %v", name, private, wantPrivate)
		}
		if !maps.Equal(kinds, want) {
			t.Errorf("%s: got %v, want %v", name, kinds, want)
		}
	}

	helm, err := exec.LookPath("helm")
	if err != nil {
		t.Log("no helm here: the chart was rendered by this test alone")
		return
	}
	cmd := exec.Command(helm, "template", "prod", chart, "--set", "kafka.brokers={a:9092},clickhouse.addr=c:9000,clickhouse.existingSecret=s,gateway.existingKeysSecret=k")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("helm template: %v\n%s", err, out)
	}
}

// checkObject looks at what a cluster would refuse or silently do wrong. It returns
// the settings that the object's pods have.
func checkObject(t *testing.T, file string, o object) (set map[string]bool) {
	t.Helper()
	name := fmt.Sprintf("%s: %v %v", file, o["kind"], at(o, "metadata", "name"))
	if o["apiVersion"] == nil || at(o, "metadata", "name") == nil {
		t.Errorf("%s: lacks apiVersion or a name", name)
	}
	pod, ok := at(o, "spec", "template").(object)
	if !ok {
		return nil
	}
	if selector, ok := at(o, "spec", "selector", "matchLabels").(object); ok {
		for k, v := range selector {
			if got := at(pod, "metadata", "labels", k); got != v {
				t.Errorf("%s: selects %s=%v, its pods have %v", name, k, v, got)
			}
		}
	}
	containers, _ := at(pod, "spec", "containers").([]any)
	if len(containers) != 1 {
		t.Fatalf("%s: got %d containers, want 1", name, len(containers))
	}
	image := fmt.Sprint(at(containers[0], "image"))
	service := strings.TrimPrefix(image[:strings.LastIndex(image, ":")], "uptake/")
	known := settings(service)
	env, _ := at(containers[0], "env").([]any)
	set = map[string]bool{}
	for _, e := range env {
		n := fmt.Sprint(at(e, "name"))
		if set[n] = true; !known[n] {
			t.Errorf("%s: %s has no setting %s", name, service, n)
		}
	}
	if len(env) == 0 {
		t.Errorf("%s: has no settings", name)
	}
	mounts, _ := at(containers[0], "volumeMounts").([]any)
	volumes := map[string]bool{}
	for _, list := range []any{at(pod, "spec", "volumes"), at(o, "spec", "volumeClaimTemplates")} {
		items, _ := list.([]any)
		for _, v := range items {
			for _, n := range []any{at(v, "name"), at(v, "metadata", "name")} {
				volumes[fmt.Sprint(n)] = true
			}
		}
	}
	dirs := map[string]bool{}
	for _, m := range mounts {
		dirs[fmt.Sprint(at(m, "mountPath"))] = true
		if n := fmt.Sprint(at(m, "name")); !volumes[n] {
			t.Errorf("%s: mounts %s, which is not there", name, n)
		}
	}
	for _, e := range env {
		if path := fmt.Sprint(at(e, "value")); strings.HasSuffix(path, ".yaml") && !dirs[filepath.Dir(path)] {
			t.Errorf("%s: has no folder of %s", name, path)
		}
	}
	return set
}
