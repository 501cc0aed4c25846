package alert

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// cost is what a step of a round takes.
type cost struct {
	here, server time.Duration // CPU of this process, and of ClickHouse
}

// spent is the CPU time that this process and the server have used so far.
func spent(t *testing.T, server int) cost {
	t.Helper()
	var used [2]time.Duration
	for i, pid := range []int{os.Getpid(), server} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Skip(err)
		}
		_, after, _ := strings.Cut(string(text), ") ")
		for _, field := range strings.Fields(after)[11:13] { // user and system time
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			used[i] += time.Duration(n) * 10 * time.Millisecond // USER_HZ of Linux
		}
	}
	return cost{used[0], used[1]}
}

func (c cost) less(o cost) cost { return cost{c.here - o.here, c.server - o.server} }

// TestCostOfARound measures the CPU time of rounds of one definition for 100,000
// accounts with 30 rows each in the daily rollup: the first, which knows nothing, one of
// all accounts and one of the 1 % that have changed.
func TestCostOfARound(t *testing.T) {
	longtest.Only(t)
	const accounts, rows = 100_000, 30
	w := newWorld(t, 1)
	ctx := context.Background()
	insert := func(accounts, rows, event int) {
		t.Helper()
		if err := w.SQL.Exec(ctx, fmt.Sprintf(`INSERT INTO user_feature_daily (app_id, account_id, actor_id, actor_kind, role, feature_id, day, events, quantity)
			SELECT 'dev', concat('account-', toString(number %% %[1]d)) AS account, concat('user of ', account), 'user', 'member', concat('feature-', toString((number + intDiv(number, %[1]d)) %% 7)),
				toDate('2026-11-19') - intDiv(number, %[1]d) * (1 + number %% 2), %[3]d, %[3]d
			FROM numbers(%[2]d)`, accounts, accounts*rows, event)); err != nil {
			t.Fatal(err)
		}
	}
	insert(accounts, rows, 3)
	pid := embedded.ForTest(t).Pid()
	for _, tc := range []struct {
		name    string
		records int // of the first round
		text    string
	}{
		{"segment: 3 days of 28", 2 * accounts, `
insight: shop
segments: [{id: regular, description: d, owner: cs, where: [{measure: {count: days, window: 28d}, at_least: 3}]}]
`},
		{"alert: relative to 4 weeks", 0, `
insight: shop
alerts: [{id: less, description: d, owner: cs, measure: {count: events, window: 7d}, fires: {below: 50%, of_previous: 4, baseline_at_least: 5}, severity: info}]
`},
		{"health: 3 measures, 3 bands", 6 * accounts, `
insight: shop
health:
  - id: fit
    description: d
    owner: cs
    parts:
      - {id: breadth, measure: {count: features, window: 14d}, yardstick: 3, weight: 2}
      - {id: depth, measure: {count: events, window: 7d}, yardstick: 10}
      - {id: frequency, measure: {count: days, window: 28d}, yardstick: 12}
    bands: [{id: low, from: 0}, {id: middle, from: 35}, {id: high, from: 70}]
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := insight.Parse([]byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			list := signals([]dated{{From: now, Rules: d.Rules, signals: d.Signals}})
			s := w.evaluator()
			tick := s.nowTick(now)
			round := func(what string, within *scope) int {
				begun := spent(t, pid)
				parts, b, err := s.read(ctx, "dev", list, tick, within)
				if err != nil {
					t.Fatal(err)
				}
				read := spent(t, pid)
				records := s.decide("dev", list, parts[0].facts, tick, false)
				done := spent(t, pid)
				r, e := read.less(begun), done.less(read)
				t.Logf("%s: %.2f s CPU: ClickHouse %.2f, reading %.2f, evaluating %.2f; %d records", what,
					(r.here + r.server + e.here + e.server).Seconds(), (r.server + e.server).Seconds(), r.here.Seconds(), e.here.Seconds(), len(records))
				for i, rec := range records {
					rec.Offset = int64(i)
					if rec.Topic == topic.Unprefixed.AlertState {
						if err := s.memory.takeState(rec); err != nil {
							t.Fatal(err)
						}
					}
				}
				s.base = &base{apps: map[string]*appBase{"dev": b}}
				s.memory.settled("dev")
				return len(records)
			}
			if n := round("from scratch", nil); n != tc.records {
				t.Errorf("got %d records, want %d", n, tc.records)
			}
			insert(accounts/100, 1, 1)
			round("all again", nil)
			// What the log says of it: an event of each of those accounts.
			s.base.next = map[int32]int64{0: w.next[0]}
			var values [][]byte
			for i := range accounts / 100 {
				id := fmt.Sprint("account-", i)
				e := event.EnrichedEvent{AppID: "dev", Kind: event.KindTrack, Event: "Scan", MessageID: id, AccountID: id, UserID: "user of " + id, ActorID: "user of " + id, ActorKind: event.ActorUser, Properties: []byte(`{"sku":"0815"}`)}
				values = append(values, w.Codec.AppendEnriched(nil, &e))
			}
			w.Produce(topic.Unprefixed.Enriched, 0, values...)
			w.next[0] += int64(len(values))
			begun := spent(t, pid)
			at := position{next: map[int32]int64{0: w.next[0]}, log: map[int32]reader.Bounds{0: {End: w.next[0]}}}
			changes, why, err := s.changes(ctx, 0, "", at)
			if err != nil || why != "" {
				t.Fatal(why, err)
			}
			within, why, err := s.changed(ctx, "dev", list, changes["dev"])
			if err != nil || why != "" || len(within.accounts) != accounts/100 {
				t.Fatal(within, why, err)
			}
			c := spent(t, pid).less(begun)
			t.Logf("reading what has changed from the log: %.2f s CPU", (c.here + c.server).Seconds())
			round("1 % changed", within)
		})
	}
}
