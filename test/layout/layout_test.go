// Package layout tests the direction of imports: which folder may use which.
package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/uptakehq/uptake/"

// file is a Go file of this repository and what it imports.
type file struct {
	path    string // from the root, with slashes
	imports []string
}

func (f *file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// under reports whether the file is in a folder, or in one below it.
func (f *file) under(folders ...string) bool {
	return slices.ContainsFunc(folders, func(d string) bool { return strings.HasPrefix(f.path, d+"/") })
}

// files are all of the repository.
func files(t *testing.T) []file {
	t.Helper()
	root := filepath.Join("..", "..")
	var all []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(p, ".go"):
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		f := file{path: filepath.ToSlash(rel)}
		for _, i := range parsed.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, name)
		}
		all = append(all, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 300 {
		t.Fatalf("only %d Go files were found", len(all))
	}
	return all
}

// Folders by rank: each may import its own and those of lower rank. Folders of
// one rank do not import one another.
var rank = map[string]int{"schemas": 0, "ingest-gateway": 1, "enricher": 1, "rollup-writer": 1, "deploy": 2, "test": 3}

func TestFoldersImportDownwards(t *testing.T) {
	for _, f := range files(t) {
		from, _, _ := strings.Cut(f.path, "/")
		if _, ok := rank[from]; !ok {
			t.Errorf("%s: folder %s has no rank in this test", f.path, from)
		}
		for _, i := range f.imports {
			rel, ours := strings.CutPrefix(i, module)
			to, _, _ := strings.Cut(rel, "/")
			if ours && to != from && rank[to] >= rank[from] {
				t.Errorf("%s imports %s: %s may not use %s", f.path, rel, from, to)
			}
		}
	}
}

// Parts of rollup-writer that do not know one another; what two of them need is
// in rollup-writer/internal, which knows none of them. Tests of repair may run
// writers.
var parts = []string{"rollup", "repair", "alert", "console"}

func TestPartsOfRollupWriterAreApart(t *testing.T) {
	for _, f := range files(t) {
		// Of writertest, which is for tests alone, only tests know.
		if f.isTest() || !f.under("rollup-writer") || path.Dir(f.path) == "rollup-writer" || f.under("rollup-writer/internal/writertest") {
			continue
		}
		for _, i := range f.imports {
			if i == module+"rollup-writer/internal/writertest" {
				t.Errorf("%s imports %s", f.path, i)
			}
			for _, p := range parts {
				to := module + "rollup-writer/" + p
				if (i == to || strings.HasPrefix(i, to+"/")) && !f.under("rollup-writer/"+p) {
					t.Errorf("%s imports %s", f.path, i)
				}
			}
		}
	}
}

// Who talks to ClickHouse: the writer, the schema with its embedded server, the
// one process that runs everything, and the tests of the whole.
func TestClickHouseIsForTheWriter(t *testing.T) {
	for _, f := range files(t) {
		if f.isTest() || f.under("rollup-writer", "schemas/clickhouse", "deploy/standalone", "test") {
			continue
		}
		for _, i := range f.imports {
			if strings.HasPrefix(i, "github.com/ClickHouse/") || i == module+"schemas/clickhouse" || strings.HasPrefix(i, module+"schemas/clickhouse/") {
				t.Errorf("%s imports %s", f.path, i)
			}
		}
	}
}

// clickHouseAddress is what code has in it that reaches ClickHouse without a
// client library: its settings, its ports, the headers and parameters of its HTTP
// interface.
var clickHouseAddress = regexp.MustCompile(`clickhouse-(?:addr|http|user|password)|:(?:8123|9000)\b|X-ClickHouse-|"param_|readonly=`)

// Who may have them: those above, the commands of the enricher for catalogs and
// metadata, which people run, and what deploys or documents a whole installation.
func TestClickHouseIsReachedByTheWriterAlone(t *testing.T) {
	found := 0
	for _, f := range files(t) {
		if f.isTest() || f.under("rollup-writer", "schemas/clickhouse", "deploy/standalone", "test") {
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(f.path)))
		if err != nil {
			t.Fatal(err)
		}
		at := clickHouseAddress.Find(text)
		switch {
		case at == nil:
		case f.under("enricher/internal/catalogcli"):
			found++
		default:
			t.Errorf("%s has %q: only rollup-writer talks to ClickHouse", f.path, at)
		}
	}
	if found == 0 {
		t.Error("nothing in enricher/internal/catalogcli reaches ClickHouse: take the exception out of this test and of CONTRIBUTING")
	}
	// Only the main program runs them: serving events does not.
	for _, f := range files(t) {
		if !f.isTest() && f.path != "enricher/main.go" && !f.under("enricher/internal/catalogcli") && slices.Contains(f.imports, module+"enricher/internal/catalogcli") {
			t.Errorf("%s imports enricher/internal/catalogcli", f.path)
		}
	}
}

// name is a name of a topic or group without the prefix of an installation.
var name = regexp.MustCompile(`uptake\.[a-z-]+\.v[0-9]`)

// Services and commands take the names of topics, groups and transactional ids from
// their settings: code that had them from elsewhere would use those of an installation
// without a prefix. The log of standalone is its own.
func TestNamesInKafkaHaveThePrefix(t *testing.T) {
	used := map[string]bool{}
	for _, f := range files(t) {
		if f.isTest() || f.under("test", "rollup-writer/internal/writertest") || path.Dir(f.path) == "schemas/topic" {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", filepath.FromSlash(f.path)), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if n.Kind == token.STRING && name.MatchString(n.Value) {
					t.Errorf("%s has the literal %s: take the name from topic.Names", f.path, n.Value)
				}
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if !ok || x.Name != "topic" {
					break
				}
				switch n.Sel.Name {
				case "Unprefixed":
					used["Unprefixed"] = true
					if !f.under("deploy/standalone/machine") {
						t.Errorf("%s uses topic.Unprefixed: use the names of the settings", f.path)
					}
				case "NewNames":
					used["NewNames"] = true
					if !f.under("schemas/svc/kafka") {
						t.Errorf("%s uses topic.NewNames: use kafka.Config.Names", f.path)
					}
				}
			}
			return true
		})
	}
	if len(used) != 2 {
		t.Errorf("only %v were found: does this test know the names of package topic?", used)
	}
}
