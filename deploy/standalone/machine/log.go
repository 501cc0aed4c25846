package machine

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/catalog/sample"
	"github.com/uptakehq/uptake/schemas/topic"
)

// prepareLog makes the topics that are missing and, at the first start, applies
// the sample catalog: first says whether this is that start.
func prepareLog(ctx context.Context, addr string, logger *slog.Logger) (first bool, err error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ClientID("uptake-standalone"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return false, fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	layout := topic.SingleLayout()
	if err := topic.Unprefixed.Ensure(ctx, adm, layout); err != nil {
		return false, err
	}
	var names []string
	for _, s := range topic.Unprefixed.Specs(layout) {
		names = append(names, s.Name)
	}
	if _, err := topic.Unprefixed.Check(ctx, adm, names...); err != nil {
		return false, err
	}

	ends, err := adm.ListEndOffsets(ctx, topic.Unprefixed.Catalog)
	if err != nil {
		return false, fmt.Errorf("look for a catalog: %w", err)
	}
	end, _ := ends.Lookup(topic.Unprefixed.Catalog, 0)
	if end.Err != nil || end.Offset > 0 { // some catalog was applied before
		return false, end.Err
	}
	c, err := catalog.Parse(sample.MyPOS)
	if err != nil {
		return false, fmt.Errorf("read sample catalog: %w", err)
	}
	v, _, err := catalog.NewVersion(nil, App, c, "standalone", "sample catalog of the first start", time.Now())
	if err != nil {
		return false, fmt.Errorf("apply sample catalog: %w", err)
	}
	value, err := v.Encode()
	if err != nil {
		return false, fmt.Errorf("apply sample catalog: %w", err)
	}
	r := &kgo.Record{Topic: topic.Unprefixed.Catalog, Key: v.Key(), Value: value}
	if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
		return false, fmt.Errorf("apply sample catalog: %w", err)
	}
	logger.Info("sample catalog applied", "app", App, "version", v.Number)
	return true, nil
}
