// Package collide generates strings that collide under hashes without a secret, as a
// hostile sender would. Tests use it to show that tables do not depend on such hashes.
package collide

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
	"math/rand/v2"
)

// Constants of XXH64: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
const (
	prime1 = 11400714785074694791
	prime2 = 14029467366897019727
	prime4 = 9650029242287828579
	prime5 = 2870177450012600261
)

// XXH64 returns n different strings of ASCII such that prefix and any one of them
// together have the same XXH64 with the seed 0. prefix must have at most 8 bytes.
func XXH64(prefix string, n int) []string {
	list := make([]string, 0, n)
	for s := range XXH64Seq(prefix) {
		if len(list) == n {
			break
		}
		list = append(list, s)
	}
	return list
}

// XXH64Seq is XXH64 without an end.
//
// Below 32 bytes XXH64 folds in 8 bytes at a time, and each step is invertible:
// for any first 8 bytes there are others that lead to a state that was chosen.
func XXH64Seq(prefix string) iter.Seq[string] {
	head := prefix
	for len(head) < 8 {
		head += "x"
	}
	return func(yield func(string) bool) {
		rnd := rand.New(rand.NewPCG(1, 2))
		start := step(prime5+24, binary.LittleEndian.Uint64([]byte(head)))
		var target uint64
		var b [16]byte
		for first := true; ; {
			for i := range 8 {
				b[i] = printable[rnd.IntN(len(printable))]
			}
			h := step(start, binary.LittleEndian.Uint64(b[:]))
			if first {
				target = step(h, binary.LittleEndian.Uint64([]byte("whatever")))
			}
			// target = rotl(h ^ round(k), 27)*prime1 + prime4, to be solved for k.
			round := bits.RotateLeft64((target-prime4)*inverse(prime1), -27) ^ h
			k := bits.RotateLeft64(round*inverse(prime1), -31) * inverse(prime2)
			binary.LittleEndian.PutUint64(b[8:], k)
			if !ascii(b[8:]) {
				continue
			}
			if first = false; !yield(head[len(prefix):] + string(b[:])) {
				return
			}
		}
	}
}

func step(h, k uint64) uint64 {
	h ^= bits.RotateLeft64(k*prime2, 31) * prime1
	return bits.RotateLeft64(h, 27)*prime1 + prime4
}

// inverse returns the number that p, which is odd, has to be multiplied with to
// give 1 modulo 2^64.
func inverse(p uint64) uint64 {
	x := p // right in the last 3 bits; each step doubles them
	for range 5 {
		x *= 2 - p*x
	}
	return x
}

const printable = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

func ascii(b []byte) bool {
	for _, c := range b {
		if c == 0 || c >= 0x80 {
			return false
		}
	}
	return true
}

// FNV1a returns n different strings of equal length whose FNV-1a of 32 bits have
// the same last bits.
//
// The last bits of a state depend on those of the state before alone. So blocks
// of three characters that lead from one state to the same next one can be put
// together in all combinations.
func FNV1a(n, lastBits int) []string {
	mask := uint32(1)<<lastBits - 1
	state := uint32(2166136261)
	list := []string{""}
	for len(list) < n {
		byEnd := map[uint32][]string{}
		var best uint32
		for _, a := range printable {
			for _, b := range printable {
				for _, c := range printable {
					h := state
					for _, x := range []rune{a, b, c} {
						h = (h ^ uint32(x)) * 16777619
					}
					h &= mask
					byEnd[h] = append(byEnd[h], fmt.Sprintf("%c%c%c", a, b, c))
					if len(byEnd[h]) > len(byEnd[best]) {
						best = h
					}
				}
			}
		}
		var longer []string
		for _, s := range list {
			for _, block := range byEnd[best] {
				longer = append(longer, s+block)
			}
		}
		list, state = longer, best
	}
	return list[:n]
}
