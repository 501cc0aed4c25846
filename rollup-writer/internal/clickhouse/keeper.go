package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
)

// ErrUnknownParts is in the chain of the error about parts of a replicated table
// that queries see and its Keeper has not heard of. What they hold is there
// twice, since the insert that left them was repeated: what is read is not to be
// counted on.
//
// A part is left like that when ClickHouse has renamed it and dies, or loses its
// Keeper, before it has told the Keeper. If it lives and gives the Keeper up
// (UNKNOWN_STATUS_OF_INSERT), it looks again after five minutes. If it is started
// while the Keeper does not answer, it takes all parts on its disk for known ones
// (expected_parts_on_this_replica of StorageReplicatedMergeTree), and nothing but
// another start is sure to take them out.
var ErrUnknownParts = errors.New("its Keeper has not heard of them, and what they hold counts twice: " +
	"after an outage of the Keeper ClickHouse takes them out within minutes; if it was started without its Keeper, restart it while the Keeper answers and run `rollup-writer audit`")

// lookAgain is the pause after which a part that was just inserted is known.
const lookAgain = 200 * time.Millisecond

// AllKnown fails with [ErrUnknownParts] if a replicated table has parts that its
// Keeper has not heard of and that hold rows of a condition. name is one of the
// schema's, without database.
func (c *Conn) AllKnown(ctx context.Context, name, condition string) error {
	table := c.cfg.Schema().Local(name)
	unknown, err := c.unknownParts(ctx, name)
	if err == nil && len(unknown) > 0 {
		for i, name := range unknown {
			unknown[i] = Quote(name)
		}
		unknown, err = c.names(ctx, "SELECT DISTINCT CAST(_part, 'String') AS name FROM "+table+" WHERE _part IN ("+strings.Join(unknown, ", ")+") AND "+condition+" ORDER BY name")
	}
	if err != nil {
		return fmt.Errorf("look for parts that the Keeper does not know: %w", err)
	}
	if len(unknown) > 0 {
		return fmt.Errorf("parts %s of %s: %w", strings.Join(unknown, ", "), table, ErrUnknownParts)
	}
	return nil
}

// unknownParts of a replicated table. A look can take a
// part for unknown that becomes known meanwhile, so that two have to agree.
func (c *Conn) unknownParts(ctx context.Context, name string) ([]string, error) {
	here := c.cfg.Schema().Where("database", "table", name)
	paths, err := c.names(ctx, "SELECT replica_path AS name FROM system.replicas WHERE "+here)
	if err != nil {
		return nil, err
	}
	if len(paths) != 1 {
		return nil, fmt.Errorf("%s has %d replicas on this server, want 1", name, len(paths))
	}
	// system.zookeeper is asked for a path that stands in the query.
	query := "SELECT name FROM system.parts WHERE " + here + " AND active" +
		" AND name NOT IN (SELECT name FROM system.zookeeper WHERE path = " + Quote(paths[0]+"/parts") + ") ORDER BY name"
	names, err := c.names(ctx, query)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	select {
	case <-time.After(lookAgain):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	again, err := c.names(ctx, query)
	return slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(again, name) }), err
}

// names runs a query of one column, name.
func (c *Conn) names(ctx context.Context, query string) ([]string, error) {
	var names []string
	var name proto.ColStr
	err := c.Select(ctx, query, proto.Results{{Name: "name", Data: &name}}, func() error {
		for i := range name.Rows() {
			names = append(names, name.Row(i))
		}
		return nil
	})
	return names, err
}
