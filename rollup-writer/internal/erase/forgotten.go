package erase

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Forgotten are the ids of an app that were erased, as identity state remembers
// them. It is for one goroutine.
type Forgotten struct {
	sets map[string]*forgottenSet // by key
}

type forgottenSet struct {
	*event.EraseHasher
	hashes map[event.ErasedHash]bool
}

// ReadForgotten reads those of one app from every partition of enricher-state. It fails
// with [ErrUnknown] if the topic holds nothing.
func ReadForgotten(ctx context.Context, client *kgo.Client, names *topic.Names, codec *event.Codec, app string) (*Forgotten, error) {
	f := &Forgotten{sets: map[string]*forgottenSet{}}
	count, err := knowing(ctx, client, names)
	if err != nil {
		return nil, err
	}
	return f, erased(ctx, client, names, codec, count, func(of string, ids *event.ErasedIDs) {
		if of == app {
			f.add(ids)
		}
	})
}

// ErrUnknown is in the chain of the error of a command that must not write what may be of
// persons who were erased, and cannot know who was.
var ErrUnknown = errors.New("who was erased is recorded in the topic of identity state (enricher-state), which holds nothing: it was lost or made anew; " +
	"put it back with `enricher state import`, see docs/recovery.md")

// Known returns [ErrUnknown] if it cannot be known who was erased.
func Known(ctx context.Context, client *kgo.Client, names *topic.Names) error {
	_, err := knowing(ctx, client, names)
	return err
}

// knowing returns the number of partitions of enricher-state, if it holds anything. (It
// does from the first start of an enricher on.)
func knowing(ctx context.Context, client *kgo.Client, names *topic.Names) (int32, error) {
	admin := kadm.NewClient(client)
	infos, err := names.Check(ctx, admin, names.EnricherState)
	if err != nil {
		return 0, err
	}
	ends, err := admin.ListEndOffsets(ctx, names.EnricherState)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("ends of %s: %w", names.EnricherState, err)
	}
	held := false
	ends.Each(func(o kadm.ListedOffset) { held = held || o.Offset > 0 })
	if !held {
		return 0, ErrUnknown
	}
	return infos[names.EnricherState].Partitions, nil
}

// errFound ends a read.
var errFound = errors.New("found")

// HasIdentities reports whether enricher-state holds any record about an app. Records about
// the installation have keys that begin with a zero byte.
func HasIdentities(ctx context.Context, client *kgo.Client, names *topic.Names) (bool, error) {
	count, err := knowing(ctx, client, names)
	if errors.Is(err, ErrUnknown) {
		return false, nil
	}
	for p := int32(0); p < count && err == nil; p++ {
		err = partitions(client).All(ctx, names.EnricherState, p, func(r *kgo.Record) error {
			if len(r.Key) > 0 && r.Key[0] != 0 {
				return errFound
			}
			return nil
		})
	}
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// Erasures are the erased ids of all apps. It is for one goroutine; see Copy.
type Erasures struct {
	apps map[string]*Forgotten
}

// ReadErasures reads them as ReadForgotten reads those of an app.
func ReadErasures(ctx context.Context, client *kgo.Client, names *topic.Names, codec *event.Codec) (*Erasures, error) {
	e := &Erasures{apps: map[string]*Forgotten{}}
	count, err := knowing(ctx, client, names)
	if err != nil {
		return nil, err
	}
	return e, erased(ctx, client, names, codec, count, func(app string, ids *event.ErasedIDs) {
		f := e.apps[app]
		if f == nil {
			f = &Forgotten{sets: map[string]*forgottenSet{}}
			e.apps[app] = f
		}
		f.add(ids)
	})
}

// Apps are the apps of which anybody was erased, in order.
func (e *Erasures) Apps() []string { return slices.Sorted(maps.Keys(e.apps)) }

// Of returns those of an app; nil: there are none.
func (e *Erasures) Of(app string) *Forgotten { return e.apps[app] }

// Copy returns e for another goroutine.
func (e *Erasures) Copy() *Erasures {
	out := &Erasures{apps: make(map[string]*Forgotten, len(e.apps))}
	for app, f := range e.apps {
		own := &Forgotten{sets: make(map[string]*forgottenSet, len(f.sets))}
		for key, set := range f.sets {
			own.sets[key] = &forgottenSet{event.NewEraseHasher([]byte(key)), set.hashes}
		}
		out.apps[app] = own
	}
	return out
}

func (f *Forgotten) add(ids *event.ErasedIDs) {
	set := f.sets[string(ids.Key)]
	if set == nil {
		set = &forgottenSet{event.NewEraseHasher(ids.Key), map[event.ErasedHash]bool{}}
		f.sets[string(ids.Key)] = set
	}
	for _, h := range ids.Hashes {
		if len(h) == len(event.ErasedHash{}) {
			set.hashes[event.ErasedHash(h)] = true
		}
	}
}

// erased calls each with the hashes of each app's erased ids, as often as they were
// recorded. Such records are never deleted.
func erased(ctx context.Context, client *kgo.Client, names *topic.Names, codec *event.Codec, count int32, each func(app string, ids *event.ErasedIDs)) error {
	in := partitions(client)
	for p := range count {
		err := in.All(ctx, names.EnricherState, p, func(r *kgo.Record) error {
			var rec event.IdentityState
			var ids event.ErasedIDs
			err := codec.DecodeIdentityState(r.Value, &rec)
			if event.Unwritten(err) {
				return nil // withdrawn, or garbage, which enrichers skip too
			}
			if err == nil && rec.Kind == event.StateErased {
				if err = json.Unmarshal(rec.Body, &ids); err == nil && len(ids.Key) == event.EraseKeyBytes {
					each(strings.Clone(rec.AppID), &ids)
				}
			}
			if err != nil {
				return fmt.Errorf("record %d: %w", r.Offset, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *Forgotten) has(kind byte, id string) bool {
	if id == "" {
		return false
	}
	for _, set := range f.sets {
		if set.hashes[set.Hash(kind, id)] {
			return true
		}
	}
	return false
}

// Scrub applies to an event from before an erasure what the erasure did to its row: see
// targets. It reports whether it changed anything.
func (f *Forgotten) Scrub(e *event.EnrichedEvent) bool {
	if len(f.sets) == 0 {
		return false
	}
	if f.theirs(e) {
		e.ActorID, e.ActorKind, e.UserID, e.AnonymousID, e.MessageID, e.PreviousID, e.LinkedUserID = "", event.ActorErased, "", "", "", "", ""
		e.Properties, e.Traits, e.Metric, e.Context, e.Conflicts = []byte("{}"), []byte("{}"), nil, nil, nil
		e.SessionID, e.IP, e.UserAgent, e.Role = "", "", "", ""
		e.Client = event.Client{}
		return true
	}
	changed := false
	if f.has(topic.KeyAnonymous, e.AnonymousID) {
		e.AnonymousID, changed = "", true
	}
	if f.has(topic.KeyUser, e.PreviousID) || f.has(topic.KeyAnonymous, e.PreviousID) {
		e.PreviousID, changed = "", true
	}
	return changed
}

// theirs reports whether an event is an erased person's, and not only names one.
func (f *Forgotten) theirs(e *event.EnrichedEvent) bool {
	switch {
	case e.UserID == "" && (f.has(topic.KeyUser, e.LinkedUserID) || f.has(topic.KeyAnonymous, e.AnonymousID)):
		return true
	case e.ActorKind == event.ActorUser && f.has(topic.KeyUser, e.ActorID):
		return true
	case e.ActorKind == event.ActorAnonymous && f.has(topic.KeyAnonymous, e.ActorID):
		return true
	}
	return f.has(topic.KeyUser, e.UserID)
}

// ScrubAttribution makes of what was counted for somebody before they were erased
// what erasing makes of its rows.
func (f *Forgotten) ScrubAttribution(a *columns.Attribution) {
	if len(f.sets) == 0 {
		return
	}
	if f.has(topic.KeyUser, a.UserID) || f.has(topic.KeyAnonymous, a.AnonymousID) ||
		(a.ActorKind == event.ActorUser && f.has(topic.KeyUser, a.ActorID)) || (a.ActorKind == event.ActorAnonymous && f.has(topic.KeyAnonymous, a.ActorID)) {
		a.ActorID, a.ActorKind, a.UserID, a.AnonymousID, a.Role = "", event.ActorErased, "", "", ""
	}
}

// Lists are the lists as identity state keeps them.
func (f *Forgotten) Lists() []event.ErasedIDs {
	var all []event.ErasedIDs
	for _, key := range slices.Sorted(maps.Keys(f.sets)) {
		ids := event.ErasedIDs{Key: []byte(key)}
		for h := range f.sets[key].hashes {
			ids.Hashes = append(ids.Hashes, h[:])
		}
		slices.SortFunc(ids.Hashes, slices.Compare)
		all = append(all, ids)
	}
	return all
}

// Names reports whether a call names an erased person. f may be nil.
func (f *Forgotten) Names(c *event.KnownCall) bool {
	if f == nil {
		return false
	}
	if f.has(topic.KeyUser, c.UserID) || f.has(topic.KeyAnonymous, c.AnonymousID) {
		return true
	}
	for _, id := range []string{c.PreviousID, c.ID} {
		if f.has(topic.KeyUser, id) || f.has(topic.KeyAnonymous, id) {
			return true
		}
	}
	return false
}
