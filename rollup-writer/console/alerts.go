package console

import (
	"fmt"
	"net/http"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
)

type alertRow struct {
	ID, Fired, UTC                                              string
	State, Severity, Title, Reason, Owner, Next, Ackby, Thought string
	Account                                                     named
	Subject                                                     string // of another level
}

type alertsBody struct {
	Rows    []alertRow
	Door    door
	Buttons bool // feedback is taken here
}

// alertOfRow returns the alert in a row of a result, without the links that only some
// pages have.
func alertOfRow(f *Result, i int) alertRow {
	return alertRow{
		ID: text(f.cell(i, "alert_id")), State: text(f.cell(i, "state")), Severity: text(f.cell(i, "severity")), Title: text(f.cell(i, "title")), Reason: text(f.cell(i, "reason")),
		Owner: text(f.cell(i, "owner")), Next: text(f.cell(i, "playbook")), Ackby: text(f.cell(i, "acknowledged_by")), Thought: text(f.cell(i, "feedback")), Subject: text(f.cell(i, "subject")),
	}
}

// alerts lists what fires and what fired.
func (c *Console) alerts(r *http.Request, s *scope) (*page.Page, error) {
	a, err := c.all(r.Context(), s.values, "alerts")
	if err != nil {
		return nil, err
	}
	f := a["alerts"]
	b := &alertsBody{Door: s.door("alerts"), Buttons: c.acknowledge != nil}
	firing, open := 0, 0
	for i := range f.Rows {
		row := alertOfRow(f, i)
		row.Fired, row.UTC = s.stampText(f.cell(i, "fired_at"))
		if text(f.cell(i, "level")) == "account" {
			row.Account, row.Subject = s.accountLink(row.Subject), ""
		}
		if row.State == "firing" {
			firing++
			if row.Ackby == "" {
				open++
			}
		}
		b.Rows = append(b.Rows, row)
	}
	sentence := fmt.Sprintf("%s, %d of them not acknowledged.", page.Plural(firing, "alert fires", "alerts fire"), open)
	if len(f.Rows) == 0 {
		sentence = "No alert has fired in " + s.App + "."
	}
	return &page.Page{Title: "Alerts", Sentence: sentence, Body: b}, nil
}
