package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/rollup-writer/console/question"
	"github.com/uptakehq/uptake/rollup-writer/console/signin"
	"github.com/uptakehq/uptake/schemas/signal"
)

// Feedback on alerts is the one thing that the console changes. It takes two ways: the
// buttons of the Alerts page, for whoever may see it, and the link of a delivered
// message, whose page shows that one alert and needs no sign-in. Both change something
// by POST only, from a page of the console's own origin: programs that follow links in
// mails press nothing.

const (
	maxNote     = 1000 // bytes
	feedbackFor = 30 * time.Second
)

// answers are the values of the buttons, with what the page says afterwards.
var answers = map[string]string{
	"":                   "The alert is acknowledged.",
	signal.Useful:        "Thank you: the alert is acknowledged as useful.",
	signal.FalsePositive: "Thank you: the alert is acknowledged as not useful.",
}

type feedbackBody struct {
	Link, App, Alert string
	About            *alertRow // nil: the alert is not in ClickHouse yet
	Done             bool
}

// feedbackPage shows the alert of a link, with buttons.
func (c *Console) feedbackPage(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("link")
	link, ok := c.link(w, r, token)
	if !ok {
		return
	}
	b := &feedbackBody{Link: token}
	p := &page.Page{Title: "Alert", Sentence: "Was this alert useful?", Body: b}
	if done, ok := answers[r.URL.Query().Get("answer")]; ok && r.URL.Query().Has("answer") {
		b.Done, p.Sentence = true, done
	}
	// The link admits to this one alert, whoever it is about.
	ctx := signin.With(r.Context(), signin.Of(link.Recipient, link.App, signin.Grant{Role: signin.Viewer, People: true}))
	about, err := c.alertOf(ctx, link.App, link.AlertID)
	if err != nil {
		c.failed(w, r, err)
		return
	}
	b.About = about
	c.write(w, "feedback", http.StatusOK, p)
}

// link opens the token of a feedback link, or answers why it cannot be used.
func (c *Console) link(w http.ResponseWriter, r *http.Request, token string) (signal.Link, bool) {
	if c.cfg.FeedbackSecret == "" || c.acknowledge == nil {
		c.fail(w, r, http.StatusNotFound, "This console takes no feedback by links.", "It needs console-feedback and console-feedback-secret.")
		return signal.Link{}, false
	}
	link, err := signal.OpenLink(c.cfg.FeedbackSecret.Reveal(), token, c.now())
	if err != nil {
		status := http.StatusForbidden
		if errors.Is(err, signal.ErrLinkExpired) {
			status = http.StatusGone
		}
		c.fail(w, r, status, "This link cannot be used: "+err.Error()+".", "Give feedback on the Alerts page, or with `rollup-writer alerts ack`.")
		return link, false
	}
	return link, true
}

// alertOf returns one alert, or nil if ClickHouse does not have it.
func (c *Console) alertOf(ctx context.Context, app, id string) (*alertRow, error) {
	f, err := c.asker.ask(ctx, "alert", question.Values{"app": app, "alert": id})
	if err != nil || len(f.Rows) == 0 {
		return nil, err
	}
	row := alertOfRow(f, 0)
	row.UTC = instant(f.cell(0, "fired_at")).UTC().Format("2 Jan 2006 15:04 UTC")
	return &row, nil
}

// feedback takes the press of a button, of a link's page or of the Alerts page.
func (c *Console) feedback(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if err := r.ParseForm(); err != nil {
		c.fail(w, r, http.StatusBadRequest, "The form cannot be read.", "Open the page again.")
		return
	}
	given := signal.Acknowledgement{AlertID: r.PostForm.Get("alert"), Feedback: r.PostForm.Get("answer"), Note: r.PostForm.Get("note")}
	back := url.Values{"answer": {given.Feedback}}
	target := "/feedback"
	if token := r.PostForm.Get("link"); r.URL.Path == "/feedback" {
		link, ok := c.link(w, r, token)
		if !ok {
			return
		}
		given.AlertID, given.By = link.AlertID, link.Recipient
		back.Set("link", token)
	} else {
		given.By = cmp.Or(signedIn(r), "console")
		app := r.PostForm.Get("app")
		about, err := c.alertOf(r.Context(), app, given.AlertID)
		if err != nil {
			c.failed(w, r, err)
			return
		}
		if about == nil {
			c.fail(w, r, http.StatusNotFound, "There is no such alert in "+app+".", "Open the Alerts page again.")
			return
		}
		target = "/alerts"
		back = url.Values{"app": {app}, "p": {r.PostForm.Get("p")}, "zone": {r.PostForm.Get("zone")}}
	}
	switch _, known := answers[given.Feedback]; {
	case !known:
		c.fail(w, r, http.StatusBadRequest, fmt.Sprintf("answer=%q is unknown.", given.Feedback), "It is useful, false_positive or empty.")
		return
	case len(given.Note) > maxNote:
		c.fail(w, r, http.StatusBadRequest, fmt.Sprintf("The note has %d bytes.", len(given.Note)), fmt.Sprintf("It may have %d.", maxNote))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), feedbackFor)
	defer cancel()
	if err := c.acknowledge(ctx, given); err != nil {
		c.log.Warn("feedback not written", "alert", given.AlertID, "error", err)
		c.fail(w, r, http.StatusBadGateway, "The feedback could not be written to the log.", "The console's log says why. Go back and try again.")
		return
	}
	c.asker.drop("alerts", "alert", "account_alerts")
	http.Redirect(w, r, target+"?"+back.Encode(), http.StatusSeeOther)
}

// sameOrigin reports whether a request was made by a page of the console. Browsers set
// Origin on every POST.
func sameOrigin(r *http.Request) bool {
	origin, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && origin.Host != "" && origin.Host == r.Host
}
