package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/alert"
	"github.com/uptakehq/uptake/rollup-writer/definitions"
	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// errFindings is the error of lint when the file has findings.
var errFindings = errors.New("the file has findings")

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

func lintInsight(c *invocation) error {
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
		fmt.Fprintf(c.stdout, "%s: %d rules\n", *file, len(d.Rules))
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
		fmt.Fprintf(c.stdout, "%s: %s\n", *file, f)
	}
	if len(found) > 0 {
		return errFindings
	}
	fmt.Fprintf(c.stdout, "%s: %d rules, nothing found\n", *file, len(d.Rules))
	return nil
}

func planInsight(c *invocation) error  { return changeInsight(c, "plan", c.stdout) }
func applyInsight(c *invocation) error { return changeInsight(c, "apply", c.stdout) }
func showInsight(c *invocation) error  { return changeInsight(c, "show", c.stdout) }

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
	if command == "plan" {
		defer func() {
			if err == nil {
				err = showTouches(signals.Stop, c, *app, v, d, stdout)
			}
		}()
	}
	return planOrApply(signals.Stop, s, v, d, text, command == "apply", *by, stdout)
}

// inForce are the definitions of a version; nil: there is none.
func inForce(v definitions.Version) (*insight.Definitions, error) {
	if v.Number == 0 {
		return nil, nil
	}
	signals, err := insight.SignalsOf(v.Rules)
	if err != nil {
		return nil, fmt.Errorf("definitions in force: %w", err)
	}
	return &insight.Definitions{Rules: v.Rules, Signals: signals}, nil
}

// touched is how many subjects are named in a line of plan.
const touched = 10

// showTouches writes whom the signals of d would take in or let go today, and what
// receivers said about the alerts that it changes.
func showTouches(ctx context.Context, c *invocation, app string, v definitions.Version, d *insight.Definitions, stdout io.Writer) (err error) {
	before, err := inForce(v)
	if err != nil {
		return err
	}
	look, err := alert.OpenLook(&c.cfg.ClickHouse, app)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, look.Close()) }()
	touches, err := look.Touches(ctx, before, d, time.Now())
	if err != nil {
		return err
	}
	verbs := map[string][2]string{insight.UseAlert: {"would fire for", "would end for"}}
	for _, t := range touches {
		verb, ok := verbs[t.Use]
		if !ok {
			verb = [2]string{"takes in", "loses"}
		}
		for i, list := range [][]string{t.Entering, t.Leaving} {
			if len(list) > 0 {
				fmt.Fprintf(stdout, "%s %s %s %d: %s\n", t.Use, t.Signal, verb[i], len(list), some(list))
			}
		}
	}
	feedback, err := look.Feedback(ctx)
	if err != nil {
		return err
	}
	for _, r := range d.Compare(v.Rules).Added {
		if f, ok := feedback[r.Key]; ok && r.Use == insight.UseAlert {
			fmt.Fprintf(stdout, "alert %s fired %d times so far: %d useful, %d false positives, %d withdrawn by corrections\n", r.Key, f.Alerts, f.Useful, f.FalsePositives, f.Retracted)
		}
	}
	return nil
}

func some(list []string) string {
	if len(list) > touched {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:touched], ", "), len(list)-touched)
	}
	return strings.Join(list, ", ")
}

func backtest(c *invocation) (err error) {
	id := ""
	if len(c.args) > 0 && !strings.HasPrefix(c.args[0], "-") {
		id, c.args = c.args[0], c.args[1:]
	}
	set := c.flags("insight backtest")
	app := set.String("app", "", "`id` of the app")
	file := set.String("file", "", "YAML `file` of the definitions; empty: those in force")
	from := set.String("from", "", "first `day` (UTC, as 2026-11-01)")
	to := set.String("to", "", "`day` after the last one; empty: today")
	if _, err := c.parse(); err != nil {
		return err
	}
	begin, err := time.Parse(time.DateOnly, *from)
	if err != nil {
		return process.UsageError(fmt.Errorf("from must be a day such as 2026-11-01 (got %q)", *from))
	}
	end := time.Now().UTC().Truncate(24 * time.Hour)
	if *to != "" {
		if end, err = time.Parse(time.DateOnly, *to); err != nil {
			return process.UsageError(fmt.Errorf("to must be a day such as 2026-11-30 (got %q)", *to))
		}
	}
	if id == "" || *app == "" || !begin.Before(end) || end.Sub(begin) > 366*24*time.Hour {
		return process.UsageError(fmt.Errorf("backtest takes the id of an alert, an app, and at most 366 days: insight backtest silent_shop -app dev -from 2026-11-01 (got %q, app %q, %s to %s)", id, *app, *from, end.Format(time.DateOnly)))
	}
	signals, release := process.Notify()
	defer release()
	d, err := definitionsOf(signals.Stop, c, *app, *file)
	if err != nil {
		return err
	}
	look, err := alert.OpenLook(&c.cfg.ClickHouse, *app)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, look.Close()) }()
	found, err := look.Backtest(signals.Stop, d, id, begin, end)
	if err != nil {
		return err
	}
	subjects := map[string]bool{}
	for _, f := range found {
		subjects[f.Subject] = true
		until := "and lasts"
		if !f.To.IsZero() {
			until = "until " + f.To.Format(time.DateTime)
		}
		fmt.Fprintf(c.stdout, "%s  %s %s: %s\n", f.From.Format(time.DateTime), f.Subject, until, f.Reason)
	}
	fmt.Fprintf(c.stdout, "alert %s would have fired %d times for %d subjects from %s to %s, on history as now known\n", id, len(found), len(subjects), begin.Format(time.DateOnly), end.Format(time.DateOnly))
	return nil
}

// definitionsOf a file, or those in force.
func definitionsOf(ctx context.Context, c *invocation, app, file string) (d *insight.Definitions, err error) {
	if file != "" {
		d, _, err = readInsight(file)
		return d, err
	}
	s, err := definitions.Open(ctx, &c.cfg.ClickHouse, app)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	v, err := s.InForce(ctx)
	if err != nil {
		return nil, err
	}
	if d, err = inForce(v); d == nil && err == nil {
		err = fmt.Errorf("app %s has no definitions", app)
	}
	return d, err
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
