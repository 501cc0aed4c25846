// Package systemcall makes system calls of a process go wrong, for tests: with
// strace, which stops the process at each call that it is told to look for.
package systemcall

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// RequireEnv is the environment variable that, set, makes Need fail where it
// would skip.
const RequireEnv = "UPTAKE_REQUIRE_STRACE"

// Need skips, aloud, where system calls cannot be made to fail.
func Need(t testing.TB) {
	t.Helper()
	fail := t.Skip
	if os.Getenv(RequireEnv) != "" {
		fail = t.Fatal
	}
	if _, err := exec.LookPath("strace"); err != nil {
		fail("SKIPPED: needs strace, to make a rename fail: ", err)
	}
	if out, err := exec.Command("strace", "-f", "-o", "/dev/null", "-e", "inject=rename:error=EIO", "true").CombinedOutput(); err != nil {
		fail(fmt.Sprintf("SKIPPED: strace may not trace here: %v: %s", err, out))
	}
}

// Tracer traces a process.
type Tracer struct{ cmd *exec.Cmd }

// attachTimeout bounds how long strace may take to find all threads of a process.
const attachTimeout = time.Minute

// Rename makes a process's renames of paths go wrong as strace's inject says, such
// as "error=EIO", or "error=EIO:signal=SIGKILL" for death just before the first.
// It returns once the process is traced.
func Rename(t testing.TB, pid int, paths []string, inject string) *Tracer {
	t.Helper()
	args := []string{"-f", "-p", fmt.Sprint(pid), "-e", "trace=rename", "-e", "inject=rename:" + inject, "-o", "/dev/null"}
	for _, p := range paths {
		args = append(args, "-P", p)
	}
	tr := &Tracer{cmd: exec.Command("strace", args...)}
	stderr, err := tr.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	attached := make(chan struct{})
	go func() { // ends with strace
		lines := bufio.NewScanner(stderr)
		for said := false; lines.Scan(); {
			if !said && strings.Contains(lines.Text(), "attached") {
				said = true
				close(attached)
			}
		}
	}()
	select {
	case <-attached:
	case <-time.After(attachTimeout):
		tr.End()
		t.Fatal("strace does not attach")
	}
	return tr
}

// End lets the process go on untraced, if it lives.
func (tr *Tracer) End() {
	_ = tr.cmd.Process.Signal(os.Interrupt) // or the process has ended, and strace with it
	_ = tr.cmd.Wait()                       // says that it was interrupted
}
