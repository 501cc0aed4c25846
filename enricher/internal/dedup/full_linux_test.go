package dedup

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fullEnv names the store that a process of its own opens, which may end it.
const fullEnv = "UPTAKE_TEST_FULL_STORE"

// A store whose disk has no room to open it keeps what it holds: the process
// ends and says why, and the next one with room goes on.
func TestFullDiskKeepsTheStore(t *testing.T) {
	if dir := os.Getenv(fullEnv); dir != "" {
		if _, err := Open(DefaultConfig(dir), slog.New(slog.NewTextHandler(os.Stdout, nil))); err != nil {
			fmt.Println("open:", err)
			os.Exit(1)
		}
		return
	}
	small := t.TempDir()
	err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=16777216,mode=755")
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skip("SKIPPED, no disk will be full: mounting a small one takes root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{t: t, cfg: DefaultConfig(filepath.Join(small, "dedup")), now: start}
	f.open()
	for i := range 1000 {
		if seen, err := f.set.Seen("dev", fmt.Sprint("m", i)); err != nil || seen {
			t.Fatal(seen, err)
		}
		f.set.Add(at(0), f.now)
	}
	if err := f.set.Commit(1000); err != nil {
		t.Fatal(err)
	}
	f.close()

	filler := filepath.Join(small, "filler")
	file, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for n := 1 << 20; n > 0; {
		if _, err := file.Write(make([]byte, n)); errors.Is(err, syscall.ENOSPC) {
			n /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), fullEnv+"="+f.cfg.Dir)
	out, err := child.CombinedOutput()
	t.Logf("%v\n%s", err, out)
	if err == nil || !strings.Contains(string(out), syscall.ENOSPC.Error()) {
		t.Errorf("opened on a full disk: %v\n%s", err, out)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	file.Close()
	f.open()
	defer f.close()
	if f.set.Next() != 1000 || f.set.Len() != 1000 {
		t.Errorf("opened with room again: %d ids up to offset %d, want 1000 up to 1000", f.set.Len(), f.set.Next())
	}
}
