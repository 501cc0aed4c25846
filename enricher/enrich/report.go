package enrich

import (
	"github.com/uptakehq/uptake/enricher/internal/metadata"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/privacy"
)

// flagMetricUnread marks a metric event of which a field could not be parsed; the field
// is kept under conflicts.
const flagMetricUnread = "metric_unread"

// report sets the metric that a metric event reports. It reads the properties as sent,
// since in the columns a value may be a conflict for its key's type, and of those only
// what privacy rules keep.
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
