// Package deliver sends the messages of the alerts log to their receivers: webhooks,
// Slack and e-mail.
//
// It owns the form of a message for each kind of target and its escaping, when it may
// be sent (quiet hours, grouping, rate, attempts), and that only allowed addresses are
// dialled. The caller records what was delivered: after a restart it adds a message
// again, and the message is sent at least once under the same id.
package deliver

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/uptakehq/uptake/schemas/signal"
)

// Batch is the content of one request or mail.
type Batch struct {
	Target   string
	Messages []signal.Message
	Attempt  int // from 1
}

// ID of a batch is the message's, or for several messages a hash of theirs.
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
