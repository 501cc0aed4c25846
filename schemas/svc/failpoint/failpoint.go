// Package failpoint lets a test stop a process at a named step.
//
// Code names its steps with Hit, or with Reach where an error would mean nothing. In
// a normal build both are empty functions that the compiler inlines away. With the build tag failpoints it counts, and at the
// count that a plan names it does what the plan says:
//
//	UPTAKE_FAILPOINTS="writer.after-insert=kill@3;writer.before-commit=sleep(2s)@1+"
//
// is the plan of a process, and Set replaces it within a test's own process. A
// plan is a list of name=action@n, separated by semicolons. n is the hit at
// which it acts, counted from 1 (the default); n+ is that hit and every later
// one. The actions are
//
//	kill         SIGKILL to the own process
//	stop         SIGSTOP to the own process: a zombie until someone sends SIGCONT
//	sleep(2s)    the caller waits that long
//	error(text)  Hit returns an error
//	on           On returns true: a known mistake, for the tests of the tests
//	offset(-5m)  of the name clock: Now is off by that, for the life of the process
//
// What it does is told on stderr first. The package owns the plan and the
// counts of the process, which is why they are global; where the steps are and
// what they are called belongs to the services.
package failpoint

import "errors"

// ErrInjected is in the chain of the errors that Hit returns.
var ErrInjected = errors.New("injected by a failpoint")
