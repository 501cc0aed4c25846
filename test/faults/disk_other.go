//go:build !linux

package faults

// mountSmall cannot, on this system.
func mountSmall(string, int64) (bool, error) { return false, nil }

func unmount(string) error { return nil }
