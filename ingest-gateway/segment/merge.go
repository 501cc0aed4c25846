package segment

import (
	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
)

// decodeMerge reads RudderStack's merge call: two names of one person, each
// {"type": "user_id", "value": "..."}. A visitor is identified; of two users the first
// becomes the second. Names of other types, such as an e-mail address, are no ids here.
func decodeMerge(r *ingest.Request, b *ingest.Batch) error {
	text, err := r.Text()
	if err != nil {
		return err
	}
	env, err := mapping.Read(text, b.Limits(), "")
	if err != nil {
		return err
	}
	if err := b.Authenticate(writeKey(r, env.Fields.Get("writeKey").Text())); err != nil {
		return err
	}
	var o, name mapping.Object
	for _, it := range env.Items {
		ev, ok := mapping.Begin(b, it, &o)
		if !ok {
			continue
		}
		ev.MessageID, _ = mapping.ID(o.Get("messageId"))
		var s scan.Scanner
		list := o.Get("mergeProperties").Raw
		s.Reset(list, len(list))
		n, isList := 0, s.Array()
		for isList && s.More() {
			n++
			name.Of(s.Value())
			id, _ := mapping.ID(name.Get("value"))
			switch name.Get("type").Text() {
			case "user_id", "userId":
				ev.PreviousID, ev.UserID = ev.UserID, id
			case "anonymous_id", "anonymousId":
				ev.AnonymousID = id
			}
		}
		switch {
		case n == 2 && ev.UserID != "" && ev.AnonymousID != "":
			ev.Kind = event.KindIdentify
		case n == 2 && ev.UserID != "" && ev.PreviousID != "":
			ev.Kind = event.KindAlias
		default:
			b.Reject(ingest.CodeMissingField, "mergeProperties", "merge needs two ids of type user_id, or one and one of anonymous_id")
			continue
		}
		if !mapping.Time(b, ev, "timestamp", o.First("timestamp", "originalTimestamp")) {
			continue
		}
		b.Add()
	}
	return nil
}
