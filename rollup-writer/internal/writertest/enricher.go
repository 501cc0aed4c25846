package writertest

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Enricher produces what an enricher would: events, rejects, and counts of them
// behind, with the raw offsets that they came from.
type Enricher struct {
	B    *Bench
	Next [Partitions]int64 // offset of raw, by partition
}

// rawTopicID is of the raw topic, into which transaction puts a record for each
// offset that it counts.
func (e *Enricher) rawTopicID() string {
	infos, err := topic.Unprefixed.Check(context.Background(), e.B.Admin, topic.Unprefixed.Raw)
	if err != nil {
		e.B.T.Fatal(err)
	}
	return infos[topic.Unprefixed.Raw].ID.String()
}

// Raw puts a record into raw.
func (e *Enricher) Raw(p int32, at event.Micros) {
	e.B.T.Helper()
	e.B.Produce(topic.Unprefixed.Raw, p, e.B.Codec.AppendRaw(nil, &event.RawEvent{AppID: "dev", MessageID: "any", ReceivedAt: at}))
}

// Commit commits what was taken from raw, as an enricher does in its transactions.
func (e *Enricher) Commit() {
	e.B.T.Helper()
	var offsets kadm.Offsets
	for p, next := range e.Next {
		offsets.Add(kadm.Offset{Topic: topic.Unprefixed.Raw, Partition: int32(p), At: next, LeaderEpoch: -1})
	}
	if _, err := e.B.Admin.CommitOffsets(context.Background(), topic.Unprefixed.GroupEnricher, offsets); err != nil {
		e.B.T.Fatal(err)
	}
}

// Transaction produces events and what was counted of them and of others.
func (e *Enricher) Transaction(list []*event.EnrichedEvent, duplicates, rejected int) {
	e.B.T.Helper()
	for p := range int32(Partitions) {
		var values, rejects [][]byte
		c := event.Counts{RawTopicID: e.rawTopicID(), First: e.Next[p]}
		cells := map[int64]*event.Cell{}
		cell := func(at event.Micros) *event.Cell {
			h := event.HourOf(at)
			if cells[h] == nil {
				cells[h] = &event.Cell{AppID: "dev", Hour: h}
			}
			cells[h].Accepted++
			e.Raw(p, at)
			return cells[h]
		}
		for _, ev := range list {
			if PartitionOf(ev) != p {
				continue
			}
			ev.RawOffset = e.Next[p]
			e.Next[p]++
			cell(ev.ReceivedAt).Stored++
			values = append(values, e.B.Codec.AppendEnriched(nil, ev))
			e.B.Sent = append(e.B.Sent, ev)
		}
		hour := FirstReceipt.Add(29*time.Hour + 30*time.Minute)
		for range duplicates {
			e.Next[p]++
			cell(event.FromTime(hour)).Duplicates++
		}
		for range rejected {
			r := event.Rejected{
				AppID: "dev", Stage: event.StageEnricher, Code: "bad_event", MessageID: fmt.Sprint("r-", p, "-", e.Next[p]),
				ReceivedAt: event.FromTime(hour), RejectedAt: event.FromTime(hour), SourcePartition: int64(p), SourceOffset: e.Next[p],
			}
			e.Next[p]++
			cell(r.ReceivedAt).Rejected++
			rejects = append(rejects, e.B.Codec.AppendRejected(nil, &r))
		}
		for _, c1 := range cells {
			c.Cells = append(c.Cells, *c1)
		}
		if c.Next = e.Next[p]; c.Next == c.First {
			continue
		}
		payload, err := c.Payload()
		if err != nil {
			e.B.T.Fatal(err)
		}
		e.B.Produce(topic.Unprefixed.Rejected, 0, rejects...)
		e.B.Produce(topic.Unprefixed.Enriched, p, append(values, e.B.Codec.AppendControl(nil, &event.Control{Kind: event.ControlCounts, Payload: payload}))...)
	}
}

// Conserved fails unless ClickHouse says that nothing is missing or too many of
// what was accepted.
func (e *Enricher) Conserved() {
	e.B.T.Helper()
	var accepted, want, wrong, ahead, hours int64
	for _, n := range e.Next {
		want += n
	}
	err := e.B.SQL.QueryRow(context.Background(), `SELECT sum(accepted), toInt64(countIf(difference != 0 OR stored_difference != 0 OR rejected_difference != 0)), sum(ahead), toInt64(count()) FROM audit_differences`).
		Scan(&accepted, &wrong, &ahead, &hours)
	if err != nil {
		e.B.T.Fatal(err)
	}
	if accepted != want || wrong != 0 || ahead != 0 || hours == 0 {
		e.B.T.Errorf("accepted %d, want %d; %d of %d hours differ, %d ahead", accepted, want, wrong, hours, ahead)
	}
	if got := e.B.Number("SELECT sum(value) FROM audit_counts WHERE stage = 'enricher' AND counter = 'accepted'"); got != want {
		e.B.T.Errorf("audit_counts: accepted %d, want %d", got, want)
	}
	for _, counter := range []string{"stored", "rejected"} {
		of := func(stage string) int64 {
			return e.B.Number("SELECT sum(value) FROM audit_counts WHERE stage = ? AND counter = ?", stage, counter)
		}
		if got, want := of("rollup-writer"), of("enricher"); got != want || want == 0 {
			e.B.T.Errorf("audit_counts: %s %d by the writer, %d by the enricher", counter, got, want)
		}
	}
	for p, next := range e.Next {
		if got := e.B.Number("SELECT sum(accepted) - max(raw_next) + min(raw_first) FROM audit_blocks FINAL WHERE source_partition = ?", p); got != 0 {
			e.B.T.Errorf("partition %d: %d more counted than its raw offsets up to %d", p, got, next)
		}
	}
}
