package metadata

import (
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/collide"
)

// Keys of one object that collide under FNV-1a once cost the square of their
// number.
func TestCraftedKeysCostNoMoreThanOthers(t *testing.T) {
	const keys = 8000
	limits := DefaultLimits()
	limits.Keys = keys
	n := New(limits)
	n.Begin(NewRegistry().View(), "dev")
	doc := `{"` + strings.Join(collide.FNV1a(keys, 14), `":1,"`) + `":1}`
	if _, err := n.Append(nil, Properties, []byte(doc)); err != nil {
		t.Fatal(err)
	}
	// At most half of the slots are taken: 1.5 for each key.
	if n.probes < keys || n.probes > 8*keys {
		t.Errorf("%d keys looked at %d slots, want at most %d", keys, n.probes, 8*keys)
	}
}
