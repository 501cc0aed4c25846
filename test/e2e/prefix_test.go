package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

// Two installations on one log, of which one has a prefix: each stores what was sent to
// it, once, also where both get events with the same ids, and audits itself without
// findings.
func TestInstallationsShareALog(t *testing.T) {
	s, _ := forTest(t)
	apart(t, shared.fake, s, stack.ForTest(t, stack.Config{Log: shared.fake, Prefix: "staging."}))
}

// The long form is on Apache Kafka, and both have a prefix, of which one begins with the
// other.
func TestInstallationsShareApacheKafka(t *testing.T) {
	longtest.Only(t)
	log := kafka.ForTest(t, kafka.Config{Brokers: 1})
	apart(t, log, stack.ForTest(t, stack.Config{Log: log, Prefix: "s-"}), stack.ForTest(t, stack.Config{Log: log, Prefix: "s-2_"}))
}

func apart(t *testing.T, log kafka.Log, a, b *stack.Stack) {
	t.Helper()
	ctx := within(t, 2*time.Minute)
	const ids = "prefix-" // of both
	type installation struct {
		*stack.Stack
		events int
		oracle *loadgen.Oracle
	}
	both := []*installation{{Stack: a, events: 300}, {Stack: b, events: 500}}
	for _, i := range both {
		p, l := plan(t, ids, i.events), loadgen.NewLedger()
		sender := loadgen.Sender{URLs: i.URLs(), WriteKey: stack.WriteKeyOf(stack.App), Workers: 4, Rate: 1500, MaxBackoff: 500 * time.Millisecond}
		if err := sender.Run(ctx, p, l, 0, len(p.Requests)); err != nil {
			t.Fatal(err)
		}
		i.oracle = loadgen.NewOracle(stack.App, loadgen.Resolved)
		i.oracle.Prefix = ids
		i.oracle.Add(p, l)
		if i.oracle.Acked() != p.Good() {
			t.Errorf("%d of %d good events were acked", i.oracle.Acked(), p.Good())
		}
	}
	for _, i := range both {
		equal(t, i.Stack, i.oracle)
	}
	// Only the second's database holds its own events alone: the first may be shared.
	var stored uint64
	if err := b.Conn.QueryRow(ctx, "SELECT count() FROM "+stack.Database+".events WHERE NOT startsWith(message_id, ?)", ids).Scan(&stored); err != nil || stored > 0 {
		t.Errorf("the second installation holds %d events of others (%v)", stored, err)
	}
	if out, err := b.Run(ctx, stack.Writer, "audit", "-settle-wait", "200ms"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}

	cl, err := kgo.NewClient(kgo.SeedBrokers(log.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	groups, err := kadm.NewClient(cl).ListGroups(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range both {
		for _, group := range []string{"uptake.enricher.v1", "uptake.rollup-writer.v1"} {
			if !slices.Contains(groups.Groups(), i.Prefix()+group) {
				t.Errorf("there is no group %s among %v", i.Prefix()+group, groups.Groups())
			}
		}
	}
}

// A service with a prefix for which no topics were made refuses to start, and says which
// prefixes there are.
func TestWrongPrefixIsRefused(t *testing.T) {
	s, _ := forTest(t)
	ctx := within(t, time.Minute)
	for _, command := range [][]string{{stack.Enricher, "serve", "-data-dir", t.TempDir(), "-metrics-addr", ""}, {stack.Writer, "init"}} {
		_, err := s.Run(ctx, command[0], command[1], append(command[2:], "-kafka-prefix", "stagging.")...)
		if err == nil {
			t.Errorf("%v passed", command)
			continue
		}
		for _, want := range []string{"stagging.uptake.enriched.v1: topic does not exist", `kafka-prefix is "stagging.", and the cluster has topics with kafka-prefix "`} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q:\n%v", command, want, err)
			}
		}
	}
	if _, err := s.Run(ctx, stack.Enricher, "serve", "-kafka-prefix", "a b"); err == nil || !strings.Contains(err.Error(), "kafka-prefix may have only") {
		t.Errorf("got %v", err)
	}
}
