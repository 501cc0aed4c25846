package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/keys"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

func TestKeyCommands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	text := fmt.Sprintf(`# Keys of the shop.
apps:
  - id: shop # production
    keys:
      - %q # the website
    rate: 100
  - id: lab
    keys: none
...
`, keys.HashOf("first"))
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	command := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if err := keyCommands(noEnv, &out, io.Discard, now).Run(append([]string{args[0], "-keys", path}, args[1:]...), &out, io.Discard); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out.String()
	}
	made := regexp.MustCompile(`\(shown this once\): (uk_\S+)\nid of the key: ([0-9a-f]{8})\n`)
	add := func(args ...string) (key, id string) {
		t.Helper()
		m := made.FindStringSubmatch(command(args...))
		if m == nil {
			t.Fatalf("%v shows no key", args)
		}
		return m[1], m[2]
	}
	table := func() *keys.Table {
		t.Helper()
		table, err := keys.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		return table
	}

	first := keys.HashOf("first").ID()
	second, secondID := add("rotate", "-app", "shop", "-key", first, "-overlap", "48h")
	if old := table().App("first"); old == nil || old.Key.Expires != now.Add(48*time.Hour).UnixMicro() || old.RatePerSecond != 100 {
		t.Errorf("the key that was rotated: %+v", old)
	}
	if fresh := table().App(second); fresh == nil || fresh.ID != "shop" || fresh.Key.Expires != 0 {
		t.Errorf("the key in its place: %+v", fresh)
	}
	beacon, beaconID := add("add", "-app", "lab", "-expires-in", "720h", "-protocols", "otlp,posthog", "-origins", "https://lab.example.com", "-rate", "5", "-daily-quota", "1000", "-note", "beacon")
	if got := table().App(beacon); got == nil || len(got.Key.Protocols) != 2 || got.Key.Burst != 10 || got.Key.DailyQuota != 1000 || got.AllowsOrigin("https://other.example.com") {
		t.Errorf("a key with terms: %+v", got)
	}
	list := command("list")
	for _, want := range []string{
		`shop +` + first + ` +active +2026-12-02T12:00:00Z +app's`,
		`shop +` + secondID + ` +active +never`,
		`lab +` + beaconID + ` +active +2026-12-30T12:00:00Z +otlp,posthog +https://lab.example.com +5 +1000 +bounded +beacon`,
	} {
		if !regexp.MustCompile(want).MatchString(list) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	if strings.Contains(list, second) || strings.Contains(list, beacon) {
		t.Errorf("the list shows a key:\n%s", list)
	}
	now = now.Add(49 * time.Hour)
	if list := command("list"); !regexp.MustCompile(first + ` +expired`).MatchString(list) {
		t.Errorf("got\n%s", list)
	}
	command("revoke", "-app", "shop", "-key", first)
	command("revoke", "-app", "lab", "-key", beaconID)
	if tab := table(); tab.App("first") != nil || tab.App(beacon) != nil || tab.App(second) == nil || len(tab.Apps()) != 2 {
		t.Errorf("after revoking: %+v", tab)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# Keys of the shop.", "# production", "keys: none", "\n...\n"} {
		if !strings.Contains(string(after), want) {
			t.Errorf("the file lost %q:\n%s", want, after)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file's mode: %v, %v", info.Mode(), err)
	}
}

func TestKeyCommandsRefuse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.yaml")
	text := fmt.Sprintf("apps:\n  - {id: a, keys: [%q], origins: [https://a.example]}\n...\n", keys.HashOf("k"))
	reset := func() {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ args, want string }{
		{"add -app b", "app b is not in the file"},
		{"add -app a -protocols segmnt", `"segmnt" is none of`},
		{"add -app a -origins https://b.example", "does not allow"},
		{"add -app a -burst 3", "needs a rate"},
		{"revoke -app a -key 00000000", "no key 00000000"},
		{"rotate -app a", "no key"},
	} {
		reset()
		args := strings.Fields(tc.args)
		err := keyCommands(noEnv, io.Discard, io.Discard, time.Now()).Run(append([]string{args[0], "-keys", path}, args[1:]...), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.args, err, tc.want)
		}
		if after, _ := os.ReadFile(path); string(after) != text {
			t.Errorf("%s changed the file:\n%s", tc.args, after)
		}
		if left, _ := filepath.Glob(path + ".*"); left != nil {
			t.Errorf("%s left %v", tc.args, left)
		}
	}
	reset()
	if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Add(path, "a", keys.Terms{}); err == nil || !strings.Contains(err.Error(), "another edit") {
		t.Errorf("two edits at once: got %v", err)
	}
	for _, args := range [][]string{nil, {"fly"}, {"new", "x"}, {"list", "-no-such-flag"}} {
		if err := keyCommands(noEnv, io.Discard, io.Discard, time.Now()).Run(args, io.Discard, io.Discard); !errors.Is(err, process.ErrUsage) {
			t.Errorf("%v: got %v, want a usage error", args, err)
		}
	}
}
