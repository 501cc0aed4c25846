package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// ErrUnknownParts is in the chain of the error about parts of a replicated table that
// queries see and its Keeper does not know. Their rows exist twice, since the insert
// that left them was repeated, so results of queries cannot be trusted.
//
// Such a part remains when ClickHouse has renamed it and crashes, or loses its Keeper,
// before it has registered it there. If the server stays up (UNKNOWN_STATUS_OF_INSERT),
// it checks again after five minutes. If it is started while the Keeper does not
// answer, it treats all parts on its disk as known (expected_parts_on_this_replica of
// StorageReplicatedMergeTree), and only another start is sure to remove them.
var ErrUnknownParts = errors.New("its Keeper does not know them, and their rows count twice: " +
	"after an outage of the Keeper, ClickHouse removes them within minutes; if it was started without its Keeper, restart it while the Keeper answers and run `rollup-writer audit`")

// lookAgain is the pause after which a newly inserted part is known to the Keeper.
const lookAgain = 200 * time.Millisecond

// AllKnown returns [ErrUnknownParts] if a replicated table has parts that its Keeper
// does not know and that hold rows matching a condition. name is a name of the schema,
// without database.
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

// unknownParts returns the unknown parts of a replicated table. A part may become known
// during a look, so two looks have to agree.
func (c *Conn) unknownParts(ctx context.Context, name string) ([]string, error) {
	here := c.cfg.Schema().Where("database", "table", name)
	paths, err := c.names(ctx, "SELECT replica_path AS name FROM system.replicas WHERE "+here)
	if err != nil {
		return nil, err
	}
	if len(paths) != 1 {
		return nil, fmt.Errorf("%s has %d replicas on this server, want 1", name, len(paths))
	}
	// system.zookeeper requires the path as a literal in the query.
	query := "SELECT name FROM system.parts WHERE " + here + " AND active" +
		" AND name NOT IN (SELECT name FROM system.zookeeper WHERE path = " + Quote(paths[0]+"/parts") + ") ORDER BY name"
	names, err := c.names(ctx, query)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	if backoff.Sleep(ctx, lookAgain) != nil {
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
