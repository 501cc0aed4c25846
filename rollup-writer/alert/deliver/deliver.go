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

	"github.com/uptakehq/uptake/schemas/signal"
)

// Batch is what is sent in one request or mail.
type Batch struct {
	Target   string
	Messages []signal.Message
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
