package identity

import (
	"fmt"
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
)

// A library that makes up an anonymous id for each message adds nothing to the
// state; an id that somebody chose links as ever, one message later.
func TestInventedAnonymousIDs(t *testing.T) {
	s := New(DefaultConfig(1), 0, event.NewCodec(), nil)
	var out Outputs
	offset := int64(0)
	// send has a transaction take an event in, and returns whether its anonymous id
	// was taken for invented.
	send := func(user, anonymous, library string, commit bool) bool {
		tx := s.Begin()
		out.Reset()
		offset++
		raw := event.RawEvent{AppID: "a", Kind: event.KindIdentify, UserID: user, AnonymousID: anonymous, Library: library, MessageID: "m", ReceivedAt: 1}
		invented := tx.Invented(&raw)
		if invented {
			raw.AnonymousID = ""
		}
		if _, err := tx.Event(offset, &raw, 1, &out); err != nil {
			t.Fatal(err)
		}
		tx.Flush(&out)
		if commit {
			tx.Commit()
		} else {
			tx.Rollback()
		}
		return invented
	}
	const library = "analytics-go/4.2.0"
	uuid := func(n int) string { return fmt.Sprintf("%08x-1111-4abc-8def-0123456789ab", n) }
	for n := 0; n < 3*maxSightings; {
		tx := s.Begin()
		for range maxSightings / 2 {
			raw := event.RawEvent{AppID: "a", Kind: event.KindTrack, UserID: "maria", AnonymousID: uuid(n), Library: library}
			if n++; !tx.Invented(&raw) {
				t.Fatalf("message %d: its id was taken for one that somebody chose", n)
			}
		}
		tx.Commit()
	}
	if got := s.Stats(); got.Known != 0 || got.IDs != 0 {
		t.Errorf("after %d messages of one person: %+v, want none", 3*maxSightings, got)
	}
	if n := len(s.sighted.young) + len(s.sighted.old); n > 2*maxSightings {
		t.Errorf("%d sightings, want at most %d", n, 2*maxSightings)
	}
	for n, tc := range []struct {
		user, anonymous, library string
		commit, want             bool
	}{
		{"jane", uuid(0xffffff), library, false, true}, // aborted: it was not seen
		{"jane", uuid(0xffffff), library, true, true},
		{"jane", uuid(0xffffff), library, true, false}, // chosen: it links
		{"jane", uuid(0xffffff), library, true, false},
		{"jane", "cookie-1", library, true, false},                  // no such form
		{"jane", uuid(0xabcdef), "analytics-go/3.4.0", true, false}, // another library
		{"jane", "jane", library, true, false},
		{"", uuid(5), library, true, false}, // alone it is the visitor's
	} {
		if got := send(tc.user, tc.anonymous, tc.library, tc.commit); got != tc.want {
			t.Errorf("case %d: invented: got %v, want %v", n, got, tc.want)
		}
	}
	if got := s.Stats().Known; got != 4 {
		t.Errorf("pairs: got %d, want 4", got)
	}
}
