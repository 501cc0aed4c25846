package catalogcli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/arbiter"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// versions are the catalog versions of one app in the log.
type versions struct {
	app    string
	opts   []kgo.Opt
	names  *topic.Names
	reader *reader.Reader
}

func openVersions(app string, names *topic.Names, opts []kgo.Opt) (*versions, error) {
	r, err := reader.New(opts...)
	if err != nil {
		return nil, err
	}
	return &versions{app: app, opts: opts, names: names, reader: r}, nil
}

// versions opens those of the app that the flags of needsLog name.
func (c *command) versions() (*versions, error) {
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	return openVersions(c.app, c.kafka.Names(), opts)
}

func (v *versions) close() { v.reader.Close() }

// all reads the versions, the first one first.
func (v *versions) all(ctx context.Context) ([]*catalog.Version, error) {
	b, err := v.reader.Bounds(ctx, v.names.Catalog, 0)
	if err != nil {
		return nil, err
	}
	byNumber := map[int64]*catalog.Version{}
	_, err = v.reader.Read(ctx, v.names.Catalog, 0, b.Start, b.End, func(r *kgo.Record) error {
		if app, _, err := catalog.ParseKey(r.Key); err != nil || app != v.app {
			return nil // another app's version, or not a version
		}
		if len(r.Value) == 0 {
			return nil
		}
		version, err := catalog.Decode(r.Value)
		if err != nil {
			return fmt.Errorf("offset %d: %w", r.Offset, err)
		}
		byNumber[version.Number] = version
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	out := make([]*catalog.Version, 0, len(byNumber))
	for _, version := range byNumber {
		out = append(out, version)
	}
	slices.SortFunc(out, func(a, b *catalog.Version) int { return int(a.Number - b.Number) })
	return out, nil
}

// live returns the version in force, nil if there is none.
func (v *versions) live(ctx context.Context) (*catalog.Version, error) {
	all, err := v.all(ctx)
	return last(all), err
}

// last returns the version in force, nil if there is none.
func last(all []*catalog.Version) *catalog.Version {
	if len(all) == 0 {
		return nil
	}
	return all[len(all)-1]
}

// errBeaten is the error of apply when another version was written first.
var errBeaten = errors.New("another version was applied in the meantime; look at it with catalog history, and plan again")

// apply writes the next version, if the expected version is still in force.
func (v *versions) apply(ctx context.Context, next *catalog.Version) error {
	value, err := next.Encode()
	if err != nil {
		return err
	}
	_, err = arbiter.Write(ctx, arbiter.Config{Options: v.opts, TransactionalID: v.names.Catalog + "." + v.app}, func(ctx context.Context) ([]*kgo.Record, error) {
		live, err := v.live(ctx)
		if err != nil {
			return nil, err
		}
		if live != nil && live.Number == next.Number {
			if got, err := live.Encode(); err == nil && string(got) == string(value) {
				return nil, nil // an earlier attempt succeeded, and its answer was lost
			}
		}
		number := int64(0)
		if live != nil {
			number = live.Number
		}
		if number != next.Number-1 {
			return nil, fmt.Errorf("version %d of %s is in force, by %s: %w", number, v.app, live.Author, errBeaten)
		}
		return []*kgo.Record{{Topic: v.names.Catalog, Key: next.Key(), Value: value}}, nil
	})
	return err
}
