// Package chart_test renders deploy/helm/uptake with Helm's own engine and checks
// what comes out: against Kubernetes' types, the services' own settings, the
// sizing program, golden files, and what a security review looks for.
package chart_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/enricher/enrich"
	"github.com/uptakehq/uptake/ingest-gateway/gateway"
	"github.com/uptakehq/uptake/rollup-writer/alert"
	"github.com/uptakehq/uptake/rollup-writer/console"
	"github.com/uptakehq/uptake/rollup-writer/rollup"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/sizing"
)

var update = flag.Bool("update", false, "write the golden files")

const chart = "../../deploy/helm/uptake"

type object = map[string]any

type rendered struct {
	Files  map[string]string
	Faults []string
	Error  string
}

// TestMain removes the renderer, which the first test builds.
func TestMain(m *testing.M) {
	code := m.Run()
	if renderer.dir != "" {
		_ = os.RemoveAll(renderer.dir) // of this process alone
	}
	os.Exit(code)
}

var renderer struct {
	once sync.Once
	dir  string
	err  error
}

// render renders the chart once for each set of values.
func render(t *testing.T, cases ...object) []rendered {
	t.Helper()
	if testing.Short() {
		t.Skip("builds Helm's engine; not under -short")
	}
	renderer.once.Do(func() {
		if renderer.dir, renderer.err = os.MkdirTemp("", "uptake-renderer-"); renderer.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", renderer.dir, ".")
		build.Dir = "renderer"
		build.Env = append(os.Environ(), "GOWORK=off")
		if out, err := build.CombinedOutput(); err != nil {
			renderer.err = fmt.Errorf("build the renderer: %w\n%s", err, out)
		}
	})
	if renderer.err != nil {
		t.Fatal(renderer.err)
	}
	bin := filepath.Join(renderer.dir, "renderer")
	in, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, chart)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("render: %v\n%s", err, stderr.Bytes())
	}
	var results []rendered
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatal(err)
	}
	return results
}

// values reads testdata/NAME.yaml.
func values(t *testing.T, name string) object {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var v object
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// objects decodes all manifests of a rendered chart.
func objects(t *testing.T, r rendered) []object {
	t.Helper()
	if r.Error != "" {
		t.Fatal(r.Error)
	}
	for _, f := range r.Faults {
		t.Errorf("Kubernetes would refuse: %s", f)
	}
	var all []object
	for name, text := range r.Files {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		dec := yaml.NewDecoder(strings.NewReader(text))
		for {
			var o object
			err := dec.Decode(&o)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, text)
			}
			if o != nil {
				all = append(all, o)
			}
		}
	}
	slices.SortFunc(all, func(a, b object) int { return strings.Compare(nameOf(a), nameOf(b)) })
	return all
}

func nameOf(o object) string { return fmt.Sprintf("%v %v", o["kind"], at(o, "metadata", "name")) }

// at follows a path of keys, and of indices of lists.
func at(v any, path ...string) any {
	for _, p := range path {
		switch x := v.(type) {
		case object:
			v = x[p]
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

func list(v any, path ...string) []any {
	l, _ := at(v, path...).([]any)
	return l
}

// text is a value as text, "" where there is none.
func text(v any, path ...string) string {
	if v = at(v, path...); v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

func find(all []object, kind, name string) object {
	for _, o := range all {
		if nameOf(o) == kind+" "+name {
			return o
		}
	}
	return nil
}

func TestRendered(t *testing.T) {
	names := []string{"least", "most"}
	results := render(t, values(t, "least"), values(t, "most"))
	for i, name := range names {
		all := objects(t, results[i])
		for _, o := range all {
			for _, fault := range faults(o, all) {
				t.Errorf("%s: %s: %s", name, nameOf(o), fault)
			}
			for _, fault := range refused(o) {
				t.Errorf("%s: %s: %s", name, nameOf(o), fault)
			}
		}
		golden(t, name, results[i])
	}
	kinds := map[string]int{}
	for _, o := range objects(t, results[1]) {
		kinds[fmt.Sprint(o["kind"])]++
	}
	for kind, want := range map[string]int{
		"Deployment": 4, "StatefulSet": 1, "Job": 4, "Service": 3, "PodDisruptionBudget": 5, "NetworkPolicy": 5, "ServiceAccount": 6,
		"Ingress": 1, "HorizontalPodAutoscaler": 1, "ScaledObject": 2, "TriggerAuthentication": 2, "PodMonitor": 1, "PrometheusRule": 1, "ConfigMap": 1,
	} {
		if kinds[kind] != want {
			t.Errorf("most: got %d of kind %s, want %d", kinds[kind], kind, want)
		}
	}
}

// golden compares a chart that was rendered with testdata/NAME.golden. What
// comes from deploy/grafana as it is is left out.
func golden(t *testing.T, name string, r rendered) {
	t.Helper()
	var b strings.Builder
	for _, file := range slices.Sorted(func(yield func(string) bool) {
		for f := range r.Files {
			if f != "monitoring.yaml" && !yield(f) {
				return
			}
		}
	}) {
		fmt.Fprintf(&b, "# %s\n", file)
		for _, line := range strings.Split(strings.TrimSpace(r.Files[file]), "\n") {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				t.Errorf("%s line %d: got %q, want %q; if that is meant: go test ./test/chart -update", path, i+1, g[i], w[i])
				return
			}
		}
		t.Errorf("%s: got %d lines, want %d; if that is meant: go test ./test/chart -update", path, len(g), len(w))
	}
}

// faults says what a cluster would silently do wrong with an object, or a review
// would object to.
func faults(o object, all []object) []string {
	var out []string
	fault := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if o["apiVersion"] == nil || text(o, "metadata", "name") == "" || text(o, "metadata", "labels", "app.kubernetes.io/instance") != "prod" {
		fault("lacks apiVersion, a name or the labels")
	}
	if target := at(o, "spec", "scaleTargetRef"); target != nil {
		to := find(all, text(target, "kind"), text(target, "name"))
		if to == nil {
			fault("scales %v, which does not exist", target)
		} else if at(to, "spec", "replicas") != nil {
			fault("scales %s, whose replicas are set too", nameOf(to))
		}
	}
	for _, selector := range []any{at(o, "spec", "selector", "matchLabels"), at(o, "spec", "podSelector", "matchLabels"), at(o, "spec", "selector")} {
		labels, ok := selector.(object)
		if !ok || labels["app.kubernetes.io/component"] == nil {
			continue
		}
		n := 0
		for _, w := range all {
			if matches(labels, at(w, "spec", "template", "metadata", "labels")) {
				n++
			}
		}
		if n != 1 {
			fault("selects the pods of %d workloads by %v", n, labels)
		}
	}
	pod := at(o, "spec", "template", "spec")
	if pod == nil {
		return out
	}
	labels := at(o, "spec", "template", "metadata", "labels")
	job := o["kind"] == "Job"
	if account := text(pod, "serviceAccountName"); find(all, "ServiceAccount", account) == nil {
		fault("has the service account %q, which does not exist", account)
	} else if hook := "helm.sh/hook-weight"; job && text(find(all, "ServiceAccount", account), "metadata", "annotations", hook) >= text(o, "metadata", "annotations", hook) {
		fault("runs before its service account %s exists", account)
	}
	if at(pod, "automountServiceAccountToken") != false {
		fault("mounts a token")
	}
	sec := at(pod, "securityContext")
	if at(sec, "runAsNonRoot") != true || text(sec, "runAsUser") == "0" || text(sec, "seccompProfile", "type") != "RuntimeDefault" {
		fault("pod security context is %v", sec)
	}
	if !job {
		for _, kind := range []string{"PodDisruptionBudget", "NetworkPolicy"} {
			if !slices.ContainsFunc(all, func(p object) bool {
				s := at(p, "spec", "selector", "matchLabels")
				if kind == "NetworkPolicy" {
					s = at(p, "spec", "podSelector", "matchLabels")
				}
				m, ok := s.(object)
				return ok && p["kind"] == kind && matches(m, labels)
			}) {
				fault("has no %s", kind)
			}
		}
		if len(list(pod, "topologySpreadConstraints")) == 0 {
			fault("is not spread over nodes")
		}
		for _, c := range list(pod, "topologySpreadConstraints") {
			if m, ok := at(c, "labelSelector", "matchLabels").(object); !ok || !matches(m, labels) {
				fault("spreads other pods than its own: %v", c)
			}
		}
	}
	volumes := map[string]bool{}
	for _, v := range append(slices.Clone(list(pod, "volumes")), list(o, "spec", "volumeClaimTemplates")...) {
		volumes[text(v, "name")+text(v, "metadata", "name")] = false
	}
	for _, c := range list(pod, "containers") {
		out = append(out, containerFaults(c, job)...)
		for _, m := range list(c, "volumeMounts") {
			if _, ok := volumes[text(m, "name")]; !ok {
				fault("mounts %s, which is no volume", text(m, "name"))
			}
			volumes[text(m, "name")] = true
		}
		for _, p := range list(c, "ports") {
			if text(p, "name") == "metrics" && !allows(all, labels, text(p, "containerPort")) {
				fault("no NetworkPolicy names its metrics port %v", at(p, "containerPort"))
			}
		}
	}
	for v, used := range volumes {
		if !used {
			fault("has the volume %s, which nothing mounts", v)
		}
	}
	return out
}

func containerFaults(c any, job bool) []string {
	var out []string
	fault := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	sec := at(c, "securityContext")
	if at(sec, "readOnlyRootFilesystem") != true || at(sec, "allowPrivilegeEscalation") != false || !slices.Equal(list(sec, "capabilities", "drop"), []any{"ALL"}) {
		fault("security context is %v", sec)
	}
	image := text(c, "image")
	if _, tag, ok := strings.Cut(image, ":"); !ok || tag == "" || tag == "latest" {
		fault("image %q has no version", image)
	}
	for _, want := range [][]string{{"requests", "cpu"}, {"requests", "memory"}, {"limits", "memory"}} {
		if at(c, append([]string{"resources"}, want...)...) == nil {
			fault("has no %s", strings.Join(want, "."))
		}
	}
	if !job {
		for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
			if at(c, probe, "httpGet", "path") == nil {
				fault("has no %s", probe)
			}
		}
	}
	dirs := map[string]bool{}
	for _, m := range list(c, "volumeMounts") {
		dirs[text(m, "mountPath")] = true
	}
	env := map[string]string{}
	for _, e := range list(c, "env") {
		name, value := text(e, "name"), text(e, "value")
		if _, twice := env[name]; twice {
			fault("%s is set twice", name)
		}
		env[name] = value
		if (strings.Contains(name, "PASSWORD") || strings.HasSuffix(name, "_SECRET")) && at(e, "valueFrom", "secretKeyRef", "name") == nil {
			fault("%s does not come from a secret", name)
		}
		if strings.HasPrefix(value, "/") && !dirs[value] && !dirs[filepath.Dir(value)] {
			fault("%s is %s, of which nothing is mounted", name, value)
		}
	}
	limit := quantity(text(c, "resources", "limits", "memory"))
	if got, err := strconv.ParseFloat(env["GOMEMLIMIT"], 64); err != nil || got < 0.89*limit || got > 0.91*limit {
		fault("GOMEMLIMIT is %s for a limit of %.0f bytes", env["GOMEMLIMIT"], limit)
	}
	return out
}

// matches reports whether labels have all that a selector asks for.
func matches(selector object, labels any) bool {
	for k, v := range selector {
		if at(labels, k) != v {
			return false
		}
	}
	return true
}

// allows reports whether a NetworkPolicy of the pods names the port, for peers
// that it lists.
func allows(all []object, labels any, port string) bool {
	for _, p := range all {
		m, ok := at(p, "spec", "podSelector", "matchLabels").(object)
		if p["kind"] != "NetworkPolicy" || !ok || !matches(m, labels) {
			continue
		}
		for _, rule := range list(p, "spec", "ingress") {
			if text(rule, "ports", "0", "port") == port && len(list(rule, "from")) > 0 {
				return true
			}
		}
	}
	return false
}

func quantity(s string) float64 {
	units := map[string]float64{"": 1, "m": 1e-3, "Mi": 1 << 20, "Gi": 1 << 30}
	digits := strings.TrimRight(s, "mMGi")
	v, err := strconv.ParseFloat(digits, 64)
	f, ok := units[s[len(digits):]]
	if err != nil || !ok {
		return math.NaN()
	}
	return v * f
}

// refused says what the services' own checks of settings say to a container.
func refused(o object) []string {
	var out []string
	for _, c := range list(o, "spec", "template", "spec", "containers") {
		env := map[string]string{}
		for _, e := range list(c, "env") {
			value := text(e, "value")
			if at(e, "valueFrom") != nil {
				value = "a-secret-of-16-characters"
			}
			env[text(e, "name")] = value
		}
		var args []string
		for _, a := range list(c, "args") {
			args = append(args, fmt.Sprint(a))
		}
		if err := validate(text(c, "image"), args, env); err != nil {
			out = append(out, fmt.Sprintf("container %s: %v", text(c, "name"), err))
		}
	}
	return out
}

// validate parses and checks settings as a service's main does, and refuses
// variables that it does not know.
func validate(image string, args []string, env map[string]string) error {
	service := image[strings.LastIndex(image, "/")+1:]
	service, _, _ = strings.Cut(service, ":")
	set := flag.NewFlagSet(service, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for _, name := range []string{"metrics-addr", "log-format", "log-level"} {
		set.String(name, "", "")
	}
	var check func() error
	switch {
	case service == "ingest-gateway":
		c := gateway.DefaultConfig()
		c.Flags(set)
		check = c.Validate
	case service == "enricher":
		c := enrich.DefaultConfig()
		c.Flags(set)
		check = c.Validate
	case args[0] == "console":
		c := console.DefaultConfig()
		c.Flags(set)
		check = c.Validate
	case args[0] == "alerts":
		c := alert.DefaultConfig()
		c.Flags(set)
		check = c.Validate
	default:
		c := rollup.DefaultConfig()
		c.Flags(set)
		check = c.Validate
	}
	known := map[string]bool{"GOMEMLIMIT": true, "GODEBUG": true}
	set.VisitAll(func(f *flag.Flag) { known[setting.Env(f.Name)] = true })
	for name := range env {
		if !known[name] {
			return fmt.Errorf("%s has no setting %s", service, name)
		}
	}
	rest := args[1:]
	// topics and migrate -roles have flags of their own: TestCommandsAndFlagsOfServices
	// knows them from the documents, and test/compose runs the commands.
	if args[0] == "topics" || slices.Contains(args, "-roles") {
		rest = nil
	}
	if _, err := setting.Parse(set, rest, func(name string) (string, bool) { v, ok := env[name]; return v, ok }); err != nil {
		return err
	}
	return check()
}

// The checks above find what they are for.
func TestChecksFindFaults(t *testing.T) {
	r := render(t, values(t, "most"))[0]
	for _, tc := range []struct {
		kind, name string
		change     func(pod, container object)
		want       string
	}{
		{"Deployment", "prod-ingest-gateway", func(_, c object) { delete(at(c, "resources").(object), "limits") }, "has no limits.memory"},
		{"Deployment", "prod-ingest-gateway", func(_, c object) { delete(c, "readinessProbe") }, "has no readinessProbe"},
		{"Deployment", "prod-ingest-gateway", func(_, c object) { c["volumeMounts"] = list(c, "volumeMounts")[1:] }, "of which nothing is mounted"},
		{"Deployment", "prod-ingest-gateway", func(_, c object) { c["image"] = "uptake/ingest-gateway:latest" }, "has no version"},
		{"StatefulSet", "prod-enricher", func(_, c object) { at(c, "securityContext").(object)["readOnlyRootFilesystem"] = false }, "security context"},
		{"StatefulSet", "prod-enricher", func(p, _ object) { at(p, "securityContext").(object)["seccompProfile"] = nil }, "pod security context"},
		{"Deployment", "prod-rollup-writer", func(_, c object) {
			c["env"] = append(list(c, "env"), object{"name": "UPTAKE_CLICKHOUSE_PASSWORDS", "value": "open"})
		}, "does not come from a secret"},
		{"Job", "prod-migrate", func(p, _ object) { p["serviceAccountName"] = "other" }, "service account"},
		{"Job", "prod-init", func(_, c object) {
			c["env"] = append(list(c, "env"), object{"name": "UPTAKE_BLOCK_RECORD", "value": "1"})
		}, "has no setting UPTAKE_BLOCK_RECORD"},
		{"Deployment", "prod-console", func(_, c object) {
			c["args"] = []any{"console", "-console-query-timeout=1ms"}
		}, "console-query-timeout must be"},
	} {
		all := objects(t, r)
		o := find(all, tc.kind, tc.name)
		pod := at(o, "spec", "template", "spec").(object)
		tc.change(pod, list(pod, "containers")[0].(object))
		if got := append(faults(o, all), refused(o)...); !slices.ContainsFunc(got, func(f string) bool { return strings.Contains(f, tc.want) }) {
			t.Errorf("%s %s: got %q, want %q among them", tc.kind, tc.name, got, tc.want)
		}
	}
}

// Values that would be ignored, or lead to pods that cannot start, are refused
// with their names.
func TestValuesAreChecked(t *testing.T) {
	checks := []struct {
		over object
		want string
	}{
		{object{"kafka": object{"brokers": nil}}, "kafka.brokers must name your brokers"},
		{object{"kafka": object{"broker": []any{"a:9092"}}}, "'broker' not allowed"},
		{object{"kafka": object{"brokers": []any{"a"}}}, "/kafka/brokers/0"},
		{object{"kafka": object{"sasl": object{"mechanism": "scram"}}}, "/kafka/sasl/mechanism"},
		{object{"clickhouse": object{"addr": nil}}, "clickhouse.addr must name your server"},
		{object{"gateway": object{"existingKeysSecret": nil}}, "gateway.existingKeysSecret"},
		{object{"gateway": object{"resources": object{"limits": nil}}}, "missing property 'limits'"},
		{object{"gateway": object{"ingress": object{"enabled": true}}}, "gateway.ingress.host"},
		{object{"enricher": object{"replicas": "three"}}, "/enricher/replicas"},
		{object{"load": object{"dedupWindow": "7d"}}, "/load/dedupWindow"},
		{object{"console": object{"enabled": true}}, "console.clickhouse.user"},
		{object{"console": object{"enabled": true, "clickhouse": object{"user": "c", "existingSecret": "s"}}}, "console.oidc.issuer must name a provider"},
		{object{"console": object{"enabled": true, "clickhouse": object{"user": "c", "existingSecret": "s"}, "oidc": object{"issuer": "https://idp.example"}}}, "console.access.existingConfigMap"},
		{object{"alerts": object{"enabled": true}}, "alerts.clickhouse.user"},
		{object{"alerts": object{"targets": "x"}}, "'targets' not allowed"},
		{object{"clickhouse": object{"roles": object{"apply": true}}}, "clickhouse.roles.adminUser"},
	}
	var cases []object
	for _, c := range checks {
		cases = append(cases, merge(values(t, "least"), c.over))
	}
	for i, r := range render(t, cases...) {
		if !strings.Contains(r.Error, checks[i].want) {
			t.Errorf("case %d: got %q, want %q in it", i, r.Error, checks[i].want)
		}
	}
}

func merge(base, over object) object {
	out := object{}
	for k, v := range base {
		out[k] = v
	}
	for k, v := range over {
		if m, ok := v.(object); ok {
			b, _ := out[k].(object)
			v = merge(b, m)
		}
		out[k] = v
	}
	return out
}

// Resources that follow from a load are those of the sizing program.
func TestLoadIsSizedAsByTheProgram(t *testing.T) {
	f, err := os.Open("../../docs/performance.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	costs, err := sizing.ReadCosts(f)
	if err != nil {
		t.Fatal(err)
	}
	rates := []float64{5_000, 50_000, 500_000}
	var cases []object
	for _, rate := range rates {
		cases = append(cases, merge(values(t, "least"), object{"load": object{"eventsPerSecond": rate, "eventBytes": 900, "batch": 10}, "enricher": object{"replicas": 4}}))
	}
	for i, r := range render(t, cases...) {
		l := sizing.DefaultLoad()
		l.EventsPerSecond, l.EventBytes, l.Batch = rates[i], 900, 10
		p := sizing.Compute(costs, l)
		all := objects(t, r)
		of := func(kind, name string) any {
			return at(find(all, kind, name), "spec", "template", "spec", "containers", "0")
		}
		near := func(what string, got, want, least float64) {
			t.Helper()
			if want = math.Max(want, least); math.IsNaN(got) || got < 0.999*want || got > 1.001*want+1<<20 {
				t.Errorf("%v events/s, %s: got %v, want %v", rates[i], what, got, want)
			}
		}
		enricher := of("StatefulSet", "prod-enricher")
		near("memory", quantity(text(enricher, "resources", "limits", "memory")), p.EnricherMemory/4/l.Busy, 2<<30)
		near("disk", quantity(text(find(all, "StatefulSet", "prod-enricher"), "spec", "volumeClaimTemplates", "0", "spec", "resources", "requests", "storage")), p.EnricherDisk/4/l.Busy, 20<<30)
		cpu := func(what string, c any, cores, least float64) {
			t.Helper()
			if got, want := quantity(text(c, "resources", "requests", "cpu")), math.Max(least, cores/l.Busy); math.Abs(got-want) > 0.002*want {
				t.Errorf("%v events/s, CPU of a %s: got %v, want %v", rates[i], what, got, want)
			}
		}
		cpu("gateway", of("Deployment", "prod-ingest-gateway"), p.GatewayCores/2, 0.5)
		cpu("enricher", enricher, p.EnricherCores/4, 1)
		cpu("writer", of("Deployment", "prod-rollup-writer"), p.WriterCores/2, 1)
		// Twice the mean of the 12 partitions.
		var ids float64
		for _, e := range list(enricher, "env") {
			if text(e, "name") == "UPTAKE_DEDUP_MAX_IDS" {
				ids, _ = strconv.ParseFloat(text(e, "value"), 64)
			}
			if text(e, "name") == "UPTAKE_DEDUP_WINDOW" {
				if window, err := time.ParseDuration(text(e, "value")); err != nil || window != l.DedupWindow {
					t.Errorf("load.dedupWindow is %q by default, the enricher's is %s (%v)", text(e, "value"), l.DedupWindow, err)
				}
			}
		}
		near("ids", ids, rates[i]/l.PeakToMean*l.DedupWindow.Seconds()*2/12, 0)
	}
}

// Whatever has the brokers has the prefix.
func TestPrefixIsEverywhere(t *testing.T) {
	found := 0
	for _, o := range objects(t, render(t, values(t, "most"))[0]) {
		env := map[string]string{}
		for _, c := range list(o, "spec", "template", "spec", "containers") {
			for _, e := range list(c, "env") {
				env[text(e, "name")] = text(e, "value")
			}
		}
		if _, ok := env["UPTAKE_KAFKA_BROKERS"]; ok {
			found++
			if got := env["UPTAKE_KAFKA_PREFIX"]; got != "staging." {
				t.Errorf("%s has the prefix %q", text(o, "metadata", "name"), got)
			}
		}
	}
	if found < 7 { // gateway, enricher, writer, alerts, console, topics, init
		t.Errorf("only %d have the brokers", found)
	}
}

// Alerts and dashboard are those of deploy/grafana; scalers watch the groups and
// topics that the services use.
func TestMonitoringAndScalers(t *testing.T) {
	all := objects(t, render(t, values(t, "most"))[0])
	want, err := os.ReadFile("../../deploy/grafana/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rules object
	if err := yaml.Unmarshal(want, &rules); err != nil {
		t.Fatal(err)
	}
	if got := find(all, "PrometheusRule", "prod")["spec"]; fmt.Sprint(got) != fmt.Sprint(rules) {
		t.Error("the PrometheusRule differs from deploy/grafana/alerts.yaml")
	}
	board, err := os.ReadFile("../../deploy/grafana/uptake.json")
	if err != nil {
		t.Fatal(err)
	}
	if got := text(find(all, "ConfigMap", "prod-dashboards"), "data", "uptake.json"); strings.TrimSpace(got) != strings.TrimSpace(string(board)) {
		t.Error("the ConfigMap differs from deploy/grafana/uptake.json")
	}
	names := topic.NewNames("staging.")
	for name, want := range map[string][2]string{
		"prod-enricher":      {names.GroupEnricher, names.Raw},
		"prod-rollup-writer": {names.GroupRollupWriter, names.Enriched},
	} {
		m := at(find(all, "ScaledObject", name), "spec", "triggers", "0", "metadata")
		if got := [2]string{text(m, "consumerGroup"), text(m, "topic")}; got != want {
			t.Errorf("%s scales by %v, want %v", name, got, want)
		}
	}
}
