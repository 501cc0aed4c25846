package faults

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// mountSmall gives a folder a file system of its own, of so many bytes, and
// reports whether it could: that takes root.
func mountSmall(dir string, bytes int64) (bool, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("make a small disk: %w", err)
	}
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", bytes))
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("mount a small disk at %s: %w", dir, err)
	}
	return true, nil
}

func unmount(dir string) error {
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// freeBytes is what is free of the file system of a path.
func freeBytes(path string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, fmt.Errorf("look how full the disk of %s is: %w", path, err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}
