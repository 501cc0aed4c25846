package embedded

import "syscall"

// childAttr puts the child into a process group of its own, so that a Ctrl-C
// in the terminal reaches the parent alone, and has the kernel tell it when the
// parent dies.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
