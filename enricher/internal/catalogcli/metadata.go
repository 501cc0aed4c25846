package catalogcli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/uptakehq/uptake/enricher/internal/metadata"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// agreement opens the metadata of the log.
func (c *command) agreement() (*metadata.Agreement, error) {
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	return metadata.NewAgreement(metadata.AgreementConfig{Options: opts, Names: c.kafka.Names(), Limits: metadata.DefaultLimits(), Logger: c.logger(), Now: c.now})
}

func (c *command) metadataShow(ctx context.Context, args []string) error {
	c.needsLog()
	sources := c.set.Bool("sources", false, "show how many keys each source created, most first, instead of the keys")
	prefix := c.set.String("under", "", "`path` to show, with all keys below it, such as properties.cart; empty: all")
	if _, err := c.parse(args); err != nil {
		return err
	}
	a, err := c.agreement()
	if err != nil {
		return err
	}
	defer a.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := a.Load(ctx); err != nil {
		return err
	}
	entries := a.Entries(c.app)
	paths := make([]string, 0, len(entries))
	for path := range entries {
		if *prefix == "" || path == *prefix || strings.HasPrefix(path, *prefix+".") {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	if *sources {
		return c.table(sourceRows(entries, paths)...)
	}
	rows := []string{"key\ttype\tsince\tsource\tpinned by\treason"}
	for _, path := range paths {
		e := entries[path]
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", path, e.Type, e.At.UTC().Format(time.RFC3339), e.Source, e.Author, e.Reason))
	}
	return c.table(rows...)
}

// sourceRows are a table of the sources of keys.
func sourceRows(entries map[string]metadata.Entry, paths []string) []string {
	type made struct {
		source      string
		keys        int
		first, last time.Time
		example     string
	}
	by := map[string]*made{}
	for _, path := range paths {
		e := entries[path]
		m := by[e.Source]
		if m == nil {
			m = &made{source: e.Source, first: e.At, last: e.At, example: path}
			by[e.Source] = m
		}
		m.keys++
		if e.At.Before(m.first) {
			m.first = e.At
		}
		if e.At.After(m.last) {
			m.last = e.At
		}
	}
	list := slices.SortedFunc(maps.Values(by), func(a, b *made) int { return cmp.Or(b.keys-a.keys, strings.Compare(a.source, b.source)) })
	rows := []string{"source\tkeys\tfirst\tlast\tsuch as"}
	for _, m := range list {
		rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%s\t%s", cmp.Or(m.source, "unknown"), m.keys, m.first.UTC().Format(time.RFC3339), m.last.UTC().Format(time.RFC3339), m.example))
	}
	return rows
}

func (c *command) metadataPin(ctx context.Context, args []string) error {
	c.needsLog()
	author := c.set.String("author", "", "`author` of the decision: a person or a role")
	reason := c.set.String("reason", "", "`why`")
	rest, err := c.parse(args, "PATH", "TYPE")
	if err != nil {
		return err
	}
	typ, err := metadata.ParseType(rest[1])
	if *author == "" || *reason == "" {
		err = errors.Join(err, errors.New("author and reason must be given"))
	}
	if err != nil {
		return process.UsageError(err)
	}
	return c.decree(ctx, func(ctx context.Context, a *metadata.Agreement) error {
		if err := a.Pin(ctx, metadata.Key{App: c.app, Path: rest[0]}, typ, *author, *reason); err != nil {
			return err
		}
		fmt.Fprintf(c.stdout, "%s of %s is %s from now on; stored rows in ClickHouse are not changed\n", rest[0], c.app, typ)
		return nil
	})
}

func (c *command) metadataReset(ctx context.Context, args []string) error {
	c.needsLog()
	source := c.set.String("source", "", "only keys that this `source` created, see metadata show -sources")
	rest, err := c.parse(args, "PATH")
	if err != nil {
		return err
	}
	many := *source != "" || strings.HasSuffix(rest[0], "*") || rest[0] == metadata.Properties || rest[0] == metadata.Traits
	return c.decree(ctx, func(ctx context.Context, a *metadata.Agreement) error {
		if many {
			n, err := a.ResetAll(ctx, c.app, rest[0], *source)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.stdout, "%d keys of %s have no type now; their next values decide\n", n, c.app)
			return nil
		}
		if err := a.Reset(ctx, metadata.Key{App: c.app, Path: rest[0]}); err != nil {
			return err
		}
		fmt.Fprintf(c.stdout, "%s of %s has no type now; its next value decides\n", rest[0], c.app)
		return nil
	})
}

func (c *command) decree(ctx context.Context, do func(context.Context, *metadata.Agreement) error) error {
	a, err := c.agreement()
	if err != nil {
		return err
	}
	defer a.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return do(ctx, a)
}
