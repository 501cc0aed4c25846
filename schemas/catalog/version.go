package catalog

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// Version is a catalog as it was applied to an app: the value of a record of
// the catalog topic. Every version is a record of its own, with the key that
// Key gives, so that compaction keeps them all: a partition that was at version
// 3 when 4 and 5 were applied has to carry out the moves of both. The highest
// number of an app is in force.
type Version struct {
	App       string    `json:"app"`
	Number    int64     `json:"number"` // 1, 2, 3, ...
	Author    string    `json:"author"`
	Reason    string    `json:"reason"`
	AppliedAt time.Time `json:"applied_at"`
	Catalog   *Catalog  `json:"catalog"`
	// HistoryMoves are the moves of what was counted under the version before.
	// They are worked out once, when the version is applied, so that every
	// partition carries out the same ones, in this order.
	HistoryMoves []event.Move `json:"history_moves,omitempty"`
}

// format is the number of the JSON form. A reader refuses a higher one: it
// would map events otherwise than the author meant.
const format = 1

type wireVersion struct {
	Format int `json:"format"`
	*Version
}

// Key returns the record key of a version.
func Key(app string, number int64) []byte {
	b := append([]byte(app), 0)
	return strconv.AppendInt(b, number, 10)
}

// ParseKey reads a record key.
func ParseKey(key []byte) (app string, number int64, err error) {
	app, n, ok := strings.Cut(string(key), "\x00")
	if number, err = strconv.ParseInt(n, 10, 64); !ok || err != nil || number < 1 {
		return "", 0, fmt.Errorf("catalog record key must be app, 0 byte, number (got %q)", key)
	}
	return app, number, nil
}

// Key returns the version's record key.
func (v *Version) Key() []byte { return Key(v.App, v.Number) }

// Encode returns the record value: always the same bytes for the same version.
func (v *Version) Encode() ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(wireVersion{Format: format, Version: v})
	if err != nil {
		return nil, fmt.Errorf("encode catalog version %d of %s: %w", v.Number, v.App, err)
	}
	if len(b) > MaxVersionBytes {
		return nil, fmt.Errorf("encode catalog version %d of %s: must be at most %d bytes (got %d)", v.Number, v.App, MaxVersionBytes, len(b))
	}
	return b, nil
}

// MaxVersionBytes bounds a version, below what the topic takes.
const MaxVersionBytes = 6 << 20

// Decode reads a record value and checks the catalog as Parse does.
func Decode(value []byte) (*Version, error) {
	w := wireVersion{Version: &Version{}}
	if err := json.Unmarshal(value, &w); err != nil {
		return nil, fmt.Errorf("decode catalog version: %w", err)
	}
	if w.Format != format {
		return nil, fmt.Errorf("decode catalog version %d of %s: format %d is not known (this program reads %d): upgrade it", w.Number, w.App, w.Format, format)
	}
	if err := w.check(); err != nil {
		return nil, fmt.Errorf("decode catalog version %d of %s: %w", w.Number, w.App, err)
	}
	return w.Version, nil
}

func (v *Version) check() error {
	switch {
	case v.App == "" || strings.ContainsRune(v.App, 0):
		return fmt.Errorf("app must be 1 or more bytes without 0 (got %q)", v.App)
	case v.Number < 1:
		return fmt.Errorf("number must be at least 1 (got %d)", v.Number)
	case v.Catalog == nil:
		return fmt.Errorf("catalog is missing")
	}
	return v.Catalog.Check()
}

// Moves returns HistoryMoves as payloads of control records: one after the
// other, in this order, nil if there are none.
func (v *Version) Moves() []event.Moves {
	var out []event.Moves
	for moves := v.HistoryMoves; len(moves) > 0; {
		n := min(len(moves), event.MaxMoves)
		out = append(out, event.Moves{Moves: moves[:n]})
		moves = moves[n:]
	}
	return out
}
