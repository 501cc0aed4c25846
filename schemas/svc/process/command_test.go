package process

import (
	"bytes"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestCommand(t *testing.T) {
	const usage = "Commands:\n  serve\n"
	for _, tc := range []struct {
		args, rest     []string
		command        string
		stdout, stderr string
	}{
		{nil, nil, "serve", "", ""},
		{[]string{"-x", "1"}, []string{"-x", "1"}, "serve", "", ""},
		{[]string{"init", "-x"}, []string{"-x"}, "init", "", ""},
		{[]string{"help"}, nil, "", usage, ""},
		{[]string{"-help"}, []string{"-help"}, "serve", "", usage + "\n"},
		{[]string{"--help"}, []string{"--help"}, "serve", "", usage + "\n"},
	} {
		var stdout, stderr bytes.Buffer
		command, rest := Command("x", usage, tc.args, &stdout, &stderr)
		if command != tc.command || !slices.Equal(rest, tc.rest) || stdout.String() != tc.stdout || stderr.String() != tc.stderr {
			t.Errorf("%v: got %q %v, %q, %q", tc.args, command, rest, stdout.String(), stderr.String())
		}
	}
	for _, arg := range []string{"-version", "--version"} {
		var out bytes.Buffer
		command, _ := Command("x", usage, []string{arg}, &out, &out)
		if got := out.String(); command != "" || !strings.HasPrefix(got, "x ") || !strings.Contains(got, "commit ") || !strings.HasSuffix(got, runtime.Version()+"\n") {
			t.Errorf("%s: got %q, %q", arg, command, got)
		}
	}
}
