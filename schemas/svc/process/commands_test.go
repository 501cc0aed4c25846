package process

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"
)

// Every program and every group of commands answers help, unknown commands and missing
// ones in the same way.
func TestProgram(t *testing.T) {
	const usage = `Usage: x [command] [flags]

Commands:
  serve     run (the default)
  key new   make one
  key list  list them

Flags of a command: x <command> -help
Every flag can be given as UPTAKE_<FLAG> in the environment or in a -config file.
`
	const keyUsage = `Usage: x key <command> [flags]

Commands:
  new   make one
  list  list them

Flags of a command: x key <command> -help
Every flag can be given as UPTAKE_<FLAG> in the environment or in a -config file.
About keys.
`
	for _, tc := range []struct {
		args   []string
		ran    string // the command and its arguments
		stdout string
		usage  string // in an error of usage
	}{
		{args: nil, ran: "serve"},
		{args: []string{""}, ran: "serve "},
		{args: []string{"-a", "1"}, ran: "serve -a 1"},
		{args: []string{"serve", "-a"}, ran: "serve -a"},
		{args: []string{"serve", "-help"}, ran: "serve -help"},
		{args: []string{"key", "new", "-a"}, ran: "new -a"},
		{args: []string{"key", "list", "-help"}, ran: "list -help"},
		{args: []string{"help"}, stdout: usage},
		{args: []string{"-help"}, ran: "serve -help", stdout: usage + "\n"},
		{args: []string{"--help"}, ran: "serve --help", stdout: usage + "\n"},
		{args: []string{"-h"}, ran: "serve -h", stdout: usage + "\n"},
		{args: []string{"key", "help"}, stdout: keyUsage},
		{args: []string{"key", "-help"}, stdout: keyUsage + "\n"},
		{args: []string{"key"}, usage: "x key needs a command\n" + keyUsage},
		{args: []string{"key", "-a"}, usage: "unknown command \"-a\"\n" + keyUsage},
		{args: []string{"fly"}, usage: "unknown command \"fly\"\n" + usage},
		{args: []string{"key", "fly"}, usage: "unknown command \"fly\"\n" + keyUsage},
	} {
		var ran string
		command := func(name, summary string) Command {
			return Command{Name: name, Summary: summary, Run: func(args []string) error {
				ran = strings.Join(append([]string{name}, args...), " ")
				return nil
			}}
		}
		p := Program{Name: "x", Default: "serve", Commands: []Command{
			command("serve", "run"),
			{Name: "key", Group: &Program{Commands: []Command{command("new", "make one"), command("list", "list them")}, Notes: "About keys.\n"}},
		}}
		var stdout, stderr bytes.Buffer
		err := p.Run(tc.args, &stdout, &stderr)
		if errors.Is(err, ErrUsage) != (tc.usage != "") || (err != nil && !strings.HasSuffix(err.Error(), tc.usage)) || ran != tc.ran || stdout.String() != tc.stdout || stderr.Len() > 0 {
			t.Errorf("%q: ran %q, printed %q and %q, %v", tc.args, ran, stdout.String(), stderr.String(), err)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, arg := range []string{"-version", "--version"} {
		var out bytes.Buffer
		p := Program{Name: "x", Commands: []Command{{Name: "y"}}}
		if err := p.Run([]string{arg}, &out, &out); err != nil || !strings.HasPrefix(out.String(), "x ") || !strings.Contains(out.String(), "commit ") || !strings.HasSuffix(out.String(), runtime.Version()+"\n") {
			t.Errorf("%s: got %q, %v", arg, out.String(), err)
		}
	}
}
