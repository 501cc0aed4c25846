// Package recovery drills what docs/recovery.md says: a part of an installation is lost, the
// page's commands are run in their order by the binaries that ship, and the totals and
// identities are those that the traffic had.
package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

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

// site is an installation with traffic. What is sent is one plan in parts: visitors of one
// part are known in the next, and requests of an earlier part are sent again later.
type site struct {
	*stack.Stack
	t    *testing.T
	ctx  context.Context
	log  kafka.Log
	adm  *kadm.Client
	plan *loadgen.Plan

	ledger      *loadgen.Ledger
	sent, parts int
}

// drill is a loss and its remedy.
type drill struct {
	name string
	run  func(*site)
	long bool // beyond the short form
	// forgets says that ids of earlier messages cannot be had back, so that nothing may be
	// sent again afterwards.
	forgets bool
}

// The drills. Those that leave the ids of messages in place come first.
func drills() []drill {
	return []drill{
		{name: "ClickHouse is empty", run: (*site).emptied, long: true},
		{name: "ClickHouse is restored from a backup", run: (*site).restored, long: true},
		{name: "raw is lost", run: (*site).rawLost, long: true},
		{name: "links is lost", run: (*site).linksLost, long: true},
		{name: "rejected is lost", run: (*site).rejectedLost, long: true},
		{name: "enricher-state is lost, with an export", run: (*site).stateLost},
		{name: "enricher-state is lost, without one", run: (*site).stateLostForGood, long: true},
		{name: "the enrichers' disks are lost", run: (*site).disksLost},
		{name: "the writers' offsets are lost", run: (*site).writersOffsetsLost, long: true},
		{name: "the enrichers' offsets are lost", run: (*site).enrichersOffsetsLost, long: true},
		{name: "enriched is lost", run: (*site).enrichedLost, forgets: true, long: true},
		{name: "Kafka is lost, with an export", run: (*site).kafkaLost, forgets: true},
	}
}

// TestDrills runs the drills one after the other on one installation.
func TestDrills(t *testing.T) {
	drilled(t, kafka.FakeForTest(t))
}

func drilled(t *testing.T, log kafka.Log) {
	list := slices.DeleteFunc(drills(), func(d drill) bool { return d.long && !longtest.Enabled() })
	remembering := slices.IndexFunc(list, func(d drill) bool { return d.forgets })
	ctx, stop := context.WithTimeout(t.Context(), 15*time.Minute)
	defer stop()
	var cancel context.CancelFunc
	s := &site{t: t, ctx: ctx, log: log, ledger: loadgen.NewLedger(), parts: len(list) + 1}
	s.Stack = stack.ForTest(t, stack.Config{Dir: t.TempDir(), Log: log})
	cl, err := kgo.NewClient(kgo.SeedBrokers(log.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	s.adm = kadm.NewClient(cl)
	c := loadgen.DefaultConfig(time.Now())
	c.Events, c.Accounts, c.BatchMax, c.Visitors, c.Bad = 400*s.parts, 20, 20, 0.4, 0.02
	c.Resend, c.Repeat = 0.1, 0.05
	if s.plan, err = loadgen.New(c); err != nil {
		t.Fatal(err)
	}
	s.traffic(1)
	s.right("before anything is lost")
	for i, d := range list {
		if i == remembering {
			s.plan = withoutRepeats(s.plan, s.sent)
		}
		began := time.Now()
		ok := t.Run(d.name, func(t *testing.T) {
			s.t = t
			s.ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			d.run(s)
			if longtest.Enabled() {
				s.right("after the remedy")
			}
			s.traffic(1)
			s.right("with later traffic")
			if longtest.Enabled() || i == len(list)-1 {
				s.audited()
			}
		})
		if s.t, s.ctx = t, ctx; !ok {
			t.Fatalf("%s: those after it need what it left", d.name)
		}
		t.Logf("%s: %s", d.name, time.Since(began).Round(100*time.Millisecond))
	}
}

// withoutRepeats leaves out of what is still to be sent every event that was sent before.
func withoutRepeats(p *loadgen.Plan, sent int) *loadgen.Plan {
	seen := map[string]bool{}
	for _, r := range p.Requests[:sent] {
		for _, e := range r.Events {
			seen[p.Events[e].MessageID] = true
		}
	}
	out := *p
	out.Requests = slices.Clone(p.Requests)
	for i := range out.Requests[sent:] {
		r := &out.Requests[sent+i]
		r.Events = slices.DeleteFunc(slices.Clone(r.Events), func(e int32) bool { return seen[p.Events[e].MessageID] })
	}
	kept := out.Requests[:sent]
	for _, r := range out.Requests[sent:] {
		if len(r.Events) > 0 {
			kept = append(kept, r)
		}
	}
	out.Requests = kept
	return &out
}

// traffic sends the next parts of the plan.
func (s *site) traffic(parts int) {
	s.t.Helper()
	to := min(len(s.plan.Requests), s.sent+parts*((len(s.plan.Requests)+s.parts-1)/s.parts))
	sender := loadgen.Sender{URLs: s.URLs(), WriteKey: stack.WriteKeyOf(stack.App), Workers: 4, MaxBackoff: 300 * time.Millisecond}
	if err := sender.Run(s.ctx, s.plan, s.ledger, s.sent, to); err != nil {
		s.t.Fatal(err)
	}
	s.sent = to
}

// right waits until every table is what the traffic makes it, as an oracle without the
// services' code has it.
func (s *site) right(when string) {
	s.t.Helper()
	began := time.Now()
	o := loadgen.NewOracle(stack.App, loadgen.Resolved)
	o.Add(s.plan, s.ledger)
	ctx, cancel := context.WithTimeout(s.ctx, 90*time.Second)
	defer cancel()
	d, err := loadgen.AwaitEqual(ctx, s.Conn, stack.Database, o)
	if err != nil {
		s.t.Fatalf("%s: %v", when, err)
	}
	if !d.Equal() {
		s.t.Fatalf("%s ClickHouse does not hold what was acked:\n%s", when, d)
	}
	s.identities(ctx, when)
	s.t.Logf("%s: equal after %s", when, time.Since(began).Round(100*time.Millisecond))
}

// audited waits until the audit agrees.
func (s *site) audited() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 90*time.Second)
	defer cancel()
	s.must(stack.Await(ctx, "the audit to agree", func() error {
		out, err := s.Run(ctx, stack.Writer, "audit", "-settle-wait", "200ms")
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		return err
	}))
}

// identities compares whose every visitor is with what the acked calls said.
func (s *site) identities(ctx context.Context, when string) {
	s.t.Helper()
	want := map[string]string{}
	for n := range s.plan.Requests {
		if !s.ledger.Outcome(n).Acked {
			continue
		}
		for _, i := range s.plan.Requests[n].Events {
			if e := &s.plan.Events[i]; e.Bad == nil && e.User != "" && e.Anonymous != "" {
				want[e.Anonymous] = e.User
			}
		}
	}
	rows, err := s.Conn.Query(ctx, "SELECT id, user_id FROM "+stack.Database+".identities WHERE id_kind = 'anonymous' AND in_force")
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	got := 0
	for rows.Next() {
		var id, user string
		if err := rows.Scan(&id, &user); err != nil {
			s.t.Fatal(err)
		}
		if w, ok := want[id]; ok {
			if got++; w != user {
				s.t.Errorf("%s: visitor %s is %s, want %s", when, id, user, w)
			}
		}
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	if got != len(want) || got == 0 {
		s.t.Errorf("%s: %d of %d visitors are known", when, got, len(want))
	}
}

// run runs a command that must succeed, and returns what it printed.
func (s *site) run(service, command string, args ...string) string {
	s.t.Helper()
	out, err := s.Run(s.ctx, service, command, args...)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	s.t.Logf("%s %s %s\n%s", service, command, strings.Join(args, " "), out)
	return out
}

// refused runs a command that must fail with these words.
func (s *site) refused(words, service, command string, args ...string) {
	s.t.Helper()
	out, err := s.Run(s.ctx, service, command, args...)
	if err == nil || !strings.Contains(err.Error()+out, words) {
		s.t.Fatalf("%s %s: got %v\n%s\nwant a refusal that says %q", service, command, err, out, words)
	}
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) stop(processes ...*stack.Process) {
	s.t.Helper()
	for _, p := range processes {
		if p.Running() {
			s.must(p.Stop(s.ctx))
		}
	}
}

// start starts processes and waits until they are ready. With env they run with it this
// time only.
func (s *site) start(processes []*stack.Process, env ...string) {
	s.t.Helper()
	for _, p := range processes {
		p.SetEnv(env...)
		s.must(p.Start())
	}
	for _, p := range processes {
		s.must(p.AwaitReady(s.ctx))
		p.SetEnv()
	}
}

// newInstallation is the one start with which enrichers accept a loss.
const newInstallation = "UPTAKE_NEW_INSTALLATION=true"

// refuses starts a process that must say why it does not work, and ends it.
func (s *site) refuses(p *stack.Process, words string) {
	s.t.Helper()
	s.must(p.Start())
	s.says(p, words)
	s.end(p)
}

// end ends a process that may end by itself.
func (s *site) end(p *stack.Process) {
	s.t.Helper()
	_ = p.Signal(syscall.SIGTERM) // fails when it has ended
	select {
	case <-p.Exited():
	case <-s.ctx.Done():
		s.t.Fatalf("%s does not end", p.Name)
	}
}

// endThemselves waits until the enrichers ended because of a topic.
func (s *site) endThemselves(name string) {
	s.t.Helper()
	for _, p := range s.Enrichers {
		s.says(p, "topic "+name+" was deleted and created again")
		s.end(p)
	}
}

// says waits until a process says something, in its log or at /readyz.
func (s *site) says(p *stack.Process, words string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	s.must(stack.Await(ctx, p.Name+" to say "+words, func() error {
		_, body, _ := p.Get(ctx, "/readyz") // it may have ended
		if strings.Contains(body, words) || strings.Contains(p.LastLog(), words) {
			return nil
		}
		return errors.New("it says " + body)
	}))
}

// lose deletes topics, as they are lost: the new ones have other ids.
func (s *site) lose(topics ...string) {
	s.t.Helper()
	deleted, err := s.adm.DeleteTopics(s.ctx, topics...)
	if err == nil {
		err = deleted.Error()
	}
	s.must(err)
}

// again makes the topics anew. Kafka deletes in the background.
func (s *site) again() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	s.must(stack.Await(ctx, "the topics to be made again", func() error { return s.ApplyTopics(ctx) }))
}

func (s *site) loseGroup(name string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	s.must(stack.Await(ctx, "the group to be deleted", func() error { // it may still have members
		deleted, err := s.adm.DeleteGroups(ctx, name)
		if err == nil {
			err = deleted.Error()
		}
		return err
	}))
}

// loseKafka deletes all that is in the log.
func (s *site) loseKafka() {
	s.t.Helper()
	s.stop(s.Gateways...)
	s.stop(s.Enrichers...)
	s.stop(s.Writers...)
	var names []string
	for _, spec := range topic.Unprefixed.Specs(topic.SingleLayout()) {
		names = append(names, spec.Name)
	}
	s.lose(names...)
	for _, group := range []string{topic.Unprefixed.GroupEnricher, topic.Unprefixed.GroupRollupWriter} {
		s.loseGroup(group)
	}
	s.again()
}

func (s *site) loseClickHouse() {
	s.t.Helper()
	for _, name := range []string{stack.Database, stack.Internal} {
		s.must(s.Conn.Exec(s.ctx, "DROP DATABASE "+name+" SYNC"))
	}
}

func (s *site) file(name string) string { return filepath.Join(s.t.TempDir(), name) }

func (s *site) emptied() {
	s.stop(s.Writers...)
	s.loseClickHouse()
	s.run(stack.Writer, "migrate")
	s.refused("it was emptied or is an older copy", stack.Writer, "audit")
	s.refuses(s.Writers[0], "rollup-writer init -reset")
	s.run(stack.Writer, "init", "-reset")
	s.start(s.Writers)
}

func (s *site) restored() {
	name := fmt.Sprintf("drill-%d.tar.gz", s.sent)
	out := s.run(stack.Writer, "backup", "-to", name)
	if !strings.Contains(out, "This backup holds personal data") {
		s.t.Errorf("a backup says nothing of what it holds: %s", out)
	}
	s.traffic(1) // newer than the backup
	s.right("with what the backup lacks")
	s.stop(s.Writers...)
	s.loseClickHouse()
	out = s.run(stack.Writer, "restore", "-from", name)
	if !regexp.MustCompile(`writers start at offset \d+ and read \d+ offsets of the log again`).MatchString(out) {
		s.t.Errorf("a restore does not say what is read again: %s", out)
	}
	s.start(s.Writers)
}

func (s *site) rawLost() {
	s.lose(topic.Unprefixed.Raw)
	s.again()
	s.endThemselves(topic.Unprefixed.Raw)
	s.start(s.Enrichers, newInstallation)
}

func (s *site) linksLost() {
	s.stop(s.Enrichers...)
	s.lose(topic.Unprefixed.Links)
	s.again()
	s.start(s.Enrichers, newInstallation)
}

func (s *site) enrichedLost() {
	s.lose(topic.Unprefixed.Enriched)
	s.again()
	s.endThemselves(topic.Unprefixed.Enriched)
	s.start(s.Enrichers)
	s.says(s.Writers[0], "the topic was deleted and created again")
	s.stop(s.Writers...)
	s.run(stack.Writer, "init", "-reset")
	s.start(s.Writers)
}

func (s *site) rejectedLost() {
	s.lose(topic.Unprefixed.Rejected)
	s.again()
	s.endThemselves(topic.Unprefixed.Rejected)
	s.start(s.Enrichers)
	s.says(s.Writers[0], "the topic was deleted and created again")
	s.stop(s.Writers...)
	s.run(stack.Writer, "init", "-reset")
	s.start(s.Writers)
}

func (s *site) stateLost() {
	file := s.file("state.json.gz")
	s.run(stack.Enricher, "state export", "-file", file)
	s.stop(s.Enrichers...)
	s.lose(topic.Unprefixed.EnricherState)
	s.again()
	s.refuses(s.Enrichers[0], topic.Unprefixed.EnricherState+" is empty although partitions")
	s.refused("-topics names those that were lost", stack.Enricher, "state import", "-file", file)
	s.run(stack.Enricher, "state import", "-file", file, "-topics", topic.Unprefixed.EnricherState)
	s.start(s.Enrichers)
}

func (s *site) stateLostForGood() {
	file := s.file("identities.json.gz")
	s.stop(s.Enrichers...)
	s.lose(topic.Unprefixed.EnricherState)
	s.again()
	s.refused("who was erased", stack.Writer, "identity export", "-to", file)
	s.run(stack.Writer, "identity export", "-to", file, "-without-erasures")
	s.run(stack.Enricher, "identity import", "-file", file)
	s.start(s.Enrichers, newInstallation)
}

func (s *site) disksLost() {
	for _, p := range s.Enrichers {
		p.Kill()
		s.must(os.RemoveAll(filepath.Join(s.Dir(), p.Name)))
		s.must(os.MkdirAll(filepath.Join(s.Dir(), p.Name), 0o755))
	}
	s.start(s.Enrichers)
}

func (s *site) writersOffsetsLost() {
	s.stop(s.Writers...)
	s.loseGroup(topic.Unprefixed.GroupRollupWriter)
	s.refuses(s.Writers[0], "has no commit, so that it is not known what was written of it")
	s.loseGroup(topic.Unprefixed.GroupRollupWriter)
	s.run(stack.Writer, "init", "-reset")
	s.start(s.Writers)
}

// The former offsets are those with which the newest counts of each partition end, which
// audit_blocks has.
func (s *site) enrichersOffsetsLost() {
	s.stop(s.Enrichers...)
	s.loseGroup(topic.Unprefixed.GroupEnricher)
	s.refuses(s.Enrichers[0], "has no offsets for partitions")
	rows, err := s.Conn.Query(s.ctx, "SELECT source_partition, max(raw_next) FROM "+stack.Internal+".audit_blocks "+
		"WHERE raw_topic_id = (SELECT argMax(raw_topic_id, counted_at) FROM "+stack.Internal+".audit_blocks) GROUP BY 1")
	s.must(err)
	defer rows.Close()
	offsets := kadm.Offsets{}
	for rows.Next() {
		var p int32
		var next int64
		s.must(rows.Scan(&p, &next))
		offsets.AddOffset(topic.Unprefixed.Raw, p, next, -1)
	}
	s.must(rows.Err())
	s.must(s.adm.CommitAllOffsets(s.ctx, topic.Unprefixed.GroupEnricher, offsets))
	s.start(s.Enrichers)
}

func (s *site) kafkaLost() {
	file := s.file("state.json.gz")
	s.run(stack.Enricher, "state export", "-file", file)
	s.loseKafka()
	s.refused("ClickHouse knows identities and "+topic.Unprefixed.EnricherState+" none", stack.Writer, "init", "-reset")
	s.run(stack.Enricher, "state import", "-file", file)
	s.run(stack.Writer, "init", "-reset")
	s.start(s.Enrichers, newInstallation)
	s.start(s.Gateways)
	s.start(s.Writers)
}
