package clickhouse

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"text/template"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

//go:embed views/*.sql views/internal/*.sql views/shared/*.sql
var viewFiles embed.FS

// View is a file of views/, or of views/internal/: the statement of one plain
// view, which has the file's name.
type View struct {
	Name string
	// Internal: it is in the internal database, for programs only.
	Internal bool
	text     *template.Template
}

// Views returns all there are, sorted by name.
func Views() ([]View, error) {
	views, err := parsedViews()
	return slices.Clone(views), err
}

// parsedViews reads and parses the files once: each view that names another asks
// for all.
var parsedViews = sync.OnceValues(func() ([]View, error) {
	shared, err := template.New("shared").Option("missingkey=error").ParseFS(viewFiles, "views/shared/*.sql")
	if err != nil {
		return nil, fmt.Errorf("views/shared: %w", err)
	}
	var views []View
	for _, dir := range []string{"views", "views/internal"} {
		names, err := fs.Glob(viewFiles, dir+"/*.sql")
		if err != nil {
			return nil, err
		}
		for _, file := range names {
			text, err := viewFiles.ReadFile(file)
			if err != nil {
				return nil, err
			}
			v := View{Name: strings.TrimSuffix(path.Base(file), ".sql"), Internal: dir != "views"}
			if v.text, err = shared.Clone(); err == nil {
				v.text, err = v.text.New(v.Name).Parse(string(text))
			}
			if err != nil {
				return nil, fmt.Errorf("view %s: %w", v.Name, err)
			}
			views = append(views, v)
		}
	}
	slices.SortFunc(views, func(a, b View) int { return strings.Compare(a.Name, b.Name) })
	return views, nil
})

// Statement returns the view's SQL for a schema, and the names of the views that
// it reads.
func (v View) Statement(s Schema) (statement string, uses []string, err error) {
	var b strings.Builder
	if err := v.text.Execute(&b, dialect{Schema: s, view: v, uses: &uses}); err != nil {
		return "", nil, fmt.Errorf("view %s: %w", v.Name, err)
	}
	return strings.TrimSuffix(trimComments(b.String()), ";"), uses, nil
}

// database is the one that the view is in.
func (v View) database(s Schema) string {
	if v.Internal {
		return Internal(s.Database)
	}
	return s.Database
}

// Create starts the statement of the view that the file is named for.
func (d dialect) Create() string {
	return "CREATE OR REPLACE VIEW " + quote(d.view.database(d.Schema)) + "." + quote(d.view.Name) + d.onCluster()
}

// Definer is the clause by which the view runs with the rights of one who may
// read both databases, so that its readers need no rights on the internal one.
func (d dialect) Definer() string {
	return "DEFINER = " + quote(d.Schema.Definer) + " SQL SECURITY DEFINER"
}

// View is the qualified name of another view.
func (d dialect) View(name string) (string, error) {
	views, err := parsedViews()
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(views, func(v View) bool { return v.Name == name })
	if i < 0 {
		return "", fmt.Errorf("there is no view %s", name)
	}
	*d.uses = append(*d.uses, name)
	return quote(views[i].database(d.Schema)) + "." + quote(name), nil
}

// about is what a template of views/shared is given.
type about struct {
	D  dialect
	Of string
}

// Of passes a word to a template of views/shared.
func (d dialect) Of(word string) about { return about{d, word} }

// column is a line of a view's list of columns.
var column = regexp.MustCompile("(?m)^ +`([a-z0-9_]+)` (.+?)(?: COMMENT '((?:[^']|'')*)')?,?$")

// Column of a view, as its file declares it.
type Column struct{ Name, Type, Comment string }

// Columns are those that the view's statement declares.
func (v View) Columns(s Schema) ([]Column, error) {
	statement, _, err := v.Statement(s)
	if err != nil {
		return nil, err
	}
	_, list, _ := strings.Cut(statement, "\n(\n")
	list, _, found := strings.Cut(list, "\n)\n")
	if !found {
		return nil, fmt.Errorf("view %s: it declares no columns: a list in parentheses on lines of their own", v.Name)
	}
	var columns []Column
	for _, m := range column.FindAllStringSubmatch(list, -1) {
		columns = append(columns, Column{m[1], m[2], strings.ReplaceAll(m[3], "''", "'")})
	}
	return columns, nil
}

// People returns the names of all that is in the database for people, sorted.
// Each has a column app_id: [Rights] makes a row policy by app on each.
func People() ([]string, error) {
	views, err := Views()
	if err != nil {
		return nil, err
	}
	names := slices.Clone(peopleTables)
	for _, v := range views {
		if !v.Internal {
			names = append(names, v.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

const viewsTable = "schema_views"

// viewsDDL makes the table of applied views.
func (s Schema) viewsDDL() string {
	return fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s%s
(
    name String,
    checksum String COMMENT 'SHA-256 of the statement; empty: the view was dropped',
    applied_at DateTime64(3, 'UTC')
)
ENGINE = %s
ORDER BY name
COMMENT 'Views that were applied to this database'`, s.Table(viewsTable), s.onCluster(), s.sharedEngine("ReplacingMergeTree", "applied_at"))
}

// applyViews makes the views what the files say: those whose statement changed
// or which are missing, and what reads them after them. Views without a file are
// dropped. It returns the names of what it did.
func (s Schema) applyViews(ctx context.Context, conn driver.Conn) (applied []string, err error) {
	views, err := Views()
	if err != nil {
		return nil, err
	}
	statements, order, err := s.ordered(views)
	if err != nil {
		return nil, err
	}
	had, err := s.appliedViews(ctx, conn)
	if err != nil {
		return nil, err
	}
	// What was done is recorded in one insert, also when something fails: an insert
	// for each takes as long as its view. Views that a process made which died before
	// that are made again.
	var sums []string
	record := func(name, checksum string) { applied, sums = append(applied, name), append(sums, checksum) }
	defer func() {
		if len(applied) == 0 {
			return
		}
		insert := "INSERT INTO " + s.Table(viewsTable) + " SETTINGS async_insert = 0 SELECT tupleElement(v, 1), tupleElement(v, 2), now64(3) FROM (SELECT arrayJoin(arrayZip(?, ?)) AS v)"
		if recordErr := conn.Exec(ctx, insert, applied, sums); recordErr != nil {
			err = errors.Join(err, fmt.Errorf("record views: %w", recordErr))
		}
	}()
	for _, v := range order {
		name := v.database(s) + "." + v.Name
		sum := sha256.Sum256([]byte(statements[v.Name]))
		checksum := hex.EncodeToString(sum[:])
		if had[name] == checksum {
			delete(had, name)
			continue
		}
		delete(had, name)
		if err := conn.Exec(ctx, statements[v.Name]); err != nil {
			return applied, fmt.Errorf("view %s: %w in:\n%s", v.Name, err, statements[v.Name])
		}
		record(name, checksum)
	}
	for _, name := range slices.Sorted(maps.Keys(had)) {
		database, view, _ := strings.Cut(name, ".")
		if err := conn.Exec(ctx, "DROP VIEW IF EXISTS "+quote(database)+"."+quote(view)+s.onCluster()+" SYNC"); err != nil {
			return applied, fmt.Errorf("drop view %s: %w", name, err)
		}
		record(name, "")
	}
	return applied, nil
}

// ordered returns the statements by name, and the views so that each comes after
// those that it reads.
func (s Schema) ordered(views []View) (statements map[string]string, order []View, err error) {
	statements, uses := map[string]string{}, map[string][]string{}
	byName := map[string]View{}
	for _, v := range views {
		if statements[v.Name], uses[v.Name], err = v.Statement(s); err != nil {
			return nil, nil, err
		}
		byName[v.Name] = v
	}
	const entered, done = 1, 2
	state := map[string]int{}
	var visit func(name string) error
	visit = func(name string) error {
		switch state[name] {
		case done:
			return nil
		case entered:
			return fmt.Errorf("view %s reads itself", name)
		}
		state[name] = entered
		for _, u := range uses[name] {
			if err := visit(u); err != nil {
				return err
			}
		}
		state[name] = done
		order = append(order, byName[name])
		return nil
	}
	for _, v := range views {
		if err := visit(v.Name); err != nil {
			return nil, nil, err
		}
	}
	return statements, order, nil
}

// appliedViews returns the checksums by "database.name" of the views that were
// applied; of one that is missing on the server, empty.
func (s Schema) appliedViews(ctx context.Context, conn driver.Conn) (map[string]string, error) {
	had, err := CollectMap[string, string](ctx, conn, `SELECT name, if(name IN (SELECT concat(database, '.', name) FROM system.tables WHERE database IN (?, ?)), argMax(v.checksum, v.applied_at), '') AS had
		FROM `+s.Table(viewsTable)+` AS v GROUP BY name HAVING argMax(v.checksum, v.applied_at) != ''`, s.Database, Internal(s.Database))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", viewsTable, err)
	}
	return had, nil
}
