package metadata

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// result is all that a Normalizer says of an event.
type result struct {
	out, conflicts string
	missing        []Proposal
	stats          Stats
	failed         bool
}

func (r result) String() string {
	return fmt.Sprintf("%s, conflicts %s, missing %v, %+v, failed %v", r.out, r.conflicts, r.missing, r.stats, r.failed)
}

// once normalizes a document as properties and traits of an event.
func once(n *Normalizer, doc string) result {
	out, err := n.Append(nil, Properties, []byte(doc))
	if err == nil {
		out, err = n.Append(out, Traits, []byte(doc))
	}
	if err != nil {
		return result{failed: true}
	}
	missing := append([]Proposal(nil), n.Missing()...)
	return result{string(out), string(n.AppendConflicts(nil)), missing, n.Stats(), false}
}

// bothWays normalizes a document with what n remembers and with a Normalizer that
// remembers nothing.
func bothWays(t testing.TB, n *Normalizer, view *View, app, doc string) {
	t.Helper()
	long := New(n.limits)
	long.Begin(view, app)
	long.memo.size = maxMemo
	want := once(long, doc).String()
	for _, turn := range []string{"first", "second"} {
		n.Begin(view, app)
		if got := once(n, doc).String(); got != want {
			t.Fatalf("%q of app %s the %s time:\n got %s\nwant %s", doc, app, turn, got, want)
		}
	}
}

// randomDoc writes an object of few keys and many kinds of values.
func randomDoc(rnd *rand.Rand, b *strings.Builder, depth int) {
	pick := func(list ...string) string { return list[rnd.IntN(len(list))] }
	space := func() {
		if rnd.IntN(20) == 0 {
			b.WriteString(pick(" ", "\n", "\t ", "x"))
		}
	}
	var value func(depth int)
	value = func(depth int) {
		switch n := rnd.IntN(12); {
		case n == 0 && depth < 5:
			randomDoc(rnd, b, depth+1)
		case n == 1 && depth < 5:
			b.WriteByte('[')
			for i := range rnd.IntN(4) {
				if i > 0 {
					b.WriteByte(',')
				}
				space()
				value(depth + 1)
				space()
			}
			b.WriteByte(']')
		case n < 4:
			b.WriteString(pick("1", "-7", "0", "-0", "12.0", "2.5", "1e3", "9007199254740993", "123456789012345678901", "1e999", "01"))
		default:
			b.WriteString(pick(`"text"`, `"a longer text without anything in it"`, `"é"`, `"a\nb"`, `"\ud800"`, "\"\xff\"", `"12"`, `"true"`, `""`, "true", "false", "null", "nul"))
		}
	}
	b.WriteByte('{')
	at := rnd.IntN(8)
	for i := range rnd.IntN(7) {
		if i > 0 {
			b.WriteByte(',')
		}
		space()
		keys := []string{"a", "b", "c.d", "c_d", "e", "f.g", "h", "i", "[]", "\\u0061", "é", "\xff", "a key that is far too long", "x"}
		if at++; rnd.IntN(4) == 0 {
			at = rnd.IntN(len(keys))
		}
		b.WriteString(`"` + keys[at%len(keys)] + `"`)
		space()
		b.WriteByte(':')
		space()
		value(depth)
		space()
	}
	b.WriteByte('}')
}

// TestRememberedKeys holds that what a Normalizer remembers of earlier events,
// of several apps, changes nothing.
func TestRememberedKeys(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	for _, limits := range []Limits{DefaultLimits(), {Keys: 6, Depth: 3, KeyBytes: 10, ValueBytes: 20, AppKeys: 12}} {
		n := New(limits)
		r := types()
		offset := int64(0)
		for round := range 200 {
			// Another view with each round: one key more that has a type, or another type.
			paths := []string{"a", "b", "c_d", "e", "e.a", "e.c_d", "f_g", "h", "h.[]", "h.[].a", "h.[].b", "i", "i.[]", "é", "a.b"}
			path := []string{Properties, Traits}[rnd.IntN(2)] + "." + paths[rnd.IntN(len(paths))]
			r.Apply(Change{Key: Key{[]string{"a", "z"}[rnd.IntN(2)], path}, Offset: offset, Entry: Entry{Type: Type(rnd.IntN(int(numTypes))), Pinned: round%5 == 0}})
			offset++
			for range 100 {
				var b strings.Builder
				randomDoc(rnd, &b, 0)
				bothWays(t, n, r.View(), []string{"a", "z", "new"}[rnd.IntN(3)], b.String())
			}
		}
		if len(n.memo.apps) != 3 || n.memo.size < 20 {
			t.Errorf("%d apps and %d keys are remembered: the test holds nothing", len(n.memo.apps), n.memo.size)
		}
	}
}

// TestMemoIsBounded holds that keys and apps without end are not remembered.
func TestMemoIsBounded(t *testing.T) {
	n, r := New(DefaultLimits()), types("properties.a integer")
	for i := range 3 * maxMemo {
		bothWays(t, n, r.View(), "a", fmt.Sprintf(`{"a":1,"k%d":null}`, i))
		bothWays(t, n, r.View(), fmt.Sprint("app-", i%(2*maxMemo)), `{"a":null}`)
	}
	if n.memo.size > maxMemo || len(n.memo.apps) > maxMemo {
		t.Errorf("%d are remembered, %d apps", n.memo.size, len(n.memo.apps))
	}
}
