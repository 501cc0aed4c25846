package embedded

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A test server makes and deletes thousands of small files. In memory its
// inserts take a fraction of what they take on a disk, where ext4 also searches
// ever longer for inodes that were not deleted a moment ago.
const (
	memoryDir  = "/dev/shm"
	memoryFree = 4 << 30 // below that, as in most containers, it is left alone
	tmpfsMagic = 0x01021994
)

// scratchBase is where the shared test server's data goes: in memory if there is
// room for it and TMPDIR does not say otherwise. What test binaries left there
// that were killed is removed.
func scratchBase() string {
	var fs syscall.Statfs_t
	if os.Getenv("TMPDIR") != "" || syscall.Statfs(memoryDir, &fs) != nil ||
		fs.Type != tmpfsMagic || fs.Bavail*uint64(fs.Bsize) < memoryFree {
		return os.TempDir()
	}
	left, err := filepath.Glob(filepath.Join(memoryDir, scratchPrefix+"*"))
	if err != nil {
		return memoryDir
	}
	for _, dir := range left {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < time.Hour {
			continue
		}
		at, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		if AwaitFree(at, dir) == nil { // nobody runs on it
			_ = os.RemoveAll(dir) // of another user; then it stays
		}
		cancel()
	}
	return memoryDir
}
