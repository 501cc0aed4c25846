package ingest

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"net/url"
	"strings"

	"github.com/uptakehq/uptake/ingest-gateway/body"
	"github.com/uptakehq/uptake/schemas/event"
)

// Headers are a request's header fields. Names are case-insensitive. Returned values
// are valid as long as the request.
type Headers interface {
	// Get returns the first value of the field, or nil.
	Get(name string) []byte
	// Each calls fn for every field.
	Each(fn func(name, value []byte))
}

// Request is one HTTP request as protocols see it. All its strings and bytes are valid
// until Answer returns.
type Request struct {
	Method string
	Path   string // as sent, without the protocol's prefix and a trailing slash
	Prefix string // the protocol's prefix where it was sent, "/name", else ""
	Query  string // as sent, after the "?"

	// Body is the body after unpacking (gzip, zstd, ...) and before unwrapping, see
	// Text. A protocol may change it in place.
	Body []byte

	Headers    Headers
	RemoteIP   netip.Addr   // of the client, seen through trusted proxies
	ReceivedAt event.Micros // one instant for the whole request
	Protocol   string

	params  params
	text    []byte
	textErr error
	texted  bool
	agent   string
	agented bool
	bodies  Bodies
}

// maxParams bounds the "{name}" parts of one route.
const maxParams = 4

type params struct {
	n      int
	names  [maxParams]string
	values [maxParams]string
}

// Reset prepares r for another request. It clears everything except the method and the
// other exported fields, which the caller sets.
func (r *Request) Reset() { *r = Request{} }

// Bound sets the bounds on the body. Only the gateway calls it.
func (r *Request) Bound(bodies Bodies) { r.bodies = bodies }

// Bodies are the bounds on the body.
func (r *Request) Bodies() Bodies { return r.bodies }

// Header returns the first value of a header field, or "".
func (r *Request) Header(name string) string {
	if r.Headers == nil {
		return ""
	}
	return String(r.Headers.Get(name))
}

// UserAgent returns the User-Agent field.
func (r *Request) UserAgent() string {
	if !r.agented {
		r.agent, r.agented = strings.ToValidUTF8(r.Header("User-Agent"), "\uFFFD"), true
		if len(r.agent) > maxUserAgent {
			r.agent = Shorten(r.agent, maxUserAgent)
		}
	}
	return r.agent
}

const maxUserAgent = 1024

// Param returns the part of the path at "{name}" or "{name...}".
func (r *Request) Param(name string) string {
	for i := range r.params.n {
		if r.params.names[i] == name {
			return r.params.values[i]
		}
	}
	return ""
}

// QueryValue returns the first value of a query parameter, unescaped, or "".
func (r *Request) QueryValue(name string) string {
	v, _ := r.LookupQuery(name)
	return v
}

// LookupQuery also reports whether the parameter is present, which tells an absent one
// from an empty one.
func (r *Request) LookupQuery(name string) (string, bool) {
	return lookupForm(r.Query, name)
}

// FormValue returns the first value of a field of a body that is
// application/x-www-form-urlencoded, unescaped, or "".
func (r *Request) FormValue(name string) string {
	v, _ := lookupForm(String(r.Body), name)
	return v
}

// Option returns the first value of a query parameter, or of a form field beside data.
func (r *Request) Option(name string) (string, bool) {
	if v, ok := r.LookupQuery(name); ok {
		return v, true
	}
	fields, _ := body.Fields(r.Body)
	return lookupForm(fields, name)
}

// IsForm reports whether the body is form data with a field data.
func (r *Request) IsForm() bool {
	_, is := body.Fields(r.Body)
	return is
}

func lookupForm(form, name string) (string, bool) {
	for form != "" {
		var pair string
		pair, form, _ = strings.Cut(form, "&")
		k, v, _ := strings.Cut(pair, "=")
		if k != name {
			if !strings.ContainsAny(k, "%+") {
				continue
			}
			if u, err := url.QueryUnescape(k); err != nil || u != name {
				continue
			}
		}
		if !strings.ContainsAny(v, "%+") {
			return v, true
		}
		u, err := url.QueryUnescape(v)
		if err != nil {
			return "", false
		}
		return u, true
	}
	return "", false
}

// BasicUser returns the user of an Authorization field of type Basic, or "". The
// password is ignored.
func (r *Request) BasicUser() string {
	user, _ := r.Basic()
	return user
}

// Basic returns user and password of an Authorization field of type Basic.
func (r *Request) Basic() (user, password string) {
	token := r.authorization("basic")
	if token == "" {
		return "", ""
	}
	enc := base64.StdEncoding
	if strings.IndexByte(token, '=') < 0 {
		enc = base64.RawStdEncoding
	}
	b, err := enc.DecodeString(token)
	if err != nil {
		return "", ""
	}
	user, password, _ = strings.Cut(String(b), ":")
	return user, password
}

// Bearer returns the token of an Authorization field of type Bearer, or "".
func (r *Request) Bearer() string { return r.authorization("bearer") }

func (r *Request) authorization(scheme string) string {
	v := r.Header("Authorization")
	if len(v) <= len(scheme) || v[len(scheme)] != ' ' || !strings.EqualFold(v[:len(scheme)], scheme) {
		return ""
	}
	return strings.Trim(v[len(scheme):], " ")
}

// Text returns the JSON text (or lines of it) that the request carries: taken out of
// form data (data=...) and base64 as SDKs wrap it, whether compressed again or not; for
// GET, of the query parameter data. See body.Unwrap. The error is a Fault. The result
// is cached.
func (r *Request) Text() ([]byte, error) {
	if r.texted {
		return r.text, r.textErr
	}
	r.texted = true
	wrapped := r.Body
	if len(wrapped) == 0 {
		if data := r.QueryValue("data"); data != "" {
			wrapped = []byte(data)
		}
	}
	text, err := body.Unwrap(wrapped, r.bodies.Text)
	switch {
	case errors.Is(err, body.ErrTooLarge):
		r.textErr = r.bodies.TooLarge("body too large after unpacking")
	case err != nil:
		r.textErr = Unreadable("%v", err)
	default:
		r.text = text
	}
	return r.text, r.textErr
}

// ParseIP reads an address with or without zone, port or brackets.
func ParseIP(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	if len(s) > 64 {
		return netip.Addr{}, false
	}
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return a.WithZone("").Unmap(), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().WithZone("").Unmap(), true
	}
	return netip.Addr{}, false
}
