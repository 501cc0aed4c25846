package topic

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// Ensure makes the topics that are missing. Topics that exist are left as they
// are, but for who stamps raw and links: Check says whether they will do.
func (n *Names) Ensure(ctx context.Context, adm *kadm.Client, l Layout) error {
	if err := l.Validate(); err != nil {
		return err
	}
	for _, s := range n.Specs(l) {
		configs := map[string]*string{}
		for k, v := range s.Configs {
			configs[k] = kadm.StringPtr(v)
		}
		_, err := adm.CreateTopic(ctx, s.Partitions, s.Replication, configs, s.Name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", s.Name, err)
		}
	}
	return n.stampByBroker(ctx, adm)
}

// stampByBroker sets who stamps the records of raw and links on topics of earlier
// releases. Nothing depends on the times of their older records.
func (n *Names) stampByBroker(ctx context.Context, adm *kadm.Client) error {
	set := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: configTimestampType, Value: kadm.StringPtr(appendTime)}}
	configs, err := adm.DescribeTopicConfigs(ctx, n.Raw, n.Links)
	if err != nil {
		return fmt.Errorf("describe topics: %w", err)
	}
	for _, c := range configs {
		for _, kv := range c.Configs {
			if c.Err != nil || kv.Key != configTimestampType || kv.MaybeValue() == appendTime {
				continue
			}
			responses, err := adm.AlterTopicConfigs(ctx, set, c.Name)
			if err == nil {
				_, err = responses.On(c.Name, func(r *kadm.AlterConfigsResponse) error { return r.Err }) //nolint:wrapcheck // below
			}
			if err != nil {
				return fmt.Errorf("set %s of topic %s: %w", configTimestampType, c.Name, err)
			}
		}
	}
	return nil
}

// Info is what a cluster says of one topic.
type Info struct {
	ID         kadm.TopicID
	Partitions int32
	Retention  time.Duration // 0: for ever, or of a compacted topic
}

// ErrMissing is in the chain of Check's error when a topic does not exist.
var ErrMissing = errors.New("topic does not exist; make the topics with `enricher topics apply`")

// ErrRaised is in the chain of Check's error when partitions were added to topics
// after the enrichers began.
var ErrRaised = errors.New("partitions were added after the installation was made, so ids belong to other partitions than what is known of them; " +
	"Kafka cannot take them away again: docs/operations.md, \"Lost offsets and lost state\"")

// FaultError is what Check found wrong with the topics. Every other error of
// Check says that the cluster could not be asked, which may pass.
type FaultError struct{ Faults []error }

func (e *FaultError) Error() string { return errors.Join(e.Faults...).Error() }

// Unwrap makes each fault known to errors.Is.
func (e *FaultError) Unwrap() []error { return e.Faults }

// Passes reports whether every fault may pass by itself, as while brokers elect a
// leader.
func (e *FaultError) Passes() bool {
	for _, f := range e.Faults {
		ke, ok := errors.AsType[*kerr.Error](f)
		if !ok || !ke.Retriable || errors.Is(f, ErrMissing) {
			return false
		}
	}
	return true
}

// settleTime is how long Check asks again for a topic that a broker does not
// know, and settlePause the time in between: after topics are made, or a broker
// starts, some brokers hear of it later than others.
const (
	settleTime  = 5 * time.Second
	settlePause = 200 * time.Millisecond
)

// Check reads the named topics and reports every difference, as a FaultError,
// from what the services rely on: partition counts that belong together, cleanup policy, and
// who stamps the records. minInsync below what the layout of a cluster of three
// asks is allowed on fewer brokers, and is never checked above 1 there.
//
// A topic that is missing is asked for again for a few seconds.
func (n *Names) Check(ctx context.Context, adm *kadm.Client, names ...string) (infos map[string]Info, err error) {
	pause := backoff.Every(settlePause)
	err = pause.Retry(ctx, settleTime, func() error {
		infos, err = n.check(ctx, adm, names...)
		return err
	}, func(err error) bool {
		return errors.Is(err, ErrMissing) || errors.Is(err, ErrRaised) || errors.Is(err, kerr.UnknownTopicOrPartition)
	})
	return infos, err
}

func (n *Names) check(ctx context.Context, adm *kadm.Client, names ...string) (map[string]Info, error) {
	details, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	infos := map[string]Info{}
	var faults []error
	missing := false
	for _, name := range names {
		d, ok := details[name]
		switch {
		case !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			faults = append(faults, fmt.Errorf("%s: %w", name, ErrMissing))
			missing = true
		case d.Err != nil:
			faults = append(faults, fmt.Errorf("topic %s: %w", name, d.Err))
		default:
			infos[name] = Info{ID: d.ID, Partitions: int32(len(d.Partitions))}
		}
	}
	if missing {
		faults = append(faults, n.otherPrefixes(ctx, adm)...)
	}
	if len(faults) > 0 {
		return nil, &FaultError{faults}
	}
	faults = append(faults, n.checkCounts(infos)...)
	if _, ok := infos[n.EnricherState]; !ok { // who reads that looks closer
		raised, err := n.checkRaised(ctx, adm, infos)
		if err != nil {
			return nil, err
		}
		faults = append(faults, raised...)
	}

	configs, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	want := map[string]Spec{}
	for _, s := range n.Specs(DefaultLayout()) {
		want[s.Name] = s
	}
	for _, c := range configs {
		if c.Err != nil {
			faults = append(faults, fmt.Errorf("describe topic %s: %w", c.Name, c.Err))
			continue
		}
		have := map[string]string{}
		for _, kv := range c.Configs {
			have[kv.Key] = kv.MaybeValue()
		}
		for _, key := range []string{configCleanup, configTimestampType} {
			if got, wanted := have[key], want[c.Name].Configs[key]; got != wanted {
				when := ", before any record is written"
				if c.Name == n.Raw || c.Name == n.Links {
					when = ""
				}
				faults = append(faults, fmt.Errorf("topic %s has %s=%q, must be %q: set it with kafka-configs%s", c.Name, key, got, wanted, when))
			}
		}
		faults = append(faults, checkInsync(c.Name, have[configMinInsync], details[c.Name])...)
		if ms, err := strconv.ParseInt(have[configRetention], 10, 64); err == nil && ms > 0 && ms <= math.MaxInt64/int64(time.Millisecond) && have[configCleanup] == deletes {
			info := infos[c.Name]
			info.Retention = time.Duration(ms) * time.Millisecond
			infos[c.Name] = info
		}
	}
	if len(faults) > 0 {
		return nil, &FaultError{faults}
	}
	return infos, nil
}

// otherPrefixes returns, as one fault, with which other prefixes the cluster has topics
// of Uptake: the prefix may be a wrong one. Without any, and without a prefix, it returns
// none.
func (n *Names) otherPrefixes(ctx context.Context, adm *kadm.Client) []error {
	all, err := adm.ListTopics(ctx)
	if err != nil {
		return nil // that topics are missing is reported in any case
	}
	var others []string
	for _, name := range all.Names() {
		if prefix, ok := strings.CutSuffix(name, n.Base(n.Raw)); ok && prefix != n.Prefix {
			others = append(others, strconv.Quote(prefix))
		}
	}
	switch {
	case len(others) > 0:
		return []error{fmt.Errorf("kafka-prefix is %q, and the cluster has topics with kafka-prefix %s", n.Prefix, strings.Join(others, ", "))}
	case n.Prefix != "":
		return []error{fmt.Errorf("kafka-prefix is %q, and the cluster has no topics of Uptake with another one", n.Prefix)}
	}
	return nil
}

// checkCounts holds the topics that share partition numbers against each other.
func (n *Names) checkCounts(infos map[string]Info) []error {
	var names []string
	for _, name := range []string{n.Raw, n.Links, n.Enriched, n.EnricherState} {
		if _, ok := infos[name]; ok {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	var faults []error
	for _, name := range names[min(1, len(names)):] {
		if a, b := infos[names[0]], infos[name]; a.Partitions != b.Partitions {
			faults = append(faults, fmt.Errorf("topic %s has %d partitions and %s has %d: they share their numbering and must have the same count", names[0], a.Partitions, name, b.Partitions))
		}
	}
	return faults
}

// checkRaised holds the topics that share partition numbers against
// enricher-state. The first enricher writes to every partition of that before it
// reads anything, so one that is empty beside others was added later.
func (n *Names) checkRaised(ctx context.Context, adm *kadm.Client, infos map[string]Info) ([]error, error) {
	ends, err := adm.ListEndOffsets(ctx, n.EnricherState)
	if err != nil {
		return nil, fmt.Errorf("end of %s: %w", n.EnricherState, err)
	}
	partitions, empty := 0, 0
	var failed error
	ends.Each(func(o kadm.ListedOffset) {
		switch {
		case errors.Is(o.Err, kerr.UnknownTopicOrPartition): // nothing to hold against
		case o.Err != nil:
			failed = fmt.Errorf("end of %s/%d: %w", n.EnricherState, o.Partition, o.Err)
		default:
			partitions++
			if o.Offset == 0 {
				empty++
			}
		}
	})
	if failed != nil {
		return nil, failed
	}
	if partitions == empty { // no enricher has begun yet
		return nil, nil
	}
	var faults []error
	for _, name := range []string{n.Raw, n.Links, n.Enriched} {
		if i, ok := infos[name]; ok && (empty > 0 || int(i.Partitions) != partitions) {
			faults = append(faults, fmt.Errorf("topic %s has %d partitions, and %s has state in %d of %d: %w", name, i.Partitions, n.EnricherState, partitions-empty, partitions, ErrRaised))
		}
	}
	return faults, nil
}

// checkInsync refuses a replicated topic that acks on one replica: an ack there
// does not outlive that broker.
func checkInsync(name, value string, d kadm.TopicDetail) []error {
	replicas := 0
	for _, p := range d.Partitions {
		replicas = max(replicas, len(p.Replicas))
	}
	n, err := strconv.Atoi(value)
	if replicas < 3 || (err == nil && n >= 2) {
		return nil
	}
	return []error{fmt.Errorf("topic %s has %d replicas and %s=%q: must be at least 2, or an ack does not outlive a broker", name, replicas, configMinInsync, value)}
}

// Members returns how many members a group has. A command that must run alone asks it: no
// answer is an error, and does not mean that nobody is there. A group that does not exist
// has none.
func Members(ctx context.Context, adm *kadm.Client, group string) (int, error) {
	groups, err := adm.DescribeGroups(ctx, group)
	g, answered := groups[group]
	if err == nil {
		err = g.Err
	}
	switch {
	case errors.Is(err, kerr.GroupIDNotFound):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("describe group %s: %w", group, err)
	case !answered:
		return 0, fmt.Errorf("describe group %s: the broker's answer does not have it", group)
	}
	return len(g.Members), nil
}
