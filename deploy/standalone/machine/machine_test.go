package machine_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/uptakehq/uptake/deploy/standalone/machine"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/rollup-writer/rollup"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

func TestMain(m *testing.M) {
	embedded.ChildMain()
	os.Exit(m.Run())
}

// freePorts returns a config whose addresses are all free.
func freePorts(t *testing.T, data string) machine.Config {
	t.Helper()
	cfg := machine.DefaultConfig()
	cfg.Data = data
	for _, addr := range []*string{&cfg.GatewayAddr, &cfg.KafkaAddr, &cfg.ClickHouseAddr, &cfg.ClickHouseHTTPAddr, &cfg.MetricsAddr, &cfg.ConsoleAddr} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all at once, so that they differ
		*addr = l.Addr().String()
	}
	return cfg
}

// running is a machine in this process.
type running struct {
	t    *testing.T
	cfg  machine.Config
	out  *buffer
	logs *buffer
	halt context.CancelFunc
	kill context.CancelCauseFunc
	done chan error
}

type buffer struct {
	mu   sync.Mutex // covers text
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func start(t *testing.T, cfg machine.Config) *running {
	t.Helper()
	r := &running{t: t, cfg: cfg, out: &buffer{}, logs: &buffer{}, done: make(chan error, 1)}
	m, err := machine.New(cfg, machine.Dependencies{Logger: slog.New(slog.NewTextHandler(r.logs, nil)), Out: r.out})
	if err != nil {
		t.Fatal(err)
	}
	kill, killFn := context.WithCancelCause(context.Background())
	stop, halt := context.WithCancel(kill)
	r.halt, r.kill = halt, killFn
	go func() { r.done <- m.Run(process.Signals{Stop: stop, Kill: kill}) }() // ends with stop or the test's cleanup
	t.Cleanup(func() {
		killFn(process.ErrCutShort)
		if err, ok := <-r.done; ok && t.Failed() {
			t.Logf("end of the machine: %v\n%s", err, r.logs)
		}
	})
	// The first one may have to fetch ClickHouse.
	r.within(5*time.Minute, "ready", func() error {
		code, body, err := get("http://" + cfg.MetricsAddr + "/readyz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
	return r
}

func (r *running) eventually(what string, f func() error) {
	r.t.Helper()
	r.within(time.Minute, what, f)
}

func (r *running) within(d time.Duration, what string, f func() error) {
	r.t.Helper()
	deadline := time.Now().Add(d)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case end := <-r.done:
			close(r.done)
			r.t.Fatalf("%s: the machine ended: %v\n%s", what, end, r.logs)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: %v", what, err)
		}
	}
}

func (r *running) stop() {
	r.t.Helper()
	r.halt()
	err := <-r.done
	close(r.done)
	if err != nil {
		r.t.Fatalf("stop: %v\n%s", err, r.logs)
	}
}

func get(url string) (int, string, error) {
	res, err := http.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

func (r *running) track(user, event, account, messageID string) {
	r.t.Helper()
	body, err := json.Marshal(map[string]any{
		"userId": user, "event": event, "messageId": messageID, "context": map[string]string{"groupId": account},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+r.cfg.GatewayAddr+"/v1/track", bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.SetBasicAuth(machine.WriteKey, "")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	if reply, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		r.t.Fatalf("track: %d %s", res.StatusCode, reply)
	}
}

// query asks as somebody who does not log in.
func (r *running) query(sql string) (string, error) { return r.ask(sql, nil) }

// command asks as the owner.
func (r *running) command(sql string) error {
	password, err := os.ReadFile(filepath.Join(r.cfg.Data, "clickhouse-password"))
	if err == nil {
		_, err = r.ask(sql, http.Header{"X-Clickhouse-User": {"uptake"}, "X-Clickhouse-Key": {strings.TrimSpace(string(password))}})
	}
	return err
}

func (r *running) ask(sql string, header http.Header) (string, error) {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, "http://"+r.cfg.ClickHouseHTTPAddr+"/?database="+r.cfg.ClickHouseDatabase, strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	maps.Copy(req.Header, header)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", res.StatusCode, body)
	}
	return string(body), err
}

// shows waits until the query answers want.
func (r *running) shows(sql, want string) {
	r.t.Helper()
	r.eventually(sql, func() error {
		got, err := r.query(sql)
		if err == nil && got != want {
			err = fmt.Errorf("got %q, want %q", got, want)
		}
		return err
	})
}

const usage = `SELECT product_id, module_id, feature_id, account_id, sum(events) FROM account_feature_daily GROUP BY ALL ORDER BY ALL FORMAT CSV`

var optedOut = regexp.MustCompile(`(?m)^uptake_gateway_opted_out_total\{.*\} 1$`)

// live sends a test event from the live page, and an event a second time: the open page has
// both, with their verdicts; the log says how long after the gateway's answer.
func (r *running) live(browser *http.Client) {
	r.t.Helper()
	base := "http://" + r.cfg.ConsoleAddr
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	open := func(method, target, body string) *http.Response {
		r.t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, base+target, strings.NewReader(body))
		if err != nil {
			r.t.Fatal(err)
		}
		req.Header.Set("Origin", base)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := browser.Do(req)
		if err != nil {
			r.t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			r.t.Fatalf("%s %s: %s", method, target, resp.Status)
		}
		return resp
	}
	stream := open(http.MethodGet, "/live/events?app="+machine.App, "") //nolint:bodyclose // closed in the next line
	defer stream.Body.Close()
	arrived := make(chan string, 100)
	go func() { // ends with the stream
		for lines := bufio.NewScanner(stream.Body); lines.Scan(); {
			arrived <- lines.Text()
		}
		close(arrived)
	}()
	see := func(since time.Time, want string) {
		r.t.Helper()
		var all []string
		for line := range arrived {
			if all = append(all, line); strings.Contains(line, want) {
				r.t.Logf("%s is shown %s after the gateway's answer", want, time.Since(since))
				return
			}
		}
		r.t.Fatalf("the stream ended without %s: %s", want, all)
	}
	form := url.Values{"app": {machine.App}, "key": {machine.WriteKey}, "event": {"Scan Item"}, "user": {"u7"}, "account": {"acme"}}
	page := open(http.MethodPost, "/live/test", form.Encode())
	answered := time.Now()
	html, err := io.ReadAll(page.Body)
	if err != nil || !strings.Contains(string(html), "The gateway accepted the test event") {
		r.t.Errorf("the page says nothing of the gateway's answer: %v", err)
	}
	page.Body.Close()
	see(answered, "the nearest is item_scanned")
	r.track("u1", "Item Scanned", "acme", "m1")
	see(time.Now(), "≡ duplicate")
}

// What is sent is in the rollups, once, also over a stop, a hard end of
// everything and a death of ClickHouse alone; two machines stand side by side.
func TestMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("starts everything; not under -short")
	}
	data := filepath.Join(t.TempDir(), "data")
	r := start(t, freePorts(t, data))
	r.eventually("banner", func() error {
		for _, want := range []string{r.cfg.GatewayAddr, r.cfg.ClickHouseHTTPAddr, r.cfg.ClickHouseAddr, r.cfg.KafkaAddr, r.cfg.MetricsAddr, "http://" + r.cfg.ConsoleAddr + "/?token=", "curl -s", data} {
			if !strings.Contains(r.out.String(), want) {
				return fmt.Errorf("says nothing of %q:\n%s", want, r.out)
			}
		}
		return nil
	})
	r.track("u1", "Item Scanned", "acme", "m1")
	r.track("u2", "Item Scanned", "acme", "m2")
	r.track("u1", "Payment Received", "acme", "m3")
	row := func(feature string, n int) string {
		return map[string]string{
			"scan": `"mypos_sales","billing","item_scanned","acme",`, "pay": `"mypos_commerce","payments","payment_received","acme",`,
		}[feature] + fmt.Sprint(n) + "\n"
	}
	r.shows(usage, row("pay", 1)+row("scan", 2))

	// The link to SQL opens ClickHouse's page with a query that works in the right
	// database.
	play, err := url.Parse(regexp.MustCompile(`http://\S+/play\S+`).FindString(r.out.String()))
	if err != nil {
		t.Fatal(err)
	}
	query, err := base64.StdEncoding.DecodeString(play.Fragment)
	if err != nil {
		t.Fatal(err)
	}
	fragment := play.Fragment
	play.Fragment = ""
	if code, page, err := get(play.String()); err != nil || code != http.StatusOK || !strings.Contains(page, "location.hash") {
		t.Errorf("%s#%s: got %d, %v", play, fragment, code, err)
	}
	play.Path = "/"
	play.RawQuery = url.Values{"database": play.Query()["database"], "query": {string(query)}}.Encode()
	if code, rows, err := get(play.String()); err != nil || code != http.StatusOK || !strings.Contains(rows, "item_scanned") {
		t.Errorf("%s: got %d, %v: %s", query, code, err, rows)
	}

	// The address that the banner prints shows the pages, also to a browser that
	// has no cookie yet.
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	address := regexp.MustCompile(`http://\S+/\?token=\S+`).FindString(r.out.String())
	r.eventually("pages", func() error {
		resp, err := browser.Get(address)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		html, err := io.ReadAll(resp.Body)
		if err == nil && !strings.Contains(string(html), "1 account and 2 people were active") {
			err = fmt.Errorf("%s: %d, no sentence about what was sent", address, resp.StatusCode)
		}
		return err
	})

	code, metrics, err := get("http://" + r.cfg.MetricsAddr + "/metrics")
	if err != nil || code != http.StatusOK {
		t.Fatalf("metrics: %d %v", code, err)
	}
	for _, service := range []string{"ingest-gateway", "enricher", "rollup-writer", "alerts", "console"} {
		if !strings.Contains(metrics, `service="`+service+`"`) {
			t.Errorf("no metric has the label service=%q", service)
		}
	}
	r.stop()
	logs := r.logs.String()
	last := -1
	for _, line := range []string{
		`msg="service stopped" service=ingest-gateway`, `msg="service stopped" service=enricher`,
		`msg="service stopped" service=rollup-writer`, `msg="embedded clickhouse stopped"`, `msg="log closed"`,
	} {
		at := strings.Index(logs, line)
		if at <= last {
			t.Errorf("%s is missing or out of order in:\n%s", line, logs)
		}
		last = at
	}

	// A rollup loses what it held; without a writer it is repaired, while events
	// are taken.
	r.cfg.WithoutWriter = true
	r = start(t, r.cfg)
	emptied := "TRUNCATE TABLE " + tables.Internal(r.cfg.ClickHouseDatabase) + ".account_feature_daily"
	if _, err := r.query(emptied); err == nil || !strings.Contains(err.Error(), "uptake_reader: Not enough privileges") {
		t.Errorf("as nobody: got %v", err)
	}
	if err := r.command(emptied); err != nil {
		t.Fatal(err)
	}
	r.track("u2", "Payment Received", "acme", "m7")
	cfg, what := rollup.DefaultConfig(), repair.DefaultRebuildConfig()
	password := setting.Secret("")
	if err := password.Set("file:" + filepath.Join(r.cfg.Data, "clickhouse-password")); err != nil {
		t.Fatal(err)
	}
	cfg.ClickHouse.User, cfg.ClickHouse.Password = "uptake", password
	cfg.Kafka.Brokers, cfg.ClickHouse.Addr, cfg.ClickHouse.Database = setting.Strings{r.cfg.KafkaAddr}, r.cfg.ClickHouseAddr, r.cfg.ClickHouseDatabase
	what.App = machine.App
	if report, err := repair.Rebuild(t.Context(), cfg.Config, what, slog.New(slog.DiscardHandler)); err != nil || !report.Done {
		t.Fatalf("rebuild: %v", err)
	}
	r.shows(usage, row("pay", 1)+row("scan", 2))
	r.stop()

	r.cfg.WithoutWriter = false
	r = start(t, r.cfg)
	r.shows(usage, row("pay", 2)+row("scan", 2))
	r.track("u1", "Item Scanned", "acme", "m1") // a retry over the restart
	r.track("u1", "Item Scanned", "acme", "m4")
	r.shows(usage, row("pay", 2)+row("scan", 3))

	pid, err := os.ReadFile(filepath.Join(data, "clickhouse", "data", "status"))
	if err != nil {
		t.Fatal(err)
	}
	var clickhouse int
	if _, err := fmt.Sscanf(string(pid), "PID: %d", &clickhouse); err != nil {
		t.Fatalf("read %q: %v", pid, err)
	}
	if err := syscall.Kill(clickhouse, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.track("u3", "Item Scanned", "acme", "m5")
	r.shows(usage, row("pay", 2)+row("scan", 4))

	// Cut short: nothing is handed over, nothing is lost.
	r.track("u4", "Item Scanned", "acme", "m6")
	r.kill(process.ErrCutShort)
	if err := <-r.done; err != nil && !errors.Is(err, process.ErrCutShort) {
		t.Errorf("cut short: got %v", err)
	}
	close(r.done)
	r = start(t, r.cfg)
	r.shows(usage, row("pay", 2)+row("scan", 5))

	beside := freePorts(t, filepath.Join(t.TempDir(), "data"))
	beside.PrivacyFile = filepath.Join(t.TempDir(), "privacy.yaml")
	if err := os.WriteFile(beside.PrivacyFile, []byte("apps: {dev: {opt_out: {users: [u9]}}}\n...\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := start(t, beside)
	other.track("u9", "Item Scanned", "beta", "m0") // opted out
	other.track("u1", "Item Scanned", "beta", "m1")
	other.shows(usage, strings.ReplaceAll(row("scan", 1), "acme", "beta"))
	if code, metrics, err := get("http://" + other.cfg.MetricsAddr + "/metrics"); err != nil || code != http.StatusOK || !optedOut.MatchString(metrics) {
		t.Errorf("metrics: %d %v, and none says that one event was opted out", code, err)
	}
	r.shows(usage, row("pay", 2)+row("scan", 5))

	r.live(browser)
	m, err := machine.New(r.cfg, machine.Dependencies{Logger: slog.New(slog.DiscardHandler), Out: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	forever := process.Signals{Stop: context.Background(), Kill: context.Background()}
	if err := m.Run(forever); err == nil || !strings.Contains(err.Error(), "-data "+data+" is in use") {
		t.Errorf("the same folder twice: got %v", err)
	}
	other.stop()
	r.stop()
}

// With a server that is there already nothing is started in its place, and it is
// left running.
func TestExternalClickHouse(t *testing.T) {
	if testing.Short() {
		t.Skip("starts everything; not under -short")
	}
	server, err := embedded.Start(t.Context(), embedded.Config{DataDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	cfg := freePorts(t, filepath.Join(t.TempDir(), "data"))
	cfg.ExternalClickHouse, cfg.ClickHouseAddr, cfg.ClickHouseHTTPAddr = true, server.NativeAddr(), server.HTTPAddr()
	cfg.ClickHouseDatabase = "elsewhere"
	r := start(t, cfg)
	r.track("u1", "Item Scanned", "acme", "m1")
	r.shows("SELECT sum(events) FROM elsewhere.account_product_daily", "1\n")
	r.stop()
	if _, err := server.Query(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the external server after the stop: %v", err)
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, "clickhouse")); err == nil {
		t.Error("an embedded ClickHouse was started beside it")
	}
}

func TestAddressInUseNamesItsFlag(t *testing.T) {
	cfg := freePorts(t, t.TempDir())
	for _, tc := range []struct {
		flag string
		addr *string
	}{
		{"gateway-addr", &cfg.GatewayAddr},
		{"kafka-addr", &cfg.KafkaAddr},
		{"clickhouse-addr", &cfg.ClickHouseAddr},
		{"clickhouse-http-addr", &cfg.ClickHouseHTTPAddr},
		{"metrics-addr", &cfg.MetricsAddr},
		{"console-addr", &cfg.ConsoleAddr},
	} {
		l, err := net.Listen("tcp", *tc.addr)
		if err != nil {
			t.Fatal(err)
		}
		m, err := machine.New(cfg, machine.Dependencies{Logger: slog.New(slog.DiscardHandler), Out: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		err = m.Run(process.Signals{Stop: context.Background(), Kill: context.Background()})
		if want := fmt.Sprintf("-%s: %s is in use", tc.flag, *tc.addr); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		l.Close()
	}
}

func TestValidateNamesEveryFlag(t *testing.T) {
	cfg := machine.Config{
		GatewayAddr: "nowhere", KafkaAddr: "0.0.0.0:9092", ClickHouseAddr: "127.0.0.1:9000", ClickHouseHTTPAddr: "127.0.0.2:8123",
		MetricsAddr: "127.0.0.1:0", ClickHouseUser: "me",
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("got nil")
	}
	for _, want := range []string{
		"data must name", "gateway-addr must be host:port", "kafka-addr must name the host", "must have the same host",
		"metrics-addr must have a port", "need clickhouse-external", "clickhouse-database must be named",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("does not say %q:\n%v", want, err)
		}
	}
	cfg = machine.DefaultConfig()
	cfg.MetricsAddr = cfg.GatewayAddr
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "gateway-addr and metrics-addr must differ") {
		t.Errorf("one address twice: got %v", err)
	}
	cfg = machine.DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
}
