package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is one service of a stack, over all of its runs: its name, command
// line, addresses and log file stay the same when it is started again.
type Process struct {
	Name    string
	Addr    string // host:port that it serves on; empty unless it is a gateway
	Metrics string // host:port of /metrics, /healthz and /readyz

	binary string
	args   []string
	log    string

	mu   sync.Mutex // covers all below
	env  []string   // beside the test's own
	run  *run       // nil before the first start
	runs int
}

// run is one life of a process.
type run struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed after it was waited for
	err    error         // valid after exited
}

func (r *run) ended() bool {
	select {
	case <-r.exited:
		return true
	default:
		return false
	}
}

// Start starts the process. It must not run.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != nil && !p.run.ended() {
		return fmt.Errorf("start %s: it runs", p.Name)
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer out.Close()
	p.runs++
	fmt.Fprintf(out, "---- run %d of %s: %s %s\n", p.runs, p.Name, filepath.Base(p.binary), strings.Join(p.args, " "))
	r := &run{cmd: exec.Command(p.binary, p.args...), exited: make(chan struct{})}
	r.cmd.Env = append(os.Environ(), p.env...)
	r.cmd.Stdout, r.cmd.Stderr = out, out
	r.cmd.SysProcAttr = childAttr()
	started := make(chan error)
	go func() { // ends with the process; Kill and Stop wait for exited
		// The kernel ties the child to the thread that forked it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := r.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		r.err = r.cmd.Wait()
		close(r.exited)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.run = r
	return nil
}

// SetEnv adds variables, as NAME=value, to the environment of the runs to come,
// in place of those set before.
func (p *Process) SetEnv(env ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.env = env
}

func (p *Process) current() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run
}

// Running reports whether the process runs.
func (p *Process) Running() bool {
	r := p.current()
	return r != nil && !r.ended()
}

// Pid is the process id of the last run.
func (p *Process) Pid() int { return p.current().cmd.Process.Pid }

// Runs is how often the process was started.
func (p *Process) Runs() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runs
}

// Exited is closed when the last run has ended.
func (p *Process) Exited() <-chan struct{} { return p.current().exited }

// ExitError says how the last run ended; nil for exit code 0. The run must have
// ended.
func (p *Process) ExitError() error {
	r := p.current()
	<-r.exited
	return r.err
}

// Signal sends a signal to the process.
func (p *Process) Signal(sig syscall.Signal) error {
	r := p.current()
	if r == nil || r.ended() {
		return fmt.Errorf("signal %v to %s: it does not run", sig, p.Name)
	}
	if err := r.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %v to %s: %w", sig, p.Name, err)
	}
	return nil
}

// Pause stops the process where it is (SIGSTOP).
func (p *Process) Pause() error { return p.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Process) Resume() error { return p.Signal(syscall.SIGCONT) }

// Kill ends the process with SIGKILL and waits for it. It is no fault if it has
// ended already.
func (p *Process) Kill() {
	r := p.current()
	if r == nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGKILL) // fails only when it has ended
	<-r.exited
}

// Stop ends the process with SIGTERM and waits for it. It returns an error when
// the process did not end with exit code 0, or not before ctx.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	r := p.current()
	select {
	case <-r.exited:
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w; end of its log:\n%s", p.Name, ctx.Err(), p.Tail(30))
	}
	if r.err != nil {
		return fmt.Errorf("stop %s: %w; end of its log:\n%s", p.Name, r.err, p.Tail(30))
	}
	return nil
}

// Log returns all that the process has written, over its runs.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return string(text)
}

// LastLog returns what the last run has written.
func (p *Process) LastLog() string {
	text := p.Log()
	p.mu.Lock()
	head := fmt.Sprintf("---- run %d of %s:", p.runs, p.Name)
	p.mu.Unlock()
	if i := strings.LastIndex(text, head); i >= 0 {
		return text[i:]
	}
	return text
}

// Tail returns the last lines of the log.
func (p *Process) Tail(lines int) string {
	text := bytes.TrimRight([]byte(p.Log()), "\n")
	for i := len(text); lines > 0 && i > 0; lines-- {
		i = bytes.LastIndexByte(text[:i], '\n')
		if i < 0 {
			return string(text)
		}
		if lines == 1 {
			return string(text[i+1:])
		}
	}
	return string(text)
}

// Get fetches a path of the metrics server.
func (p *Process) Get(ctx context.Context, path string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Metrics+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

// AwaitReady returns when /readyz answers 200.
func (p *Process) AwaitReady(ctx context.Context) error {
	r := p.current()
	return Await(ctx, "readiness of "+p.Name, func() error {
		if r.ended() {
			return &Hopeless{fmt.Errorf("%s has ended (%w); end of its log:\n%s", p.Name, r.err, p.Tail(40))}
		}
		status, body, err := p.Get(ctx, "/readyz")
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return fmt.Errorf("%s", strings.TrimSpace(body))
		}
		return nil
	})
}

// Hopeless in the chain of a condition's error ends the wait for it.
type Hopeless struct{ Err error }

func (e *Hopeless) Error() string { return e.Err.Error() }

func (e *Hopeless) Unwrap() error { return e.Err }

// Await calls cond until it returns nil, ctx ends, or it is hopeless.
func Await(ctx context.Context, what string, cond func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := cond()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err // what fails because ctx ended says nothing
		}
		var h *Hopeless
		if errors.As(err, &h) {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (last: %w)", what, ctx.Err(), last)
		case <-tick.C:
		}
	}
}

// freeAddrs returns n addresses of this machine that were free just now.
func freeAddrs(n int) ([]string, error) {
	addrs := make([]string, 0, n)
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer ln.Close()
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs, nil
}
