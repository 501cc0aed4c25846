// Package wholefile distinguishes a complete text file from a truncated one.
//
// A YAML file that was truncated, by a full disk, an interrupted copy or an editor that
// is still writing, is often valid YAML with less content: fewer rules, fewer apps. So
// files that decide what is stored and who may send end with the line "...", YAML's
// marker for the end of a document. No prefix of such a file ends with that line.
package wholefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.yaml.in/yaml/v3"
)

// Mark is the last line of a complete file.
const Mark = "...\n"

// ErrChanging is the error of [Settled] for a file that is being written.
var ErrChanging = errors.New("the file is still changing")

// Check returns an error unless text ends with the line "...", followed by a line end,
// and has content before it.
func Check(text []byte) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return errors.New("the file is empty")
	}
	rest, ok := bytes.CutSuffix(text, []byte("\n"))
	rest = bytes.TrimSuffix(rest, []byte("\r"))
	if rest, ok = cutMark(rest, ok); !ok {
		return errors.New("the file does not end with the line `...`, so it may have been cut short: write `...` and a line end behind all that it says")
	}
	if len(bytes.TrimSpace(rest)) == 0 {
		return errors.New("the file says nothing before its last line")
	}
	return nil
}

func cutMark(text []byte, ok bool) ([]byte, bool) {
	rest, marked := bytes.CutSuffix(text, []byte("..."))
	return rest, ok && marked && (len(rest) == 0 || rest[len(rest)-1] == '\n')
}

// YAML decodes a complete file that is one YAML document, without unknown fields.
func YAML(text []byte, into any) error {
	if err := Check(text); err != nil {
		return err
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	switch err := dec.Decode(into); {
	case errors.Is(err, io.EOF):
		return errors.New("the file says nothing")
	case err != nil:
		return err
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return errors.New("the file must be one YAML document: `...` and `---` may not stand in its middle")
	}
	return nil
}

// Settled reads a file twice, wait apart, and returns its bytes if they were the
// same, [ErrChanging] otherwise. At most limit bytes are read.
func Settled(path string, limit int64, wait time.Duration) ([]byte, error) {
	first, err := Read(path, limit)
	if err != nil {
		return nil, err
	}
	time.Sleep(wait)
	second, err := Read(path, limit)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, fmt.Errorf("%s: %w", path, ErrChanging)
	}
	return second, nil
}

// Read reads a file of at most limit bytes.
func Read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return text, nil
}
