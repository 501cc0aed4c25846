package faults

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/printer"
	"go/token"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Row is one run in the ledger docs/faults.jsonl: a line of JSON each.
type Row struct {
	Date   string // UTC
	Seed   uint64
	Commit string
	Code   string // hash of what the result depends on: see CodeHash
	Form   string // processes, inside, or brokers
	Mix    string `json:",omitempty"` // what was sent, where it is not the usual traffic
	Rounds int
	Faults int
	Events int64
	Lost   int64
	// Doubled events, of the worst table of each round.
	Doubled   int64
	Stalled   int
	Audits    int
	Disagreed int
	Kinds     map[string]RowKind
}

// RowKind is what one kind of fault did in a run.
type RowKind struct {
	Injected      int
	Lost, Doubled int64
	// Recovery are the times until all that was acked by then showed, in
	// milliseconds.
	Recovery []int64 `json:",omitempty"`
	// Honest is how long honest events took beside a hostile sender and without.
	Honest *P99 `json:",omitempty"`
}

// NewRow is the row of a report.
func NewRow(r *Report, commit, code string, at time.Time) Row {
	row := Row{
		Date: at.UTC().Format(time.DateOnly), Seed: r.Config.Seed, Commit: commit, Code: code, Form: "processes",
		Rounds: r.Rounds, Faults: r.Faults, Events: r.Events, Lost: r.Lost, Doubled: r.Doubled, Stalled: r.Stalled,
		Audits: r.Audits, Disagreed: len(r.Disagreed) + len(r.Late), Kinds: map[string]RowKind{},
	}
	switch {
	case r.Config.Inside:
		row.Form = "inside"
	case r.Config.Brokers > 0:
		row.Form = "brokers"
	}
	for name, t := range r.Tallies {
		if t.Injected == 0 {
			continue
		}
		k := RowKind{Injected: t.Injected, Lost: t.Lost, Doubled: t.Doubled}
		for _, d := range t.Recoveries {
			k.Recovery = append(k.Recovery, d.Milliseconds())
		}
		if x := r.Beside[name]; x != nil {
			p := x.P99()
			k.Honest = &p
		}
		row.Kinds[name] = k
	}
	return row
}

// AppendRow adds a row to a ledger.
func AppendRow(path string, row Row) (err error) {
	text, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	return errors.Join(err, f.Close())
}

// ReadRows reads a ledger. One that does not exist is empty.
func ReadRows(path string) ([]Row, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	var rows []Row
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, len(text)+1)
	for lines.Scan() {
		var row Row
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&row); err != nil {
			return nil, fmt.Errorf("read ledger, line %d: %w", len(rows)+1, err)
		}
		rows = append(rows, row)
	}
	return rows, lines.Err()
}

// code is what decides whether a block is counted once: how it is cut, inserted,
// verified and corrected, and which events are repeats.
var code = []string{
	"rollup-writer/internal/block/*.go", "rollup-writer/internal/plan/*.go", "enricher/internal/dedup/*.go",
	"rollup-writer/rollup/correction.go", "rollup-writer/rollup/insert.go", "rollup-writer/rollup/partition.go",
	"rollup-writer/rollup/verify.go", "rollup-writer/rollup/verify_others.go", "rollup-writer/rollup/window.go",
}

// CodeHash is a hash of the code by which a row of the ledger counts, without its
// comments and tests. root is the repository.
func CodeHash(root string) (string, error) {
	var files []string
	for _, pattern := range code {
		list, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(list) == 0 {
			return "", fmt.Errorf("no code is found at %s: %w", pattern, err)
		}
		files = append(files, list...)
	}
	files = slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, "_test.go") })
	slices.Sort(files)
	h := sha256.New()
	for _, f := range files {
		name, err := filepath.Rel(root, f)
		if err != nil {
			return "", err
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, f, nil, parser.SkipObjectResolution)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s\n", filepath.ToSlash(name))
		var text bytes.Buffer
		if err := printer.Fprint(&text, set, tree); err != nil {
			return "", err
		}
		for line := range strings.Lines(text.String()) { // empty where a comment stood
			if line = strings.TrimSpace(line); line != "" {
				fmt.Fprintln(h, line)
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// The place of the table in docs/faults.md.
const (
	tableBegins = "<!-- from faults.jsonl, by `make faults`: "
	tableEnds   = "<!-- end -->"
)

// WriteTable puts the table of a ledger's rows into a page.
func WriteTable(page, ledger, code string) error {
	rows, err := ReadRows(ledger)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	before, _, after, ok := cutTable(string(text))
	if !ok {
		return fmt.Errorf("write table: %s has no place for it", page)
	}
	return os.WriteFile(page, []byte(before+Table(rows, code)+after), 0o644)
}

// cutTable cuts a page at its table, which tells the hash of the code that it is of.
func cutTable(text string) (before, table, after string, ok bool) {
	from := strings.Index(text, tableBegins)
	if from < 0 {
		return "", "", "", false
	}
	to := strings.Index(text[from:], tableEnds)
	if to < 0 {
		return "", "", "", false
	}
	to += from + len(tableEnds)
	return text[:from], text[from:to], text[to:], true
}

// Table is what the rows of a ledger say in docs/faults.md: of the code with a
// hash, and the sums of what older code did.
func Table(rows []Row, code string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%scode %s -->\n\n", tableBegins, code)
	counts := slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return r.Code != code })
	older := slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return r.Code == code })
	sum := func(w io.Writer, list []Row, of string) {
		var t Row
		for _, r := range list {
			t.Rounds, t.Faults, t.Events = t.Rounds+r.Rounds, t.Faults+r.Faults, t.Events+r.Events
			t.Lost, t.Doubled, t.Stalled, t.Audits, t.Disagreed = t.Lost+r.Lost, t.Doubled+r.Doubled, t.Stalled+r.Stalled, t.Audits+r.Audits, t.Disagreed+r.Disagreed
		}
		fmt.Fprintf(w, "%s: %d faults in %d rounds of %d runs over %d acked events: %d lost, %d doubled; %d rounds stalled; the product's own audit ran %d times and disagreed %d times.\n\n",
			of, t.Faults, t.Rounds, len(list), t.Events, t.Lost, t.Doubled, t.Stalled, t.Audits, t.Disagreed)
	}
	sum(&b, counts, "Of this code")
	if len(older) > 0 {
		sum(&b, older, "Of code before it, which does not count any more")
	}
	type line struct {
		by            map[string]int
		lost, doubled int64
		recovery      []int64
	}
	kinds := map[string]*line{}
	for _, r := range counts {
		for name, k := range r.Kinds {
			l := kinds[name]
			if l == nil {
				l = &line{by: map[string]int{}}
				kinds[name] = l
			}
			l.by[r.Form] += k.Injected
			l.lost += k.Lost
			l.doubled += k.Doubled
			l.recovery = append(l.recovery, k.Recovery...)
		}
	}
	b.WriteString("| fault | processes | inside | lost | doubled | recovery p50 | p99 |\n|---|---|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		l := kinds[name]
		slices.Sort(l.recovery)
		at := func(q float64) string {
			if len(l.recovery) == 0 {
				return ""
			}
			return fmt.Sprintf("%.1f s", float64(l.recovery[int(q*float64(len(l.recovery)-1)+0.5)])/1000)
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %s | %s |\n", name, l.by["processes"]+l.by["brokers"], l.by["inside"], l.lost, l.doubled, at(0.5), at(0.99))
	}
	b.WriteString(besideTable(counts))
	b.WriteString("\n" + tableEnds)
	return b.String()
}

// besideTable is how long honest events took beside hostile senders: the medians
// over the runs.
func besideTable(rows []Row) string {
	by := map[string][]P99{}
	for _, r := range rows {
		for name, k := range r.Kinds {
			if k.Honest != nil {
				by[name] = append(by[name], *k.Honest)
			}
		}
	}
	if len(by) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\nHonest events beside hostile senders: 99th percentiles until a request was acked, and from the ack until the event was in ClickHouse; medians over the runs.\n\n" +
		"| hostile sender | runs | ack | without | ratio | in ClickHouse | without | ratio |\n|---|---|---|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(by)) {
		median := func(of func(P99) int64) int64 {
			var list []int64
			for _, p := range by[name] {
				list = append(list, of(p))
			}
			slices.Sort(list)
			return list[len(list)/2]
		}
		ack, calmAck := median(func(p P99) int64 { return p.Ack }), median(func(p P99) int64 { return p.CalmAck })
		shown, calmShown := median(func(p P99) int64 { return p.Shown }), median(func(p P99) int64 { return p.CalmShown })
		fmt.Fprintf(&b, "| %s | %d | %d ms | %d ms | %s | %d ms | %d ms | %s |\n", strings.TrimPrefix(name, "hostile: "), len(by[name]),
			ack, calmAck, ratio(ack, calmAck), shown, calmShown, ratio(shown, calmShown))
	}
	return b.String()
}
