package ops

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

func TestServer(t *testing.T) {
	reg := NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_test_total"})
	reg.MustRegister(c)
	c.Add(3)
	var health Health
	s, err := Listen("127.0.0.1:0", Handler(reg, &health), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + s.Addr()
	if code, body := get(t, base+"/metrics"); code != 200 || !strings.Contains(body, "uptake_test_total 3") || !strings.Contains(body, "go_goroutines") ||
		!strings.Contains(body, `go_version="`+runtime.Version()) {
		t.Errorf("/metrics: %d, %.200s", code, body)
	}
	if code, body := get(t, base+"/healthz"); code != 200 || body != "ok" {
		t.Errorf("/healthz: %d %s", code, body)
	}
	health.Register("kafka", func() error { return nil })
	if code, body := get(t, base+"/readyz"); code != 200 || body != `{"ready":true}` {
		t.Errorf("/readyz: %d %s", code, body)
	}
	health.Register("clickhouse", func() error { return errors.New("connection refused") })
	health.Note("lag", func() string { return "" })
	if code, body := get(t, base+"/readyz"); code != 503 || body != `{"ready":false,"faults":[{"part":"clickhouse","reason":"connection refused"}]}` {
		t.Errorf("/readyz: %d %s", code, body)
	}
	lag := NewLag(slog.New(slog.DiscardHandler), 100)
	lag.Set("a/1", 7)
	lag.Set("a/0", 0)
	health.Note("lag", lag.String)
	health.Register("clickhouse", func() error { return nil })
	if code, body := get(t, base+"/readyz"); code != 200 || body != `{"ready":true,"notes":{"lag":"7 records behind in 2 partitions, 7 of them in a/1"}}` {
		t.Errorf("/readyz with a lag: %d %s", code, body)
	}
	if code, _ := get(t, base+"/debug/pprof/goroutine?debug=1"); code != 200 {
		t.Errorf("/debug/pprof/goroutine: %d", code)
	}
	if _, err := Listen(s.Addr(), Handler(reg, &health), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "metrics-addr") {
		t.Errorf("second listener on one address: %v", err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestProfilesAreForThisHost(t *testing.T) {
	h := Handler(prometheus.NewRegistry(), &Health{})
	for _, tc := range []struct {
		from, host string
		want       int
	}{
		{"127.0.0.1:5000", "127.0.0.1:9101", 200},
		{"127.0.0.1:5000", "localhost:9101", 200},
		{"[::1]:5000", "[::1]:9101", 200},
		{"[::ffff:127.0.0.1]:5000", "127.0.0.1", 200},
		{"10.0.0.7:5000", "10.0.0.8:9101", 403},
		{"127.0.0.6:5000", "10.0.0.8:9101", 403}, // a mesh's proxy, for another host
		{"127.0.0.1:5000", "rebound.example:9101", 403},
		{"", "localhost", 403},
	} {
		for path, want := range map[string]int{"/debug/pprof/goroutine?debug=1": tc.want, "/debug/pprof/cmdline": tc.want, "/metrics": 200, "/healthz": 200} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.RemoteAddr, r.Host = tc.from, tc.host
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s from %q to %q: got %d, want %d", path, tc.from, tc.host, w.Code, want)
			}
		}
	}
}

func TestCommandLineHasNoValues(t *testing.T) {
	args := []string{"enricher", "serve", "-kafka-sasl-password=hunter2", "--clickhouse-password", "-hunter3", "-check"}
	got := strings.Join(withoutValues(args), " ")
	if want := "enricher -kafka-sasl-password --clickhouse-password -check"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/debug/pprof/cmdline", nil)
	r.RemoteAddr, r.Host = "127.0.0.1:1", "127.0.0.1"
	Handler(NewRegistry(), &Health{}).ServeHTTP(w, r)
	if body := w.Body.String(); !strings.Contains(body, os.Args[0]) || strings.Contains(body, "=") {
		t.Errorf("command line is %q", body)
	}
}
