package event

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	hamba "github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/uptakehq/uptake/schemas/avro"
)

// writer is a writer schema as far as reading needs it.
type writer struct {
	typ         Type
	fingerprint uint64
	current     bool
}

// versions knows every published schema and resolves values of versions that
// are not current to the current one. hamba/avro parses schemas and never sees
// values.
type versions struct {
	loadOnce sync.Once
	loadErr  error

	mu       sync.Mutex // covers all below
	schemas  map[uint64]*hamba.RecordSchema
	types    map[uint64]Type
	plans    map[uint64]*plan // by the writer's fingerprint
	ids      map[int]writer
	missing  map[int]time.Time // ids that the registry did not know, and when it was asked
	registry *sr.Client
}

func newVersions() *versions {
	return &versions{
		schemas: map[uint64]*hamba.RecordSchema{},
		types:   map[uint64]Type{},
		plans:   map[uint64]*plan{},
		ids:     map[int]writer{},
		missing: map[int]time.Time{},
	}
}

// load parses the embedded schema files, once.
func (v *versions) load() error {
	v.loadOnce.Do(func() { v.loadErr = v.loadFiles() })
	return v.loadErr
}

func (v *versions) loadFiles() error {
	names, err := fs.Glob(avro.Files, "*.avsc")
	if err != nil {
		return err
	}
	sort.Strings(names)
	for _, name := range names {
		text, err := avro.Files.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := v.add(string(text)); err != nil {
			return fmt.Errorf("schema %s: %w", name, err)
		}
	}
	return nil
}

// add takes a published schema in and returns its fingerprint.
func (v *versions) add(text string) (uint64, error) {
	// A cache of its own: versions of one record share their name.
	s, err := hamba.ParseWithCache(text, "", &hamba.SchemaCache{})
	if err != nil {
		return 0, err
	}
	rec, ok := s.(*hamba.RecordSchema)
	if !ok {
		return 0, errors.New("not a record")
	}
	typ := TypeUnknown
	for t := TypeRaw; t < numTypes; t++ {
		if rec.Name() == typeNames[t] {
			typ = t
		}
	}
	if typ == TypeUnknown {
		return 0, fmt.Errorf("record %s has no Go type", rec.FullName())
	}
	if err := flat(rec); err != nil {
		return 0, fmt.Errorf("record %s: %w", rec.FullName(), err)
	}
	b, err := s.FingerprintUsing(hamba.CRC64Avro)
	if err != nil {
		return 0, err
	}
	fp := binary.BigEndian.Uint64(b)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.schemas[fp], v.types[fp] = rec, typ
	return fp, nil
}

// flat refuses a record with any field but strings, bytes and longs: no published
// version has others, and the library's decoders of arrays, maps and recursive
// records have open advisories. A registry that is not only ours must not be able to
// bring them into use.
func flat(rec *hamba.RecordSchema) error {
	for _, f := range rec.Fields() {
		p, ok := f.Type().(*hamba.PrimitiveSchema)
		if !ok || p.Logical() != nil || (p.Type() != hamba.String && p.Type() != hamba.Bytes && p.Type() != hamba.Long) {
			return fmt.Errorf("field %s is of type %s: only string, bytes and long are read", f.Name(), f.Type().Type())
		}
	}
	return nil
}

func (v *versions) byFingerprint(fp uint64) (writer, bool) {
	if v.load() != nil {
		return writer{}, false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	t, ok := v.types[fp]
	return writer{typ: t, fingerprint: fp, current: ok && fingerprints[t] == fp}, ok
}

// plan says how a value of another version becomes one of the current version.
type plan struct {
	longs []bool // of the writer's fields: long, else string or bytes, which look alike
	from  []int  // of each current field: the writer's field, or -1
	fill  [][]byte
}

// resolve rewrites body, written with w, in the current schema of w's type, by
// the rules of Avro's schema resolution for flat records.
func (v *versions) resolve(w writer, body []byte) ([]byte, error) {
	if err := v.load(); err != nil {
		return nil, err
	}
	v.mu.Lock()
	p, ok := v.plans[w.fingerprint]
	if !ok {
		var err error
		if p, err = newPlan(v.schemas[w.fingerprint], v.schemas[fingerprints[w.typ]]); err != nil {
			v.mu.Unlock()
			return nil, err
		}
		v.plans[w.fingerprint] = p
	}
	v.mu.Unlock()

	r := reader{b: body}
	spans := make([][]byte, len(p.longs))
	for i, long := range p.longs {
		rest := r.b
		if long {
			r.long()
		} else {
			r.bytes()
		}
		if r.err == nil {
			spans[i] = rest[:len(rest)-len(r.b)]
		}
	}
	if err := r.close(w.typ, body); err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(body)+64)
	for i, from := range p.from {
		if from >= 0 {
			out = append(out, spans[from]...)
		} else {
			out = append(out, p.fill[i]...)
		}
	}
	return out, nil
}

func newPlan(writer, current *hamba.RecordSchema) (*plan, error) {
	p := &plan{}
	at := map[string]int{}
	for i, f := range writer.Fields() {
		at[f.Name()] = i
		p.longs = append(p.longs, f.Type().Type() == hamba.Long)
	}
	for _, f := range current.Fields() {
		from, ok := at[f.Name()]
		var fill []byte
		switch {
		case ok && p.longs[from] != (f.Type().Type() == hamba.Long):
			return nil, fmt.Errorf("field %s is of another type", f.Name())
		case !ok && !f.HasDefault():
			return nil, fmt.Errorf("field %s is missing and has no default", f.Name())
		case !ok:
			var err error
			if fill, err = hamba.Marshal(f.Type(), f.Default()); err != nil {
				return nil, fmt.Errorf("default of field %s: %w", f.Name(), err)
			}
			from = -1
		}
		p.from, p.fill = append(p.from, from), append(p.fill, fill)
	}
	return p, nil
}

// askAgain is how long an id that the registry did not know stays unknown
// before it is asked again, so that poison does not become a request each.
const askAgain = 10 * time.Second

// registryTimeout bounds one question to the registry.
const registryTimeout = 5 * time.Second

func (v *versions) byID(id int) (writer, error) {
	v.mu.Lock()
	w, ok := v.ids[id]
	asked, missing := v.missing[id]
	registry := v.registry
	v.mu.Unlock()
	switch {
	case ok:
		return w, nil
	case registry == nil:
		return writer{}, errors.New("no schema registry is configured")
	case missing && time.Since(asked) < askAgain:
		return writer{}, fmt.Errorf("not known to the registry %s ago", time.Since(asked).Round(time.Second))
	}
	ctx, cancel := context.WithTimeout(context.Background(), registryTimeout)
	defer cancel()
	s, err := registry.SchemaByID(ctx, id)
	if err == nil {
		w, err = v.learn(id, s.Schema)
	}
	if err != nil {
		v.mu.Lock()
		v.missing[id] = time.Now()
		v.mu.Unlock()
		return writer{}, err
	}
	return w, nil
}

func (v *versions) learn(id int, text string) (writer, error) {
	if err := v.load(); err != nil {
		return writer{}, err
	}
	fp, err := v.add(text)
	if err != nil {
		return writer{}, err
	}
	w, _ := v.byFingerprint(fp)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ids[id] = w
	return w, nil
}

// NewRegistryCodec registers the current schemas with a schema registry, under
// their record names as subjects (one topic holds several record types), and
// returns a codec that writes the Confluent wire format. It reads both formats.
func NewRegistryCodec(ctx context.Context, registry *sr.Client) (*Codec, error) {
	c := NewCodec()
	if err := c.versions.load(); err != nil {
		return nil, err
	}
	c.versions.registry = registry
	for t := TypeRaw; t < numTypes; t++ {
		text, err := avro.Files.ReadFile(currentFile(t))
		if err != nil {
			return nil, err
		}
		subject := "uptake.v1." + t.String()
		s, err := registry.CreateSchema(ctx, subject, sr.Schema{Schema: string(text), Type: sr.TypeAvro})
		if err != nil {
			return nil, fmt.Errorf("register schema %s: %w", subject, err)
		}
		if _, err := c.versions.learn(s.ID, string(text)); err != nil {
			return nil, err
		}
		c.header[t] = binary.BigEndian.AppendUint32([]byte{0x00}, uint32(s.ID))
	}
	return c, nil
}

// currentFile names the schema file of t's highest version.
func currentFile(t Type) string {
	prefix := map[Type]string{
		TypeRaw: "raw_event", TypeEnriched: "enriched_event", TypeControl: "control", TypeRejected: "rejected",
		TypeLink: "link", TypeIdentityState: "identity_state",
	}[t]
	names, _ := fs.Glob(avro.Files, prefix+".v*.avsc") // the pattern is well-formed
	best, bestVersion := "", -1
	for _, n := range names {
		v, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(n, prefix+".v"), ".avsc"))
		if err == nil && v > bestVersion {
			best, bestVersion = n, v
		}
	}
	return best
}
