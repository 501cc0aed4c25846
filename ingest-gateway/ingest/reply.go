package ingest

import (
	"net/http"
	"strconv"
	"unicode/utf8"
)

// Reply is what Answer writes. The gateway reuses it for another request.
type Reply struct {
	Status      int    // 0 is 200
	ContentType string // "" is application/json where there is a body
	Body        []byte // append to it
	header      []field
}

type field struct{ name, value string }

// Reset empties the reply.
func (w *Reply) Reset() {
	w.Status, w.ContentType, w.Body, w.header = 0, "", w.Body[:0], w.header[:0]
}

// SetHeader sets a header field. The gateway sets the CORS fields, Retry-After and
// Content-Type; a Retry-After set here takes precedence over its own.
func (w *Reply) SetHeader(name, value string) {
	for i := range w.header {
		if w.header[i].name == name {
			w.header[i].value = value
			return
		}
	}
	w.header = append(w.header, field{name, value})
}

// RetryAfter sets Retry-After to whole seconds unless the protocol has set it or a
// retry cannot succeed.
func (w *Reply) RetryAfter(seconds int) {
	if seconds <= 0 {
		return
	}
	for _, f := range w.header {
		if f.name == "Retry-After" {
			return
		}
	}
	w.SetHeader("Retry-After", strconv.Itoa(seconds))
}

// EachHeader calls fn for the fields that SetHeader set.
func (w *Reply) EachHeader(fn func(name, value string)) {
	for _, f := range w.header {
		fn(f.name, f.value)
	}
}

// Code is the status with its default applied.
func (w *Reply) Code() int {
	if w.Status == 0 {
		return http.StatusOK
	}
	return w.Status
}

// WriteString appends s to the body.
func (w *Reply) WriteString(s string) { w.Body = append(w.Body, s...) }

// WriteQuoted appends s to the body as a JSON string.
func (w *Reply) WriteQuoted(s string) { w.Body = AppendQuoted(w.Body, s) }

// AppendQuoted appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD: for
// texts of the gateway. For texts of clients see AppendSent.
func AppendQuoted(dst []byte, s string) []byte { return appendQuoted(dst, s, false) }

// AppendSent is AppendQuoted for text that a client sent in a form other than JSON:
// bytes that are not UTF-8 are kept, so that its event is rejected as it would be in
// JSON.
func AppendSent(dst []byte, s string) []byte { return appendQuoted(dst, s, true) }

func appendQuoted(dst []byte, s string, keep bool) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n > 1 || keep {
				i += n
				continue
			}
		}
		dst = append(dst, s[start:i]...)
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= utf8.RuneSelf:
			dst = append(dst, "\uFFFD"...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
