package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/uptakehq/uptake/test/harness/stack"
)

// runner starts the processes of a run.
type runner struct {
	cfg  Config
	next int
}

// dir makes a fresh folder.
func (r *runner) dir(name string) (string, error) {
	r.next++
	dir := filepath.Join(r.cfg.Dir, fmt.Sprintf("%03d-%s", r.next, name))
	return dir, os.MkdirAll(dir, 0o755)
}

// closers are what was opened, closed the other way round.
type closers []func(context.Context) error

func (c *closers) add(fn func(context.Context) error) { *c = append(*c, fn) }

func (c *closers) close(ctx context.Context) error {
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i](ctx))
	}
	*c = nil
	return errors.Join(errs...)
}

// failed closes what was opened when opening the rest failed.
func (c *closers) failed(ctx context.Context, err *error) {
	if *err != nil {
		*err = errors.Join(*err, c.close(ctx))
	}
}

// log opens a log for a load.
func (c *closers) log(ctx context.Context, r *runner) (*log, error) {
	l, err := r.startLog(ctx)
	if err == nil {
		c.add(func(context.Context) error { l.close(); return nil })
	}
	return l, err
}

// serve starts a service with metrics, and waits until it is ready.
func (c *closers) serve(ctx context.Context, r *runner, name, dir string, args ...string) (*process, error) {
	binary, err := stack.Binary(ctx, name, stack.Build{})
	if err != nil {
		return nil, err
	}
	return c.serveBinary(ctx, name, dir, binary, args...)
}

func (c *closers) serveBinary(ctx context.Context, name, dir, binary string, args ...string) (*process, error) {
	return c.serveEnv(ctx, name, dir, nil, binary, args...)
}

func (c *closers) serveEnv(ctx context.Context, name, dir string, env []string, binary string, args ...string) (*process, error) {
	metrics, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(name, dir, env, binary, append([]string{"serve", "-metrics-addr", metrics}, args...)...)
	if err != nil {
		return nil, err
	}
	p.metrics = metrics
	c.add(func(context.Context) error { return p.stop() })
	return p, p.ready(ctx)
}

// process is a child whose CPU time is read.
type process struct {
	name    string
	cmd     *exec.Cmd
	log     string
	metrics string // host:port, of a service
	done    chan struct{}
	err     error // valid after done
}

// service starts a service's binary.
func (r *runner) service(ctx context.Context, name, dir string, args ...string) (*process, error) {
	binary, err := stack.Binary(ctx, name, stack.Build{})
	if err != nil {
		return nil, err
	}
	return startProcess(name, dir, nil, binary, args...)
}

func startProcess(name, dir string, env []string, binary string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(binary, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), env...)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends with the process, which stop or kill ends
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop ends the process in good order, or with SIGKILL when that takes too long.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(os.Interrupt) // fails only when it has ended
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end; see %s", p.name, p.log)
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w; see %s", p.name, p.err, p.log)
	}
	return nil
}

// kill ends the process if it still runs.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// alive returns an error when the process has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %w; see %s", p.name, p.err, p.log)
	default:
		return nil
	}
}

// await polls cond until it holds.
func (p *process) await(ctx context.Context, what string, cond func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := p.alive(); err != nil {
			return err
		}
		ok, err := cond()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// ready waits for /readyz of a service.
func (p *process) ready(ctx context.Context) error {
	return p.await(ctx, "readiness of "+p.name, func() (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.metrics+"/readyz", nil)
		if err != nil {
			return false, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, nil // not listening yet
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode == http.StatusOK, err
	})
}

func (p *process) span() (span, error) { return startSpan(p.cmd.Process.Pid) }
