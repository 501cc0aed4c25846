package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// control is a known mistake of the writer, and the kind of fault that it meets:
// without the mistake the same schedule does no harm.
type control struct {
	mistake string // its failpoint; empty: none
	kind    string
}

var controls = map[string]control{
	// A writer dies between an insert and its commit, and the next one cuts the
	// same records otherwise.
	"flush-anywhere": {"writer.mistake.flush-anywhere", "kill at writer.after-insert"},
	// All die while blocks are in events and usage_hourly and in nothing behind
	// these.
	"start-at-max": {"writer.mistake.start-at-max", "writers killed while a view throws"},
	// Partitions go and come back while a writer holds records that it has polled
	// of them.
	"unblocked-polls": {"writer.mistake.unblocked-polls", "rebalances around a held poll"},
}

// Controls returns the mistakes that can be switched on.
func Controls() []string { return slices.Sorted(maps.Keys(controls)) }

// controlRounds bounds the rounds until a mistake has to be seen. A round shows it
// more often than not, and ends the control then; on a machine that does other
// work too a round may also miss what it waits for.
const controlRounds = 24

// controlMissedAfter is how long a control waits for what it wants to meet: a group of
// writers that were killed has to come together first.
const controlMissedAfter = 20 * time.Second

// A mistake that loses events is waited out in every round. Without one a slow
// machine is waited for.
const (
	mistakenSettle = 15 * time.Second
	controlSettle  = 2 * time.Minute
)

// controlled runs the schedule of a control in an app of its own: without the
// mistake until a fault has struck, and with the mistake until the recount sees
// it.
func (e *env) controlled(ctx context.Context, name string, mistaken bool) (*Report, error) {
	c := controls[name]
	e.cfg.Settle = controlSettle
	if mistaken {
		e.cfg.Settle = mistakenSettle
	}
	cfg := e.cfg
	cfg.Kinds, cfg.PerRound, cfg.Faults = []string{c.kind}, 1, controlRounds
	if mistaken {
		cfg.Control = name
	} else {
		c.mistake, cfg.enough = "", 1
	}
	e.app, e.control = name, c
	for _, m := range e.members[stack.Writer] {
		p := m.(outside)
		p.Kill()
		p.SetEnv(e.plan(stack.Writer)...)
		if err := p.Start(); err != nil {
			return nil, err
		}
	}
	for _, m := range e.members[stack.Writer] {
		if err := m.AwaitReady(ctx); err != nil {
			return nil, err
		}
	}
	return e.run(ctx, cfg, schedule(cfg))
}

// planHalted reports whether a writer halted a partition because a block has two
// plans, which only a mistake does: that is seen where it is made.
func (e *env) planHalted() bool {
	for _, m := range e.members[stack.Writer] {
		if p, ok := m.(outside); ok && twoHeads(p.LastLog()) {
			return true
		}
	}
	return false
}

// twoHeads finds what rollup-writer/rollup/correction.go says of such a block.
func twoHeads(log string) bool { return twoHeadsLine.MatchString(log) }

var twoHeadsLine = regexp.MustCompile(`partition halted.* [0-9]+ heads: rows of the plan were lost or doubled`)

// killWhileViewThrows ends every writer while blocks have got as far as
// usage_hourly and no further, and starts them when they can.
func killWhileViewThrows(ctx context.Context, e *env, f *fault) (string, error) {
	defer e.pickAll(stack.Writer)()
	view := fmt.Sprintf("%s.fault_view_%d", stack.Internal, f.rng.Uint32())
	err := e.throwingView(ctx, view, stack.Internal+".usage_hourly")
	half := false
	if err == nil {
		half = e.halfWritten(ctx)
		for _, m := range e.members[stack.Writer] {
			m.Kill()
		}
		wait(ctx, between(f.rng, 0, 500*time.Millisecond))
	}
	note := "missed"
	if half {
		note = "with a block half way"
	}
	if dropErr := e.dropView(ctx, view); dropErr != nil {
		return note, dropErr
	}
	for _, m := range e.members[stack.Writer] {
		if !m.Running() {
			if startErr := m.Start(); startErr != nil {
				return note, startErr
			}
		}
	}
	switch {
	case err != nil:
		return err.Error(), errMissed
	case !half:
		return note, errMissed
	}
	return note, nil
}

// halfWritten waits until usage_hourly holds what a rollup over it does not, and
// goes on to.
func (e *env) halfWritten(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, controlMissedAfter)
	defer cancel()
	q := fmt.Sprintf("SELECT (SELECT sum(events) FROM %[1]s.usage_hourly) - (SELECT sum(events) FROM %[1]s.account_product_daily)", stack.Internal)
	for seen := 0; ctx.Err() == nil; wait(ctx, 150*time.Millisecond) {
		var ahead int64
		if e.stack.Conn.QueryRow(ctx, q).Scan(&ahead) == nil && ahead > 0 {
			seen++
		} else {
			seen = 0
		}
		if seen == 3 {
			return true
		}
	}
	return false
}

// rebalancesInARow lets a member that does nothing join the writers' group and
// leave it, again and again: partitions go to it and come back.
func rebalancesInARow(ctx context.Context, e *env, f *fault) (string, error) {
	return e.passByFor(ctx, f, between(f.rng, 2*time.Second, 6*time.Second))
}

// heldPoll is how long a writer is held between a poll and the handing out.
const heldPoll = 6 * time.Second

// rebalancesAroundPoll does the same while the only writer is held between a
// poll and the handing out of what it polled.
func rebalancesAroundPoll(ctx context.Context, e *env, f *fault) (string, error) {
	defer e.pickAll(stack.Writer)()
	for _, m := range e.members[stack.Writer] {
		m.Kill()
	}
	// Records gather in every partition, for one poll to have them.
	wait(ctx, between(f.rng, time.Second, 2*time.Second))
	p := e.members[stack.Writer][0].(outside)
	// The first poll returns with what one broker has; by the second all have
	// answered.
	p.SetEnv(e.plan(stack.Writer, "writer.after-poll=sleep(1s)@1", fmt.Sprintf("writer.after-poll=sleep(%s)@2", heldPoll))...)
	err := p.Start()
	p.SetEnv(e.plan(stack.Writer)...)
	if err != nil {
		return "", err
	}
	held, cancel := context.WithTimeout(ctx, controlMissedAfter)
	defer cancel()
	err = stack.Await(held, "a poll that is held", func() error {
		if !strings.Contains(p.LastLog(), fmt.Sprintf("failpoint writer.after-poll: sleep(%s)", heldPoll)) {
			return errMissed
		}
		return nil
	})
	note := ""
	if errors.Is(err, errMissed) {
		note, err = "no poll was held", errMissed // that it waited in vain is no error
	} else if err == nil {
		over := time.Now().Add(heldPoll)
		// The last of them ends with the partitions back before the poll goes on.
		if note, err = e.passByFor(ctx, f, heldPoll/2); errors.Is(err, errMissed) {
			err = nil // a writer without the mistake lets nothing go meanwhile
		}
		wait(ctx, time.Until(over))
	}
	for _, m := range e.members[stack.Writer][1:] {
		if startErr := m.Start(); startErr != nil {
			return note, startErr
		}
	}
	return note, err
}

// passByFor joins and leaves the writers' group for a while.
func (e *env) passByFor(ctx context.Context, f *fault, lasts time.Duration) (string, error) {
	met, end := 0, time.Now().Add(lasts)
	for n := 0; ctx.Err() == nil && time.Now().Before(end); n++ {
		ok, err := e.passBy(ctx, fmt.Sprint(passerBy, n))
		if err != nil {
			return "", err
		}
		if ok {
			met++
		}
		wait(ctx, between(f.rng, 0, 300*time.Millisecond))
	}
	if met == 0 {
		return "no partition went and came back", errMissed
	}
	return fmt.Sprintf("partitions went and came back %d times", met), nil
}

// passTimeout bounds one time of joining and leaving.
const passTimeout = 4 * time.Second

// passerBy begins the names of the members that do nothing.
const passerBy = "passer-by-"

// passBy joins the writers' group once, and leaves when it was given a
// partition. It reports whether it was, and all of them are writers' again.
func (e *env) passBy(ctx context.Context, name string) (bool, error) {
	given := make(chan struct{}, 1)
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(e.addrs()...), kgo.ClientID(name),
		kgo.ConsumerGroup(topic.Unprefixed.GroupRollupWriter), kgo.ConsumeTopics(topic.Unprefixed.Enriched, topic.Unprefixed.Rejected),
		kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.SessionTimeout(2*time.Second), kgo.HeartbeatInterval(200*time.Millisecond), kgo.RebalanceTimeout(3*time.Second),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, added map[string][]int32) {
			if len(added) > 0 {
				select {
				case given <- struct{}{}:
				default:
				}
			}
		}),
	)
	if err != nil {
		return false, fmt.Errorf("join group %s: %w", topic.Unprefixed.GroupRollupWriter, err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	ok := false
	select {
	case <-given:
		ok = true
	case <-ctx.Done():
	}
	leave, cancelLeave := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancelLeave()
	_ = cl.LeaveGroupContext(leave) // the session timeout does it otherwise
	return ok && e.allHeld(ctx), nil
}

// allHeld waits until every partition is a writer's, and reports whether it came
// to that before ctx ended.
func (e *env) allHeld(ctx context.Context) bool {
	adm := kadm.NewClient(e.producer)
	want := int(e.layout.Partitions + e.layout.RejectedPartitions)
	for ; ctx.Err() == nil; wait(ctx, 50*time.Millisecond) {
		groups, err := adm.DescribeGroups(ctx, topic.Unprefixed.GroupRollupWriter)
		if err != nil || groups.Error() != nil {
			continue
		}
		g, held := groups[topic.Unprefixed.GroupRollupWriter], 0
		for _, numbers := range g.AssignedPartitions() {
			held += len(numbers)
		}
		ours := slices.ContainsFunc(g.Members, func(m kadm.DescribedGroupMember) bool { return strings.HasPrefix(m.ClientID, passerBy) })
		if g.State == "Stable" && !ours && held == want {
			return true
		}
	}
	return false
}
