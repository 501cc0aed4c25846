package conformance

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/body"
	"github.com/uptakehq/uptake/ingest-gateway/gateway"
	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/event"
)

// Faults that a request can meet on its way.
const (
	none  = ""
	err5  = "500"        // a load balancer's, before the gateway
	busy  = "503"        // the gateway's own: the brokers do not ack
	limit = "429"        // the gateway's own: the app sends too much
	cut   = "cut"        // the connection breaks before the request arrives
	lost  = "reply lost" // the request is stored, the connection breaks before the reply
	slow  = "no reply"   // the request is stored, the reply never comes
)

var faults = []string{err5, busy, limit, cut, lost, slow}

// proxy passes requests to the gateway and lets the first one that carries events
// meet a fault.
type proxy struct {
	*httptest.Server
	target string
	router *ingest.Router

	mu    sync.Mutex // covers below
	fault string
	seen  []string // method, path and status of what came
}

func newProxy(t *testing.T, target, fault string) *proxy {
	t.Helper()
	router, err := ingest.NewRouter(gateway.Protocols()...)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: target, router: router, fault: fault}
	p.Server = httptest.NewServer(p)
	return p
}

// carriesEvents tells requests that a fault is meant for from an SDK's side
// calls.
func carriesEvents(r *http.Request) bool {
	switch r.Method {
	case http.MethodOptions, http.MethodHead:
		return false
	case http.MethodGet:
		return r.URL.Query().Has("data")
	}
	return !strings.HasPrefix(r.URL.Path, "/flags") && !strings.HasPrefix(r.URL.Path, "/v1/m")
}

func (p *proxy) take(r *http.Request) string {
	if !carriesEvents(r) {
		return none
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.fault
	p.fault = none
	return f
}

func (p *proxy) note(r *http.Request, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, r.Method+" "+r.URL.Path+" "+what)
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	payload, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	fault := p.take(r)
	if fault != none {
		p.note(r, fault)
	}
	switch fault {
	case err5:
		allowOrigin(w, r)
		http.Error(w, "upstream failed", http.StatusInternalServerError)
		return
	case busy:
		p.refuse(w, r, payload, &ingest.Fault{Kind: ingest.Unavailable, Detail: "brokers do not answer", RetryAfter: 1})
		return
	case limit:
		p.refuse(w, r, payload, &ingest.Fault{Kind: ingest.RateLimited, Detail: "too many events", RetryAfter: 1})
		return
	case cut:
		reset(w)
		return
	}
	res, err := p.forward(r, payload)
	if err != nil {
		p.note(r, err.Error())
		reset(w)
		return
	}
	switch fault {
	case lost:
		reset(w)
		return
	case slow:
		select {
		case <-r.Context().Done(): // the client gave up
		case <-time.After(20 * time.Second):
			reset(w)
		}
		return
	}
	p.note(r, strconv.Itoa(res.status))
	for name, values := range res.header {
		w.Header()[name] = values
	}
	w.WriteHeader(res.status)
	_, _ = w.Write(res.body) // the client may be gone
}

type response struct {
	status int
	header http.Header
	body   []byte
}

func (p *proxy) forward(r *http.Request, payload []byte) (*response, error) {
	// Not with the client's context: it may leave while the gateway works.
	req, err := http.NewRequest(r.Method, p.target+r.URL.RequestURI(), bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	req.Header = r.Header.Clone()
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return &response{res.StatusCode, res.Header, b}, err
}

// reset breaks the connection so that nobody takes it for a good end.
func reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails on a closed connection only
	}
	_ = conn.Close()
}

// refuse answers as the gateway does to a request that it cannot take.
func (p *proxy) refuse(w http.ResponseWriter, r *http.Request, payload []byte, fault *ingest.Fault) {
	limits := ingest.DefaultLimits()
	var req ingest.Request
	req.Bound(limits.Bodies(false))
	req.Method, req.Path, req.Query = r.Method, ingest.TrimPath(r.URL.Path), r.URL.RawQuery
	req.Headers, req.Body = header(r.Header), payload
	req.RemoteIP, req.ReceivedAt = netip.MustParseAddr("127.0.0.1"), event.FromTime(time.Now())
	if e := body.Detect(payload, r.Header.Get("Content-Encoding")); e != body.Plain {
		var u body.Unpacker
		unpacked, err := u.Unpack(nil, payload, e, limits.MaxBodyBytes, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		req.Body = unpacked
	}
	candidates := p.router.Find(req.Method, req.Path, nil)
	if candidates.Len() == 0 {
		http.NotFound(w, r)
		return
	}
	bound := candidates.Select(&req)
	b := ingest.NewBatch(event.NewCodec(), everyone{}, limits)
	b.Begin(&req, &bound)
	if err := bound.Route.Decode(&req, b); err != nil {
		fault = ingest.AsFault(err)
	}
	b.FailAll()
	var reply ingest.Reply
	bound.Route.Answer(&req, b, fault, &reply)
	reply.RetryAfter(fault.RetryAfter)
	if len(reply.Body) > 0 {
		w.Header().Set("Content-Type", "application/json")
		if reply.ContentType != "" {
			w.Header().Set("Content-Type", reply.ContentType)
		}
	}
	reply.EachHeader(w.Header().Set)
	allowOrigin(w, r)
	w.WriteHeader(reply.Code())
	_, _ = w.Write(reply.Body)
}

// allowOrigin lets pages see what the answer is; without it every one is a broken
// connection to them.
func allowOrigin(w http.ResponseWriter, r *http.Request) {
	if origin := r.Header.Get("Origin"); origin != "" {
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Allow-Credentials", "true")
	}
}

type everyone struct{}

func (everyone) App(string) *ingest.App { return &ingest.App{ID: "refused"} }

type header http.Header

// Get implements ingest.Headers.
func (h header) Get(name string) []byte {
	if v := http.Header(h).Get(name); v != "" {
		return []byte(v)
	}
	return nil
}

// Each implements ingest.Headers.
func (h header) Each(fn func(name, value []byte)) {
	for name, values := range h {
		for _, v := range values {
			fn([]byte(name), []byte(v))
		}
	}
}
