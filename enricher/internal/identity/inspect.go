package identity

import (
	"fmt"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Record is a record of the changelog, for display and for tools. Which fields a kind
// uses is documented in IdentityState and below.
type Record struct {
	event.IdentityState

	// Fields of an anonymous id.
	Links []LinkFact
	// Fields of a user.
	Alias       string       // the user that it counts for, unless that is itself aliased
	Aliases     []AliasFact  // all aliases from calls; only at its home
	Memberships []MemberFact // including those of users aliased to it
	Subscribers []int32      // partitions that get changes; only at its home
	// Fields of both: orders that undid links.
	Undone []UndoneFact
}

// LinkFact: an anonymous id belongs to a user from an instant on.
type LinkFact struct {
	UserID string
	Since  event.Micros
}

// AliasFact: a user became another user; First and Last are the earliest and latest
// times of the calls.
type AliasFact struct {
	UserID      string
	First, Last event.Micros
}

// MemberFact: a user is in an account from an instant on or, without an account, has a
// role. Via is the user that the call named, if it is another one.
type MemberFact struct {
	AccountID, Role string
	Since           event.Micros
	Via             string
}

// UndoneFact: links to a user up to an instant do not count.
type UndoneFact struct {
	UserID string
	Until  event.Micros
}

// Inspect reads a record of the changelog. The Record is independent of value.
func Inspect(codec *event.Codec, value []byte) (Record, error) {
	var r Record
	owned := append([]byte(nil), value...)
	if err := codec.DecodeIdentityState(owned, &r.IdentityState); err != nil {
		return Record{}, err
	}
	var gone []undone
	switch r.Kind {
	case event.StateAnonymous:
		var a anonymous
		if err := decodeBody(r.Body, &a); err != nil {
			return Record{}, fmt.Errorf("anonymous id %q: %w", r.ID, err)
		}
		for _, l := range a.Links {
			r.Links = append(r.Links, LinkFact{UserID: l.UserID, Since: l.Since})
		}
		gone = a.Undone
	case event.StateUser:
		var u user
		if err := decodeBody(r.Body, &u); err != nil {
			return Record{}, fmt.Errorf("user %q: %w", r.ID, err)
		}
		r.Alias, r.Subscribers = u.Alias, u.Subscribers
		for _, a := range u.Aliases {
			r.Aliases = append(r.Aliases, AliasFact(a))
		}
		for _, m := range u.Memberships {
			r.Memberships = append(r.Memberships, MemberFact{m.AccountID, m.Role, m.Since, m.Via})
		}
		gone = u.Undone
	}
	for _, u := range gone {
		r.Undone = append(r.Undone, UndoneFact(u))
	}
	return r, nil
}

// Home returns the partition whose enricher knows an id, an anonymous one or a
// user.
func Home(app, idKind, id string, partitions int32) int32 {
	return topic.Partition(Key(app, idKind, id), partitions)
}

// Key returns the record key of an id, in links and in enricher-state.
func Key(app, idKind, id string) []byte {
	kind := byte(topic.KeyUser)
	if idKind == event.ActorAnonymous {
		kind = topic.KeyAnonymous
	}
	return topic.Key(nil, app, kind, id)
}

// Unlink returns the order to undo the links of an id to a user up to an instant. It
// goes to the id's home in links, with Key as its key.
func Unlink(app, idKind, id, userID string, until, now event.Micros) event.Link {
	return event.Link{
		Kind: event.LinkUnlink, AppID: app, ID: id, IDKind: idKind, UserID: userID, Since: until,
		Call: event.CallOperator, RecordedAt: now, RawPartition: -1, RawOffset: -1, Partition: -1,
	}
}
