package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/svc/process"
)

func TestEraseNamesWhatItLacks(t *testing.T) {
	var out, errs bytes.Buffer
	code := process.Main(&errs, "rollup-writer", func() error {
		return run([]string{"erase", "-wait", "0s"}, func(string) (string, bool) { return "", false }, &out, &errs)
	})
	if code != process.ExitUsage {
		t.Errorf("exit status %d, want %d", code, process.ExitUsage)
	}
	for _, want := range []string{"app must be named", "user must be named", "wait must be > 0"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("%q is not said in %s", want, errs.String())
		}
	}
}
