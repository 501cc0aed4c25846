package console

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/rollup-writer/console/question"
	"github.com/uptakehq/uptake/rollup-writer/console/signin"
	"github.com/uptakehq/uptake/rollup-writer/console/verdicts"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/verdict"
)

type liveRow struct {
	at             time.Time
	ID             string // what was shown is not shown again
	Time, UTC      string
	Class, Verdict string
	Kind, Event    string
	Who            person
	Account        named
	Why, JSON      string
	MessageID      string
}

type liveBody struct {
	Filter, Key string
	Only        []page.Link
	Stream      string
	Rows        []liveRow
	Empty       *emptyState
	Verdicts    bool   // the pipeline's own are shown
	LeftOut     string // how many events have no row
	Snippets    []page.Pair
	Test        *testForm
}

// The live view looks back this far when it opens and at each update, since events of
// several partitions become visible out of order.
const (
	liveFirst   = 15 * time.Minute
	liveOverlap = 20 * time.Second
	liveEvery   = time.Second
	liveBeat    = 15 * time.Second
	liveRows    = 60
	// With verdicts a stream looks for them this often, and in ClickHouse only at its
	// beginning: an event that was on its way when somebody began to look has none.
	liveVerdicts = 200 * time.Millisecond
	liveBoth     = 10 * time.Second
)

func (c *Console) live(r *http.Request, s *scope) (*page.Page, error) {
	f, err := liveFilterOf(r)
	if err != nil {
		return nil, err
	}
	var rows []liveRow
	newest, leftOut := int64(0), int64(0)
	if c.verdicts != nil {
		rows, newest, leftOut = c.judged(s, f, 0)
	}
	stored, err := c.arrived(r.Context(), s, f, s.Now.Add(-liveFirst))
	if err != nil {
		return nil, err
	}
	has := map[string]bool{}
	for _, row := range rows {
		has[row.ID] = true
	}
	rows = append(rows, slices.DeleteFunc(stored, func(row liveRow) bool { return has[row.ID] })...)
	slices.SortStableFunc(rows, func(a, b liveRow) int { return b.at.Compare(a.at) })
	if len(rows) > liveRows {
		rows = rows[:liveRows]
	}
	c.sawLive(r.Context(), s.App, f, rows)
	b := &liveBody{
		Filter: f.text, Key: f.key, Rows: rows, Empty: c.empty(s), Verdicts: c.verdicts != nil, LeftOut: leftOutText(leftOut), Test: c.testForm(r),
		Stream: s.link("/live/events", "q", f.text, "key", f.key, "verdict", f.verdict, "after", strconv.FormatInt(newest, 10)),
	}
	b.Snippets = snippets(b.Empty.Gateway, b.Empty.Key)
	for _, only := range liveVerdictNames {
		if only.name == "" || c.verdicts != nil || only.stored {
			b.Only = append(b.Only, page.Link{Text: only.text, URL: s.link("/live", "q", f.text, "key", f.key, "verdict", only.name), Current: only.name == f.verdict})
		}
	}
	p := &page.Page{Title: "Live", Body: b}
	switch {
	case len(rows) > 0:
		p.Sentence = fmt.Sprintf("The newest event of %s%s arrived %s.", s.App, f.words(), page.Ago(s.Now, rows[0].at))
	default:
		p.Sentence = fmt.Sprintf("No event of %s%s arrived in the last 15 minutes.", s.App, f.words())
	}
	return p, nil
}

// sawLive records that somebody limited the live view to a person and saw events of theirs.
func (c *Console) sawLive(ctx context.Context, app string, f liveFilter, rows []liveRow) {
	if f.text != "" && slices.ContainsFunc(rows, func(row liveRow) bool { return row.Who.ID == f.text }) {
		c.looks.saw(signin.From(ctx), app, f.text, "")
	}
}

// liveFilter is what a live view is limited to; its fields are empty for everything.
type liveFilter struct {
	text    string // message id, user, visitor, account or event name
	key     string // a metadata key that the event has
	verdict string
}

// liveVerdictNames are the verdicts by which the view can be limited; those that are
// stored can be found in ClickHouse.
var liveVerdictNames = []struct {
	name, text string
	stored     bool
}{
	{"", "all", true},
	{verdict.Counted, "● counted", true},
	{verdict.Noted, "● noted", true},
	{verdict.Unmapped, "○ unmapped", true},
	{verdict.Rejected, "✕ rejected", true},
	{verdict.Duplicate, "≡ duplicate", false},
	{verdict.OptedOut, "– opted out", false},
}

// verdictText is a verdict with its mark.
func verdictText(name string) string {
	for _, v := range liveVerdictNames {
		if v.name == name && name != "" {
			return v.text
		}
	}
	return name
}

func liveFilterOf(r *http.Request) (liveFilter, error) {
	q := r.URL.Query()
	f := liveFilter{text: strings.TrimSpace(q.Get("q")), key: strings.TrimSpace(q.Get("key")), verdict: q.Get("verdict")}
	for _, v := range liveVerdictNames {
		if v.name == f.verdict {
			return f, nil
		}
	}
	return f, &refusal{fmt.Sprintf("verdict=%q is unknown.", f.verdict), "Choose one of those on the page."}
}

// words says to what the view is limited.
func (f liveFilter) words() string {
	var b strings.Builder
	if f.text != "" {
		fmt.Fprintf(&b, " with %q", f.text)
	}
	if f.key != "" {
		fmt.Fprintf(&b, " with the key %s", f.key)
	}
	if f.verdict != "" {
		fmt.Fprintf(&b, " that was %s", strings.ReplaceAll(f.verdict, "_", " "))
	}
	return b.String()
}

func leftOutText(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s processed without a row here: at most %d a second are shown.", page.Plural(n, "event was", "events were"), verdict.PerSecond)
}

// judged returns the verdicts read after a number, newest first, with the number of the
// last and how many events have none.
func (c *Console) judged(s *scope, f liveFilter, after int64) (rows []liveRow, last, leftOut int64) {
	records, leftOut := c.verdicts.Look(s.App, after)
	last = after
	for _, r := range slices.Backward(records) {
		last = max(last, r.Seq)
		if f.passes(&r.Record) {
			rows = append(rows, s.verdictRow(r))
		}
	}
	return rows, last, leftOut
}

// passes reports whether a verdict is to be shown.
func (f liveFilter) passes(r *verdict.Record) bool {
	if f.verdict != "" && f.verdict != r.Verdict {
		return false
	}
	if f.text != "" && !slices.Contains([]string{r.MessageID, r.UserID, r.AnonymousID, r.ActorID, r.AccountID, r.Name}, f.text) {
		return false
	}
	return f.key == "" || hasKey(r.Event, f.key)
}

// hasKey reports whether an event has a metadata key: a path with dots, with or without
// its object.
func hasKey(event []byte, path string) bool {
	var doc map[string]any
	if json.Unmarshal(event, &doc) != nil {
		return false
	}
	for _, object := range []string{"properties", "traits", "context"} {
		v := doc[object]
		found := true
		for _, name := range strings.Split(strings.TrimPrefix(path, object+"."), ".") {
			m, _ := v.(map[string]any)
			if v, found = m[name]; !found {
				break
			}
		}
		if found {
			return true
		}
	}
	return false
}

// verdictRow is the row of a verdict.
func (s *scope) verdictRow(n verdicts.Numbered) liveRow {
	r := &n.Record
	row := liveRow{
		at: event.ToTime(r.ReceivedAt), Class: strings.ReplaceAll(r.Verdict, "_", "-"), Verdict: verdictText(r.Verdict),
		Kind: r.Kind, Event: r.Name, MessageID: r.MessageID, ID: fmt.Sprintf("v/%d", n.Seq),
	}
	row.Time, row.UTC = s.liveTime(row.at)
	switch {
	case r.ActorID != "":
		row.Who = s.person(r.ActorKind, r.ActorID)
	case r.UserID != "":
		row.Who = s.person(event.ActorUser, r.UserID)
	case r.AnonymousID != "":
		row.Who = s.person(event.ActorAnonymous, r.AnonymousID)
	}
	if r.AccountID != "" {
		row.Account = s.accountLink(r.AccountID)
	}
	switch r.Verdict {
	case verdict.Duplicate:
		row.Why = "An event with this message id was counted before"
	case verdict.OptedOut:
		row.Why = "Opted out or erased: nothing else is kept"
	case verdict.Rejected:
		row.ID = rejectedID(r.MessageID, r.Code, row.at)
		row.Why = reason(r.Code, r.Field, r.Detail)
	default:
		row.ID = storedID(r.MessageID)
		why := attribution{kind: r.Kind, feature: r.FeatureID, source: r.AccountSource, flags: r.Flags, conflicts: strings.Join(r.Conflicts, ", "), nearest: r.Nearest}
		row.Why = why.words()
	}
	if len(r.Event) > 0 {
		row.JSON = indented(r.Event)
	}
	return row
}

// Ids of rows: the same for a verdict and for what ClickHouse has of the event.
func storedID(message string) string { return "m/" + message }

func rejectedID(message, code string, at time.Time) string {
	return fmt.Sprintf("r/%s/%s/%d", message, code, at.UnixMilli())
}

func reason(code, field, detail string) string {
	what := strings.TrimSpace(code + " " + field)
	if detail == "" {
		return what
	}
	return what + ": " + detail
}

// attribution is why an event counts for what it counts.
type attribution struct{ kind, feature, source, flags, conflicts, nearest string }

func (a attribution) words() string {
	var why []string
	usage := event.IsUsage(a.kind)
	switch {
	case !usage:
		why = append(why, a.kind+" calls are no usage")
	case a.feature == "" && a.nearest != "":
		why = append(why, "no feature of the catalog has this name, the nearest is "+a.nearest)
	case a.feature == "":
		why = append(why, "no feature of the catalog has this name")
	default:
		why = append(why, "feature "+a.feature)
	}
	switch a.source {
	case event.AccountFromEvent:
		why = append(why, "account by the event")
	case event.AccountFromMembership:
		why = append(why, "account by membership")
	case event.AccountNone:
		if usage {
			why = append(why, "no account known")
		}
	}
	if a.flags != "" {
		why = append(why, "corrected: "+a.flags)
	}
	if a.conflicts != "" {
		why = append(why, "kept under conflicts: "+a.conflicts)
	}
	return sentenceCase(strings.Join(why, "; "))
}

// arrived returns the events that became visible in ClickHouse since then, newest first.
func (c *Console) arrived(ctx context.Context, s *scope, f liveFilter, since time.Time) ([]liveRow, error) {
	v := question.Values{"app": s.App, "q": f.text, "since": strconv.FormatInt(since.UnixMicro(), 10)}
	a, err := c.all(ctx, v, "live", "live_rejected")
	if err != nil {
		return nil, err
	}
	var rows []liveRow
	add := func(row liveRow, name string) {
		if (f.verdict == "" || f.verdict == name) && (f.key == "" || hasKey([]byte(row.JSON), f.key)) {
			row.Class, row.Verdict = name, verdictText(name)
			row.Time, row.UTC = s.liveTime(row.at)
			rows = append(rows, row)
		}
	}
	e := a["live"]
	for i := range e.Rows {
		row := liveRow{
			at: instant(e.cell(i, "received_at")), Kind: text(e.cell(i, "kind")), Event: text(e.cell(i, "event")), MessageID: text(e.cell(i, "message_id")),
			Who: s.person(text(e.cell(i, "actor_kind")), text(e.cell(i, "actor_id"))),
		}
		row.ID = storedID(row.MessageID)
		if id := text(e.cell(i, "account_id")); id != "" {
			row.Account = s.accountLink(id)
		}
		name := verdict.Counted
		why := attribution{kind: row.Kind, feature: text(e.cell(i, "feature_id")), source: text(e.cell(i, "account_source")), flags: text(e.cell(i, "flags"))}
		switch {
		case !event.IsUsage(row.Kind):
			name = verdict.Noted
		case why.feature == "":
			name = verdict.Unmapped
		}
		if text(e.cell(i, "conflicts")) != "" {
			why.conflicts = "values of another type"
		}
		row.Why = why.words()
		row.JSON = liveJSON(e, i)
		add(row, name)
	}
	e = a["live_rejected"]
	for i := range e.Rows {
		row := liveRow{at: instant(e.cell(i, "received_at")), MessageID: text(e.cell(i, "message_id")), JSON: text(e.cell(i, "original"))}
		code := text(e.cell(i, "code"))
		row.Why = reason(code, text(e.cell(i, "field")), text(e.cell(i, "detail")))
		row.ID = rejectedID(row.MessageID, code, row.at)
		add(row, verdict.Rejected)
	}
	slices.SortStableFunc(rows, func(a, b liveRow) int { return cmp.Or(b.at.Compare(a.at), strings.Compare(a.ID, b.ID)) })
	return rows, nil
}

func (s *scope) liveTime(t time.Time) (local, utc string) {
	return t.In(s.Zone).Format("15:04:05.000"), t.UTC().Format(time.RFC3339Nano)
}

// liveJSON is the event as it is stored.
func liveJSON(r *Result, row int) string {
	m := map[string]any{}
	for _, name := range []string{"event_time", "received_at", "kind", "event", "message_id", "user_id", "anonymous_id", "account_id", "feature_id", "protocol", "library", "flags"} {
		if v := r.cell(row, name); v != nil && text(v) != "" {
			m[name] = v
		}
	}
	for _, name := range []string{"properties", "traits", "conflicts"} {
		if t := text(r.cell(row, name)); t != "" && t != "{}" && json.Valid([]byte(t)) {
			m[name] = json.RawMessage(t)
		}
	}
	return indented(m)
}

// indented is a value as JSON for people.
func indented(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the template escapes
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err.Error()
	}
	return b.String()
}

// stream sends rows of the live table as they become visible, as server-sent events. It
// ends when the client disconnects or the console stops.
func (c *Console) stream(stop context.Context, w http.ResponseWriter, r *http.Request) {
	flusher, ok := w.(http.Flusher)
	if !ok {
		http.Error(w, "no streaming here", http.StatusNotImplemented)
		return
	}
	s, err := c.scopeOf(r, r.URL.Query().Get("app"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := may(r, "live", s.App); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	s.grant = signin.From(r.Context()).On(s.App)
	f, err := liveFilterOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := c.addNames(r.Context(), s); err != nil {
		c.log.Warn("live view", "error", err) // ids do as well
	}
	c.metrics.streams.Inc()
	defer c.metrics.streams.Dec()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	fmt.Fprint(w, ": hello\n\n")
	flusher.Flush()

	v := c.newLiveStream(s, f, r)
	tick := time.NewTicker(v.every())
	defer tick.Stop()
	beat := c.now()
	for {
		select {
		case <-stop.Done():
			return
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
		rows, note := v.next(r.Context())
		c.sawLive(r.Context(), s.App, f, rows)
		var html strings.Builder
		for _, row := range rows {
			part, err := c.pages.Fragment("live", "live-row", row)
			if err != nil {
				c.log.Error("live view", "error", err)
				return
			}
			html.WriteString(part)
		}
		now := c.now()
		if note != "" {
			data, _ := json.Marshal(note) // cannot fail: a string
			fmt.Fprintf(w, "event: note\ndata: %s\n\n", data)
		}
		switch {
		case html.Len() > 0:
			data, _ := json.Marshal(html.String()) // cannot fail: a string
			fmt.Fprintf(w, "id: %d\nevent: rows\ndata: %s\n\n", v.after, data)
		case note != "":
		case now.Sub(beat) > liveBeat:
			fmt.Fprint(w, ": still here\n\n")
		default:
			continue
		}
		beat = now
		flusher.Flush()
	}
}

// liveStream is what one open live view has shown.
type liveStream struct {
	c     *Console
	s     *scope
	f     liveFilter
	after int64 // number of the last verdict
	left  int64 // events without a verdict that were said
	from  time.Time
	began time.Time
	asked time.Time // ClickHouse
	first bool
	shown map[string]time.Time
}

// newLiveStream goes on after what the page shows, or after what was sent before the
// connection was lost.
func (c *Console) newLiveStream(s *scope, f liveFilter, r *http.Request) *liveStream {
	v := &liveStream{c: c, s: s, f: f, from: c.now(), began: c.now(), first: true, shown: map[string]time.Time{}}
	if c.verdicts == nil {
		return v
	}
	for _, text := range []string{r.Header.Get("Last-Event-ID"), r.URL.Query().Get("after")} {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
			v.after = n
			break
		}
	}
	earlier, _ := c.verdicts.Look(s.App, 0)
	for _, e := range earlier {
		if e.Seq <= v.after {
			row := s.verdictRow(e)
			v.shown[row.ID] = row.at
		}
	}
	return v
}

func (v *liveStream) every() time.Duration {
	if v.c.verdicts != nil {
		return liveVerdicts
	}
	return liveEvery
}

// next returns the rows to add, newest first, and a note on what has none.
func (v *liveStream) next(ctx context.Context) (rows []liveRow, note string) {
	now := v.c.now()
	if v.c.verdicts != nil {
		var judged []liveRow
		var left int64
		judged, v.after, left = v.c.judged(v.s, v.f, v.after)
		if left > v.left {
			v.left, note = left, leftOutText(left)
		}
		rows = v.unseen(rows, judged, time.Time{})
		if now.Sub(v.began) > liveBoth {
			return rows, note
		}
	}
	if now.Sub(v.asked) < liveEvery {
		return rows, note
	}
	v.asked = now
	stored, err := v.c.arrived(ctx, v.s, v.f, v.from.Add(-liveOverlap))
	if err != nil {
		v.c.log.Warn("live view", "error", err)
		return rows, note
	}
	since := time.Time{}
	if v.first { // the page itself has shown what was before
		since = v.from.Add(-liveEvery)
	}
	v.first = false
	rows = v.unseen(rows, stored, since)
	if len(stored) > 0 && stored[0].at.After(v.from) {
		v.from = stored[0].at
	}
	for id, at := range v.shown {
		if at.Before(v.from.Add(-2 * liveOverlap)) {
			delete(v.shown, id)
		}
	}
	return rows, note
}

// unseen adds the rows that were not shown, and notes all as shown.
func (v *liveStream) unseen(to, rows []liveRow, since time.Time) []liveRow {
	for _, row := range rows {
		_, seen := v.shown[row.ID]
		v.shown[row.ID] = row.at
		if !seen && !row.at.Before(since) {
			to = append(to, row)
		}
	}
	return to
}
