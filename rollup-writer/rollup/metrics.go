package rollup

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/topic"
)

// metrics are the writer's own. rows in = rows written + rows released + rows
// pending holds at any time for what this process read.
type metrics struct {
	records        *prometheus.CounterVec // topic, kind
	rowsRead       *prometheus.CounterVec // topic
	rowsWritten    *prometheus.CounterVec // topic
	rowsReleased   *prometheus.CounterVec // topic
	rowsPending    *prometheus.GaugeVec   // topic
	blocks         *prometheus.CounterVec // topic
	blockRows      *prometheus.HistogramVec
	insertSeconds  *prometheus.HistogramVec
	visibleSeconds *prometheus.HistogramVec
	newest         *prometheus.GaugeVec   // topic
	newestMu       sync.Mutex             // covers newestAt
	newestAt       map[string]int64       // by topic, microseconds
	retries        *prometheus.CounterVec // class
	commits        *prometheus.CounterVec // outcome
	lagRecords     *prometheus.GaugeVec   // topic, partition
	lagSeconds     *prometheus.GaugeVec   // topic, partition
	partitions     *prometheus.GaugeVec   // topic
	halted         *prometheus.GaugeVec   // topic
	paused         prometheus.Gauge
	queueBytes     prometheus.Gauge
	ticks          *prometheus.CounterVec // topic
	corrections    prometheus.Counter
	correctedRows  prometheus.Counter
	correctionRead prometheus.Counter
	repaired       prometheus.Counter
	apps           labels
	events         *prometheus.CounterVec // app, counter
	windowUsed     *prometheus.GaugeVec   // topic
}

// newMetrics registers with reg, which may be nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		register(reg, c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		register(reg, g)
		return g
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{"topic"})
		register(reg, h)
		return h
	}
	m := &metrics{
		newestAt:       map[string]int64{},
		visibleSeconds: histogram("uptake_writer_visible_seconds", "From the receipt of a block's oldest event by a gateway until ClickHouse had the block.", []float64{.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900, 3600}),
		newest:         gauge("uptake_writer_newest_visible_timestamp_seconds", "Unix time of receipt of the newest event that ClickHouse has of this writer; no value before the first.", "topic"),
		records:        counter("uptake_writer_records_total", "Records read, by what they are: row, counts, tick, control, marker.", "topic", "kind"),
		rowsRead:       counter("uptake_writer_rows_read_total", "Rows taken into blocks.", "topic"),
		rowsWritten:    counter("uptake_writer_rows_written_total", "Rows of blocks that ClickHouse took, or had taken before.", "topic"),
		events:         counter("uptake_writer_events_total", "Of these, events by app and what the conservation audit calls them: stored or rejected.", "app", "counter"),
		rowsReleased:   counter("uptake_writer_rows_released_total", "Rows of revoked partitions that were not yet written: the log has them.", "topic"),
		rowsPending:    gauge("uptake_writer_rows_pending", "Rows in blocks that are open, waiting or under way.", "topic"),
		blocks:         counter("uptake_writer_blocks_total", "Blocks that ClickHouse took, or had taken before.", "topic"),
		blockRows:      histogram("uptake_writer_block_rows", "Rows of a block.", prometheus.ExponentialBuckets(1, 4, 9)),
		insertSeconds:  histogram("uptake_writer_insert_seconds", "Time of an attempt that ClickHouse answered with OK.", prometheus.ExponentialBuckets(0.002, 2, 14)),
		retries:        counter("uptake_writer_retries_total", "Attempts that failed, by what the error means.", "class"),
		commits:        counter("uptake_writer_commits_total", "Commits of a boundary.", "outcome"),
		lagRecords:     gauge("uptake_writer_lag_records", "Offsets between the committed boundary and the end of the log.", "topic", "partition"),
		lagSeconds:     gauge("uptake_writer_lag_seconds", "Age of the oldest row that was read and not written.", "topic", "partition"),
		partitions:     gauge("uptake_writer_partitions", "Partitions that this writer has.", "topic"),
		halted:         gauge("uptake_writer_halted_partitions", "Partitions that are halted by a permanent error.", "topic"),
		ticks:          counter("uptake_writer_ticks_total", "Ticks produced to close the block of an idle partition.", "topic"),
		windowUsed:     gauge("uptake_writer_window_used_ratio", "Age of the oldest open block in shares of the dedup window.", "topic"),
		paused:         prometheus.NewGauge(prometheus.GaugeOpts{Name: "uptake_writer_paused_partitions", Help: "Partitions whose fetching is paused because their queue is full."}),
		queueBytes:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "uptake_writer_queue_bytes", Help: "Bytes of records that were fetched and not yet taken into blocks."}),
		corrections:    prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_writer_corrections_total", Help: "Control records that were carried out."}),
		correctedRows:  prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_writer_corrected_rows_total", Help: "Signed rows of them."}),
		correctionRead: prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_writer_correction_read_rows_total", Help: "Rows of usage_hourly that ClickHouse read to plan them."}),
		repaired:       prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_writer_repaired_texts_total", Help: "JSON texts that ClickHouse did not read and that were kept as a string."}),
	}
	for _, c := range []prometheus.Collector{m.paused, m.queueBytes, m.corrections, m.correctedRows, m.correctionRead, m.repaired} {
		register(reg, c)
	}
	for _, c := range clickhouse.Classes {
		m.retries.WithLabelValues(string(c))
	}
	for _, o := range []string{"ok", "failed"} {
		m.commits.WithLabelValues(o)
	}
	return m
}

// stored counts the rows of a block by app.
func (m *metrics) stored(name string, r rows) {
	counter := "stored"
	if name == topic.Rejected {
		counter = "rejected"
	}
	r.EachApp(func(app string, n int) { m.events.WithLabelValues(m.apps.of(app), counter).Add(float64(n)) })
}

// visible notes that ClickHouse has a block.
func (m *metrics) visible(name string, r rows, now time.Time) {
	oldest, newest := r.Received()
	if newest == 0 {
		return
	}
	m.visibleSeconds.WithLabelValues(name).Observe(max(0, float64(now.UnixMicro()-oldest)/1e6))
	m.newestMu.Lock()
	defer m.newestMu.Unlock()
	if newest > m.newestAt[name] {
		m.newestAt[name] = newest
		m.newest.WithLabelValues(name).Set(float64(newest) / 1e6)
	}
}

// perRow is what moves with every row of a topic. It belongs to one partition,
// which counts for itself and tells now and then: all partitions of the topic
// have the same counters, and the cores would pass them to and fro for each row.
type perRow struct {
	records, read prometheus.Counter
	pending       prometheus.Gauge

	newRecords, newRows int // not yet told
}

func (m *metrics) perRow(topic string) perRow {
	return perRow{
		records: m.records.WithLabelValues(topic, kindName(block.Content, nil)),
		read:    m.rowsRead.WithLabelValues(topic), pending: m.rowsPending.WithLabelValues(topic),
	}
}

// tell brings the counters up to date: before rows go to where they are counted
// as written or released, and before their partition waits for something.
func (c *perRow) tell() {
	c.records.Add(float64(c.newRecords))
	c.read.Add(float64(c.newRows))
	c.pending.Add(float64(c.newRows))
	c.newRecords, c.newRows = 0, 0
}

// maxApps bounds the values of the label app: what only broken records name
// counts together.
const maxApps = 1000

// labels are the apps that were counted.
type labels struct {
	mu   sync.Mutex // covers seen
	seen map[string]bool
}

// of returns the label of an app.
func (l *labels) of(app string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen[app] {
		return app
	}
	if len(l.seen) >= maxApps {
		return "other"
	}
	if l.seen == nil {
		l.seen = map[string]bool{}
	}
	l.seen[app] = true
	return app
}

func register(reg prometheus.Registerer, c prometheus.Collector) {
	if reg != nil {
		reg.MustRegister(c)
	}
}

// forget drops the gauges of a partition that this writer no longer has.
func (m *metrics) forget(topic string, partition int32) {
	p := strconv.Itoa(int(partition))
	m.lagRecords.DeleteLabelValues(topic, p)
	m.lagSeconds.DeleteLabelValues(topic, p)
}
