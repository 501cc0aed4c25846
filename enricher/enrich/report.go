package enrich

import (
	"github.com/uptakehq/uptake/enricher/internal/metadata"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/privacy"
)

// flagMetricUnread says that something in a metric event could not be read; what
// it is stands under conflicts.
const flagMetricUnread = "metric_unread"

// report sets what a metric event reports. It reads what was sent, not the
// columns, in which a value may be a conflict for the type that its key has; and
// of that only what may be kept.
func (w *worker) report(raw *event.RawEvent, rules *privacy.Rules, e *event.EnrichedEvent) {
	if e.Kind != event.KindMetric {
		return
	}
	properties := raw.Properties
	if rules != nil {
		properties = w.objects.kept.by.Append(nil, privacy.Properties, properties)
	}
	r := w.reports.Read(properties)
	e.Metric = r.Append(nil)
	if len(r.Unread) == 0 {
		return
	}
	e.Conflicts = r.AppendConflicts(e.Conflicts)
	w.counts.metadata.conflicts[metadata.ReasonMetric] += uint64(len(r.Unread))
	w.flags.add(flagMetricUnread)
	e.Flags = w.flags.text()
}
