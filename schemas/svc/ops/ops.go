// Package ops serves the endpoints for operators: Prometheus metrics, liveness,
// readiness and profiles.
//
// It owns the HTTP server on the metrics address and the list of readiness checks. The
// checks themselves and the metrics belong to the packages that register them.
package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/uptakehq/uptake/schemas/svc/process"
)

// NewRegistry returns a registry with the Go runtime's and the process's metrics,
// and uptake_build_info, which is 1 and whose labels say what the binary is.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := process.ReadBuild()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "uptake_build_info", Help: "1; the labels say which version and commit the binary was built from, and with which Go.",
		ConstLabels: prometheus.Labels{"version": build.Version, "commit": build.Commit, "go_version": build.Go},
	})
	info.Set(1)
	r.MustRegister(info)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Check returns the reason why a part is not ready, or nil. It must answer at once: it
// reads known state and sends no requests.
type Check func() error

// Health is the set of a service's readiness checks. The zero value is ready
// for use.
type Health struct {
	mu     sync.Mutex // covers checks and notes
	checks map[string]Check
	notes  map[string]func() string
}

// Note adds a text to what /readyz answers, ready or not; a later one of the same
// name replaces it, and an empty text is left out. It must answer at once, as a check.
func (h *Health) Note(name string, text func() string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.notes == nil {
		h.notes = map[string]func() string{}
	}
	h.notes[name] = text
}

// Notes are the texts by name, without empty ones.
func (h *Health) Notes() map[string]string {
	h.mu.Lock()
	notes := maps.Clone(h.notes)
	h.mu.Unlock()
	texts := map[string]string{}
	for n, text := range notes {
		if t := text(); t != "" {
			texts[n] = t
		}
	}
	return texts
}

// Register adds a check under a name; a later one of the same name replaces it.
func (h *Health) Register(name string, c Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checks == nil {
		h.checks = map[string]Check{}
	}
	h.checks[name] = c
}

// Ready runs every check and returns the faults by name.
func (h *Health) Ready() map[string]string {
	h.mu.Lock()
	checks := make(map[string]Check, len(h.checks))
	for n, c := range h.checks {
		checks[n] = c
	}
	h.mu.Unlock()
	faults := map[string]string{}
	for n, c := range checks {
		if err := c(); err != nil {
			faults[n] = err.Error()
		}
	}
	return faults
}

// Handler serves /metrics, /healthz, /readyz and /debug/pprof/. /readyz answers
// 200 and {"ready":true}, or 503 and what is not ready and why, and in both cases the
// notes of health, such as how far behind the service is. Profiles show
// memory and cost CPU, so they are served only to clients on the same host (see
// [local]); `kubectl port-forward` is one, and asks for Kubernetes' permission.
func Handler(metrics prometheus.Gatherer, health *Health) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		faults := health.Ready()
		w.Header().Set("Content-Type", "application/json")
		if len(faults) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		type fault struct {
			Part   string `json:"part"`
			Reason string `json:"reason"`
		}
		list := []fault{}
		for n, why := range faults {
			list = append(list, fault{n, why})
		}
		sort.Slice(list, func(i, j int) bool { return list[i].Part < list[j].Part })
		_ = json.NewEncoder(w).Encode(struct { // fails only when the client is gone
			Ready  bool    `json:"ready"`
			Faults []fault `json:"faults,omitempty"`
			// encoding/json sorts the keys.
			Notes map[string]string `json:"notes,omitempty"`
		}{len(list) == 0, list, health.Notes()})
	})
	profiles := http.NewServeMux()
	profiles.HandleFunc("/debug/pprof/", pprof.Index)
	profiles.HandleFunc("/debug/pprof/cmdline", cmdline)
	profiles.HandleFunc("/debug/pprof/profile", pprof.Profile)
	profiles.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	profiles.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/", func(w http.ResponseWriter, r *http.Request) {
		if !local(r) {
			http.Error(w, "profiles are served to clients on this host only: use a port-forward or a tunnel", http.StatusForbidden)
			return
		}
		profiles.ServeHTTP(w, r)
	})
	return mux
}

// local reports whether a request comes from this host. Only the two usual loopback
// addresses count: service meshes deliver requests of other hosts from other addresses
// of 127.0.0.0/8. A Host that is a name was not typed by an operator but resolved by a
// browser for some page.
func local(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	if a := from.Addr().Unmap(); a != netip.AddrFrom4([4]byte{127, 0, 0, 1}) && a != netip.IPv6Loopback() {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, err = netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil
}

// cmdline is pprof's, without the values of flags: they may be secrets.
func cmdline(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, strings.Join(withoutValues(os.Args), "\x00"))
}

// withoutValues returns the program and the names of its flags. The argument after a
// flag may be its value, even if it looks like a flag.
func withoutValues(args []string) []string {
	out := args[:min(1, len(args)):min(1, len(args))]
	for i := len(out); i < len(args); i++ {
		name, _, whole := strings.Cut(args[i], "=")
		if !strings.HasPrefix(name, "-") {
			continue
		}
		out = append(out, name)
		if !whole {
			i++
		}
	}
	return out
}

// Server is the HTTP server on the metrics address.
type Server struct {
	ln   net.Listener
	http *http.Server
	done chan struct{} // closed when serving has ended
}

// Listen serves handler on addr until Close. An empty addr gives a server that
// serves nothing.
func Listen(addr string, handler http.Handler, logger *slog.Logger) (*Server, error) {
	if addr == "" {
		return &Server{}, nil
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics-addr: %w", err)
	}
	s := &Server{ln: ln, http: &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}, done: make(chan struct{})}
	go func() { // ends with Close
		defer close(s.done)
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("metrics server failed", "addr", addr, "error", err)
		}
	}()
	return s, nil
}

// Addr returns the address that is listened on, or "".
func (s *Server) Addr() string {
	if s.ln == nil {
		return ""
	}
	return s.ln.Addr().String()
}

// Close ends the server and waits for it.
func (s *Server) Close(ctx context.Context) error {
	if s.http == nil {
		return nil
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return err
}
