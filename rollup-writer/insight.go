package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/definitions"
	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

const insightUsage = `Usage: rollup-writer insight <command> [flags]

Commands:
  lint   check a file, and with -catalog-file what it names
  plan   show what an apply would change
  apply  make a file the definitions in force
  show   print the file in force

Flags of a command: rollup-writer insight <command> -help
docs/insights.md describes the format.
`

// errFindings is the error of lint when the file has findings.
var errFindings = errors.New("the file has findings")

// insights runs the subcommands lint, plan, apply and show.
func insights(c *invocation, stdout io.Writer) error {
	command := ""
	if len(c.args) > 0 {
		command, c.args = c.args[0], c.args[1:]
	}
	switch command {
	case "lint":
		return lintInsight(c, stdout)
	case "plan", "apply", "show":
		return changeInsight(c, command, stdout)
	case "help", "-help", "--help", "-h":
		fmt.Fprint(stdout, insightUsage)
		return nil
	}
	return fmt.Errorf("%w: unknown command %q\n%s", process.ErrUsage, "insight "+command, insightUsage)
}

func readInsight(file string) (*insight.Definitions, string, error) {
	if file == "" {
		return nil, "", process.UsageError(errors.New("file must name a file"))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, "", fmt.Errorf("read definitions: %w", err)
	}
	d, err := insight.Parse(text)
	if err != nil {
		return nil, "", fmt.Errorf("%s:\n%w", file, err)
	}
	return d, string(text), nil
}

func lintInsight(c *invocation, stdout io.Writer) error {
	set := c.flags("insight lint")
	file := set.String("file", "", "YAML `file` of the definitions")
	catalogFile := set.String("catalog-file", "", "YAML `file` of the catalog that the definitions refer to; empty: check the format only")
	if _, err := c.parse(); err != nil {
		return err
	}
	d, _, err := readInsight(*file)
	if err != nil {
		return err
	}
	if *catalogFile == "" {
		fmt.Fprintf(stdout, "%s: %d rules\n", *file, len(d.Rules))
		return nil
	}
	text, err := os.ReadFile(*catalogFile)
	if err != nil {
		return fmt.Errorf("read catalog: %w", err)
	}
	features, err := catalog.Parse(text)
	if err != nil {
		return fmt.Errorf("%s:\n%w", *catalogFile, err)
	}
	found := insight.Lint(d, features)
	for _, f := range found {
		fmt.Fprintf(stdout, "%s: %s\n", *file, f)
	}
	if len(found) > 0 {
		return errFindings
	}
	fmt.Fprintf(stdout, "%s: %d rules, nothing found\n", *file, len(d.Rules))
	return nil
}

func changeInsight(c *invocation, command string, stdout io.Writer) (err error) {
	set := c.flags("insight " + command)
	app := set.String("app", "", "`id` of the app")
	file, by := new(string), new(string)
	if command != "show" {
		set.StringVar(file, "file", "", "YAML `file` of the definitions")
	}
	if command == "apply" {
		set.StringVar(by, "by", os.Getenv("USER"), "`name` of the person who applies it, for the history")
	}
	if _, err := c.parse(); err != nil {
		return err
	}
	if *app == "" {
		return process.UsageError(errors.New("app must name an app"))
	}
	var d *insight.Definitions
	var text string
	if command != "show" {
		if d, text, err = readInsight(*file); err != nil {
			return err
		}
	}
	signals, release := process.Notify()
	defer release()
	s, err := definitions.Open(signals.Stop, &c.cfg.ClickHouse, *app)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	v, err := s.InForce(signals.Stop)
	if err != nil {
		return err
	}
	if command == "show" {
		if v.Number == 0 {
			return fmt.Errorf("app %s has no definitions", *app)
		}
		fmt.Fprintf(stdout, "# version %d of app %s, applied %s by %s\n%s", v.Number, *app, v.Applied.UTC().Format(time.RFC3339), v.By, v.Text)
		return nil
	}
	return planOrApply(signals.Stop, s, v, d, text, command == "apply", *by, stdout)
}

// planOrApply prints the changes and what lint finds against the app's catalog, and
// applies them if asked to.
func planOrApply(ctx context.Context, s *definitions.Store, v definitions.Version, d *insight.Definitions, text string, apply bool, by string, stdout io.Writer) error {
	found, err := s.Lint(ctx, d)
	if err != nil {
		return err
	}
	for _, f := range found {
		fmt.Fprintf(stdout, "finding: %s\n", f)
	}
	change := d.Compare(v.Rules)
	for _, r := range change.Removed {
		fmt.Fprintf(stdout, "- %s\n", r)
	}
	for _, r := range change.Added {
		fmt.Fprintf(stdout, "+ %s\n", r)
	}
	if change.Empty() && v.Text == text {
		fmt.Fprintf(stdout, "nothing changes: version %d\n", v.Number)
		return nil
	}
	if !apply {
		fmt.Fprintf(stdout, "version %d would become %d\n", v.Number, v.Number+1)
		return nil
	}
	n, err := s.Apply(ctx, v, d, text, by, time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "version %d is in force\n", n)
	return nil
}
