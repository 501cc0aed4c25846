package enrich

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/privacy"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/topic/reader"
	"github.com/uptakehq/uptake/schemas/verdict"
)

// Verdicts tell somebody who looks at the console what became of each event. They are
// written in the transaction of the event, so that one that was aborted leaves none. They
// are not state: which events have one depends on who looks at that time, and nothing
// else depends on them. An event of an app at which nobody looks costs one check.

// verdicts follows the requests for verdicts.
type verdicts struct {
	svc *Service
	// looked are the apps at which somebody looks, nil for none. It is immutable.
	looked atomic.Pointer[map[string]*lookedAt]
	share  atomic.Int64 // of verdict.PerSecond that this instance may write
}

// lookedAt is an app at which somebody looks.
type lookedAt struct {
	until time.Time
	limit *perSecond
}

// perSecond bounds what all partitions of an instance write of one app.
type perSecond struct {
	mu     sync.Mutex // covers the others
	second int64
	used   int64
}

func (p *perSecond) take(now time.Time, most int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := now.Unix(); s != p.second {
		p.second, p.used = s, 0
	}
	p.used++
	return p.used <= most
}

// assigned divides the rate of an app among the instances, by partitions.
func (v *verdicts) assigned(have, all int) {
	v.share.Store(max(1, int64(verdict.PerSecond*have/max(1, all))))
}

// lookedApps bounds the apps whose verdicts are written at the same time.
const lookedApps = 100

// run follows the requests until ctx ends. That they cannot be read changes nothing for
// events, so it is logged and the instance stays ready.
func (v *verdicts) run(ctx context.Context) {
	pause := backoff.Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second}
	for {
		err := v.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		v.svc.log.Warn("requests for verdicts cannot be read; retrying", "topic", v.svc.names.VerdictRequests, "error", err)
		if backoff.Sleep(ctx, pause.Next()) != nil {
			return
		}
	}
}

// follow reads requests until ctx ends. A request counts from when it is read: the clocks
// of the console and of this instance need not agree. Those that were there before are
// ignored, since whoever still looks repeats them.
func (v *verdicts) follow(ctx context.Context) error {
	opts, err := v.svc.clientOptions("verdicts", nil)
	if err != nil {
		return err
	}
	r, err := reader.New(opts...)
	if err != nil {
		return err
	}
	defer r.Close()
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with ctx
		defer close(ended)
		for backoff.Sleep(ctx, verdict.RequestFor/10) == nil {
			v.note("", v.svc.now())
		}
	}()
	defer func() { cancel(); <-ended }()
	live := false
	return r.Follow(ctx, v.svc.names.VerdictRequests, 0, func(rec *kgo.Record) error {
		if !live {
			return nil
		}
		if q, err := verdict.DecodeRequest(rec.Value); err != nil {
			v.svc.log.Warn("request for verdicts cannot be read", "offset", rec.Offset, "error", err)
		} else if q.App != "" {
			v.note(q.App, v.svc.now())
		}
		return nil
	}, func() { live = true })
}

// note adds a request for an app, unless it is empty, and removes those that ended. The
// follower and its clock call it.
func (v *verdicts) note(app string, now time.Time) {
	for {
		old := v.looked.Load()
		if old == nil && app == "" {
			return
		}
		next := map[string]*lookedAt{}
		if old != nil {
			maps.Copy(next, *old)
		}
		maps.DeleteFunc(next, func(_ string, l *lookedAt) bool { return !now.Before(l.until) })
		if app != "" && (next[app] != nil || len(next) < lookedApps) {
			limit := &perSecond{}
			if before := next[app]; before != nil {
				limit = before.limit
			}
			next[app] = &lookedAt{until: now.Add(verdict.RequestFor), limit: limit}
		}
		into := &next
		if len(next) == 0 {
			into = nil
		}
		if v.looked.CompareAndSwap(old, into) {
			return
		}
	}
}

// judging is what a worker needs for the verdicts of a transaction.
type judging struct {
	looked  *map[string]*lookedAt // nil: nobody looks
	leftOut map[string]int64      // by app
	nearest map[*catalog.Catalog]*catalog.Names
}

// wanted reports whether a verdict on an event of the app is to be written.
func (w *worker) wanted(app string) bool {
	if w.judging.looked == nil {
		return false
	}
	l := (*w.judging.looked)[app]
	if l == nil {
		return false
	}
	if l.limit.take(w.n.svc.now(), w.n.svc.verdicts.share.Load()) {
		return true
	}
	if w.judging.leftOut == nil {
		w.judging.leftOut = map[string]int64{}
	}
	w.judging.leftOut[strings.Clone(app)]++
	return false
}

// judgeStored writes the verdict on an event that is stored.
func (w *worker) judgeStored(e *event.EnrichedEvent) {
	if !w.wanted(e.AppID) {
		return
	}
	r := verdict.Record{
		Verdict: verdict.Counted, ActorID: e.ActorID, ActorKind: e.ActorKind, AccountID: e.AccountID, AccountSource: e.AccountSource,
		FeatureID: e.FeatureID, Flags: e.Flags, Conflicts: keysOf(e.Conflicts),
	}
	switch {
	case !event.IsUsage(e.Kind):
		r.Verdict = verdict.Noted
	case e.FeatureID == "":
		r.Verdict, r.Nearest = verdict.Unmapped, w.nearestTo(e)
	}
	w.emitVerdict(&r, e)
}

// judgeOptedOut writes the verdict on an event of which nothing may be kept.
func (w *worker) judgeOptedOut(raw *event.RawEvent) {
	if w.wanted(raw.AppID) {
		w.emitVerdict(&verdict.Record{App: raw.AppID, Verdict: verdict.OptedOut, ReceivedAt: raw.ReceivedAt}, nil)
	}
}

// judgeRaw writes the verdict on an event that ends before it is resolved: a duplicate,
// or with f a rejected one.
func (w *worker) judgeRaw(raw *event.RawEvent, f *fault) {
	if !w.wanted(raw.AppID) {
		return
	}
	rules := w.n.svc.privacy.Policy().App(raw.AppID)
	r := verdict.Record{App: raw.AppID, Verdict: verdict.Duplicate, ReceivedAt: raw.ReceivedAt}
	if f != nil {
		r.Verdict, r.Stage, r.Code, r.Field = verdict.Rejected, event.StageEnricher, f.code, f.field
	}
	if w.leftAlone(rules, raw) {
		w.emitVerdict(&r, nil)
		return
	}
	e := event.EnrichedEvent{
		AppID: raw.AppID, Kind: raw.Kind, Event: raw.Event, MessageID: raw.MessageID, UserID: raw.UserID, AnonymousID: raw.AnonymousID, PreviousID: raw.PreviousID,
		AccountID: raw.AccountID, EventTime: raw.Timestamp, ReceivedAt: raw.ReceivedAt, Protocol: raw.Protocol, Library: raw.Library, IP: raw.IP, UserAgent: raw.UserAgent,
		Properties: validObject(raw.Properties), Traits: validObject(raw.Traits), Context: validObject(raw.Context),
	}
	w.objects.kept.redact(rules, &e, validObject(raw.Unread))
	r.AccountID = e.AccountID
	if f != nil {
		r.Detail = cut(f.detail, 1024)
		if rules != nil {
			r.Detail = string(w.objects.kept.by.AppendText(nil, []byte(r.Detail)))
		}
	}
	w.emitVerdict(&r, &e)
}

// leftAlone reports whether an event belongs to somebody who opted out or was erased.
func (w *worker) leftAlone(rules *privacy.Rules, raw *event.RawEvent) bool {
	return rules.OptedOut(raw.UserID, raw.AnonymousID, raw.AccountID) || rules.OptedOut(raw.PreviousID, raw.PreviousID, "") || w.identity.Erased(raw)
}

// emitVerdict writes a verdict, with the event if it may be shown.
func (w *worker) emitVerdict(r *verdict.Record, e *event.EnrichedEvent) {
	if e != nil {
		r.App, r.ReceivedAt = e.AppID, e.ReceivedAt
		r.Kind, r.Name, r.MessageID, r.UserID, r.AnonymousID = e.Kind, cut(e.Event, maxID), e.MessageID, e.UserID, e.AnonymousID
		r.Event = verdictEvent(e)
	}
	value, err := r.Append(nil)
	if err != nil { // cannot happen: texts, and JSON that was checked
		w.n.log.Error("verdict cannot be written", "error", err)
		return
	}
	w.emit(w.n.svc.names.Verdicts, w.id%w.n.svc.topics[w.n.svc.names.Verdicts].Partitions, nil, w.out.keep(append(w.out.room(len(value)), value...)))
}

// emitLeftOut writes how many events of the transaction have no verdict because of the
// bound.
func (w *worker) emitLeftOut() {
	for app, n := range w.judging.leftOut {
		w.emitVerdict(&verdict.Record{App: app, Verdict: verdict.LeftOut, ReceivedAt: event.FromTime(w.n.svc.now()), Count: n}, nil)
	}
	clear(w.judging.leftOut)
}

// nearestTo returns the feature whose name is most similar to that of an unmapped event.
func (w *worker) nearestTo(e *event.EnrichedEvent) string {
	c := (*w.catalogs)[e.AppID]
	if c == nil || c.versions[c.number] == nil {
		return ""
	}
	of := c.versions[c.number].Catalog
	names := w.judging.nearest[of]
	if names == nil {
		names = catalog.FeatureNames(of)
		if w.judging.nearest == nil || len(w.judging.nearest) >= lookedApps {
			w.judging.nearest = map[*catalog.Catalog]*catalog.Names{}
		}
		w.judging.nearest[of] = names
	}
	return names.To(cut(e.Event, 200))
}

// validObject returns doc if it is JSON, else nothing.
func validObject(doc []byte) []byte {
	if !json.Valid(doc) {
		return nil
	}
	return doc
}

// keysOf returns the keys of a JSON object, nil if it is empty.
func keysOf(object []byte) []string {
	if len(object) == 0 {
		return nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(object, &members) != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(members))
}

// shown is an event in its verdict, with the names of the events table.
type shown struct {
	EventTime   *time.Time      `json:"event_time,omitempty"`
	ReceivedAt  *time.Time      `json:"received_at,omitempty"`
	Kind        string          `json:"kind,omitempty"`
	Event       string          `json:"event,omitempty"`
	MessageID   string          `json:"message_id,omitempty"`
	UserID      string          `json:"user_id,omitempty"`
	AnonymousID string          `json:"anonymous_id,omitempty"`
	PreviousID  string          `json:"previous_id,omitempty"`
	AccountID   string          `json:"account_id,omitempty"`
	Role        string          `json:"role,omitempty"`
	FeatureID   string          `json:"feature_id,omitempty"`
	SessionID   string          `json:"session_id,omitempty"`
	Protocol    string          `json:"protocol,omitempty"`
	Library     string          `json:"library,omitempty"`
	IP          string          `json:"ip,omitempty"`
	UserAgent   string          `json:"user_agent,omitempty"`
	Country     string          `json:"country,omitempty"`
	Browser     string          `json:"browser,omitempty"`
	OS          string          `json:"os,omitempty"`
	DeviceClass string          `json:"device_class,omitempty"`
	Referrer    string          `json:"referrer,omitempty"`
	UTMSource   string          `json:"utm_source,omitempty"`
	UTMMedium   string          `json:"utm_medium,omitempty"`
	UTMCampaign string          `json:"utm_campaign,omitempty"`
	Flags       string          `json:"flags,omitempty"`
	Properties  json.RawMessage `json:"properties,omitempty"`
	Traits      json.RawMessage `json:"traits,omitempty"`
	Context     json.RawMessage `json:"context,omitempty"`
	Conflicts   json.RawMessage `json:"conflicts,omitempty"`
	Metric      json.RawMessage `json:"metric,omitempty"`
}

// verdictEvent is the event as JSON, nil above verdict.MaxEvent.
func verdictEvent(e *event.EnrichedEvent) json.RawMessage {
	if len(e.Properties)+len(e.Traits)+len(e.Context)+len(e.Conflicts)+len(e.Metric) > verdict.MaxEvent {
		return nil
	}
	at := func(us event.Micros) *time.Time {
		if us == 0 {
			return nil
		}
		t := event.ToTime(us)
		return &t
	}
	b, err := verdict.AppendJSON(nil, shown{
		EventTime: at(e.EventTime), ReceivedAt: at(e.ReceivedAt), Kind: e.Kind, Event: e.Event, MessageID: e.MessageID, UserID: e.UserID, AnonymousID: e.AnonymousID,
		PreviousID: e.PreviousID, AccountID: e.AccountID, Role: e.Role, FeatureID: e.FeatureID, SessionID: e.SessionID, Protocol: e.Protocol, Library: e.Library,
		IP: e.IP, UserAgent: e.UserAgent, Country: e.Country, Browser: e.Browser, OS: e.OS, DeviceClass: e.DeviceClass, Referrer: e.Referrer,
		UTMSource: e.UTMSource, UTMMedium: e.UTMMedium, UTMCampaign: e.UTMCampaign, Flags: e.Flags, Properties: e.Properties, Traits: e.Traits, Context: e.Context, Conflicts: e.Conflicts, Metric: e.Metric,
	})
	if err != nil || len(b) > verdict.MaxEvent { // an instant outside the years of JSON
		return nil
	}
	return b
}
