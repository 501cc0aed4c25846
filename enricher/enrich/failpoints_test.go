//go:build failpoints

package enrich

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/svc/failpoint"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

const (
	envChildDir     = "ENRICH_TEST_CHILD_DIR"
	envChildBrokers = "ENRICH_TEST_CHILD_BROKERS"
)

// TestMain makes the test binary an enricher of its own when a test asks for
// one to kill.
func TestMain(m *testing.M) {
	dir := os.Getenv(envChildDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	c := &cluster{brokers: strings.Split(os.Getenv(envChildBrokers), ",")}
	cfg := c.testConfig(dir)
	cfg.SessionTimeout, cfg.RebalanceTimeout = time.Second, 5*time.Second
	svc, err := New(cfg, Dependencies{Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err == nil {
		go func() { // ends with the process
			// The parent is gone when this ends.
			_, _ = bufio.NewReader(os.Stdin).ReadByte()
			os.Exit(3)
		}()
		err = svc.Run(process.Signals{Stop: context.Background(), Kill: context.Background()})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(4)
}

// steps are the failpoints of the package.
var steps = []string{
	"enricher.after-poll", "enricher.before-produce", "enricher.after-produce", "enricher.before-offsets", "enricher.before-end",
	"enricher.after-end", "enricher.before-merge", "enricher.after-merge", "enricher.restore", "enricher.restore-state",
}

// child runs an enricher in a process of its own, with a plan of failpoints.
func (c *cluster) child(dir, plan string) *exec.Cmd {
	c.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envChildDir+"="+dir, envChildBrokers+"="+strings.Join(c.brokers, ","), "UPTAKE_FAILPOINTS="+plan)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = c.t.Output(), c.t.Output()
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return cmd
}

// A process that is killed at any step leaves nothing lost and nothing doubled,
// with the disk that it leaves and with none.
func TestKilledAtEachStep(t *testing.T) {
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			parallel(t)
			c := newCluster(t)
			dir := filepath.Join(t.TempDir(), "a")
			n := 0
			load := func(count int) {
				var records []*kgo.Record
				for range count {
					records = append(records, c.raw(track("dev", n)))
					if n%3 == 0 {
						records = append(records, c.raw(track("dev", n/2)))
					}
					n++
				}
				c.send(records...)
			}
			load(100)
			for _, hit := range []int{1, 2, 4} { // a restore comes once for each partition
				cmd := c.child(dir, fmt.Sprintf("%s=kill@%d", step, hit))
				died := make(chan struct{})
				go func() { // ends with the process
					_ = cmd.Wait() // it is killed
					close(died)
				}()
				deadline := time.After(60 * time.Second)
				for alive := true; alive; {
					load(20) // what makes it go through its steps
					select {
					case <-died:
						alive = false
					case <-deadline:
						t.Fatalf("hit %d does not come", hit)
					case <-time.After(50 * time.Millisecond):
					}
				}
				if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
					t.Fatalf("hit %d: the process ended with %v", hit, cmd.ProcessState)
				}
				load(50)
				if hit == 2 {
					if err := os.RemoveAll(dir); err != nil {
						t.Fatal(err)
					}
				}
			}
			c.child(dir, "")
			load(200)
			c.drained()
			c.check()
		})
	}
}

// An error at any step ends the session and nothing else.
func TestErrorAtEachStep(t *testing.T) {
	c := newCluster(t)
	defer func() { _ = failpoint.Set("") }()
	var plan []string
	for _, s := range steps {
		if s != "enricher.before-end" { // it sits in a hook, which cannot fail
			plan = append(plan, s+"=error(injected)@3", s+"=error(injected)@7")
		}
	}
	if err := failpoint.Set(strings.Join(plan, ";")); err != nil {
		t.Fatal(err)
	}
	i := c.start(filepath.Join(t.TempDir(), "a"))
	for n := range 60 {
		c.send(c.raw(track("dev", n)), c.raw(track("dev", n/2)))
		c.drained()
	}
	c.check()
	i.stopped()
	for _, s := range steps {
		if got := failpoint.Hits(s); got < 7 {
			t.Errorf("%s was reached %d times, want 7", s, got)
		}
	}
}
