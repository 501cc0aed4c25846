package erase

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// orders returns records of links for ids that no order of this run has named yet, one
// or more for each partition that needs them. In the first round there is at least one
// for each partition.
func (e *eraser) orders(counted []event.Attribution) []*kgo.Record {
	fresh := func(what string) bool {
		if e.ordered[what] {
			return false
		}
		e.ordered[what] = true
		return true
	}
	var all event.Erase
	for _, id := range slices.Sorted(maps.Keys(e.list.users)) {
		if fresh("u" + id) {
			all.Users = append(all.Users, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(e.list.anonymous)) {
		if fresh("a" + id) {
			all.Anonymous = append(all.Anonymous, id)
		}
	}
	for i := range counted {
		if c := &counted[i]; fresh(fmt.Sprintf("c%q", []string{*c.ActorID, *c.ActorKind, *c.UserID, *c.AnonymousID})) {
			all.Counted = append(all.Counted, *c)
		}
	}
	known := map[int32][]event.KnownPair{}
	for k := range e.known {
		if fresh(fmt.Sprintf("k%q", []string{k.UserID, k.AnonymousID})) {
			home := e.home(topic.KeyUser, k.UserID)
			known[home] = append(known[home], k)
		}
	}
	var records []*kgo.Record
	for p := range e.partitions {
		mine := all
		mine.Known = known[p]
		for _, order := range split(mine) {
			order.Key = e.key
			records = append(records, e.record(p, order))
		}
	}
	return records
}

// split splits an order that is too large.
func split(e event.Erase) (list []event.Erase) {
	var part event.Erase
	n, bytes := 0, 0
	room := func(size int) {
		if n == event.MaxErase || bytes+size > maxOrder {
			list = append(list, part)
			part, n, bytes = event.Erase{}, 0, 0
		}
		n++
		bytes += size
	}
	for _, id := range e.Users {
		room(len(id))
		part.Users = append(part.Users, id)
	}
	for _, id := range e.Anonymous {
		room(len(id))
		part.Anonymous = append(part.Anonymous, id)
	}
	for _, k := range e.Known {
		room(len(k.UserID) + len(k.AnonymousID))
		part.Known = append(part.Known, k)
	}
	for _, c := range e.Counted {
		room(len(*c.ActorID) + len(*c.UserID) + len(*c.AnonymousID))
		part.Counted = append(part.Counted, c)
	}
	if n > 0 {
		list = append(list, part)
	}
	return list
}

// maxOrder bounds the bytes of ids in an order; the JSON of them has at most six
// times as many.
const maxOrder = 128 << 10

func (e *eraser) record(partition int32, order event.Erase) *kgo.Record {
	body, err := json.Marshal(order)
	if err != nil {
		panic(err) // strings
	}
	l := event.Link{
		Kind: event.LinkErase, AppID: e.cfg.App, IDKind: event.ActorUser, Call: event.CallOperator,
		RecordedAt: event.FromTime(time.Now()), RawPartition: -1, RawOffset: -1, Partition: -1, Profile: body,
	}
	return &kgo.Record{Topic: e.Names.Links, Partition: partition, Key: topic.Key(nil, e.cfg.App, topic.KeyUser, ""), Value: e.Codec.AppendLink(nil, &l)}
}

// order gives orders and waits until they are executed: the enrichers have committed
// them, and the writers have committed what the enrichers had written by then.
func (e *eraser) order(ctx context.Context, records []*kgo.Record) error {
	behind := map[int32]int64{}
	for _, r := range e.Kafka.ProduceSync(ctx, records...) {
		if r.Err != nil {
			return fmt.Errorf("give the order to erase: %w", r.Err)
		}
		behind[r.Record.Partition] = max(behind[r.Record.Partition], r.Record.Offset+1)
	}
	wait, cancel := context.WithTimeout(ctx, e.cfg.Wait)
	defer cancel()
	if err := e.await(wait, e.Names.Prefix+e.cfg.Enrichers, "enrichers", map[string]map[int32]int64{e.Names.Links: behind}); err != nil {
		return err
	}
	ends, err := e.admin.ListEndOffsets(wait, e.Names.Enriched, e.Names.Rejected)
	if err != nil {
		return fmt.Errorf("ends of %s and %s: %w", e.Names.Enriched, e.Names.Rejected, err)
	}
	marks := map[string]map[int32]int64{e.Names.Enriched: {}, e.Names.Rejected: {}}
	var errs []error
	ends.Each(func(o kadm.ListedOffset) {
		if o.Err != nil {
			errs = append(errs, fmt.Errorf("end of %s/%d: %w", o.Topic, o.Partition, o.Err))
		}
		marks[o.Topic][o.Partition] = o.Offset
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return e.await(wait, e.Names.GroupRollupWriter, "rollup-writers", marks)
}

// await waits until a group has committed the given offsets.
func (e *eraser) await(ctx context.Context, group, who string, marks map[string]map[int32]int64) error {
	told := time.Now()
	for {
		offsets, err := e.admin.FetchOffsets(ctx, group)
		var late []string
		if err == nil {
			for name, partitions := range marks {
				for p, mark := range partitions {
					if o, ok := offsets.Lookup(name, p); mark > 0 && (!ok || o.At < mark) {
						late = append(late, fmt.Sprintf("%s/%d", name, p))
					}
				}
			}
			if len(late) == 0 {
				return nil
			}
		} else if ctx.Err() == nil && !kerr.IsRetriable(err) {
			return fmt.Errorf("ask for the offsets of group %s: %w", group, err)
		}
		slices.Sort(late)
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			e.Logger.Info("waiting until the order is carried out", "by", who, "partitions", late)
		}
		if e.pause(ctx) != nil {
			return fmt.Errorf("the %s of group %s have not carried out the order in time, in %v: are they running? The order stands; run it again when they are: %w",
				who, group, late, ctx.Err())
		}
	}
}

// changelog calls f with the newest record of each key of the app in
// enricher-state.
func (e *eraser) changelog(ctx context.Context, f func(*event.IdentityState)) error {
	prefix := []byte(e.cfg.App + "\x00")
	for p := range e.partitions {
		newest, err := partitions(e.Kafka).Newest(ctx, e.Names.EnricherState, p, func(key []byte) bool { return bytes.HasPrefix(key, prefix) })
		if err != nil {
			return err
		}
		for _, r := range newest {
			var rec event.IdentityState
			if err := e.Codec.DecodeIdentityState(r.Value, &rec); event.Unwritten(err) {
				continue // garbage: enrichers skip it too
			} else if err != nil {
				return fmt.Errorf("record %d of %s/%d: %w", r.Offset, e.Names.EnricherState, p, err)
			}
			f(&rec)
		}
	}
	return nil
}

// partitions reads identity state, on a client that is also used for other purposes.
func partitions(client *kgo.Client) *reader.Reader {
	r := reader.On(client)
	r.FetchBytes = 8 << 20 // one partition after the other
	return r
}

// retention returns how long a topic keeps its records; 0: forever.
func (e *eraser) retention(ctx context.Context, name string) (time.Duration, error) {
	configs, err := e.admin.DescribeTopicConfigs(ctx, name)
	if err != nil {
		return 0, fmt.Errorf("settings of %s: %w", name, err)
	}
	for _, c := range configs {
		for _, kv := range c.Configs {
			if kv.Key == "retention.ms" {
				ms, err := strconv.ParseInt(kv.MaybeValue(), 10, 64)
				if err == nil && ms > 0 {
					return time.Duration(ms) * time.Millisecond, nil
				}
			}
		}
	}
	return 0, nil
}
