package enrich

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/ids"
)

// Texts that are no ids link nobody: those of records from a gateway that did not
// look are taken out here. What was sent and is not used is kept and flagged.
func TestUnread(t *testing.T) {
	c := newCluster(t)
	i := c.start(filepath.Join(t.TempDir(), "a"))
	at := event.FromTime(time.Now())
	send := func(e event.RawEvent) {
		e.AppID, e.Event, e.ReceivedAt, e.Quantity = "dev", "Page Used", at, 1
		if e.Kind == "" {
			e.Kind = event.KindTrack
		}
		c.send(c.raw(e))
	}
	for _, u := range []string{"ana", "ben"} {
		send(event.RawEvent{MessageID: "group-" + u, Kind: event.KindGroup, UserID: u, AccountID: "acc-" + u})
		send(event.RawEvent{MessageID: "identify-" + u, Kind: event.KindIdentify, UserID: u, AnonymousID: "undefined"})
		send(event.RawEvent{MessageID: "alias-" + u, Kind: event.KindAlias, UserID: u, PreviousID: " NULL "})
	}
	c.drained()
	send(event.RawEvent{MessageID: "visitor", AnonymousID: "undefined"})
	send(event.RawEvent{MessageID: "user", UserID: "\tnull\n", AnonymousID: " v1 ", AccountID: "[object Object]"})
	send(event.RawEvent{MessageID: "kept", UserID: "undefined", IDRules: ids.Rules}) // by the app's own list
	send(event.RawEvent{MessageID: "dropped", AnonymousID: "v2", Unread: []byte(`{"user_id":"kiosk"}`), IDRules: ids.Rules, Properties: []byte(`{"a":1,"a":2}`)})
	send(event.RawEvent{MessageID: "time", AnonymousID: "v3", Unread: []byte(`{"timestamp":"yesterday"}`), IDRules: ids.Rules})
	send(event.RawEvent{MessageID: "other time", AnonymousID: "v3", Timestamp: at - 1, Unread: []byte(`{"timestamp":"yesterday"}`), IDRules: ids.Rules})
	old := at - (6 * 365 * 24 * time.Hour).Microseconds()
	send(event.RawEvent{MessageID: "too old", AnonymousID: "v3", Timestamp: old, IDRules: ids.Rules})
	send(event.RawEvent{MessageID: "history", AnonymousID: "v3", Timestamp: old, IDRules: ids.Rules, TimeNotes: event.TimeAnyAge})
	send(event.RawEvent{MessageID: "ambiguous", AnonymousID: "v3", Timestamp: at - 1, IDRules: ids.Rules, TimeNotes: event.TimeAmbiguous})
	c.drained()

	got := c.find()
	for id, want := range map[string]event.EnrichedEvent{
		"group-ana":    {ActorKind: "user", ActorID: "ana", AccountID: "acc-ana", EventTime: at, Flags: "time_from_received"},
		"identify-ana": {ActorKind: "user", ActorID: "ana", AccountID: "acc-ana", EventTime: at, Flags: "id_dropped,time_from_received", Conflicts: []byte(`{"anonymous_id":"undefined"}`)},
		"alias-ben":    {ActorKind: "user", ActorID: "ben", AccountID: "acc-ben", EventTime: at, Flags: "id_dropped,time_from_received", Conflicts: []byte(`{"previous_id":" NULL "}`)},
		"visitor":      {ActorKind: "anonymous", EventTime: at, Flags: "id_dropped,time_from_received", Conflicts: []byte(`{"anonymous_id":"undefined"}`)},
		"user":         {ActorKind: "anonymous", ActorID: "v1", EventTime: at, Flags: "id_dropped,time_from_received", Conflicts: []byte(`{"user_id":"\tnull\n","account_id":"[object Object]"}`)},
		"kept":         {ActorKind: "user", ActorID: "undefined", EventTime: at, Flags: "time_from_received"},
		"dropped":      {ActorKind: "anonymous", ActorID: "v2", EventTime: at, Flags: "id_dropped,time_from_received", Conflicts: []byte(`{"properties.a":1,"user_id":"kiosk"}`)},
		"time":         {ActorKind: "anonymous", ActorID: "v3", EventTime: at, Flags: "time_unreadable", Conflicts: []byte(`{"timestamp":"yesterday"}`)},
		"too old":      {ActorKind: "anonymous", ActorID: "v3", EventTime: at, Flags: "time_too_old"},
		"history":      {ActorKind: "anonymous", ActorID: "v3", EventTime: old},
		"ambiguous":    {ActorKind: "anonymous", ActorID: "v3", EventTime: at - 1, Flags: "time_ambiguous"},
		"other time":   {ActorKind: "anonymous", ActorID: "v3", EventTime: at - 1, Flags: "time_other_field", Conflicts: []byte(`{"timestamp":"yesterday"}`)},
	} {
		e := got[id]
		if e.ActorKind != want.ActorKind || e.ActorID != want.ActorID || e.AccountID != want.AccountID || e.EventTime != want.EventTime || e.Flags != want.Flags || string(e.Conflicts) != string(want.Conflicts) {
			t.Errorf("%s: got %s %q of %q at %d, flags %q, conflicts %s\nwant %s %q of %q at %d, flags %q, conflicts %s", id,
				e.ActorKind, e.ActorID, e.AccountID, e.EventTime, e.Flags, e.Conflicts, want.ActorKind, want.ActorID, want.AccountID, want.EventTime, want.Flags, want.Conflicts)
		}
	}
	for field, want := range map[string]float64{ids.Anonymous: 3, ids.Previous: 2, ids.User: 2, ids.Account: 1} {
		if n := i.metric("uptake_enricher_ids_dropped_total", field); n != want {
			t.Errorf("ids dropped of %s: got %v, want %v", field, n, want)
		}
	}
	i.stopped()
}
