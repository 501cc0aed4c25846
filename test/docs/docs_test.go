// Package docs_test holds what the documents of the repository say against what
// is there: files and headings that they link to, targets of make, programs that
// are run with go, and commands of the services with their flags.
package docs_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/test/harness/stack"
)

const root = "../.."

// document is one of the repository's, without what is in code.
type document struct {
	path  string // from the root
	text  string
	spans []string // inline code
	lines []string // of shell blocks, those that go on in one
}

var (
	fence    = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	inline   = regexp.MustCompile("`[^`\n]+`")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.+)$`)
	noAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	making   = regexp.MustCompile(`^make ([a-z]+)`)
	running  = regexp.MustCompile(`^go (?:run|test) (?:-\S+ (?:\S+ )??)*(\./\S+)`)
)

func documents(t *testing.T) map[string]*document {
	t.Helper()
	all := map[string]*document{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "data" || d.Name() == ".cache" || d.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".md"):
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		doc := &document{path: rel, text: string(raw)}
		for _, m := range fence.FindAllStringSubmatch(doc.text, -1) {
			if m[1] == "sh" {
				doc.lines = append(doc.lines, strings.Split(strings.ReplaceAll(m[2], "\\\n", " "), "\n")...)
			}
		}
		doc.text = fence.ReplaceAllString(doc.text, "")
		for _, span := range inline.FindAllString(doc.text, -1) {
			doc.spans = append(doc.spans, strings.Trim(span, "`"))
		}
		doc.text = inline.ReplaceAllStringFunc(doc.text, func(s string) string { return strings.Trim(s, "`") })
		all[rel] = doc
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if all["README.md"] == nil || len(all) < 20 {
		t.Fatalf("found %d documents, README.md among them: %t", len(all), all["README.md"] != nil)
	}
	return all
}

// anchors are the names of a document's headings.
func (d *document) anchors() map[string]bool {
	names := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(d.text, -1) {
		name := noAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(m[1])), "")
		names[strings.ReplaceAll(name, " ", "-")] = true
	}
	return names
}

func TestLinks(t *testing.T) {
	all := documents(t)
	seen := 0
	for _, doc := range all {
		for _, m := range link.FindAllStringSubmatch(doc.text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			seen++
			path := doc.path
			if target != "" {
				path = filepath.Join(filepath.Dir(doc.path), target)
			}
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				t.Errorf("%s links to %s, which is not there", doc.path, m[1])
			} else if other := all[path]; anchor != "" && (other == nil || !other.anchors()[anchor]) {
				t.Errorf("%s links to %s, which has no such heading", doc.path, m[1])
			}
		}
	}
	if seen < 30 {
		t.Errorf("found %d links, so this test sees little", seen)
	}
}

// namedTest is a test that a document names as the proof of a claim.
var namedTest = regexp.MustCompile(`^([a-z0-9/-]+)\.(Test[A-Za-z0-9]+)$`)

// A claim on the security page is worth what its test is worth: each is there.
func TestClaimsHaveTheirTests(t *testing.T) {
	doc := documents(t)[filepath.Join("docs", "security.md")]
	if doc == nil {
		t.Fatal("there is no docs/security.md")
	}
	sources := map[string]string{} // of the tests of a folder
	seen := 0
	for _, span := range doc.spans {
		m := namedTest.FindStringSubmatch(span)
		if m == nil {
			if strings.Contains(span, ".Test") {
				t.Errorf("%s is no test as folder.Test", span)
			}
			continue
		}
		seen++
		text, ok := sources[m[1]]
		if !ok {
			files, _ := filepath.Glob(filepath.Join(root, m[1], "*_test.go")) // the pattern is well-formed
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				text += string(b)
			}
			sources[m[1]] = text
		}
		if !strings.Contains(text, "func "+m[2]+"(t *testing.T)") {
			t.Errorf("docs/security.md names %s.%s, which is not there", m[1], m[2])
		}
	}
	if seen < 30 {
		t.Errorf("found %d tests, so this test sees little", seen)
	}
}

// commands are what a document tells people to run.
func (d *document) commands() []string {
	var all []string
	for _, c := range append(slices.Clone(d.lines), d.spans...) {
		c, _, _ = strings.Cut(c, " # ")
		all = append(all, strings.TrimSpace(c))
	}
	return all
}

func TestMakeTargetsAndPrograms(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, doc := range documents(t) {
		for _, c := range doc.commands() {
			if m := making.FindStringSubmatch(c); m != nil {
				seen++
				if !strings.Contains(string(makefile), "\n"+m[1]+":") {
					t.Errorf("%s: %q: the Makefile has no %s", doc.path, c, m[1])
				}
			}
			if m := running.FindStringSubmatch(c); m != nil {
				seen++
				dir := strings.TrimSuffix(m[1], "/...")
				// From the root, or, in a document of a module, from there.
				_, err := os.Stat(filepath.Join(root, dir))
				_, own := os.Stat(filepath.Join(root, filepath.Dir(doc.path), dir))
				if err != nil && own != nil {
					t.Errorf("%s: %q: there is no %s", doc.path, c, dir)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("found %d commands, so this test sees little", seen)
	}
}

var (
	word     = regexp.MustCompile(`^[a-z][a-z-]*$`)
	flagName = regexp.MustCompile(`^\[?-{1,2}([a-z][a-z-]*)`)
	offered  = regexp.MustCompile(`(?m)^ +-([a-z][a-z-]*)`)
	quoted   = regexp.MustCompile(`"[^"]*"|'[^']*'`)
)

func TestCommandsAndFlagsOfServices(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the services; not under -short")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	binaries := map[string]string{}
	for _, name := range []string{stack.Gateway, stack.Enricher, stack.Writer} {
		var err error
		if binaries[name], err = stack.Binary(ctx, name, stack.Build{}); err != nil {
			t.Fatal(err)
		}
	}
	helps := map[string]string{} // by command
	seen := 0
	for _, doc := range documents(t) {
		for _, c := range doc.commands() {
			words := strings.Fields(quoted.ReplaceAllString(c, "…"))
			if len(words) < 2 || binaries[words[0]] == "" {
				continue
			}
			n := 1
			for n < len(words) && word.MatchString(words[n]) {
				n++
			}
			command := strings.Join(words[:n], " ")
			help, ok := helps[command]
			if !ok {
				// The error is the exit status of a help; a wrong command says so.
				out, _ := exec.CommandContext(ctx, binaries[words[0]], append(slices.Clone(words[1:n]), "-help")...).CombinedOutput()
				help = string(out)
				helps[command] = help
			}
			// A list of the commands answers what is none, or the beginning of several.
			if strings.Contains(help, "unknown command") {
				if rest := strings.Join(words[1:n], " "); !strings.Contains(help, "\n  "+rest+" ") {
					t.Errorf("%s: %q: there is no command %q", doc.path, c, command)
				}
				seen++
				continue
			}
			seen++
			flags := map[string]bool{"help": true}
			for _, m := range offered.FindAllStringSubmatch(help, -1) {
				flags[m[1]] = true
			}
			for _, w := range words[n:] {
				if m := flagName.FindStringSubmatch(w); m != nil && !flags[m[1]] {
					t.Errorf("%s: %q: %s has no flag -%s", doc.path, c, command, m[1])
				}
			}
		}
	}
	if seen < 40 {
		t.Errorf("found %d commands, so this test sees little", seen)
	}
}
