package embedded

import (
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

func TestRestartsInARow(t *testing.T) {
	r := restarts{most: 3, pause: backoff.Backoff{Min: time.Second, Max: time.Minute}}
	for i, step := range []struct {
		lived, pause time.Duration
		ok           bool
	}{
		{time.Hour, 0, true},
		{time.Hour, 0, true}, // the first of a row again
		{time.Second, time.Second, true},
		{0, 2 * time.Second, true},
		{steady, 0, true},
		{0, time.Second, true},
		{steady - 1, 2 * time.Second, true},
		{0, 0, false},
	} {
		if pause, ok := r.next(step.lived); pause != step.pause || ok != step.ok {
			t.Errorf("step %d, lived %s: got %s, %v; want %s, %v", i, step.lived, pause, ok, step.pause, step.ok)
		}
	}
}
