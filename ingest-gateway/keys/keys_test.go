package keys

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

func TestParse(t *testing.T) {
	text := fmt.Sprintf(`
apps:
  - id: shop-prod
    keys: ["%s", "%s"]
    origins: [https://shop.example.com]
    rate: 100.5
    daily_quota: 1000000
    account_keys: [org, company.id]
    quantity_key: count
    ip: full
  - id: shop.dev
    keys: ["%s"]
  - id: shop.old
    keys: none
...
`, HashOf("one"), HashOf("two"), HashOf("three"))
	table, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := &ingest.App{
		ID: "shop-prod", AllowedOrigins: []string{"https://shop.example.com"}, RatePerSecond: 100.5, Burst: 201, DailyQuota: 1_000_000,
		AccountKeys: []string{"org", "company.id"}, QuantityKey: "count", IPMode: ingest.IPFull,
	}
	for _, key := range []string{"one", "two"} {
		if got := table.App(key); !reflect.DeepEqual(got, want) {
			t.Errorf("key %s: got %+v, want %+v", key, got, want)
		}
	}
	if got := table.App("three"); got == nil || !reflect.DeepEqual(*got, ingest.App{ID: "shop.dev", IPMode: ingest.IPTruncated}) {
		t.Errorf("got %+v", got)
	}
	if got := table.App("four"); got != nil {
		t.Errorf("unknown key gives %+v", got)
	}
	if !table.AllowsOrigin("https://any.example") {
		t.Error("an app without origins allows all")
	}
}

func TestParseReportsAllFaults(t *testing.T) {
	for _, tc := range []struct {
		text string
		want []string
	}{
		{"apps: []\n", []string{"there are none"}},
		{"apps:\n  - id: a\n    colour: red\n", []string{"colour"}},
		{
			"apps:\n  - id: 'a b'\n    keys: [secret-key-in-the-clear]\n    rate: -1\n    burst: -2\n    daily_quota: -3\n    ip: some\n    origins: [example.com]\n    account_keys: ['']\n",
			[]string{"id must be", "an entry of 23 characters", "rate must be", "burst must be", "daily_quota", "ip must be", "no origin", "empty name"},
		},
		{"apps:\n  - id: a\n    keys: []\n", []string{"app a: has no keys"}},
		{
			fmt.Sprintf("apps:\n  - id: a\n    keys: ['%s']\n  - id: a\n    keys: ['%s']\n", HashOf("k"), HashOf("k")),
			[]string{"id is declared twice", "is also of app a"},
		},
	} {
		_, err := Parse([]byte(tc.text + "...\n"))
		for _, w := range tc.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%q: got %v, want %q in it", tc.text, err, w)
			}
		}
		if err != nil && strings.Contains(err.Error(), "in-the-clear") {
			t.Errorf("error shows a key: %v", err)
		}
	}
}

func TestOrigins(t *testing.T) {
	table, err := Parse([]byte(fmt.Sprintf("apps:\n  - id: a\n    keys: ['%s']\n    origins: ['https://a.example:8443']\n...\n", HashOf("k"))))
	if err != nil {
		t.Fatal(err)
	}
	for origin, want := range map[string]bool{"https://a.example:8443": true, "https://a.example": false, "null": false} {
		if got := table.AllowsOrigin(origin); got != want {
			t.Errorf("%s: got %v, want %v", origin, got, want)
		}
		if got := table.App("k").AllowsOrigin(origin); got != want {
			t.Errorf("app, %s: got %v, want %v", origin, got, want)
		}
	}
}

func TestReloadKeepsTheOldTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := func(key string) string { return fmt.Sprintf("apps:\n  - id: a\n    keys: ['%s']\n...\n", HashOf(key)) }
	write(good("one"))
	s, err := Open(path, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	step := func(name string, change func(), wantUsed, wantErr bool, refused float64, keys ...string) {
		t.Helper()
		change()
		used, err := s.Reload()
		if used != wantUsed || (err != nil) != wantErr {
			t.Errorf("%s: got %v, %v", name, used, err)
		}
		for _, key := range []string{"one", "two", "three"} {
			known := s.App(key) != nil
			want := strings.Contains(strings.Join(keys, " "), key)
			if known != want {
				t.Errorf("%s: key %s known: %v, want %v", name, key, known, want)
			}
		}
		if got := testutil.ToFloat64(s.metrics.reloads.WithLabelValues("refused")); got != refused {
			t.Errorf("%s: got %v refused, want %v", name, got, refused)
		}
		if got := testutil.ToFloat64(s.metrics.stale) == 1; got != wantErr {
			t.Errorf("%s: stale is %v, want %v", name, got, wantErr)
		}
	}
	step("unchanged", func() {}, false, false, 0, "one")
	step("rotated", func() { write(good("two")) }, true, false, 0, "two")
	step("bad", func() { write("apps: [") }, false, true, 1, "two")
	step("still bad", func() {}, false, true, 1, "two")
	step("gone", func() { os.Remove(path) }, false, true, 2, "two")
	step("back", func() { write(good("two")) }, true, false, 2, "two")
	step("good again", func() { write(good("three")) }, true, false, 2, "three")
	step("empty", func() { write("") }, false, true, 3, "three")
	step("cut short", func() { write(strings.TrimSuffix(good("one"), "...\n")) }, false, true, 4, "three")
	step("without the app", func() { write(strings.Replace(good("one"), "id: a", "id: b", 1)) }, false, true, 5, "three")
	step("said", func() { write("apps:\n  - {id: a, keys: none}\n...\n") }, true, false, 5)
}

// No beginning of a good file is a good file: it would be one with fewer apps.
func TestCutOffFiles(t *testing.T) {
	sample, err := os.ReadFile("../../deploy/compose/keys.yaml")
	if err != nil {
		t.Fatal(err)
	}
	two := fmt.Sprintf("apps:\n  - id: a\n    keys: [%q]\n    rate: 10\n  - id: b\n    keys:\n      - %s\n      - %s\n    ip: none\n...\n", HashOf("1"), HashOf("2"), HashOf("3"))
	for _, text := range []string{string(sample), two} {
		if _, err := Parse([]byte(text)); err != nil {
			t.Error(err)
		}
		for i := range len(text) {
			if _, err := Parse([]byte(text[:i])); err == nil {
				t.Errorf("the first %d bytes of %d pass:\n%s", i, len(text), text[:i])
			}
		}
	}
}

func TestNewKeys(t *testing.T) {
	a, b := New(), New()
	if a == b || len(a) != 35 || !strings.HasPrefix(a, "uk_") {
		t.Errorf("got %q and %q", a, b)
	}
}

func BenchmarkApp(b *testing.B) {
	const key = "uk_0123456789012345678901234567890123"
	table, err := Parse([]byte(fmt.Sprintf("apps:\n  - id: a\n    keys: ['%s']\n...\n", HashOf(key))))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(key)))
	for b.Loop() {
		if table.App(key) == nil {
			b.Fatal("unknown")
		}
	}
}

func TestNoIDs(t *testing.T) {
	const text = `
apps:
  - {id: a, keys: ["sha256:%064d"], no_ids: [Kiosk]}
  - {id: b, keys: ["sha256:%063d1"], no_ids: []}
  - {id: c, keys: ["sha256:%063d2"]}
...
`
	table, err := Parse(fmt.Appendf(nil, text, 0, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := table.Apps()[0].NoIDs, table.Apps()[1].NoIDs, table.Apps()[2].NoIDs
	if !a.None("KIOSK") || a.None("null") || b == nil || b.None("null") || c != nil {
		t.Errorf("got lists %v, %v, %v", a, b, c)
	}
	if _, err := Parse(fmt.Appendf(nil, strings.Replace(text, "[Kiosk]", `[" "]`, 1), 0, 0, 0)); err == nil || !strings.Contains(err.Error(), "no_ids") {
		t.Errorf("a blank text: got %v", err)
	}
}

func TestScopes(t *testing.T) {
	text := fmt.Sprintf(`
apps:
  - id: a
    keys:
      - %q
      - {hash: %q, expires: 2027-01-31, protocols: [segment], rate: 1.5}
      - {hash: %q, expires: 2027-01-31T12:00:00+02:00, origins: [https://a.example], daily_quota: 7, note: kiosk}
      - {hash: %q, history: true}
    rate: 100
...
`, HashOf("1"), HashOf("2"), HashOf("3"), HashOf("4"))
	table, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	micros := func(s string) int64 {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return at.UnixMicro()
	}
	for key, want := range map[string]ingest.Scope{
		"1": {},
		"2": {ID: HashOf("2").ID(), Expires: micros("2027-01-31T00:00:00Z"), Protocols: []string{"segment"}, RatePerSecond: 1.5, Burst: 3},
		"3": {ID: HashOf("3").ID(), Expires: micros("2027-01-31T10:00:00Z"), DailyQuota: 7},
		"4": {ID: HashOf("4").ID(), History: true},
	} {
		if got := table.App(key); got == nil || !reflect.DeepEqual(got.Key, want) || got.ID != "a" || got.RatePerSecond != 100 {
			t.Errorf("key %s: got %+v, want %+v", key, got, want)
		}
	}
	if got := table.App("3"); got.AllowsOrigin("https://b.example") || !got.AllowsOrigin("https://a.example") {
		t.Error("origins of the key do not count")
	}
	for part, want := range map[string]string{
		"expires: tomorrow":   "no date",
		"expire: 2027-01-31":  "field expire not found",
		"protocols: [segmnt]": "is none of",
		"origins: [a]":        "no origin",
		"rate: -1":            "rate must be",
		"daily_quota: -1":     "daily_quota must be",
		"history: 2019":       "cannot unmarshal",
	} {
		_, err := Parse(fmt.Appendf(nil, "apps:\n  - id: a\n    keys: [{hash: %q, %s}]\n...\n", HashOf("1"), part))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", part, err, want)
		}
	}
}
