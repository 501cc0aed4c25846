// Package sizing computes how many processes and machines a rate of events
// needs, from what an event was measured to cost.
//
// It owns the arithmetic and its assumptions, each of which is a field with its
// source. It measures nothing: the costs come from docs/performance.json.
package sizing

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/topic"
)

// Costs are what was measured, of events of MeasuredBytes.
type Costs struct {
	GatewaySingle float64 `json:"gateway_single_us"` // CPU µs per event
	GatewayBatch  float64 `json:"gateway_batch_us"`  // in requests of MeasuredBatch
	Enricher      float64 `json:"enricher_us"`
	Writer        float64 `json:"writer_us"`
	ClickHouse    float64 `json:"rollups_us"` // inserts, rollups and merges, over minutes

	IDBytes       float64 `json:"memory_bytes_per_message_id"` // of the enrichers' memory
	IDDiskBytes   float64 `json:"disk_bytes_per_message_id"`
	IdentityBytes float64 `json:"memory_bytes_per_identity"`
	RowBytes      float64 `json:"clickhouse_bytes_per_row"` // events and rollups, compressed
}

// What the costs were measured with.
const (
	MeasuredBytes = 600 // JSON of an event
	MeasuredBatch = 100
)

// ReadCosts reads docs/performance.json.
func ReadCosts(r io.Reader) (Costs, error) {
	var c Costs
	if err := json.NewDecoder(r).Decode(&c); err != nil {
		return c, fmt.Errorf("read costs: %w", err)
	}
	var errs []error
	for _, f := range []struct {
		name string
		v    float64
	}{
		{"gateway_single_us", c.GatewaySingle},
		{"gateway_batch_us", c.GatewayBatch},
		{"enricher_us", c.Enricher},
		{"writer_us", c.Writer},
		{"rollups_us", c.ClickHouse},
		{"memory_bytes_per_message_id", c.IDBytes},
		{"disk_bytes_per_message_id", c.IDDiskBytes},
		{"memory_bytes_per_identity", c.IdentityBytes},
		{"clickhouse_bytes_per_row", c.RowBytes},
	} {
		if f.v <= 0 {
			errs = append(errs, fmt.Errorf("%s must be > 0 (got %v): it was not measured yet", f.name, f.v))
		}
	}
	return c, errors.Join(errs...)
}

// Load is what has to be carried, and on what.
type Load struct {
	EventsPerSecond float64 // at the peak
	EventBytes      float64 // JSON of one
	Batch           float64 // events per request
	Identities      float64 // users that are known, each with an anonymous id
	DedupWindow     time.Duration
	Retention       time.Duration // of rows in ClickHouse, at the mean rate
	PeakToMean      float64

	Cores       float64 // of one gateway, enricher or writer
	MemoryBytes float64 // of one enricher
	ServerCores float64 // of one ClickHouse server
	Replicas    float64 // of each ClickHouse shard
	Busy        float64 // share of the cores that the peak may take

	PartitionRate float64 // events per second of one partition at the peak
	Growth        float64 // of the rate, for which partitions are made: their count is fixed

	BrokerBytes float64 // per second that producers may send to one broker; not measured here
	LogCopies   float64 // replication of the topics
	Compression float64 // of records in the log: bytes kept per byte
}

// DefaultLoad is machines of 8 cores and 32 GiB, and servers of 16 cores.
func DefaultLoad() Load {
	return Load{
		EventsPerSecond: 10_000, EventBytes: MeasuredBytes, Batch: MeasuredBatch, Identities: 1e6, DedupWindow: topic.DedupWindow,
		Retention: 365 * 24 * time.Hour, PeakToMean: 3,
		Cores: 8, MemoryBytes: 32 << 30, ServerCores: 16, Replicas: 2, Busy: 0.6,
		PartitionRate: 10_000, Growth: 4, BrokerBytes: 40e6, LogCopies: 3, Compression: 0.4,
	}
}

// Validate reports all faults.
func (l Load) Validate() error {
	var errs []error
	for _, f := range []struct {
		name string
		v    float64
	}{
		{"events-per-second", l.EventsPerSecond},
		{"event-bytes", l.EventBytes},
		{"peak-to-mean", l.PeakToMean},
		{"cores", l.Cores},
		{"memory-gib", l.MemoryBytes},
		{"server-cores", l.ServerCores},
		{"partition-rate", l.PartitionRate},
		{"broker-mb-per-second", l.BrokerBytes},
		{"compression", l.Compression},
		{"dedup-window", l.DedupWindow.Seconds()},
		{"retention", l.Retention.Seconds()},
	} {
		if f.v <= 0 {
			errs = append(errs, fmt.Errorf("%s must be > 0 (got %v)", f.name, f.v))
		}
	}
	for _, f := range []struct {
		name string
		v    float64
	}{{"batch", l.Batch}, {"replicas", l.Replicas}, {"growth", l.Growth}, {"log-copies", l.LogCopies}} {
		if f.v < 1 {
			errs = append(errs, fmt.Errorf("%s must be >= 1 (got %v)", f.name, f.v))
		}
	}
	if l.Busy <= 0 || l.Busy > 1 {
		errs = append(errs, fmt.Errorf("busy must be in (0, 1] (got %v)", l.Busy))
	}
	if l.Identities < 0 {
		errs = append(errs, fmt.Errorf("identities must be >= 0 (got %v)", l.Identities))
	}
	return errors.Join(errs...)
}

// Plan is what a load needs.
type Plan struct {
	Load Load

	Partitions                int
	Gateways                  int
	Enrichers                 int
	EnrichersBy               string // what decides: cpu or memory
	Writers                   int
	Shards, Servers           int
	Brokers                   int
	GatewayCores              float64 // at the peak
	EnricherCores             float64
	WriterCores               float64
	ClickHouseCores           float64 // of one replica of all shards
	EnricherMemory            float64 // bytes, all together
	EnricherDisk              float64
	ClickHouseDisk            float64       // bytes, of one replica of all shards
	LogBytesPerSecond         float64       // that producers send, raw and enriched
	InsertsPerSecond          float64       // per shard
	DedupWindowOfClickHouse   time.Duration // how long 200,000 entries last
	rowsPerInsert, mean, size float64
}

// Blocks in production: so many rows, or what comes in so long.
const (
	blockRows     = 50_000
	blockInterval = 5.0 // seconds
	windowEntries = 200_000
)

// leastPartitions leaves room for a few instances of each service: the count
// cannot be changed later.
const leastPartitions = 8

// heapGrowth is how far the collector lets a heap grow over what lives in it,
// unless GOMEMLIMIT holds it lower.
const heapGrowth = 2

// Compute returns what a load needs. At least two of each service, so that one
// may stop; at least three brokers, for the copies of the log.
func Compute(c Costs, l Load) Plan {
	p := Plan{Load: l}
	// Larger events cost in proportion, which is more than they were measured to;
	// smaller ones no less than the measured.
	p.size = math.Max(1, l.EventBytes/MeasuredBytes)
	p.mean = l.EventsPerSecond / l.PeakToMean
	rate := l.EventsPerSecond

	p.Partitions = max(leastPartitions, nextPowerOfTwo(int(math.Ceil(rate*l.Growth/l.PartitionRate))))

	// Single requests and batches tell what a request costs, and what an event in it.
	perRequest := math.Max(0, c.GatewaySingle-c.GatewayBatch) / (1 - 1.0/MeasuredBatch)
	perEvent := math.Max(0, c.GatewaySingle-perRequest)
	p.GatewayCores = rate * (perEvent*p.size + perRequest/l.Batch) / 1e6
	p.Gateways = instances(p.GatewayCores, l.Cores*l.Busy)

	p.EnricherCores = rate * c.Enricher * p.size / 1e6
	ids := p.mean * l.DedupWindow.Seconds()
	p.EnricherMemory = heapGrowth * (ids*c.IDBytes + l.Identities*c.IdentityBytes)
	p.EnricherDisk = ids * c.IDDiskBytes
	byCPU, byMemory := instances(p.EnricherCores, l.Cores*l.Busy), instances(p.EnricherMemory, l.MemoryBytes*l.Busy)
	p.Enrichers, p.EnrichersBy = byCPU, "cpu"
	if byMemory > byCPU {
		p.Enrichers, p.EnrichersBy = byMemory, "memory"
	}
	// An instance without a partition does nothing.
	p.Partitions = max(p.Partitions, nextPowerOfTwo(p.Enrichers))

	p.WriterCores = rate * c.Writer * p.size / 1e6
	p.Writers = min(instances(p.WriterCores, l.Cores*l.Busy), p.Partitions)

	p.ClickHouseCores = rate * c.ClickHouse * p.size / 1e6
	p.Shards = max(1, int(math.Ceil(p.ClickHouseCores/(l.ServerCores*l.Busy))))
	p.Servers = p.Shards * int(l.Replicas)
	p.ClickHouseDisk = p.mean * l.Retention.Seconds() * c.RowBytes * p.size
	perPartition := rate / float64(p.Partitions)
	p.rowsPerInsert = math.Min(blockRows, perPartition*blockInterval)
	p.InsertsPerSecond = rate / p.rowsPerInsert / float64(p.Shards)
	p.DedupWindowOfClickHouse = time.Duration(windowEntries / p.InsertsPerSecond * float64(time.Second))

	// The enriched record is the raw one and what was found out, about a third more.
	p.LogBytesPerSecond = rate * l.EventBytes * (1 + 4.0/3) * l.Compression
	p.Brokers = max(int(l.LogCopies), int(math.Ceil(p.LogBytesPerSecond/l.BrokerBytes)))
	return p
}

// instances is how many of a size are needed, at least two.
func instances(need, each float64) int { return max(2, int(math.Ceil(need/each))) }

func nextPowerOfTwo(n int) int {
	p := 1
	for p < n {
		p *= 2
	}
	return p
}

// Rows writes plans as a Markdown table.
func Rows(plans []Plan) string {
	var b strings.Builder
	b.WriteString("| events/s | partitions | gateways | enrichers (by) | writers | ClickHouse shards | brokers | enricher memory, disk | ClickHouse disk a replica | inserts/s a shard, of rows | 200,000 entries last |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, p := range plans {
		fmt.Fprintf(&b, "| %.0f | %d | %d | %d (%s) | %d | %d | %d | %s, %s | %s | %.1f of %.0f | %.1f h |\n",
			p.Load.EventsPerSecond, p.Partitions, p.Gateways, p.Enrichers, p.EnrichersBy, p.Writers, p.Shards, p.Brokers,
			bytesText(p.EnricherMemory), bytesText(p.EnricherDisk), bytesText(p.ClickHouseDisk), p.InsertsPerSecond, p.rowsPerInsert, p.DedupWindowOfClickHouse.Round(time.Hour/10).Hours())
	}
	return b.String()
}

func bytesText(v float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	i := 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	return fmt.Sprintf("%.3g %s", v, units[i])
}
