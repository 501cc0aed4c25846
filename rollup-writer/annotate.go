package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/rollup"
	"github.com/uptakehq/uptake/schemas/note"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// annotateFor bounds how long the brokers may take to store an annotation.
const annotateFor = 30 * time.Second

// annotate writes an annotation to the topic of notes, from which the writers load it.
func annotate(c *invocation) (err error) {
	set := process.NewFlags("rollup-writer annotate", "warn", c.stderr)
	cfg := rollup.DefaultConfig()
	cfg.Kafka.Flags(set.FlagSet)
	app := set.String("app", "", "`id` of the app")
	var g note.Given
	set.StringVar(&g.Text, "text", "", "what happened, in `words`: one line of at most 500 bytes")
	set.StringVar(&g.At, "at", "", "`day`, such as 2026-11-20, or instant, such as 2026-11-20T15:04:05Z; empty: now")
	set.StringVar(&g.Category, "category", "release", "release, campaign, remap, incident or other")
	set.StringVar(&g.ID, "id", "", "`id` of the annotation: the same id again replaces it; empty: a new one")
	set.StringVar(&g.By, "by", os.Getenv("USER"), "who or what did it")
	remove := set.Bool("remove", false, "delete the annotation that -id names")
	var n *note.Note
	check := func() (err error) {
		if !*remove {
			n, err = note.NewAnnotation(*app, g, time.Now())
			return err
		}
		if g.ID == "" || g.Text != "" || g.At != "" {
			return errors.New("remove needs id, and neither text nor at")
		}
		n = &note.Note{App: *app, Kind: note.KindAnnotation, ID: g.ID, By: g.By, Written: time.Now().UTC().Truncate(time.Millisecond), Removed: true}
		return n.Validate()
	}
	logger, err := set.Parse(c.args, c.getenv, cfg.Kafka.Validate, check)
	if err != nil {
		return err
	}
	opts, err := cfg.Kafka.Options(logger, nil)
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	log, err := note.NewLog(opts, cfg.Kafka.Names())
	if err != nil {
		return err
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(signals.Stop, annotateFor)
	defer cancel()
	if err := log.Write(ctx, n); err != nil {
		return err
	}
	done := "is on the time axes of"
	if n.Removed {
		done = "is deleted from"
	}
	fmt.Fprintf(c.stdout, "annotation %s %s %s as soon as a writer has loaded it\n", n.ID, done, n.App)
	return nil
}
