//go:build failpoints

package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const envChild = "FAILPOINT_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(envChild) != "" {
		for range 5 {
			if err := Hit("step"); err != nil {
				os.Exit(7)
			}
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The environment's plan acts on the process at its hit.
func TestPlanOfTheEnvironment(t *testing.T) {
	for _, tc := range []struct {
		plan   string
		signal syscall.Signal
		code   int
		stderr string
	}{
		{"", 0, 0, ""},
		{"other=kill", 0, 0, ""},
		{"step=kill@6", 0, 0, ""},
		{"step=kill@3", syscall.SIGKILL, -1, "failpoint step: kill at hit 3\n"},
		{"step=error(x)@2", 0, 7, "failpoint step: error(x) at hit 2\n"},
		{"step=fly", 0, 2, "action must be"},
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envChild+"=1", envPlan+"="+tc.plan)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		_ = cmd.Run() // the state below tells
		ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if got := cmd.ProcessState.ExitCode(); got != tc.code {
			t.Errorf("plan %q: exit code %d, want %d", tc.plan, got, tc.code)
		}
		if ws.Signaled() != (tc.signal != 0) || (ws.Signaled() && ws.Signal() != tc.signal) {
			t.Errorf("plan %q: ended with %v, want signal %v", tc.plan, cmd.ProcessState, tc.signal)
		}
		if !strings.Contains(stderr.String(), tc.stderr) {
			t.Errorf("plan %q: stderr %q, want %q in it", tc.plan, stderr.String(), tc.stderr)
		}
	}
}

func TestSet(t *testing.T) {
	if err := Set("a=error(first)@2; a=error(on)@4+"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 5 {
		err := Hit("a")
		switch {
		case err == nil:
			got = append(got, "")
		case !errors.Is(err, ErrInjected):
			t.Errorf("error is not %v: %v", ErrInjected, err)
		default:
			got = append(got, err.Error()[strings.LastIndex(err.Error(), " ")+1:])
		}
	}
	if got, want := strings.Join(got, ","), ",first,,on,on"; got != want {
		t.Errorf("hits gave %q, want %q", got, want)
	}
	if Hits("a") != 5 {
		t.Errorf("hits: got %d, want 5", Hits("a"))
	}
	if err := Set("m=on"); err != nil || !On("m") || On("a") || Hit("m") != nil {
		t.Errorf("m=on: %v, m is %v, a is %v", err, On("m"), On("a"))
	}
	if err := Set("clock=offset(-5m)"); err != nil || On("clock") {
		t.Errorf("clock=offset(-5m): %v, on %v", err, On("clock"))
	}
	if off := time.Until(Now()); off > -4*time.Minute || off < -6*time.Minute {
		t.Errorf("clock is off by %s, want -5m", off)
	}
	for _, bad := range []string{"a", "=kill", "a=kill@0", "a=kill@x", "a=sleep(soon)", "a=fly", "clock=offset(late)"} {
		if err := Set(bad); err == nil {
			t.Errorf("plan %q was taken", bad)
		}
	}
}
