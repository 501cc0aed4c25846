package enrich

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the enricher's metrics. Counts of records are updated after their
// transaction was committed, so that they match the log.
type metrics struct {
	records            *prometheus.CounterVec // app, fate
	rejectedBy         *prometheus.CounterVec // code
	transactions       *prometheus.CounterVec // result
	transactionRecords prometheus.Histogram
	transactionSeconds prometheus.Histogram
	endSeconds         prometheus.Histogram
	sessions           *prometheus.CounterVec // reason
	fetchErrors        prometheus.Counter
	assigned           prometheus.Gauge
	lagRecords         *prometheus.GaugeVec   // topic, partition
	lost               *prometheus.CounterVec // topic
	restoreRecords     *prometheus.GaugeVec   // partition
	restoreTotal       *prometheus.GaugeVec   // partition
	restoreSeconds     prometheus.Histogram
	restoreSkipped     prometheus.Counter
	dedupKeys          *prometheus.GaugeVec   // partition
	dedupBytes         *prometheus.GaugeVec   // partition
	dedupReach         *prometheus.GaugeVec   // partition
	identityIDs        *prometheus.GaugeVec   // partition
	identityBytes      *prometheus.GaugeVec   // partition
	links              *prometheus.CounterVec // fate
	times              *prometheus.CounterVec // flags
	idsDropped         *prometheus.CounterVec // field
	converted          prometheus.Counter
	conflicts          *prometheus.CounterVec // reason
	noRoom             *prometheus.CounterVec // bound
	catalogVersion     *prometheus.GaugeVec   // app
	catalogErrors      prometheus.Counter
	waiting            prometheus.Gauge
	stalls             prometheus.Counter
	maxRecords         prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	name := func(s string) string { return "uptake_enricher_" + s }
	counterVec := func(n, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name(n), Help: help}, labels)
	}
	counter := func(n, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name(n), Help: help})
	}
	gaugeVec := func(n, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name(n), Help: help}, labels)
	}
	histogram := func(n, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name(n), Help: help, Buckets: buckets})
	}
	seconds := []float64{.005, .01, .025, .05, .1, .15, .25, .5, 1, 2.5, 5, 10, 30}
	m := &metrics{
		records:            counterVec("records_total", "Raw records by app and fate, counted when their transaction was committed: accepted is the sum of stored, duplicates, rejected and opted_out.", "app", "fate"),
		rejectedBy:         counterVec("rejected_total", "Rejected raw records by reason code.", "code"),
		transactions:       counterVec("transactions_total", "Transactions by result: committed, aborted, or failed with an unknown outcome.", "result"),
		transactionRecords: histogram("transaction_records", "Records per committed transaction.", prometheus.ExponentialBuckets(1, 4, 9)),
		transactionSeconds: histogram("transaction_seconds", "Time from the first record of a transaction to its commit.", seconds),
		endSeconds:         histogram("transaction_end_seconds", "Time of the commit itself, part of the transaction's time.", seconds),
		sessions:           counterVec("session_failures_total", "Clients discarded after an error, by reason.", "reason"),
		fetchErrors:        counter("fetch_errors_total", "Errors of fetches."),
		assigned:           prometheus.NewGauge(prometheus.GaugeOpts{Name: name("partitions_assigned"), Help: "Partitions served by this instance."}),
		lagRecords:         gaugeVec("lag_records", "Input records not yet consumed, as of the last fetch.", "topic", "partition"),
		lost:               counterVec("lost_records_total", "Input records that retention removed before they were consumed.", "topic"),
		restoreRecords:     gaugeVec("restore_records", "Records read so far in the restore of a partition.", "partition"),
		restoreTotal:       gaugeVec("restore_records_expected", "Records to read in the restore of a partition; 0 when not known.", "partition"),
		restoreSeconds:     histogram("restore_seconds", "Time from the assignment of a partition until it is served.", []float64{.01, .1, .5, 1, 5, 15, 60, 300, 1800}),
		restoreSkipped:     counter("restore_skipped_total", "Records of enriched and enricher-state that no release can have written, skipped by restores."),
		dedupKeys:          gaugeVec("dedup_ids", "Message ids that a partition remembers.", "partition"),
		dedupBytes:         gaugeVec("dedup_memory_bytes", "Memory of a partition's table of message ids, in bytes.", "partition"),
		dedupReach:         gaugeVec("dedup_reach_seconds", "How far back the message ids of a partition go: up to dedup-window, less where dedup-max-ids makes it shorter.", "partition"),
		identityIDs:        gaugeVec("identity_ids", "Users and anonymous ids that a partition knows.", "partition"),
		identityBytes:      gaugeVec("identity_memory_bytes", "Memory of a partition's identity state, in bytes.", "partition"),
		links:              counterVec("links_total", "Link records by fate: taken or rejected.", "fate"),
		times:              counterVec("time_decided_total", "Events that count at another time than their timestamp, by the flags that give the reason.", "flags"),
		idsDropped:         counterVec("ids_dropped_total", "Texts dropped because they are not ids, such as undefined or null, by field; the event counts without them.", "field"),
		converted:          counter("metadata_converted_total", "Values of properties and traits that were converted to their key's type."),
		conflicts:          counterVec("metadata_conflicts_total", "Values of properties and traits that are kept under conflicts, by reason.", "reason"),
		noRoom:             counterVec("metadata_no_room_total", "Values of new keys that got no column, by the bound that was reached: app (metadata-app-keys) or source (metadata-source-keys).", "bound"),
		catalogVersion:     gaugeVec("catalog_version", "Version of the catalog in force.", "app"),
		catalogErrors:      counter("catalog_errors_total", "Catalog versions that could not be read."),
		waiting:            prometheus.NewGauge(prometheus.GaugeOpts{Name: name("waiting_seconds"), Help: "How long records of an assigned partition have waited without a commit of the partition; 0 when none waits."}),
		stalls:             counter("stalls_total", "Clients replaced because records waited without progress."),
		maxRecords:         prometheus.NewGauge(prometheus.GaugeOpts{Name: name("transaction_max_records"), Help: "Number of records at which a transaction currently ends: max-records, or less after one that timed out."}),
	}
	if reg != nil {
		reg.MustRegister(m.records, m.rejectedBy, m.transactions, m.transactionRecords, m.transactionSeconds, m.endSeconds,
			m.sessions, m.fetchErrors, m.assigned, m.lagRecords, m.lost, m.restoreRecords, m.restoreTotal, m.restoreSeconds,
			m.restoreSkipped, m.dedupKeys, m.dedupBytes, m.dedupReach, m.identityIDs, m.identityBytes, m.links, m.times, m.idsDropped, m.converted, m.conflicts, m.noRoom, m.catalogVersion, m.catalogErrors,
			m.waiting, m.stalls, m.maxRecords)
	}
	return m
}

func label(partition int32) string { return strconv.Itoa(int(partition)) }

func (m *metrics) lag(topic string, partition int32, records int64) {
	m.lagRecords.WithLabelValues(topic, label(partition)).Set(float64(records))
}

func (m *metrics) restore(partition int32, done, of int64) {
	m.restoreRecords.WithLabelValues(label(partition)).Set(float64(done))
	m.restoreTotal.WithLabelValues(label(partition)).Set(float64(of))
}

func (m *metrics) partition(p *partition) {
	l := label(p.id)
	m.dedupKeys.WithLabelValues(l).Set(float64(p.seen.Len()))
	m.dedupBytes.WithLabelValues(l).Set(float64(p.seen.MemoryBytes()))
	m.dedupReach.WithLabelValues(l).Set(p.seen.Reach().Seconds())
	s := p.identity.Stats()
	m.identityIDs.WithLabelValues(l).Set(float64(s.IDs))
	m.identityBytes.WithLabelValues(l).Set(float64(s.Bytes))
}

// drop removes the gauges of a partition that this instance no longer has.
func (m *metrics) drop(partition int32) {
	l := prometheus.Labels{"partition": label(partition)}
	for _, g := range []*prometheus.GaugeVec{
		m.lagRecords, m.restoreRecords, m.restoreTotal, m.dedupKeys, m.dedupBytes, m.dedupReach, m.identityIDs, m.identityBytes,
	} {
		g.DeletePartialMatch(l)
	}
}

func (m *metrics) catalogs(s snapshot) {
	for app, c := range s {
		m.catalogVersion.WithLabelValues(app).Set(float64(c.number))
	}
}

// Fates of a raw record, as the conservation audit names them: each record has exactly
// one besides accepted. stored means that the enricher passed it on to enriched.
const (
	fateAccepted   = "accepted"
	fateStored     = "stored"
	fateDuplicates = "duplicates"
	fateRejected   = "rejected"
	fateOptedOut   = "opted_out"
	fateUnmapped   = "unmapped" // of the stored
	maxApps        = 1000
	appOther       = "other"
	fateFieldCount = 6
)

// appCounts are an app's counts in the open transaction.
type appCounts struct {
	stored, duplicates, rejected, optedOut, unmapped uint64

	app string
	out *[fateFieldCount]prometheus.Counter
}

// counts are a worker's counts, by app and by code, of the open transaction.
type counts struct {
	apps     map[string]*appCounts
	codes    map[string]uint64
	links    struct{ taken, rejected uint64 }
	times    map[string]uint64 // by flags
	ids      map[string]uint64 // dropped, by field
	metadata metadataStats
	last     *appCounts
}

// of returns the counts of an app. Apps beyond maxApps, which only broken records can
// name, are counted together.
func (c *counts) of(app string) *appCounts {
	if c.last != nil && c.last.app == app {
		return c.last
	}
	a := c.apps[app]
	if a == nil {
		if c.apps == nil {
			c.apps = map[string]*appCounts{}
		}
		if len(c.apps) >= maxApps {
			app = appOther
		}
		if a = c.apps[app]; a == nil {
			a = &appCounts{app: strings.Clone(app)}
			c.apps[a.app] = a
		}
	}
	c.last = a
	return a
}

func (c *counts) reject(code string) {
	if c.codes == nil {
		c.codes = map[string]uint64{}
	}
	c.codes[code]++
}

// time counts an event whose time was decided, by flags.
func (c *counts) time(flags string) {
	if flags == "" {
		return
	}
	if c.times == nil {
		c.times = map[string]uint64{}
	}
	c.times[flags]++
}

// idDropped counts a text that is not an id.
func (c *counts) idDropped(field string) {
	if c.ids == nil {
		c.ids = map[string]uint64{}
	}
	c.ids[field]++
}

// flush adds the counts to the metrics.
func (c *counts) flush(m *metrics) {
	for _, a := range c.apps {
		accepted := a.stored + a.duplicates + a.rejected + a.optedOut
		if accepted == 0 {
			continue
		}
		if a.out == nil {
			a.out = &[fateFieldCount]prometheus.Counter{}
			for i, fate := range [fateFieldCount]string{fateAccepted, fateStored, fateDuplicates, fateRejected, fateOptedOut, fateUnmapped} {
				a.out[i] = m.records.WithLabelValues(a.app, fate)
			}
		}
		for i, n := range [fateFieldCount]uint64{accepted, a.stored, a.duplicates, a.rejected, a.optedOut, a.unmapped} {
			if n > 0 {
				a.out[i].Add(float64(n))
			}
		}
		*a = appCounts{app: a.app, out: a.out}
	}
	for code, n := range c.codes {
		m.rejectedBy.WithLabelValues(code).Add(float64(n))
	}
	clear(c.codes)
	for flags, n := range c.times {
		m.times.WithLabelValues(flags).Add(float64(n))
	}
	clear(c.times)
	for field, n := range c.ids {
		m.idsDropped.WithLabelValues(field).Add(float64(n))
	}
	clear(c.ids)
	c.metadata.flush(m)
	if c.links.taken > 0 {
		m.links.WithLabelValues("taken").Add(float64(c.links.taken))
	}
	if c.links.rejected > 0 {
		m.links.WithLabelValues("rejected").Add(float64(c.links.rejected))
	}
	c.links.taken, c.links.rejected = 0, 0
}

// drop discards the counts of a transaction that was not committed.
func (c *counts) drop() {
	for _, a := range c.apps {
		*a = appCounts{app: a.app, out: a.out}
	}
	clear(c.codes)
	clear(c.times)
	clear(c.ids)
	c.links.taken, c.links.rejected = 0, 0
	c.metadata = metadataStats{}
}
