package signal

import (
	"bytes"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
)

func TestErasedUsers(t *testing.T) {
	key := bytes.Repeat([]byte{7}, event.EraseKeyBytes)
	k, v := ErasedUser("shop", key, "jane")
	if strings.Contains(k+string(v), "jane") {
		t.Errorf("the record names the user: %q %q", k, v)
	}
	var e ErasedUsers
	if e.Has("shop", "jane") {
		t.Error("somebody is erased from the beginning")
	}
	for range 2 {
		if ours, err := e.Take(k, v); !ours || err != nil {
			t.Fatal(ours, err)
		}
	}
	other, value := ErasedUser("shop", bytes.Repeat([]byte{8}, event.EraseKeyBytes), "jim")
	if ours, err := e.Take(other, value); !ours || err != nil {
		t.Fatal(ours, err)
	}
	for _, tc := range []struct {
		r    Record
		want bool
	}{
		{Record{Message: Message{App: "shop", Level: "user", Subject: "jane"}}, true},
		{Record{Message: Message{App: "shop", Level: "user", Subject: "jim"}}, true},
		{Record{Message: Message{App: "shop", Level: "user", Subject: "janet"}}, false},
		{Record{Message: Message{App: "shop", Level: "account", Subject: "jane"}}, false},
		{Record{Message: Message{App: "office", Level: "user", Subject: "jane"}}, false},
	} {
		if got := e.Names(&tc.r); got != tc.want {
			t.Errorf("%+v: got %v", tc.r.Message, got)
		}
	}
	if ours, err := e.Take(Key(KeySubject, "shop", "alert", "silent", "jane"), []byte("{}")); ours || err != nil {
		t.Errorf("another record: got %v, %v", ours, err)
	}
	for _, broken := range []string{"{", `{"key":"AAAA"}`} {
		if ours, err := e.Take(k, []byte(broken)); !ours || err == nil {
			t.Errorf("%s: got %v, %v", broken, ours, err)
		}
	}
}
