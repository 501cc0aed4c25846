package alert

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/alert/evaluate"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// mark records how the delivery of a message to a target ended.
type mark struct {
	State string    `json:"state"` // delivered, dead or again
	At    time.Time `json:"at"`
	Error string    `json:"error,omitempty"`
}

const (
	markDelivered = "delivered"
	markDead      = "dead"
	markAgain     = "again" // ordered by redeliver
)

// memory is the content of the two topics, as far as they were read.
type memory struct {
	read     *reader.Reader
	names    *topic.Names
	next     map[string]int64 // by topic
	versions map[string][]dated
	subjects map[string]evaluate.Subject
	marks    map[string]mark
	reports  map[string]sent              // by key
	records  map[string]*signal.Record    // by message id, those to deliver
	alerts   map[string]*signal.Record    // by alert id, the newest record that is no acknowledgement
	health   map[string][sha256.Size]byte // hashes of scores
	fresh    []string                     // keys of marks and ids of records that are new
	erased   signal.ErasedUsers           // of whom nothing is said or delivered any more
	erasedAt int64                        // offset after the newest record that added one
	skipped  func(*kgo.Record, error)

	// foreign is what was read by app and not written by this process, since its last
	// round: nil for an app that it has not evaluated yet.
	foreign map[string]*foreign
	own     reader.Bounds // offsets of the state that this process wrote last
	// others counts, by app, the records of evaluation that were read and not written by
	// this process.
	others map[string]int
}

// foreign is what another evaluator has written.
type foreign struct {
	definitions bool
	subjects    map[string]struct{}
}

// settled begins to note what others write about an app.
func (m *memory) settled(app string) {
	m.foreign[app] = &foreign{subjects: map[string]struct{}{}}
}

// wrote notes which records of the state are this process's.
func (m *memory) wrote(records []*kgo.Record) {
	m.own = reader.Bounds{}
	for _, rec := range records {
		if rec.Topic != m.names.AlertState {
			continue
		}
		if m.own.End == 0 {
			m.own.Start = rec.Offset
		}
		m.own.End = rec.Offset + 1
	}
}

// covered reports whether a round that evaluates a part of the subjects has read
// everything that others have written about since the last round.
func (m *memory) covered(app string, within *scope) bool {
	f := m.foreign[app]
	if within == nil {
		return true
	}
	if f == nil || f.definitions {
		return false
	}
	for id := range f.subjects {
		if !within.has(id) {
			return false
		}
	}
	return true
}

// disturbed reports whether another evaluator has written since the last round.
func (m *memory) disturbed() bool {
	for _, f := range m.foreign {
		if f.definitions || len(f.subjects) > 0 {
			return true
		}
	}
	return false
}

// newMemory returns an empty memory. skipped is told of records that no release can have
// written; nil: nobody is.
func newMemory(r *reader.Reader, names *topic.Names, skipped func(*kgo.Record, error)) *memory {
	return &memory{
		read: r, names: names, skipped: skipped, next: map[string]int64{}, versions: map[string][]dated{}, subjects: map[string]evaluate.Subject{},
		marks: map[string]mark{}, reports: map[string]sent{}, records: map[string]*signal.Record{}, alerts: map[string]*signal.Record{}, health: map[string][sha256.Size]byte{},
		foreign: map[string]*foreign{}, others: map[string]int{},
	}
}

// catchUp reads both topics to their present high watermarks.
func (m *memory) catchUp(ctx context.Context) error {
	for _, t := range []struct {
		name string
		take func(*kgo.Record) error
	}{{m.names.Alerts, m.takeAlert}, {m.names.AlertState, m.takeState}} {
		b, err := m.read.Bounds(ctx, t.name, 0)
		if err != nil {
			return err
		}
		next, err := m.read.Read(ctx, t.name, 0, max(m.next[t.name], b.Start), b.End, func(rec *kgo.Record) error { return m.take(rec, t.take) }, nil)
		m.next[t.name] = max(m.next[t.name], next)
		if err != nil {
			return err
		}
	}
	return nil
}

// take applies a record, or skips it if no release can have written it.
func (m *memory) take(rec *kgo.Record, apply func(*kgo.Record) error) error {
	err := apply(rec)
	if !garbage(err) {
		return err
	}
	if m.skipped != nil {
		m.skipped(rec, err)
	}
	return nil
}

// garbage reports whether err, of reading a record, says that no release can have
// written it: it is no JSON, or another kind of value as a whole. A newer release may
// give a field another type.
func garbage(err error) bool {
	if _, broken := errors.AsType[*json.SyntaxError](err); broken {
		return true
	}
	other, ok := errors.AsType[*json.UnmarshalTypeError](err)
	return ok && other.Field == ""
}

func (m *memory) takeAlert(rec *kgo.Record) error {
	var r signal.Record
	if err := json.Unmarshal(rec.Value, &r); err != nil {
		return fmt.Errorf("%s@%d: %w", rec.Topic, rec.Offset, err)
	}
	if r.State != signal.Acknowledged {
		m.alerts[r.AlertID] = &r
	}
	if !r.Silent {
		m.records[r.ID] = &r
		m.fresh = append(m.fresh, r.ID)
	}
	return nil
}

func (m *memory) takeState(rec *kgo.Record) error {
	k := string(rec.Key)
	kind, rest, _ := strings.Cut(k, "\x00")
	if rec.Offset < m.own.Start || rec.Offset >= m.own.End {
		m.takeForeign(kind, rest)
	}
	if len(rec.Value) == 0 {
		delete(m.subjects, k)
		delete(m.marks, k)
		delete(m.reports, k)
		delete(m.health, k)
		return nil
	}
	var err error
	switch kind {
	case signal.KeyVersions:
		var list []dated
		if err = json.Unmarshal(rec.Value, &list); err == nil {
			for i := range list {
				if list[i].signals, err = insight.SignalsOf(list[i].Rules); err != nil {
					break
				}
			}
			m.versions[rest] = list
		}
	case signal.KeySubject:
		var s evaluate.Subject
		if err = json.Unmarshal(rec.Value, &s); err == nil {
			m.subjects[k] = s
		}
	case signal.KeyHealth:
		m.health[k] = sha256.Sum256(rec.Value)
	case signal.KeyErased:
		if _, err = m.erased.Take(k, rec.Value); err == nil {
			m.erasedAt = rec.Offset + 1
		}
	case signal.KeyReport:
		err = m.takeReport(rec)
	case signal.KeyDelivery:
		var d mark
		if err = json.Unmarshal(rec.Value, &d); err == nil {
			m.marks[k] = d
			if d.State == markAgain {
				id, _, _ := strings.Cut(rest, "\x00")
				m.fresh = append(m.fresh, id)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%s@%d: %w", rec.Topic, rec.Offset, err)
	}
	return nil
}

// takeForeign notes that another evaluator has written a key of a kind.
func (m *memory) takeForeign(kind, rest string) {
	app, key, _ := strings.Cut(rest, "\x00")
	switch kind {
	case signal.KeyVersions, signal.KeySubject, signal.KeyHealth:
		m.others[app]++
	}
	f := m.foreign[app]
	if f == nil {
		return
	}
	switch kind {
	case signal.KeyVersions:
		f.definitions = true
	case signal.KeySubject, signal.KeyHealth:
		f.subjects[key[strings.LastIndexByte(key, 0)+1:]] = struct{}{}
	}
}

// stateRecord of a key; a nil value deletes it.
func stateRecord(names *topic.Names, k string, value any) *kgo.Record {
	r := &kgo.Record{Topic: names.AlertState, Key: []byte(k)}
	switch v := value.(type) {
	case nil:
	case []byte:
		r.Value = v
	default:
		r.Value = encode(v)
	}
	return r
}

func encode(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // cannot happen: strings, times and finite numbers
	}
	return text
}

func alertRecord(names *topic.Names, r *signal.Record) *kgo.Record {
	return &kgo.Record{Topic: names.Alerts, Key: []byte(signal.Key(r.App, r.Use, r.Signal, r.Subject)), Value: encode(r)}
}

// alertID is the same whenever an episode is found.
func alertID(app, use, id, subject string, from evaluate.Tick, n int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %d %d", app, use, id, subject, from, n))
	return "al_" + hex.EncodeToString(h[:12])
}

// ReadLog returns the records of the alerts log.
func ReadLog(ctx context.Context, opts []kgo.Opt, names *topic.Names) ([]signal.Record, error) {
	r, err := reader.New(opts...)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var all []signal.Record
	err = r.All(ctx, names.Alerts, 0, func(rec *kgo.Record) error {
		var a signal.Record
		if err := json.Unmarshal(rec.Value, &a); garbage(err) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s@%d: %w", rec.Topic, rec.Offset, err)
		}
		all = append(all, a)
		return nil
	})
	return all, err
}
