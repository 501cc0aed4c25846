package enrich

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Codes of rejected records.
const (
	codeUndecodable = "undecodable"
	codeTooLarge    = "too_large"
	codeMissing     = "missing"
	codeInvalid     = "invalid"
)

// fault is why a raw record cannot be used.
type fault struct{ code, field, detail string }

// handle does one record: drop duplicates, normalize time, normalize metadata,
// resolve identity, map to a feature, redact, emit. Its error ends the
// transaction; a record that cannot be used is rejected and is no error.
func (w *worker) handle(r *kgo.Record) error {
	if r.Topic != topic.Raw {
		return nil // links: see identity
	}
	raw := &w.raw
	if f := w.decode(r, raw); f != nil {
		return w.reject(r, *f)
	}
	app := w.counts.of(raw.AppID)
	seen, err := w.part.seen.Seen(raw.AppID, raw.MessageID, raw.ReceivedAt)
	if err != nil {
		return err
	}
	if seen {
		app.consumed++
		app.duplicates++
		return nil
	}
	e := &w.enr
	*e = event.EnrichedEvent{
		AppID:       raw.AppID,
		Kind:        raw.Kind,
		Event:       raw.Event,
		MessageID:   raw.MessageID,
		UserID:      raw.UserID,
		AnonymousID: raw.AnonymousID,
		PreviousID:  raw.PreviousID,
		Timestamp:   raw.Timestamp,
		SentAt:      raw.SentAt,
		ReceivedAt:  raw.ReceivedAt,
		Quantity:    raw.Quantity,
		Properties:  raw.Properties,
		Traits:      raw.Traits,
		Context:     raw.Context,
		Protocol:    raw.Protocol,
		Library:     raw.Library,
		IP:          raw.IP,
		UserAgent:   raw.UserAgent,
		RawOffset:   r.Offset,
	}
	w.time(e)
	w.identify(raw, e)
	w.mapFeature(e)

	buf := w.out.room(len(r.Value) + len(r.Value)/4 + 512)
	value := w.out.keep(w.out.codec.AppendEnriched(buf, e))
	app.consumed++
	app.emitted++
	if event.IsUsage(e.Kind) && e.FeatureID == "" {
		app.unmapped++
	}
	w.emit(topic.Enriched, w.id, r.Key, value)
	return nil
}

// decode reads a raw record and checks what every stage relies on.
func (w *worker) decode(r *kgo.Record, raw *event.RawEvent) *fault {
	if err := w.n.svc.codec.DecodeRaw(r.Value, raw); err != nil {
		*raw = event.RawEvent{}
		return &fault{codeUndecodable, "", err.Error()}
	}
	switch {
	case len(r.Value) > w.n.svc.cfg.RecordBytes:
		return &fault{codeTooLarge, "", fmt.Sprintf("record has %d bytes, record-bytes allows %d", len(r.Value), w.n.svc.cfg.RecordBytes)}
	case raw.AppID == "":
		return &fault{codeMissing, "app_id", ""}
	case raw.MessageID == "":
		return &fault{codeMissing, "message_id", ""}
	case len(raw.AppID) > maxID:
		return &fault{codeTooLarge, "app_id", tooLong(len(raw.AppID))}
	case len(raw.MessageID) > maxID:
		return &fault{codeTooLarge, "message_id", tooLong(len(raw.MessageID))}
	case raw.ReceivedAt <= 0:
		return &fault{codeInvalid, "received_at", fmt.Sprintf("must be > 0 (got %d)", raw.ReceivedAt)}
	case raw.Quantity < 0:
		return &fault{codeInvalid, "quantity", fmt.Sprintf("must not be negative (got %d)", raw.Quantity)}
	case raw.UserID == "" && raw.AnonymousID == "" && raw.AccountID == "":
		return &fault{codeMissing, "user_id", "one of user_id, anonymous_id and account_id must be given"}
	}
	switch raw.Kind {
	case event.KindTrack, event.KindIdentify, event.KindGroup, event.KindAlias,
		event.KindPage, event.KindScreen, event.KindMetric, event.KindAPICall:
	default:
		return &fault{codeInvalid, "kind", fmt.Sprintf("unknown kind %q", cut(raw.Kind, 64))}
	}
	return nil
}

// maxID bounds ids that are kept in state.
const maxID = 1024

func tooLong(n int) string { return fmt.Sprintf("has %d bytes, at most %d are kept", n, maxID) }

// cut returns s, or its first n bytes without a torn character. The result is
// a copy.
func cut(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "..."
	}
	return strings.Clone(s)
}

// time sets when the event counts.
func (w *worker) time(e *event.EnrichedEvent) {
	e.EventTime = e.Timestamp
	if e.Timestamp == 0 {
		e.EventTime, e.Flags = e.ReceivedAt, "time_from_received"
	}
}

// identify sets whose event it is.
func (w *worker) identify(raw *event.RawEvent, e *event.EnrichedEvent) {
	switch {
	case raw.UserID != "":
		e.ActorID, e.ActorKind = raw.UserID, event.ActorUser
	case raw.AnonymousID != "":
		e.ActorID, e.ActorKind = raw.AnonymousID, event.ActorAnonymous
	default:
		e.ActorKind = event.ActorAccount
	}
	e.AccountID, e.AccountSource = raw.AccountID, event.AccountNone
	if raw.AccountID != "" {
		e.AccountSource = event.AccountFromEvent
	}
}

// mapFeature sets what the event is usage of.
func (w *worker) mapFeature(e *event.EnrichedEvent) {
	c := w.catalogs[e.AppID]
	if c == nil {
		return
	}
	e.CatalogVersion = c.number
	if m, ok := c.matcher.Match(e.Kind, e.Event, e.Properties, e.Context); ok {
		e.FeatureID, e.ModuleID, e.ProductID = m.FeatureID, m.ModuleID, m.ProductID
	}
}

// reject writes a raw record that cannot be used to rejected, with what could be
// read of it.
func (w *worker) reject(r *kgo.Record, f fault) error {
	app := w.counts.of(cut(w.raw.AppID, maxID))
	app.consumed++
	app.rejected++
	w.counts.reject(f.code)
	detail := f.detail
	original := r.Value
	if limit := w.n.svc.cfg.OutputBytes - rejectedOverhead; len(original) > limit {
		original = original[:limit]
		detail = strings.TrimPrefix(fmt.Sprintf("%s; only the first %d of %d original bytes are kept", detail, limit, len(r.Value)), "; ")
	}
	received := w.raw.ReceivedAt
	if received <= 0 {
		received = event.FromTime(r.Timestamp)
	}
	rej := event.Rejected{
		AppID:           cut(w.raw.AppID, maxID),
		Stage:           event.StageEnricher,
		Code:            f.code,
		Field:           f.field,
		Detail:          cut(detail, 1024),
		MessageID:       cut(w.raw.MessageID, maxID),
		Protocol:        cut(w.raw.Protocol, 64),
		ReceivedAt:      received,
		RejectedAt:      event.FromTime(w.n.svc.now()),
		SourcePartition: int64(r.Partition),
		SourceOffset:    r.Offset,
		Original:        original,
	}
	value := w.out.keep(w.out.codec.AppendRejected(w.out.room(len(original)+rejectedOverhead), &rej))
	key := []byte(rej.AppID)
	w.emit(topic.Rejected, topic.Partition(key, w.n.svc.rejected), key, value)
	return nil
}

const rejectedOverhead = 4 << 10

// emit produces one record of the transaction.
func (w *worker) emit(name string, partition int32, key, value []byte) {
	rec := w.out.record()
	rec.Topic, rec.Partition, rec.Key, rec.Value = name, partition, key, value
	if name == topic.Enriched {
		w.out.last = rec
	}
	w.n.cl.Produce(w.txn.ctx, rec, w.txn.produced)
}
