package e2e

import (
	"testing"
	"time"

	"github.com/uptakehq/uptake/test/harness/stack"
)

// SIGTERM to each service under load loses nothing, and each says what it
// flushed.
func TestTerminateUnderLoad(t *testing.T) {
	s, _ := forTest(t)
	for _, tc := range []struct {
		name    string
		process *stack.Process
		says    string // in the log of the run that ended
	}{
		{"gateway", s.Gateways[0], "msg=stopped"},
		{"enricher", s.Enrichers[0], "msg=stopped"},
		{"writer", s.Writers[0], "msg=stopped"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			underLoad(t, s, "term-"+tc.name+"-", 4_000, func(acked func(int)) {
				acked(20)
				if err := tc.process.Stop(within(t, time.Minute)); err != nil {
					t.Error(err)
				}
				line := logLine(tc.process.LastLog(), tc.says)
				if line == "" {
					t.Errorf("%s does not say what it flushed:\n%s", tc.process.Name, tc.process.Tail(20))
				}
				t.Log(line)
				if err := tc.process.Start(); err != nil {
					t.Fatal(err)
				}
				if err := tc.process.AwaitReady(within(t, time.Minute)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
