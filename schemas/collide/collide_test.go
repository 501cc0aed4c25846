package collide

import (
	"hash/fnv"
	"testing"

	"github.com/cespare/xxhash/v2"
)

func TestTheyCollide(t *testing.T) {
	seen := map[string]bool{}
	first := xxhash.Sum64String("dev\x00a" + XXH64("dev\x00a", 1)[0])
	for _, s := range XXH64("dev\x00a", 1000) {
		if h, want := xxhash.Sum64String("dev\x00a"+s), first; h != want || seen[s] {
			t.Fatalf("%q: got %x, want %x, once", s, h, want)
		}
		seen[s] = true
	}
	var want uint32
	for i, s := range FNV1a(5000, 14) {
		h := fnv.New32a()
		h.Write([]byte(s))
		if got := h.Sum32() & (1<<14 - 1); (i > 0 && got != want) || seen[s] {
			t.Fatalf("%q: got %x, want %x, once", s, got, want)
		} else {
			want = got
		}
		seen[s] = true
	}
}
