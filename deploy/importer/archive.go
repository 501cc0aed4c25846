package importer

import (
	"archive/zip"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// unpack returns what a file holds: itself, or unpacked of gzip.
func unpack(in *bufio.Reader) (io.Reader, error) {
	if magic, _ := in.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return in, nil
	}
	return gzip.NewReader(in)
}

// archive reads the files of a zip archive, as Amplitude answers with, one after the
// other in the order of their names.
type archive struct {
	files []*zip.File
	cfg   *Config
	open  io.Closer
	now   io.Reader // of files[0]; nil: it is not open
	last  byte      // that was read
}

func newArchive(r io.ReaderAt, size int64, cfg *Config) (*archive, error) {
	all, err := zip.NewReader(r, size)
	if err != nil {
		return nil, err
	}
	a := &archive{cfg: cfg, last: '\n'}
	for _, f := range all.File {
		if name := path.Base(f.Name); !f.FileInfo().IsDir() && !strings.HasPrefix(name, ".") && !strings.HasPrefix(f.Name, "__MACOSX/") {
			a.files = append(a.files, f)
		}
	}
	slices.SortFunc(a.files, func(x, y *zip.File) int { return cmp.Compare(x.Name, y.Name) })
	return a, nil
}

// Read implements io.Reader.
func (a *archive) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if a.now == nil {
			if len(a.files) == 0 {
				return 0, io.EOF
			}
			if err := a.next(); err != nil {
				return 0, fmt.Errorf("%s: %w", a.files[0].Name, err)
			}
		}
		n, err := a.now.Read(p)
		if n > 0 {
			a.last = p[n-1]
			return n, nil
		}
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return 0, fmt.Errorf("%s: %w", a.files[0].Name, err)
		default:
			a.now, a.files = nil, a.files[1:]
			if err := a.open.Close(); err != nil {
				return 0, err
			}
			if a.last != '\n' { // or the next file would go on in its last line
				p[0], a.last = '\n', '\n'
				return 1, nil
			}
		}
	}
	return 0, nil
}

func (a *archive) next() error {
	f, err := a.files[0].Open()
	if err != nil {
		return err
	}
	a.open = f
	text, err := unpack(bufio.NewReaderSize(f, 64<<10))
	if err == nil {
		a.now, err = objects(text, a.cfg)
	}
	return err
}
