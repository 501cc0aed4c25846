package jvm

import "syscall"

// processAttr keeps a Ctrl-C in the terminal from the servers and has the
// kernel kill them when the test binary dies.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
