//go:build !linux

package stack

import "syscall"

// childAttr is empty where the system cannot tie a child to its parent.
func childAttr() *syscall.SysProcAttr { return nil }
