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

// server is the HTTP server. It uses fasthttp, which takes half the CPU of net/http for
// a request with one event. Nothing outside this file depends on it.
type server struct {
	gateway *Gateway
	http    *fasthttp.Server
	ln      *listener
	active  atomic.Int64 // requests in progress
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
		ReadTimeout:                  g.cfg.ReadTimeout, // for a whole request, so that it also ends slow senders
		WriteTimeout:                 g.cfg.WriteTimeout,
		IdleTimeout:                  g.cfg.IdleTimeout,
		MaxRequestBodySize:           max(g.cfg.Limits.Bodies(false).Most(), g.cfg.Limits.Bodies(true).Most()),
		StreamRequestBody:            true, // the gateway reads bodies itself, within the bound on bytes in flight
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

// spareWorkers is added to max-connections, which the listener enforces: fasthttp still
// counts a connection that has just closed.
const spareWorkers = 256

// stop closes the listener, lets requests in progress end, and at the deadline closes
// the remaining connections. It returns how many those were.
func (s *server) stop(deadline context.Context) (cut int) {
	// Closed here and not by fasthttp: fasthttp does not know the listener before Serve
	// has registered it. If stop came first, it would leave the listener open, and the
	// later Serve would accept connections.
	s.ln.Close()
	if s.http.ShutdownWithContext(deadline) == nil {
		return 0
	}
	cut = s.ln.closeAll()
	// Their handlers end now: reads and writes fail, and waiting for acks has its own
	// deadline.
	limit := time.NewTimer(s.gateway.cfg.AckTimeout + time.Second)
	defer limit.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for s.active.Load() > 0 {
		select {
		case <-poll.C:
		case <-limit.C:
			s.gateway.log.Error("requests are still in progress", "requests", s.active.Load())
			return cut
		}
	}
	return cut
}

// handle serves one request.
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

// broken answers a request whose handler panicked. The request is not acked and its
// events are not stored; the process and its other requests continue.
func (s *server) broken(ctx *fasthttp.RequestCtx, x *exchange, p any) {
	x.broken = true
	s.gateway.log.Error("request handler panicked", "path", strings.Clone(x.request.Path), "panic", p, "stack", string(debug.Stack()))
	s.fail(ctx, http.StatusInternalServerError, &ingest.Fault{Kind: ingest.Broken, Detail: "internal error of the gateway"})
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

// discard reads the rest of a body that will not be used, so that the client gets to
// reading the reply. If too much is left, it closes the connection instead.
func (s *server) discard(ctx *fasthttp.RequestCtx, rest io.Reader) {
	worth := 2 * int64(s.gateway.cfg.Limits.Bodies(false).Most())
	if _, err := io.CopyN(io.Discard, rest, worth); !errors.Is(err, io.EOF) {
		ctx.SetConnectionClose()
	}
}

// write copies the reply to the HTTP response.
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

// allowOrigin echoes the origin. The header must not be "*" together with credentials:
// some SDKs send credentials, and browsers then refuse "*".
func allowOrigin(out *fasthttp.Response, origin string) {
	out.Header.Set("Access-Control-Allow-Origin", origin)
	out.Header.Set("Access-Control-Allow-Credentials", "true")
	out.Header.Add("Vary", "Origin")
}

// preflight answers a browser's preflight request. It does not name the app, so the
// answer depends on what any app allows.
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

// noRoute answers a path that no protocol serves, or a method that the path does not
// have.
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

// close closes the connection of a request whose body, if it has one, is not read.
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

// malformed answers a request that is not HTTP, arrived too late, or has too long a
// header, and closes the connection.
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

// fail answers a request that no protocol can answer.
func (s *server) fail(ctx *fasthttp.RequestCtx, status int, fault *ingest.Fault) {
	ctx.SetStatusCode(status)
	ctx.Response.Header.SetContentType("application/json")
	out := []byte(`{"success":false,"error":{"code":"` + fault.Kind.String() + `","detail":`)
	ctx.SetBody(append(ingest.AppendQuoted(out, fault.Error()), "}}"...))
	m := s.gateway.metrics
	m.answered(m.protocol(noProtocol), status, fault)
}

// headers gives protocols access to fasthttp's header.
type headers struct{ h *fasthttp.RequestHeader }

// Get implements ingest.Headers.
func (h *headers) Get(name string) []byte { return h.h.Peek(name) }

// Each implements ingest.Headers.
func (h *headers) Each(fn func(name, value []byte)) {
	for name, value := range h.h.All() {
		fn(name, value)
	}
}

// logger receives fasthttp's log lines, which are about connections.
type logger struct{ log *slog.Logger }

// Printf implements fasthttp.Logger.
func (l logger) Printf(format string, args ...any) {
	l.log.Debug("http server", "message", strings.TrimSpace(fmt.Sprintf(format, args...)))
}
