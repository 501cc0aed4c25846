package loadgen

import (
	"slices"
	"testing"
	"time"
)

func TestResolved(t *testing.T) {
	at := func(minute int) time.Time { return time.Unix(0, 0).Add(time.Duration(minute) * time.Minute) }
	events := []*Event{
		{Kind: kindTrack, Anonymous: "a1", Account: "A", Time: at(1)},
		{Kind: kindIdentify, Anonymous: "a1", User: "u1", Account: "A", Time: at(2)},
		{Kind: kindTrack, User: "u1", Account: "A", Time: at(3)},
		{Kind: kindTrack, User: "u1", Account: "B", Time: at(4)},
		{Kind: kindTrack, User: "s1", Account: "A", Time: at(5)},
		{Kind: kindTrack, User: "s1", Time: at(6)},
		{Kind: kindGroup, User: "s1", Account: "A", Role: "cashier", Time: at(7)},
		{Kind: kindTrack, Anonymous: "a2", Account: "A", Time: at(8)},
		{Kind: kindAlias, Previous: "a2", User: "u2", Account: "A", Time: at(9)},
		{Kind: kindTrack, Anonymous: "a3", Account: "A", Time: at(10)},
		{Kind: kindTrack, Account: "A", Time: at(11)},
	}
	want := []Whom{
		{"u1", "user", "A", ""},
		{"u1", "user", "A", ""},
		{"u1", "user", "A", ""},
		{"u1", "user", "B", ""},
		{"s1", "user", "A", "cashier"},
		{"s1", "user", "A", "cashier"},
		{"s1", "user", "A", "cashier"},
		{"u2", "user", "A", ""},
		{"u2", "user", "A", ""},
		{"a3", "anonymous", "A", ""},
		{"", "account", "A", ""},
	}
	if got := Resolved(events); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	// The order in which they come says nothing.
	slices.Reverse(events)
	slices.Reverse(want)
	if got := Resolved(events); !slices.Equal(got, want) {
		t.Errorf("reversed: got  %v\nwant %v", got, want)
	}
}
