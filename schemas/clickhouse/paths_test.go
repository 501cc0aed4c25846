package clickhouse

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
)

// assignment says that an account is below another one from an instant on.
type assignment struct {
	account, parent string
	at              int // minutes
}

// forest is what was said of the parents of accounts of one app.
type forest []assignment

// grow says random things: trees, moves within them, and assignments that lead
// back or are said at the same instant as others.
func grow(rnd *rand.Rand) forest {
	n, instants := 3+rnd.IntN(10), 2+rnd.IntN(20)
	set := map[assignment]bool{}
	for len(set) < n || rnd.IntN(n) > 0 {
		child, parent := rnd.IntN(n), rnd.IntN(n)
		if rnd.IntN(3) > 0 && parent > child {
			child, parent = parent, child // most of the time a tree
		}
		if child != parent {
			set[assignment{fmt.Sprintf("a%d", child), fmt.Sprintf("a%d", parent), rnd.IntN(instants)}] = true
		}
	}
	var f forest
	for a := range set {
		f = append(f, a)
	}
	slices.SortFunc(f, func(a, b assignment) int {
		return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.at, b.at), cmp.Compare(a.parent, b.parent))
	})
	return f
}

// parent is the one that an account has at an instant.
func (f forest) parent(account string, at int) string {
	p := ""
	for _, a := range f {
		if a.account == account && a.at <= at {
			p = a.parent
		}
	}
	return p
}

// path are the ancestors of an account at an instant, itself first.
func (f forest) path(account string, at int) []string {
	list := []string{account}
	for {
		p := f.parent(list[len(list)-1], at)
		if p == "" || slices.Contains(list, p) {
			return list
		}
		list = append(list, p)
	}
}

// inForce leaves out what leads back when it is said, and what is said of the
// same account at the same instant.
func (f forest) inForce() forest {
	refused := map[assignment]bool{}
	for _, a := range f {
		if slices.Contains(f.path(a.parent, a.at), a.account) {
			refused[assignment{account: a.account, at: a.at}] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(f), func(a assignment) bool { return refused[assignment{account: a.account, at: a.at}] })
}

func (f forest) accounts() []string {
	var list []string
	for _, a := range f {
		list = append(list, a.account, a.parent)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

const pathsStart = "2026-11-21 10:00:00"

// plant says forests, one of each app, app0 and on.
func plant(t testing.TB, conn installed, forests []forest) {
	t.Helper()
	start, err := time.Parse(time.DateTime, pathsStart)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for i, f := range forests {
		for _, a := range f {
			at := start.Add(time.Duration(a.at) * time.Minute).Format(time.DateTime)
			values = append(values, fmt.Sprintf("('app%d', 'parent', '%s', '%s', '%s', '%s', ('%s', ''))", i, a.account, a.parent, at, at, at))
		}
	}
	ctx := clickhousego.Context(context.Background(), clickhousego.WithSettings(clickhousego.Settings{"max_query_size": 64 << 20}))
	err = conn.machinery.Exec(ctx, "INSERT INTO identity_facts (app_id, fact, subject, object, at, first, last) VALUES "+strings.Join(values, ", "))
	if err != nil {
		t.Fatal(err)
	}
}

func TestPathsOfRandomForests(t *testing.T) {
	conn := schema(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	forests := make([]forest, 250)
	refused, moved := 0, 0
	for i := range forests {
		forests[i] = grow(rnd)
	}
	plant(t, conn, forests)
	check := func() {
		t.Helper()
		var paths, subtree, history []string
		for i, f := range forests {
			kept := f.inForce()
			refused += len(f) - len(kept)
			for _, account := range f.accounts() {
				path := kept.path(account, 1000)
				paths = append(paths, fmt.Sprintf("app%d %s", i, strings.Join(path, ">")))
				for depth, above := range path {
					subtree = append(subtree, fmt.Sprintf("app%d %s %s %d", i, above, account, depth))
				}
				// Every minute has one row, and the row is right.
				for at := -1; at <= 22; at++ {
					was := kept.path(account, at)
					if !slices.Equal(was, path) {
						moved++
					}
					history = append(history, fmt.Sprintf("app%d %d %s", i, at, strings.Join(was, ">")))
				}
			}
		}
		for what, list := range map[string][2][]string{
			"paths":   {table(t, conn, "SELECT app_id, arrayStringConcat(ancestors, '>') FROM account_paths"), paths},
			"subtree": {table(t, conn, "SELECT app_id, account_id, member_id, toString(depth) FROM account_subtree"), subtree},
			"history": {table(t, conn, `SELECT app_id, toString(arrayJoin(range(24)) - 1) AS minute, arrayStringConcat(ancestors, '>') FROM account_paths_history
				WHERE toDateTime64('`+pathsStart+`', 6, 'UTC') + toIntervalMinute(toInt32(minute)) >= valid_from AND toDateTime64('`+pathsStart+`', 6, 'UTC') + toIntervalMinute(toInt32(minute)) < valid_to`), history},
		} {
			got, want := list[0], list[1]
			slices.Sort(got)
			slices.Sort(want)
			if slices.Equal(got, want) {
				continue
			}
			i := 0
			for i < len(got) && i < len(want) && got[i] == want[i] {
				i++
			}
			t.Errorf("%s: %d rows, want %d; at %d got %q, want %q", what, len(got), len(want), i, got[i:min(i+3, len(got))], want[i:min(i+3, len(want))])
		}
	}
	check()
	if refused == 0 || moved == 0 {
		t.Fatalf("%d assignments refused and %d moves: the forests are too tame", refused, moved)
	}
	// Something else is said, and counts at once.
	more := make([]forest, len(forests))
	for i, f := range forests {
		accounts := f.accounts()
		a := assignment{accounts[rnd.IntN(len(accounts))], "new", 21}
		more[i] = forest{a}
		forests[i] = append(f, a)
		slices.SortFunc(forests[i], func(a, b assignment) int {
			return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.at, b.at), cmp.Compare(a.parent, b.parent))
		})
	}
	plant(t, conn, more)
	check()
}

// More than 64 accounts above one: the nearest are told, and the walk ends.
func TestPathsAreBounded(t *testing.T) {
	conn := schema(t)
	var f forest
	for i := range 100 {
		f = append(f, assignment{fmt.Sprintf("a%03d", i), fmt.Sprintf("a%03d", i+1), 0})
	}
	plant(t, conn, []forest{f})
	for _, view := range []string{"account_paths", "account_paths_history WHERE valid_to > now64()"} {
		same(t, view, table(t, conn, "SELECT toString(count()), toString(uniqExact(account_id)), toString(max(length(ancestors))), toString(min(length(ancestors))) FROM "+view), "101 101 65 1")
	}
}

// BenchmarkSubtree reads the whole subtree of an account's, of forests of depth
// 5 in which one account of a hundred has moved.
func BenchmarkSubtree(b *testing.B) {
	for _, n := range []int{20_000, 100_000} {
		b.Run(fmt.Sprintf("accounts=%d", n), func(b *testing.B) {
			conn := schema(b)
			rnd := rand.New(rand.NewPCG(1, 0))
			var f forest
			width := 7
			for width*width*width*width*width < n {
				width++
			}
			for i := 1; i < n; i++ {
				f = append(f, assignment{fmt.Sprintf("account-%d", i), fmt.Sprintf("account-%d", (i-1)/width), 0})
				if i%100 == 0 {
					f = append(f, assignment{fmt.Sprintf("account-%d", i), fmt.Sprintf("account-%d", rnd.IntN(i)), 10})
				}
			}
			plant(b, conn, []forest{f})
			for _, q := range []string{
				"SELECT count() FROM account_subtree WHERE account_id = 'account-3'",
				"SELECT sum(length(ancestors)) FROM account_paths_history",
			} {
				b.Run(strings.Fields(q)[3], func(b *testing.B) {
					for range b.N {
						var n uint64
						if err := conn.QueryRow(context.Background(), q).Scan(&n); err != nil {
							b.Fatal(err)
						}
						if n == 0 {
							b.Fatal("nothing there")
						}
					}
				})
			}
		})
	}
}
