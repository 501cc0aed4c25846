package repair

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/replay"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// ReplayRejected sends rejected events through the pipeline again; what must be valid.
// Writers, enrichers and gateways may run.
func ReplayRejected(ctx context.Context, cfg boundary.Config, what replay.Config, log *slog.Logger, out io.Writer) (report *replay.Report, err error) {
	has, err := clickhouse.HasDatabase(ctx, &cfg.ClickHouse)
	if err == nil && !has {
		err = fmt.Errorf("no database %s: see `rollup-writer migrate`", cfg.ClickHouse.Database)
	}
	if err != nil {
		return nil, err
	}
	conn, err := clickhouse.OpenSQL(&cfg.ClickHouse)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	codec, err := cfg.Registry.Codec(ctx)
	if err != nil {
		return nil, err
	}
	raw := &rawProducer{cfg: &cfg, names: cfg.Kafka.Names(), log: log, codec: codec}
	defer raw.close()
	return replay.Run(ctx, conn, cfg.ClickHouse.Schema(), codec, raw, what, out)
}

// rawProducer writes events to raw, as a gateway does. It connects with the first
// event.
type rawProducer struct {
	cfg        *boundary.Config
	log        *slog.Logger
	codec      *event.Codec
	names      *topic.Names
	client     *kgo.Client
	partitions int32
}

// maxRawBytes bounds a record: one that an enricher rejected for its size may be sent
// again unchanged, to enrichers with a higher bound.
const maxRawBytes = 8 << 20

func (p *rawProducer) open(ctx context.Context) error {
	opts, err := p.cfg.Kafka.Options(p.log, nil)
	if err != nil {
		return err
	}
	p.client, err = kgo.NewClient(append(
		opts,
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(maxRawBytes),
	)...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, boundary.AskTimeout)
	defer cancel()
	infos, err := p.names.Check(ctx, kadm.NewClient(p.client), p.names.Raw)
	if err != nil {
		return err
	}
	p.partitions = infos[p.names.Raw].Partitions
	return nil
}

// Send implements replay.Raw.
func (p *rawProducer) Send(ctx context.Context, events []*event.RawEvent) error {
	if p.partitions == 0 {
		if err := p.open(ctx); err != nil {
			return err
		}
	}
	records := make([]*kgo.Record, len(events))
	for i, e := range events {
		key := topic.RawKey(nil, e.AppID, e.UserID, e.AnonymousID, e.AccountID)
		records[i] = &kgo.Record{Topic: p.names.Raw, Partition: topic.Partition(key, p.partitions), Key: key, Value: p.codec.AppendRaw(nil, e)}
	}
	if err := p.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("produce to %s: %w", p.names.Raw, err)
	}
	return nil
}

func (p *rawProducer) close() {
	if p.client != nil {
		p.client.Close()
	}
}
