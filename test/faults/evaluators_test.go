package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/alert"
	"github.com/uptakehq/uptake/rollup-writer/alert/deliver"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// signals of which both become true of an account that was used three times a while ago.
const signals = `
insight: shop
segments:
  - {id: regular, description: Used on 3 of 28 days., owner: cs, where: [{measure: {count: days, window: 28d}, at_least: 3}]}
alerts:
  - {id: silent, description: Gone silent, owner: cs, segment: regular, measure: {count: events, window: 7d}, fires: {below: 1}, severity: critical, playbook: Call.}
`

// Evaluators are killed, paused and stopped as processes, at random and at each named
// step, while accounts go silent and the receiver fails, hangs, answers twice, and goes
// away before it answers: each change of state is in the log once, and is received under
// that one id.
func TestEvaluators(t *testing.T) {
	faults := uint64(12)
	if longtest.Enabled() {
		faults = 300
	}
	seed := number(t, "UPTAKE_FAULTS_SEED", 1)
	v := newEvaluators(t, seed)
	v.run(t, int(number(t, "UPTAKE_FAULTS_EVALUATORS", faults)))
}

// evaluators are three processes, and what they are about.
type evaluators struct {
	rng      *rand.Rand
	stack    *stack.Stack
	client   *kgo.Client
	list     []*stack.Process
	receiver *receiver
	accounts int
	counts   map[string]int // by kind of fault
	missed   int
}

func newEvaluators(t *testing.T, seed uint64) *evaluators {
	t.Helper()
	log := kafka.FakeForTest(t, kfake.GroupMinSessionTimeout(500*time.Millisecond))
	v := &evaluators{rng: rand.New(rand.NewPCG(seed, 0x616c65727473)), receiver: newReceiver(t, seed), counts: map[string]int{}}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	targets := fmt.Sprintf("allow: [127.0.0.1]\ntargets: [{name: cs, kind: webhook, url: %q, segments: [regular], timeout: 1s}]", v.receiver.server.URL)
	v.stack = stack.ForTest(t, stack.Config{
		// The embedded server ends itself when a connection is reset, as by a kill.
		Log: log, Bare: true, Proxied: true, Build: stack.Build{Failpoints: true},
		Args: map[string][]string{stack.Alerts: {
			"-alerts-definitions", stack.App + "=" + file("insight.yaml", signals), "-alerts-targets", file("targets.yaml", targets),
			"-alerts-interval", "1s", "-alerts-session-timeout", "2s",
		}},
	})
	var err error
	if v.client, err = kgo.NewClient(kgo.SeedBrokers(log.Addrs()...)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.client.Close)
	for range 3 {
		p, err := v.stack.Spawn(stack.Alerts)
		if err != nil {
			t.Fatal(err)
		}
		v.list = append(v.list, p)
	}
	return v
}

// use has one more account be used on days more than a week ago, and the writers' group
// have come further.
func (v *evaluators) use(ctx context.Context) error {
	account := fmt.Sprintf("a%04d", v.accounts)
	v.accounts++
	var values []string
	for day := 9; day < 15; day++ {
		at := time.Now().UTC().AddDate(0, 0, -day).Format(time.DateOnly) + " 12:00:00"
		values = append(values, fmt.Sprintf("('%s', '%s-%d', 'track', 'x', 'u', 'u', 'user', '%s', 'scan', 1, '%s', '%s')", stack.App, account, day, account, at, at))
	}
	err := stack.Await(ctx, "the insert of events", func() error { // twice does no harm: days are counted
		return v.stack.Conn.Exec(ctx, "INSERT INTO "+stack.Database+".events (app_id, message_id, kind, event, user_id, actor_id, actor_kind, account_id, feature_id, quantity, received_at, event_time) VALUES "+strings.Join(values, ", "))
	})
	if err != nil {
		return err
	}
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: topic.Unprefixed.Enriched, Partition: 0, At: int64(v.accounts), LeaderEpoch: -1})
	if err := kadm.NewClient(v.client).CommitAllOffsets(ctx, topic.Unprefixed.GroupRollupWriter, offsets); err != nil {
		return fmt.Errorf("commit as the writers: %w", err)
	}
	return nil
}

func (v *evaluators) run(t *testing.T, faults int) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { // ends with ctx
		var ghosts undertaker
		for ctx.Err() == nil {
			wait(ctx, 400*time.Millisecond)
			alive := map[string]bool{}
			for _, p := range v.list {
				alive[p.Name] = p.Running()
			}
			_ = ghosts.buryIn(ctx, v.client, alive, topic.Unprefixed.GroupAlerts) // or the next time
		}
	})
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	defer stop()
	began := time.Now()
	for n := range faults {
		// Some accounts before each fault, so that there is something to be said meanwhile.
		for range 1 + v.rng.IntN(3) {
			if err := v.use(ctx); err != nil {
				t.Fatal(err)
			}
		}
		what, err := v.fault(ctx)
		if err != nil {
			t.Fatalf("fault %d, %s: %v", n, what, err)
		}
		if longtest.Enabled() && n%50 == 49 {
			t.Logf("%d faults, %d accounts, %d requests after %s", n+1, v.accounts, v.receiver.requests(), time.Since(began).Round(time.Second))
		}
	}
	v.receiver.recover()
	v.check(t, began)
}

// steps of an evaluator at which it can be killed or stopped.
var evaluatorSteps = []string{"alerts.before-decide", "alerts.before-commit", "alerts.after-commit", "alerts.before-send", "alerts.after-send", "alerts.before-mark"}

// fault does one fault, and says what it was.
func (v *evaluators) fault(ctx context.Context) (what string, err error) {
	wait(ctx, between(v.rng, 0, 1200*time.Millisecond))
	p := v.list[v.rng.IntN(len(v.list))]
	if leader := v.leader(ctx); leader != nil && v.rng.IntN(4) > 0 {
		p = leader
	}
	kinds := []string{"kill", "pause", "terminate", "kill at a step", "zombie at a step", "kill at a step", "zombie at a step"}
	what = kinds[v.rng.IntN(len(kinds))]
	switch what {
	case "kill":
		p.Kill()
		wait(ctx, between(v.rng, 0, 500*time.Millisecond))
		err = p.Start()
	case "terminate":
		if err = terminateProcess(ctx, p); err == nil {
			err = p.Start()
		}
	case "pause":
		if err = p.Pause(); err != nil {
			return what, err
		}
		wait(ctx, between(v.rng, 200*time.Millisecond, 5*time.Second))
		err = p.Resume()
	default:
		step := evaluatorSteps[v.rng.IntN(len(evaluatorSteps))]
		var met bool
		met, err = v.atStep(ctx, p, step, what == "kill at a step")
		if what += " " + step; !met {
			v.missed++
			return what, err
		}
	}
	v.counts[what]++
	return what, err
}

// terminateProcess ends a process in good order; one that was just started may have no
// handler of the signal yet.
func terminateProcess(ctx context.Context, p *stack.Process) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := p.Stop(ctx); err != nil && !signaled(err) {
		return err
	}
	return nil
}

// atStep has all processes start anew, this one first, so that it evaluates and meets its
// end or a pause at a step. They end in good order, so that the group does not wait for
// them.
func (v *evaluators) atStep(ctx context.Context, p *stack.Process, step string, kill bool) (met bool, err error) {
	action := "stop"
	if kill {
		action = "kill"
	}
	for _, o := range v.list {
		if err := terminateProcess(ctx, o); err != nil {
			return false, err
		}
	}
	p.SetEnv(fmt.Sprintf("UPTAKE_FAILPOINTS=%s=%s@%d", step, action, 1+v.rng.IntN(2)))
	err = p.Start()
	p.SetEnv()
	if err != nil {
		return false, err
	}
	wait(ctx, 300*time.Millisecond)
	for _, o := range v.list {
		if o != p {
			if err := o.Start(); err != nil {
				return false, err
			}
		}
	}
	if err := v.use(ctx); err != nil {
		return false, err
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); wait(ctx, 20*time.Millisecond) {
		switch {
		case !p.Running():
			return true, p.Start()
		case !kill && stopped(p.Pid()):
			wait(ctx, between(v.rng, time.Second, 5*time.Second))
			return true, p.Resume()
		}
	}
	p.Kill() // it would meet it later, and nobody would be there
	return false, p.Start()
}

// leader is the process that says that it evaluates; nil: none does.
func (v *evaluators) leader(ctx context.Context) *stack.Process {
	for _, p := range v.list {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		_, text, err := p.Get(ask, "/metrics")
		cancel()
		if err == nil && strings.Contains(text, "\nuptake_alerts_evaluating 1\n") {
			return p
		}
	}
	return nil
}

// check waits until everything was received, and holds the log and the receiver against
// what is true of the accounts.
func (v *evaluators) check(t *testing.T, began time.Time) {
	t.Helper()
	want := map[string]bool{}
	for n := range v.accounts {
		want[fmt.Sprintf("regular a%04d entered", n)] = true
		want[fmt.Sprintf("silent a%04d firing", n)] = true
	}
	var said map[string][]string // ids by what they say
	deadline := time.Now().Add(4 * time.Minute)
	for {
		log, err := alert.ReadLog(t.Context(), v.client.Opts(), topic.Unprefixed)
		if err != nil {
			t.Fatal(err)
		}
		said = map[string][]string{}
		all := len(log) >= len(want)
		received := v.receiver.ids()
		for _, r := range log {
			what := fmt.Sprintf("%s %s %s", r.Signal, r.Subject, r.State)
			said[what] = append(said[what], r.ID)
			all = all && received[r.ID] != ""
		}
		if all || time.Now().After(deadline) {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	received := v.receiver.ids()
	for what := range want {
		switch ids := said[what]; {
		case len(ids) != 1:
			t.Errorf("%q is in the log %d times, want once", what, len(ids))
		case received[ids[0]] != what:
			t.Errorf("%q was received as %q, id %s", what, received[ids[0]], ids[0])
		}
		delete(said, what)
	}
	if len(said) > 0 {
		t.Errorf("the log also has %v", slices.Sorted(maps.Keys(said)))
	}
	if len(received) != len(want) {
		t.Errorf("%d ids were received, want %d", len(received), len(want))
	}
	total, runs := 0, 0
	for _, n := range v.counts {
		total += n
	}
	for _, p := range v.list {
		runs += p.Runs()
	}
	t.Logf("%d faults in %s (%d more missed their step), %d runs of 3 processes: %d messages about %d accounts, each once in the log, received in %d requests: %v; %v",
		total, time.Since(began).Round(time.Second), v.missed, runs, len(want), v.accounts, v.receiver.requests(), v.receiver.answers, v.counts)
	if total == 0 || v.missed > total {
		t.Errorf("%d faults met what they waited for, %d did not", total, v.missed)
	}
}

// receiver is a webhook that misbehaves until it recovers.
type receiver struct {
	server *httptest.Server
	hold   chan struct{} // closed when it recovers

	mu       sync.Mutex // covers all below
	rng      *rand.Rand
	calm     bool
	received map[string]string // what a message said, by its id
	failed   map[string]int    // how often a message met a fault
	answers  map[string]int
}

func newReceiver(t *testing.T, seed uint64) *receiver {
	t.Helper()
	r := &receiver{rng: rand.New(rand.NewPCG(seed, 0x72656365)), hold: make(chan struct{}), received: map[string]string{}, failed: map[string]int{}, answers: map[string]int{}}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.serve(t, w, req) }))
	t.Cleanup(func() { r.recover(); r.server.CloseClientConnections(); r.server.Close() })
	return r
}

// recover has it answer well from now on.
func (r *receiver) recover() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.calm {
		r.calm = true
		close(r.hold)
	}
}

func (r *receiver) serve(t *testing.T, w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender has died
	}
	var got deliver.Webhook
	err = json.Unmarshal(body, &got)
	id := req.Header.Get("webhook-id")
	what := fmt.Sprintf("%s %s %s", got.Data.Signal, got.Data.Subject, got.Data.State)
	r.mu.Lock()
	if before, again := r.received[id]; err != nil || got.Data.ID != id || (again && before != what) {
		t.Errorf("received %s with id %q, which said %q before: %v", body, id, before, err)
	}
	r.received[id] = what
	answer := "well"
	// At most twice for a message: the pause before another attempt doubles.
	if !r.calm && r.failed[id] < 2 {
		answer = []string{"well", "well", "well", "failed", "hung", "gone", "twice"}[r.rng.IntN(7)]
	}
	if answer == "failed" || answer == "hung" || answer == "gone" {
		r.failed[id]++
	}
	r.answers[answer]++
	r.mu.Unlock()
	switch answer {
	case "failed":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "hung":
		select { // for longer than an attempt takes
		case <-req.Context().Done():
		case <-r.hold:
		}
	case "gone", "twice":
		r.raw(w, answer)
	}
}

// raw goes away without an answer, or writes two.
func (r *receiver) raw(w http.ResponseWriter, answer string) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	if answer == "twice" {
		const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
		_, _ = io.WriteString(c, ok+ok) // or the sender has died
		return
	}
	if tcp, isTCP := c.(*net.TCPConn); isTCP {
		_ = tcp.SetLinger(0)
	}
}

// ids returns what was received, by message id.
func (r *receiver) ids() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.received)
}

// requests is how many came.
func (r *receiver) requests() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.answers {
		n += k
	}
	return n
}
