package boundary

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/kafka"
	"github.com/uptakehq/uptake/schemas/svc/registry"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// Config names the log and the tables, and the rule that cuts the log into blocks.
type Config struct {
	Kafka      kafka.Config
	Registry   registry.Config
	ClickHouse clickhouse.Config

	// BlockRecords (N) and BlockInterval (T) belong to the topics: `init` commits them,
	// and a writer with other values refuses to serve.
	BlockRecords  int64
	BlockInterval time.Duration
	// SkipRecords are topic/partition@offset of records that no release can decode;
	// each is skipped.
	SkipRecords setting.Strings
}

// DefaultConfig is for one machine.
func DefaultConfig() Config {
	return Config{
		Kafka:         kafka.DefaultConfig("rollup-writer"),
		ClickHouse:    clickhouse.DefaultConfig(),
		BlockRecords:  50_000,
		BlockInterval: time.Second,
	}
}

// Flags defines the settings as flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	c.Kafka.Flags(set)
	c.Registry.Flags(set)
	c.ClickHouse.Flags(set)
	set.Int64Var(&c.BlockRecords, "block-records", c.BlockRecords, "a block of rows ends at each multiple of this many offsets; fixed for the life of the topics")
	set.DurationVar(&c.BlockInterval, "block-interval", c.BlockInterval, "a block of rows ends at each multiple of this interval of append time; fixed for the life of the topics")
	set.Var(&c.SkipRecords, "skip-records", "comma-separated `topic/partition@offset` of records that cannot be decoded and are to be skipped; the same on all writers")
}

// Shape is the rule by which blocks are cut.
func (c *Config) Shape() block.Shape {
	return block.Shape{Records: c.BlockRecords, Interval: c.BlockInterval}
}

// Validate reports all faults, each with the setting's name.
func (c *Config) Validate() error {
	_, err := c.Skips()
	return errors.Join(c.Kafka.Validate(), c.Registry.Validate(), c.ClickHouse.Validate(), c.Shape().Validate(), err)
}

// Place is a record's place in the log.
type Place struct {
	Topic     string
	Partition int32
	Offset    int64
}

// Skips are the records of SkipRecords.
func (c *Config) Skips() (map[Place]bool, error) {
	skips := map[Place]bool{}
	for _, s := range c.SkipRecords {
		path, offset, ok1 := strings.Cut(s, "@")
		topic, partition, ok2 := strings.Cut(path, "/")
		p, err1 := strconv.ParseInt(partition, 10, 32)
		o, err2 := strconv.ParseInt(offset, 10, 64)
		if !ok1 || !ok2 || topic == "" || err1 != nil || err2 != nil || p < 0 || o < 0 {
			return nil, fmt.Errorf("skip-records must be topic/partition@offset (got %q)", s)
		}
		skips[Place{topic, int32(p), o}] = true
	}
	return skips, nil
}
