package kafka

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Version is the Kafka that pom.xml pins.
const Version = "4.1.1"

//go:embed pom.xml
var pom []byte

// Jars returns the directory with Kafka's jars: .cache/kafka-<version> at the
// root of this repository. What is not there is fetched through Maven, about
// 45 MB; Maven verifies the checksums. Any number of processes may call it at
// once.
func Jars(ctx context.Context) (string, error) {
	root, err := repositoryRoot()
	if err != nil {
		return "", fmt.Errorf("find kafka's jars: %w", err)
	}
	target := filepath.Join(root, ".cache", "kafka-"+Version)
	if haveJars(target) {
		return target, nil
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", fmt.Errorf("%w: mvn: Kafka's jars come through Maven (Debian and Ubuntu: apt-get install maven)", ErrMissing)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return "", fmt.Errorf("fetch kafka's jars: %w", err)
	}
	lock, err := lockFile(ctx, target+".lock")
	if err != nil {
		return "", fmt.Errorf("fetch kafka's jars: %w", err)
	}
	defer lock.Close()
	if haveJars(target) {
		return target, nil // another process was faster
	}
	tmp, err := os.MkdirTemp(filepath.Dir(target), filepath.Base(target)+".tmp-")
	if err != nil {
		return "", fmt.Errorf("fetch kafka's jars: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := os.WriteFile(filepath.Join(tmp, "pom.xml"), pom, 0o644); err != nil {
		return "", fmt.Errorf("fetch kafka's jars: %w", err)
	}
	cmd := exec.CommandContext(ctx, mvn, "-q", "-B", "-C", "dependency:copy-dependencies", "-DoutputDirectory="+tmp)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch kafka's jars: mvn dependency:copy-dependencies: %w\n%s", err, bytes.TrimSpace(out))
	}
	if !haveJars(tmp) {
		return "", fmt.Errorf("fetch kafka's jars: mvn left no kafka_2.13-%s.jar", Version)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", fmt.Errorf("fetch kafka's jars: %w", err)
	}
	if err := errors.Join(os.RemoveAll(target), os.Rename(tmp, target)); err != nil {
		return "", fmt.Errorf("fetch kafka's jars: %w", err)
	}
	return target, nil
}

func haveJars(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "kafka_2.13-"+Version+".jar"))
	return err == nil
}

// repositoryRoot is the nearest folder above the working directory that holds
// go.work.
func repositoryRoot() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.work above %s", wd)
		}
	}
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
