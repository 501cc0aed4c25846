package alert

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/svc/ops"
)

var (
	// errStalled ends a session in which work waits and nothing moves.
	errStalled = errors.New("work waits without progress")
	// errStuck ends the process: the session did not end when it was to.
	errStuck = errors.New("work waited without progress, and what hung did not end when it was cancelled: the process must be started again")
)

const (
	// waitingTime is how long a step may take before the process is not ready.
	waitingTime = time.Minute
	// endWait is how long a stalled session may take to end.
	endWait = 30 * time.Second
	// askTimeout bounds the watch's own questions to Kafka.
	askTimeout = 10 * time.Second
)

// progress is what the loops of a session are doing. The zero value is idle.
type progress struct {
	mu        sync.Mutex // covers all below
	step      string
	since     time.Time // zero: idle
	knows     string    // what the evaluating loop knew when it last waited for work
	attempts  map[string]time.Time
	ownerless time.Time // since when nobody evaluates; zero: somebody does
}

// enter notes that the evaluating loop begins a step; "" is idle.
func (p *progress) enter(step string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step, p.since = step, time.Time{}
	if step != "" {
		p.since = time.Now()
	}
}

// idle notes that the evaluating loop waits for work, and what it knows.
func (p *progress) idle(knows string) {
	p.enter("")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.knows = knows
}

// began notes that an attempt to deliver to a target has begun, which must end by an
// instant.
func (p *progress) began(target string, by time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.attempts == nil {
		p.attempts = map[string]time.Time{}
	}
	p.attempts[target] = by
}

// ended notes that an attempt has ended.
func (p *progress) ended(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.attempts, target)
}

// waits returns for how long work has waited longest, and what waits.
func (p *progress) waits(now time.Time) (longest time.Duration, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	look := func(since time.Time, text string) {
		if !since.IsZero() && now.Sub(since) > longest {
			longest, what = now.Sub(since), text
		}
	}
	look(p.since, "this step has not ended: "+p.step)
	for target, by := range p.attempts {
		look(by, "an attempt to deliver has not ended by its timeout, to target "+target)
	}
	look(p.ownerless, "nobody evaluates: no member of the group that evaluates has the partition of the alerts log")
	return longest, what
}

// owner takes in whether somebody evaluates.
func (p *progress) owner(has bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case has:
		p.ownerless = time.Time{}
	case p.ownerless.IsZero():
		p.ownerless = now
	}
}

// session runs serve until it is asked to stop, and again with new clients when work waits
// and nothing moves. A session that hangs so that it does not end either ends the process.
func (s *Service) session(stop context.Context, serve func(context.Context) error) error {
	for {
		ctx, stall := context.WithCancelCause(stop)
		s.progress = &progress{}
		ended := make(chan error, 1)
		go func() { ended <- serve(ctx) }() // ends with ctx, or the process does
		var err error
		select {
		case err = <-ended:
		case <-s.watched(ctx, stall):
			select {
			case err = <-ended:
			case <-time.After(s.endWait):
				return fmt.Errorf("%w (waited %s)", errStuck, s.endWait)
			}
		}
		stalled := errors.Is(context.Cause(ctx), errStalled)
		stall(nil)
		if !stalled || stop.Err() != nil {
			return err
		}
		s.log.Info("starting again with new clients", "error", err)
	}
}

// watched looks at what the session does until ctx ends, which it ends with errStalled
// when work waits and nothing moves. The returned channel is closed then.
func (s *Service) watched(ctx context.Context, stall context.CancelCauseFunc) <-chan struct{} {
	over, p := make(chan struct{}), s.progress
	go func() { // ends with ctx
		var admin *kadm.Client
		defer func() {
			if admin != nil {
				admin.Close()
			}
		}()
		for backoff.Sleep(ctx, s.watchPause) == nil {
			if admin == nil {
				if cl, err := kgo.NewClient(s.kafka...); err == nil {
					admin = kadm.NewClient(cl)
				}
			}
			s.lookForOwner(ctx, admin, p)
			waits, what := p.waits(time.Now())
			s.metrics.waiting.Set(waits.Seconds())
			if waits < min(waitingTime, s.cfg.StallTimeout) {
				s.slow.Store(nil)
				continue
			}
			text := fmt.Sprintf("%s; for %s", what, waits.Round(time.Second))
			s.slow.Store(&text)
			if waits < s.cfg.StallTimeout {
				continue
			}
			s.metrics.stalls.Inc()
			s.dump(p, text)
			stall(errStalled)
			close(over)
			return
		}
	}()
	return over
}

// lookForOwner asks, with a client of the watch's own, whether any process evaluates:
// this one, or the member of the group that has the partition. If Kafka does not answer,
// nothing is known.
func (s *Service) lookForOwner(ctx context.Context, admin *kadm.Client, p *progress) {
	if s.leading.Load() {
		p.owner(true, time.Now())
		return
	}
	if admin == nil {
		return
	}
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	groups, err := admin.DescribeGroups(ask, s.names.GroupAlerts)
	if err == nil {
		err = groups.Error()
	}
	if err != nil {
		return
	}
	assigned := map[string][]string{} // topics by member
	for _, m := range groups[s.names.GroupAlerts].Members {
		if c, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range c.Topics {
				if len(t.Partitions) > 0 {
					assigned[m.MemberID] = append(assigned[m.MemberID], t.Topic)
				}
			}
		}
	}
	own, _ := s.member.Load().(string)
	p.owner(evaluates(assigned, s.names.Alerts, own), time.Now())
}

// evaluates reports whether a topic is assigned to another member than own, which is known
// not to evaluate.
func evaluates(assigned map[string][]string, name, own string) bool {
	for member, topics := range assigned {
		if member != own && slices.Contains(topics, name) {
			return true
		}
	}
	return false
}

// dump logs what the process knows.
func (s *Service) dump(p *progress, text string) {
	p.mu.Lock()
	step, knows, attempts := p.step, p.knows, len(p.attempts)
	p.mu.Unlock()
	member, _ := s.member.Load().(string)
	s.log.Error("work waits without progress; replacing the clients", "reason", text, "evaluating", s.leading.Load(), "step", step,
		"knows", knows, "attempts", attempts, "member", member, "stacks", ops.Stacks("uptake-alerts-stall-*.txt"))
}
