package catalog

import (
	"bytes"
	"fmt"
	"strings"
)

// Patterns over URL paths are segments between slashes. A segment is a literal,
// or * (also written {name} or :name) for any one segment; ** as the last one
// stands for any number of further segments, none too. Letters count with
// their case; a slash at the end, a query and a fragment do not count.

const (
	anySegment  = "*"
	anySegments = "**"
)

// checkPattern returns the fault of a pattern, or nil.
func checkPattern(p string) string {
	if !strings.HasPrefix(p, "/") {
		return "must start with /"
	}
	if strings.ContainsAny(p, "?#") {
		return "must be a path without query and fragment"
	}
	segments := splitPattern(p)
	if len(segments) > MaxPathSegments {
		return fmt.Sprintf("must have at most %d segments", MaxPathSegments)
	}
	for i, s := range segments {
		switch {
		case s == "":
			return "must have no empty segment"
		case s == anySegments && i < len(segments)-1:
			return "may have ** only at its end"
		case s != anySegment && s != anySegments && strings.ContainsAny(s, "*{}"):
			return fmt.Sprintf("has segment %q, which is neither a literal, *, {name}, :name nor **", s)
		}
	}
	return ""
}

// splitPattern returns a pattern's segments, with every form of wildcard as *.
func splitPattern(p string) []string {
	p = strings.TrimSuffix(strings.TrimPrefix(p, "/"), "/")
	if p == "" {
		return nil
	}
	segments := strings.Split(p, "/")
	for i, s := range segments {
		if (strings.HasPrefix(s, ":") && len(s) > 1) ||
			(strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") && len(s) > 2 && !strings.ContainsAny(s[1:len(s)-1], "*{}")) {
			segments[i] = anySegment
		}
	}
	return segments
}

// fitsSegments compares a pattern with a path.
func fitsSegments(segments []string, path []byte) bool {
	for _, want := range segments {
		if want == anySegments {
			return true
		}
		if len(path) == 0 {
			return false
		}
		var segment []byte
		segment, path = cutSegment(path)
		if want != anySegment && want != string(segment) {
			return false
		}
	}
	return len(path) == 0
}

// cutSegment splits a path after its first segment.
func cutSegment(path []byte) (segment, rest []byte) {
	if i := bytes.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return path, nil
}

// pathOf returns the path part of a URL or of a path: without scheme and host,
// query, fragment and the slashes around it.
func pathOf(url []byte) []byte {
	if i := bytes.IndexAny(url, "?#"); i >= 0 {
		url = url[:i]
	}
	// A scheme ends before the first slash: https://host/path.
	if i := bytes.Index(url, []byte("://")); i >= 0 && bytes.IndexByte(url, '/') == i+1 {
		url = url[i+3:]
		url = url[indexOrEnd(url, '/'):]
	}
	for len(url) > 0 && url[0] == '/' {
		url = url[1:]
	}
	for len(url) > 0 && url[len(url)-1] == '/' {
		url = url[:len(url)-1]
	}
	return url
}

func indexOrEnd(b []byte, c byte) int {
	if i := bytes.IndexByte(b, c); i >= 0 {
		return i
	}
	return len(b)
}

// node is one segment of the patterns with a common prefix.
type node struct {
	literal map[string]*node
	any     *node
	end     *bucket // patterns that end here
	rest    *bucket // patterns that go on with **
	minRank int32   // of all rules at and below
}

func (n *node) insert(segments []string) **bucket {
	for _, s := range segments {
		switch s {
		case anySegments: // the last one, by checkPattern
			return &n.rest
		case anySegment:
			if n.any == nil {
				n.any = &node{minRank: noRank}
			}
			n = n.any
		default:
			next := n.literal[s]
			if next == nil {
				if n.literal == nil {
					n.literal = map[string]*node{}
				}
				next = &node{minRank: noRank}
				n.literal[s] = next
			}
			n = next
		}
	}
	return &n.end
}

func (n *node) settle() int32 {
	n.minRank = noRank
	for _, c := range n.literal {
		n.minRank = min(n.minRank, c.settle())
	}
	if n.any != nil {
		n.minRank = min(n.minRank, n.any.settle())
	}
	if n.end != nil {
		n.minRank = min(n.minRank, n.end.settle())
	}
	if n.rest != nil {
		n.minRank = min(n.minRank, n.rest.settle())
	}
	return n.minRank
}

// match visits every pattern that matches path. Each visited node is a different prefix
// of some pattern, so at each segment there are at most as many visits as patterns, and
// with few wildcards one or two.
func (n *node) match(path []byte, s *search) {
	if n.minRank >= s.best {
		return
	}
	if n.rest != nil {
		n.rest.match(s)
	}
	if len(path) == 0 {
		if n.end != nil {
			n.end.match(s)
		}
		return
	}
	segment, rest := cutSegment(path)
	if next := n.literal[string(segment)]; next != nil {
		next.match(rest, s)
	}
	if n.any != nil {
		n.any.match(rest, s)
	}
}
