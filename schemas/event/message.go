package event

import "encoding/binary"

// Message is what tells one message from another within an app: the client's id of
// it together with who it is about, since clients choose their ids and some give
// many people the same one. Who is the id that the message is keyed by: the user,
// else the anonymous id, else the account. Mixpanel's rule asks for event and time
// too, https://docs.mixpanel.com/reference/event-deduplication; its time is that of
// whole seconds, which is what its exports have of events that came in milliseconds.
//
// The enricher drops what comes again by AppendTo and the audit counts by
// MessageSQL. Both say the same; a test in the audit's package holds them together.
type Message struct {
	Protocol, MessageID, UserID, AnonymousID, AccountID, Event string
	Timestamp                                                  Micros // as sent
}

// Message returns what tells the event from another one.
func (e *RawEvent) Message() Message {
	return Message{e.Protocol, e.MessageID, e.UserID, e.AnonymousID, e.AccountID, e.Event, e.Timestamp}
}

// Message is that of the raw event that e was made of.
func (e *EnrichedEvent) Message() Message {
	return Message{e.Protocol, e.MessageID, e.UserID, e.AnonymousID, e.AccountID, e.Event, e.Timestamp}
}

// protocolMixpanel is the RawEvent.Protocol of package mixpanel of the gateway.
const protocolMixpanel = "mixpanel"

// AppendTo appends bytes that are equal for two messages of one app exactly if they
// are the same one.
func (m Message) AppendTo(dst []byte) []byte {
	add := func(kind byte, s string) {
		dst = append(dst, kind)
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	add('m', m.MessageID)
	switch {
	case m.UserID != "":
		add('u', m.UserID)
	case m.AnonymousID != "":
		add('a', m.AnonymousID)
	default:
		add('g', m.AccountID)
	}
	if m.Protocol == protocolMixpanel {
		add('e', m.Event)
		dst = binary.AppendVarint(dst, m.Timestamp/1_000_000)
	}
	return dst
}

// MessageSQL is the same over the columns of events beside message_id: text that is
// equal for two rows of one app and one message_id exactly if they are of the same
// message.
const MessageSQL = `concat(multiIf(user_id != '', concat('user ', user_id), anonymous_id != '', concat('anonymous ', anonymous_id), concat('account ', account_id)),` +
	` if(protocol = '` + protocolMixpanel + `', concat(', at ', toString(intDiv(ifNull(toUnixTimestamp64Micro(timestamp), 0), 1000000)), ' ', event), ''))`
