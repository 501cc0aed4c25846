// Package clickhouse is the writer's connection to ClickHouse: connections that never
// cancel a request, the settings that every request pins, and the classes of errors.
//
// It owns the transport. Package columns encodes what is inserted, package block
// supplies the token, and the caller, who knows the partition, decides what happens
// after an error. The caller who opens a Conn closes it.
package clickhouse

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/schemas/clickhouse"
)

// Setting is a setting that a request pins.
type Setting struct {
	Name, Value string
	Why         string
	// Optional settings are ignored by a server that does not know them.
	Optional bool
}

// Pinned are the settings that decide whether a repeated block is recognised in every
// table, whatever the server's profile. DESIGN.md lists them.
var Pinned = []Setting{
	{Name: "async_insert", Value: "0", Why: "otherwise the server may merge several inserts into one block"},
	{Name: "insert_deduplicate", Value: "1", Why: "enables the dedup windows"},
	{Name: "deduplicate_insert", Value: "enable", Why: "overrides insert_deduplicate on servers that know it", Optional: true},
	{Name: "deduplicate_blocks_in_dependent_materialized_views", Value: "1", Why: "each rollup checks its own window, so that a repeat fills what is missing"},
	{Name: "materialized_views_ignore_errors", Value: "0", Why: "a rollup that fails must fail the insert"},
	{Name: "parallel_view_processing", Value: "0", Why: "views get a block in one piece and in one order"},
	{Name: "max_insert_threads", Value: "1", Why: "one thread, one block"},
	{Name: "max_threads", Value: "1", Why: "views get a block in one piece and in one order"},
	{Name: "max_block_size", Value: "16777216", Why: "no view splits a block"},
	{Name: "max_insert_block_size", Value: "16777216", Why: "no server splits a block"},
	{Name: "min_insert_block_size_rows", Value: "16777216", Why: "pieces would be put together again"},
	{Name: "min_insert_block_size_bytes", Value: "4294967296", Why: "pieces would be put together again"},
	{Name: "min_insert_block_size_rows_for_materialized_views", Value: "16777216", Why: "the same before each rollup"},
	{Name: "min_insert_block_size_bytes_for_materialized_views", Value: "4294967296", Why: "the same before each rollup"},
	{Name: "max_partitions_per_insert_block", Value: "0", Why: "late events may span any number of months"},
	{Name: "optimize_on_insert", Value: "1", Why: "rollups are summed as they are written"},
	{Name: "insert_null_as_default", Value: "1", Why: "columns that a later migration adds get their defaults"},
	{Name: "input_format_native_allow_types_conversion", Value: "1", Why: "a later migration may widen a column"},
	{Name: "type_json_skip_duplicated_paths", Value: "1", Why: "the first of duplicate keys counts; otherwise the whole block would be refused", Optional: true},
	{Name: "input_format_try_infer_dates", Value: "0", Why: "a property is a string if it was sent as one, whatever it looks like"},
	{Name: "input_format_try_infer_datetimes", Value: "0", Why: "a property is a string if it was sent as one, whatever it looks like"},
	{Name: "max_execution_time", Value: "0", Why: "an insert that was sent is never cancelled"},
	{Name: "insert_quorum", Value: "0", Why: "an insert without its quorum would leave parts that exist but are not visible"},
}

// Block is one native block and where it goes.
type Block interface {
	Into(table string) string
	Input() proto.Input
	Rows() int
}

// AsIs is a Block whose rows are stored as they are sent: otherwise the server
// drops those whose sums are zero before it stores them, and with the last of
// them the token.
type AsIs interface{ AsIs() }

// ErrSilent is in the chain of errors about a server that said nothing for too
// long.
var ErrSilent = errors.New("server is silent")

// Conn is a connection to one replica of a shard. It connects on first use, and after
// an error to the next replica. It is for one goroutine at a time.
type Conn struct {
	cfg      *Config
	tls      *tls.Config
	replicas []string
	next     int // replica to dial

	client *ch.Client
	raw    *quietConn
	sent   func() // called for each statement
}

// NewConn returns a connection to a shard that is not yet connected.
func NewConn(cfg *Config, shard int) (*Conn, error) {
	tc, err := cfg.tlsConfig()
	if err != nil {
		return nil, err
	}
	shards := cfg.Shards()
	return &Conn{cfg: cfg, tls: tc, replicas: shards[shard%len(shards)], sent: func() {}}, nil
}

// Count makes c call sent for each statement that it sends.
func (c *Conn) Count(sent func()) { c.sent = sent }

// Close closes the connection, if it is open.
func (c *Conn) Close() {
	if c.client == nil {
		return
	}
	_ = c.client.Close() // requests in progress count as lost
	c.client, c.raw = nil, nil
}

func (c *Conn) dial(ctx context.Context) error {
	addr := c.replicas[c.next%len(c.replicas)]
	d := &net.Dialer{Timeout: c.cfg.DialTimeout}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		c.next++
		return fmt.Errorf("connect to ClickHouse: %w", err)
	}
	if c.tls != nil {
		tc := c.tls.Clone()
		if tc.ServerName == "" {
			tc.ServerName, _, _ = net.SplitHostPort(addr) // cannot fail: Validate has checked it
		}
		raw = tls.Client(raw, tc)
	}
	quiet := &quietConn{Conn: raw, silence: c.cfg.Silence}
	compression := ch.CompressionDisabled
	if c.cfg.Compression == "lz4" {
		compression = ch.CompressionLZ4
	}
	// Not cut short either: the embedded ClickHouse crashes when a handshake ends half
	// way.
	handshake, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.DialTimeout)
	defer cancel()
	client, err := ch.Connect(handshake, quiet, ch.Options{
		Address: addr, Database: clickhouse.Internal(c.cfg.Database), User: c.cfg.User, Password: c.cfg.Password.Reveal(),
		Compression: compression, ClientName: "uptake-rollup-writer",
		ReadTimeout: ch.NoTimeout, HandshakeTimeout: c.cfg.DialTimeout,
	})
	if err != nil {
		c.next++
		_ = raw.Close()
		return fmt.Errorf("connect to ClickHouse at %s: %w", addr, err)
	}
	c.client, c.raw = client, quiet
	return nil
}

// do runs a query. A request that was sent is never cancelled: when ctx ends the
// connection is closed, and the outcome is unknown.
func (c *Conn) do(ctx context.Context, q ch.Query) error {
	if c.client == nil || c.client.IsClosed() {
		c.client = nil
		if err := c.dial(ctx); err != nil {
			return err
		}
	}
	c.sent()
	raw := c.raw
	stop := context.AfterFunc(ctx, raw.shut)
	defer stop()
	if err := c.client.Do(context.WithoutCancel(ctx), q); err != nil {
		raw.shut() // an exception may leave half a request behind
		c.client, c.raw = nil, nil
		c.next++
		if cause := raw.cause(); cause != nil {
			return fmt.Errorf("clickhouse at %s: %w (%w)", raw.RemoteAddr(), cause, err)
		}
		// ch-go's errors print a stack trace where a logger asks for detail.
		return fmt.Errorf("clickhouse at %s: %w", raw.RemoteAddr(), err)
	}
	return nil
}

// Follow makes c use the replica that o is connected to, or will connect to.
func (c *Conn) Follow(o *Conn) { c.next = o.next }

// Insert sends b as one INSERT of one native block.
func (c *Conn) Insert(ctx context.Context, table string, b Block, token string) error {
	all := settings(token)
	if _, ok := b.(AsIs); ok {
		for i := range all {
			if all[i].Key == "optimize_on_insert" {
				all[i].Value = "0"
			}
		}
	}
	return c.do(ctx, ch.Query{Body: b.Into(table), Input: b.Input(), Settings: all})
}

func settings(token string) []ch.Setting {
	all := make([]ch.Setting, 0, len(Pinned)+1)
	for _, s := range Pinned {
		all = append(all, ch.Setting{Key: s.Name, Value: s.Value, Important: !s.Optional})
	}
	return append(all, ch.Setting{Key: "insert_deduplication_token", Value: token, Important: true})
}

// InsertUnguarded sends b without a token, past the dedup windows. It exists only to
// measure the cost of Insert.
func (c *Conn) InsertUnguarded(ctx context.Context, table string, b Block) error {
	all := settings("")
	all = all[:len(all)-1]
	for i := range all {
		switch all[i].Key {
		case "insert_deduplicate", "deduplicate_blocks_in_dependent_materialized_views":
			all[i].Value = "0"
		case "deduplicate_insert":
			all[i].Value = "disable"
		}
	}
	return c.do(ctx, ch.Query{Body: b.Into(table), Input: b.Input(), Settings: all})
}

// Question is a query with the data that it reads besides tables.
type Question struct {
	Query    string
	Settings map[string]string
	// Among is an external table that the query brings along.
	Among     string
	AmongRows proto.Input
}

// Ask runs a query and calls each for every block of its result, which is valid until
// each returns. It returns how many rows the server read for it.
func (c *Conn) Ask(ctx context.Context, q Question, result proto.Results, each func() error) (read uint64, err error) {
	query := ch.Query{
		Body: q.Query, Result: result,
		OnResult: func(_ context.Context, b proto.Block) error {
			if b.Rows == 0 {
				return nil
			}
			return each()
		},
		OnProgress: func(_ context.Context, p proto.Progress) error {
			read += p.Rows
			return nil
		},
		ExternalTable: q.Among, ExternalData: q.AmongRows,
	}
	for k, v := range q.Settings {
		query.Settings = append(query.Settings, ch.Setting{Key: k, Value: v, Important: true})
	}
	err = c.do(ctx, query)
	return read, err
}

// Select is Ask of a plain query.
func (c *Conn) Select(ctx context.Context, query string, result proto.Results, each func() error) error {
	_, err := c.Ask(ctx, Question{Query: query}, result, each)
	return err
}

var escapes = strings.NewReplacer("\\", "\\\\", "'", "\\'", "\x00", "\\0")

// Quote returns s as a string literal.
func Quote(s string) string { return "'" + escapes.Replace(s) + "'" }

// Exec runs a statement without a result.
func (c *Conn) Exec(ctx context.Context, statement string) error {
	return c.do(ctx, ch.Query{Body: statement})
}

// quietConn bounds the other side's silence and keeps ch-go from cancelling: once it is
// shut nothing can be written to it.
type quietConn struct {
	net.Conn
	silence time.Duration
	shutBy  atomic.Pointer[error]
}

func (q *quietConn) fail(err error) {
	q.shutBy.CompareAndSwap(nil, &err)
	_ = q.Close()
}

func (q *quietConn) shut() { q.fail(net.ErrClosed) }

// cause is ErrSilent if silence is what shut the connection.
func (q *quietConn) cause() error {
	if p := q.shutBy.Load(); p != nil && errors.Is(*p, ErrSilent) {
		return *p
	}
	return nil
}

func (q *quietConn) Read(p []byte) (int, error) {
	if err := q.SetReadDeadline(time.Now().Add(q.silence)); err != nil {
		return 0, q.explain(err)
	}
	n, err := q.Conn.Read(p)
	return n, q.explain(err)
}

func (q *quietConn) Write(p []byte) (int, error) {
	if err := q.SetWriteDeadline(time.Now().Add(q.silence)); err != nil {
		return 0, q.explain(err)
	}
	n, err := q.Conn.Write(p)
	return n, q.explain(err)
}

// explain turns a timeout into ErrSilent: ch-go would go on waiting after a timeout,
// and then cancel.
func (q *quietConn) explain(err error) error {
	var ne net.Error
	if err == nil || !errors.As(err, &ne) || !ne.Timeout() {
		return err
	}
	q.fail(fmt.Errorf("%w for %s", ErrSilent, q.silence))
	return *q.shutBy.Load()
}

// OpenSQL returns a pool of connections to the internal database, for statements and
// queries, to any replica of shard 0. It connects on first use; call HasDatabase first
// if the database may not exist.
func OpenSQL(cfg *Config) (driver.Conn, error) {
	return open(cfg, clickhouse.Internal(cfg.Database))
}

// OpenViews is OpenSQL to the database for people.
func OpenViews(cfg *Config) (driver.Conn, error) { return open(cfg, cfg.Database) }

// OpenServer is OpenSQL without a database: names must be qualified.
func OpenServer(cfg *Config) (driver.Conn, error) { return open(cfg, "system") }

// HasDatabase reports whether the internal database exists. It does not connect to that
// database: the embedded ClickHouse would crash if it does not exist.
func HasDatabase(ctx context.Context, cfg *Config) (has bool, err error) {
	conn, err := OpenServer(cfg)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var n uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM system.databases WHERE name = ?", clickhouse.Internal(cfg.Database)).Scan(&n); err != nil {
		return false, fmt.Errorf("look for database %s: %w", cfg.Database, err)
	}
	return n > 0, nil
}

func open(cfg *Config, database string) (driver.Conn, error) {
	tc, err := cfg.tlsConfig()
	if err != nil {
		return nil, err
	}
	conn, err := clickhousego.Open(&clickhousego.Options{
		Addr:        cfg.Shards()[0],
		Auth:        clickhousego.Auth{Database: database, Username: cfg.User, Password: cfg.Password.Reveal()},
		TLS:         tc,
		DialTimeout: cfg.DialTimeout,
		ReadTimeout: cfg.Silence,
		ClientInfo:  clickhousego.ClientInfo{Products: []struct{ Name, Version string }{{Name: "uptake-rollup-writer", Version: "1"}}},
	})
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse: %w", err)
	}
	return conn, nil
}
