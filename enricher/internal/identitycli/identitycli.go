// Package identitycli implements `enricher identity`: it shows what is known about an
// id and why, and orders the undoing of a wrong link.
//
// It reads the changelog of identity state, of the partitions of the id and of those it
// leads to, and writes one kind of record, an order in links. It owns the commands'
// flags and output; the meaning of the records belongs to package identity.
package identitycli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/identity"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/kafka"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/registry"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// ErrNoLink is in the chain of unlink's error when there is nothing to undo.
var ErrNoLink = errors.New("is not linked")

// Commands are show and unlink. They print to stdout.
func Commands(getenv func(string) (string, bool), stdout, stderr io.Writer) *process.Program {
	do := func(command string) func([]string) error {
		return func(args []string) error { return runCommand(command, args, getenv, stdout, stderr) }
	}
	return &process.Program{
		Commands: []process.Command{
			{Name: "show", Summary: "show what is known about an id and from which record", Run: do("show")},
			{Name: "unlink", Summary: "undo a wrong link of an id to a user and move back what it moved", Run: do("unlink")},
		},
		Notes: "An id is named by -anonymous ID or -user ID, within -app APP.\n",
	}
}

func runCommand(command string, args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) error {
	set := process.NewFlags("enricher identity "+command, "warn", stderr)
	c := client{kafka: kafka.DefaultConfig("uptake-identity"), out: stdout}
	c.kafka.Flags(set.FlagSet)
	c.registry.Flags(set.FlagSet)
	set.StringVar(&c.app, "app", "", "`app` that the id belongs to")
	var anonymousID, userID, from, until string
	set.StringVar(&anonymousID, "anonymous", "", "anonymous `id`")
	set.StringVar(&userID, "user", "", "user `id`")
	timeout := set.Duration("timeout", time.Minute, "how long the whole command may take")
	var force bool
	if command == "unlink" {
		set.StringVar(&from, "from", "", "`user` that the id was wrongly linked to")
		set.StringVar(&until, "until", "", "`instant` (RFC 3339): links by calls with an event time up to it are undone, later calls link again; empty: now")
		set.BoolVar(&force, "force", false, "give the order even if no such link is known, for a link that is still in transit")
	} else {
		set.BoolVar(&c.json, "json", false, "print JSON")
	}
	limit := time.Now()
	logger, err := set.Parse(args, getenv, c.kafka.Validate, c.registry.Validate, func() error {
		var faults []error
		if c.app == "" {
			faults = append(faults, errors.New("-app must be named"))
		}
		if (anonymousID == "") == (userID == "") {
			faults = append(faults, errors.New("one of -anonymous and -user must be named"))
		}
		if command == "unlink" && from == "" {
			faults = append(faults, errors.New("-from must name the user"))
		}
		if until != "" {
			var err error
			if limit, err = time.Parse(time.RFC3339, until); err != nil {
				faults = append(faults, fmt.Errorf("-until: %w", err))
			}
		}
		return errors.Join(faults...)
	})
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	if err := c.open(ctx, logger); err != nil {
		return err
	}
	defer c.close()
	who := id{event.ActorUser, userID}
	if anonymousID != "" {
		who = id{event.ActorAnonymous, anonymousID}
	}
	if command == "show" {
		return c.show(ctx, who)
	}
	return c.unlink(ctx, who, from, event.FromTime(limit), force)
}

// id is an anonymous id or a user.
type id struct{ kind, id string }

func (i id) String() string {
	if i.kind == event.ActorAnonymous {
		return fmt.Sprintf("anonymous id %q", i.id)
	}
	return fmt.Sprintf("user %q", i.id)
}

// client is one run of a command.
type client struct {
	kafka    kafka.Config
	registry registry.Config
	app      string
	json     bool
	out      io.Writer

	codec      *event.Codec
	cl         *kgo.Client
	reader     *reader.Reader
	names      *topic.Names
	partitions int32
}

func (c *client) open(ctx context.Context, log *slog.Logger) error {
	c.names = c.kafka.Names()
	opts, err := c.kafka.Options(log, nil)
	if err != nil {
		return err
	}
	if c.codec, err = c.registry.Codec(ctx); err != nil {
		return err
	}
	opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()))
	if c.cl, err = kgo.NewClient(opts...); err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	infos, err := c.names.Check(ctx, kadm.NewClient(c.cl), c.names.Raw, c.names.Links, c.names.Enriched, c.names.EnricherState)
	if err == nil {
		c.partitions = infos[c.names.EnricherState].Partitions
		c.reader, err = reader.New(opts...)
	}
	if err != nil {
		c.cl.Close()
	}
	return err
}

func (c *client) close() {
	c.reader.Close()
	c.cl.Close()
}

// read returns the newest records about an id in the changelog of a partition.
func (c *client) read(ctx context.Context, partition int32, about func(*identity.Record) bool) ([]identity.Record, error) {
	b, err := c.reader.Bounds(ctx, c.names.EnricherState, partition)
	if err != nil {
		return nil, err
	}
	newest := map[string]int{}
	var list []identity.Record
	_, err = c.reader.Read(ctx, c.names.EnricherState, partition, b.Start, b.End, func(r *kgo.Record) error {
		key := string(r.Key)
		if i, ok := newest[key]; ok {
			list[i] = identity.Record{} // replaced or withdrawn
			delete(newest, key)
		}
		if len(r.Value) == 0 {
			return nil
		}
		rec, err := identity.Inspect(c.codec, r.Value)
		if err != nil {
			return fmt.Errorf("record at offset %d: %w", r.Offset, err)
		}
		if rec.AppID == c.app && about(&rec) {
			newest[key] = len(list)
			list = append(list, rec)
		}
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	var kept []identity.Record
	for _, r := range list {
		if r.Kind != "" {
			kept = append(kept, r)
		}
	}
	return kept, nil
}

// unlink gives the order, after checking what it would undo.
func (c *client) unlink(ctx context.Context, who id, from string, until event.Micros, force bool) error {
	known, err := c.known(ctx, who)
	if err != nil {
		return err
	}
	if !known.linkedTo(from, until) && !force {
		return fmt.Errorf("%s of app %q %w to user %q up to %s: see `enricher identity show`, or use -force for a link that is still in transit",
			who, c.app, ErrNoLink, from, at(until))
	}
	orders := []id{who}
	// An alias call also claims the previous id as an anonymous id: undoing one undoes
	// the other.
	if who.kind == event.ActorUser {
		twin := id{event.ActorAnonymous, who.id}
		k, err := c.known(ctx, twin)
		if err != nil {
			return err
		}
		if k.linkedTo(from, until) {
			orders = append(orders, twin)
		}
	}
	for _, o := range orders {
		l := identity.Unlink(c.app, o.kind, o.id, from, until, event.FromTime(time.Now()))
		rec := &kgo.Record{
			Topic: c.names.Links, Partition: identity.Home(c.app, o.kind, o.id, c.partitions),
			Key: identity.Key(c.app, o.kind, o.id), Value: c.codec.AppendLink(nil, &l),
		}
		done, err := c.cl.ProduceSync(ctx, rec).First()
		if err != nil {
			return fmt.Errorf("give the order to unlink %s from %q: %w", o, from, err)
		}
		fmt.Fprintf(c.out, "ordered: unlink %s from %q, for calls up to %s (record %d of %s/%d)\n",
			o, from, at(until), done.Offset, done.Topic, done.Partition)
	}
	return nil
}

// at formats an instant for display.
func at(us event.Micros) string {
	if us == 0 {
		return "-"
	}
	return event.ToTime(us).Format("2006-01-02T15:04:05.999999Z07:00")
}
