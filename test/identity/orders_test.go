package identity

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

// step is a message of a shared device: a visitor's event, or with a user an identify.
type step struct {
	at   time.Duration // after the start of an hour
	user string
}

// The messages of a till, in the order of time, whose second hour a link cuts. Of the
// longer one two links are of one instant, and events lie at it and just before it.
var (
	shortTill = []step{{20 * time.Minute, ""}, {40 * time.Minute, "b"}, {65 * time.Minute, ""}, {70 * time.Minute, "c"}, {70*time.Minute + 100*time.Millisecond, ""}}
	longTill  = []step{
		{40 * time.Minute, "b"},
		{65 * time.Minute, ""},
		{70*time.Minute - time.Microsecond, ""},
		{70 * time.Minute, "c"},
		{70 * time.Minute, "d"},
		{70 * time.Minute, ""},
		{90 * time.Minute, "b"},
	}
)

// tills are one device for each order in which its messages can arrive, and these
// messages.
func tills(start time.Time) (all []*world, sequences [][]call) {
	steps := shortTill
	if longtest.Enabled() {
		steps = longTill
	}
	permute(make([]int, 0, len(steps)), len(steps), func(order []int) {
		prefix := fmt.Sprintf("t%d-", len(all))
		w := &world{prefix: prefix, said: map[string][]said{}, anons: []string{prefix + "till"}}
		calls := make([]call, len(steps))
		for i, s := range steps {
			k := &calls[i]
			k.AppID, k.MessageID, k.Quantity, k.Protocol = stack.App, fmt.Sprintf("%sm%d", prefix, i), 1, "segment"
			k.Timestamp, k.ReceivedAt = event.FromTime(start.Add(s.at)), event.FromTime(time.Now())
			if k.AnonymousID = w.anons[0]; s.user == "" {
				k.Kind, k.Event = event.KindTrack, loadgen.ItemScanned
				w.usage = append(w.usage, *k)
				continue
			}
			k.Kind, k.UserID = event.KindIdentify, prefix+s.user
			w.said[k.AnonymousID] = append(w.said[k.AnonymousID], said{k.Timestamp, k.UserID, true})
		}
		sequence := make([]call, len(order))
		for i, n := range order {
			sequence[i] = calls[n]
		}
		all, sequences = append(all, w), append(sequences, sequence)
	})
	return all, sequences
}

// plans are what a user's calls state of one trait at one instant, in the order in
// which they are sent. The last one counts, which is neither the greatest text nor
// the least.
var plans = []string{"pro", "trial", "basic", "free"}

// profiles are users of whom [plans] are stated, in requests of their own and in one,
// and the first call once more at the end.
func profiles(start time.Time) (sequences [][]call) {
	for user := range 10 {
		var sequence []call
		for i, plan := range append(slices.Clone(plans), plans[0]) {
			var k call
			k.AppID, k.MessageID, k.Quantity, k.Protocol = stack.App, fmt.Sprintf("profile-%d-%d", user, i%len(plans)), 1, "segment"
			k.Kind, k.UserID = event.KindIdentify, fmt.Sprint("profile-", user)
			k.Timestamp, k.ReceivedAt = event.FromTime(start.Add(time.Hour)), event.FromTime(start.Add(2*time.Hour))
			if user%2 == 0 {
				k.ReceivedAt += event.Micros(i)
			}
			k.Traits = fmt.Appendf(nil, `{"plan":%q}`, plan)
			sequence = append(sequence, k)
		}
		sequences = append(sequences, sequence)
	}
	return sequences
}

// permute calls fn with every order of n numbers.
func permute(order []int, n int, fn func([]int)) {
	if len(order) == n {
		fn(order)
		return
	}
	for i := range n {
		if !slices.Contains(order, i) {
			permute(append(order, i), n, fn)
		}
	}
}

// mix puts sequences among calls: half of them spread out, so that each message is
// carried out before the next arrives, the other half in one piece, as a file is sent.
func mix(rnd *rand.Rand, calls []call, sequences [][]call) []call {
	type placed struct {
		at float64
		call
	}
	var all []placed
	for _, k := range calls {
		all = append(all, placed{rnd.Float64(), k})
	}
	for i, s := range sequences {
		at := make([]float64, len(s))
		for n := range at {
			if at[n] = rnd.Float64(); i%2 == 1 {
				at[n] = at[0]
			}
		}
		slices.Sort(at)
		for n, k := range s {
			all = append(all, placed{at[n], k})
		}
	}
	slices.SortStableFunc(all, func(a, b placed) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	calls = calls[:0]
	for _, p := range all {
		calls = append(calls, p.call)
	}
	return calls
}
