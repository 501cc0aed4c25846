package enrich

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/client"
	"github.com/uptakehq/uptake/enricher/internal/identity"
	"github.com/uptakehq/uptake/enricher/internal/timing"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/ids"
	"github.com/uptakehq/uptake/schemas/privacy"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Codes of rejected records, as in the gateway's replies.
const (
	codeUndecodable  = "undecodable"   // not a record of this system, or of a version that this program cannot read
	codeTooLarge     = "too_large"     // above record-bytes or output-bytes
	codeMissingField = "missing_field" // a field that every event has is absent
	codeTooLong      = "too_long"      // an id above its bound
	codeUnknownKind  = "unknown_kind"  // the kind of call does not exist
	codeBadTimestamp = "bad_timestamp" // the instant of receipt is out of range
	codeBadQuantity  = "bad_quantity"  // negative
	codeBadEvent     = "bad_event"     // properties or traits that are not a JSON object, or an app that is not UTF-8
	codeTooMuchWork  = "too_much_work" // it causes more identity work than identity-max-record-... allows
)

// fault is the reason why a record cannot be used.
type fault struct{ code, field, detail string }

// handle processes one record; rest are the records after it. An error ends the
// transaction; a record that cannot be used is rejected, which is not an error.
func (w *worker) handle(r *kgo.Record, rest []*kgo.Record) error {
	if r.Topic == w.n.svc.names.Raw {
		return w.handleRaw(r, rest)
	}
	return w.handleLink(r)
}

// handleRaw drops duplicates, normalizes time, normalizes metadata, resolves
// identity, maps to a feature, redacts and emits.
func (w *worker) handleRaw(r *kgo.Record, rest []*kgo.Record) error {
	raw := &w.raw
	w.tally.took(r.Offset)
	if f := w.decode(r, raw); f != nil {
		w.rejectRaw(r, f)
		return nil
	}
	w.message = raw.Message().AppendTo(w.message[:0])
	seen, err := w.part.seen.Seen(raw.AppID, view(w.message))
	if err != nil {
		return err
	}
	if seen {
		w.counts.of(raw.AppID).duplicates++
		w.tally.accept(raw.AppID, raw.ReceivedAt).Duplicates++
		w.judgeRaw(raw, nil)
		return nil
	}
	rules := w.n.svc.privacy.Policy().App(raw.AppID)
	if w.leftAlone(rules, raw) {
		w.counts.of(raw.AppID).optedOut++
		w.tally.accept(raw.AppID, raw.ReceivedAt).OptedOut++
		w.judgeOptedOut(raw)
		return nil
	}
	at, timeFlags := w.n.svc.timing.Decide(raw.Timestamp, raw.SentAt, raw.ReceivedAt, raw.Library, raw.TimeNotes&event.TimeAnyAge != 0)
	f, err := w.normalize(raw, rest)
	if err != nil {
		return err
	}
	if f != nil {
		w.rejectRaw(r, f)
		return nil
	}
	invented := w.identity.Invented(raw)
	if invented {
		raw.AnonymousID = ""
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
		EventTime:   at,
		Timestamp:   raw.Timestamp,
		SentAt:      raw.SentAt,
		ReceivedAt:  raw.ReceivedAt,
		Quantity:    raw.Quantity,
		Properties:  w.objects.properties,
		Traits:      w.objects.traits,
		Context:     raw.Context,
		Conflicts:   w.objects.conflicts,
		SessionID:   view(sessionID(raw.Context, raw.Properties)),
		Protocol:    raw.Protocol,
		Library:     raw.Library,
		IP:          raw.IP,
		UserAgent:   raw.UserAgent,
		RawOffset:   r.Offset,
	}
	w.flags.clear()
	w.flags.add(w.flagUnread(raw, timeFlags))
	if invented {
		w.flags.add(flagIDInvented)
	}
	if raw.TimeNotes&event.TimeAmbiguous != 0 {
		w.flags.add(flagTimeAmbiguous)
	}
	w.identity.RoleFrom(w.objects.kept.roleTraits(rules, raw.Traits))
	if err := w.identify(raw, e); err != nil {
		return w.tooMuchWork(err, func(f *fault) { w.rejectRaw(r, f) })
	}
	w.mapFeature(raw, e)
	e.Flags = w.flags.text()
	w.objects.kept.redact(rules, e, raw.Unread)
	w.describeClient(raw, rules, e)
	w.report(raw, rules, e)

	value := w.out.codec.AppendEnriched(w.out.room(len(r.Value)+len(r.Value)/4+512), e)
	if len(value) > w.n.svc.cfg.OutputBytes {
		w.rejectRaw(r, &fault{codeTooLarge, "", fmt.Sprintf("the enriched event has %d bytes, output-bytes allows %d", len(value), w.n.svc.cfg.OutputBytes)})
		return nil
	}
	value = w.out.keep(value)
	w.part.seen.Add(raw.ReceivedAt, r.Timestamp)
	w.emit(w.n.svc.names.Enriched, w.id, r.Key, value)
	w.counts.metadata.add(w.norm.Stats())
	w.counts.time(timeFlags)
	w.tally.accept(raw.AppID, raw.ReceivedAt).Stored++
	app := w.counts.of(raw.AppID)
	app.stored++
	if event.IsUsage(e.Kind) && e.FeatureID == "" {
		app.unmapped++
	}
	w.judgeStored(e)
	return nil
}

// handleLink applies a claim from another partition's enricher.
func (w *worker) handleLink(r *kgo.Record) error {
	l := &w.link
	if err := w.n.svc.codec.DecodeLink(r.Value, l); errors.Is(err, event.ErrSchema) {
		// Rejected, the claim would never be applied here.
		return fmt.Errorf("%w: offset %d of %s/%d: %w: a newer release wrote it: use one", errPermanent, r.Offset, r.Topic, r.Partition, err)
	} else if err != nil {
		w.raw = event.RawEvent{}
		w.reject(r, &fault{codeUndecodable, "links", err.Error()})
		w.counts.links.rejected++
		return nil
	}
	w.learnt.Reset()
	if err := w.identity.Link(r.Offset, l, &w.learnt); err != nil {
		return w.tooMuchWork(err, func(f *fault) {
			w.raw = event.RawEvent{AppID: l.AppID, MessageID: l.MessageID, ReceivedAt: l.RecordedAt}
			w.reject(r, f)
			w.counts.links.rejected++
		})
	}
	w.emitLearnt()
	w.counts.links.taken++
	return nil
}

// tooMuchWork rejects a record that identity refused because of a bound; it returns
// other errors.
func (w *worker) tooMuchWork(err error, reject func(*fault)) error {
	work, ok := errors.AsType[*identity.WorkError](err)
	if !ok {
		return err
	}
	reject(&fault{codeTooMuchWork, "", work.Error()})
	return nil
}

// decode reads a raw record and checks the fields that every stage relies on.
func (w *worker) decode(r *kgo.Record, raw *event.RawEvent) *fault {
	if err := w.n.svc.codec.DecodeRaw(r.Value, raw); err != nil {
		*raw = event.RawEvent{}
		return &fault{codeUndecodable, "", err.Error()}
	}
	switch {
	case len(r.Value) > w.n.svc.cfg.RecordBytes:
		return &fault{codeTooLarge, "", fmt.Sprintf("record has %d bytes, record-bytes allows %d", len(r.Value), w.n.svc.cfg.RecordBytes)}
	case raw.AppID == "":
		return &fault{codeMissingField, "app_id", ""}
	case raw.MessageID == "":
		return &fault{codeMissingField, "message_id", ""}
	case len(raw.AppID) > maxID:
		return &fault{codeTooLong, "app_id", tooLong(len(raw.AppID))}
	case len(raw.MessageID) > maxID:
		return &fault{codeTooLong, "message_id", tooLong(len(raw.MessageID))}
	case !utf8.ValidString(raw.AppID):
		return &fault{codeBadEvent, "app_id", "is not UTF-8"}
	case raw.ReceivedAt <= 0 || raw.ReceivedAt >= event.MaxReceived:
		return &fault{codeBadTimestamp, "received_at", fmt.Sprintf("must be > 0 and < %d (got %d)", event.MaxReceived, raw.ReceivedAt)}
	case raw.Quantity < 0:
		return &fault{codeBadQuantity, "quantity", fmt.Sprintf("must not be negative (got %d)", raw.Quantity)}
	}
	if raw.IDRules == 0 {
		w.readIDs(raw)
	}
	switch raw.Kind {
	case event.KindTrack, event.KindIdentify, event.KindGroup, event.KindAlias,
		event.KindPage, event.KindScreen, event.KindMetric, event.KindAPICall:
	default:
		return &fault{codeUnknownKind, "type", fmt.Sprintf("unknown kind %q", cut(raw.Kind, 64))}
	}
	return nil
}

// readIDs removes texts that are not ids, for records of gateways that did not.
func (w *worker) readIDs(raw *event.RawEvent) {
	w.unread = w.unread[:0]
	for _, id := range [...]struct {
		field string
		text  *string
	}{{ids.User, &raw.UserID}, {ids.Anonymous, &raw.AnonymousID}, {ids.Previous, &raw.PreviousID}, {ids.Account, &raw.AccountID}} {
		read, dropped := ids.Default.Read(*id.text)
		if dropped {
			w.unread = ids.AppendUnread(w.unread, id.field, cut(*id.text, ids.MaxText))
		}
		*id.text = read
	}
	raw.Unread = w.unread
}

// Flags of fields that were sent and not used.
const (
	flagIDInvented     = "anonymous_id_invented" // generated by a library for this message: the event counts without it
	flagIDDropped      = "id_dropped"            // a text that is not an id: it is kept under conflicts
	flagTimeUnreadable = "time_unreadable"       // no instant can be parsed: the event counts at its receipt
	flagTimeOtherField = "time_other_field"      // one of two time fields could not be parsed
	flagTimeAmbiguous  = "time_ambiguous"        // its local time occurred twice; it counts at the first
)

// flagUnread flags and counts fields that were sent and not used; it returns the flags
// about the event's time.
func (w *worker) flagUnread(raw *event.RawEvent, timeFlags string) string {
	if len(raw.Unread) < len(`{"":""}`) {
		return timeFlags
	}
	dropped := false
	for _, field := range [...]string{ids.User, ids.Anonymous, ids.Previous, ids.Account} {
		if unreadHas(raw.Unread, field) {
			w.counts.idDropped(field)
			dropped = true
		}
	}
	if dropped {
		w.flags.add(flagIDDropped)
	}
	switch {
	case !unreadHas(raw.Unread, ids.Timestamp):
	case timeFlags == timing.FlagFromReceived:
		return flagTimeUnreadable
	default:
		w.flags.add(flagTimeOtherField)
	}
	return timeFlags
}

// unreadHas reports whether the object has one of this system's fields. A string value
// cannot look like one, since its quotes are escaped.
func unreadHas(unread []byte, field string) bool {
	return strings.Contains(view(unread), `"`+field+`":`)
}

// maxID bounds ids that are kept in state, in bytes.
const maxID = 1024

func tooLong(n int) string { return fmt.Sprintf("has %d bytes, at most %d are kept", n, maxID) }

// cut returns s, or at most its first n bytes as whole characters. The result is a
// copy.
func cut(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "..."
	}
	return strings.Clone(s)
}

// view returns the text of b, which must not change while it is used.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// identify sets the event's actor and account, and emits what the event teaches
// identity: corrections precede the event that caused them.
func (w *worker) identify(raw *event.RawEvent, e *event.EnrichedEvent) error {
	w.learnt.Reset()
	res, err := w.identity.Event(e.RawOffset, raw, e.EventTime, &w.learnt)
	if err != nil {
		return err
	}
	e.ActorID, e.ActorKind, e.Role = res.ActorID, res.ActorKind, res.Role
	e.AccountID, e.AccountSource = res.AccountID, res.AccountSource
	e.LinkedUserID, e.ParentAccountID = res.LinkedUserID, res.ParentAccountID
	w.flags.add(res.Flags)
	w.emitLearnt()
	return nil
}

// emitLearnt emits what identity learnt from the last record.
func (w *worker) emitLearnt() {
	o := &w.learnt
	for i := range o.Controls {
		c := &o.Controls[i]
		w.emit(w.n.svc.names.Enriched, w.id, []byte(c.AppID), w.out.keep(w.out.codec.AppendControl(w.out.room(len(c.Payload)+256), c)))
	}
	for i := range o.Links {
		l := &o.Links[i]
		w.emit(w.n.svc.names.Links, l.Partition, l.Key, w.out.keep(w.out.codec.AppendLink(w.out.room(len(l.Record.Profile)+512), &l.Record)))
	}
	for i := range o.Changes {
		w.emit(w.n.svc.names.EnricherState, w.id, o.Changes[i].Key, o.Changes[i].Value)
	}
}

// mapFeature sets the event's feature. Rules see the properties as they were sent: in
// the columns a value may be a conflict for its key's type.
func (w *worker) mapFeature(raw *event.RawEvent, e *event.EnrichedEvent) {
	c := (*w.catalogs)[e.AppID]
	if c == nil {
		return
	}
	e.CatalogVersion = c.number
	if m, ok := c.matcher.Match(e.Kind, e.Event, raw.Properties, e.Context); ok {
		e.FeatureID, e.ModuleID, e.ProductID = m.FeatureID, m.ModuleID, m.ProductID
	}
}

// describeClient sets the event's client. It reads what the privacy rules let through,
// but properties as they were sent: a campaign may be a number where most are texts.
func (w *worker) describeClient(raw *event.RawEvent, rules *privacy.Rules, e *event.EnrichedEvent) {
	sent := client.Sent{Kind: e.Kind, Properties: raw.Properties, Context: e.Context, UserAgent: e.UserAgent, Country: raw.Country}
	if rules != nil {
		sent.Properties = w.objects.kept.clientProperties(w.client.Pick(raw.Properties))
	}
	e.Client = w.client.Read(&sent)
	if rules != nil {
		w.objects.kept.redactCampaign(&e.Client)
	}
	if rules.DropsUserAgent() {
		e.Browser, e.OS, e.DeviceClass = "", "", ""
	}
	if rules.DropsIP() {
		e.Country = ""
	}
}

// rejectRaw rejects a raw record, with the fields of it that could be read in w.raw.
func (w *worker) rejectRaw(r *kgo.Record, f *fault) {
	app := rejectedApp(&w.raw)
	w.counts.of(app).rejected++
	w.tally.accept(app, receivedAt(&w.raw, r)).Rejected++
	w.reject(r, f)
	w.judgeRaw(&w.raw, f)
}

// reject writes a record that cannot be used to rejected.
func (w *worker) reject(r *kgo.Record, f *fault) {
	w.counts.reject(f.code)
	detail := f.detail
	original := r.Value
	if limit := w.n.svc.cfg.OutputBytes - rejectedOverhead; len(original) > limit {
		original = original[:limit]
		detail = strings.TrimPrefix(fmt.Sprintf("%s; only the first %d of %d original bytes are kept", detail, limit, len(r.Value)), "; ")
	}
	if w.identity.Erased(&w.raw) { // counted, but the bytes are not kept
		original, detail = nil, ""
	}
	rej := event.Rejected{
		AppID:           rejectedApp(&w.raw),
		Stage:           event.StageEnricher,
		Code:            f.code,
		Field:           f.field,
		Detail:          cut(detail, 1024),
		MessageID:       cut(w.raw.MessageID, maxID),
		Protocol:        cut(w.raw.Protocol, 64),
		ReceivedAt:      receivedAt(&w.raw, r),
		RejectedAt:      event.FromTime(w.n.svc.now()),
		SourcePartition: int64(r.Partition),
		SourceOffset:    r.Offset,
		Original:        original,
	}
	value := w.out.keep(w.out.codec.AppendRejected(w.out.room(len(original)+rejectedOverhead), &rej))
	key := []byte(rej.AppID)
	w.emit(w.n.svc.names.Rejected, topic.Partition(key, w.n.svc.rejected), key, value)
}

// rejectedApp and receivedAt are the app and the instant of receipt under which a
// rejected record is counted, whatever its own fields contain.
func rejectedApp(raw *event.RawEvent) string {
	return strings.ToValidUTF8(cut(raw.AppID, maxID), "\uFFFD")
}

func receivedAt(raw *event.RawEvent, r *kgo.Record) event.Micros {
	if raw.ReceivedAt > 0 && raw.ReceivedAt < event.MaxReceived {
		return raw.ReceivedAt
	}
	return min(max(event.FromTime(r.Timestamp), 1), event.MaxReceived-1)
}

const rejectedOverhead = 4 << 10

// emit produces one record of the transaction.
func (w *worker) emit(name string, partition int32, key, value []byte) {
	rec := w.out.record()
	rec.Topic, rec.Partition, rec.Key, rec.Value = name, partition, key, value
	switch name {
	case w.n.svc.names.Enriched:
		w.out.enriched = rec
	case w.n.svc.names.EnricherState:
		w.out.state = rec
	}
	w.produce(w.txn.ctx, rec, w.txn.promise)
}
