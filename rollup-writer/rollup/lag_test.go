package rollup

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Readiness says how far behind a writer is, and a log line that it falls behind: not
// before the boundary of a partition is known, and no longer when another writer has it.
func TestLagIsReported(t *testing.T) {
	var logged bytes.Buffer
	var health ops.Health
	s, err := New(DefaultConfig(), Dependencies{Logger: slog.New(slog.NewTextHandler(&logged, nil)), Health: &health})
	if err != nil {
		t.Fatal(err)
	}
	early, late := s.newPartition(topic.Unprefixed.Enriched, 0), s.newPartition(topic.Unprefixed.Enriched, 1)
	s.partitions[topic.Unprefixed.Enriched] = map[int32]*partition{0: early, 1: late}
	ends := kadm.ListedOffsets{topic.Unprefixed.Enriched: {0: {Offset: 500_000}, 1: {Offset: 300_000}}}

	s.reportLag(ends)
	if got := health.Notes()["lag"]; got != "" || logged.Len() > 0 {
		t.Errorf("before any boundary is known: note %q, log %q", got, &logged)
	}
	late.committed.Store(100_000)
	late.started.Store(true)
	s.reportLag(ends)
	if got, want := health.Notes()["lag"], "200000 records behind in 1 partitions, 200000 of them in uptake.enriched.v1/1"; got != want {
		t.Errorf("behind: note %q, want %q", got, want)
	}
	if n := strings.Count(logged.String(), "level=WARN"); n != 1 {
		t.Errorf("behind: %d warnings, want 1: %s", n, &logged)
	}
	s.remove(map[string][]int32{topic.Unprefixed.Enriched: {1}})
	if got := health.Notes()["lag"]; got != "" {
		t.Errorf("after the partition went: note %q", got)
	}
}
