package privacy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// No beginning of a good file is a good file: it would be one with fewer rules.
func TestCutOffFiles(t *testing.T) {
	sample, err := os.ReadFile("../../deploy/compose/privacy/privacy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Without its last line every one of these has beginnings that are valid YAML.
	for name, text := range map[string]string{
		"sample": string(sample),
		"block":  "hash_keys: [{id: k1, secret: 0123456789abcdef}]\napps:\n  none-of-it: none # kept\n  a:\n" + everyRule + "\n  b:\n    ip: none\n  c: none\n...\n",
		"flow":   "hash_keys: [{id: k1, secret: 0123456789abcdef}]\napps: {a: {ip: none}, b: none,\n  c: none}\n...\n",
		"CRLF":   "apps:\r\n  a: {ip: none}\r\n  b: {user_agent: drop}\r\n...\r\n",
	} {
		if _, err := Parse([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i := range len(text) {
			if _, err := Parse([]byte(text[:i])); err == nil {
				t.Errorf("%s: the first %d bytes of %d pass:\n%s", name, i, len(text), text[:i])
			}
		}
	}
	// The lists that rules name, too.
	path, list := filepath.Join(t.TempDir(), "out.txt"), "# who\nuser u1\naccount a2\n...\n"
	for i := range len(list) + 1 {
		if err := os.WriteFile(path, []byte(list[:i]), 0o600); err != nil {
			t.Fatal(err)
		}
		var o OptOut
		if err := o.read(path); (err == nil) != (i == len(list)) {
			t.Errorf("list: the first %d bytes of %d: got %v", i, len(list), err)
		}
	}
}

func TestFilesWithoutRules(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "empty",
		"...\n":                              "says nothing",
		"hash_keys: []\n...\n":               "apps is missing",
		"apps:\n...\n":                       "apps is missing",
		"apps: 1\n...\n":                     "cannot unmarshal",
		"apps: {a}\n...\n":                   "apps.a says nothing",
		"apps: {a: {}}\n...\n":               "apps.a says nothing",
		"apps: {a: nothing}\n...\n":          "cannot unmarshal",
		"apps: {a: 'none'}\n...\n":           "cannot unmarshal",
		"apps: {a: !x none}\n...\n":          "cannot unmarshal",
		"apps: {a: none, a: none}\n...\n":    "already defined",
		"apps: {}\n...\n":                    "",
		"apps: {a: none}\n...\n":             "",
		"apps: {ä: none, b: none}\n...\n":    "",
		"apps: {a: none, b: &n none}\n...\n": "the word none alone",
	} {
		p, err := Parse([]byte(text))
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q in it", text, err, want)
		}
		if err == nil && p.App("a") != nil && !p.App("a").empty() {
			t.Errorf("%q: got rules", text)
		}
	}
}

// An app loses its rules only by the word for it.
func TestRulesAreNotLost(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "privacy.yaml")
	put := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	put("apps: {a: {ip: none}, b: {user_agent: drop}, c: none}\n...\n")
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan error), make(chan struct{})
	go func() { // ends with cancel
		defer close(done)
		f.Follow(ctx, time.Millisecond, func(err error) { told <- err })
	}()
	for _, tc := range []struct{ text, want string }{
		{"", "empty"},
		{"apps: {a: {ip: none}}\n", "does not end"},
		{"apps: {a: {ip: none}}\n...\n", "no rules are left of b"},
		{"apps: {}\n...\n", "no rules are left of a, b"},
		{"apps: {a: {ip: full}, b: {user_agent: keep}}\n...\n", "no rules are left of a, b"},
		{"apps: {a: {ip: none}, b: {user_agent: drop}, c: {ip: none}}\n...\n", ""},
		{"apps: {a: {ip: truncated}, b: none, c: {ip: none}}\n...\n", ""},
	} {
		put(tc.text)
		err := <-told
		if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%q: got %v, want %q in it", tc.text, err, tc.want)
		}
		if err != nil && (f.Policy().App("a").UserAgent("x") != "x" || f.Policy().App("a").IP("10.1.2.3") != "" || f.Policy().App("b").UserAgent("x") != "") {
			t.Errorf("%q: refused, and the rules before are not in force", tc.text)
		}
	}
	if got := f.Policy().App("b").UserAgent("x"); got != "x" {
		t.Errorf("none: got %q", got)
	}
	cancel()
	<-done
}

// A file that is written over in place is read when it stands still.
func TestFileThatIsStillChanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // by the bubble's clock, which a slow machine does not stop
		path := filepath.Join(t.TempDir(), "privacy.yaml")
		text := func(i int) []byte { return []byte("# " + strings.Repeat("x", i) + "\napps: {a: {ip: none}}\n...\n") }
		if err := os.WriteFile(path, text(0), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		reads, done := 0, make(chan struct{})
		stopped := make(chan struct{})
		go func() { // ends with cancel
			defer close(done)
			f.Follow(ctx, 50*time.Millisecond, func(error) {
				reads++
				cancel()
			})
		}()
		go func() { // ends by itself
			defer close(stopped)
			for i := range 60 {
				if err := os.WriteFile(path, text(i), 0o600); err != nil {
					t.Error(err)
				}
				time.Sleep(5 * time.Millisecond)
				if ctx.Err() != nil {
					t.Error("read while it was written")
				}
			}
		}()
		<-stopped
		<-done
		if reads != 1 {
			t.Errorf("got %d reads, want 1", reads)
		}
	})
}
