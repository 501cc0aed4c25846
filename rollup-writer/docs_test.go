package main

import (
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/rollup"
)

var update = flag.Bool("update", false, "write the generated tables of DESIGN.md")

// rowsOf returns the rows of the first table below a heading, and what is around
// them.
func rowsOf(t *testing.T, text, heading string) (before, rows, after string) {
	t.Helper()
	_, below, ok := strings.Cut(text, "\n## "+heading+"\n")
	i := strings.Index(below, "\n|---|")
	if !ok || i < 0 {
		t.Fatalf("DESIGN.md has no table in section %q", heading)
	}
	start := len(text) - len(below) + i + 1
	start += strings.IndexByte(text[start:], '\n') + 1
	end := start
	for end < len(text) && text[end] == '|' {
		end += strings.IndexByte(text[end:], '\n') + 1
	}
	return text[:start], text[start:end], text[end:]
}

// Settings, metrics and pinned settings are listed as the code has them.
func TestDesignListsWhatTheCodeHas(t *testing.T) {
	raw, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for heading, want := range map[string]string{
		"Settings": settingRows(), "Metrics": metricRows(t), "Settings that every insert pins": pinnedRows(),
	} {
		before, have, after := rowsOf(t, text, heading)
		switch {
		case have == want:
		case *update:
			text = before + want + after
		default:
			t.Errorf("section %q of DESIGN.md differs from the code: go test -run Design -update .\nhave:\n%s\nwant:\n%s", heading, have, want)
		}
	}
	if *update {
		if err := os.WriteFile("DESIGN.md", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func settingRows() string {
	c := &invocation{stderr: io.Discard}
	set := c.flags("serve")
	var b strings.Builder
	set.VisitAll(func(f *flag.Flag) {
		if strings.HasPrefix(f.Name, "kafka-") || strings.HasPrefix(f.Name, "schema-registry") || strings.HasPrefix(f.Name, "log-") {
			return
		}
		_, what := flag.UnquoteUsage(f)
		value := ""
		if f.DefValue != "" {
			value = "`" + f.DefValue + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, value, what)
	})
	return b.String()
}

func pinnedRows() string {
	var b strings.Builder
	for _, s := range clickhouse.Pinned {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", s.Name, s.Value, s.Why)
	}
	return b.String()
}

// kept is a registerer that keeps what is registered with it.
type kept []prometheus.Collector

func (k *kept) Register(c prometheus.Collector) error   { *k = append(*k, c); return nil }
func (k *kept) MustRegister(cs ...prometheus.Collector) { *k = append(*k, cs...) }
func (k *kept) Unregister(prometheus.Collector) bool    { return false }

var descriptor = regexp.MustCompile(`fqName: "([^"]*)", help: "((?:[^"\\]|\\.)*)".*variableLabels: \{([^}]*)\}`)

func metricRows(t *testing.T) string {
	t.Helper()
	var all kept
	if _, err := rollup.New(rollup.DefaultConfig(), rollup.Dependencies{Metrics: &all}); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, c := range all {
		descs := make(chan *prometheus.Desc, 8)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			m := descriptor.FindStringSubmatch(d.String())
			if m == nil {
				t.Fatalf("cannot read %s", d)
			}
			rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |\n", m[1], strings.ReplaceAll(m[3], ",", ", "), m[2]))
		}
	}
	slices.Sort(rows)
	return strings.Join(rows, "")
}

var (
	hit    = regexp.MustCompile(`failpoint\.(?:Hit|Reach)\("([^"]+)"\)|= "(writer\.mistake\.[^"]+)"`)
	listed = regexp.MustCompile("`(writer\\.[a-z.-]+)`")
)

// The failpoints that are listed are those in the code: a plan that names
// another one injects nothing.
func TestDesignListsFailpoints(t *testing.T) {
	inCode := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range hit.FindAllStringSubmatch(string(text), -1) {
			inCode[m[1]+m[2]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Failpoints\n")
	section, _, _ = strings.Cut(section, "\n## ")
	inText := map[string]bool{}
	for _, m := range listed.FindAllStringSubmatch(section, -1) {
		inText[m[1]] = true
	}
	for n := range inCode {
		if !inText[n] {
			t.Errorf("DESIGN.md does not list failpoint %s", n)
		}
	}
	for n := range inText {
		if !inCode[n] {
			t.Errorf("DESIGN.md lists failpoint %s, which is not in the code", n)
		}
	}
}

// Commands, their help and what is wrong with their settings.
func TestRun(t *testing.T) {
	for _, tc := range []struct {
		args   []string
		want   string // in the error; empty: none
		output string // in stdout or stderr
	}{
		{[]string{"help"}, "", "rollup-writer <command> -help"},
		{[]string{"fly"}, `unknown command "fly"`, ""},
		{[]string{"serve", "-check"}, "", ""},
		{[]string{"-check"}, "", ""},
		{[]string{"serve", "-check", "-block-records", "0", "-max-inserts", "0"}, "block-records must be 1", ""},
		{[]string{"serve", "-check", "-block-records", "0", "-max-inserts", "0"}, "max-inserts must be 1", ""},
		{[]string{"serve", "extra"}, `unexpected argument "extra"`, ""},
		{[]string{"migrate", "-clickhouse-addr", "x"}, "clickhouse-addr must be host:port", ""},
		{[]string{"serve", "-help"}, "help requested", "-block-interval"},
	} {
		var out strings.Builder
		err := run(tc.args, func(string) (string, bool) { return "", false }, &out, &out)
		if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%v: got %v, want %q", tc.args, err, tc.want)
		}
		if !strings.Contains(out.String(), tc.output) {
			t.Errorf("%v: printed %q, want %q in it", tc.args, out.String(), tc.output)
		}
	}
}
