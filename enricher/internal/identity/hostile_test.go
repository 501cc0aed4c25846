package identity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/collide"
	"github.com/uptakehq/uptake/schemas/event"
)

// With linear probing at three quarters full a look for a key visits 8.5 slots on
// average, and one of 120,000 keys that collide visits as many thousands.
const fewProbes = 20

func (s *State) looked() int64 {
	return s.ids.probes + s.ids.placed + s.known.probes + s.known.placed
}

// Anonymous ids that collide under XXH64 without a seed once took every
// transaction beyond its timeout, and every restore.
func TestCraftedIDsCostNoMoreThanOthers(t *testing.T) {
	const n = 8_000
	crafted := collide.XXH64("dev\x00a", n)
	cfg := DefaultConfig(1)
	st := New(cfg, 0, event.NewCodec(), nil)
	out := &Outputs{}
	var changes []Change
	var overlay int64
	for first := 0; first < n; first += 2000 {
		tx := st.Begin()
		for i, a := range crafted[first : first+2000] {
			out.Reset()
			raw := event.RawEvent{Kind: event.KindIdentify, AppID: "dev", MessageID: "m", UserID: fmt.Sprint("u", (first+i)%1000), AnonymousID: a}
			if _, err := tx.Event(int64(i), &raw, epoch, out); err != nil {
				t.Fatal(err)
			}
			changes = append(changes, out.Changes...)
		}
		out.Reset()
		tx.Flush(out)
		overlay += tx.ids.probes + tx.ids.placed + tx.known.probes + tx.known.placed
		tx.Commit()
	}
	if got, most := overlay+st.looked(), int64(n*12*fewProbes); got > most {
		t.Errorf("learning %d ids looked at %d slots, want at most %d", n, got, most)
	}

	fresh := New(cfg, 0, event.NewCodec(), nil)
	for _, c := range changes {
		if err := fresh.Apply(c.Key, c.Value); err != nil {
			t.Fatal(err)
		}
	}
	if got, most := fresh.looked(), int64(len(changes)*fewProbes); got > most {
		t.Errorf("restoring %d changes looked at %d slots, want at most %d", len(changes), got, most)
	}
	if got, want := fresh.Stats().Known, st.Stats().Known; got != want || want != n {
		t.Errorf("known after a restore: got %d, want %d", got, want)
	}
}

// Whoever knew the seed all the same would get no further than to another one.
func TestTableTakesAnotherSeed(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var tab table
	tab.set([]byte("first"), nil)
	known := tab.seed
	const n = maxProbes + maxProbes/4
	tab.place(2 * maxProbes)
	mask := uint64(len(tab.slots) - 1)
	var key [8]byte
	for tab.used < n {
		binary.LittleEndian.PutUint64(key[:], rnd.Uint64())
		if tab.seed != known || maphash.Bytes(known, key[:])&mask < 4 {
			tab.set(key[:], key[:])
		}
	}
	if tab.seed == known {
		t.Fatal("the table keeps its seed")
	}
	tab.probes = 0
	found := 0
	tab.each(func(k, _ []byte) bool {
		if v, ok := tab.get(k); ok && string(v) == string(k) || string(k) == "first" {
			found++
		}
		return true
	})
	if found != tab.used || tab.probes > int64(fewProbes*tab.used) {
		t.Errorf("%d of %d entries are found, looking at %d slots", found, tab.used, tab.probes)
	}
}

func TestPairsTakeAnotherSalt(t *testing.T) {
	var p pairs
	const n = maxProbes + maxProbes/4
	p.place(2 * maxProbes)
	for i := range uint64(n) {
		p.set(pair{1 << 40, i*0x9E3779B97F4A7C15 + 1}, event.Micros(i))
	}
	p.probes = 0
	for i := range uint64(n) {
		if first, found := p.get(pair{1 << 40, i*0x9E3779B97F4A7C15 + 1}); !found || first != event.Micros(i) {
			t.Fatalf("pair %d is lost", i)
		}
	}
	if p.probes > fewProbes*n {
		t.Errorf("%d slots looked at for %d pairs", p.probes, n)
	}
	for i := range uint64(n) {
		p.remove(pair{1 << 40, i*0x9E3779B97F4A7C15 + 1})
	}
	if p.n != 0 {
		t.Errorf("%d pairs are left", p.n)
	}
}

// long returns an id of so many bytes.
func long(name string, i int) string { return fmt.Sprintf("%s%04d", strings.Repeat(name, 1000), i) }

// A chain of aliased users, each with as many memberships as are kept, asks for
// more with each record than a transaction has time for, or than a record of a
// topic can hold. The record is refused, nothing is learnt from it, and all
// others go on.
func TestRecordBeyondABoundIsTakenBack(t *testing.T) {
	for _, tc := range []struct {
		setting string
		change  func(*Config)
	}{
		{"identity-max-record-bytes", func(c *Config) { c.MaxRecordBytes = 100 << 10 }},
		{"identity-max-record-moves", func(c *Config) { c.MaxRecordMoves = 40 }},
		{"identity-max-record-steps", func(c *Config) { c.MaxRecordSteps = 1 << 13 }},
	} {
		cfg := DefaultConfig(2)
		cfg.MaxLinks = 256
		tc.change(&cfg)
		st := New(cfg, 0, event.NewCodec(), nil)
		out := &Outputs{}
		offset, refused := int64(0), 0
		say := func(raw event.RawEvent) {
			t.Helper()
			raw.AppID, raw.MessageID = "dev", "m"
			tx := st.Begin()
			out.Reset()
			before := dump(st)
			_, err := tx.Event(offset, &raw, epoch+offset*hour, out)
			offset++
			work, over := errors.AsType[*WorkError](err)
			switch {
			case err != nil && !over:
				t.Fatal(err)
			case over && work.Setting != tc.setting:
				t.Fatalf("refused for %s, want %s", work.Setting, tc.setting)
			case over:
				refused++
				if len(out.Changes)+len(out.Links)+len(out.Controls) > 0 {
					t.Fatal("a record that was refused has outputs")
				}
			}
			tx.Flush(out)
			tx.Commit()
			if over && dump(st) != before {
				t.Fatalf("a record that was refused changed the state")
			}
		}
		for u := range 3 {
			for m := range 20 {
				say(event.RawEvent{Kind: event.KindGroup, UserID: long("u", u), AccountID: long("c", 100*u+m), Traits: []byte(fmt.Sprintf(`{"role":"r%d"}`, m))})
			}
			if u > 0 {
				say(event.RawEvent{Kind: event.KindAlias, PreviousID: long("u", u-1), UserID: long("u", u)})
			}
		}
		for a := range 8 {
			say(event.RawEvent{Kind: event.KindIdentify, AnonymousID: fmt.Sprint("a", a), UserID: long("u", 0)})
		}
		if refused == 0 {
			t.Errorf("%s: no record was refused", tc.setting)
		}
		if refused > int(offset)*9/10 {
			t.Errorf("%s: %d of %d records were refused", tc.setting, refused, offset)
		}
	}
}
