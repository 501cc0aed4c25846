// Package deliver brings what the alerts log says to its receivers: webhooks, Slack
// and e-mail.
//
// It owns how a message is written for each kind of target and escaped for it, when
// it may be sent (quiet hours, grouping, rate, attempts), and that nothing is dialled
// that was not allowed. What was delivered is kept by the caller: a message is put in
// again after a restart, and sent at least once under the same id.
package deliver

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Message is one change of state of one alert.
type Message struct {
	// ID is the same at every attempt, and of no other message.
	ID       string    `json:"id"`
	AlertID  string    `json:"alert_id"` // the same from firing to resolved or retracted
	App      string    `json:"app"`
	Signal   string    `json:"signal"` // id of the definition
	Version  uint32    `json:"version"`
	State    string    `json:"state"` // firing, resolved, retracted, entered, left, band
	Level    string    `json:"level"`
	Subject  string    `json:"subject"`
	Severity string    `json:"severity"`
	Owner    string    `json:"owner"`
	At       time.Time `json:"at"`     // of the state in the data, not of the delivery
	Reason   string    `json:"reason"` // in words, with the numbers
	Playbook string    `json:"playbook,omitempty"`
	Closes   string    `json:"closes,omitempty"`
	Title    string    `json:"title"` // description of the definition
}

// words of a message, for people.
func (m *Message) line() string {
	return fmt.Sprintf("[%s] %s: %s %s: %s", strings.ToUpper(m.State), m.Title, m.Level, m.Subject, m.Reason)
}

// Batch is what is sent in one request or mail.
type Batch struct {
	Target   string
	Messages []Message
	Attempt  int // from 1
}

// ID of a batch is the message's, or of several a hash of theirs.
func (b *Batch) ID() string {
	if len(b.Messages) == 1 {
		return b.Messages[0].ID
	}
	h := sha256.New()
	for _, m := range b.Messages {
		fmt.Fprintf(h, "%q\n", m.ID)
	}
	return "digest_" + hex.EncodeToString(h.Sum(nil)[:16])
}
