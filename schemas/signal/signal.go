// Package signal declares the records in which `rollup-writer alerts` says what it
// found: the alerts log (topic.Alerts) and the health scores in topic.AlertState. The
// process writes them, delivers from them, and the rollup-writer loads them into
// ClickHouse.
package signal

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// States of a record.
const (
	Firing       = "firing"
	Resolved     = "resolved"
	Retracted    = "retracted" // history was corrected: it was never true
	Acknowledged = "acknowledged"
	Entered      = "entered" // a segment, or a band of a health score
	Left         = "left"
)

// Message is one change of state of one alert, as receivers get it.
type Message struct {
	// ID is the same at every attempt, and of no other message.
	ID       string    `json:"id"`
	AlertID  string    `json:"alert_id"` // the same from firing to resolved or retracted
	App      string    `json:"app"`
	Signal   string    `json:"signal"` // id of the definition
	Version  uint32    `json:"version"`
	State    string    `json:"state"`
	Level    string    `json:"level"`
	Subject  string    `json:"subject"`
	Severity string    `json:"severity"`
	Owner    string    `json:"owner"`
	At       time.Time `json:"at"`     // of the state in the data, not of the delivery
	Reason   string    `json:"reason"` // in words, with the numbers
	Playbook string    `json:"playbook,omitempty"`
	Closes   string    `json:"closes,omitempty"`
	Title    string    `json:"title"` // description of the definition
	// FeedbackURL is a page with buttons for the recipient's feedback. It is made at
	// delivery, and is not in the log.
	FeedbackURL string `json:"feedback_url,omitempty"`
}

// Line is the message in a line of plain text.
func (m *Message) Line() string {
	return fmt.Sprintf("[%s] %s: %s %s: %s", strings.ToUpper(m.State), strings.TrimSuffix(m.Title, "."), m.Level, m.Subject, m.Reason)
}

// Facts are why a bound held or did not.
type Facts struct {
	Value float64 `json:"value"`
	// Limit is absolute, also of a relative bound.
	Limit    float64 `json:"limit"`
	Mean     float64 `json:"mean,omitempty"` // of the windows before, of a relative bound
	Relative bool    `json:"relative,omitempty"`
}

// Record is one record of the alerts log, as JSON.
type Record struct {
	Message
	Use      string     `json:"use"`            // alert, segment or health
	Band     string     `json:"band,omitempty"` // of a health score
	Audience []string   `json:"audience,omitempty"`
	Facts    Facts      `json:"facts"`
	From     time.Time  `json:"from"`         // when it fired
	To       *time.Time `json:"to,omitempty"` // when it ended
	// Silent records are not delivered: of an episode that was over when it was
	// noticed, and acknowledgements.
	Silent   bool      `json:"silent,omitempty"`
	Written  time.Time `json:"written"`
	By       string    `json:"by,omitempty"`       // of an acknowledgement
	Feedback string    `json:"feedback,omitempty"` // Useful or FalsePositive
	Note     string    `json:"note,omitempty"`
}

// Feedback on an alert.
const (
	Useful        = "useful"
	FalsePositive = "false_positive"
)

// Acknowledgement is that somebody has handled an alert, and what they thought of it.
type Acknowledgement struct {
	AlertID  string
	By       string
	Feedback string // Useful, FalsePositive, or empty
	Note     string
}

// Part is one component of a health score.
type Part struct {
	ID        string  `json:"id"`
	Kind      string  `json:"kind"` // behaviour, friction or revenue
	Value     float64 `json:"value"`
	Yardstick float64 `json:"yardstick"`
	Weight    float64 `json:"weight"`
	Share     float64 `json:"share"`  // 0 to 1; of friction 1 is none
	Change    float64 `json:"change"` // points of the score, against 4 weeks before
	Sentence  string  `json:"sentence"`
}

// Health is the score of one account by one definition, as of the end of a day.
type Health struct {
	App     string    `json:"app"`
	Health  string    `json:"health"` // id of the definition
	Version uint32    `json:"version"`
	Account string    `json:"account"`
	Owner   string    `json:"owner"`
	Day     time.Time `json:"day"`   // 00:00 UTC of the last day that counts
	Score   float64   `json:"score"` // 0 to 100
	Band    string    `json:"band"`
	// Score4 and Score12 are the scores 4 and 12 weeks before, from history as now
	// known.
	Score4  float64 `json:"score_4w"`
	Score12 float64 `json:"score_12w"`
	Reason  string  `json:"reason"` // the largest change of a part, in words
	// Consequence is the value of the account's trait that weighs the score, nil
	// where none is defined or stated. Priority is how much is at stake: the share
	// of the score that is missing, times the consequence (1 without one).
	Consequence *float64 `json:"consequence,omitempty"`
	Priority    float64  `json:"priority"`
	Parts       []Part   `json:"parts"`
}

// Kinds of keys in topic.AlertState: the first part of a key.
const (
	KeyVersions = "v" // definitions of an app
	KeySubject  = "s" // what evaluation of a signal goes on from, for a subject
	KeyDelivery = "d" // how the delivery of a message ended
	KeyHealth   = "h" // app, definition, account: a Health
	KeyErased   = "e" // app, hash of a user who was erased: see ErasedUsers
	KeyReport   = "r" // app, kind, id, target: the last mail of a board or question
)

// Key joins the parts of a key of topic.AlertState.
func Key(parts ...string) string { return strings.Join(parts, "\x00") }

// Parts splits a key.
func Parts(key string) []string { return strings.Split(key, "\x00") }

// Decode reads a record of the alerts log.
func Decode(value []byte) (r Record, err error) {
	return r, json.Unmarshal(value, &r)
}

// DecodeHealth reads a score.
func DecodeHealth(value []byte) (h Health, err error) {
	return h, json.Unmarshal(value, &h)
}
