package process

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		err    error
		code   int
		stderr string
	}{
		{nil, ExitOK, ""},
		{flag.ErrHelp, ExitOK, ""},
		{fmt.Errorf("%w: -n", ErrUsage), ExitUsage, "x: usage: -n\n"},
		{errors.New("boom"), ExitFailed, "x: boom\n"},
	} {
		var stderr bytes.Buffer
		if got := Main(&stderr, "x", func() error { return tc.err }); got != tc.code || stderr.String() != tc.stderr {
			t.Errorf("Main(%v) = %d, %q; want %d, %q", tc.err, got, stderr.String(), tc.code, tc.stderr)
		}
	}
}

func TestFirstSignalStopsSecondKills(t *testing.T) {
	s, release := Notify()
	defer release()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.Stop.Done()
	if s.Kill.Err() != nil {
		t.Fatal("the first signal killed")
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-s.Kill.Done()
	if !errors.Is(context.Cause(s.Kill), ErrCutShort) {
		t.Errorf("cause is %v", context.Cause(s.Kill))
	}
}

func TestNewLogger(t *testing.T) {
	var b bytes.Buffer
	l, err := NewLogger(&b, "json", "warn")
	if err != nil {
		t.Fatal(err)
	}
	l.Info("hidden")
	l.Warn("shown", "n", 1)
	if got := b.String(); strings.Contains(got, "hidden") || !strings.Contains(got, `"msg":"shown","n":1`) {
		t.Errorf("log: %s", got)
	}
	if _, err := NewLogger(&b, "xml", "info"); err == nil || !strings.Contains(err.Error(), "log-format") {
		t.Errorf("format xml: %v", err)
	}
	if _, err := NewLogger(&b, "text", "loud"); err == nil || !strings.Contains(err.Error(), "log-level") {
		t.Errorf("level loud: %v", err)
	}
}
