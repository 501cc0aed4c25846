package mapping

import (
	"strings"

	"github.com/uptakehq/uptake/schemas/event"
)

// Call is one call of a server's API.
type Call struct {
	Method, URI string
	Status      int64        // 0 is unknown
	Start, End  event.Micros // 0 is unknown
}

// Write writes the call's properties (method, route, path, status, duration_ms)
// and returns the event's name, "METHOD route".
func (c Call) Write(w *Writer) string {
	path := pathOf(c.URI)
	route := Route(path)
	method := strings.ToUpper(c.Method)
	w.Text("method", method)
	w.Text("route", route)
	w.Text("path", path)
	if c.Status != 0 {
		w.Int("status", c.Status)
	}
	if c.Start != 0 && c.End >= c.Start {
		w.Int("duration_ms", (c.End-c.Start)/1000)
	}
	return strings.TrimSpace(method + " " + route)
}

// pathOf returns the path of a URI or of a URI's path and query.
func pathOf(uri string) string {
	if i := strings.Index(uri, "://"); i >= 0 {
		rest := uri[i+3:]
		if j := strings.IndexAny(rest, "/?#"); j >= 0 {
			uri = rest[j:]
		} else {
			uri = ""
		}
	}
	if i := strings.IndexAny(uri, "?#"); i >= 0 {
		uri = uri[:i]
	}
	if !strings.HasPrefix(uri, "/") {
		uri = "/" + uri
	}
	return uri
}

// Route returns a path with {id} for the segments that are ids beyond doubt:
// numbers of two digits and more, UUIDs, and hexadecimal text of 16 characters
// and more. Event names are part of the rollups' key, and one name for each
// customer's each order would make these as large as the events.
func Route(path string) string {
	if !strings.ContainsAny(path, "0123456789") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if isID(s) {
			segments[i] = "{id}"
		}
	}
	return strings.Join(segments, "/")
}

func isID(s string) bool {
	digits, hex, dashes := 0, 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c-'0' <= 9:
			digits++
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			hex++
		case c == '-':
			dashes++
		default:
			return false
		}
	}
	n := len(s)
	switch {
	case digits == n:
		return n >= 2
	case n == 36 && dashes == 4:
		return s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-'
	}
	return dashes == 0 && digits > 0 && digits+hex == n && n >= 16
}
