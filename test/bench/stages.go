package bench

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
)

const (
	partitions = 4
	writeKey   = "dev-write-key"
	database   = "uptake"
	blockRows  = 50_000
)

func layout() topic.Layout {
	l := topic.SingleLayout()
	l.Partitions = partitions
	return l
}

// log is an in-memory log with the topics, in this process, whose CPU time no
// figure holds.
type log struct {
	*kafka.Fake
	client *kgo.Client
	admin  *kadm.Client
}

func startLog(ctx context.Context) (*log, error) {
	fake, err := kafka.StartFake()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(fake.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.ProducerBatchMaxBytes(4<<20), kgo.MaxBufferedRecords(100_000),
	)
	if err != nil {
		return nil, errors.Join(err, fake.Close())
	}
	l := &log{fake, client, kadm.NewClient(client)}
	if err := topic.Ensure(ctx, l.admin, layout()); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *log) close() {
	l.client.Close()
	_ = l.Close() // in memory
}

func (l *log) brokers() string { return strings.Join(l.Addrs(), ",") }

// fill produces n records made by record.
func (l *log) fill(ctx context.Context, n int, record func(i int) *kgo.Record) error {
	var failed atomic.Pointer[error]
	for i := range n {
		l.client.Produce(ctx, record(i), func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	if err := l.client.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// committed is the sum of a topic's last stable offsets.
func (l *log) committed(ctx context.Context, name string) (int64, error) {
	offsets, err := l.admin.ListCommittedOffsets(ctx, name)
	if err != nil {
		return 0, err
	}
	var sum int64
	offsets.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	return sum, offsets.Error()
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// ready waits for /readyz of a service.
func (p *process) ready(ctx context.Context, metrics string) error {
	return p.await(ctx, "readiness of "+p.name, func() (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metrics+"/readyz", nil)
		if err != nil {
			return false, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, nil // not listening yet
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode == http.StatusOK, err
	})
}

func gatewaySingle(ctx context.Context, r *runner) (Sample, error) {
	return r.gateway(ctx, r.cfg.SingleRequests, 1)
}

func gatewayBatch(ctx context.Context, r *runner) (Sample, error) {
	return r.gateway(ctx, r.cfg.BatchRequests, r.cfg.BatchEvents)
}

func (r *runner) gateway(ctx context.Context, requests, events int) (_ Sample, err error) {
	l, err := startLog(ctx)
	if err != nil {
		return Sample{}, err
	}
	defer l.close()
	dir, err := r.dir("gateway")
	if err != nil {
		return Sample{}, err
	}
	addr, err := freeAddr()
	if err != nil {
		return Sample{}, err
	}
	metrics, err := freeAddr()
	if err != nil {
		return Sample{}, err
	}
	keys := filepath.Join(dir, "keys.yaml")
	text := fmt.Sprintf("apps:\n  - id: dev\n    keys: [\"sha256:%x\"]\n", sha256.Sum256([]byte(writeKey)))
	if err := os.WriteFile(keys, []byte(text), 0o600); err != nil {
		return Sample{}, err
	}
	p, err := r.service(ctx, stack.Gateway, dir, "serve", "-kafka-brokers", l.brokers(), "-addr", addr, "-metrics-addr", metrics, "-keys", keys)
	if err != nil {
		return Sample{}, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := p.ready(ctx, metrics); err != nil {
		return Sample{}, err
	}
	auth := "Basic " + base64.StdEncoding.EncodeToString([]byte(writeKey+":"))
	if _, err := drive(ctx, "http://"+addr, auth, r.cfg.Connections*4, events, r.cfg.Connections); err != nil {
		return Sample{}, fmt.Errorf("warm up: %w", err)
	}
	before, err := l.committed(ctx, topic.Raw)
	if err != nil {
		return Sample{}, err
	}
	sp, err := startSpan(p.cmd.Process.Pid)
	if err != nil {
		return Sample{}, err
	}
	latencies, err := drive(ctx, "http://"+addr, auth, requests, events, r.cfg.Connections)
	if err != nil {
		return Sample{}, err
	}
	s, err := sp.stop(requests * events)
	if err != nil {
		return Sample{}, err
	}
	s.Latency = latencies
	after, err := l.committed(ctx, topic.Raw)
	if err != nil {
		return Sample{}, err
	}
	if got := after - before; got != int64(requests*events) {
		return Sample{}, fmt.Errorf("raw holds %d of %d acked events", got, requests*events)
	}
	return s, nil
}

func gatewaySingleFloor(ctx context.Context, r *runner) (Sample, error) {
	return r.gatewayFloor(ctx, r.cfg.SingleRequests, 1)
}

func gatewayBatchFloor(ctx context.Context, r *runner) (Sample, error) {
	return r.gatewayFloor(ctx, r.cfg.BatchRequests, r.cfg.BatchEvents)
}

// gatewayFloor is a server that discards the same requests plus a producer of
// as many records of the same size.
func (r *runner) gatewayFloor(ctx context.Context, requests, events int) (Sample, error) {
	dir, err := r.dir("gateway-floor")
	if err != nil {
		return Sample{}, err
	}
	addr, err := freeAddr()
	if err != nil {
		return Sample{}, err
	}
	p, err := startFloor(dir, floorJob{Kind: "http", Addr: addr})
	if err != nil {
		return Sample{}, err
	}
	defer p.kill()
	err = p.await(ctx, "the discarding server", func() (bool, error) {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false, nil // not listening yet
		}
		return true, conn.Close()
	})
	if err != nil {
		return Sample{}, err
	}
	if _, err := drive(ctx, "http://"+addr, "", r.cfg.Connections*4, events, r.cfg.Connections); err != nil {
		return Sample{}, err
	}
	sp, err := startSpan(p.cmd.Process.Pid)
	if err != nil {
		return Sample{}, err
	}
	latencies, err := drive(ctx, "http://"+addr, "", requests, events, r.cfg.Connections)
	if err != nil {
		return Sample{}, err
	}
	s, err := sp.stop(requests * events)
	if err != nil {
		return Sample{}, err
	}
	s.Latency = latencies

	l, err := startLog(ctx)
	if err != nil {
		return Sample{}, err
	}
	defer l.close()
	raw := rawEvent(0, propertiesJSON(nil, 8, 0), time.Now())
	produced, err := r.floor(ctx, floorJob{
		Kind: "produce", Brokers: l.Addrs(), Topic: topic.Raw, Partitions: partitions,
		Requests: requests, Events: events, Connections: r.cfg.Connections, Bytes: len(event.NewCodec().AppendRaw(nil, &raw)),
	})
	if err != nil {
		return Sample{}, err
	}
	s.CPU += produced.CPU
	return s, nil
}

// catalogFile is the sample catalog.
func catalogFile() (string, error) {
	root, err := stack.Root()
	return filepath.Join(root, "schemas", "catalog", "sample", "mypos.yaml"), err
}

func (r *runner) applyCatalog(ctx context.Context, l *log, dir string) error {
	file, err := catalogFile()
	if err != nil {
		return err
	}
	p, err := r.service(ctx, stack.Enricher, dir, "catalog", "apply", "-app", "dev", "-author", "bench", "-reason", "measure", "-kafka-brokers", l.brokers(), file)
	if err != nil {
		return err
	}
	<-p.done
	if p.err != nil {
		text, _ := os.ReadFile(p.log) // the error says where it is
		return fmt.Errorf("catalog apply: %w: %s", p.err, text)
	}
	return nil
}

// rawRecords fills raw with events from first on.
func (l *log) rawRecords(ctx context.Context, first int64, n, properties int) error {
	codec := event.NewCodec()
	now := time.Now()
	return l.fill(ctx, n, func(i int) *kgo.Record {
		e := rawEvent(first+int64(i), propertiesJSON(nil, properties, i), now)
		key := topic.RawKey(nil, e.AppID, e.UserID, e.AnonymousID, e.AccountID)
		return &kgo.Record{Topic: topic.Raw, Partition: topic.Partition(key, partitions), Key: key, Value: codec.AppendRaw(nil, &e), Timestamp: now}
	})
}

func enricher(ctx context.Context, r *runner) (_ Sample, err error) {
	l, err := startLog(ctx)
	if err != nil {
		return Sample{}, err
	}
	defer l.close()
	dir, err := r.dir("enricher")
	if err != nil {
		return Sample{}, err
	}
	if err := r.applyCatalog(ctx, l, dir); err != nil {
		return Sample{}, err
	}
	if err := l.known(ctx, r.cfg.KnownIDs); err != nil {
		return Sample{}, fmt.Errorf("make known message ids: %w", err)
	}
	metrics, err := freeAddr()
	if err != nil {
		return Sample{}, err
	}
	p, err := r.service(ctx, stack.Enricher, dir, "serve", "-kafka-brokers", l.brokers(), "-metrics-addr", metrics, "-data-dir", filepath.Join(dir, "data"))
	if err != nil {
		return Sample{}, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := p.ready(ctx, metrics); err != nil {
		return Sample{}, err
	}
	const warm = 20_000
	run := func(first int64, n int) error {
		before, err := l.committed(ctx, topic.Enriched)
		if err != nil {
			return err
		}
		if err := l.rawRecords(ctx, first, n, r.cfg.Properties); err != nil {
			return err
		}
		return p.await(ctx, "the enriched events", func() (bool, error) {
			now, err := l.committed(ctx, topic.Enriched) // markers count too
			return now-before >= int64(n), err
		})
	}
	first := nextID.Add(int64(warm+r.cfg.EnricherEvents)) - int64(warm+r.cfg.EnricherEvents)
	if err := run(first, warm); err != nil {
		return Sample{}, err
	}
	sp, err := startSpan(p.cmd.Process.Pid)
	if err != nil {
		return Sample{}, err
	}
	if err := run(first+warm, r.cfg.EnricherEvents); err != nil {
		return Sample{}, err
	}
	return sp.stop(r.cfg.EnricherEvents)
}

// known fills enriched with events whose ids the dedup store has to know.
func (l *log) known(ctx context.Context, n int) error {
	codec := event.NewCodec()
	now := time.Now()
	return l.fill(ctx, n, func(i int) *kgo.Record {
		e := event.EnrichedEvent{
			AppID: "dev", Kind: event.KindTrack, MessageID: fmt.Sprintf("known-%012d", i), ActorID: "u", ActorKind: event.ActorUser,
			EventTime: now.UnixMicro(), ReceivedAt: now.UnixMicro(), Quantity: 1, RawOffset: int64(i),
		}
		return &kgo.Record{Topic: topic.Enriched, Partition: int32(i % partitions), Value: codec.AppendEnriched(nil, &e)}
	})
}

// enricherFloor consumes the same records and produces them again.
func enricherFloor(ctx context.Context, r *runner) (Sample, error) {
	l, err := startLog(ctx)
	if err != nil {
		return Sample{}, err
	}
	defer l.close()
	if err := l.rawRecords(ctx, 0, r.cfg.EnricherEvents, r.cfg.Properties); err != nil {
		return Sample{}, err
	}
	return r.floor(ctx, floorJob{Kind: "copy", Brokers: l.Addrs(), Topic: topic.Raw, To: topic.Enriched, Partitions: partitions, Events: r.cfg.EnricherEvents})
}

// enrichedRecords fills enriched with n events, and a tick in each partition
// once their time slot has passed.
func (l *log) enrichedRecords(ctx context.Context, n, properties int) error {
	codec := event.NewCodec()
	now := time.Now()
	return l.fill(ctx, n, func(i int) *kgo.Record {
		e := enrichedEvent(int64(i), propertiesJSON(nil, properties, i), now)
		return &kgo.Record{Topic: topic.Enriched, Partition: int32(i / 1000 % partitions), Value: codec.AppendEnriched(nil, &e)}
	})
}

// clickhouse starts a server with the tables.
func (r *runner) clickhouse(ctx context.Context, dir string, l *log) (*embedded.Server, error) {
	server, err := embedded.Start(ctx, embedded.Config{DataDir: filepath.Join(dir, "clickhouse"), Logger: slog.New(slog.DiscardHandler), Progress: r.cfg.Progress})
	if err != nil {
		return nil, err
	}
	for _, command := range [][]string{
		{"migrate", "-clickhouse-addr", server.NativeAddr(), "-clickhouse-database", database},
		{"init", "-clickhouse-addr", server.NativeAddr(), "-clickhouse-database", database, "-kafka-brokers", l.brokers()},
	} {
		p, err := r.service(ctx, stack.Writer, dir, command...)
		if err == nil {
			<-p.done
			if err = p.err; err != nil {
				text, _ := os.ReadFile(p.log) // the error says where it is
				err = fmt.Errorf("rollup-writer %s: %w: %s", command[0], err, text)
			}
		}
		if err != nil {
			return nil, errors.Join(err, server.Stop(ctx))
		}
	}
	return server, nil
}

// writerLoad is a log whose enriched topic holds the writer's load, and a
// ClickHouse with the tables.
type writerLoad struct {
	dir    string
	log    *log
	server *embedded.Server
}

func (r *runner) writerLoad(ctx context.Context, name string) (_ *writerLoad, err error) {
	w := &writerLoad{}
	if w.dir, err = r.dir(name); err != nil {
		return nil, err
	}
	if w.log, err = startLog(ctx); err != nil {
		return nil, err
	}
	if w.server, err = r.clickhouse(ctx, w.dir, w.log); err != nil {
		w.log.close()
		return nil, err
	}
	if err := w.log.enrichedRecords(ctx, r.cfg.WriterEvents, r.cfg.Properties); err != nil {
		return nil, errors.Join(err, w.close(ctx))
	}
	return w, nil
}

func (w *writerLoad) close(ctx context.Context) error {
	w.log.close()
	return w.server.Stop(ctx)
}

func writer(ctx context.Context, r *runner) (_ Sample, err error) {
	w, err := r.writerLoad(ctx, "writer")
	if err != nil {
		return Sample{}, err
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	metrics, err := freeAddr()
	if err != nil {
		return Sample{}, err
	}
	p, err := r.service(ctx, stack.Writer, w.dir, "serve", "-kafka-brokers", w.log.brokers(), "-metrics-addr", metrics,
		"-clickhouse-addr", w.server.NativeAddr(), "-clickhouse-database", database)
	if err != nil {
		return Sample{}, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	sp, err := startSpan(p.cmd.Process.Pid)
	if err != nil {
		return Sample{}, err
	}
	err = p.await(ctx, "the rows", func() (bool, error) {
		n, err := count(ctx, w.server, "uptake.events")
		return n >= r.cfg.WriterEvents, err
	})
	if err != nil {
		return Sample{}, err
	}
	s, err := sp.stop(r.cfg.WriterEvents)
	if err != nil {
		return Sample{}, err
	}
	if n, err := count(ctx, w.server, "uptake.events"); err != nil || n != r.cfg.WriterEvents {
		return Sample{}, fmt.Errorf("events holds %d rows of %d: %w", n, r.cfg.WriterEvents, err)
	}
	return s, nil
}

func count(ctx context.Context, server *embedded.Server, table string) (int, error) {
	text, err := server.Query(ctx, "SELECT count() FROM "+table)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(text))
}

// writerFloor consumes the same records and inserts as many rows of blocks built
// beforehand into a table that discards them.
func writerFloor(ctx context.Context, r *runner) (_ Sample, err error) {
	w, err := r.writerLoad(ctx, "writer-floor")
	if err != nil {
		return Sample{}, err
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	if err := sampleRows(ctx, w.server, r.cfg.Properties); err != nil {
		return Sample{}, err
	}
	return r.floor(ctx, floorJob{
		Kind: "insert", Addr: w.server.NativeAddr(), Database: database, Brokers: w.log.Addrs(), Topic: topic.Enriched,
		Partitions: partitions, Events: r.cfg.WriterEvents, BlockRows: blockRows,
	})
}

// sampleRows makes the tables of the floor: bench_sample, whose rows have the
// columns of events with JSON as text, and bench_null, which discards them.
func sampleRows(ctx context.Context, server *embedded.Server, properties int) error {
	object := strings.ReplaceAll(string(propertiesJSON(nil, properties, 7)), "'", "''")
	for _, statement := range []string{
		`CREATE TABLE uptake.bench_sample ENGINE = Memory AS
		 SELECT 'dev'::LowCardinality(String) AS app_id, 'track'::LowCardinality(String) AS kind,
		        ['Item Scanned','Item Invoiced','Item Bagged'][number % 3 + 1]::LowCardinality(String) AS event,
		        concat('bench-', leftPad(toString(number), 12, '0')) AS message_id,
		        concat('user-', leftPad(toString(number % 100000), 7, '0')) AS user_id, '' AS anonymous_id, '' AS previous_id,
		        user_id AS actor_id, 'user'::LowCardinality(String) AS actor_kind,
		        concat('account-', leftPad(toString(number % 5000), 5, '0')) AS account_id, 'event'::LowCardinality(String) AS account_source,
		        ''::LowCardinality(String) AS role, 'item_scanned'::LowCardinality(String) AS feature_id,
		        'billing'::LowCardinality(String) AS module_id, 'mypos_sales'::LowCardinality(String) AS product_id, 1::Int64 AS catalog_version,
		        now64(6, 'UTC') - toIntervalSecond(number % 259200) AS event_time, event_time AS timestamp, event_time AS sent_at,
		        now64(6, 'UTC') AS received_at, 1::Int64 AS quantity, '` + object + `' AS properties, '{}' AS traits,
		        '{"groupId":"a","library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"en-GB"}' AS context,
		        '' AS conflicts, '' AS session_id, 'segment'::LowCardinality(String) AS protocol,
		        '@segment/analytics-node/3.1.0'::LowCardinality(String) AS library, '192.0.2.0' AS ip, 'bench/1.0' AS user_agent,
		        ''::LowCardinality(String) AS flags, number::Int64 AS raw_offset, 't'::LowCardinality(String) AS source_topic_id,
		        1::Int32 AS source_partition, number::Int64 AS source_offset
		 FROM numbers(` + strconv.Itoa(blockRows) + `)`,
		`CREATE TABLE uptake.bench_null AS uptake.bench_sample ENGINE = Null`,
	} {
		if _, err := server.Query(ctx, statement); err != nil {
			return fmt.Errorf("make the floor's tables: %w", err)
		}
	}
	return nil
}
