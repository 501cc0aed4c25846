// Package faults breaks a running installation in seeded ways, while producers
// send through it, and recounts after each round: every event that was acked has
// to be in `events` and in every cell of every rollup exactly once.
//
// It owns the kinds of faults (kinds.go), the rounds and their seeds, and the
// table of what happened (report.go). The processes are package stack's, the
// traffic and the right answer package loadgen's. What a round does is a
// function of seed and round number, but for the instants at which the machine
// gets to it: run a round again by naming both.
package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

// Config says what to run.
type Config struct {
	Seed     uint64
	Faults   int      // how many to inject
	PerRound int      // how many between two recounts; default 10
	Round    int      // only this round, counted from 1; 0: all
	Kinds    []string // only kinds whose name starts with one of these; empty: all that fit
	Brokers  int      // 0: kfake in this process; 3: real Kafka
	// Inside runs the services inside this process, and not as processes: a kill
	// severs all that one says to anyone, at a byte or at a request.
	Inside bool
	// Classic has kfake speak the protocol of Kafka 3.7, whose transactions name
	// their partitions and groups in requests of their own.
	Classic bool
	// MaxPause bounds how long a zombie sleeps; default 60 s.
	MaxPause time.Duration
	// Control switches a known mistake on in the writers, which the recount has
	// to see: one of Controls. Empty: none.
	Control string
	Dir     string    // of data and logs; kept
	Out     io.Writer `json:"-"` // gets a line a round
	// Each is called after every round with what there is by then; may be nil.
	Each func(*Report) error `json:"-"`
	// KeepGoing runs all rounds although one was found wrong.
	KeepGoing bool
	// Time is after how long no further round begins; 0: never.
	Time time.Duration
	// Settle bounds the wait for the last events of a round; default 4 min.
	Settle time.Duration

	once   []string // beginnings of kinds: a first round has one fault of each
	apps   []string // that have a write key; default stack.App
	enough int      // begin no further round after so many faults that struck; 0: do all
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	if c.Faults < 1 {
		errs = append(errs, fmt.Errorf("faults must be at least 1 (got %d)", c.Faults))
	}
	if c.PerRound < 0 || c.PerRound > 100 {
		errs = append(errs, fmt.Errorf("per-round must be 1 to 100 (got %d)", c.PerRound))
	}
	if c.Brokers != 0 && c.Brokers != 3 {
		errs = append(errs, fmt.Errorf("brokers must be 0 or 3 (got %d)", c.Brokers))
	}
	if c.Brokers > 0 && (c.Inside || c.Classic) {
		errs = append(errs, errors.New("brokers go with processes and with no old protocol"))
	}
	if c.Control != "" && c.Inside {
		errs = append(errs, errors.New("control goes with processes"))
	}
	if c.MaxPause < 0 || (c.MaxPause > 0 && c.MaxPause < time.Second) {
		errs = append(errs, fmt.Errorf("max-pause must be at least 1s (got %s)", c.MaxPause))
	}
	if c.Control != "" && controls[c.Control].mistake == "" {
		errs = append(errs, fmt.Errorf("control must be one of %v (got %q)", Controls(), c.Control))
	}
	if c.Dir == "" {
		errs = append(errs, errors.New("dir must be named"))
	}
	return errors.Join(errs...)
}

// complete fills in the defaults and reports all faults.
func (c *Config) complete() error {
	if c.PerRound == 0 {
		c.PerRound = 10
	}
	if c.Settle == 0 {
		c.Settle = 4 * time.Minute
	}
	if c.MaxPause == 0 {
		c.MaxPause = time.Minute
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	return c.Validate()
}

// fault is one fault of a round: what, when, and the numbers it draws from.
type fault struct {
	kind *kind
	at   time.Duration // from the start of the round
	rng  *rand.Rand

	err      error
	note     string // what it did, for people
	missed   bool   // it never met what it waited for: it was no fault
	recovery time.Duration
	repaired bool // recovery is valid
}

// schedule returns the faults of each round.
func schedule(c Config) [][]*fault {
	rng := rand.New(rand.NewPCG(c.Seed, 0x6661756c7473))
	var deck []*kind
	fits := fitting(c)
	var rounds [][]*fault
	draw := func(k *kind) *fault {
		return &fault{
			kind: k, at: time.Duration(rng.IntN(2500)) * time.Millisecond,
			rng: rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64())),
		}
	}
	if len(c.once) > 0 {
		first := c
		first.Kinds = c.once
		var round []*fault
		for _, k := range fitting(first) {
			round = append(round, draw(k))
		}
		rounds = append(rounds, round)
	}
	for left := c.Faults; left > 0; {
		var round []*fault
		for range min(left, c.PerRound) {
			if len(deck) == 0 {
				deck = append(deck, fits...)
				rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
			}
			round = append(round, draw(deck[0]))
			deck = deck[1:]
		}
		left -= len(round)
		rounds = append(rounds, round)
	}
	return rounds
}

// Run injects the faults and returns what happened. The error is about the
// harness, or says that an installation did not come back; that rows are wrong
// is in the report.
func Run(ctx context.Context, c Config) (_ *Report, err error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	rounds := schedule(c)
	if len(rounds) == 0 || len(rounds[0]) == 0 {
		return nil, fmt.Errorf("no kind of fault fits %v over %d brokers", c.Kinds, c.Brokers)
	}
	e, err := newEnv(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	return e.run(ctx, c, rounds)
}

// run does the rounds that c asks for.
func (e *env) run(ctx context.Context, c Config, rounds [][]*fault) (_ *Report, err error) {
	report := newReport(c)
	totals := map[string]int64{} // prefix → usage events
	first := e.begun
	e.begun += len(rounds)
	began := time.Now()
	for n, round := range rounds {
		if c.Round != 0 && n+1 != c.Round {
			continue
		}
		if c.enough > 0 && report.Faults >= c.enough {
			break
		}
		if c.Time > 0 && time.Since(began) > c.Time {
			fmt.Fprintf(c.Out, "%d of %d rounds were done in %s\n", n, len(rounds), c.Time)
			break
		}
		r, err := e.round(ctx, first+n+1, round)
		if err != nil {
			return report, fmt.Errorf("round %d of seed %d: %w\n%s", n+1, c.Seed, err, r.details())
		}
		report.add(r)
		totals[r.oracle.Prefix] = r.usage
		fmt.Fprintln(c.Out, r.line(len(rounds)))
		if err := e.auditRound(ctx, r, report); err != nil {
			return report, fmt.Errorf("round %d of seed %d: %w", n+1, c.Seed, err)
		}
		if c.Each != nil {
			if err := c.Each(report); err != nil {
				return report, err
			}
		}
		if !r.diff.Equal() {
			fmt.Fprint(c.Out, r.details())
			if !c.KeepGoing && (c.Control == "" || e.known[e.app].wrong || r.halted) {
				return report, nil
			}
		}
	}
	// Something can come back long after its round: a zombie's last block.
	report.Late, err = e.late(ctx, totals, report)
	return report, err
}

// round is what happened in one round.
type round struct {
	number int
	faults []*fault
	oracle *loadgen.Oracle
	usage  int64 // usage events acked
	aside  int64 // records that writers have to set aside
	beside *sides
	// Of hostile senders.
	hostileStored, hostileRejected int64
	diff                           loadgen.Diff
	trace                          string // of a wrong round: where it went wrong
	took                           time.Duration
	// stalled says what is not worked through after the settle time, of a round
	// that is not equal: what misses may still come.
	stalled string
	// halted: the mistake was seen by a writer itself, which halted a partition on
	// a block with two plans.
	halted bool
}

// lost and doubled are of the worst table. What a stalled round misses may come,
// and what its rollups have too often may be corrected: of it only a row that is
// twice in events counts.
func (r *round) lost() int64 {
	if r.stalled != "" {
		return 0
	}
	return r.diff.Lost()
}

func (r *round) doubled() int64 {
	if r.stalled == "" {
		return r.diff.Doubled()
	}
	for _, t := range r.diff.Tables {
		if t.Table == "events" {
			return t.Doubled
		}
	}
	return 0
}

func (r *round) line(of int) string {
	verdict := "equal"
	if !r.diff.Equal() {
		verdict = fmt.Sprintf("WRONG: %d lost, %d doubled", r.lost(), r.doubled())
	}
	if r.stalled != "" {
		verdict = fmt.Sprintf("STALLED: %s, %d missing, %d doubled", r.stalled, r.diff.Lost(), r.doubled())
	}
	var kinds []string
	for _, f := range r.faults {
		name := f.kind.name
		if f.missed {
			name += " (missed)"
		}
		kinds = append(kinds, name)
	}
	return fmt.Sprintf("round %3d of %d  %5.1fs  %6d acked  %-8s %s", r.number, of, r.took.Seconds(), r.oracle.Acked(), verdict, strings.Join(kinds, ", "))
}

func (r *round) details() string {
	var b strings.Builder
	for _, f := range r.faults {
		fmt.Fprintf(&b, "  %5dms %-28s %s\n", f.at.Milliseconds(), f.kind.name, f.note)
		if f.repaired {
			fmt.Fprintf(&b, "            recovered after %s\n", f.recovery.Round(time.Millisecond))
		}
	}
	fmt.Fprintln(&b, r.trace)
	fmt.Fprint(&b, r.diff)
	return b.String()
}

// traffic sends a plan of its own until its round says that it is enough.
type traffic struct {
	app    string
	plan   *loadgen.Plan
	ledger *loadgen.Ledger
	acked  atomic.Int64 // good events, each counted once
	stored *level       // of them in ClickHouse
	rate   float64      // events a second while there is a pulse
	clock  atomic.Int64 // nanoseconds that the producers' clocks are off by
	beside sides

	mu      sync.Mutex // covers both below
	seen    []bool
	ackedAt []time.Time // of each good event, in the order of their acks
}

func (e *env) newTraffic(n int) (*traffic, error) {
	cfg := loadgen.DefaultConfig(time.Now())
	cfg.Seed, cfg.IDPrefix = e.cfg.Seed*1_000_003+uint64(n), fmt.Sprintf("r%05d-", n)
	cfg.Accounts, cfg.Events, cfg.BatchMax = 12, 12_000, 24
	cfg.Resend, cfg.Repeat, cfg.Reordered, cfg.Bad, cfg.Single = 0.2, 0.1, 0.3, 0.01, 0.03
	p, err := loadgen.New(cfg)
	if err != nil {
		return nil, err
	}
	rate := 400.0
	if e.cfg.Inside {
		rate = 250
	}
	return &traffic{app: e.app, plan: p, ledger: loadgen.NewLedger(), stored: newLevel(), rate: rate, seen: make([]bool, len(p.Events))}, nil
}

func (t *traffic) ack(request int, began time.Time) {
	t.beside.acked(began)
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range t.plan.Requests[request].Events {
		if !t.seen[i] && t.plan.Events[i].Bad == nil {
			t.seen[i] = true
			t.ackedAt = append(t.ackedAt, now)
			t.acked.Add(1)
		}
	}
}

// show takes in how many events are in ClickHouse.
func (t *traffic) show(stored int) {
	t.mu.Lock()
	acked := t.ackedAt
	t.mu.Unlock()
	before, _ := t.stored.load()
	t.beside.shown(acked, int(before), stored)
}

// send sends until enough is closed, in pulses: blocks fill and are cut by the
// records that follow in them, and between them ticks have to.
func (t *traffic) send(ctx context.Context, urls []string, enough <-chan struct{}) error {
	s := loadgen.Sender{
		URLs: urls, WriteKey: stack.WriteKeyOf(t.app), Workers: 6, Rate: t.rate,
		Timeout: 15 * time.Second, MaxBackoff: 500 * time.Millisecond, Acked: t.ack,
		Now: func() time.Time { return time.Now().Add(time.Duration(t.clock.Load())) },
	}
	const pulse, between = 24, 900 * time.Millisecond
	for n := 0; n < len(t.plan.Requests); n += pulse {
		if err := s.Run(ctx, t.plan, t.ledger, n, min(n+pulse, len(t.plan.Requests))); err != nil {
			return err
		}
		select {
		case <-enough:
			return nil
		case <-time.After(between):
		}
	}
	return nil // the plan is at its end, and the faults take longer
}

// round runs the faults of one round under traffic and recounts.
func (e *env) round(ctx context.Context, n int, faults []*fault) (*round, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute+e.cfg.Settle)
	defer cancel()
	start := time.Now()
	r := &round{number: n, faults: faults, oracle: loadgen.NewOracle(e.app, loadgen.Resolved)}
	t, err := e.newTraffic(n)
	if err != nil {
		return r, err
	}
	r.oracle.Prefix = t.plan.Config.IDPrefix
	e.prefix, e.traffic, e.poison, e.aside, e.sent = r.oracle.Prefix, t, nil, nil, nil
	r.beside = &t.beside

	enough := make(chan struct{})
	sent := make(chan error, 1)
	go func() { sent <- t.send(ctx, e.urls(), enough) }() // waited for below
	counting, counted := context.WithCancel(ctx)
	var counter sync.WaitGroup
	counter.Go(func() { e.count(counting, t) }) // ends with counted
	var wg, broken sync.WaitGroup
	broken.Add(len(faults))
	for _, f := range faults {
		wg.Go(func() {
			ok := e.inject(ctx, f)
			broken.Done()
			if ok {
				e.recover(ctx, f, t)
			}
		})
	}
	broken.Wait()
	close(enough)
	wg.Wait()
	counted()
	counter.Wait()
	faultErr := e.repair(ctx)
	sendErr := <-sent
	for _, f := range faults {
		if f.err != nil {
			faultErr = errors.Join(faultErr, fmt.Errorf("%s: %w", f.kind.name, f.err))
		}
	}
	if faultErr != nil || sendErr != nil {
		return r, errors.Join(faultErr, sendErr)
	}
	r.oracle.Add(t.plan, t.ledger)
	for _, p := range e.poison {
		r.oracle.AddRejected(p.code, p.original)
	}
	for _, p := range e.aside {
		r.oracle.AddRejected(p.code, p.original)
	}
	r.aside = int64(len(e.aside))
	if r.diff, r.stalled, err = e.settle(ctx, r.oracle); err != nil {
		return r, err
	}
	r.halted = e.control.mistake != "" && e.planHalted()
	if r.stalled != "" && e.control.mistake != "" {
		// A mistake can also stop a writer for good, which is no proof that the
		// recount sees what it loses or doubles.
		for _, m := range e.members[stack.Writer] {
			m.Kill()
			if err := m.Start(); err != nil {
				return r, err
			}
		}
		if r.diff, r.stalled, err = e.settle(ctx, r.oracle); err != nil {
			return r, err
		}
	}
	if err := ctx.Err(); err != nil {
		return r, fmt.Errorf("the round was cut short: %w", err)
	}
	if !r.diff.Equal() {
		if counts, err := trace(ctx, e.addrs(), r.oracle.Prefix); err != nil {
			r.trace = err.Error()
		} else {
			r.trace = traced(counts, r.oracle.AckedIDs())
		}
	}
	if len(e.sent) > 0 && r.stalled == "" {
		var d loadgen.TableDiff
		if d, r.hostileStored, r.hostileRejected, err = e.compareHostile(ctx); err != nil {
			return r, err
		}
		r.diff.Tables = append(r.diff.Tables, d)
	}
	r.usage = r.oracle.Usage()
	r.took = time.Since(start)
	return r, nil
}

// settleStill is how long everything has to be worked through and still differ
// until the difference is final: nothing comes after that.
const settleStill = 4 * time.Second

// settle waits until the round is equal. It gives up when nothing is left to be
// worked through, or when it takes longer than the config allows: then it says
// what is left.
func (e *env) settle(ctx context.Context, o *loadgen.Oracle) (d loadgen.Diff, stalled string, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Settle)
	defer cancel()
	var still time.Time
	for {
		lag, lagErr := e.lag(ctx)
		if lagErr != nil {
			lag = lagErr.Error()
		}
		if lag == "" || ctx.Err() != nil {
			ask, cancelAsk := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			d, err = loadgen.Compare(ask, e.stack.Conn, stack.Database, o)
			cancelAsk()
			switch {
			case err != nil && ctx.Err() != nil:
				return d, "", err
			case err != nil: // ClickHouse is being started again
			case d.Equal():
				return d, "", nil
			case ctx.Err() != nil:
				return d, lag, nil
			}
		}
		switch {
		case lag != "" || err != nil:
			still = time.Time{}
		case still.IsZero():
			still = time.Now()
		case time.Since(still) > settleStill:
			return d, "", nil
		}
		wait(ctx, 100*time.Millisecond)
	}
}

// lag says what the services have not worked through; empty: nothing.
func (e *env) lag(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	adm := kadm.NewClient(e.producer)
	var left []string
	for group, topics := range map[string][]string{topic.Unprefixed.GroupEnricher: {topic.Unprefixed.Raw}, topic.Unprefixed.GroupRollupWriter: {topic.Unprefixed.Enriched, topic.Unprefixed.Rejected}} {
		commits, err := adm.FetchOffsets(ctx, group)
		if err != nil {
			return "", fmt.Errorf("commits of group %s: %w", group, err)
		}
		ends, err := adm.ListEndOffsets(ctx, topics...)
		if err = errors.Join(err, ends.Error()); err != nil {
			return "", fmt.Errorf("ends of %v: %w", topics, err)
		}
		ends.Each(func(end kadm.ListedOffset) {
			at := int64(0)
			if c, ok := commits.Lookup(end.Topic, end.Partition); ok && c.Err == nil && c.At > 0 {
				at = c.At
			}
			if at < end.Offset {
				left = append(left, fmt.Sprintf("%s has %s/%d up to %d of %d", group, end.Topic, end.Partition, at, end.Offset))
			}
		})
	}
	slices.Sort(left)
	return strings.Join(left, ", "), nil
}

// inject does one fault. It reports whether there was one.
func (e *env) inject(ctx context.Context, f *fault) bool {
	wait(ctx, f.at)
	f.note, f.err = f.kind.inject(ctx, e, f)
	if errors.Is(f.err, errMissed) {
		f.missed, f.err = true, other(f.err)
	}
	return f.err == nil && !f.missed
}

// recover waits until all that had been acked when a fault was repaired shows in
// ClickHouse.
func (e *env) recover(ctx context.Context, f *fault, t *traffic) {
	repaired := time.Now()
	ctx, cancel := context.WithTimeout(ctx, min(time.Minute, e.cfg.Settle))
	defer cancel()
	want := t.acked.Load()
	for {
		stored, changed := t.stored.load()
		if stored >= want {
			f.recovery, f.repaired = time.Since(repaired), true
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			f.note += fmt.Sprintf("; no recovery: %d of %d events", stored, want)
			return
		}
	}
}

// level is a number that rises, and whoever waits for it.
type level struct {
	mu      sync.Mutex // covers both below
	at      int64
	changed chan struct{} // closed when at has risen
}

func newLevel() *level { return &level{changed: make(chan struct{})} }

func (l *level) load() (int64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at, l.changed
}

func (l *level) raise(to int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if to > l.at {
		l.at = to
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// storedEvery is how often ClickHouse is asked how much of a round it has. It
// bounds what recovery times can tell apart.
const storedEvery = 100 * time.Millisecond

// count keeps t.stored at what ClickHouse has of the round, until ctx ends.
func (e *env) count(ctx context.Context, t *traffic) {
	tick := time.NewTicker(storedEvery)
	defer tick.Stop()
	q := fmt.Sprintf("SELECT uniqExact(message_id) FROM %s.events WHERE app_id = ? AND startsWith(message_id, ?)", stack.Database)
	for {
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		var got uint64
		if e.stack.Conn.QueryRow(ask, q, t.app, t.plan.Config.IDPrefix).Scan(&got) == nil {
			t.show(int(got))
			t.stored.raise(int64(got)) // or the server is away, which is what some faults do
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// other returns what an error has beside errMissed.
func other(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var rest []error
	for _, e := range joined.Unwrap() {
		if !errors.Is(e, errMissed) {
			rest = append(rest, e)
		}
	}
	return errors.Join(rest...)
}

// late compares, for each round that was found right, the sums of every table
// once more.
func (e *env) late(ctx context.Context, totals map[string]int64, report *Report) ([]string, error) {
	var wrong []string
	for _, r := range loadgen.Rollups() {
		q := fmt.Sprintf("SELECT substring(account_id, 1, 7) AS p, toInt64(sum(events)) FROM %s.%s WHERE app_id = ? GROUP BY p", stack.Database, r.Table)
		sums, err := clickhouse.CollectMap[string, int64](ctx, e.stack.Conn, q, e.app)
		if err != nil {
			return nil, fmt.Errorf("late recount: %w", err)
		}
		for prefix, got := range sums {
			if want, ok := totals[prefix]; ok && got != want && !report.Wrong[prefix] {
				wrong = append(wrong, fmt.Sprintf("%s of round %s: got %d events, want %d", r.Table, strings.Trim(prefix, "r-"), got, want))
			}
		}
	}
	return wrong, nil
}

// seeded names the seed in a sentence; empty for none.
func (c Config) seeded() string {
	if c.Seed == 0 {
		return ""
	}
	return fmt.Sprintf(" of seed %d", c.Seed)
}

// logs is where the processes of a run write.
func (c Config) logs() string { return filepath.Join(c.Dir, "*.log") }
