package metadata

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A record of the metadata topic holds the type of one key: key app, 0 byte, path;
// value JSON, empty when the key no longer has a type.

// wireEntry is the value of a record.
type wireEntry struct {
	Type   string    `json:"type"`
	Pinned bool      `json:"pinned,omitempty"`
	Author string    `json:"author,omitempty"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	Source string    `json:"source,omitempty"`
}

// record returns the record for an entry; type None removes the key's type.
func (a *Agreement) record(k Key, e Entry) (*kgo.Record, error) {
	rec := &kgo.Record{Topic: a.cfg.Names.Metadata, Key: append(append([]byte(k.App), 0), k.Path...)}
	if e.Type == None {
		return rec, nil
	}
	var err error
	rec.Value, err = json.Marshal(wireEntry{Type: e.Type.String(), Pinned: e.Pinned, Author: e.Author, Reason: e.Reason, At: e.At.UTC(), Source: e.Source})
	if err != nil {
		return nil, fmt.Errorf("encode type of %s of %s: %w", k.Path, k.App, err)
	}
	return rec, nil
}

// parse reads a record.
func parse(rec *kgo.Record) (Change, error) {
	app, path, ok := bytes.Cut(rec.Key, []byte{0})
	if !ok || len(app) == 0 || len(path) == 0 {
		return Change{}, fmt.Errorf("metadata record at offset %d: key must be app, 0 byte, path (got %q)", rec.Offset, rec.Key)
	}
	c := Change{Key: Key{App: string(app), Path: string(path)}, Offset: rec.Offset}
	if len(rec.Value) == 0 {
		return c, nil
	}
	var w wireEntry
	if err := json.Unmarshal(rec.Value, &w); err != nil {
		return Change{}, fmt.Errorf("metadata record at offset %d: %w", rec.Offset, err)
	}
	typ, err := ParseType(w.Type)
	if err != nil {
		return Change{}, fmt.Errorf("metadata record at offset %d: %w", rec.Offset, err)
	}
	c.Entry = Entry{Type: typ, Pinned: w.Pinned, Author: w.Author, Reason: w.Reason, At: w.At, Source: w.Source}
	return c, nil
}

// checkPath returns the fault of a key path that a person gave, or nil.
func checkPath(path string) error {
	first, rest, _ := strings.Cut(path, ".")
	if (first != Properties && first != Traits) || rest == "" {
		return fmt.Errorf("key path must start with %s. or %s. (got %q)", Properties, Traits, path)
	}
	if strings.ContainsRune(path, 0) {
		return fmt.Errorf("key path must not have a 0 byte (got %q)", path)
	}
	return nil
}
