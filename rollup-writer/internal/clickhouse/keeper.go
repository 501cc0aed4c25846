package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
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

// ask runs a query of one column, name.
type ask func(ctx context.Context, query string) ([]string, error)

// unknownParts of a replicated table of the current database. A look can take a
// part for unknown that becomes known meanwhile, so that two have to agree.
func unknownParts(ctx context.Context, ask ask, table string) ([]string, error) {
	paths, err := ask(ctx, "SELECT replica_path AS name FROM system.replicas WHERE database = currentDatabase() AND table = "+Quote(table))
	if err != nil {
		return nil, err
	}
	if len(paths) != 1 {
		return nil, fmt.Errorf("%s has %d replicas on this server, want 1", table, len(paths))
	}
	// system.zookeeper is asked for a path that stands in the query.
	query := "SELECT name FROM system.parts WHERE database = currentDatabase() AND table = " + Quote(table) + " AND active" +
		" AND name NOT IN (SELECT name FROM system.zookeeper WHERE path = " + Quote(paths[0]+"/parts") + ") ORDER BY name"
	names, err := ask(ctx, query)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	select {
	case <-time.After(lookAgain):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	again, err := ask(ctx, query)
	return slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(again, name) }), err
}

func unknown(names []string, table string) error {
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("parts %s of %s: %w", strings.Join(names, ", "), table, ErrUnknownParts)
}

// AllKnown fails with [ErrUnknownParts] if a replicated table has parts that its
// Keeper has not heard of and that hold rows of a condition.
func (c *Conn) AllKnown(ctx context.Context, table, condition string) error {
	names, err := unknownParts(ctx, c.names, table)
	if err != nil || len(names) == 0 {
		return err
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = Quote(name)
	}
	names, err = c.names(ctx, "SELECT DISTINCT CAST(_part, 'String') AS name FROM "+table+" WHERE _part IN ("+strings.Join(quoted, ", ")+") AND "+condition+" ORDER BY name")
	if err != nil {
		return err
	}
	return unknown(names, table)
}

func (c *Conn) names(ctx context.Context, query string) ([]string, error) {
	var names []string
	var name proto.ColStr
	err := c.Select(ctx, query, proto.Results{{Name: "name", Data: &name}}, func() error {
		for i := range name.Rows() {
			names = append(names, name.Row(i))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for parts that the Keeper does not know: %w", err)
	}
	return names, nil
}

// AllKnown is Conn.AllKnown without a condition, for connections of [OpenSQL].
func AllKnown(ctx context.Context, conn driver.Conn, table string) error {
	names, err := unknownParts(ctx, func(ctx context.Context, query string) (names []string, err error) {
		if err := conn.QueryRow(ctx, "SELECT groupArray(name) FROM ("+query+")").Scan(&names); err != nil {
			return nil, fmt.Errorf("look for parts that the Keeper does not know: %w", err)
		}
		return names, nil
	}, table)
	if err != nil {
		return err
	}
	return unknown(names, table)
}
