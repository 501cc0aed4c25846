package main

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/retention"
	"github.com/uptakehq/uptake/schemas/privacy"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// retain sets the TTL of each app's events to the retention of the privacy rules. Run
// it again whenever the rules change.
func retain(c *invocation) (err error) {
	set := c.flags("retention")
	file := set.String("privacy-file", "", "YAML `file` of the privacy rules: retention_days of each app; docs/privacy.md")
	look := set.Bool("dry-run", false, "report what would change, and change nothing")
	if _, err := c.parse(); err != nil {
		return err
	}
	if *file == "" {
		return process.UsageError(errors.New("privacy-file must name a file"))
	}
	policy, err := privacy.Load(*file)
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	ctx := signals.Stop
	if err := c.database(ctx); err != nil {
		return err
	}
	conn, err := clickhouse.OpenSQL(&c.cfg.ClickHouse)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	changes, err := retention.Apply(ctx, conn, c.cfg.ClickHouse.Schema(), policy.Retention(), *look)
	for _, ch := range changes {
		fmt.Fprintf(c.stdout, "%s\n  was: %s\n  is:  %s\n", ch.Table, cmp.Or(ch.Was, "kept forever"), cmp.Or(ch.Is, "kept forever"))
	}
	if len(changes) == 0 && err == nil {
		fmt.Fprintln(c.stdout, "nothing changes")
	}
	return err
}
