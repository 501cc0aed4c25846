package catalogcli

import (
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/privacy"
)

// blocks returns the code blocks of a language in a page of docs.
func blocks(t *testing.T, name, language string) []string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		out = append(out, m[1])
	}
	if len(out) == 0 {
		t.Fatalf("docs/%s has no %s", name, language)
	}
	return out
}

// What the docs show must work.
func TestDocs(t *testing.T) {
	for _, b := range blocks(t, "catalog.md", "yaml") {
		if _, err := catalog.Parse([]byte(b)); err != nil {
			t.Errorf("docs/catalog.md: %v in\n%s", err, b)
		}
	}
	for _, b := range blocks(t, "catalog.md", "csv") {
		im := newImporter("docs", "docs")
		if err := im.csv([]byte(b)); err != nil {
			t.Errorf("docs/catalog.md: %v in\n%s", err, b)
		}
	}
	dir := t.TempDir()
	secret := dir + "/secret"
	if err := os.WriteFile(secret, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/opted-out.txt", []byte("user u-18\n...\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks(t, "privacy.md", "yaml") {
		b = regexp.MustCompile(`file:/run/secrets/[^"]*`).ReplaceAllString(b, "file:"+secret)
		if err := os.WriteFile(dir+"/privacy.yaml", []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := privacy.Load(dir + "/privacy.yaml")
		if err != nil {
			t.Errorf("docs/privacy.md: %v in\n%s", err, b)
		} else if !p.App("prod").OptedOut("u-18", "", "") {
			t.Errorf("docs/privacy.md: u-18 is not opted out in\n%s", b)
		}
	}
}

// Every command is in the docs.
func TestDocsNameEveryCommand(t *testing.T) {
	var text strings.Builder
	for _, name := range []string{"catalog.md", "metadata.md"} {
		b, err := os.ReadFile("../../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(b)
	}
	seen := 0
	for _, group := range Commands(nil, io.Discard, io.Discard, nil) {
		for _, c := range group.Group.Commands {
			seen++
			if want := "`enricher " + group.Name + " " + c.Name; !strings.Contains(text.String(), want) {
				t.Errorf("docs have no %s", want)
			}
		}
	}
	if seen < 13 {
		t.Errorf("only %d commands", seen)
	}
}
