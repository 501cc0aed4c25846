package sizing

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Prices are what a month of a unit costs, in any currency. Zero is free.
type Prices struct {
	Core float64 // of one CPU core
	GiB  float64 // of one GiB of memory
	GB   float64 // of one GB (10⁹ bytes) of disk
}

// Validate reports all faults.
func (p Prices) Validate() error {
	var errs []error
	for _, f := range []struct {
		name string
		v    float64
	}{{"price-core", p.Core}, {"price-gib", p.GiB}, {"price-gb", p.GB}} {
		if f.v < 0 {
			errs = append(errs, fmt.Errorf("%s must be >= 0 (got %v)", f.name, f.v))
		}
	}
	return errors.Join(errs...)
}

// Assumptions about machines that no figure of ours decides.
const (
	serviceGiB       = 2.0 // of a gateway or writer: the chart's limits
	gibPerServerCore = 4.0 // of ClickHouse
	brokerCores      = 8.0
	brokerGiB        = 32.0
	daysOfRaw        = 7.0 // the topics' retention
	daysOfEnriched   = 14.0
)

// Item is one kind of machine of a plan.
type Item struct {
	Name  string
	Nodes int
	Cores float64 // of one node
	GiB   float64
	GB    float64
}

// Items are the machines of a plan. A service's machine has as many cores as it was
// planned with, although it may share a node; its disk is what it needs, with the
// free share that Busy leaves.
func (p *Plan) Items() []Item {
	l := p.Load
	const day = 24 * time.Hour
	logGB := p.mean * l.EventBytes * l.Compression * (daysOfRaw + daysOfEnriched*4/3) * day.Seconds() * l.LogCopies / 1e9
	each := func(total float64, nodes int) float64 { return total / float64(nodes) / l.Busy }
	return []Item{
		{"gateways", p.Gateways, l.Cores, serviceGiB, 0},
		{"enrichers", p.Enrichers, l.Cores, l.MemoryBytes / (1 << 30), each(p.EnricherDisk/1e9, p.Enrichers)},
		{"writers", p.Writers, l.Cores, serviceGiB, 0},
		{"brokers", p.Brokers, brokerCores, brokerGiB, each(logGB, p.Brokers)},
		{"ClickHouse", p.Servers, l.ServerCores, l.ServerCores * gibPerServerCore, each(p.ClickHouseDisk/1e9, p.Shards)},
	}
}

// Month is what the machines of an item cost in a month.
func (p Prices) Month(i Item) float64 {
	return float64(i.Nodes) * (i.Cores*p.Core + i.GiB*p.GiB + i.GB*p.GB)
}

// PriceRows writes the machines and prices of plans as a Markdown table.
func PriceRows(plans []Plan, prices Prices) string {
	var b strings.Builder
	b.WriteString("| events/s | gateways | enrichers | writers | brokers | ClickHouse servers | nodes | cores | memory | disk | a month | a million events |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, plan := range plans {
		var nodes int
		var cores, gib, gb, month float64
		fmt.Fprintf(&b, "| %.0f |", plan.Load.EventsPerSecond)
		for _, i := range plan.Items() {
			n := float64(i.Nodes)
			nodes, cores, gib, gb, month = nodes+i.Nodes, cores+n*i.Cores, gib+n*i.GiB, gb+n*i.GB, month+prices.Month(i)
			fmt.Fprintf(&b, " %d: %.0f |", i.Nodes, prices.Month(i))
		}
		million := month / (plan.mean * 30 * 24 * 3600 / 1e6)
		fmt.Fprintf(&b, " %d | %.0f | %.0f GiB | %s | %.0f | %.3f |\n", nodes, cores, gib, bytesText(gb*1e9), month, million)
	}
	return b.String()
}
