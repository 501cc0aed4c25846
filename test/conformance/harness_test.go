package conformance

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/ingest-gateway/gateway"
	"github.com/uptakehq/uptake/ingest-gateway/keys"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
)

// stage is a running gateway with an app for each scenario.
type stage struct {
	url     string
	brokers []string
	apps    []string // taken by scenarios
}

// newStage starts a gateway with an app for each of the names.
func newStage(t *testing.T, apps []string) *stage {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	s := &stage{brokers: cluster.ListenAddrs(), apps: apps}
	client, err := kgo.NewClient(kgo.SeedBrokers(s.brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := topic.Ensure(t.Context(), kadm.NewClient(client), topic.SingleLayout()); err != nil {
		t.Fatal(err)
	}

	var file strings.Builder
	file.WriteString("apps:\n")
	for _, app := range apps {
		fmt.Fprintf(&file, "  - id: %s\n    keys: ['%s']\n    ip: full\n    account_keys: [company, account.id]\n", app, keys.HashOf(keyOf(app)))
	}
	cfg := gateway.DefaultConfig()
	cfg.Addr = "127.0.0.1:0"
	cfg.Kafka.Brokers = s.brokers
	cfg.Keys = filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(cfg.Keys, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(cfg, gateway.Dependencies{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Metrics: prometheus.NewRegistry(), Health: &ops.Health{},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + g.Addr()
	kill, cut := context.WithCancelCause(context.Background())
	stop, end := context.WithCancel(kill)
	result := make(chan error, 1)
	go func() { result <- g.Run(process.Signals{Stop: stop, Kill: kill}) }() // ends with stop
	t.Cleanup(func() {
		end()
		if err := <-result; err != nil {
			t.Errorf("gateway: %v", err)
		}
		cut(process.ErrCutShort)
	})
	return s
}

// keyOf is the write key of an app. Moesif's SDK takes none below 50 characters.
func keyOf(app string) string { return "uk_conformance_" + app + strings.Repeat("_", 60-len(app)) }

// stored returns what raw holds by app. Nothing may be under way.
func (s *stage) stored(t *testing.T) map[string][]event.RawEvent {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.brokers...), kgo.ConsumeTopics(topic.Raw), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic.Raw)
	if err != nil {
		t.Fatal(err)
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	codec := event.NewCodec()
	byApp := map[string][]event.RawEvent{}
	for left > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d records of raw are left to read: %v", left, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			left--
			var e event.RawEvent
			if err := codec.DecodeRaw(r.Value, &e); err != nil {
				t.Errorf("raw %d/%d: %v", r.Partition, r.Offset, err)
				return
			}
			byApp[e.AppID] = append(byApp[e.AppID], e)
		})
	}
	return byApp
}
