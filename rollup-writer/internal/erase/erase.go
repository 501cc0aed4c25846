// Package erase deletes a person's data: what ClickHouse and the enrichers hold of a user, of
// the users that are the same person by alias, and of the anonymous ids that are theirs.
// `rollup-writer erase` is the command; its receipt lists the rows left in each table.
//
// It owns the search for the ids, the order to the enrichers, the wait until it is
// executed, and the SQL that rewrites tables. enricher/internal/identity executes the
// order in the enrichers; the running writers move the counts, as for every correction.
// Writers and enrichers continue meanwhile, and must be running: nothing is executed
// without them.
//
// # Steps
//
// Each step checks the present state and does what is missing, so that another run
// completes an interrupted one.
//
//  1. The ids are looked up and listed in a table of this run, erasing_*, which
//     is all that the statements below name.
//  2. An order goes into every partition of links. Its enricher deletes the state of
//     the ids, drops later events of them, and writes a control record by which the
//     writer moves their counts to an actor without a name, in the same accounts and
//     features. Before it, hashes of the users go into the state of alerts, so that
//     nothing is said of them any more (signals.go).
//  3. When every partition has executed it, the ids are looked up again: a call in
//     transit may have named another one. Steps 2 and 3 repeat until no id is new and
//     no rollup counts anything for the ids. After that no new row can name one of
//     them.
//  4. Tables are rewritten. In events, corrections and their plans rows stay and
//     lose ids and contents, by one rule, so that events and corrections add up to
//     usage_hourly as before; the rows of usage_hourly and user_feature_daily,
//     which add up to zero, are deleted, and so are the facts about their identity.
//     Metrics that their calls reported are kept for their accounts, under a keyed
//     hash.
//     The state of alerts about them is deleted.
//  5. The rows that are left are counted, in every table that has a column for ids, and in
//     the changelogs of identity state and of alerts. The list is dropped.
//
// # Shared devices
//
// Rows that another user did on a shared device stay theirs, without the
// anonymous id if that is erased. An anonymous id that was linked to others too
// is not erased; what was counted through it for the person is. Events from
// before its first link are the person's if they were moved to the person.
package erase

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/topic"
)

// ErrLeft means that the run was completed and rows are left; the receipt lists them.
var ErrLeft = errors.New("rows are left")

// Config names the person to erase.
type Config struct {
	App, User string
	// Group that the enrichers share.
	Enrichers string
	// Wait bounds how long the services may take to execute an order.
	Wait time.Duration
	// DryRun looks up the ids and counts rows, and changes nothing.
	DryRun bool
	// Rejected removes the bytes of events that gateways rejected of all persons who
	// were erased before, instead of erasing a user.
	Rejected bool
	// Again applies all former erasures of the app to the tables once more, instead of
	// erasing a user.
	Again bool
}

// DefaultConfig names nobody.
func DefaultConfig() Config {
	return Config{Enrichers: topic.BaseGroupEnricher, Wait: 10 * time.Minute}
}

// ExportFlags defines those settings as flags of set that an export has.
func (c *Config) ExportFlags(set *flag.FlagSet) {
	set.StringVar(&c.App, "app", c.App, "`id` of the app that the user belongs to")
	set.StringVar(&c.User, "user", c.User, "`id` of the user")
}

// Flags defines the settings as flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	c.ExportFlags(set)
	set.StringVar(&c.Enrichers, "enricher-group", c.Enrichers, "consumer `group` of the enrichers; kafka-prefix is put before it")
	set.DurationVar(&c.Wait, "wait", c.Wait, "how long enrichers and writers may take to carry out an order")
	set.BoolVar(&c.Rejected, "rejected", c.Rejected, "in place of a user: take the bytes from what gateways have rejected of all who were erased before")
	set.BoolVar(&c.Again, "again", c.Again, "in place of a user: apply all former erasures of the app to the tables once more, after a restore or when writers have read the log again")
	set.BoolVar(&c.DryRun, "dry-run", c.DryRun, "show which ids are the person's and what is held of them, and change nothing")
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	if c.App == "" {
		errs = append(errs, errors.New("app must be named"))
	}
	switch {
	case c.Rejected, c.Again:
		if c.User != "" || c.DryRun || c.Rejected == c.Again {
			errs = append(errs, errors.New("rejected and again go with app alone, not with each other, user or dry-run"))
		}
	case c.User == "" || !utf8.ValidString(c.User):
		errs = append(errs, fmt.Errorf("user must be named, in UTF-8 (got %q)", c.User))
	}
	if c.Enrichers == "" {
		errs = append(errs, errors.New("enricher-group must be named"))
	}
	if c.Wait <= 0 {
		errs = append(errs, fmt.Errorf("wait must be > 0 (got %s)", c.Wait))
	}
	return errors.Join(errs...)
}

// Dependencies of a run. They belong to the caller.
type Dependencies struct {
	Logger *slog.Logger
	SQL    driver.Conn
	Shards []driver.Conn // to each shard, SQL among them
	Schema tables.Schema
	// Kafka produces to the partition that a record names, with acks of all replicas.
	Kafka *kgo.Client
	Names *topic.Names
	Codec *event.Codec
}

// eraser is one run.
type eraser struct {
	Dependencies
	cfg        Config
	admin      *kadm.Client
	partitions int32
	key        []byte // of the hashes
	list       list
	known      map[event.KnownPair]bool // pairs to withdraw
	ordered    map[string]bool          // what orders of this run have named
	silenced   map[string]bool          // users of whom alerts say nothing any more
	pause      func(context.Context) error
}

// maxRounds bounds how often ids are looked up again. Calls that arrive during the
// erasure are dropped, so the second round is the last one unless calls were in
// transit.
const maxRounds = 6

// Run erases the person that cfg, which is valid, names. With ErrLeft it returns the
// receipt too.
func Run(ctx context.Context, cfg Config, dep Dependencies) (*Receipt, error) {
	e := newEraser(cfg, dep)
	return e.run(e.context(ctx))
}

func newEraser(cfg Config, dep Dependencies) *eraser {
	return &eraser{
		Dependencies: dep, cfg: cfg, admin: kadm.NewClient(dep.Kafka), ordered: map[string]bool{},
		pause: func(ctx context.Context) error { return backoff.Sleep(ctx, 200*time.Millisecond) },
	}
}

// open lists the ids that are the person's.
func (e *eraser) open(ctx context.Context) error {
	infos, err := e.Names.Check(ctx, e.admin, e.Names.Raw, e.Names.Links, e.Names.Enriched, e.Names.EnricherState)
	if err != nil {
		return err
	}
	e.partitions = infos[e.Names.Links].Partitions
	if err := e.findKey(ctx); err != nil {
		return err
	}
	if err := e.openList(ctx); err != nil {
		return err
	}
	return e.find(ctx)
}

func (e *eraser) run(ctx context.Context) (*Receipt, error) {
	if err := e.open(ctx); err != nil {
		return nil, err
	}
	if e.cfg.DryRun {
		receipt, err := e.receipt(ctx, nil)
		return receipt, errors.Join(err, e.closeList(ctx))
	}
	if err := e.rounds(ctx); err != nil {
		return nil, err
	}
	before, err := e.counts(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.sweep(ctx); err != nil {
		return nil, err
	}
	if err := e.forgetSignals(ctx); err != nil {
		return nil, err
	}
	receipt, err := e.receipt(ctx, before)
	if err != nil {
		return nil, err
	}
	if !receipt.Complete {
		return receipt, ErrLeft
	}
	return receipt, e.dropList(ctx)
}

// rounds gives orders until no id is new and nothing is counted.
func (e *eraser) rounds(ctx context.Context) error {
	for round := range maxRounds {
		counted, err := e.counted(ctx)
		if err != nil {
			return err
		}
		orders := e.orders(counted)
		if round > 0 && len(orders) == 0 {
			left, err := e.remaining(ctx)
			if err != nil || left == 0 {
				return err
			}
			e.Logger.Warn("the rollups still count something for the person", "cells", left)
			clear(e.ordered)
			orders = e.orders(counted)
		}
		e.Logger.Info("order to erase", "round", round+1, "users", len(e.list.users), "anonymous_ids", len(e.list.anonymous), "records", len(orders))
		if err := e.silence(ctx); err != nil {
			return err
		}
		if err := e.order(ctx, orders); err != nil {
			return err
		}
		if err := e.find(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("after %d orders the rollups still count something for the person, or new ids of theirs turn up: "+
		"are all enrichers and writers of this release? run it again, it goes on from here", maxRounds)
}
