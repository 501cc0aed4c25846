// Package question holds the console's queries: one SQL file each, with its title and
// its definition in words. A page never computes a number itself, so the same number is
// the same everywhere: on the page, in its CSV, as JSON, and in a SQL client.
//
// The package is pure. The statements use the syntax of parameterized views
// ({name:Type}); values travel beside the text, never in it.
package question

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

//go:embed sql/*.sql
var files embed.FS

// Question is one statement with the texts that explain its result.
type Question struct {
	Name       string // stable: part of addresses
	Title      string
	Definition string
	Version    string // of the statement: changes with its text
	SQL        string
	Parameters []string // names, sorted
	People     People
	Admins     bool // the answer is for admins only
}

// People says what of an answer is about single people, for viewers to whom they are
// not shown. The zero value: nothing is.
type People struct {
	// Hidden: the whole answer.
	Hidden bool
	// Columns whose values name a person.
	Columns []string
	// Rows in whose column RowsBy one of Rows stands.
	RowsBy string
	Rows   []string
}

var (
	parameter = regexp.MustCompile(`\{([a-z]+):[A-Za-z0-9(' )]+?\}`)
	all       = load()
)

func load() map[string]*Question {
	entries, err := files.ReadDir("sql")
	if err != nil {
		panic(err) // cannot happen: the files are part of the program
	}
	questions := map[string]*Question{}
	for _, e := range entries {
		text, err := files.ReadFile("sql/" + e.Name())
		if err != nil {
			panic(err) // cannot happen: as above
		}
		q, err := parse(strings.TrimSuffix(e.Name(), ".sql"), string(text))
		if err != nil {
			panic(err) // a test loads the package
		}
		questions[q.Name] = q
	}
	return questions
}

// parse reads a file: two comment lines, a third one if something of the answer is about
// single people, a fourth one if it is for admins only, then the statement.
func parse(name, text string) (*Question, error) {
	q := &Question{Name: name}
	rest := text
	for _, head := range []struct {
		word string
		to   *string
	}{{"title", &q.Title}, {"definition", &q.Definition}} {
		line, after, _ := strings.Cut(rest, "\n")
		value, ok := strings.CutPrefix(line, "-- "+head.word+": ")
		if !ok || value == "" {
			return nil, fmt.Errorf("question %s: a line `-- %s: ...` is missing (got %q)", name, head.word, line)
		}
		*head.to, rest = value, after
	}
	if line, after, _ := strings.Cut(rest, "\n"); strings.HasPrefix(line, "-- people: ") {
		if !q.People.parse(strings.TrimPrefix(line, "-- people: ")) {
			return nil, fmt.Errorf("question %s: people must be `hidden`, `columns A, B` or `rows COLUMN=A,B` (got %q)", name, line)
		}
		rest = after
	}
	if line, after, _ := strings.Cut(rest, "\n"); line == "-- for: admins" {
		q.Admins, rest = true, after
	}
	q.SQL = strings.TrimSpace(rest)
	sum := sha256.Sum256([]byte(q.SQL))
	q.Version = hex.EncodeToString(sum[:4])
	seen := map[string]bool{}
	for _, m := range parameter.FindAllStringSubmatch(q.SQL, -1) {
		seen[m[1]] = true
	}
	q.Parameters = slices.Sorted(maps.Keys(seen))
	return q, nil
}

func (p *People) parse(text string) bool {
	what, rest, _ := strings.Cut(text, " ")
	switch what {
	case "hidden":
		p.Hidden = true
		return rest == ""
	case "columns":
		p.Columns = strings.Split(rest, ", ")
		return rest != ""
	case "rows":
		by, rows, ok := strings.Cut(rest, "=")
		p.RowsBy, p.Rows = by, strings.Split(rows, ",")
		return ok && by != ""
	}
	return false
}

// Get returns a question, or nil.
func Get(name string) *Question { return all[name] }

// Names lists the questions, sorted.
func Names() []string { return slices.Sorted(maps.Keys(all)) }

// Values are the parameters of one query, by name.
type Values map[string]string

// Bound returns the values of q's parameters, and an error that names missing ones.
func (q *Question) Bound(v Values) (Values, error) {
	bound := Values{}
	var missing []string
	for _, name := range q.Parameters {
		value, ok := v[name]
		if !ok {
			missing = append(missing, name)
		}
		bound[name] = value
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("question %s needs %s", q.Name, strings.Join(missing, ", "))
	}
	return bound, nil
}

// Statement is the text to paste into a SQL client: SET lines with the values,
// then the statement.
func (q *Question) Statement(v Values) string {
	var b strings.Builder
	fmt.Fprintf(&b, "-- %s\n-- %s\n-- version %s\n", q.Title, q.Definition, q.Version)
	for _, name := range q.Parameters {
		fmt.Fprintf(&b, "SET param_%s = %s;\n", name, quote(v[name]))
	}
	b.WriteString(q.SQL)
	b.WriteString(";\n")
	return b.String()
}

// Array is a list of texts as a value.
func Array(texts []string) string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = quote(t)
	}
	return "[" + strings.Join(quoted, ",") + "]"
}

var quoting = strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\r", `\r`, "\x00", `\0`)

func quote(s string) string { return "'" + quoting.Replace(s) + "'" }
