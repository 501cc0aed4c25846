package identity

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/uptakehq/uptake/schemas/event"
)

// million is a partition that knows a million ids: half a million users, each
// with an anonymous id linked to it, one in two in an account.
var million = sync.OnceValue(func() *filled {
	f := &filled{st: New(DefaultConfig(1), 0, event.NewCodec(), nil)}
	seed := rand.NewChaCha8([32]byte{1})
	uuid.SetRand(seed)
	defer uuid.SetRand(nil)
	f.before = heap()
	out := &Outputs{}
	var key, value int64
	for i := range 500_000 {
		u, a := fmt.Sprintf("user-%d@example.test", i), uuid.NewString()
		f.users, f.anons = append(f.users, u), append(f.anons, a)
		tx := f.st.Begin()
		for _, raw := range []event.RawEvent{
			{Kind: event.KindGroup, UserID: u, AccountID: fmt.Sprintf("acct-%d", i/20), Traits: []byte(`{"role":"admin"}`)},
			{Kind: event.KindIdentify, UserID: u, AnonymousID: a},
		} {
			if raw.Kind == event.KindGroup && i%2 == 1 {
				continue
			}
			raw.AppID, raw.MessageID = "production", "m"
			out.Reset()
			if _, err := tx.Event(int64(i), &raw, epoch, out); err != nil {
				panic(err)
			}
			for _, c := range out.Changes {
				f.changes = append(f.changes, c)
				key += int64(len(c.Key))
				value += int64(len(c.Value))
			}
		}
		tx.Flush(out)
		tx.Commit()
	}
	f.stats = f.st.Stats()
	f.logBytes = key + value
	return f
})

type filled struct {
	st       *State
	users    []string
	anons    []string
	changes  []Change
	before   uint64
	stats    Stats
	logBytes int64
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkEvent is the cost of an event with a million known ids.
func BenchmarkEvent(b *testing.B) {
	f := million()
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, bc := range []struct {
		name string
		make func(i int) event.RawEvent
	}{
		{"user", func(i int) event.RawEvent { return event.RawEvent{Kind: event.KindTrack, UserID: f.users[i]} }},
		{"user and account", func(i int) event.RawEvent {
			return event.RawEvent{Kind: event.KindTrack, UserID: f.users[i], AccountID: "acct-7"}
		}},
		{"user and anonymous id", func(i int) event.RawEvent {
			return event.RawEvent{Kind: event.KindTrack, UserID: f.users[i], AnonymousID: f.anons[i]}
		}},
		{"linked anonymous id", func(i int) event.RawEvent { return event.RawEvent{Kind: event.KindTrack, AnonymousID: f.anons[i]} }},
		{"unknown anonymous id", func(i int) event.RawEvent {
			return event.RawEvent{Kind: event.KindTrack, AnonymousID: fmt.Sprint("new-", i)}
		}},
		{"identify again", func(i int) event.RawEvent {
			return event.RawEvent{Kind: event.KindIdentify, UserID: f.users[i], AnonymousID: f.anons[i]}
		}},
		{"group again", func(i int) event.RawEvent {
			return event.RawEvent{Kind: event.KindGroup, UserID: f.users[i&^1], AccountID: fmt.Sprintf("acct-%d", i/20), Traits: []byte(`{"plan":"pro"}`)}
		}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			events := make([]event.RawEvent, 1<<16)
			for i := range events {
				events[i] = bc.make(rnd.IntN(len(f.users)))
				// As decoded, one record after the other in memory.
				events[i].UserID, events[i].AnonymousID = strings.Clone(events[i].UserID), strings.Clone(events[i].AnonymousID)
				events[i].AppID, events[i].MessageID = "production", "m"
			}
			out := &Outputs{}
			tx := f.st.Begin()
			defer tx.Rollback()
			b.ReportAllocs()
			b.SetBytes(int64(len(events[0].AppID) + len(events[0].UserID) + len(events[0].AnonymousID) + len(events[0].AccountID)))
			b.ResetTimer()
			for i := range b.N {
				out.Reset()
				if _, err := tx.Event(int64(i), &events[i&(len(events)-1)], epoch+minute, out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRestore is the cost of a record of the changelog; bytes are of
// memory for each id, and of the log.
func BenchmarkRestore(b *testing.B) {
	f := million()
	var key, value []byte
	b.ReportAllocs()
	b.SetBytes(f.logBytes / int64(len(f.changes)))
	b.ResetTimer()
	var st *State
	var before uint64
	for i := range b.N {
		if i%len(f.changes) == 0 {
			b.StopTimer()
			st = nil //nolint:ineffassign,wastedassign // so that heap does not count it
			before = heap()
			st = New(DefaultConfig(1), 0, event.NewCodec(), nil)
			b.StartTimer()
		}
		c := f.changes[i%len(f.changes)]
		key, value = append(key[:0], c.Key...), append(value[:0], c.Value...)
		if err := st.Apply(key, value); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if b.N >= len(f.changes) {
		b.ReportMetric(float64(heap()-before)/float64(st.Stats().IDs), "heapB/id")
	}
	b.ReportMetric(float64(f.stats.Bytes)/float64(f.stats.IDs), "stateB/id")
	b.ReportMetric(float64(f.logBytes)/float64(f.stats.IDs), "logB/id")
	b.ReportMetric(float64(len(f.changes))/float64(f.stats.IDs), "records/id")
	runtime.KeepAlive(st)
}

// BenchmarkLink is the cost of a claim of a new anonymous id, with its
// correction.
func BenchmarkLink(b *testing.B) {
	st := New(DefaultConfig(1), 0, event.NewCodec(), nil)
	out := &Outputs{}
	tx := st.Begin()
	b.ReportAllocs()
	for i := range b.N {
		raw := event.RawEvent{AppID: app, Kind: event.KindIdentify, MessageID: "m", UserID: fmt.Sprint("u", i), AnonymousID: fmt.Sprint("a", i)}
		out.Reset()
		if _, err := tx.Event(int64(i), &raw, epoch, out); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 0 {
			tx.Flush(out)
			tx.Commit()
			tx = st.Begin()
		}
	}
}

// BenchmarkErased is what an event costs more in an app of which a thousand ids
// were erased: a user's and an anonymous id to look up.
func BenchmarkErased(b *testing.B) {
	st := New(DefaultConfig(1), 0, event.NewCodec(), nil)
	st.erased = erasures{}
	set := st.erased.of(app, eraseKey)
	for i := range 1000 {
		set.hashes[set.Hash('u', fmt.Sprint("gone-", i))] = struct{}{}
	}
	tx := st.Begin()
	raw := event.RawEvent{AppID: app, UserID: "user-7@example.test", AnonymousID: "0b6c3a0e-7a1f-4d0c-9b57-3c4a5d9e8f10"}
	b.ReportAllocs()
	for b.Loop() {
		if tx.Erased(&raw) {
			b.Fatal("erased")
		}
	}
}
