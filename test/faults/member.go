package faults

import (
	"context"

	"github.com/uptakehq/uptake/test/harness/stack"
)

// member is one instance of a service, over all of its lives: a process, or, in
// the inside form, a service that runs in this process.
type member interface {
	Label() string
	Start() error
	// Kill ends it at once: nothing that it does afterwards is seen by anyone.
	Kill()
	// Stop ends it in good order.
	Stop(ctx context.Context) error
	// Pause makes it a zombie until Resume.
	Pause() error
	Resume() error
	Running() bool
	ExitError() error // of a member that does not run
	AwaitReady(ctx context.Context) error
	Tail(lines int) string
}

// outside is a member that is a process.
type outside struct{ *stack.Process }

// Label implements member.
func (o outside) Label() string { return o.Name }

func processes(list []*stack.Process) []member {
	var all []member
	for _, p := range list {
		all = append(all, outside{p})
	}
	return all
}
