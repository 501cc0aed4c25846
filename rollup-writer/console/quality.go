package console

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/catalog"
)

type unmappedRow struct {
	Event       string
	Uses        int64
	First, Last string
	Nearest     string
	Snippet     string
}

type rejectedRow struct {
	Stage, Code, Field, Detail, Protocol string
	Count                                int64
	Last                                 string
	Replay                               string
}

type conflictRow struct {
	Path, Value, Events string
	Count               int64
	Last                string
	Pin                 string
}

type clockRow struct {
	Sender, What     string
	Total, Corrected int64
}

type qualityBody struct {
	Unmapped  []unmappedRow
	Rejected  []rejectedRow
	Conflicts []conflictRow
	Clocks    []clockRow
	Doors     map[string]door
}

func (c *Console) quality(r *http.Request, s *scope) (*page.Page, error) {
	a, err := c.all(r.Context(), s.values, "unmapped", "rejected", "conflicts", "clocks", "features")
	if err != nil {
		return nil, err
	}
	b := &qualityBody{Doors: s.doors(a)}
	var features []string
	for i := range a["features"].Rows {
		features = append(features, text(a["features"].cell(i, "feature_id")))
	}
	nearest := catalog.NewNames(features)
	var unmapped, rejected int64
	for i := range a["unmapped"].Rows {
		t := a["unmapped"]
		row := unmappedRow{Event: text(t.cell(i, "event")), Uses: number(t.cell(i, "uses"))}
		row.First, _ = s.stampText(t.cell(i, "first_seen"))
		row.Last, _ = s.stampText(t.cell(i, "last_seen"))
		row.Nearest = nearest.To(row.Event)
		row.Snippet = snippet(row.Event)
		unmapped += row.Uses
		b.Unmapped = append(b.Unmapped, row)
	}
	for i := range a["rejected"].Rows {
		t := a["rejected"]
		row := rejectedRow{
			Stage: text(t.cell(i, "stage")), Code: text(t.cell(i, "code")), Field: text(t.cell(i, "field")), Detail: text(t.cell(i, "last_detail")),
			Protocol: text(t.cell(i, "protocol")), Count: number(t.cell(i, "rejected")),
		}
		row.Last, _ = s.stampText(t.cell(i, "last_seen"))
		row.Replay = "rollup-writer replay-rejected -dry-run -where " + shellQuote(fmt.Sprintf("app_id = %s AND code = %s", clickhouse.Quote(s.App), clickhouse.Quote(row.Code)))
		rejected += row.Count
		b.Rejected = append(b.Rejected, row)
	}
	for i := range a["conflicts"].Rows {
		t := a["conflicts"]
		row := conflictRow{
			Path: text(t.cell(i, "path")), Count: number(t.cell(i, "conflicts")), Value: text(t.cell(i, "last_value")),
			Events: strings.Join(texts(t.cell(i, "event_names")), ", "),
		}
		row.Last, _ = s.stampText(t.cell(i, "last_seen"))
		row.Pin = fmt.Sprintf("enricher metadata pin -app %s -author NAME -reason WHY %s string", shellQuote(s.App), shellQuote(row.Path))
		b.Conflicts = append(b.Conflicts, row)
	}
	for i := range a["clocks"].Rows {
		t := a["clocks"]
		b.Clocks = append(b.Clocks, clockRow{
			Sender: text(t.cell(i, "sender")), What: strings.Join(texts(t.cell(i, "what")), ", "), Total: number(t.cell(i, "total")), Corrected: number(t.cell(i, "corrected")),
		})
	}
	p := &page.Page{Title: "Data quality", Body: b}
	if unmapped == 0 && rejected == 0 && len(b.Conflicts) == 0 {
		p.Sentence = "Every event was used as it was sent: none rejected, none without a feature, no conflicts."
		return p, nil
	}
	p.Sentence = fmt.Sprintf("%s in %s; %s of %s match no feature; %s have values of two types.",
		page.Plural(rejected, "event was rejected", "events were rejected"), s.period(),
		page.Plural(unmapped, "event", "events"), page.Plural(len(b.Unmapped), "name", "names"), page.Plural(len(b.Conflicts), "key", "keys"))
	return p, nil
}

// shellQuote quotes s as one word of a POSIX shell.
func shellQuote(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_-./:@", r)
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// snippet is a feature of the catalog that matches the event.
func snippet(event string) string {
	return fmt.Sprintf("- name: %q\n  kind: core\n  purpose: WHAT A USER GETS FROM IT\n", event)
}

type hourRow struct {
	Hour, UTC                                                        string
	Accepted, Stored, Duplicates, Rejected, OptedOut, Refused, Ahead int64
	Difference                                                       int64
	State                                                            string // ok, ahead or off
}

type healthBody struct {
	Looks  string // address of who looked at whom, for admins
	Hours  []hourRow
	Tiles  []tile
	Doors  map[string]door
	Newest string
}

func (c *Console) health(r *http.Request, s *scope) (*page.Page, error) {
	a, err := c.all(r.Context(), s.values, "conservation", "freshness")
	if err != nil {
		return nil, err
	}
	b := &healthBody{Looks: s.looksLink(), Doors: map[string]door{"conservation": s.door("conservation"), "freshness": s.door("freshness")}}
	t := a["conservation"]
	var accepted, rejected, duplicates, off int64
	for i := range t.Rows {
		row := hourRow{
			Accepted: number(t.cell(i, "accepted")), Stored: number(t.cell(i, "stored")), Duplicates: number(t.cell(i, "duplicates")),
			Rejected: number(t.cell(i, "rejected")), OptedOut: number(t.cell(i, "opted_out")), Refused: number(t.cell(i, "refused")), Ahead: number(t.cell(i, "ahead")),
			Difference: number(t.cell(i, "difference")), State: "ok",
		}
		row.Hour, row.UTC = s.stampText(t.cell(i, "hour"))
		if row.Difference != 0 || number(t.cell(i, "stored_difference")) != 0 || number(t.cell(i, "rejected_difference")) != 0 {
			row.State = "off"
			off++
		}
		accepted, rejected, duplicates = accepted+row.Accepted, rejected+row.Rejected+row.Refused, duplicates+row.Duplicates
		b.Hours = append(b.Hours, row)
	}
	newest := instant(a["freshness"].cell(0, "newest"))
	b.Newest = page.Ago(s.Now, newest)
	b.Tiles = []tile{
		{Name: "Newest visible event", Value: b.Newest, Door: b.Doors["freshness"]},
		{Name: "Visible events of the last hour", Value: page.Whole(number(a["freshness"].cell(0, "last_hour"))), Door: b.Doors["freshness"]},
		{Name: "Accepted in 72 hours", Value: page.Whole(accepted), Door: b.Doors["conservation"]},
		{Name: "Duplicates dropped", Value: page.Whole(duplicates), Door: b.Doors["conservation"]},
		{Name: "Rejected or refused", Value: page.Whole(rejected), Door: b.Doors["conservation"]},
	}
	p := &page.Page{Title: "Health", Body: b}
	switch {
	case len(b.Hours) == 0:
		p.Sentence = "No event of the last 72 hours has been counted yet."
	case off > 0:
		p.Sentence = fmt.Sprintf("In %s of the last 72 hours the counts do not add up. Run rollup-writer audit: it names the table and the command that repairs it.", page.Plural(off, "hour", "hours"))
	default:
		p.Sentence = fmt.Sprintf("Every accepted event of the last 72 hours is accounted for; the newest visible one arrived %s.", b.Newest)
		if newest.IsZero() || s.Now.Sub(newest) > 365*24*time.Hour {
			p.Sentence = "Every accepted event of the last 72 hours is accounted for."
		}
	}
	return p, nil
}
