package ingest

import (
	"errors"
	"fmt"
	"strings"
)

// Router finds the route of a request. It is immutable.
type Router struct {
	exact    map[string][]*entry // by method, space, path
	patterns []*entry            // in order of registration
	paths    map[string]bool     // exact paths of any method
}

type entry struct {
	Bound
	method   string
	segments []string // of a pattern
}

// Bound is a route together with its protocol.
type Bound struct {
	Route    *Route
	Protocol string
	Fields   Fields
	prefix   string
	name     string // method and path, as stored in rejected records
}

// NewRouter registers the protocols' routes in order.
func NewRouter(protocols ...Protocol) (*Router, error) {
	r := &Router{exact: map[string][]*entry{}, paths: map[string]bool{}}
	var errs []error
	names := map[string]bool{}
	for _, p := range protocols {
		if names[p.Name()] || p.Name() == "" {
			errs = append(errs, fmt.Errorf("protocol name %q is empty or taken", p.Name()))
		}
		names[p.Name()] = true
		fields := p.Fields().withDefaults()
		for _, route := range p.Routes() {
			if err := r.add(Bound{Route: &route, Protocol: p.Name(), Fields: fields, name: route.Method + " " + route.Path}); err != nil {
				errs = append(errs, fmt.Errorf("protocol %s: route %s %s: %w", p.Name(), route.Method, route.Path, err))
			}
		}
	}
	return r, errors.Join(errs...)
}

func (r *Router) add(b Bound) error {
	path := b.Route.Path
	switch {
	case b.Route.Method == "" || b.Route.Method != strings.ToUpper(b.Route.Method):
		return errors.New("method must be upper case")
	case !strings.HasPrefix(path, "/") || (path != "/" && strings.HasSuffix(path, "/")):
		return errors.New("path must start with a slash and not end with one")
	case b.Route.Decode == nil || b.Route.Answer == nil:
		return errors.New("needs Decode and Answer")
	case strings.Count(path, "{") > maxParams:
		return fmt.Errorf("more than %d parts in braces", maxParams)
	}
	for _, prefix := range []string{"", "/" + b.Protocol} {
		b.prefix = prefix
		full := TrimPath(prefix + path)
		e := &entry{Bound: b, method: b.Route.Method}
		if strings.Contains(full, "{") {
			e.segments = strings.Split(full[1:], "/")
			r.patterns = append(r.patterns, e)
			continue
		}
		key := e.method + " " + full
		r.exact[key] = append(r.exact[key], e)
		r.paths[full] = true
	}
	return nil
}

// TrimPath removes a trailing slash.
func TrimPath(path string) string {
	for len(path) > 1 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	return path
}

// Candidates are the routes that share the request's method and path, in the order in
// which they are asked.
type Candidates struct {
	exact    []*entry
	patterns []match
	path     string
}

type match struct {
	*entry
	params params
}

// Len is the number of candidates; 0 means that the route does not exist.
func (c Candidates) Len() int { return len(c.exact) + len(c.patterns) }

// KeyHeader is the header field in which clients of the first candidate send the write
// key, "" where it has none of its own.
func (c Candidates) KeyHeader() string { return c.at(0).Fields.KeyHeader }

// Import reports whether a candidate is for imports.
func (c Candidates) Import() bool {
	for i := range c.Len() {
		if c.at(i).Route.Import {
			return true
		}
	}
	return false
}

// Find returns the candidates for a method and a path from TrimPath. scratch is a
// buffer for the look-up key and may be nil.
func (r *Router) Find(method, path string, scratch []byte) Candidates {
	scratch = append(append(append(scratch[:0], method...), ' '), path...)
	c := Candidates{exact: r.exact[string(scratch)], path: path}
	if len(c.exact) > 0 {
		return c
	}
	for _, e := range r.patterns {
		if e.method != method {
			continue
		}
		if p, ok := matchSegments(e.segments, path); ok {
			c.patterns = append(c.patterns, match{e, p})
		}
	}
	return c
}

// Knows reports whether any method has the path, for 405 and preflights.
func (r *Router) Knows(path string) bool {
	if r.paths[path] {
		return true
	}
	for _, e := range r.patterns {
		if _, ok := matchSegments(e.segments, path); ok {
			return true
		}
	}
	return false
}

// Select returns the candidate that takes the request, and sets the request's path,
// protocol and parameters. There must be at least one candidate. A body that could not
// be unpacked is empty here.
func (c Candidates) Select(req *Request) Bound {
	if n := c.Len(); n > 1 {
		for i := range n {
			c.bind(req, i)
			if b := c.at(i); b.Route.Match == nil || b.Route.Match(req) {
				return b
			}
		}
	}
	c.bind(req, 0)
	return c.at(0)
}

func (c Candidates) at(i int) Bound {
	if i < len(c.exact) {
		return c.exact[i].Bound
	}
	return c.patterns[i-len(c.exact)].Bound
}

// bind sets the candidate's fields in the request.
func (c Candidates) bind(req *Request, i int) {
	b := c.at(i)
	req.Protocol = b.Protocol
	req.params = params{}
	if i >= len(c.exact) {
		req.params = c.patterns[i-len(c.exact)].params
	}
	n := len(b.prefix)
	req.Prefix, req.Path = b.prefix, c.path[n:]
}

func matchSegments(segments []string, path string) (params, bool) {
	var p params
	rest := path[1:]
	for i, s := range segments {
		if strings.HasPrefix(s, "{") {
			name := s[1 : len(s)-1]
			if tail, ok := strings.CutSuffix(name, "..."); ok {
				p.names[p.n], p.values[p.n] = tail, rest
				p.n++
				return p, true
			}
			value, after, more := strings.Cut(rest, "/")
			if value == "" || more == (i == len(segments)-1) {
				return p, false
			}
			p.names[p.n], p.values[p.n] = name, value
			p.n++
			rest = after
			continue
		}
		value, after, more := strings.Cut(rest, "/")
		if value != s || more == (i == len(segments)-1) {
			return p, false
		}
		rest = after
	}
	return p, true
}
