// Package replicated has an embedded ClickHouse carry the cluster form of the
// tables, for tests: Replicated engines over a ZooKeeper, Distributed tables over
// a cluster of this one server.
//
// It owns what the server is configured with for that, and what is changed in the
// memory of its process (child_linux_amd64.go). The library that the server is made of
// has all of ReplicatedMergeTree in it, but the part of the server that says under
// which address other replicas find this one, and the one that carries out
// statements ON CLUSTER, never start. So:
//
//   - the address is put into the library's code once it is loaded. Nobody listens
//     there: it is one replica, and fetches from nobody;
//   - ON CLUSTER is taken out of the statements, and what its initiator adds for
//     every server to agree on, the UUID of a table, is put in its place;
//   - the library calls itself 26.7.2.1, which is refused for the cluster form, and
//     rightly: see rollup-writer's version check. Here it says 26.7.3.9. The
//     fault of 26.7.2.1 needs a block with more than one token, and the writer
//     sends one;
//   - system.zookeeper, which the server has and the library has not, is a table
//     of what a [Listing] serves.
//
// A server is prepared with [Prepare] before it starts, and its tables are made
// with [Migrate]. The program calls [ChildMain] first of all, before the
// ChildMain of package embedded.
package replicated

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// Cluster is the name of the cluster.
const Cluster = "main"

// Sessions are short, and a table looks every second whether its session has
// ended, or that of the server before it, which holds its place: what takes
// minutes in production is to happen many times in a test.
const configXML = `<?xml version="1.0"?>
<clickhouse>
    <zookeeper>
        <node><host>%[1]s</host><port>%[2]s</port></node>
        <session_timeout_ms>3000</session_timeout_ms>
        <operation_timeout_ms>3000</operation_timeout_ms>
    </zookeeper>
    <macros><shard>1</shard><replica>a</replica></macros>
    <default_replica_path>/clickhouse/tables/{uuid}/{shard}</default_replica_path>
    <default_replica_name>{replica}</default_replica_name>
    <remote_servers>
        <%[3]s>
            <shard>
                <internal_replication>true</internal_replication>
                <replica><host>%[4]s</host><port>%[5]s</port></replica>
            </shard>
        </%[3]s>
    </remote_servers>
    <merge_tree>
        <zookeeper_session_expiration_check_period>1</zookeeper_session_expiration_check_period>
        <initialization_retry_period>1</initialization_retry_period>
    </merge_tree>
</clickhouse>
`

// libraryFile tells the child that its library is to be changed, and which it is,
// queriesFile what else to start with. A child runs in its data directory.
const (
	libraryFile = "config/replicated-library"
	queriesFile = "config/replicated-queries"
)

// Prepare has a server that is to start on cfg take part in a cluster of its own,
// with a Keeper at host:port that has nodes. The server's native address must name
// its port.
func Prepare(ctx context.Context, cfg embedded.Config, keeper string, nodes *Listing) error {
	fail := func(err error) error { return fmt.Errorf("prepare %s for replicated tables: %w", cfg.DataDir, err) }
	keeperHost, keeperPort, err := net.SplitHostPort(keeper)
	if err != nil {
		return fail(err)
	}
	host, port, err := net.SplitHostPort(cfg.NativeAddr)
	if err != nil {
		return fail(err)
	}
	if port == "0" {
		return fail(errors.New("its native address must name a port"))
	}
	lib := cfg.LibraryPath
	if lib == "" {
		if lib, err = embedded.Library(ctx, cfg.Progress); err != nil {
			return fail(err)
		}
	}
	dir := filepath.Join(cfg.DataDir, "config", "config.d")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(err)
	}
	text := fmt.Appendf(nil, configXML, keeperHost, keeperPort, Cluster, host, port)
	if err := os.WriteFile(filepath.Join(dir, "replicated.xml"), text, 0o600); err != nil {
		return fail(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.DataDir, libraryFile), []byte(lib), 0o600); err != nil {
		return fail(err)
	}
	// The database system is made anew at every start.
	queries := "CREATE TABLE system.zookeeper (path String, name String) ENGINE = URL('" + nodes.url + "', 'TSV'); "
	if err := os.WriteFile(filepath.Join(cfg.DataDir, queriesFile), []byte(queries), 0o600); err != nil {
		return fail(err)
	}
	return nil
}

// Migrate makes a database in the cluster form, as rollup-writer's migrate does.
func Migrate(ctx context.Context, nativeAddr, database string) (err error) {
	root, err := open(nativeAddr, "system")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	_, err = tables.Schema{Database: database, Form: tables.ClusterForm(Cluster)}.Apply(ctx, root)
	return err
}

// here carries out on this server what is to be carried out on the cluster.
type here struct{ driver.Conn }

func open(nativeAddr, database string) (driver.Conn, error) {
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{nativeAddr}, Auth: clickhouse.Auth{Database: database}})
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse: %w", err)
	}
	return here{conn}, nil
}

// Exec implements driver.Conn.
func (h here) Exec(ctx context.Context, statement string, args ...any) error {
	return h.Conn.Exec(ctx, Local(statement), args...)
}

// Local returns what one server carries out of a statement ON CLUSTER.
func Local(statement string) string {
	instead := ""
	if strings.HasPrefix(statement, "CREATE TABLE") && strings.Contains(statement, "\nENGINE = Replicated") {
		instead = " UUID '" + uuid.NewString() + "'"
	}
	return strings.Replace(statement, " ON CLUSTER `"+Cluster+"`", instead, 1)
}
