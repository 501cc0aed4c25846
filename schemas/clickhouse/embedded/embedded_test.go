package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// holderEnv turns the test binary into a program that starts a server in the
// named directory, prints its addresses and waits to be killed.
const holderEnv = "UPTAKE_TEST_HOLD_SERVER"

func TestMain(m *testing.M) {
	embedded.ChildMain()
	if dir := os.Getenv(holderEnv); dir != "" {
		s, err := embedded.Start(context.Background(), embedded.Config{DataDir: dir})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.NativeAddr(), s.HTTPAddr(), s.Pid())
		<-s.Done()
		os.Exit(3)
	}
	embedded.TestMain(m, nil)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func startIn(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the embedded ClickHouse; not under -short")
	}
	cfg.Logger = quiet()
	cfg.Progress = os.Stderr
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s, err := embedded.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-s.Done():
		default:
			s.Kill()
		}
	})
	return s
}

func stop(t *testing.T, s *embedded.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, addr, db string) driver.Conn {
	t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{addr}, Auth: clickhouse.Auth{Database: db}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func exec1(t *testing.T, conn driver.Conn, statement string) {
	t.Helper()
	if err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func count(t *testing.T, conn driver.Conn, from string) (n uint64) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT count() FROM "+from).Scan(&n); err != nil {
		t.Fatalf("count %s: %v", from, err)
	}
	return n
}

func insert(t *testing.T, conn driver.Conn, table string, rows int) {
	t.Helper()
	batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO "+table)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if err := batch.Append(uint64(i), fmt.Sprint("name ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
}

func TestNativeAndHTTP(t *testing.T) {
	addr, db := embedded.Database(t)
	s := embedded.ForTest(t)
	conn := connect(t, addr, db)
	exec1(t, conn, "CREATE TABLE t (id UInt64, name String) ENGINE = MergeTree ORDER BY id")
	insert(t, conn, "t", 1000)
	if got := count(t, conn, "t"); got != 1000 {
		t.Errorf("rows over native: got %d, want 1000", got)
	}
	got, err := s.Query(t.Context(), "SELECT count(), max(name) FROM "+db+".t")
	if err != nil || got != "1000\tname 999\n" {
		t.Errorf("over HTTP: got %q, %v; want 1000 rows", got, err)
	}
	if got, err := s.Query(t.Context(), "SELECT version()"); err != nil || got != "26.7.2.1\n" {
		t.Errorf("version: got %q, %v", got, err)
	}
	for path, want := range map[string]string{"/ping": "Ok.", "/play": "<html", "/?query=SELECT%2042": "42"} {
		res, err := http.Get("http://" + s.HTTPAddr() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("GET %s: got status %d, body %.80q, %v; want it to contain %q", path, res.StatusCode, body, err, want)
		}
	}
}

func TestDatabasesAreApart(t *testing.T) {
	addr, one := embedded.Database(t)
	_, two := embedded.Database(t)
	if one == two {
		t.Fatalf("got the database %s twice", one)
	}
	exec1(t, connect(t, addr, one), "CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
	exec1(t, connect(t, addr, two), "CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
}

// Nothing that runs in a query may read the machine's files or reach out.
func TestSourcesAreDenied(t *testing.T) {
	s := embedded.ForTest(t)
	for _, query := range []string{
		"SELECT * FROM file('/etc/passwd', LineAsString)",
		"SELECT * FROM url('http://" + s.HTTPAddr() + "/ping', LineAsString)",
		"SELECT * FROM remote('" + s.NativeAddr() + "', system.one)",
		"SELECT * FROM s3('http://" + s.HTTPAddr() + "/bucket/key', LineAsString)",
		"INSERT INTO FUNCTION file('out.txt', LineAsString, 'a String') SELECT 'x'",
	} {
		got, err := s.Query(t.Context(), query)
		if err == nil || !strings.Contains(err.Error(), "ACCESS_DENIED") {
			t.Errorf("%s: got %.60q, %v; want ACCESS_DENIED", query, got, err)
		}
	}
}

// A page of another origin that is open in a browser on this machine gets nowhere,
// also not by a name that was made to lead here; ClickHouse's own page does.
func TestPagesOfOthersAreRefused(t *testing.T) {
	s := embedded.ForTest(t)
	own := "http://" + s.HTTPAddr()
	for _, c := range []struct {
		method, path, header, value string
		status                      int
	}{
		{"POST", "/", "", "", http.StatusOK},
		{"POST", "/", "Origin", own, http.StatusOK},
		{"POST", "/?query=SELECT%201", "Origin", own, http.StatusOK},
		{"POST", "/", "Origin", "https://shop.example", http.StatusForbidden},
		{"POST", "/", "Origin", "null", http.StatusForbidden},
		{"POST", "/", "Origin", own + "0", http.StatusForbidden},
		{"POST", "/?query=SELECT%201", "Origin", "https://shop.example", http.StatusForbidden},
		{"OPTIONS", "/", "Origin", "https://shop.example", http.StatusForbidden},
		{"GET", "/?query=SELECT%201", "Sec-Fetch-Site", "none", http.StatusOK},
		{"GET", "/?query=SELECT%201", "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		{"GET", "/?query=SELECT%201", "Sec-Fetch-Site", "same-site", http.StatusForbidden},
		{"GET", "/?query=SELECT%201", "Sec-Fetch-Site", "same-origin", http.StatusForbidden},
		{"GET", "/play?run=1", "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		{"GET", "/play?run=1", "Sec-Fetch-Site", "none", http.StatusOK},
		{"GET", "/js/uplot.js", "Sec-Fetch-Site", "same-origin", http.StatusOK},
	} {
		body := ""
		if c.method == http.MethodPost && c.path == "/" {
			body = "SELECT 1"
		}
		req, err := http.NewRequestWithContext(t.Context(), c.method, own+c.path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if c.header != "" {
			req.Header.Set(c.header, c.value)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != c.status {
			t.Errorf("%s %s with %s %q: got status %d, %.80q, %v; want %d", c.method, c.path, c.header, c.value, res.StatusCode, text, err, c.status)
		}
	}
}

func TestDataOutlivesStopAndKill(t *testing.T) {
	cfg := embedded.Config{DataDir: filepath.Join(t.TempDir(), "ch")}
	s := startIn(t, cfg)
	conn := connect(t, s.NativeAddr(), "")
	exec1(t, conn, "CREATE DATABASE d")
	exec1(t, conn, "CREATE TABLE d.base (id UInt64, name String) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100")
	exec1(t, conn, "CREATE TABLE d.sums (id UInt64, n UInt64) ENGINE = SummingMergeTree ORDER BY id")
	exec1(t, conn, "CREATE MATERIALIZED VIEW d.mv TO d.sums AS SELECT id % 10 AS id, count() AS n FROM d.base GROUP BY id")
	insert(t, conn, "d.base", 1000)
	stop(t, s)
	if _, err := s.Query(t.Context(), "SELECT 1"); err == nil {
		t.Error("answers after Stop")
	}

	// The second run listens where the first did, as a program that is
	// started again does.
	cfg.NativeAddr, cfg.HTTPAddr = s.NativeAddr(), s.HTTPAddr()
	s = startIn(t, cfg)
	conn = connect(t, s.NativeAddr(), "")
	if got := count(t, conn, "d.base"); got != 1000 {
		t.Errorf("rows after Stop: got %d, want 1000", got)
	}
	insert(t, conn, "d.base", 2000)
	s.Kill()
	if s.Err() == nil {
		t.Error("Err after Kill: got nil")
	}

	// The status file of the killed server is still there.
	if _, err := os.Stat(filepath.Join(cfg.DataDir, "data", "status")); err != nil {
		t.Errorf("the kill left no status file, so this test shows nothing: %v", err)
	}
	s = startIn(t, cfg)
	conn = connect(t, s.NativeAddr(), "")
	if got := count(t, conn, "d.base"); got != 3000 {
		t.Errorf("rows after Kill: got %d, want 3000", got)
	}
	var sum uint64
	if err := conn.QueryRow(t.Context(), "SELECT sum(n) FROM d.sums").Scan(&sum); err != nil || sum != 3000 {
		t.Errorf("sum behind the view after Kill: got %d, %v; want 3000", sum, err)
	}
	stop(t, s)
}

// The server's time zone decides what toDate and toHour say; it must not be
// the machine's.
func TestTimeZoneIsUTC(t *testing.T) {
	t.Setenv("TZ", "Asia/Tokyo")
	s := startIn(t, embedded.Config{DataDir: t.TempDir()})
	if got, err := s.Query(t.Context(), "SELECT timezone(), toHour(toDateTime(0))"); err != nil || got != "UTC\t0\n" {
		t.Errorf("got %q, %v; want UTC", got, err)
	}
	stop(t, s)
}

func TestTwoSideBySide(t *testing.T) {
	one := startIn(t, embedded.Config{DataDir: t.TempDir()})
	two := startIn(t, embedded.Config{DataDir: t.TempDir(), Fsync: true, MemoryBytes: 1 << 30})
	for i, s := range []*embedded.Server{one, two} {
		exec1(t, connect(t, s.NativeAddr(), ""), fmt.Sprintf("CREATE DATABASE d%d", i))
	}
	for i, s := range []*embedded.Server{one, two} {
		got, err := s.Query(t.Context(), "SELECT name FROM system.databases WHERE name LIKE 'd_'")
		if err != nil || got != fmt.Sprintf("d%d\n", i) {
			t.Errorf("databases of server %d: got %q, %v", i, got, err)
		}
	}
	for setting, want := range map[string]string{"fsync_after_insert": "1\n", "fsync_part_directory": "1\n"} {
		if got, err := two.Query(t.Context(), "SELECT value FROM system.merge_tree_settings WHERE name = '"+setting+"'"); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", setting, got, err, want)
		}
	}
	if got, err := two.Query(t.Context(), "SELECT value FROM system.server_settings WHERE name = 'max_server_memory_usage'"); err != nil || got != "1073741824\n" {
		t.Errorf("memory bound: got %q, %v", got, err)
	}
	if got, err := two.Query(t.Context(), "SELECT keep_free_space FROM system.disks"); err != nil || got != "268435456\n" {
		t.Errorf("bytes that are kept free: got %q, %v", got, err)
	}
	stop(t, one)
	if _, err := two.Query(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the second after the first was stopped: %v", err)
	}
}

func TestStopCancelsQueriesAndConnections(t *testing.T) {
	s := startIn(t, embedded.Config{DataDir: t.TempDir()})
	conn := connect(t, s.NativeAddr(), "")
	done := make(chan error, 1)
	go func() { // ends with the query, which Stop ends
		done <- conn.Exec(context.Background(), "SELECT sum(sleepEachRow(1)) FROM numbers(3000) SETTINGS max_block_size = 1")
	}()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, err := s.Query(t.Context(), "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow(1)%' AND query NOT LIKE '%system.processes%'")
		if err == nil && got == "1\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the long query does not run: %q, %v", got, err)
		}
	}
	stop(t, s)
	if err := <-done; err == nil {
		t.Error("the query that was running at Stop: got no error")
	}
}

func TestStopKillsAfterItsDeadline(t *testing.T) {
	s := startIn(t, embedded.Config{DataDir: t.TempDir()})
	if err := syscall.Kill(s.Pid(), syscall.SIGSTOP); err != nil { // it cannot stop by itself now
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v, want an error that says it was killed", err)
	}
	<-s.Done()
}

func TestSignalsForTheParentDoNotStopTheChild(t *testing.T) {
	s := startIn(t, embedded.Config{DataDir: t.TempDir()})
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if err := syscall.Kill(s.Pid(), sig); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Query(t.Context(), "SELECT 1"); err != nil {
			t.Errorf("after %v: %v", sig, err)
		}
	}
	stop(t, s)
}

// The child ends when its parent is killed, without a leftover that would keep
// a successor from starting in the same directory on the same ports.
func TestChildDiesWithParentAndDirectoryIsFree(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the embedded ClickHouse; not under -short")
	}
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), holderEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var native, httpAddr string
	var pid int
	line, err := bufio.NewReader(out).ReadString('\n')
	if _, scanErr := fmt.Sscan(line, &native, &httpAddr, &pid); scanErr != nil {
		_ = cmd.Process.Kill()
		t.Fatalf("start parent: %q, %v", line, errors.Join(err, scanErr))
	}

	// While it lives, the directory is in use, and the error says by whom.
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	_, err = embedded.Start(ctx, embedded.Config{DataDir: dir, Logger: quiet()})
	cancel()
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("PID: %d", pid)) {
		t.Errorf("start in a directory in use: got %v, want an error with the process id %d", err, pid)
	}

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	s := startIn(t, embedded.Config{DataDir: dir, NativeAddr: native, HTTPAddr: httpAddr})
	if s.Pid() == pid {
		t.Fatal("the same process")
	}
	stop(t, s)
	deadline := time.Now().Add(20 * time.Second)
	for syscall.Kill(pid, 0) == nil {
		if time.Now().After(deadline) {
			t.Fatalf("child %d outlives its parent", pid)
		}
		time.Sleep(10 * time.Millisecond) // the kernel offers nothing to wait on for another's child
	}
}

func TestAddressInUse(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the embedded ClickHouse; not under -short")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	for setting, cfg := range map[string]embedded.Config{
		"NativeAddr": {DataDir: t.TempDir(), NativeAddr: taken},
		"HTTPAddr":   {DataDir: t.TempDir(), HTTPAddr: taken},
	} {
		cfg.Logger = quiet()
		_, err := embedded.Start(t.Context(), cfg)
		var inUse *embedded.AddrInUseError
		if !errors.As(err, &inUse) || inUse.Setting != setting || inUse.Addr != taken {
			t.Errorf("got %v, want that %s %s is in use", err, setting, taken)
		}
	}
}

func TestStartFailureShowsTheLog(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the embedded ClickHouse; not under -short")
	}
	dir := t.TempDir()
	lib := filepath.Join(dir, "libchdb.so")
	if err := os.WriteFile(lib, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.Start(t.Context(), embedded.Config{DataDir: filepath.Join(dir, "data"), LibraryPath: lib, Logger: quiet()})
	if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "child.log: load "+lib) {
		t.Errorf("got %v, want the reason from the child's log", err)
	}
}

func TestValidate(t *testing.T) {
	cfg := embedded.Config{NativeAddr: "nowhere", HTTPAddr: "127.0.0.1:99999", MemoryBytes: 1, StartTimeout: -1, MaxRestarts: -1}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("got nil")
	}
	for _, want := range []string{"DataDir", "NativeAddr", "HTTPAddr", "MemoryBytes", "StartTimeout", "MaxRestarts"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to name %s", err, want)
		}
	}
	if err := (&embedded.Config{DataDir: "d", NativeAddr: "127.0.0.1:1", HTTPAddr: "0.0.0.0:2"}).Validate(); err == nil || !strings.Contains(err.Error(), "HTTPAddr") {
		t.Errorf("two hosts: got %v", err)
	}
	if err := (&embedded.Config{DataDir: "d", NativeAddr: ":9000", HTTPAddr: "127.0.0.1:8123"}).Validate(); err != nil {
		t.Errorf("an empty host beside 127.0.0.1: got %v", err)
	}
}
