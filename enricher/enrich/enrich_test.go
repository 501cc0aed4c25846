package enrich

import (
	"path/filepath"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What is in raw is in enriched once, in order, whatever was sent twice.
func TestEveryIDOnceInOrder(t *testing.T) {
	c := newCluster(t)
	i := c.start(filepath.Join(t.TempDir(), "a"))
	const n = 5000
	var records []*kgo.Record
	for k := range n {
		records = append(records, c.raw(track("dev", k)))
		if k%3 == 0 {
			records = append(records, c.raw(track("dev", k)), c.raw(track("prod", k)))
		}
	}
	c.send(records...)
	c.drained()
	c.send(records[:100]...)
	c.drained()
	c.check()
	i.stopped()
	consumed := i.metric("uptake_enricher_records_total", "fate=consumed")
	if want := float64(len(records) + 100); consumed != want {
		t.Errorf("consumed: got %v, want %v", consumed, want)
	}
	rest := i.metric("uptake_enricher_records_total", "fate=emitted") + i.metric("uptake_enricher_records_total", "fate=duplicate")
	if rest != consumed {
		t.Errorf("emitted and duplicates: got %v, want %v", rest, consumed)
	}
}
