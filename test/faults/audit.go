package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/uptakehq/uptake/test/harness/stack"
)

// audited is what the product's own audit says of an installation at rest.
type audited struct {
	equal    bool // all that it compares
	sum      account
	unknown  string   // why it does not know what is in flight
	findings []string // its words
}

// account is its equation, over all apps and hours of receipt:
// accepted = stored + duplicates + rejected + opted out + in flight.
type account struct {
	Accepted, Stored, Duplicates, Rejected int64
	OptedOut                               int64 `json:"opted_out"`
	InFlight                               int64 `json:"in_flight"`
	Refused                                int64 // by the gateways: never accepted

	Difference         int64
	StoredDifference   int64 `json:"stored_difference"`
	RejectedDifference int64 `json:"rejected_difference"`
}

// balanced reports whether nothing is missing or too much.
func (a account) balanced() bool {
	return a.Accepted == a.Stored+a.Duplicates+a.Rejected+a.OptedOut+a.InFlight
}

// runAudit runs `rollup-writer audit` against what the run is about, past every
// proxy but that of Kafka.
func (e *env) runAudit(ctx context.Context) (audited, error) {
	args := []string{"-json", "-cells", "3", "-settle", "3", "-settle-wait", "300ms"}
	if e.app != stack.App {
		args = append(args, "-app", e.app)
	}
	out, runErr := e.stack.Run(ctx, stack.Writer, "audit", args...)
	type finding struct{ What string }
	var report struct {
		Equal bool
		Apps  []struct {
			ID       string `json:"app_id"`
			Findings []finding
		}
		Conservation struct {
			Unknown  string `json:"in_flight_unknown"`
			Hours    []account
			Findings []finding
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return audited{}, fmt.Errorf("audit: %w", runErr) // differences are told with a report
	}
	if report.Equal != (runErr == nil) {
		return audited{}, fmt.Errorf("audit: its report says equal %v, and its exit: %w", report.Equal, runErr)
	}
	a := audited{equal: report.Equal, unknown: report.Conservation.Unknown}
	if e.app != stack.App {
		a.equal = true // gaps are nobody's, and can be those of another app's mistake
	}
	for _, h := range report.Conservation.Hours {
		a.sum.Accepted += h.Accepted
		a.sum.Stored += h.Stored
		a.sum.Duplicates += h.Duplicates
		a.sum.Rejected += h.Rejected
		a.sum.OptedOut += h.OptedOut
		a.sum.InFlight += h.InFlight
		a.sum.Refused += h.Refused
		a.equal = a.equal && h.Difference == 0 && h.StoredDifference == 0 && h.RejectedDifference == 0
	}
	for _, f := range report.Conservation.Findings {
		a.findings = append(a.findings, f.What)
	}
	for _, app := range report.Apps {
		a.equal = a.equal && len(app.Findings) == 0
		for _, f := range app.Findings {
			a.findings = append(a.findings, app.ID+": "+f.What)
		}
	}
	return a, nil
}

// expected is what the recounts of all rounds of an app so far say that the audit
// has to find.
type expected struct {
	wrong            bool // a round was, with all worked through, where the audit looks
	open             bool // of another the audit may find something or nothing
	mistaken         bool // a writer of its makes a mistake, and the audit may find more
	stored, rejected bounds
}

// bounds are equal unless the fate of some attempts is unknown.
type bounds struct{ min, max int64 }

func (b bounds) hold(n int64) bool { return n >= b.min && n <= b.max }

// add takes in a round. What a gateway rejected was never accepted: nobody counts
// it, so that rejected_events can differ where the audit does not look.
func (x *expected) add(r *round) {
	for _, t := range r.diff.Tables {
		switch {
		case t.Wrong == 0:
		case r.stalled != "" || t.Table == "rejected_events":
			x.open = true
		default:
			x.wrong = true
		}
	}
	x.stored.min += int64(r.oracle.Acked()) + r.hostileStored
	x.stored.max += int64(r.oracle.Acked()+r.oracle.Unknown()) + r.hostileStored
	// What writers set aside is nobody's event, and counts as nothing.
	x.rejected.min += r.hostileRejected - r.aside
	x.rejected.max += r.hostileRejected - r.aside
	for _, c := range r.oracle.Rejected() {
		x.rejected.min += int64(c.Min)
		x.rejected.max += int64(c.Max)
	}
}

// disagrees says in what an audit and the recounts disagree; empty: in nothing.
func (x *expected) disagrees(a audited) string {
	found := strings.Join(a.findings, "; ")
	rejected := a.sum.Rejected + a.sum.Refused
	switch {
	case a.unknown != "":
		return "the audit does not know what is in flight: " + a.unknown
	case x.wrong && a.equal:
		return fmt.Sprintf("the recount found events lost or doubled, and the audit finds everything equal: %+v", a.sum)
	case x.wrong, x.mistaken:
		// A mistake can spoil what writers count and leave all rows as they should
		// be, which is nothing that the recount looks at.
		return ""
	case !a.equal:
		return "the recount found every table right, and the audit does not: " + found
	case !a.sum.balanced(), a.sum.InFlight != 0:
		return fmt.Sprintf("everything is worked through, and the audit does not balance or has something in flight: %+v", a.sum)
	case !x.stored.hold(a.sum.Stored):
		return fmt.Sprintf("the audit counts %d events stored, and the recount %d to %d: %+v", a.sum.Stored, x.stored.min, x.stored.max, a.sum)
	case !x.rejected.hold(rejected):
		return fmt.Sprintf("the audit counts %d events rejected and refused, and the recount %d to %d: %+v", rejected, x.rejected.min, x.rejected.max, a.sum)
	}
	return ""
}

// auditRound holds the audit against the recounts of this round and those
// before it.
func (e *env) auditRound(ctx context.Context, r *round, report *Report) error {
	x := e.known[e.app]
	if x == nil {
		x = &expected{}
		e.known[e.app] = x
	}
	x.mistaken = x.mistaken || e.control.mistake != ""
	x.add(r)
	if x.open && !x.wrong {
		return nil
	}
	disagreement, err := e.audit(ctx, x)
	if err != nil {
		return err
	}
	report.Audits++
	if disagreement != "" {
		report.Disagreed = append(report.Disagreed, fmt.Sprintf("round %d of seed %d: %s", r.number, report.Config.Seed, disagreement))
		fmt.Fprintln(e.cfg.Out, "AUDIT AND RECOUNT DISAGREE:", disagreement)
	}
	return nil
}

// auditWait bounds how long an audit may disagree: a zombie's last block can
// still be on its way through the views.
const auditWait = 15 * time.Second

// audit holds the product's audit against the recounts until they agree, and
// returns in what they don't.
func (e *env) audit(ctx context.Context, x *expected) (disagreement string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for began := time.Now(); ; {
		a, err := e.runAudit(ctx)
		if err != nil {
			return "", err
		}
		if disagreement = x.disagrees(a); disagreement == "" || time.Since(began) > auditWait {
			return disagreement, nil
		}
		wait(ctx, 500*time.Millisecond)
	}
}
