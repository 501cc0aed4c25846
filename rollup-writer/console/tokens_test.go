package console

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A program's token asks about its own app and nothing else.
func TestAppTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, fmt.Appendf(nil, "# metering\ndev sha256:%x\n\nother sha256:%x\n", sha256.Sum256([]byte("of dev")), sha256.Sum256([]byte("of other"))), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, func(c *Config, _ *Dependencies) { c.AppTokens = path })
	s.insert(usage{"shop", "user", "u", "scan", "Scan", today.AddDate(0, 0, -20)}, usage{"shop", "user", "u", "scan", "Scan", today})
	const question = "/api/v1/summary?app=dev"
	for name, tt := range map[string]struct {
		token, method, target string
		want                  int
	}{
		"its own app":            {"of dev", http.MethodGet, question, 200},
		"another app":            {"of other", http.MethodGet, question, 401},
		"two apps":               {"of dev", http.MethodGet, question + "&app=other", 401},
		"its app second":         {"of dev", http.MethodGet, "/api/v1/summary?app=other&app=dev", 401},
		"no app":                 {"of dev", http.MethodGet, "/api/v1/summary", 401},
		"the list of apps":       {"of dev", http.MethodGet, "/api/v1/apps?app=dev", 401},
		"a page":                 {"of dev", http.MethodGet, "/overview?app=dev", 401},
		"the live events":        {"of dev", http.MethodGet, "/live/events?app=dev", 401},
		"an unknown token":       {"of de", http.MethodGet, question, 401},
		"no token":               {"", http.MethodGet, question, 401},
		"the hash for the token": {fmt.Sprintf("%x", sha256.Sum256([]byte("of dev"))), http.MethodGet, question, 401},
	} {
		w := s.do(func(r *http.Request) { r.Method = tt.method; r.Header.Set("Authorization", "Bearer "+tt.token) }, tt.target)
		if w.Code != tt.want {
			t.Errorf("%s: got %d, want %d", name, w.Code, tt.want)
		}
	}
	// A period that is over says so, and has what counted in it.
	for query, want := range map[string]struct {
		events float64
		closed bool
	}{"p=10d": {1, false}, "p=10d&until=2026-11-05": {1, true}, "p=10d&until=2026-11-20": {0, true}, "p=30d&until=2026-11-21": {2, false}} {
		a := s.ask("summary", query)
		if got := a.Rows[0]["events"]; got != want.events || a.Closed != want.closed {
			t.Errorf("%s: %v events, closed %v; want %+v", query, got, a.Closed, want)
		}
	}
	if w := s.do(nil, "/overview?app=dev&until=2026-11-05"); w.Code != http.StatusBadRequest {
		t.Errorf("a page with until: got %d", w.Code)
	}
	for _, until := range []string{"2026-11-22", "yesterday", "0001-01-01", "2026-02-30"} {
		if w := s.do(nil, question+"&until="+until); w.Code != http.StatusBadRequest {
			t.Errorf("until=%s at %s: got %d", until, today.Format(time.DateOnly), w.Code)
		}
	}
}

func TestAppTokensFileIsChecked(t *testing.T) {
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("x")))
	for text, want := range map[string]string{
		"dev":                           "line 1 must be",
		"\ndev a-plain-token":           "line 2 must be",
		"dev sha256:abc":                "line 1 must be",
		"dev other " + sum:              "line 1 must be",
		"dev " + sum + "\nother " + sum: "line 2 names the token",
		"dev " + sum + "\nother " + strings.ToUpper(sum[7:]): "line 2 must be",
	} {
		path := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readAppTokens(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
