package relearn

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/identity"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/locallog"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// file is the calls as `rollup-writer identity export` writes them.
func file(t *testing.T, calls []event.KnownCall) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	out := json.NewEncoder(zip)
	n := int64(len(calls))
	for _, x := range []any{event.KnownHeader{Version: event.KnownVersion}, calls, event.KnownCall{End: &n}} {
		if list, ok := x.([]event.KnownCall); ok {
			for i := range list {
				if err := out.Encode(list[i]); err != nil {
					t.Fatal(err)
				}
			}
		} else if err := out.Encode(x); err != nil {
			t.Fatal(err)
		}
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// learnt are states that were restored from what a file left in enricher-state.
func learnt(t *testing.T, calls []event.KnownCall, partitions int32) []*identity.State {
	t.Helper()
	l := newLearner(partitions)
	if err := Scan(bytes.NewReader(file(t, calls)), l.learn); err != nil {
		t.Fatal(err)
	}
	var states []*identity.State
	for p := range partitions {
		s := identity.New(identity.DefaultConfig(partitions), p, l.codec, nil)
		for key, value := range l.newest[p] {
			if err := s.Apply([]byte(key), value); err != nil {
				t.Fatal(err)
			}
		}
		states = append(states, s)
	}
	return states
}

// resolves is whom and what account an event counts for.
func resolves(t *testing.T, states []*identity.State, user, anonymous string, at time.Time) string {
	t.Helper()
	p := topic.Partition(topic.RawKey(nil, "shop", user, anonymous, ""), int32(len(states)))
	tx := states[p].Begin()
	defer tx.Rollback()
	raw := event.RawEvent{AppID: "shop", Kind: event.KindTrack, Event: "e", UserID: user, AnonymousID: anonymous, Quantity: 1}
	if tx.Erased(&raw) {
		return "dropped"
	}
	var out identity.Outputs
	res, err := tx.Event(1, &raw, event.FromTime(at), &out)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %s %s/%s", res.ActorKind, res.ActorID, res.AccountID, res.Role)
}

func TestIdentitiesAreLearntAgain(t *testing.T) {
	day := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	hour := func(n int) time.Time { return day.Add(time.Duration(n) * time.Hour) }
	key := bytes.Repeat([]byte{7}, event.EraseKeyBytes)
	gone := event.NewEraseHasher(key).Hash(topic.KeyUser, "gone")
	calls := []event.KnownCall{
		{AppID: "shop", Kind: event.KnownErased, Erased: &event.ErasedIDs{Key: key, Hashes: [][]byte{gone[:]}}},
		{AppID: "shop", Kind: event.KindIdentify, At: hour(1), UserID: "jane", AnonymousID: "phone"},
		{AppID: "shop", Kind: event.KindGroup, At: hour(2), UserID: "jane", AccountID: "acme", Role: "nurse"},
		{AppID: "shop", Kind: event.KindIdentify, At: hour(3), UserID: "joan", AnonymousID: "kiosk"},
		{AppID: "shop", Kind: event.KindIdentify, At: hour(4), UserID: "jane", AnonymousID: "kiosk"},
		{AppID: "shop", Kind: event.KindAlias, At: hour(5), PreviousID: "j.doe", UserID: "jane"},
		{AppID: "shop", Kind: event.KindGroup, At: hour(6), UserID: "jane", AccountID: "globex", Role: "owner"},
		{AppID: "shop", Kind: event.KindIdentify, At: hour(7), UserID: "joan", AnonymousID: "wrong"},
		{AppID: "shop", Kind: event.KnownUnlink, At: hour(8), IDKind: event.ActorAnonymous, ID: "wrong", UserID: "joan"},
	}
	for _, partitions := range []int32{1, 4, 12} {
		states := learnt(t, calls, partitions)
		for _, tc := range []struct {
			user, anonymous string
			at              int
			want            string
		}{
			{"", "phone", 9, "user jane globex/owner"},
			{"", "phone", 3, "user jane acme/nurse"},
			{"jane", "", 9, "user jane globex/owner"},
			{"j.doe", "", 9, "user jane globex/owner"},
			{"", "j.doe", 9, "user jane globex/owner"},
			{"", "kiosk", 9, "user jane globex/owner"},
			{"joan", "", 9, "user joan /"},
			{"", "wrong", 9, "anonymous wrong /"},
			{"", "new", 9, "anonymous new /"},
			{"gone", "", 9, "dropped"},
		} {
			if got := resolves(t, states, tc.user, tc.anonymous, hour(tc.at)); got != tc.want {
				t.Errorf("%d partitions: an event of %q/%q at %d counts for %s, want %s", partitions, tc.user, tc.anonymous, tc.at, got, tc.want)
			}
		}
	}
}

// The number of partitions does not matter to whom events count for.
func TestLearntAlikeInAnyNumberOfPartitions(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		var calls []event.KnownCall
		at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		id := func(kind string, n int) string { return fmt.Sprintf("%s%d", kind, r.IntN(n)) }
		for range 60 {
			at = at.Add(time.Duration(1+r.IntN(200)) * time.Minute)
			c := event.KnownCall{AppID: "shop", At: at, Kind: event.KindIdentify, UserID: id("u", 5)}
			switch r.IntN(4) {
			case 0:
				c.Kind, c.AccountID, c.Role = event.KindGroup, id("acct", 3), id("role", 2)
			case 1:
				c.Kind, c.PreviousID = event.KindAlias, id("u", 5)
			default:
				c.AnonymousID = id("a", 8)
			}
			calls = append(calls, c)
		}
		var first []string
		for _, partitions := range []int32{1, 3, 8} {
			states := learnt(t, calls, partitions)
			var got []string
			for n := range 8 {
				got = append(got, resolves(t, states, "", fmt.Sprintf("a%d", n), at), resolves(t, states, fmt.Sprintf("u%d", n%5), "", at))
			}
			if first == nil {
				first = got
			} else if !slices.Equal(first, got) {
				t.Fatalf("seed %d, %d partitions: %q, want %q", seed, partitions, got, first)
			}
		}
	}
}

func TestFilesThatAreNotWholeAreRefused(t *testing.T) {
	whole := file(t, []event.KnownCall{{AppID: "shop", Kind: event.KindIdentify, UserID: "u", AnonymousID: "a"}})
	for what, data := range map[string][]byte{"damaged": whole[:len(whole)-4], "cut short": whole[:len(whole)/2], "no file": []byte("{}"), "does not know": file(t, []event.KnownCall{{Kind: "x"}})} {
		if err := Scan(bytes.NewReader(data), func(*event.KnownCall) error { return nil }); err == nil || (!strings.Contains(err.Error(), what) && !strings.Contains(err.Error(), "no file")) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What a file leaves in the topic is what enrichers restore from.
func TestInto(t *testing.T) {
	log, err := locallog.Start(locallog.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(log.Addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	layout := topic.SingleLayout()
	if err := topic.Unprefixed.Ensure(t.Context(), kadm.NewClient(cl), layout); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	data := file(t, []event.KnownCall{
		{AppID: "shop", Kind: event.KindIdentify, At: at, UserID: "jane", AnonymousID: "phone"},
		{AppID: "shop", Kind: event.KindGroup, At: at, UserID: "jane", AccountID: "acme", Role: "nurse"},
	})
	report, err := Into(t.Context(), cl, topic.Unprefixed, bytes.NewReader(data))
	if err != nil || report.Calls != 2 || report.Records == 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	var states []*identity.State
	records := int64(0)
	for p := range layout.Partitions {
		s := identity.New(identity.DefaultConfig(layout.Partitions), p, event.NewCodec(), nil)
		err := reader.On(cl).All(t.Context(), topic.Unprefixed.EnricherState, p, func(r *kgo.Record) error {
			records++
			return s.Apply(r.Key, r.Value)
		})
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, s)
	}
	if got := resolves(t, states, "", "phone", at.Add(time.Hour)); got != "user jane acme/nurse" || records != report.Records {
		t.Errorf("an event counts for %s; %d records, reported %d", got, records, report.Records)
	}
	if _, err := Into(t.Context(), cl, topic.Unprefixed, bytes.NewReader(data)); err == nil || !strings.Contains(err.Error(), "into an empty topic only") {
		t.Errorf("over records: %v", err)
	}
}
