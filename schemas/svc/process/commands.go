package process

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Command is one command of a program.
type Command struct {
	Name    string
	Summary string // a line of the usage
	// Run does it, with the arguments after the name. Errors of the command line are
	// ErrUsage; Flags.Parse returns such.
	Run func(args []string) error
	// Group, in place of Run, are the commands that the name begins, such as those of
	// `enricher catalog`. Its Name is not given: it follows from the enclosing one.
	Group *Program
}

// Program is a table of commands. All programs behave alike: help, -help and -h print
// the usage on standard output; a command's -help prints its flags; an unknown command
// is ErrUsage with the usage.
type Program struct {
	Name     string
	Default  string // the command that runs if none is named; "": one must be named
	Commands []Command
	Notes    string // end of the usage; lines
}

// Usage lists the commands, those of groups too.
func (p *Program) Usage() string {
	var names, summaries []string
	var list func(prefix string, commands []Command)
	list = func(prefix string, commands []Command) {
		for _, c := range commands {
			if c.Group != nil {
				list(prefix+c.Name+" ", c.Group.Commands)
				continue
			}
			names, summaries = append(names, prefix+c.Name), append(summaries, c.Summary)
		}
	}
	list("", p.Commands)
	width := len(slices.MaxFunc(names, func(a, b string) int { return len(a) - len(b) }))
	named := "<command>"
	if p.Default != "" {
		named = "[command]"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s %s [flags]\n\nCommands:\n", p.Name, named)
	for i, n := range names {
		if n == p.Default {
			summaries[i] += " (the default)"
		}
		fmt.Fprintf(&b, "  %-*s  %s\n", width, n, summaries[i])
	}
	fmt.Fprintf(&b, "\nFlags of a command: %s <command> -help\n", p.Name)
	b.WriteString("Every flag can be given as UPTAKE_<FLAG> in the environment or in a -config file.\n")
	b.WriteString(p.Notes)
	return b.String()
}

// Run runs the command that args begin with. -version prints what the binary was built
// from. -help prints the usage and then, on stderr, the flags of the default command if
// there is one.
func (p *Program) Run(args []string, stdout, stderr io.Writer) error {
	if PrintVersion(p.Name, args, stdout) {
		return nil
	}
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	switch {
	case name == "help":
		_, err := io.WriteString(stdout, p.Usage())
		return err
	case isHelp(name):
		if _, err := io.WriteString(stdout, p.Usage()+"\n"); err != nil || p.Default == "" {
			return err
		}
	}
	if p.Default != "" && (name == "" || name[0] == '-') {
		name = p.Default
	} else if len(args) > 0 {
		args = args[1:]
	}
	for i := range p.Commands {
		switch c := &p.Commands[i]; {
		case c.Name != name:
		case c.Group != nil:
			group := *c.Group
			group.Name = p.Name + " " + c.Name
			return group.Run(args, stdout, stderr)
		default:
			return c.Run(args)
		}
	}
	if name == "" {
		return fmt.Errorf("%w: %s needs a command\n%s", ErrUsage, p.Name, p.Usage())
	}
	return fmt.Errorf("%w: unknown command %q\n%s", ErrUsage, name, p.Usage())
}

func isHelp(arg string) bool { return arg == "-h" || arg == "-help" || arg == "--help" }
