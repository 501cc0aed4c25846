package stack

import "syscall"

// childAttr lets a child die with the test binary, however that ends.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
