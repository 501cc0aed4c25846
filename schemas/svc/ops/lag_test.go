package ops

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// A lag is logged at the floor and each time it has doubled, and once when it is
// small again; partitions that go to another instance take their lag with them.
func TestLag(t *testing.T) {
	var out bytes.Buffer
	l := NewLag(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})), 100)
	if got := l.String(); got != "" {
		t.Errorf("without partitions: got %q", got)
	}
	for _, step := range []struct {
		part    string
		records int64
		want    string // logged
	}{
		{"raw/0", 0, ""},
		{"raw/0", 60, ""},
		{"raw/1", 40, `level=WARN msg="lag grows" records=100 partitions=2 most_in=raw/0 records_there=60`},
		{"raw/1", 139, ""},
		{"raw/1", 140, `level=WARN msg="lag grows" records=200 partitions=2 most_in=raw/1 records_there=140`},
		{"raw/1", 40, ""}, // 100: not small yet
		{"raw/1", 140, ""},
		{"raw/0", 10, ""},
		{"raw/1", 39, `level=INFO msg="lag is small again" records=49 was=200`},
		{"raw/1", 60, ""},
		{"raw/1", 90, `level=WARN msg="lag grows" records=100 partitions=2 most_in=raw/1 records_there=90`},
	} {
		out.Reset()
		l.Set(step.part, step.records)
		if got := strings.TrimSpace(out.String()); got != step.want {
			t.Errorf("%s at %d: logged %q, want %q", step.part, step.records, got, step.want)
		}
	}
	out.Reset()
	l.Forget("raw/1", "raw/7")
	if got := l.String(); got != "10 records behind in 1 partitions, 10 of them in raw/0" || out.Len() > 0 {
		t.Errorf("after a partition went away: got %q, logged %q", got, out.String())
	}
	l.Set("raw/0", 0)
	if got := l.String(); got != "0 records behind in 1 partitions" || out.Len() > 0 {
		t.Errorf("caught up: got %q, logged %q", got, out.String())
	}
	l.Set("raw/0", 100)
	if !strings.Contains(out.String(), "lag grows") {
		t.Error("a lag that comes back is not logged")
	}
}
