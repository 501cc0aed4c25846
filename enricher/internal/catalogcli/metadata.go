package catalogcli

import (
	"context"
	"errors"
	"fmt"
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
	return metadata.NewAgreement(metadata.AgreementConfig{Options: opts, Limits: metadata.DefaultLimits(), Logger: c.logger(), Now: c.now})
}

func (c *command) metadataShow(ctx context.Context, args []string) error {
	c.needsLog()
	prefix := c.set.String("under", "", "`path` to show with all within, such as properties.cart; empty: all")
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
	rows := []string{"key\ttype\tsince\tpinned by\treason"}
	for _, path := range paths {
		e := entries[path]
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", path, e.Type, e.At.UTC().Format(time.RFC3339), e.Author, e.Reason))
	}
	return c.table(rows...)
}

func (c *command) metadataPin(ctx context.Context, args []string) error {
	c.needsLog()
	author := c.set.String("author", "", "`who` decides it: a person or a role")
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
		fmt.Fprintf(c.stdout, "%s of %s is %s from now on; what is in ClickHouse stays as it is\n", rest[0], c.app, typ)
		return nil
	})
}

func (c *command) metadataReset(ctx context.Context, args []string) error {
	c.needsLog()
	rest, err := c.parse(args, "PATH")
	if err != nil {
		return err
	}
	return c.decree(ctx, func(ctx context.Context, a *metadata.Agreement) error {
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
