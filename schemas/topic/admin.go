package topic

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// Ensure makes the topics that are missing. Topics that exist are left as they
// are: Check says whether they will do.
func Ensure(ctx context.Context, adm *kadm.Client, l Layout) error {
	if err := l.Validate(); err != nil {
		return err
	}
	for _, s := range Specs(l) {
		configs := map[string]*string{}
		for k, v := range s.Configs {
			configs[k] = kadm.StringPtr(v)
		}
		_, err := adm.CreateTopic(ctx, s.Partitions, s.Replication, configs, s.Name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", s.Name, err)
		}
	}
	return nil
}

// Info is what a cluster says of one topic.
type Info struct {
	ID         kadm.TopicID
	Partitions int32
}

// ErrMissing is in the chain of Check's error when a topic does not exist.
var ErrMissing = errors.New("topic does not exist; make the topics with `enricher topics apply`")

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
func Check(ctx context.Context, adm *kadm.Client, names ...string) (infos map[string]Info, err error) {
	pause := backoff.Backoff{Min: settlePause, Max: settlePause}
	err = pause.Retry(ctx, settleTime, func() error {
		infos, err = check(ctx, adm, names...)
		return err
	}, func(err error) bool {
		return errors.Is(err, ErrMissing) || errors.Is(err, kerr.UnknownTopicOrPartition)
	})
	return infos, err
}

func check(ctx context.Context, adm *kadm.Client, names ...string) (map[string]Info, error) {
	details, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	infos := map[string]Info{}
	var faults []error
	for _, name := range names {
		d, ok := details[name]
		switch {
		case !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			faults = append(faults, fmt.Errorf("%s: %w", name, ErrMissing))
		case d.Err != nil:
			faults = append(faults, fmt.Errorf("topic %s: %w", name, d.Err))
		default:
			infos[name] = Info{ID: d.ID, Partitions: int32(len(d.Partitions))}
		}
	}
	if len(faults) > 0 {
		return nil, &FaultError{faults}
	}
	faults = append(faults, checkCounts(infos)...)

	configs, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	want := map[string]Spec{}
	for _, s := range Specs(DefaultLayout()) {
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
				faults = append(faults, fmt.Errorf("topic %s has %s=%q, must be %q: set it with kafka-configs, before any record is written", c.Name, key, got, wanted))
			}
		}
		faults = append(faults, checkInsync(c.Name, have[configMinInsync], details[c.Name])...)
	}
	if len(faults) > 0 {
		return nil, &FaultError{faults}
	}
	return infos, nil
}

// checkCounts holds the topics that share partition numbers against each other.
func checkCounts(infos map[string]Info) []error {
	var names []string
	for _, name := range []string{Raw, Links, Enriched, EnricherState} {
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
