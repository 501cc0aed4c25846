package importer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// objects returns a reader of JSON lines of an unpacked export, which is that or one
// JSON array, in UTF-8 with a byte order mark or without or in UTF-16; or CSV with a
// header, where the source exports such. Of anything else the error says what it
// looks like.
func objects(r io.Reader, cfg *Config) (io.Reader, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if mark, _ := in.Peek(2); len(mark) == 2 {
		var wide encoding.Encoding // no text of UTF-8 begins with a NUL, or has it behind a letter
		switch {
		case bytes.Equal(mark, []byte("\xff\xfe")) || bytes.Equal(mark, []byte("\xfe\xff")):
			wide = unicode.UTF16(unicode.BigEndian, unicode.ExpectBOM)
		case mark[0] != 0 && mark[1] == 0:
			wide = unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
		case mark[0] == 0 && mark[1] != 0:
			wide = unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
		}
		if wide != nil {
			in = bufio.NewReaderSize(transform.NewReader(in, wide.NewDecoder()), 64<<10)
		}
	}
	if mark, _ := in.Peek(3); bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		_, _ = in.Discard(len(mark)) // was peeked
	}
	head, _ := in.Peek(64 << 10) // its error comes again with the first read
	switch text := bytes.TrimLeft(head, " \t\r\n"); {
	case binary(head) != "":
		return nil, fmt.Errorf("is %s: export JSON or CSV", binary(head))
	case cfg.From == "csv":
		return readCSV(in, head, cfg)
	case len(text) == 0 || text[0] == '{':
		return in, nil
	case text[0] == '<':
		return nil, errors.New("is HTML or XML, perhaps a login page in place of the export")
	case text[0] == '[':
		dec := json.NewDecoder(in)
		if _, err := dec.Token(); err != nil {
			return nil, err
		}
		return &elements{dec: dec}, nil
	case separator(head) != 0:
		return readCSV(in, head, cfg)
	}
	if line, _, _ := bytes.Cut(bytes.TrimSpace(head), []byte("\n")); !bytes.Contains(head, []byte("\n{")) && !json.Valid(line) {
		return nil, fmt.Errorf("is neither JSON nor CSV; it begins with %q, perhaps an error message in place of the export", clip(line[:min(len(line), 80)]))
	}
	return in, nil
}

// binary names the format of data that is no text, by its first bytes; "" of others.
func binary(head []byte) string {
	for _, f := range []struct{ magic, name string }{
		{"PAR1", "Parquet"},
		{"Obj\x01", "Avro"},
		{"ORC", "ORC"},
		{"SQLite format 3", "an SQLite database"},
		{"%PDF", "PDF"},
		{"\x28\xb5\x2f\xfd", "packed with zstd"},
		{"BZh", "packed with bzip2"},
		{"\xfd7zXZ", "packed with xz"},
		{"PK\x03\x04", "a zip archive within another"},
		{"\x1f\x8b", "packed with gzip twice"},
	} {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return f.name
		}
	}
	return ""
}

// elements reads the elements of a JSON array as lines.
type elements struct {
	dec *json.Decoder // behind the opening bracket
	buf bytes.Buffer
	end bool
}

// Read implements io.Reader.
func (e *elements) Read(p []byte) (int, error) {
	for e.buf.Len() == 0 {
		if e.end {
			return 0, io.EOF
		}
		if !e.dec.More() {
			if _, err := e.dec.Token(); errors.Is(err, io.EOF) { // or a file that was cut short would be whole
				return 0, io.ErrUnexpectedEOF
			} else if err != nil {
				return 0, err
			}
			if _, err := e.dec.Token(); !errors.Is(err, io.EOF) {
				return 0, errors.New("something follows the JSON array")
			}
			e.end = true
			continue
		}
		var v json.RawMessage
		if err := e.dec.Decode(&v); err != nil {
			return 0, err
		}
		if err := json.Compact(&e.buf, v); err != nil {
			return 0, err
		}
		e.buf.WriteByte('\n')
	}
	return e.buf.Read(p)
}
