// Package catalogcli implements `enricher catalog ...` and `enricher metadata ...`, the
// commands for catalogs and for the types of keys.
//
// It owns the commands, their flags and their output. The catalog's format and the
// effect of a version belong to schemas/catalog, agreement on types to metadata. A
// version is written as the only writer of its app (package arbiter), so that of two
// concurrent applies the later one fails.
package catalogcli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/svc/kafka"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// ErrFindings is the error of lint when it finds something.
var ErrFindings = errors.New("the catalog has findings")

// command is one invocation.
type command struct {
	set    *flag.FlagSet
	stdout io.Writer
	stderr io.Writer
	getenv func(string) (string, bool)
	now    func() time.Time

	kafka kafka.Config
	app   string
}

// Commands are the groups catalog and metadata. begin returns the context of a command
// and what releases it.
func Commands(begin func() (context.Context, func()), stdout, stderr io.Writer, getenv func(string) (string, bool)) []process.Command {
	group := func(name string, list ...process.Command) process.Command {
		return process.Command{Name: name, Group: &process.Program{Commands: list}}
	}
	one := func(name, summary string, do func(*command, context.Context, []string) error) process.Command {
		_, verb, _ := strings.Cut(name, " ")
		return process.Command{Name: verb, Summary: summary, Run: func(args []string) error {
			ctx, release := begin()
			defer release()
			c := &command{
				set: flag.NewFlagSet("enricher "+name, flag.ContinueOnError), stdout: stdout, stderr: stderr, getenv: getenv, now: time.Now,
				kafka: kafka.DefaultConfig("uptake-catalog"),
			}
			c.set.SetOutput(stderr)
			return do(c, ctx, args)
		}}
	}
	return []process.Command{
		group("catalog",
			one("catalog init", "write a sample catalog to start from", (*command).catalogInit),
			one("catalog lint", "report likely mistakes in a catalog", (*command).catalogLint),
			one("catalog plan", "show what a version would change", (*command).catalogPlan),
			one("catalog apply", "apply a file as the version in force", (*command).catalogApply),
			one("catalog export", "write a version as YAML, CSV, JSON or a tracking plan", (*command).catalogExport),
			one("catalog history", "list the versions", (*command).catalogHistory),
			one("catalog import", "convert a CSV file or a tracking plan to a catalog", (*command).catalogImport),
			one("catalog page", "describe what an app collects and keeps, as Markdown", (*command).catalogPage),
		),
		group("metadata",
			one("metadata show", "list the types of keys", (*command).metadataShow),
			one("metadata pin", "set the type of a key", (*command).metadataPin),
			one("metadata reset", "delete the types of a key and all keys in it, of a prefix, or of a source's keys", (*command).metadataReset),
			one("metadata recover", "move values of a key from conflicts into its column", (*command).metadataRecover),
			one("metadata suggest", "find keys whose first value was odd; pin and recover them", (*command).metadataSuggest),
		),
	}
}

// parse reads the flags, which may be before and after the arguments, and returns as
// many arguments as there are names.
func (c *command) parse(args []string, names ...string) ([]string, error) {
	c.set.Usage = func() {
		fmt.Fprintf(c.stderr, "Usage: %s [flags]%s\n\n", c.set.Name(), strings.Join(append([]string{""}, names...), " "))
		c.set.PrintDefaults()
	}
	rest, err := setting.Parse(c.set, flagsFirst(c.set, args), c.getenv)
	if err != nil {
		return nil, process.UsageError(err)
	}
	if len(rest) != len(names) {
		return nil, fmt.Errorf("%w: %s needs [%s] (got %d arguments)", process.ErrUsage, c.set.Name(), strings.Join(names, " "), len(rest))
	}
	return rest, nil
}

// flagsFirst moves the flags before the arguments, as package flag requires.
func flagsFirst(set *flag.FlagSet, args []string) []string {
	var flags, rest []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			rest = append(rest, a)
			continue
		}
		flags = append(flags, a)
		name := strings.TrimLeft(a, "-")
		if strings.Contains(name, "=") || name == "h" || name == "help" {
			continue
		}
		if f := set.Lookup(name); f != nil {
			if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
				continue
			}
		}
		if i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return append(append(flags, "--"), rest...)
}

// needsLog adds the flags of the cluster and of the app.
func (c *command) needsLog() {
	c.kafka.Flags(c.set)
	c.set.StringVar(&c.app, "app", "", "`app` of the catalog or the keys")
}

// options returns the connection options of the cluster, and checks the flags of
// needsLog.
func (c *command) options() ([]kgo.Opt, error) {
	errs := []error{c.kafka.Validate()}
	if c.app == "" {
		errs = append(errs, errors.New("app must be named"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, process.UsageError(err)
	}
	return c.kafka.Options(c.logger(), nil)
}

// logger logs only problems with the cluster.
func (c *command) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

// read reads a file, or standard input for "-".
func read(path string) ([]byte, error) {
	if path == "-" {
		text, err := io.ReadAll(io.LimitReader(os.Stdin, catalog.MaxBytes+1))
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return text, nil
	}
	return os.ReadFile(path)
}

// load reads and parses a catalog.
func load(path string) (*catalog.Catalog, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	c, err := catalog.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("catalog %s:\n%w", path, err)
	}
	return c, nil
}

// write writes to a file, or to standard output for "-". It does not overwrite a file.
func (c *command) write(path string, text []byte) error {
	if path == "-" || path == "" {
		_, err := c.stdout.Write(text)
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// table prints rows whose cells are separated by tabs.
func (c *command) table(rows ...string) error {
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, r)
	}
	return w.Flush()
}
