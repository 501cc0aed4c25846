package erase

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// Receipt lists what was erased and what is left.
type Receipt struct {
	App          string   `json:"app"`
	Users        []string `json:"users"`
	AnonymousIDs []string `json:"anonymous_ids"`
	Tables       []Rows   `json:"tables"`
	// Changelog counts records of identity state that name the person.
	Changelog uint64 `json:"changelog_left"`
	// Signals counts records of the state of alerts about the person.
	Signals uint64    `json:"alert_state_left"`
	Kafka   []Holding `json:"kafka"`
	// Complete means that nothing is left except what Kafka keeps until retention
	// removes it.
	Complete bool      `json:"complete"`
	At       time.Time `json:"at"`
}

// Rows that name the person.
type Rows struct {
	Table  string `json:"table"`
	Before uint64 `json:"before"` // when rewriting began
	Left   uint64 `json:"left"`
}

// Holding is what a topic still keeps.
type Holding struct {
	Topic string    `json:"topic"`
	Until time.Time `json:"until"`
	What  string    `json:"what"`
}

// receipt counts what is left. before is the former number of rows, if known.
func (e *eraser) receipt(ctx context.Context, before []Rows) (*Receipt, error) {
	r := &Receipt{
		App: e.cfg.App, Users: slices.Sorted(maps.Keys(e.list.users)), AnonymousIDs: slices.Sorted(maps.Keys(e.list.anonymous)),
		Complete: true, At: time.Now().UTC().Truncate(time.Second),
	}
	var err error
	if r.Tables, err = e.counts(ctx); err != nil {
		return nil, err
	}
	was := map[string]uint64{}
	for _, b := range before {
		was[b.Table] = b.Left
	}
	for i := range r.Tables {
		t := &r.Tables[i]
		t.Before = t.Left
		if before != nil {
			t.Before = was[t.Table]
		}
		r.Complete = r.Complete && t.Left == 0
	}
	if err := e.changelog(ctx, func(rec *event.IdentityState) {
		if e.named(rec) {
			r.Changelog++
		}
	}); err != nil {
		return nil, err
	}
	states, err := e.signalStates(ctx)
	if err != nil {
		return nil, err
	}
	r.Signals = uint64(len(states))
	r.Complete = r.Complete && r.Changelog == 0 && r.Signals == 0
	r.Kafka, err = e.holdings(ctx, r.At)
	return r, err
}

// holdings are the topics that keep records of people, and until when.
func (e *eraser) holdings(ctx context.Context, now time.Time) (list []Holding, err error) {
	for name, what := range map[string]string{
		e.Names.Raw: "events as they were sent", e.Names.Links: "links, and the order itself", e.Names.Enriched: "events as they were counted", e.Names.Rejected: "what could not be used", e.Names.Looks: "who looked at the person in the console",
	} {
		keeps, err := e.retention(ctx, name)
		if err != nil {
			return nil, err
		}
		h := Holding{Topic: name, What: what}
		if keeps > 0 {
			h.Until = now.Add(keeps)
		}
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b Holding) int { return a.Until.Compare(b.Until) })
	return list, nil
}

// named reports whether a record of the changelog names the person.
func (e *eraser) named(rec *event.IdentityState) bool {
	switch rec.Kind {
	case event.StateAnonymous:
		return e.list.anonymous[rec.ID] || e.inBody(rec.Body)
	case event.StateKnown:
		return e.list.users[rec.ID] || e.list.anonymous[rec.Other]
	case event.StateWhy:
		switch rec.Relation {
		case "claim":
			return e.list.anonymous[rec.ID] || e.list.users[rec.Other]
		case "membership":
			return e.list.users[rec.ID]
		}
		return e.list.users[rec.ID] || e.list.users[rec.Other]
	case event.StateUser:
		return e.list.users[rec.ID] || e.inBody(rec.Body)
	}
	return false
}

// inBody reports whether the body of a record names a user: links, aliases and what
// they brought.
func (e *eraser) inBody(body []byte) bool {
	var doc any
	if json.Unmarshal(body, &doc) != nil {
		return false
	}
	var look func(any) bool
	look = func(v any) bool {
		switch v := v.(type) {
		case []any:
			return slices.ContainsFunc(v, look)
		case map[string]any:
			for key, inner := range v {
				id, isText := inner.(string)
				if isText && (key == "user_id" || key == "alias" || key == "via") && e.list.users[id] {
					return true
				}
				if look(inner) {
					return true
				}
			}
		}
		return false
	}
	return look(doc)
}

// WriteJSON writes the receipt for scripts.
func (r *Receipt) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// WriteText writes the receipt for people.
func (r *Receipt) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "app\t%s\nusers\t%q\nanonymous ids\t%d\nat\t%s\n\n", r.App, r.Users, len(r.AnonymousIDs), r.At.Format(time.RFC3339))
	fmt.Fprintf(t, "table\trows before\tleft\n")
	for _, rows := range r.Tables {
		fmt.Fprintf(t, "%s\t%d\t%d\n", rows.Table, rows.Before, rows.Left)
	}
	fmt.Fprintf(t, "changelog of identity state\t\t%d\nstate of alerts\t\t%d\n\nKafka keeps\tuntil\n", r.Changelog, r.Signals)
	for _, h := range r.Kafka {
		until := "forever: set retention.ms"
		if !h.Until.IsZero() {
			until = h.Until.Format(time.RFC3339)
		}
		fmt.Fprintf(t, "%s (%s)\t%s\n", h.Topic, h.What, until)
	}
	end := "\nnothing is left in the tables, in identity state and in the state of alerts\n"
	if !r.Complete {
		end = "\nrows are left\n"
	}
	fmt.Fprint(t, end)
	return t.Flush()
}
