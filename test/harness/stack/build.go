package stack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/uptakehq/uptake/test/harness/repository"
)

// Build says how the binaries are built.
type Build struct {
	Failpoints bool // with the failpoints that a plan can name
	Unguarded  bool // rollup-writer without its protocol, to measure what that costs
	Race       bool // with the race detector
}

// builds are the binaries that this test binary uses.
var builds struct {
	mu  sync.Mutex // covers dir and all
	dir string
	all map[string]error // by path
}

// Binary builds a main package of the repository, such as "ingest-gateway" or
// "deploy/standalone", and returns the path of its binary, which Cleanup removes.
//
// The builds of all test binaries go to one folder below .cache, where go build
// links only what has changed: linking takes up to ten seconds of CPU, and eight
// packages need the same binaries. A test runs a copy, which stays as it is when
// another one builds.
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
	args, variant := []string{"build", "-ldflags=-s -w"}, "plain"
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
	err = build(ctx, root, pkg, filepath.Join(variant, filepath.Base(pkg)), path, args)
	if err != nil {
		err = fmt.Errorf("build %s: %w", pkg, err)
	}
	if !errors.Is(err, context.Canceled) {
		builds.all[path] = err
	}
	return path, err
}

// build runs go with args for a package into the shared folder, where the binary is
// called name, and copies the binary to path.
func build(ctx context.Context, root, pkg, name, path string, args []string) (err error) {
	// Working copies of the repository may have one .cache.
	dir := filepath.Join(root, ".cache", "testbin", fmt.Sprintf("%x", sha256.Sum256([]byte(root)))[:8])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }() // which releases it
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	shared := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", shared, "./"+pkg)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, bytes.TrimSpace(out))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// go build removes what it replaces, so that a link keeps the binary.
	if os.Link(shared, path) == nil {
		return nil
	}
	from, err := os.Open(shared)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
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
