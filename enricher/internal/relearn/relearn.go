// Package relearn makes identity state again from the calls that it was learnt from, as
// `rollup-writer identity export` writes them from ClickHouse: for a Kafka that was lost
// without a copy of enricher-state.
//
// The calls go through the rules of package identity, in order of event time, with a state
// for each partition and the links that they send each other. Corrections are left out:
// what was counted for the ids was moved in ClickHouse long ago.
package relearn

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/identity"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Report counts what was made.
type Report struct {
	Calls   int64 // of the file
	Records int64 // of enricher-state
	Erased  int64 // lists of persons who were erased
}

// learner is the state of all partitions.
type learner struct {
	codec  *event.Codec
	states []*identity.State
	txs    []*identity.Tx
	out    identity.Outputs
	links  []sent // to be taken in
	newest []map[string][]byte
	report Report
}

// sent is a link on its way to a partition.
type sent struct {
	to   int32
	link []byte // encoded: its strings may point into the record that led to it
}

func newLearner(partitions int32) *learner {
	l := &learner{codec: event.NewCodec()}
	cfg := identity.DefaultConfig(partitions)
	// What one record may cause bounds strangers; these calls were accepted.
	for p := range partitions {
		s := identity.New(cfg, p, l.codec, nil)
		l.states = append(l.states, s)
		l.txs = append(l.txs, s.Begin())
		l.newest = append(l.newest, map[string][]byte{})
	}
	return l
}

// learn takes in one line of a file.
func (l *learner) learn(c *event.KnownCall) error {
	at := event.FromTime(c.At)
	switch c.Kind {
	case event.KnownErased:
		l.report.Erased++
		body, err := json.Marshal(c.Erased)
		if err != nil {
			return err
		}
		// As enrichers keep it: in every partition, under its own hash.
		sum := sha256.Sum256(body)
		rec := event.IdentityState{Kind: event.StateErased, AppID: c.AppID, RawPartition: -1, RawOffset: -1, Body: body}
		key := append(append([]byte(c.AppID), 0, 'e'), sum[:16]...)
		for _, newest := range l.newest {
			newest[string(key)] = l.codec.AppendIdentityState(nil, &rec)
		}
		return nil
	case event.KnownUnlink:
		kind := byte(topic.KeyUser)
		if c.IDKind == event.ActorAnonymous {
			kind = topic.KeyAnonymous
		}
		l.report.Calls++
		err := l.take(topic.Partition(topic.Key(nil, c.AppID, kind, c.ID), int32(len(l.txs))), &event.Link{
			Kind: event.LinkUnlink, AppID: c.AppID, ID: c.ID, IDKind: c.IDKind, UserID: c.UserID, Since: at,
			Call: event.CallOperator, RawPartition: -1, RawOffset: -1, Partition: -1,
		})
		return errors.Join(err, l.deliver())
	case event.KindIdentify, event.KindGroup, event.KindAlias:
	default:
		return fmt.Errorf("a call of kind %q", c.Kind)
	}
	l.report.Calls++
	raw := event.RawEvent{
		AppID: c.AppID, Kind: c.Kind, UserID: c.UserID, AnonymousID: c.AnonymousID, PreviousID: c.PreviousID, AccountID: c.AccountID,
		Timestamp: at, ReceivedAt: at, Quantity: 1,
	}
	if c.Role != "" {
		traits, err := json.Marshal(map[string]string{"role": c.Role})
		if err != nil {
			return err
		}
		raw.Traits = traits
	}
	p := topic.Partition(topic.RawKey(nil, c.AppID, c.UserID, c.AnonymousID, c.AccountID), int32(len(l.txs)))
	l.out.Reset()
	l.txs[p].RoleFrom(nil)
	if _, err := l.txs[p].Event(-1, &raw, at, &l.out); err != nil {
		return fmt.Errorf("a call of %s: %w", c.At, err)
	}
	l.keep(p)
	return l.deliver()
}

// take has a partition take in a link.
func (l *learner) take(p int32, link *event.Link) error {
	l.out.Reset()
	if err := l.txs[p].Link(-1, link, &l.out); err != nil {
		return fmt.Errorf("a link of %s: %w", link.Kind, err)
	}
	l.keep(p)
	return nil
}

// keep keeps what a partition put out.
func (l *learner) keep(p int32) {
	l.txs[p].Flush(&l.out)
	for _, c := range l.out.Changes {
		l.newest[p][string(c.Key)] = bytes.Clone(c.Value)
	}
	for _, k := range l.out.Links {
		l.links = append(l.links, sent{k.Partition, l.codec.AppendLink(nil, &k.Record)})
	}
}

// deliver hands links to their partitions until there are none.
func (l *learner) deliver() error {
	for len(l.links) > 0 {
		next := l.links[0]
		l.links = l.links[1:]
		var link event.Link
		if err := l.codec.DecodeLink(next.link, &link); err != nil {
			return err
		}
		if err := l.take(next.to, &link); err != nil {
			return err
		}
	}
	l.links = nil
	return nil
}

// Into puts the identity state of a file into enricher-state, which must hold no identity,
// while no enricher runs. Enrichers write their marks when they start. client's producer
// must leave the partition to the record, with acks of all replicas.
func Into(ctx context.Context, client *kgo.Client, names *topic.Names, file io.Reader) (*Report, error) {
	admin := kadm.NewClient(client)
	infos, err := names.Check(ctx, admin, names.EnricherState)
	if err != nil {
		return nil, err
	}
	n, err := topic.Members(ctx, admin, names.GroupEnricher)
	if err != nil {
		return nil, err
	}
	if n > 0 {
		return nil, fmt.Errorf("group %s has %d running enrichers: stop them first", names.GroupEnricher, n)
	}
	ends, err := admin.ListEndOffsets(ctx, names.EnricherState)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ends of %s: %w", names.EnricherState, err)
	}
	var held []error
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			held = append(held, fmt.Errorf("%s/%d has records: identities are imported into an empty topic only", o.Topic, o.Partition))
		}
	})
	if err := errors.Join(held...); err != nil {
		return nil, err
	}
	l := newLearner(infos[names.EnricherState].Partitions)
	if err := Scan(file, l.learn); err != nil {
		return nil, err
	}
	var pending []*kgo.Record
	flush := func() error {
		if err := client.ProduceSync(ctx, pending...).FirstErr(); err != nil {
			return fmt.Errorf("write records: %w; delete the topic and make it anew before another try", err)
		}
		pending = pending[:0]
		return nil
	}
	for p, newest := range l.newest {
		for key, value := range newest {
			if value == nil {
				continue // learnt and withdrawn
			}
			l.report.Records++
			pending = append(pending, &kgo.Record{Topic: names.EnricherState, Partition: int32(p), Key: []byte(key), Value: value})
			if len(pending) == 5000 {
				if err := flush(); err != nil {
					return nil, err
				}
			}
		}
	}
	return &l.report, flush()
}

// Scan calls fn with each line of a file but its first and last. It returns an error if the
// file is not whole.
func Scan(file io.Reader, fn func(*event.KnownCall) error) error {
	zip, err := gzip.NewReader(bufio.NewReaderSize(file, 1<<20))
	if err != nil {
		return fmt.Errorf("this is no file of `rollup-writer identity export`: %w", err)
	}
	in := json.NewDecoder(zip)
	var head event.KnownHeader
	if err := in.Decode(&head); err != nil || head.Version != event.KnownVersion {
		return fmt.Errorf("this is no file of `rollup-writer identity export` of version %d", event.KnownVersion)
	}
	for n := int64(0); ; n++ {
		var c event.KnownCall
		if err := in.Decode(&c); err != nil {
			return fmt.Errorf("the file was cut short, or is damaged: %w", err)
		}
		if c.End != nil {
			if *c.End != n {
				return fmt.Errorf("the file has %d lines, and its end says %d", n, *c.End)
			}
			if _, err := io.Copy(io.Discard, io.MultiReader(in.Buffered(), zip)); err != nil {
				return fmt.Errorf("the file is damaged: %w", err)
			}
			return nil
		}
		for _, id := range []*string{&c.UserID, &c.AnonymousID, &c.PreviousID, &c.AccountID, &c.ID} {
			*id = strings.Clone(*id)
		}
		if !slices.Contains(event.KnownKinds, c.Kind) {
			return fmt.Errorf("line %d is of kind %q, which this release does not know", n+2, c.Kind)
		}
		if err := fn(&c); err != nil {
			return fmt.Errorf("line %d: %w", n+2, err)
		}
	}
}
