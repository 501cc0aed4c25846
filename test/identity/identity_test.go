// Package identity says random things about who is who to the services, kills
// them meanwhile, and holds every rollup against what was said.
//
// Many small worlds, each of a few users, anonymous ids and accounts, go through
// one installation at once. A world says nothing whose right answer depends on
// order, so that the oracle is a function of what was said (world.go) and knows
// nothing of links, partitions or corrections. Where order matters, the rules are
// held against an oracle of theirs in enricher/internal/identity.
package identity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

func TestMain(m *testing.M) {
	embedded.ChildMain()
	code := m.Run()
	if err := stack.Cleanup(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// settings of a run from the environment: how many worlds, and from which seed.
func setting(name string, otherwise uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}

func TestRollupsAreWhatWasSaid(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the services and ClickHouse; not under -short")
	}
	// Without a number it is a look at each log that `make test` can afford.
	onFake, onKafka, kills := 20, 15, 3
	if n := int(setting("IDENTITY_WORLDS", 0)); n > 0 {
		onFake, onKafka, kills = n, n/4, 8+n/40
	}
	t.Run("kfake", func(t *testing.T) {
		run(t, kafka.FakeForTest(t, kfake.GroupMinSessionTimeout(time.Second)), onFake, kills)
	})
	t.Run("kafka", func(t *testing.T) {
		if setting("IDENTITY_WORLDS", 0) == 0 {
			longtest.Only(t)
		}
		cfg := kafka.Config{Brokers: 1, Dir: t.TempDir(), Properties: map[string]string{"group.min.session.timeout.ms": "1000"}}
		run(t, kafka.ForTest(t, cfg), onKafka, kills)
	})
}

// services kill their sessions soon: what takes minutes in production is to
// happen several times in a run.
func arguments() map[string][]string {
	return map[string][]string{
		stack.Enricher: {"-session-timeout", "3s", "-rebalance-timeout", "6s", "-transaction-timeout", "5s", "-commit-interval", "50ms", "-dedup-recent-bytes", "4096"},
		stack.Writer:   {"-session-timeout", "3s", "-revoke-wait", "2s", "-retry-max", "500ms", "-block-interval", "500ms", "-clickhouse-silence", "5s"},
	}
}

func run(t *testing.T, log kafka.Log, worlds, kills int) {
	seed := setting("IDENTITY_SEED", uint64(time.Now().UnixNano()))
	t.Logf("IDENTITY_SEED=%d IDENTITY_WORLDS=%d", seed, worlds)
	rnd := rand.New(rand.NewPCG(seed, 1))
	layout := topic.SingleLayout()
	dir := t.TempDir()
	s := stack.ForTest(t, stack.Config{Log: log, Layout: layout, Enricher: 2, Writers: 2, Args: arguments(), Proxied: true, Dir: dir})

	all := make([]*world, worlds)
	var calls []call
	start := time.Now().Add(-12 * time.Hour).Truncate(time.Hour)
	for i := range all {
		all[i] = newWorld(rnd, fmt.Sprintf("w%d-", i), start)
		for range 20 + rnd.IntN(40) {
			calls = append(calls, all[i].next(rnd))
		}
	}
	// Worlds are told in any order, and some of it twice.
	for range len(calls) / 10 {
		calls = append(calls, calls[rnd.IntN(len(calls))])
	}
	rnd.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
	devices, sequences := tills(start)
	all, calls = append(all, devices...), mix(rnd, calls, append(sequences, profiles(start)...))

	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute+time.Duration(worlds)*time.Second)
	defer cancel()
	told := make(chan struct{})
	killed := make(chan [2]int, 1)
	go func() { // ends some time after told
		n, lost := kill(ctx, s, dir, told, kills, rand.New(rand.NewPCG(seed, 2)))
		killed <- [2]int{n, lost}
	}()
	watched := make(chan watching, 1)
	unwatch := make(chan struct{})
	var most int64
	for _, w := range all {
		most += int64(len(w.usage))
	}
	go func() { watched <- watch(ctx, s, most, unwatch) }() // ends soon after unwatch
	tell(ctx, t, log, calls)
	close(told)
	ended := <-killed
	t.Logf("%d calls of %d worlds told, %d processes killed meanwhile, %d of them lost their disks", len(calls), worlds, ended[0], ended[1])
	if ended[1] < 2 {
		t.Errorf("%d disks lost, want 2 and more", ended[1])
	}
	if err := settled(ctx, log); err != nil {
		t.Fatal(err)
	}
	close(unwatch)
	seen := <-watched
	t.Logf("%d totals read meanwhile", seen.looks)
	if seen.err != nil || seen.looks == 0 {
		t.Errorf("totals while all this went on: %d read, %v", seen.looks, seen.err)
	}
	compare(ctx, t, s, all)

	undone := unlink(ctx, t, log, all)
	if err := settled(ctx, log); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d links undone", undone)
	compare(ctx, t, s, all)
}

// unlink gives an operator's orders to undo a link in each of the first worlds
// that have one, and returns how many.
func unlink(ctx context.Context, t *testing.T, log kafka.Log, all []*world) (n int) {
	t.Helper()
	binary, err := stack.Binary(ctx, stack.Enricher, stack.Build{})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range all {
		i := slices.IndexFunc(w.anons, func(a string) bool { return len(w.said[a]) > 0 })
		if i < 0 {
			continue
		}
		a := w.anons[i]
		from := w.said[a][0].user
		cmd := exec.CommandContext(ctx, binary, "identity", "unlink", "-app", stack.App, "-anonymous", a, "-from", from, "-kafka-brokers", strings.Join(log.Addrs(), ","))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("unlink %s from %s: %v\n%s", a, from, err, out)
		}
		w.said[a] = slices.DeleteFunc(w.said[a], func(s said) bool { return s.user == from })
		if len(w.said[a]) == 0 {
			delete(w.said, a)
		}
		if n++; n == 5 {
			break
		}
	}
	return n
}

// compare holds every rollup and the views of who is who against what was said.
func compare(ctx context.Context, t *testing.T, s *stack.Stack, all []*world) {
	t.Helper()
	want := map[string]map[string]loadgen.Sums{}
	for _, r := range loadgen.Rollups() {
		want[r.Table] = map[string]loadgen.Sums{}
		for _, w := range all {
			w.expect(r.Columns, want[r.Table])
		}
	}
	var diff []string
	err := stack.Await(ctx, "the rollups to be what was said", func() error {
		diff = nil
		for _, r := range loadgen.Rollups() {
			got, err := read(ctx, s, stack.Database+"."+r.Table, r.Columns)
			if err != nil {
				return err
			}
			diff = append(diff, differences(r.Table, got, want[r.Table])...)
			if r.Table != "user_feature_daily" {
				continue
			}
			// Events as of today add up to the same.
			if got, err = read(ctx, s, eventsNow(), r.Columns); err != nil {
				return err
			}
			diff = append(diff, differences("events_now", got, want[r.Table])...)
		}
		if len(diff) > 0 {
			return fmt.Errorf("%d cells differ, such as %s", len(diff), diff[0])
		}
		return nil
	})
	if err != nil {
		slices.Sort(diff)
		t.Fatalf("%v\n%s", err, strings.Join(diff[:min(len(diff), 20)], "\n"))
	}

	roots, owners, actors := map[string]string{}, map[string]string{}, map[string]bool{}
	for _, w := range all {
		w.whoIsWho(roots, owners)
		w.actors(actors)
	}
	same(t, "user_roots", pairs(ctx, t, s, "SELECT user_id, root_id FROM %s.user_roots"), roots)
	same(t, "identities", pairs(ctx, t, s, "SELECT id, user_id FROM %s.identities WHERE id_kind = 'anonymous' AND in_force"), owners)
	said := map[string]string{}
	for user := range 10 {
		said[fmt.Sprint("profile-", user)] = "free"
	}
	same(t, "plans", pairs(ctx, t, s, "SELECT user_id, traits['plan'] FROM %s.users WHERE startsWith(user_id, 'profile-')"), said)
	var distinct uint64
	q := "SELECT uniqExact(actor_id) FROM %s.user_feature_daily WHERE actor_kind = 'user'"
	if err := s.Conn.QueryRow(ctx, fmt.Sprintf(q, stack.Database)).Scan(&distinct); err != nil {
		t.Fatal(err)
	}
	if distinct != uint64(len(actors)) {
		t.Errorf("%d distinct users, want %d", distinct, len(actors))
	}
}

// watching is what a reader saw of the totals.
type watching struct {
	looks int
	err   error
}

// watch reads the totals of the rollups until it is told to stop. Corrections
// move what is counted, so that a total only ever grows, up to what was said:
// nobody sees anything twice, or gone for a moment.
func watch(ctx context.Context, s *stack.Stack, most int64, stop <-chan struct{}) (w watching) {
	last := map[string]int64{}
	tables := loadgen.Rollups()
	for {
		select {
		case <-stop:
			return w
		case <-ctx.Done():
			return w
		case <-time.After(300 * time.Millisecond): // paces the reader, whose queries take CPU from the services; nothing depends on it
		}
		r := tables[w.looks%len(tables)].Table
		var n int64
		if err := s.Conn.QueryRow(ctx, fmt.Sprintf("SELECT toInt64(sum(events)) FROM %s.%s", stack.Database, r)).Scan(&n); err != nil {
			w.err = errors.Join(w.err, err)
			return w
		}
		if n < last[r] || n > most {
			w.err = errors.Join(w.err, fmt.Errorf("%s had %d events and has %d, of %d", r, last[r], n, most))
		}
		last[r] = n
		w.looks++
	}
}

// pairs returns what a query of two columns answers.
func pairs(ctx context.Context, t *testing.T, s *stack.Stack, query string) map[string]string {
	t.Helper()
	rows, err := s.Conn.Query(ctx, fmt.Sprintf(query, stack.Database))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	m := map[string]string{}
	for rows.Next() {
		var k, v string
		if err := rows.Scan(&k, &v); err != nil {
			t.Fatal(err)
		}
		m[k] = v
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return m
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	wrong := 0
	for k, w := range want {
		if got[k] != w {
			if wrong++; wrong < 10 {
				t.Errorf("%s: %s is %q, want %q", what, k, got[k], w)
			}
		}
	}
	if len(got) != len(want) || wrong > 0 {
		t.Errorf("%s: %d wrong; %d ids, want %d", what, wrong, len(got), len(want))
	}
}

// tell produces the calls over a few seconds, so that the services are killed
// amid them.
func tell(ctx context.Context, t *testing.T, log kafka.Log, calls []call) {
	t.Helper()
	rounds := max(8, len(calls)/500)
	for r := range rounds {
		produce(ctx, t, log, calls[len(calls)*r/rounds:len(calls)*(r+1)/rounds])
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-time.After(250 * time.Millisecond): // paces the load; nothing depends on it
		}
	}
}

// kill ends an enricher or a writer at random moments, or lets it hang, and
// starts it again, until all is told and least were killed. Of four, one is an
// enricher that loses its disk when it is killed, and one an enricher that has
// lost it a while before. It leaves all of them running, and returns how many it
// ended and how many disks were lost.
func kill(ctx context.Context, s *stack.Stack, dir string, told <-chan struct{}, least int, rnd *rand.Rand) (n, lost int) {
	for {
		select {
		case <-ctx.Done():
			return n, lost
		case <-time.After(time.Duration(300+rnd.IntN(1500)) * time.Millisecond):
		}
		select {
		case <-told:
			if n >= least {
				return n, lost
			}
		default:
		}
		runs, ends := n%4 == 0, n%4 == 2 // with its disk gone
		victims := slices.Concat(s.Enrichers, s.Writers)
		if runs || ends {
			victims = s.Enrichers
		}
		p := victims[rnd.IntN(len(victims))]
		if !runs && !ends && rnd.IntN(5) == 0 {
			if p.Pause() == nil { // a zombie: the others take its partitions over
				select {
				case <-ctx.Done():
				case <-time.After(4 * time.Second):
				}
				_ = p.Signal(syscall.SIGCONT)
			}
			continue
		}
		disk := filepath.Join(dir, p.Name)
		if runs || ends {
			if _, err := os.Stat(disk); err != nil {
				return n, lost // lost would be too few
			}
			lost++
		}
		if runs {
			_ = os.RemoveAll(disk) // it may write meanwhile; what is left goes below
			select {
			case <-ctx.Done():
			case <-p.Exited(): // or it goes on in memory: both are right
			case <-time.After(time.Second):
			}
		}
		p.Kill()
		n++
		if (runs || ends) && os.RemoveAll(disk) != nil {
			return n, lost
		}
		if err := p.Start(); err != nil {
			return n, lost // the stack's end tells why
		}
	}
}

// eventsNow is the view of that name in the shape of a rollup.
func eventsNow() string {
	return fmt.Sprintf("(SELECT *, toDate(event_time) AS day, toInt64(1) AS events FROM %s.events_now(app = '%s', from = toDate(now() - INTERVAL 4 DAY), to = toDate(now() + INTERVAL 4 DAY), zone = 'UTC'))",
		stack.Database, stack.App)
}

// read returns the cells of a rollup, by their key columns joined.
func read(ctx context.Context, s *stack.Stack, from string, key []string) (map[string]loadgen.Sums, error) {
	columns := make([]string, len(key))
	for i, c := range key {
		columns[i] = "toString(" + c + ")"
	}
	q := fmt.Sprintf("SELECT arrayStringConcat([%s], '|') AS k, toInt64(sum(r.events)) AS n, toInt64(sum(r.quantity)) AS q FROM %s AS r GROUP BY k HAVING n != 0 OR q != 0",
		strings.Join(columns, ", "), from)
	rows, err := s.Conn.Query(ctx, q)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	cells := map[string]loadgen.Sums{}
	for rows.Next() {
		var k string
		var c loadgen.Sums
		if err := rows.Scan(&k, &c.Events, &c.Quantity); err != nil {
			return nil, err
		}
		cells[k] = c
	}
	return cells, rows.Err()
}

func differences(table string, got, want map[string]loadgen.Sums) []string {
	var diff []string
	for k, w := range want {
		if g := got[k]; g != w {
			diff = append(diff, fmt.Sprintf("%s %s: got %+v, want %+v", table, k, g, w))
		}
	}
	for k, g := range got {
		if _, ok := want[k]; !ok {
			diff = append(diff, fmt.Sprintf("%s %s: got %+v, want nothing", table, k, g))
		}
	}
	return diff
}
