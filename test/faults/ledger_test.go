package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const root = "../.."

// The table in docs/faults.md is what the ledger says of the code that it names.
func TestTheTableIsTheLedgers(t *testing.T) {
	rows, err := ReadRows(filepath.Join(root, "docs/faults.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs/faults.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _, ok := cutTable(string(text))
	if !ok {
		t.Fatal("docs/faults.md has no table of the ledger")
	}
	hash, _, _ := strings.Cut(strings.TrimPrefix(table, tableBegins+"code "), " ")
	if table != Table(rows, hash) {
		t.Errorf("docs/faults.md does not have what docs/faults.jsonl says: run `go run ./test/cmd/faults -page docs/faults.md`")
	}
	now, err := CodeHash(root)
	if err != nil {
		t.Fatal(err)
	}
	if now != hash {
		t.Logf("blocks, corrections or dedup have changed since: the table is of code %s, and the code is %s", hash, now)
	}
	for n, r := range rows {
		if r.Faults == 0 || len(r.Kinds) == 0 || r.Commit == "" || r.Code == "" {
			t.Errorf("line %d of docs/faults.jsonl is incomplete: %+v", n+1, r)
		}
	}
}

// A row counts for the code that it was run on, whatever is said about it.
func TestRowsCountForTheirCode(t *testing.T) {
	dir := t.TempDir()
	put := func(insert string) string {
		for _, pattern := range code {
			name := filepath.Join(dir, strings.ReplaceAll(pattern, "*", "x"))
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			text := "package x\n"
			if strings.HasSuffix(name, "insert.go") {
				text += insert
			}
			for _, name := range []string{name, strings.TrimSuffix(name, ".go") + "_test.go"} {
				if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		hash, err := CodeHash(dir)
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	first := put("\nfunc f() int {\n\treturn 1\n}\n")
	if again := put("\n// f says it.\nfunc f() int {\n\n\t// one\n\treturn 1 // of them\n}\n"); again != first {
		t.Error("comments change the hash")
	}
	if other := put("\nfunc f() int {\n\treturn 2\n}\n"); other == first {
		t.Error("code does not change the hash")
	}

	report := func(kind string, n int) *Report {
		r := newReport(Config{Seed: 7, Inside: true})
		r.Rounds, r.Faults, r.Events = 1, n, 100
		r.Tallies[kind] = &Tally{Kind: kind, Injected: n, Recoveries: []time.Duration{2 * time.Second, time.Second}}
		return r
	}
	ledger := filepath.Join(dir, "faults.jsonl")
	for _, r := range []Row{NewRow(report("kill", 3), "c1", "old", time.Unix(0, 0)), NewRow(report("pause", 4), "c2", "new", time.Unix(0, 0)), NewRow(report("pause", 2), "c3", "new", time.Unix(0, 0))} {
		if err := AppendRow(ledger, r); err != nil {
			t.Fatal(err)
		}
	}
	page := filepath.Join(dir, "faults.md")
	if err := os.WriteFile(page, []byte("before\n"+tableBegins+"code old -->\n"+tableEnds+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // written again it is the same
		if err := WriteTable(page, ledger, "new"); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n", "\nafter\n", "Of this code: 6 faults in 2 rounds of 2 runs over 200", "which does not count any more: 3 faults", "| pause | 0 | 6 | 0 | 0 | 2.0 s | 2.0 s |"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "| kill |") {
		t.Errorf("what does not count is in the table:\n%s", text)
	}
}
