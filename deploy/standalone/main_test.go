package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// commandEnv turns the test binary into the command.
const commandEnv = "UPTAKE_TEST_STANDALONE"

func TestMain(m *testing.M) {
	embedded.ChildMain()
	if os.Getenv(commandEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

// running is the command as a process.
type running struct {
	*os.Process
	log  string
	done chan error // gets the end, once
}

// out is all that it has said, to people and in its log.
func (r *running) out() string {
	text, _ := os.ReadFile(r.log)
	return string(text)
}

// freeAddrs returns addresses that nobody listens on.
func freeAddrs(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all at once, so that they differ
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// command starts the command on free ports and waits until it serves.
func command(t *testing.T, data string) *running {
	t.Helper()
	if testing.Short() {
		t.Skip("starts everything; not under -short")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	addrs := freeAddrs(t, 6)
	args := []string{
		"-data", data, "-gateway-addr", addrs[0], "-kafka-addr", addrs[1],
		"-clickhouse-addr", addrs[2], "-clickhouse-http-addr", addrs[3], "-metrics-addr", addrs[4], "-console-addr", addrs[5],
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), commandEnv+"=1")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &running{Process: cmd.Process, log: log.Name(), done: make(chan error, 1)}
	go func() { r.done <- cmd.Wait() }() // ends with the process, which the cleanup ends
	t.Cleanup(func() { _ = r.Kill() })
	deadline := time.Now().Add(5 * time.Minute) // it may have to fetch ClickHouse
	for {
		res, err := http.Get("http://" + addrs[4] + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return r
			}
		}
		select {
		case end := <-r.done:
			t.Fatalf("ended before it was ready: %v\n%s", end, r.out())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready\n%s", r.out())
		}
	}
}

// wait returns how it ended.
func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(time.Minute):
		t.Fatalf("does not end:\n%s", r.out())
		return nil
	}
}

func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd := command(t, t.TempDir())
		if err := cmd.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.wait(t); err != nil {
			t.Errorf("%v: got %v, want exit code 0\n%s", sig, err, cmd.out())
		}
		// The banner is not behind a page of log.
		if before, _, found := strings.Cut(cmd.out(), "Uptake runs on this machine"); found && strings.Count(before, "level=") > 5 {
			t.Errorf("more than 5 lines of log before the banner:\n%s", before)
		}
		if !strings.Contains(cmd.out(), "log closed") {
			t.Errorf("%v: the log was not closed:\n%s", sig, cmd.out())
		}
	}
}

// Two signals at once: it ends, says that it was cut short, and leaves no
// ClickHouse behind.
func TestSecondSignalCutsShort(t *testing.T) {
	data := t.TempDir()
	cmd := command(t, data)
	status, err := os.ReadFile(filepath.Join(data, "clickhouse", "data", "status"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscanf(string(status), "PID: %d", &pid); err != nil {
		t.Fatalf("%q: %v", status, err)
	}
	// A ClickHouse that hangs would hold up an ordered stop.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if err := cmd.Signal(sig); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); sig == syscall.SIGINT && !strings.Contains(cmd.out(), "a second signal cuts it short"); {
			if time.Now().After(deadline) {
				t.Fatalf("the first signal has no effect:\n%s", cmd.out())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	var exit *exec.ExitError
	if err := cmd.wait(t); !errors.As(err, &exit) || exit.ExitCode() != process.ExitFailed {
		t.Errorf("got %v, want exit code %d\n%s", err, process.ExitFailed, cmd.out())
	}
	if !strings.Contains(cmd.out(), process.ErrCutShort.Error()) {
		t.Errorf("does not say that it was cut short:\n%s", cmd.out())
	}
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("ClickHouse %d is still there", pid)
	}
}

func TestArguments(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	env := func(name string) (string, bool) { return "nowhere", name == "UPTAKE_KAFKA_ADDR" }
	for _, tc := range []struct {
		args []string
		env  func(string) (string, bool)
		want string
	}{
		{[]string{"-gateway-addr", "nowhere", "-data", ""}, none, "gateway-addr must be host:port"},
		{nil, env, "kafka-addr must be host:port"},
		{[]string{"serve"}, none, `unexpected argument "serve"`},
		{[]string{"-log-level", "loud"}, none, "log-level"},
	} {
		err := run(tc.args, tc.env, io.Discard, io.Discard)
		if !errors.Is(err, process.ErrUsage) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %q", tc.args, err, tc.want)
		}
	}
	if err := run([]string{"-check"}, none, io.Discard, io.Discard); err != nil {
		t.Errorf("-check: %v", err)
	}
	var help bytes.Buffer
	_ = run([]string{"-help"}, none, io.Discard, &help)
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(help.String(), "\n") {
		name, ok := strings.CutPrefix(line, "  -")
		if !ok {
			continue
		}
		name, _, _ = strings.Cut(name, " ")
		if name != "config" && !strings.Contains(string(readme), "`-"+name+"`") {
			t.Errorf("deploy/README.md says nothing of -%s", name)
		}
	}
}
