package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// server is the HTTP server: fasthttp, which takes half the CPU of net/http for
// a request of one event. Nothing outside of this file knows.
type server struct {
	gateway *Gateway
	http    *fasthttp.Server
	ln      *listener
	active  atomic.Int64 // requests
}

func newServer(g *Gateway, ln net.Listener) *server {
	s := &server{gateway: g, ln: newListener(ln, g)}
	s.http = &fasthttp.Server{
		Handler:                      s.handle,
		ErrorHandler:                 s.malformed,
		Logger:                       logger{g.log},
		Concurrency:                  g.cfg.MaxConnections + spareWorkers,
		ConnState:                    paced,
		ReadBufferSize:               g.cfg.MaxHeaderBytes,
		ReadTimeout:                  g.cfg.ReadTimeout, // of a whole request, so that slow senders end too
		WriteTimeout:                 g.cfg.WriteTimeout,
		IdleTimeout:                  g.cfg.IdleTimeout,
		MaxRequestBodySize:           max(g.cfg.Limits.Bodies(false).Most(), g.cfg.Limits.Bodies(true).Most()),
		StreamRequestBody:            true, // bodies are read by us, within the bound on what is in flight
		DisablePreParseMultipartForm: true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		CloseOnShutdown:              true,
	}
	return s
}

func (s *server) addr() string     { return s.ln.Addr().String() }
func (s *server) connections() int { return s.ln.count() }
func (s *server) refused() int64   { return s.ln.refused.Load() }
func (s *server) serve() error     { return s.http.Serve(s.ln) }

// spareWorkers are more than max-connections, which the listener bounds: fasthttp
// still counts a connection that has just closed.
const spareWorkers = 256

// stop closes the listener, lets requests under way end, and at the deadline
// cuts the connections that are left. It returns how many those were.
func (s *server) stop(deadline context.Context) (cut int) {
	// Before fasthttp does: it knows no listener until Serve got that far, and
	// would leave it open for a Serve that comes after.
	s.ln.Close()
	if s.http.ShutdownWithContext(deadline) == nil {
		return 0
	}
	cut = s.ln.closeAll()
	// Their handlers end now: reads and writes fail, and what waits for an ack
	// has a deadline of its own.
	limit := time.NewTimer(s.gateway.cfg.AckTimeout + time.Second)
	defer limit.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for s.active.Load() > 0 {
		select {
		case <-poll.C:
		case <-limit.C:
			s.gateway.log.Error("requests are still under way", "requests", s.active.Load())
			return cut
		}
	}
	return cut
}

// handle is one request.
func (s *server) handle(ctx *fasthttp.RequestCtx) {
	s.active.Add(1)
	x := s.gateway.acquire()
	defer func() {
		if p := recover(); p != nil {
			s.broken(ctx, x, p)
		}
		x.release()
		s.active.Add(-1)
	}()
	s.exchange(ctx, x)
}

// broken answers a request on which the program failed. One request is lost and
// not acked; the process and its other requests go on.
func (s *server) broken(ctx *fasthttp.RequestCtx, x *exchange, p any) {
	x.broken = true
	s.gateway.log.Error("request failed by a fault of the program", "path", strings.Clone(x.request.Path), "panic", p, "stack", string(debug.Stack()))
	s.fail(ctx, http.StatusInternalServerError, &ingest.Fault{Kind: ingest.Broken, Detail: "a fault of the gateway"})
	ctx.SetConnectionClose()
}

func (s *server) exchange(ctx *fasthttp.RequestCtx, x *exchange) {
	g := s.gateway
	h := &ctx.Request.Header
	x.headers.h = h
	r := &x.request
	r.Headers = &x.headers
	r.Method, r.Query = ingest.String(h.Method()), ingest.String(ctx.URI().QueryString())
	r.Path = ingest.TrimPath(ingest.String(ctx.URI().Path()))
	r.ReceivedAt = x.receivedAt()
	peer, _ := netip.AddrFromSlice(ctx.RemoteIP())
	r.RemoteIP = clientIP(peer, r.Headers, g.cfg.ForwardedHeader, g.proxies)
	x.held.address = networkOf(r.RemoteIP)

	if fault := framing(h.RawHeaders(), h.ContentLength() == -1); fault != nil {
		s.fail(ctx, http.StatusBadRequest, fault)
		ctx.SetConnectionClose()
		return
	}
	if r.Method == http.MethodOptions && g.router.Knows(r.Path) {
		s.preflight(ctx, x)
		return
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	candidates := g.router.Find(method, r.Path, x.key[:0])
	if candidates.Len() == 0 {
		s.noRoute(ctx, x)
		return
	}
	r.Bound(g.cfg.Limits.Bodies(candidates.Import()))
	var fault *ingest.Fault
	if stream := ctx.RequestBodyStream(); stream != nil {
		x.keyHeader = candidates.KeyHeader()
		fault = x.readBody(stream, h.ContentLength(), r.Header("Content-Encoding"))
		if !x.whole {
			x.drop()
			s.discard(ctx, stream)
		}
	}
	x.process(candidates, fault)
	s.write(ctx, x)
}

// discard reads what is left of a body that will not be used, so that the client
// comes to read the reply, and closes the connection where there is more than is
// worth reading.
func (s *server) discard(ctx *fasthttp.RequestCtx, rest io.Reader) {
	worth := 2 * int64(s.gateway.cfg.Limits.Bodies(false).Most())
	if _, err := io.CopyN(io.Discard, rest, worth); !errors.Is(err, io.EOF) {
		ctx.SetConnectionClose()
	}
}

// write copies the reply out.
func (s *server) write(ctx *fasthttp.RequestCtx, x *exchange) {
	w := &x.reply
	out := &ctx.Response
	out.SetStatusCode(w.Code())
	if len(w.Body) > 0 {
		if w.ContentType == "" {
			out.Header.SetContentType("application/json")
		} else {
			out.Header.SetContentType(w.ContentType)
		}
		out.SetBody(w.Body)
	}
	w.EachHeader(func(name, value string) { out.Header.Set(name, value) })
	if origin := x.request.Header("Origin"); origin != "" {
		app := x.batch.App()
		if app != nil && app.AllowsOrigin(origin) || app == nil && s.gateway.keys.Table().AllowsOrigin(origin) {
			allowOrigin(out, origin)
			out.Header.Set("Access-Control-Expose-Headers", "Retry-After")
		}
	}
}

// allowOrigin names the origin, which together with credentials must not be "*":
// some SDKs send with credentials and fail on it.
func allowOrigin(out *fasthttp.Response, origin string) {
	out.Header.Set("Access-Control-Allow-Origin", origin)
	out.Header.Set("Access-Control-Allow-Credentials", "true")
	out.Header.Add("Vary", "Origin")
}

// preflight answers the question that a browser asks before it sends. Which app
// it is about is not known yet.
func (s *server) preflight(ctx *fasthttp.RequestCtx, x *exchange) {
	x.batch.Begin(&x.request, &unbound)
	ctx.SetStatusCode(http.StatusNoContent)
	h := &ctx.Response.Header
	origin := x.request.Header("Origin")
	if origin != "" && s.gateway.keys.Table().AllowsOrigin(origin) {
		allowOrigin(&ctx.Response, origin)
		h.Add("Vary", "Access-Control-Request-Headers")
		h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, OPTIONS")
		if want := x.request.Header("Access-Control-Request-Headers"); want != "" {
			h.Set("Access-Control-Allow-Headers", want)
		}
		h.Set("Access-Control-Max-Age", "7200")
	}
	s.close(ctx)
	s.count(x, http.StatusNoContent)
}

// noRoute answers a path or a method that nobody has.
func (s *server) noRoute(ctx *fasthttp.RequestCtx, x *exchange) {
	x.batch.Begin(&x.request, &unbound)
	w := &x.reply
	code := "not_found"
	w.Status = http.StatusNotFound
	if s.gateway.router.Knows(x.request.Path) {
		code, w.Status = "method_not_allowed", http.StatusMethodNotAllowed
	}
	w.WriteString(`{"success":false,"error":{"code":"` + code + `","detail":`)
	w.WriteQuoted(ingest.Shorten(x.request.Method+" "+x.request.Path, 256))
	w.WriteString(`}}`)
	s.close(ctx)
	s.write(ctx, x)
	s.count(x, w.Status)
}

// close ends the connection of a request whose body nobody reads, if it has one.
func (s *server) close(ctx *fasthttp.RequestCtx) {
	if stream := ctx.RequestBodyStream(); stream != nil && ctx.Request.Header.ContentLength() != 0 {
		s.discard(ctx, stream)
	}
}

func (s *server) count(x *exchange, status int) {
	m := s.gateway.metrics
	p := m.protocol(noProtocol)
	m.answered(p, status, nil)
	p.seconds.Observe(s.gateway.now().Sub(x.received).Seconds())
}

// malformed answers what is not HTTP, or not in time, or has too long a header.
// The connection is closed after it.
func (s *server) malformed(ctx *fasthttp.RequestCtx, err error) {
	fault := &ingest.Fault{Kind: ingest.BadBody, Detail: "malformed HTTP request"}
	status := http.StatusBadRequest
	var small *fasthttp.ErrSmallBuffer
	slow := tooSlow(err, &s.gateway.cfg)
	switch {
	case errors.As(err, &small):
		status = http.StatusRequestHeaderFieldsTooLarge
		fault = &ingest.Fault{Kind: ingest.TooLarge, Setting: settingMaxHeaderBytes, Detail: "header too large, bound " + strconv.Itoa(s.gateway.cfg.MaxHeaderBytes)}
	case slow != nil:
		status, fault = slow.Kind.Status(), slow
	}
	s.fail(ctx, status, fault)
}

// fail answers where no protocol can.
func (s *server) fail(ctx *fasthttp.RequestCtx, status int, fault *ingest.Fault) {
	ctx.SetStatusCode(status)
	ctx.Response.Header.SetContentType("application/json")
	out := []byte(`{"success":false,"error":{"code":"` + fault.Kind.String() + `","detail":`)
	ctx.SetBody(append(ingest.AppendQuoted(out, fault.Error()), "}}"...))
	m := s.gateway.metrics
	m.answered(m.protocol(noProtocol), status, fault)
}

// headers shows fasthttp's header to protocols.
type headers struct{ h *fasthttp.RequestHeader }

// Get implements ingest.Headers.
func (h *headers) Get(name string) []byte { return h.h.Peek(name) }

// Each implements ingest.Headers.
func (h *headers) Each(fn func(name, value []byte)) {
	for name, value := range h.h.All() {
		fn(name, value)
	}
}

// logger takes what fasthttp has to say, which is about connections.
type logger struct{ log *slog.Logger }

// Printf implements fasthttp.Logger.
func (l logger) Printf(format string, args ...any) {
	l.log.Debug("http server", "message", strings.TrimSpace(fmt.Sprintf(format, args...)))
}
