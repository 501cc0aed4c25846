package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/uptakehq/uptake/test/harness/repository"
)

// Build says how the binaries are built.
type Build struct {
	Failpoints bool // with the failpoints that a plan can name
	Unguarded  bool // rollup-writer without its protocol, to measure what that costs
	Race       bool // with the race detector
}

// builds are the binaries of this test binary's builds: each is built once.
var builds struct {
	mu  sync.Mutex // covers dir and all
	dir string
	all map[string]error // by path
}

// Binary builds a main package of the repository, such as "ingest-gateway" or
// "deploy/standalone", and returns the path of its binary. Cleanup removes it.
func Binary(ctx context.Context, pkg string, b Build) (string, error) {
	root, err := repository.Root()
	if err != nil {
		return "", err
	}
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if builds.dir == "" {
		if builds.dir, err = os.MkdirTemp("", "uptake-bin-"); err != nil {
			return "", fmt.Errorf("build %s: %w", pkg, err)
		}
		builds.all = map[string]error{}
	}
	args, variant := []string{"build"}, "plain"
	if b.Failpoints {
		args, variant = append(args, "-tags", "failpoints"), "failpoints"
	}
	if b.Unguarded {
		args, variant = append(args, "-tags", "unguarded"), "unguarded"
	}
	if b.Race {
		args, variant = append(args, "-race"), variant+"-race"
	}
	path := filepath.Join(builds.dir, variant, filepath.Base(pkg))
	if err, done := builds.all[path]; done {
		return path, err
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", path, "./"+pkg)...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build %s: %w\n%s", pkg, err, bytes.TrimSpace(out))
	}
	if !errors.Is(err, context.Canceled) {
		builds.all[path] = err
	}
	return path, err
}

// Cleanup removes the binaries that were built. Call it at the end of TestMain
// or of main.
func Cleanup() error {
	builds.mu.Lock()
	defer builds.mu.Unlock()
	dir := builds.dir
	builds.dir, builds.all = "", nil
	if dir == "" {
		return nil
	}
	return os.RemoveAll(dir)
}

// command runs a command of a service to its end.
func command(ctx context.Context, binary string, args ...string) error {
	cmd := exec.CommandContext(ctx, binary, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(binary), strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
