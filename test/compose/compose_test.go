// Package compose_test checks deploy/compose without a container engine: the files
// are loaded by Compose's own library, what they mention exists, and each
// container's command of ours is run as a process with the container's environment,
// secrets and mounts.
package compose_test

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/uptakehq/uptake/enricher/enrich"
	"github.com/uptakehq/uptake/ingest-gateway/gateway"
	"github.com/uptakehq/uptake/rollup-writer/alert"
	"github.com/uptakehq/uptake/rollup-writer/console"
	"github.com/uptakehq/uptake/rollup-writer/rollup"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/test/harness/stack"
)

func TestMain(m *testing.M) {
	embedded.ChildMain()
	code := m.Run()
	if err := stack.Cleanup(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const folder = "../../deploy/compose"

// load loads compose files with every profile.
func load(t *testing.T, files ...string) *types.Project {
	t.Helper()
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = filepath.Join(folder, f)
	}
	o, err := cli.NewProjectOptions(paths, cli.WithProfiles([]string{"*"}))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// secrets runs secrets.sh and returns its folder and the write key that it prints.
func secrets(t *testing.T, args ...string) (dir, key string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "secrets")
	run := func() string {
		cmd := exec.Command("sh", append([]string{filepath.Join(folder, "secrets.sh")}, args...)...)
		cmd.Env = append(os.Environ(), "UPTAKE_SECRETS="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("secrets.sh: %v\n%s", err, out)
		}
		return string(out)
	}
	m := regexp.MustCompile(`shown this once: (\S{32})\n`).FindStringSubmatch(run())
	if m == nil {
		t.Fatal("secrets.sh prints no write key")
	}
	before := contents(t, dir)
	if out := run(); out != "" {
		t.Errorf("the second run printed %q", out)
	}
	for name, text := range contents(t, dir) {
		if name != "console-htpasswd" && before[name] != text { // salted
			t.Errorf("the second run of secrets.sh changed %s", name)
		}
	}
	return dir, m[1]
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir+"/")] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// source is where a mounted path is in the test: what secrets.sh makes is in dir.
func source(dir, path string) string {
	if _, name, ok := strings.Cut(path, "/deploy/compose/secrets/"); ok {
		return filepath.Join(dir, name)
	}
	return path
}

// settings are the environment variables that the programs of an image read.
func settings(image string) map[string]bool {
	set := flag.NewFlagSet(image, flag.ContinueOnError)
	names := map[string]bool{}
	add := func(flags func(*flag.FlagSet)) {
		set = flag.NewFlagSet(image, flag.ContinueOnError)
		flags(set)
		set.VisitAll(func(f *flag.Flag) { names[setting.Env(f.Name)] = true })
	}
	switch image {
	case "ingest-gateway":
		c := gateway.DefaultConfig()
		add(c.Flags)
	case "enricher":
		c := enrich.DefaultConfig()
		add(c.Flags)
	case "rollup-writer":
		writer, pages, signals := rollup.DefaultConfig(), console.DefaultConfig(), alert.DefaultConfig()
		add(writer.Flags)
		add(pages.Flags)
		add(signals.Flags)
		names["UPTAKE_ROLE_APPS"] = true // of migrate
	}
	for _, name := range []string{"metrics-addr", "log-format", "log-level"} {
		names[setting.Env(name)] = true
	}
	return names
}

func TestFiles(t *testing.T) {
	made, _ := secrets(t, "-tls")
	dockerfile, err := os.ReadFile("../../deploy/docker/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string][]string{
		"one broker":    {"compose.yaml"},
		"three brokers": {"compose.yaml", "compose.kafka3.yaml"},
		"TLS":           {"compose.yaml", "compose.tls.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			p := load(t, files...)
			for _, want := range []string{"kafka", "clickhouse", "topics", "catalog", "roles", "migrate", "init", "ingest-gateway", "enricher", "rollup-writer", "alerts", "console", "sign-in", "prometheus", "grafana"} {
				if _, ok := p.Services[want]; !ok {
					t.Errorf("there is no service %s", want)
				}
			}
			for name, s := range p.Services {
				checkService(t, p, made, string(dockerfile), name, &s)
			}
			for name, s := range p.Secrets {
				if text, err := os.ReadFile(source(made, s.File)); err != nil || len(text) < 16 {
					t.Errorf("secret %s: secrets.sh makes no %s", name, s.File)
				}
			}
			users := map[string][]string{}
			for name, s := range p.Services {
				for _, key := range []string{"UPTAKE_CLICKHOUSE_USER", "CLICKHOUSE_USER"} {
					if user := s.Environment[key]; user != nil {
						users[*user] = append(users[*user], name)
					}
				}
			}
			for user, want := range map[string][]string{
				"uptake_admin": {"clickhouse", "roles"}, "uptake_migrator_user": {"migrate"}, "uptake_writer_user": {"init", "rollup-writer"},
				"uptake_alerts_user": {"alerts"}, "uptake_console_user": {"console"}, "uptake_analyst_user": {"grafana"},
			} {
				slices.Sort(users[user])
				if !slices.Equal(users[user], want) {
					t.Errorf("user %s is used by %v, want %v", user, users[user], want)
				}
				delete(users, user)
			}
			if len(users) > 0 {
				t.Errorf("further users: %v", users)
			}
		})
	}
}

func checkService(t *testing.T, p *types.Project, made, dockerfile, name string, s *types.ServiceConfig) {
	t.Helper()
	secret := func(path string) {
		file := strings.TrimPrefix(path, "/run/secrets/")
		if !slices.ContainsFunc(s.Secrets, func(c types.ServiceSecretConfig) bool { return c.Source == file }) {
			t.Errorf("%s reads the secret %s, which it is not given", name, path)
		}
	}
	for key, value := range s.Environment {
		switch {
		case value == nil:
			t.Errorf("%s: %s has no value", name, key)
		case strings.HasPrefix(strings.TrimPrefix(*value, "file:"), "/run/secrets/"):
			secret(strings.TrimPrefix(*value, "file:"))
		case strings.Contains(key, "PASSWORD") || strings.Contains(key, "SECRET"):
			t.Errorf("%s: %s is no file", name, key)
		}
	}
	if s.Environment["UPTAKE_KAFKA_BROKERS"] != nil || slices.Contains(s.Command, "-kafka-brokers") {
		if _, ok := s.Environment["UPTAKE_KAFKA_PREFIX"]; !ok {
			t.Errorf("%s has no UPTAKE_KAFKA_PREFIX", name)
		}
	}
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind {
			if _, ok := p.Volumes[v.Source]; !ok {
				t.Errorf("%s mounts the volume %s, which is not declared", name, v.Source)
			}
		} else if _, err := os.Stat(source(made, v.Source)); err != nil {
			t.Errorf("%s mounts: %v", name, err)
		} else if !v.ReadOnly {
			t.Errorf("%s may write to %s", name, v.Source)
		}
		if filepath.Base(v.Source) == "keys.yaml" && !slices.Contains(s.Profiles, "dev") {
			t.Errorf("%s has the fixed write key without the profile dev", name)
		}
	}
	for _, port := range s.Ports {
		if ip, err := netip.ParseAddr(port.HostIP); err != nil || !ip.IsLoopback() {
			t.Errorf("%s publishes port %s beyond this machine", name, port.Published)
		}
	}
	if s.Build == nil {
		if !regexp.MustCompile(`:[v0-9].*\d`).MatchString(s.Image) {
			t.Errorf("%s: image %s has no version", name, s.Image)
		}
		return
	}
	if s.Image != "uptake/"+s.Build.Target || !strings.Contains(dockerfile, " AS "+s.Build.Target+"\n") {
		t.Errorf("%s: image %s and target %s do not match, or the Dockerfile lacks the target", name, s.Image, s.Build.Target)
	}
	known := settings(s.Build.Target)
	for key := range s.Environment {
		if !known[key] {
			t.Errorf("%s: %s has no setting %s", name, s.Build.Target, key)
		}
	}
	if s.Restart != "" && (!s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true")) {
		t.Errorf("%s may change its file system or gain rights", name)
	}
}

// The services of three brokers know all of them, and those of TLS use it for
// every connection to Kafka and ClickHouse.
func TestVariants(t *testing.T) {
	nodes := map[string]bool{}
	for name, s := range load(t, "compose.yaml", "compose.kafka3.yaml").Services {
		if id := s.Environment["KAFKA_NODE_ID"]; id != nil {
			nodes[*id] = true
			if want := "PLAINTEXT://" + name + ":9092"; *s.Environment["KAFKA_ADVERTISED_LISTENERS"] != want {
				t.Errorf("%s advertises %s", name, *s.Environment["KAFKA_ADVERTISED_LISTENERS"])
			}
			if voter := *id + "@" + name + ":9093"; !strings.Contains(*s.Environment["KAFKA_CONTROLLER_QUORUM_VOTERS"], voter) {
				t.Errorf("%s is no voter as %s", name, voter)
			}
		}
		for _, text := range append(environment(s), s.Command...) {
			if strings.Contains(text, "kafka:9092") && !strings.Contains(text, "kafka:9092,kafka-2:9092,kafka-3:9092") && name != "kafka" {
				t.Errorf("%s knows one broker: %s", name, text)
			}
		}
	}
	if len(nodes) != 3 {
		t.Errorf("got nodes %v, want 3", nodes)
	}
	for name, s := range load(t, "compose.yaml", "compose.tls.yaml").Services {
		for _, text := range append(environment(s), s.Command...) {
			if strings.Contains(text, "kafka:9092") || strings.Contains(text, "clickhouse:9000") {
				t.Errorf("%s connects without TLS: %s", name, text)
			}
		}
		for address, tls := range map[string]string{"UPTAKE_KAFKA_BROKERS": "UPTAKE_KAFKA_TLS", "UPTAKE_CLICKHOUSE_ADDR": "UPTAKE_CLICKHOUSE_TLS"} {
			if s.Environment[address] != nil && (s.Environment[tls] == nil || *s.Environment[tls] != "true") {
				t.Errorf("%s has %s without %s", name, address, tls)
			}
		}
		if name == "clickhouse" && len(s.Ports) != 2 {
			t.Errorf("clickhouse publishes %v", s.Ports)
		}
	}
}

func environment(s types.ServiceConfig) (list []string) {
	for key, value := range s.Environment {
		if value != nil {
			list = append(list, key+"="+*value)
		}
	}
	slices.Sort(list)
	return list
}
