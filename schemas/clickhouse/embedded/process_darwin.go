package embedded

import "syscall"

// childAttr puts the child into a process group of its own, so that a Ctrl-C
// in the terminal reaches the parent alone. There is no parent-death signal
// here: the end of the child's standard input has to do.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
