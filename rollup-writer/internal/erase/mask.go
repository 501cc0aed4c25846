package erase

import (
	"encoding/hex"
	"encoding/json"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// What a writer reads of the log again, after `init -reset` or a restore, has the names of
// persons who were erased since it was read first. It must be counted as it was: the
// control records that follow, links, memberships and in the end the erasure itself, move
// counts by their ids. So ids are replaced by others, the same for the same id, in events
// and in control records alike, and contents are removed. `erase -again` then makes of
// these rows what an erasure makes of them.

// maskPrefix begins a masked id; no id of the log is taken for one, since it is followed
// by a keyed hash.
const maskPrefix = "erased:"

// mask returns what an id is replaced by: itself, unless it was erased.
func (f *Forgotten) mask(kind byte, id string) string {
	if id == "" {
		return id
	}
	masked := ""
	for _, set := range f.sets {
		h := set.Hash(kind, id)
		if !set.hashes[h] {
			continue
		}
		// Of two keys the one that gives the smaller name: the same in every process.
		if m := maskPrefix + hex.EncodeToString(h[:]); masked == "" || m < masked {
			masked = m
		}
	}
	if masked == "" {
		return id
	}
	return masked
}

// maskOf is the mask of an id of the list; empty where the list masks nothing.
func (l *list) maskOf(kind, id string) string {
	switch {
	case l.masks == nil, kind == kindSaid:
		return ""
	case kind == kindRole:
		return l.masks.anyHash(id)
	case kind == kindAnonymous:
		return l.masks.mask(topic.KeyAnonymous, id)
	}
	return l.masks.mask(topic.KeyUser, id)
}

// Event masks an event of the log in place.
func (e *Erasures) Event(ev *event.EnrichedEvent) {
	f := e.apps[ev.AppID]
	if f == nil {
		return
	}
	theirs := f.theirs(ev)
	switch ev.ActorKind {
	case event.ActorUser:
		ev.ActorID = f.mask(topic.KeyUser, ev.ActorID)
	case event.ActorAnonymous:
		ev.ActorID = f.mask(topic.KeyAnonymous, ev.ActorID)
	}
	ev.UserID, ev.LinkedUserID = f.mask(topic.KeyUser, ev.UserID), f.mask(topic.KeyUser, ev.LinkedUserID)
	ev.AnonymousID = f.mask(topic.KeyAnonymous, ev.AnonymousID)
	ev.PreviousID = f.mask(topic.KeyAnonymous, f.mask(topic.KeyUser, ev.PreviousID))
	if !theirs {
		return
	}
	ev.MessageID, ev.Role = f.anyHash(ev.MessageID), f.anyHash(ev.Role)
	ev.Properties, ev.Context, ev.Conflicts, ev.SessionID, ev.IP, ev.UserAgent = []byte("{}"), nil, nil, "", "", ""
	ev.Client = event.Client{}
	if ev.Kind != event.KindGroup { // those are the account's
		ev.Traits = []byte("{}")
	}
}

// anyHash stands for a text, so that different ones stay different; an empty one is itself.
func (f *Forgotten) anyHash(text string) string {
	if text == "" {
		return ""
	}
	least := ""
	for _, set := range f.sets {
		h := set.Hash('m', text)
		if m := maskPrefix + hex.EncodeToString(h[:]); least == "" || m < least {
			least = m
		}
	}
	return least
}

// Moves masks the moves of a control record in place.
func (e *Erasures) Moves(app string, m *event.Moves) {
	f := e.apps[app]
	if f == nil {
		return
	}
	changed := false
	text := func(p **string, kinds ...byte) {
		if *p == nil {
			return
		}
		id := **p
		for _, kind := range kinds {
			id = f.mask(kind, id)
		}
		changed = changed || id != **p
		*p = &id
	}
	attribution := func(a *event.Attribution) {
		switch {
		case a.ActorKind == nil:
			text(&a.ActorID, topic.KeyUser, topic.KeyAnonymous)
		case *a.ActorKind == event.ActorUser:
			text(&a.ActorID, topic.KeyUser)
		case *a.ActorKind == event.ActorAnonymous:
			text(&a.ActorID, topic.KeyAnonymous)
		}
		text(&a.UserID, topic.KeyUser)
		text(&a.AnonymousID, topic.KeyAnonymous)
	}
	for i := range m.Moves {
		move := &m.Moves[i]
		changed = false
		attribution(&move.Match)
		attribution(&move.Set)
		for _, role := range []**string{&move.Match.Role, &move.Set.Role} {
			if changed && *role != nil {
				masked := f.anyHash(**role)
				*role = &masked
			}
		}
	}
	if r := m.Reason; r != nil {
		masked := *r
		masked.UserID = f.mask(topic.KeyUser, r.UserID)
		if r.IDKind == event.ActorAnonymous {
			masked.ID = f.mask(topic.KeyAnonymous, r.ID)
		} else {
			masked.ID = f.mask(topic.KeyUser, r.ID)
		}
		m.Reason = &masked
	}
}

// Rejected removes the bytes of a rejected event that names an erased person.
func (e *Erasures) Rejected(codec *event.Codec, r *event.Rejected) {
	f := e.apps[r.AppID]
	if f == nil || (len(r.Original) == 0 && len(r.Envelope) == 0) {
		return
	}
	named := f.in(string(r.Original)) || f.in(string(r.Envelope))
	if r.Stage == event.StageEnricher && !named {
		named = f.inRaw(codec, r.Original)
	}
	if named {
		r.Original, r.Envelope, r.Detail, r.MessageID = nil, nil, "", ""
	}
}

// inRaw reports whether a record of raw names an erased person. What cannot be decoded
// may.
func (f *Forgotten) inRaw(codec *event.Codec, record []byte) bool {
	var raw event.RawEvent
	if codec.DecodeRaw(record, &raw) != nil {
		return true
	}
	ids, err := json.Marshal([]string{raw.UserID, raw.AnonymousID, raw.PreviousID})
	if err != nil || f.in(string(ids)) {
		return true
	}
	for _, text := range [][]byte{raw.Properties, raw.Traits, raw.Context, raw.Unread} {
		if f.in(string(text)) {
			return true
		}
	}
	return false
}
