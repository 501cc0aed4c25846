//go:build !linux

package faults

// mountSmall cannot, on this system.
func mountSmall(string, int64) (bool, error) { return false, nil }

func unmount(string) error { return nil }

func freeBytes(string) (uint64, error) { return 0, nil }
