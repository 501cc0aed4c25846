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
)

type liveRow struct {
	at             time.Time
	id             string // of the row: what was shown is not shown again
	Time, UTC      string
	Class, Verdict string
	Kind, Event    string
	Who            person
	Account        named
	Why, JSON      string
	MessageID      string
}

type liveBody struct {
	Filter string
	Stream string
	Rows   []liveRow
	Empty  *emptyState
}

// The live view looks back this far when it opens and at each update, since events of
// several partitions become visible out of order.
const (
	liveFirst   = 15 * time.Minute
	liveOverlap = 20 * time.Second
	liveEvery   = time.Second
	liveBeat    = 15 * time.Second
)

func (c *Console) live(r *http.Request, s *scope) (*page.Page, error) {
	rows, err := c.arrived(r.Context(), s, s.Now.Add(-liveFirst))
	if err != nil {
		return nil, err
	}
	if len(rows) > 60 {
		rows = rows[:60]
	}
	b := &liveBody{Filter: s.values["q"], Stream: s.link("/live/events", "q", s.values["q"]), Rows: rows, Empty: c.empty(s)}
	p := &page.Page{Title: "Live", Body: b}
	if len(rows) == 0 {
		p.Sentence = fmt.Sprintf("No event of %s arrived in the last 15 minutes.", s.App)
	} else {
		p.Sentence = fmt.Sprintf("The newest event of %s arrived %s.", s.App, page.Ago(s.Now, rows[0].at))
	}
	return p, nil
}

// arrived returns the events that became visible since then, newest first.
func (c *Console) arrived(ctx context.Context, s *scope, since time.Time) ([]liveRow, error) {
	v := question.Values{"app": s.App, "q": s.values["q"], "since": strconv.FormatInt(since.UnixMicro(), 10)}
	a, err := c.all(ctx, v, "live", "live_rejected")
	if err != nil {
		return nil, err
	}
	var rows []liveRow
	e := a["live"]
	for i := range e.Rows {
		row := liveRow{
			at: instant(e.cell(i, "received_at")), Kind: text(e.cell(i, "kind")), Event: text(e.cell(i, "event")), MessageID: text(e.cell(i, "message_id")),
			Who: s.person(text(e.cell(i, "actor_kind")), text(e.cell(i, "actor_id"))),
		}
		row.id = row.MessageID
		if id := text(e.cell(i, "account_id")); id != "" {
			row.Account = s.accountLink(id)
		}
		var why []string
		feature := text(e.cell(i, "feature_id"))
		switch {
		case row.Kind == "identify" || row.Kind == "group" || row.Kind == "alias" || row.Kind == "metric":
			row.Class, row.Verdict = "noted", "● noted"
			why = append(why, row.Kind+" calls are no usage")
		case feature == "":
			row.Class, row.Verdict = "unmapped", "○ unmapped"
			why = append(why, "no feature of the catalog has this name")
		default:
			row.Class, row.Verdict = "counted", "● counted"
			why = append(why, "feature "+feature)
		}
		switch text(e.cell(i, "account_source")) {
		case "membership":
			why = append(why, "account by membership")
		case "none":
			if row.Class != "noted" {
				why = append(why, "no account known")
			}
		}
		if flags := text(e.cell(i, "flags")); flags != "" {
			why = append(why, "corrected: "+flags)
		}
		if conflicts := text(e.cell(i, "conflicts")); conflicts != "" {
			why = append(why, "values of another type are kept under conflicts")
		}
		row.Why = sentenceCase(strings.Join(why, "; "))
		row.JSON = liveJSON(e, i)
		row.Time, row.UTC = s.liveTime(row.at)
		rows = append(rows, row)
	}
	e = a["live_rejected"]
	for i := range e.Rows {
		row := liveRow{
			at: instant(e.cell(i, "received_at")), MessageID: text(e.cell(i, "message_id")), Class: "rejected", Verdict: "✕ rejected",
			Event: text(e.cell(i, "code")), JSON: text(e.cell(i, "original")),
		}
		row.Why = strings.TrimSpace(text(e.cell(i, "field")) + " " + text(e.cell(i, "detail")))
		row.id = "rejected/" + row.MessageID + row.at.String() + row.Why
		row.Time, row.UTC = s.liveTime(row.at)
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b liveRow) int { return cmp.Or(b.at.Compare(a.at), strings.Compare(a.id, b.id)) })
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
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the template escapes
	e.SetIndent("", "  ")
	if err := e.Encode(m); err != nil {
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
	if s.names, err = c.accountNames(r.Context(), s.App); err != nil {
		c.log.Warn("live view", "error", err) // ids do as well
	}
	c.metrics.streams.Inc()
	defer c.metrics.streams.Dec()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	fmt.Fprint(w, ": hello\n\n")
	flusher.Flush()

	from := c.now()
	shown := map[string]time.Time{}
	beat := from
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		select {
		case <-stop.Done():
			return
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
		now := c.now()
		rows, err := c.arrived(r.Context(), s, from.Add(-liveOverlap))
		if err != nil {
			c.log.Warn("live view", "error", err)
			continue
		}
		var html strings.Builder
		for _, row := range rows {
			_, seen := shown[row.id]
			shown[row.id] = row.at
			// What the page itself has shown.
			if seen || first && row.at.Before(from.Add(-liveEvery)) {
				continue
			}
			part, err := c.pages.Fragment("live", "live-row", row)
			if err != nil {
				c.log.Error("live view", "error", err)
				return
			}
			html.WriteString(part)
		}
		if len(rows) > 0 && rows[0].at.After(from) {
			from = rows[0].at
		}
		for id, at := range shown {
			if at.Before(from.Add(-2 * liveOverlap)) {
				delete(shown, id)
			}
		}
		switch {
		case html.Len() > 0:
			data, _ := json.Marshal(html.String()) // cannot fail: a string
			fmt.Fprintf(w, "event: rows\ndata: %s\n\n", data)
			beat = now
		case now.Sub(beat) > liveBeat:
			fmt.Fprint(w, ": still here\n\n")
			beat = now
		default:
			continue
		}
		flusher.Flush()
	}
}
