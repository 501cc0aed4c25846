// Package geo finds the country of an address in a database file in MaxMind's format
// (MMDB) that the operator supplies.
//
// It owns the file: how it is checked, and that it is read again when it changes. Where
// the country may be used is decided by package ingest, beside the address.
package geo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/uptakehq/uptake/schemas/svc/wholefile"
)

// maxBytes bounds a database. The largest of cities have some 150 MB; those of countries
// have less than 10.
const maxBytes = 512 << 20

// layouts are the places of the code of a country in a record: of MaxMind's and DB-IP's
// databases, of IPinfo's present and of its earlier ones.
var layouts = [][]any{{"country", "iso_code"}, {"country_code"}, {"country"}}

// database is a file that was checked.
type database struct {
	reader *maxminddb.Reader
	layout []any
}

// File is a database that is read again when its file changes. Country is safe for
// concurrent use; Follow is for one goroutine.
type File struct {
	path string
	now  atomic.Pointer[database]
	seen stamp
}

// stamp is the state of the file that was read.
type stamp struct {
	size     int64
	modified time.Time
}

// Open reads a database. An empty path is a File that knows no country.
func Open(path string) (*File, error) {
	f := &File{path: path}
	if path == "" {
		return f, nil
	}
	return f, f.read()
}

// Country returns the two letters of ISO 3166-1 of an address, "" where it is not known.
func (f *File) Country(addr netip.Addr) string {
	if f == nil {
		return ""
	}
	db := f.now.Load()
	if db == nil || !addr.IsValid() {
		return ""
	}
	return db.country(db.reader.Lookup(addr.Unmap().WithZone("")))
}

func (db *database) country(r maxminddb.Result) string {
	var code string
	if !r.Found() || r.DecodePath(&code, db.layout...) != nil || !isCode(code) {
		return ""
	}
	return code
}

func isCode(s string) bool {
	return len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z'
}

// Built returns when the database in force was made, the zero time without one.
func (f *File) Built() time.Time {
	if db := f.now.Load(); db != nil {
		return db.reader.Metadata.BuildTime()
	}
	return time.Time{}
}

// read puts the file's database in force if it is whole. It is held in memory and not
// mapped: a mapped file that is written over in place would kill the process.
func (f *File) read() error {
	f.seen = stampOf(f.path) // of before: a file that changes meanwhile is read again
	text, err := wholefile.Read(f.path, maxBytes)
	if err != nil {
		return fmt.Errorf("geo-file: %w", err)
	}
	db, err := check(text)
	if err != nil {
		return fmt.Errorf("geo-file %s: %w", f.path, err)
	}
	f.now.Store(db)
	return nil
}

// check opens a database and walks all of it, so that a file with a hole is refused and
// not found out later, address by address.
func check(text []byte) (*database, error) {
	reader, err := maxminddb.OpenBytes(text)
	if err != nil {
		return nil, fmt.Errorf("not a whole database in MaxMind's format: %w", err)
	}
	db := &database{reader: reader}
	known := map[uintptr]bool{} // records that networks share
	for r := range reader.Networks() {
		if err := r.Err(); err != nil {
			return nil, fmt.Errorf("the database is damaged: %w", err)
		}
		if known[r.Offset()] {
			continue
		}
		known[r.Offset()] = true
		var record map[string]any
		if err := r.Decode(&record); err != nil {
			return nil, fmt.Errorf("the database is damaged: %w", err)
		}
		for _, layout := range layouts {
			var code string
			if db.layout == nil && r.DecodePath(&code, layout...) == nil && isCode(code) {
				db.layout = layout
			}
		}
	}
	if db.layout == nil {
		return nil, errors.New("no record of the database has a country (country.iso_code, country_code or country)")
	}
	return db, nil
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.Size(), info.ModTime()}
}

// Follow looks every now and then whether the file has changed, until ctx ends. It is
// read again when two looks in a row found it alike, so that a file that is being
// written is left alone until it is done. tell is called after each time it was read
// again; with an error the database before stays in force.
func (f *File) Follow(ctx context.Context, every time.Duration, tell func(error)) {
	if f.path == "" {
		return
	}
	t := time.NewTicker(every)
	defer t.Stop()
	before := f.seen
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := stampOf(f.path)
		settled := now != f.seen && now == before
		if before = now; !settled {
			continue
		}
		err := f.read()
		if err != nil {
			err = fmt.Errorf("the database before stays in force: %w", err)
		}
		tell(err)
	}
}
