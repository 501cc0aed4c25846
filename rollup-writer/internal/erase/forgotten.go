package erase

import (
	"context"
	"encoding/json"
	"fmt"

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

// ReadForgotten reads them from every partition of enricher-state.
func ReadForgotten(ctx context.Context, client *kgo.Client, codec *event.Codec, app string) (*Forgotten, error) {
	infos, err := topic.Check(ctx, kadm.NewClient(client), topic.EnricherState)
	if err != nil {
		return nil, err
	}
	f := &Forgotten{sets: map[string]*forgottenSet{}}
	return f, erased(ctx, client, codec, infos[topic.EnricherState].Partitions, app, f.add)
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

// erased calls each with the hashes of the app's erased ids, as often as they were
// recorded. Such records are never deleted.
func erased(ctx context.Context, client *kgo.Client, codec *event.Codec, count int32, app string, each func(*event.ErasedIDs)) error {
	in := partitions(client)
	for p := range count {
		err := in.All(ctx, topic.EnricherState, p, func(r *kgo.Record) error {
			var rec event.IdentityState
			var ids event.ErasedIDs
			err := codec.DecodeIdentityState(r.Value, &rec)
			if event.Unwritten(err) {
				return nil // withdrawn, or garbage, which enrichers skip too
			}
			if err == nil && rec.Kind == event.StateErased && rec.AppID == app {
				if err = json.Unmarshal(rec.Body, &ids); err == nil && len(ids.Key) == event.EraseKeyBytes {
					each(&ids)
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
	user := func(id string) bool { return f.has(topic.KeyUser, id) }
	anonymous := func(id string) bool { return f.has(topic.KeyAnonymous, id) }
	theirs := user(e.UserID)
	if e.UserID == "" {
		theirs = user(e.LinkedUserID) || anonymous(e.AnonymousID)
	}
	switch e.ActorKind {
	case event.ActorUser:
		theirs = theirs || user(e.ActorID)
	case event.ActorAnonymous:
		theirs = theirs || anonymous(e.ActorID)
	}
	if theirs {
		e.ActorID, e.ActorKind, e.UserID, e.AnonymousID, e.MessageID, e.PreviousID, e.LinkedUserID = "", event.ActorErased, "", "", "", "", ""
		e.Properties, e.Traits, e.Metric, e.Context, e.Conflicts = []byte("{}"), []byte("{}"), nil, nil, nil
		e.SessionID, e.IP, e.UserAgent = "", "", ""
		return true
	}
	changed := false
	if anonymous(e.AnonymousID) {
		e.AnonymousID, changed = "", true
	}
	if user(e.PreviousID) || anonymous(e.PreviousID) {
		e.PreviousID, changed = "", true
	}
	return changed
}

// ScrubAttribution makes of what was counted for somebody before they were erased
// what erasing makes of its rows.
func (f *Forgotten) ScrubAttribution(a *columns.Attribution) {
	if len(f.sets) == 0 {
		return
	}
	if f.has(topic.KeyUser, a.UserID) || f.has(topic.KeyAnonymous, a.AnonymousID) ||
		(a.ActorKind == event.ActorUser && f.has(topic.KeyUser, a.ActorID)) || (a.ActorKind == event.ActorAnonymous && f.has(topic.KeyAnonymous, a.ActorID)) {
		a.ActorID, a.ActorKind, a.UserID, a.AnonymousID = "", event.ActorErased, "", ""
	}
}
