package compose_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// container is a service of compose that runs as a process.
type container struct {
	name    string
	addrs   map[string]string // by the container's port
	cmd     *exec.Cmd
	out     bytes.Buffer
	project *machine
}

// machine translates what containers see into paths and addresses of this test.
type machine struct {
	t       *testing.T
	project *types.Project
	secrets string
	hosts   map[string]string
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// container prepares the command of a service, with further arguments.
func (m *machine) container(name string, more ...string) *container {
	m.t.Helper()
	s := m.project.Services[name]
	binary, err := stack.Binary(m.t.Context(), s.Build.Target, stack.Build{})
	if err != nil {
		m.t.Fatal(err)
	}
	c := &container{name: name, addrs: map[string]string{}, project: m}
	replace := maps.Clone(m.hosts)
	for _, v := range s.Volumes {
		to := source(m.secrets, v.Source)
		if v.Type != types.VolumeTypeBind {
			to = m.t.TempDir()
		}
		replace[v.Target] = to
	}
	for _, mount := range s.Tmpfs {
		path, _, _ := strings.Cut(mount, ":")
		replace[path] = m.t.TempDir()
	}
	for _, given := range s.Secrets {
		replace["/run/secrets/"+given.Source] = source(m.secrets, m.project.Secrets[given.Source].File)
	}
	for _, value := range s.Environment {
		if port, ok := strings.CutPrefix(*value, "0.0.0.0:"); ok {
			c.addrs[port] = free(m.t)
			replace[*value] = c.addrs[port]
		}
	}
	from := slices.SortedFunc(maps.Keys(replace), func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, f := range from {
		pairs = append(pairs, f, replace[f])
	}
	translate := strings.NewReplacer(pairs...).Replace
	args := append([]string{}, s.Command...)
	if len(args) == 0 {
		args = []string{"serve"} // CMD of the Dockerfile
	}
	args = append(args, more...)
	for i := range args {
		args[i] = translate(args[i])
	}
	c.cmd = exec.Command(binary, args...)
	c.cmd.Dir = m.t.TempDir()
	c.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	for _, e := range environment(s) {
		c.cmd.Env = append(c.cmd.Env, translate(e))
	}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	return c
}

// run runs a container that ends by itself.
func (c *container) run() string {
	c.project.t.Helper()
	if err := c.cmd.Run(); err != nil {
		c.project.t.Fatalf("%s: %v\n%s", c.name, err, c.out.String())
	}
	return c.out.String()
}

// start starts a container and returns when it is ready.
func (c *container) start(metrics string) {
	t := c.project.t
	t.Helper()
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	var result error
	go func() { // ends with the process, which the cleanup ends
		result = c.cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
		select {
		case <-exited:
		case <-time.After(time.Minute):
			_ = c.cmd.Process.Kill()
			<-exited
		}
		if result != nil {
			t.Errorf("%s: %v\n%s", c.name, result, c.out.String())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := stack.Await(ctx, c.name+" ready", func() error {
		select {
		case <-exited:
			return &stack.Hopeless{Err: fmt.Errorf("%s ended: %w", c.name, result)}
		default:
		}
		code, body := get(ctx, "http://"+c.addrs[metrics]+"/readyz")
		if code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func get(ctx context.Context, url string, headers ...string) (int, string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(body)
}

// Each container's command runs with the container's environment, secrets and
// mounts, in the order that depends_on gives; ClickHouse's users have the rights of
// `roles` and no others. The embedded ClickHouse keeps users in files, so roles
// prints them here in place of creating them.
func TestContainersRun(t *testing.T) {
	if testing.Short() {
		t.Skip("runs services; not under -short")
	}
	made, key := secrets(t)
	log := kafka.FakeForTest(t)
	project := load(t, "compose.yaml")
	m := &machine{t: t, project: project, secrets: made, hosts: map[string]string{
		"kafka:9092": log.Addrs()[0], *project.Services["console"].Environment["UPTAKE_CONSOLE_PROXY_PEERS"]: "127.0.0.0/8",
	}}
	users := m.container("roles", "-roles-print", "xml").run()

	data := t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "config", "users.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "config", "users.d", "uptake.xml"), []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := embedded.Start(t.Context(), embedded.Config{DataDir: data})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	m.hosts["clickhouse:9000"] = server.NativeAddr()

	for _, name := range []string{"topics", "migrate", "init", "catalog"} {
		m.container(name).run()
	}
	gateway, dev, pages := m.container("ingest-gateway"), m.container("ingest-gateway-dev"), m.container("console")
	for c, metrics := range map[*container]string{
		gateway: "9101", dev: "9101", m.container("enricher"): "9102", m.container("rollup-writer"): "9103", pages: "9104", m.container("alerts"): "9105",
	} {
		c.start(metrics)
	}

	track := func(c *container, key string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.addrs["8080"]+"/v1/track", strings.NewReader(`{"userId":"u","event":"item_scanned"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(key, "")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for _, tc := range []struct {
		c    *container
		key  string
		want int
	}{{gateway, key, 200}, {gateway, "dev-write-key", 401}, {dev, "dev-write-key", 200}, {dev, key, 401}} {
		if got := track(tc.c, tc.key); got != tc.want {
			t.Errorf("%s with key %s: got %d, want %d", tc.c.name, tc.key, got, tc.want)
		}
	}
	password, err := os.ReadFile(filepath.Join(made, "clickhouse-users", "analyst"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := clickhousego.Open(&clickhousego.Options{Addr: []string{server.NativeAddr()}, Auth: clickhousego.Auth{Database: "uptake", Username: "uptake_analyst_user", Password: string(password)}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = stack.Await(ctx, "events as Grafana's user sees them", func() error {
		var main, dev int64
		if err := conn.QueryRow(ctx, "SELECT sumIf(events, app_id = 'main'), sumIf(events, app_id = 'dev') FROM usage_hourly").Scan(&main, &dev); err != nil {
			return &stack.Hopeless{Err: err}
		}
		if main != 1 || dev != 1 {
			return fmt.Errorf("got %d of main and %d of dev, want 1 and 1", main, dev)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}

	proxy, err := os.ReadFile(filepath.Join(made, "console-proxy"))
	if err != nil {
		t.Fatal(err)
	}
	page := "http://" + pages.addrs["8088"] + "/"
	if code, body := get(ctx, page, "Remote-User", "admin", "X-Proxy-Secret", string(proxy)); code != http.StatusOK || !strings.Contains(body, "main") {
		t.Errorf("console behind the sign-in: got %d\n%.500s", code, body)
	}
	if code, _ := get(ctx, page, "Remote-User", "admin"); code < 400 {
		t.Errorf("console without the sign-in's secret: got %d", code)
	}
}
