package ingest

import (
	"fmt"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/privacy"
)

// kept holds the redacted form of the current item, where its app has rules.
type kept struct {
	by *privacy.Redactor

	properties, traits, context []byte
	text, detail, unread        []byte
	copy                        event.RawEvent
}

// begin prepares the redactor for rules, which are not nil.
func (k *kept) begin(rules *privacy.Rules) {
	if k.by == nil {
		k.by = privacy.NewRedactor()
	}
	k.by.Begin(rules)
}

// event returns the event as it may be stored: the event itself, or a redacted copy
// that is valid until the next call. The event is not changed, since protocols make
// several events of one.
func (k *kept) event(rules *privacy.Rules, ev *event.RawEvent) *event.RawEvent {
	if rules == nil {
		return ev
	}
	k.begin(rules)
	k.properties = k.by.Append(k.properties[:0], privacy.Properties, ev.Properties)
	k.traits = k.by.Append(k.traits[:0], privacy.Traits, ev.Traits)
	k.context = k.by.Append(k.context[:0], privacy.Context, ev.Context)
	k.copy = *ev
	k.copy.Properties, k.copy.Traits, k.copy.Context = k.properties, k.traits, k.context
	if len(ev.Unread) > 0 {
		k.unread = k.by.AppendText(k.unread[:0], ev.Unread)
		k.copy.Unread = k.unread
	}
	k.copy.IP, k.copy.UserAgent = rules.IP(ev.IP), rules.UserAgent(ev.UserAgent)
	if rules.DropsIP() {
		k.copy.Country = ""
	}
	return &k.copy
}

// original returns the bytes of a rejected item, and the text of the rejection, as they
// may be stored. Bytes that cannot be searched are not stored at all.
func (k *kept) original(rules *privacy.Rules, original []byte, detail string) (text []byte, says string, optedOut bool) {
	k.begin(rules)
	var ok bool
	k.text, ok, optedOut = k.by.AppendOriginal(k.text[:0], original)
	if !ok && len(original) > 0 {
		detail = fmt.Sprintf("%s; its %d bytes are not kept: they are no JSON object, and the app has privacy rules", detail, len(original))
	}
	k.detail = k.by.AppendText(k.detail[:0], []byte(detail))
	return k.text, string(k.detail), optedOut
}

// optOut drops the current item when its event belongs to somebody who opted out.
func (b *Batch) optOut(ev *event.RawEvent) bool {
	if b.rules.OptedOut(ev.UserID, ev.AnonymousID, ev.AccountID) || b.rules.OptedOut(ev.PreviousID, ev.PreviousID, "") {
		b.dropOptedOut()
		return true
	}
	return false // also when there are no rules
}

func (b *Batch) dropOptedOut() {
	if it := b.current(); it.state != Ignored || !it.touched {
		b.optedOut++
	}
	b.Ignore()
}
