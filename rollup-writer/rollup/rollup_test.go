package rollup

import (
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// What is sent is in events and in every rollup, once, also over a restart.
func TestWritesWhatIsSent(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	b.send(events(1, 500))
	b.awaitRows()
	b.check()
	if got, want := w.metric("uptake_writer_rows_written_total"), float64(len(b.sent)); got != want {
		t.Errorf("rows written: got %v, want %v", got, want)
	}
	w.end()
	b.send(events(2, 300))
	w = b.start()
	b.awaitRows()
	b.check()
	w.end()
	if err := w.health.Ready()["rollup-writer"]; err != "" {
		t.Errorf("health: %s", err)
	}
	b.produce(topic.Rejected, 0, b.codec.AppendRejected(nil, &event.Rejected{
		AppID: "dev", Stage: event.StageGateway, Code: "missing_event", Original: []byte(`{"type":"track"}`), SourcePartition: -1, SourceOffset: -1,
	}))
	w = b.start()
	b.await("the rejected event", func() bool { return b.number("SELECT count() FROM rejected_events") == 1 })
	b.awaitSettled()
}
