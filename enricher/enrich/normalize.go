package enrich

import (
	"bytes"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/metadata"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/rawjson"
)

// normalized holds the normalized objects of the current event. They are valid until
// the next event.
type normalized struct {
	properties, traits, conflicts []byte

	kept redacted
}

// normalize converts the event's objects for typed columns. rest are the records after
// it in the job, whose new keys are requested together with its own.
func (w *worker) normalize(raw *event.RawEvent, rest []*kgo.Record) (*fault, error) {
	for {
		f := w.normalizeWith(w.n.svc.agreement.View(), raw)
		missing := w.norm.Missing()
		if f != nil || len(missing) == 0 {
			return f, nil
		}
		proposals := w.gatherMissing(missing, rest)
		if err := w.n.svc.agreement.Agree(w.txn.ctx, proposals); err != nil {
			return nil, err
		}
	}
}

func (w *worker) normalizeWith(view *metadata.View, raw *event.RawEvent) *fault {
	n, out := w.norm, &w.objects
	n.Begin(view, raw.AppID)
	n.SentFrom(raw.IP, w.n.svc.agreement)
	var err error
	if out.properties, err = n.Append(out.properties[:0], metadata.Properties, raw.Properties); err != nil {
		return &fault{codeBadEvent, "properties", err.Error()}
	}
	if out.traits, err = n.Append(out.traits[:0], metadata.Traits, raw.Traits); err != nil {
		return &fault{codeBadEvent, "traits", err.Error()}
	}
	out.conflicts = n.AppendConflicts(out.conflicts[:0])
	return nil
}

// maxProposals bounds the new keys that are requested together.
const maxProposals = 1000

// gatherMissing adds to the missing keys of one event those of the events that follow
// it, so that a batch with many new events waits once.
func (w *worker) gatherMissing(missing []metadata.Proposal, rest []*kgo.Record) []metadata.Proposal {
	all := append([]metadata.Proposal(nil), missing...)
	asked := map[metadata.Key]int{} // index in all
	for i, p := range all {
		asked[p.Key] = i
	}
	view := w.n.svc.agreement.View()
	ahead := &w.ahead
	for _, r := range rest {
		if len(all) >= maxProposals {
			break
		}
		if len(r.Value) > w.n.svc.cfg.RecordBytes || w.n.svc.codec.DecodeRaw(r.Value, ahead) != nil || ahead.AppID == "" {
			continue // rejected later, when it is handled
		}
		if w.normalizeWith(view, ahead) != nil {
			continue
		}
		for _, p := range w.norm.Missing() {
			if i, ok := asked[p.Key]; !ok {
				asked[p.Key] = len(all)
				all = append(all, p)
			} else if all[i].Type == metadata.Integer && p.Type == metadata.Float {
				all[i].Type = metadata.Float // otherwise it would be requested again, to be widened
			}
		}
	}
	return all
}

// Keys under which clients send their session's id, in context or properties.
var sessionKeys = [...]string{"sessionId", "session_id", "$session_id"}

// sessionID returns the client's own session id from one of the objects: the text of a
// string without escapes, or a number. It points into doc.
func sessionID(docs ...[]byte) []byte {
	for _, doc := range docs {
		if !namesSession(doc) {
			continue
		}
		if v := member(doc, sessionKeys[:]); v != nil {
			return v
		}
	}
	return nil
}

// sessionWord is part of each of sessionKeys.
const sessionWord = "session"

// sessionSkip gives for each byte how far the end of the word can be advanced when that
// byte is not the end of the word (Horspool's table).
var sessionSkip = func() (skip [256]uint8) {
	for i := range skip {
		skip[i] = uint8(len(sessionWord))
	}
	for i := range len(sessionWord) - 1 {
		skip[sessionWord[i]] = uint8(len(sessionWord) - 1 - i)
	}
	return skip
}()

// namesSession reports whether the word is in doc. Few clients send it, so it is
// searched for in every event and rarely found: this reads about one byte in seven.
// bytes.Contains reads each byte, since the word's first letters are common in any
// text.
func namesSession(doc []byte) bool {
	for end := len(sessionWord) - 1; end < len(doc); end += int(sessionSkip[doc[end]]) {
		if doc[end] == sessionWord[len(sessionWord)-1] && string(doc[end-len(sessionWord)+1:end+1]) == sessionWord {
			return true
		}
	}
	return false
}

// maxSessionID is the longest session id that is accepted, in bytes.
const maxSessionID = 256

// member returns the value of the object's first member that has one of the keys, if it
// is a plain string or a number.
func member(doc []byte, keys []string) []byte {
	i := rawjson.Space(doc, 0)
	if rawjson.KindAt(doc, i) != rawjson.Object {
		return nil
	}
	i, more := rawjson.First(doc, i, '}')
	for more {
		end, value, escaped := rawjson.Member(doc, i)
		if value == rawjson.Bad {
			return nil
		}
		key := doc[i+1 : end-1]
		valueEnd := rawjson.EndValue(doc, value, 512)
		if valueEnd == rawjson.Bad {
			return nil
		}
		if !escaped {
			for _, k := range keys {
				if string(key) == k {
					return scalarText(doc[value:valueEnd])
				}
			}
		}
		i, more = rawjson.Next(doc, valueEnd, '}')
	}
	return nil
}

func scalarText(v []byte) []byte {
	switch rawjson.KindAt(v, 0) {
	case rawjson.String:
		v = v[1 : len(v)-1]
		if bytes.IndexByte(v, '\\') >= 0 {
			return nil
		}
	case rawjson.Number:
	default:
		return nil
	}
	if len(v) == 0 || len(v) > maxSessionID {
		return nil
	}
	return v
}

// metadataStats are a worker's counts of conversions and conflicts, of the open
// transaction.
type metadataStats struct {
	converted uint64
	conflicts [metadata.NumReasons]uint64
	noRoom    struct{ app, source uint64 }
}

func (s *metadataStats) add(one metadata.Stats) {
	s.converted += uint64(one.Converted)
	for i, n := range one.Conflicts {
		s.conflicts[i] += uint64(n)
	}
	s.noRoom.app += uint64(one.NoRoom.App)
	s.noRoom.source += uint64(one.NoRoom.Source)
}

func (s *metadataStats) flush(m *metrics) {
	if s.converted > 0 {
		m.converted.Add(float64(s.converted))
	}
	for i, n := range s.conflicts {
		if n > 0 {
			m.conflicts.WithLabelValues(fmt.Sprint(metadata.Reason(i))).Add(float64(n))
		}
	}
	if s.noRoom.app > 0 {
		m.noRoom.WithLabelValues("app").Add(float64(s.noRoom.app))
	}
	if s.noRoom.source > 0 {
		m.noRoom.WithLabelValues("source").Add(float64(s.noRoom.source))
	}
	*s = metadataStats{}
}
