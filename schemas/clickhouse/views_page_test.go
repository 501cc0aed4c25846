package clickhouse

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	viewComment   = regexp.MustCompile(`(?m)^COMMENT '((?:[^']|'')*)'`)
	viewParameter = regexp.MustCompile(`\{([a-z]+):([A-Za-z0-9()]+)\}`)
)

// viewsPage is docs/views.md: every view that people read, as its file declares it.
func viewsPage(t *testing.T) string {
	t.Helper()
	s := Schema{Database: "uptake", Form: SingleForm(), Definer: "uptake_views"}
	views, err := Views()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# Views\n\nAll views of the database `uptake`, from `schemas/clickhouse/views` (this page is generated from the files: `go test ./schemas/clickhouse -run TestViewsPage -update`). [questions.md](questions.md) has examples. A view with parameters is called with all of them: `SELECT * FROM active_users(app = 'dev', from = '2026-11-16', to = '2026-11-23', zone = 'Europe/Vienna', period = 'day')`.\n")
	for _, v := range views {
		if v.Internal {
			continue
		}
		statement, _, err := v.Statement(s)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := v.Columns(s)
		if err != nil {
			t.Fatal(err)
		}
		comment := viewComment.FindStringSubmatch(statement)
		if comment == nil {
			t.Fatalf("view %s has no comment", v.Name)
		}
		text, _, _ := strings.Cut(strings.ReplaceAll(comment[1], "''", "'"), " Parameters: ")
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", v.Name, text)
		var parameters []string
		for _, m := range viewParameter.FindAllStringSubmatch(statement, -1) {
			if p := fmt.Sprintf("`%s` %s", m[1], m[2]); !slices.Contains(parameters, p) {
				parameters = append(parameters, p)
			}
		}
		if _, said, ok := strings.Cut(comment[1], " Parameters: "); ok {
			slices.Sort(parameters)
			fmt.Fprintf(&b, "Parameters: %s Types: %s.\n\n", said, strings.Join(parameters, ", "))
		}
		b.WriteString("| column | type | |\n|---|---|---|\n")
		for _, c := range columns {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", c.Name, c.Type, strings.ReplaceAll(c.Comment, "|", `\|`))
		}
	}
	return b.String()
}

// The page lists each view, its parameters and its columns as the files do, and
// each parameterized view names its parameters in its comment.
func TestViewsPage(t *testing.T) {
	const page = "../../docs/views.md"
	got := viewsPage(t)
	if *update {
		if err := os.WriteFile(page, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs from the files: run it with -update", page)
	}
	for _, s := range strings.Split(got, "\n## ")[1:] {
		name, _, _ := strings.Cut(s, "\n")
		said, types, parameterized := strings.Cut(s, " Types: ")
		if !parameterized {
			continue
		}
		_, said, _ = strings.Cut(said, "Parameters: ")
		types, _, _ = strings.Cut(types, ".\n")
		for _, p := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(types, -1) {
			if !regexp.MustCompile(`\b` + p[1] + `\b`).MatchString(said) {
				t.Errorf("the comment of %s does not name the parameter %s: %s", name, p[1], said)
			}
		}
	}
}
