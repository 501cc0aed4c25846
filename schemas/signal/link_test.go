package signal

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestLinks(t *testing.T) {
	const secret = "a secret of sixteen bytes"
	at := time.Unix(1_800_000_000, 0)
	l := Link{App: "dev", AlertID: "al_1", Recipient: "cs", Expires: at.Add(LinkFor)}
	token := l.Sign(secret)
	got, err := OpenLink(secret, token, at)
	if err != nil || !got.Expires.Equal(l.Expires) || got.App != "dev" || got.AlertID != "al_1" || got.Recipient != "cs" {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := OpenLink(secret, token, l.Expires); !errors.Is(err, ErrLinkExpired) {
		t.Errorf("after 14 days: %v", err)
	}
	other := Link{App: "dev", AlertID: "al_2", Recipient: "cs", Expires: l.Expires}.Sign(secret)
	head, _, _ := strings.Cut(other, ".")
	_, tail, _ := strings.Cut(token, ".")
	for name, forged := range map[string]string{
		"another alert":   head + "." + tail,
		"another secret":  l.Sign("another secret of 16"),
		"cut off":         token[:len(token)-1],
		"nothing":         "",
		"no base64":       "ä.ö",
		"a part too many": Link{App: "dev\x00x", AlertID: "al_1", Recipient: "cs", Expires: l.Expires}.Sign(secret),
	} {
		if _, err := OpenLink(secret, forged, at); !errors.Is(err, ErrLinkForged) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := OpenLink("", l.Sign(""), at); !errors.Is(err, ErrLinkForged) {
		t.Errorf("without a secret: %v", err)
	}
}
