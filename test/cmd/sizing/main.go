// Command sizing computes how many partitions, gateways, enrichers, writers and
// ClickHouse servers a rate of events needs, from docs/performance.json.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/test/harness/repository"
	"github.com/uptakehq/uptake/test/sizing"
)

func main() { os.Exit(process.Main(os.Stderr, "sizing", run)) }

func run() error {
	l := sizing.DefaultLoad()
	memory, broker := l.MemoryBytes/(1<<30), l.BrokerBytes/1e6
	var file string
	var table bool
	set := flag.NewFlagSet("sizing", flag.ContinueOnError)
	set.Float64Var(&l.EventsPerSecond, "events-per-second", l.EventsPerSecond, "at the peak")
	set.Float64Var(&l.EventBytes, "event-bytes", l.EventBytes, "JSON of one event")
	set.Float64Var(&l.Batch, "batch", l.Batch, "events per request")
	set.Float64Var(&l.Identities, "identities", l.Identities, "users that are known, each with an anonymous id")
	set.DurationVar(&l.DedupWindow, "dedup-window", l.DedupWindow, "the enrichers' dedup-window")
	set.DurationVar(&l.Retention, "retention", l.Retention, "of rows in ClickHouse")
	set.Float64Var(&l.PeakToMean, "peak-to-mean", l.PeakToMean, "how many times the mean rate the peak is")
	set.Float64Var(&l.Cores, "cores", l.Cores, "of one gateway, enricher or writer")
	set.Float64Var(&memory, "memory-gib", memory, "of one enricher")
	set.Float64Var(&l.ServerCores, "server-cores", l.ServerCores, "of one ClickHouse server")
	set.Float64Var(&l.Replicas, "replicas", l.Replicas, "of each ClickHouse shard")
	set.Float64Var(&l.Busy, "busy", l.Busy, "share of cores and memory that the peak may take")
	set.Float64Var(&l.PartitionRate, "partition-rate", l.PartitionRate, "events per second of one partition at the peak")
	set.Float64Var(&l.Growth, "growth", l.Growth, "times that the rate may grow with these partitions")
	set.Float64Var(&broker, "broker-mb-per-second", broker, "that producers may send to one broker; no figure of ours")
	set.Float64Var(&l.LogCopies, "log-copies", l.LogCopies, "replication of the topics")
	set.Float64Var(&l.Compression, "compression", l.Compression, "bytes that the log keeps per byte of a record")
	var prices sizing.Prices
	set.Float64Var(&prices.Core, "price-core", 0, "a month of one CPU core costs, in your currency; with a price, the table is of machines and their price")
	set.Float64Var(&prices.GiB, "price-gib", 0, "a month of one GiB of memory costs")
	set.Float64Var(&prices.GB, "price-gb", 0, "a month of one GB of disk costs")
	set.StringVar(&file, "costs", "", "`file` with the measured costs; empty: docs/performance.json")
	set.BoolVar(&table, "table", false, "a table of rates up to 10 million events/s, in place of one")
	if err := set.Parse(os.Args[1:]); err != nil {
		return err
	}
	l.MemoryBytes, l.BrokerBytes = memory*(1<<30), broker*1e6
	if err := errors.Join(l.Validate(), prices.Validate()); err != nil {
		return fmt.Errorf("%w: %w", process.ErrUsage, err)
	}
	if file == "" {
		root, err := repository.Root()
		if err != nil {
			return err
		}
		file = filepath.Join(root, "docs", "performance.json")
	}
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return err
	}
	defer f.Close()
	costs, err := sizing.ReadCosts(f)
	if err != nil {
		return err
	}
	rates := []float64{l.EventsPerSecond}
	if table {
		rates = []float64{1e3, 1e4, 1e5, 1e6, 1e7}
	}
	var plans []sizing.Plan
	for _, rate := range rates {
		l.EventsPerSecond = rate
		plans = append(plans, sizing.Compute(costs, l))
	}
	if prices != (sizing.Prices{}) {
		fmt.Print(sizing.PriceRows(plans, prices))
		return nil
	}
	fmt.Print(sizing.Rows(plans))
	if table {
		return nil
	}
	p := plans[0]
	fmt.Printf("\nCores at the peak: gateways %.2f, enrichers %.2f, writers %.2f, ClickHouse %.2f in each of %g replicas (%d servers). The log takes %.0f MB/s from producers, %g copies of it.\n",
		p.GatewayCores, p.EnricherCores, p.WriterCores, p.ClickHouseCores, l.Replicas, p.Servers, p.LogBytesPerSecond/1e6, l.LogCopies)
	return nil
}
