// Package jvm finds a Java, fetches a server's jars through Maven, and runs the
// server as a process that dies with the test binary. Packages kafka and
// zookeeper own the servers.
package jvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/uptakehq/uptake/test/harness/repository"
)

// ErrMissing is wrapped by errors about a tool that the machine lacks.
var ErrMissing = errors.New("missing tool")

var version = regexp.MustCompile(`version "(\d+)`)

// Java returns a java of JAVA_HOME or PATH that is at least of that version. An
// error names the server that it is for.
func Java(ctx context.Context, server string, least int) (string, error) {
	install := fmt.Sprintf("%s needs a Java of at least %d (Debian and Ubuntu: apt-get install openjdk-17-jre-headless)", server, least)
	path := ""
	if home := os.Getenv("JAVA_HOME"); home != "" {
		path = filepath.Join(home, "bin", "java")
	}
	if _, err := os.Stat(path); path == "" || err != nil {
		if path, err = exec.LookPath("java"); err != nil {
			return "", fmt.Errorf("%w: java: %s", ErrMissing, install)
		}
	}
	out, err := exec.CommandContext(ctx, path, "-version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: java: %s: %s -version: %w: %s", ErrMissing, install, path, err, bytes.TrimSpace(out))
	}
	m := version.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%w: java: %s: %s -version says %q", ErrMissing, install, path, out)
	}
	if major, _ := strconv.Atoi(string(m[1])); major < least {
		return "", fmt.Errorf("%w: java: %s: %s is %d", ErrMissing, install, path, major)
	}
	return path, nil
}

// Set is the jars of one server.
type Set struct {
	Name string // of the directory, with the version: kafka-4.1.1
	POM  []byte // pins the jars
	Jar  string // one that is there when all are
}

// Jars returns the directory with the set's jars: .cache/<name> at the root of
// this repository. What is not there is fetched through Maven, which verifies the
// checksums. Any number of processes may call it at once.
func Jars(ctx context.Context, s Set) (string, error) {
	dir, err := s.jars(ctx)
	if err != nil {
		return "", fmt.Errorf("fetch jars of %s: %w", s.Name, err)
	}
	return dir, nil
}

func (s Set) jars(ctx context.Context) (string, error) {
	root, err := repository.Root()
	if err != nil {
		return "", err
	}
	target := filepath.Join(root, ".cache", s.Name)
	if s.in(target) {
		return target, nil
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", fmt.Errorf("%w: mvn: they come through Maven (Debian and Ubuntu: apt-get install maven)", ErrMissing)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return "", err
	}
	lock, err := lockFile(ctx, target+".lock")
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if s.in(target) {
		return target, nil // another process was faster
	}
	tmp, err := os.MkdirTemp(filepath.Dir(target), s.Name+".tmp-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.WriteFile(filepath.Join(tmp, "pom.xml"), s.POM, 0o644); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, mvn, "-q", "-B", "-C", "dependency:copy-dependencies", "-DoutputDirectory="+tmp)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mvn dependency:copy-dependencies: %w\n%s", err, bytes.TrimSpace(out))
	}
	if !s.in(tmp) {
		return "", fmt.Errorf("mvn left no %s", s.Jar)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	return target, errors.Join(os.RemoveAll(target), os.Rename(tmp, target))
}

func (s Set) in(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, s.Jar))
	return err == nil
}

func lockFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}

// Process is one run of a server.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed after it was waited for
}

// Start starts a server whose output goes to the end of a file. Its error and its
// end say nothing of the server: its own log does.
func Start(cmd *exec.Cmd, output string) (*Process, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = processAttr()
	p := &Process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() { // ends with the process, which its starter ends
		// The parent-death signal is sent when the thread ends that forked.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // a signal of ours, or the log tells
		close(p.exited)
	}()
	return p, <-started
}

// Pid is its process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Exited is closed when it has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Ended tells whether it has.
func (p *Process) Ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Signal sends it a signal.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }
