package signal

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"
)

// LinkFor is how long after an alert was written its feedback link can be used.
const LinkFor = 14 * 24 * time.Hour

// MinLinkSecret is the shortest secret, in bytes, that may sign links.
const MinLinkSecret = 16

// Link is what a feedback link names: one alert and one recipient. Whoever has the link
// may give feedback on that alert in the recipient's name, and nothing else.
type Link struct {
	App, AlertID string
	Recipient    string // name of the target that the alert was delivered to
	Expires      time.Time
}

// Errors of OpenLink.
var (
	ErrLinkForged  = errors.New("the link was not made by this installation, or was cut off")
	ErrLinkExpired = errors.New("the link is older than 14 days")
)

func (l Link) claims() string {
	return Key(l.App, l.AlertID, l.Recipient, strconv.FormatInt(l.Expires.Unix(), 10))
}

func mac(secret, claims string) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte("uptake feedback link\x00" + claims))
	return h.Sum(nil)
}

// Sign returns the link's token, for use in a URL: the claims and their HMAC-SHA256,
// each in base64url.
func (l Link) Sign(secret string) string {
	claims := l.claims()
	return base64.RawURLEncoding.EncodeToString([]byte(claims)) + "." + base64.RawURLEncoding.EncodeToString(mac(secret, claims))
}

// OpenLink returns the link of a token. It returns ErrLinkForged for a token that secret
// did not sign, and ErrLinkExpired together with the link for one that is too old.
func OpenLink(secret, token string, now time.Time) (Link, error) {
	head, tail, _ := strings.Cut(token, ".")
	claims, err := base64.RawURLEncoding.DecodeString(head)
	sum, sumErr := base64.RawURLEncoding.DecodeString(tail)
	parts := Parts(string(claims))
	if err != nil || sumErr != nil || len(secret) < MinLinkSecret || len(parts) != 4 || !hmac.Equal(sum, mac(secret, string(claims))) {
		return Link{}, ErrLinkForged
	}
	expires, err := strconv.ParseInt(parts[3], 10, 64)
	if err != nil {
		return Link{}, ErrLinkForged
	}
	l := Link{App: parts[0], AlertID: parts[1], Recipient: parts[2], Expires: time.Unix(expires, 0)}
	if !now.Before(l.Expires) {
		return l, ErrLinkExpired
	}
	return l, nil
}
