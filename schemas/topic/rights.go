package topic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Right is what a user may do with resources in Kafka.
type Right struct {
	// Resource is the kind of the resources: ResourceTopic, ResourceGroup or
	// ResourceTransactionalID.
	Resource string
	// Name is the name of the resource or, if Prefixed, the beginning of the names of
	// all resources meant.
	Name     string
	Prefixed bool
	// Operations are Kafka's. READ, WRITE and ALTER include DESCRIBE, and ALTER_CONFIGS
	// includes DESCRIBE_CONFIGS.
	Operations []string
}

// Kinds of resources, and operations, as kafka-acls.sh spells them.
const (
	ResourceTopic           = "topic"
	ResourceGroup           = "group"
	ResourceTransactionalID = "transactional-id"

	OperationRead  = "READ"
	OperationWrite = "WRITE"

	read            = OperationRead
	write           = OperationWrite
	create          = "CREATE"
	describe        = "DESCRIBE"
	describeConfigs = "DESCRIBE_CONFIGS"
	alterConfigs    = "ALTER_CONFIGS"
)

// Users are the users in Kafka that an installation needs: one for each service, and
// UserOperator for the commands that people and jobs run.
var Users = []string{UserGateway, UserEnricher, UserWriter, UserAlerts, UserConsole, UserOperator}

// Users of an installation.
const (
	UserGateway  = "ingest-gateway"
	UserEnricher = "enricher"
	UserWriter   = "rollup-writer"
	UserAlerts   = "alerts"
	UserConsole  = "console"
	UserOperator = "operator"
)

// Rights returns what one of Users needs, and no more: without any of these operations
// it cannot do all of its work. enricherGroup is the enrichers' group without the prefix.
func (n *Names) Rights(user, enricherGroup string) []Right {
	topic := func(name string, operations ...string) Right { return Right{ResourceTopic, name, false, operations} }
	group := func(name string, operation string) Right {
		return Right{ResourceGroup, name, false, []string{operation}}
	}
	transactions := func(name string, prefixed bool) Right {
		return Right{ResourceTransactionalID, name, prefixed, []string{write}}
	}
	enrichers := n.Prefix + enricherGroup
	// A catalog or the keys of an app are written under a transactional id that ends
	// with the app.
	ofApps := func(name string) Right { return transactions(name+".", true) }
	switch user {
	case UserGateway:
		return []Right{
			topic(n.Raw, write, describeConfigs),
			topic(n.Rejected, write, describeConfigs),
			topic(n.KnownIDs, read, write),
			topic(n.EnricherState, describe),
		}
	case UserEnricher:
		return []Right{
			topic(n.Raw, read, describeConfigs),
			topic(n.Links, read, write, describeConfigs),
			topic(n.Enriched, read, write, describeConfigs),
			topic(n.Rejected, write, describeConfigs),
			topic(n.Catalog, read, describeConfigs),
			topic(n.Metadata, read, write, describeConfigs),
			topic(n.EnricherState, read, write, describeConfigs),
			topic(n.Verdicts, write, describeConfigs),
			topic(n.VerdictRequests, read, describeConfigs),
			group(enrichers, read),
			transactions(enrichers+"-", true),
			ofApps(n.Metadata),
		}
	case UserWriter:
		return []Right{
			topic(n.Enriched, read, write, describeConfigs), // it writes ticks, which end blocks
			topic(n.Rejected, read, write, describeConfigs),
			topic(n.Catalog, read),
			topic(n.EnricherState, read, describeConfigs),
			topic(n.Alerts, read, describeConfigs),
			topic(n.AlertState, read, describeConfigs),
			topic(n.Notes, read, describeConfigs),
			topic(n.Looks, read, describeConfigs),
			group(n.GroupRollupWriter, read),
		}
	case UserAlerts:
		return []Right{
			topic(n.Raw, read),
			topic(n.Enriched, read),
			topic(n.EnricherState, describe),
			topic(n.Alerts, read, write, describeConfigs),
			topic(n.AlertState, read, write, describeConfigs),
			group(n.GroupAlerts, read),
			group(enrichers, describe),
			group(n.GroupRollupWriter, describe),
			transactions(n.Alerts, false),
		}
	case UserConsole:
		return []Right{
			topic(n.Verdicts, read),
			topic(n.Rejected, read),
			topic(n.VerdictRequests, write),
			topic(n.Alerts, read, write),
			topic(n.AlertState, read),
			topic(n.Notes, write),
			topic(n.Looks, write),
			transactions(n.Alerts, false),
		}
	case UserOperator:
		var all []Right
		for _, s := range n.Specs(DefaultLayout()) {
			all = append(all, topic(s.Name, read, write, create, alterConfigs))
		}
		return append(all,
			group(enrichers, describe),
			group(n.GroupRollupWriter, read),
			ofApps(n.Catalog),
			ofApps(n.Metadata),
			transactions(n.Alerts, false),
		)
	}
	return nil
}

// Command returns the command that grants the right to a principal, such as
// User:enricher, with Kafka's kafka-acls.sh, without the connection's options.
func (r Right) Command(principal string) string {
	args := []string{"kafka-acls.sh", "--add", "--allow-principal", quoted(principal)}
	for _, o := range r.Operations {
		args = append(args, "--operation", acl[o])
	}
	args = append(args, "--"+r.Resource, quoted(r.Name))
	if r.Prefixed {
		args = append(args, "--resource-pattern-type", "prefixed")
	}
	return strings.Join(args, " ")
}

// acl is how kafka-acls.sh spells operations.
var acl = map[string]string{
	read: "Read", write: "Write", create: "Create", describe: "Describe", describeConfigs: "DescribeConfigs", alterConfigs: "AlterConfigs",
}

// quoted is s for a shell.
func quoted(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !allowed(r) && !slices.Contains([]rune(":/,=@"), r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// ErrRights is in the chain of CheckRights' error when a right is missing.
var ErrRights = errors.New("the Kafka user lacks a right; `enricher topics acls` lists those that it needs")

// CheckRights asks the cluster what this user may do and reports every operation that is
// missing, as a FaultError. It does not see rights on transactional ids, and of groups
// without members or offsets; see Needs. Topics that do not exist are left to Check.
func CheckRights(ctx context.Context, adm *kadm.Client, rights []Right) error {
	var faults []error
	for _, r := range rights {
		have, known, err := authorized(ctx, adm, r)
		if err != nil {
			return err
		}
		var missing []string
		for _, o := range r.Operations {
			if known && !slices.Contains(have, o) {
				missing = append(missing, o)
			}
		}
		if len(missing) > 0 {
			faults = append(faults, fmt.Errorf("%s on %s %s: %w", strings.Join(missing, " and "), r.Resource, r.Name, ErrRights))
		}
	}
	if len(faults) > 0 {
		return &FaultError{faults}
	}
	return nil
}

// authorized returns the operations that this user may do with a resource, and whether
// that is known.
func authorized(ctx context.Context, adm *kadm.Client, r Right) (have []string, known bool, err error) {
	var operations []kadm.ACLOperation
	switch r.Resource {
	case ResourceTopic:
		var topics kadm.TopicDetails
		if topics, err = adm.ListTopics(kadm.WithAuthorizedOps(ctx), r.Name); err == nil {
			err, operations = topics[r.Name].Err, topics[r.Name].AuthorizedOperations
		}
	case ResourceGroup:
		var groups kadm.DescribedGroups
		if groups, err = adm.DescribeGroups(ctx, r.Name); err == nil {
			err, operations = groups[r.Name].Err, groups[r.Name].AuthorizedOperations
		}
	}
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed):
		return nil, true, nil
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.GroupIDNotFound):
		return nil, false, nil
	case err != nil && r.Resource == ResourceGroup:
		return nil, false, fmt.Errorf("describe group %s: %w", r.Name, err)
	case err != nil:
		return nil, false, fmt.Errorf("list topics: %w", err)
	}
	for _, o := range operations {
		have = append(have, o.String())
	}
	return have, len(have) > 0, nil
}

// Needs adds to an error by which Kafka denies something which right is missing. It
// returns other errors as they are.
func Needs(err error, operation, resource, name string) error {
	for _, denied := range []error{kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed} {
		if errors.Is(err, denied) && !errors.Is(err, ErrRights) {
			return fmt.Errorf("%s on %s %s: %w: %w", operation, resource, name, ErrRights, err)
		}
	}
	return err
}
