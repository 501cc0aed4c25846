package wholefile

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestYAML(t *testing.T) {
	type doc struct {
		A string `yaml:"a"`
	}
	for _, tc := range []struct{ text, want string }{
		{"a: b\n...\n", ""},
		{"# c\r\na: b\r\n...\r\n", ""},
		{"---\na: b\n...\n", ""},
		{"", "empty"},
		{" \n\n", "empty"},
		{"...\n", "says nothing"},
		{"# nothing\n...\n", "yaml: line 1"},
		{"a: b\n", "does not end"},
		{"a: b\n...", "does not end"},
		{"a: b\n...\r", "does not end"},
		{"a: b\n ...\n", "does not end"},
		{"a: b\n....\n", "does not end"},
		{"a: b ...\n", "does not end"},
		{"a: b\n...\n\n", "does not end"},
		{"a: b\n...\na: c\n...\n", "one YAML document"},
		{"a: b\n---\na: c\n...\n", "one YAML document"},
		{"a: b\nc: d\n...\n", "field c not found"},
	} {
		var d doc
		err := YAML([]byte(tc.text), &d)
		if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%q: got %v, want %q", tc.text, err, tc.want)
		}
		if err == nil && d.A != "b" {
			t.Errorf("%q: got %+v", tc.text, d)
		}
	}
}

func TestSettled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	put := func(text string) {
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Error(err)
		}
	}
	put("one")
	if got, err := Settled(path, 3, 0); err != nil || string(got) != "one" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Settled(path, 2, 0); err == nil {
		t.Error("a file beyond the limit was read")
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				put(strconv.Itoa(i))
			}
		}
	}()
	if _, err := Settled(path, 1<<20, 50*time.Millisecond); !errors.Is(err, ErrChanging) {
		t.Errorf("a file that is written: got %v", err)
	}
	close(stop)
	<-done
}
