package topic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

func TestRightsAreOfTheInstallation(t *testing.T) {
	for _, user := range Users {
		rights := NewNames("p-").Rights(user, BaseGroupEnricher)
		if len(rights) < 4 {
			t.Errorf("%s has %d rights", user, len(rights))
		}
		for _, r := range rights {
			if !strings.HasPrefix(r.Name, "p-uptake.") {
				t.Errorf("%s has a right on %s %s, without the prefix", user, r.Resource, r.Name)
			}
		}
	}
	var commands []string
	for _, r := range NewNames("staging.").Rights(UserEnricher, "mine") {
		commands = append(commands, r.Command("User:it's"))
	}
	for _, want := range []string{
		`kafka-acls.sh --add --allow-principal 'User:it'\''s' --operation Read --operation DescribeConfigs --topic staging.uptake.raw.v1`,
		`kafka-acls.sh --add --allow-principal 'User:it'\''s' --operation Read --group staging.mine`,
		`kafka-acls.sh --add --allow-principal 'User:it'\''s' --operation Write --transactional-id staging.mine- --resource-pattern-type prefixed`,
	} {
		if !slices.Contains(commands, want) {
			t.Errorf("no command %s among\n%s", want, strings.Join(commands, "\n"))
		}
	}
}

// A user with all rights but one is told which.
func TestCheckRights(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", "p"), kfake.User("PLAIN", "gateway", "p"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	as := func(user string) *kadm.Client {
		cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.SASL(plain.Auth{User: user, Pass: "p"}.AsMechanism()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return kadm.NewClient(cl)
	}
	ctx, n, adm := context.Background(), NewNames("s."), as("admin")
	if err := n.Ensure(ctx, adm, SingleLayout()); err != nil {
		t.Fatal(err)
	}
	rights := n.Rights(UserGateway, BaseGroupEnricher)
	if err := CheckRights(ctx, adm, rights); err != nil {
		t.Errorf("the administrator: %v", err)
	}
	// The last is on identity state.
	for _, r := range rights {
		for _, o := range r.Operations {
			if r.Name == n.Rejected && o == OperationWrite {
				continue
			}
			op, err := kmsg.ParseACLOperation(o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := adm.CreateACLs(ctx, kadm.NewACLs().Allow("User:gateway").AllowHosts("*").Operations(op).ResourcePatternType(kadm.ACLPatternLiteral).Topics(r.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = CheckRights(ctx, as("gateway"), rights)
	if !errors.Is(err, ErrRights) || !strings.Contains(err.Error(), "WRITE") || !strings.Contains(err.Error(), "on topic s.uptake.rejected.v1: the Kafka user lacks a right") || strings.Contains(err.Error(), "uptake.raw") {
		t.Errorf("got %v", err)
	}
}

func TestNeeds(t *testing.T) {
	err := Needs(fmt.Errorf("x: %w", kerr.TransactionalIDAuthorizationFailed), OperationWrite, ResourceTransactionalID, "t-1")
	if want := "WRITE on transactional-id t-1: the Kafka user lacks a right"; !errors.Is(err, ErrRights) || !errors.Is(err, kerr.TransactionalIDAuthorizationFailed) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	if err := Needs(kerr.NotLeaderForPartition, OperationRead, ResourceTopic, "x"); errors.Is(err, ErrRights) {
		t.Errorf("got %v", err)
	}
}
