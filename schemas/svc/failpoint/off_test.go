//go:build !failpoints

package failpoint

import "testing"

func TestNothingHappensInThisBuild(t *testing.T) {
	t.Setenv("UPTAKE_FAILPOINTS", "step=kill")
	if Enabled || Hit("step") != nil || Hits("step") != 0 || On("step") {
		t.Error("a normal build has failpoints")
	}
	if Set("step=kill") == nil {
		t.Error("a plan was taken that nothing will carry out")
	}
}
