package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// backup makes a backup of ClickHouse while writers run.
func backup(c *invocation) error {
	set := c.flags("backup")
	to := set.String("to", "", "`name` of a file that ends in .tar.gz, or of a directory, in ClickHouse's backups.allowed_path (standalone: data/clickhouse/backups); or one of ClickHouse's destinations, such as S3('...'). Default: a name with the time")
	wait := set.Duration("wait", time.Minute, "how long writers may take to end the blocks that they have begun")
	logger, err := c.parse()
	if err != nil {
		return err
	}
	if *to == "" {
		*to = repair.BackupName(time.Now())
	}
	signals, release := process.Notify()
	defer release()
	made, err := repair.MakeBackup(signals.Stop, c.cfg.Config, *to, *wait, logger)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s: %d bytes; writers paused for %.1f s\n%s\n", made.To, made.Bytes, made.Paused.Seconds(), made.Manifest.Personal)
	return err
}

// restore exits with 1 if records between the backup and the log are lost.
func restore(c *invocation) error {
	set := c.flags("restore")
	var what repair.RestoreConfig
	set.StringVar(&what.From, "from", "", "`name` or destination of the backup, as `rollup-writer backup -to` has it")
	set.BoolVar(&what.Erasures, "erasures-are-known", false, "the topic of identity state was made anew since the backup, and holds every erasure that was ordered since all the same")
	logger, err := c.parse(func() error {
		if what.From == "" {
			return errors.New("from must name a backup")
		}
		return nil
	})
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	report, err := repair.RestoreBackup(signals.Stop, c.cfg.Config, what, logger)
	if err != nil {
		return err
	}
	if err := report.WriteText(c.stdout); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if !report.Complete() {
		return repair.ErrLost
	}
	return nil
}
