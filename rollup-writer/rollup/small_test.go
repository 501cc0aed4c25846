package rollup

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestSmallBlocks(t *testing.T) {
	start := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name  string
		rows  int           // of each block
		every time.Duration // between two blocks
		hours int
		want  []time.Duration // of warnings after the start
	}{
		// 20 blocks a second of 60 rows: 64 partitions at 1,200 rows a second or so.
		{"small", 60, 50 * time.Millisecond, 2, []time.Duration{5 * time.Minute, 65 * time.Minute}},
		{"just small", 2499, 500 * time.Millisecond, 1, []time.Duration{5 * time.Minute}},
		{"large enough", 2500, 500 * time.Millisecond, 1, nil},
		{"of little traffic", 900, time.Second, 1, nil},
		{"idle", 1, 10 * time.Minute, 3, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now := start
			var log bytes.Buffer
			s := &Service{now: func() time.Time { return now }, log: slog.New(slog.NewTextHandler(&log, nil))}
			s.cfg.BlockInterval = time.Second
			var got []time.Duration
			for ; now.Before(start.Add(time.Duration(tc.hours) * time.Hour)); now = now.Add(tc.every) {
				log.Reset()
				s.sayBlock(tc.rows)
				if log.Len() > 0 {
					got = append(got, now.Sub(start))
					if tc.name == "small" && !strings.Contains(log.String(), "rows_per_block=60 rows_per_second=1200 block-interval=1s") {
						t.Errorf("got %s", log.String())
					}
				}
			}
			if len(got) != len(tc.want) {
				t.Fatalf("warned after %v, want %v", got, tc.want)
			}
			for i := range got {
				if got[i] != tc.want[i] {
					t.Errorf("warned after %v, want %v", got, tc.want)
				}
			}
		})
	}
}
