package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// A file of personal data that was not written to its end is not left behind, and one that
// exists is not touched.
func TestIntoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "persons.jsonl")
	broken := errors.New("broken")
	err := intoFile(path, io.Discard, func(w io.Writer) error {
		_, err := io.WriteString(w, "jane")
		return errors.Join(err, broken)
	})
	if _, there := os.Stat(path); !errors.Is(err, broken) || !errors.Is(there, os.ErrNotExist) {
		t.Errorf("got %v; the file: %v", err, there)
	}
	write := func(w io.Writer) error { _, err := io.WriteString(w, "john"); return err }
	if err := intoFile(path, io.Discard, write); err != nil {
		t.Fatal(err)
	}
	if err := intoFile(path, io.Discard, func(io.Writer) error { return broken }); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file that exists: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "john" {
		t.Errorf("the file has %q, %v", text, err)
	}
}
