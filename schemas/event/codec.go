package event

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Type names the record that a value holds.
type Type uint8

// The record types, in the order of their schema files.
const (
	TypeUnknown Type = iota
	TypeRaw
	TypeEnriched
	TypeControl
	TypeRejected
	TypeLink
	TypeIdentityState
	numTypes
)

var typeNames = [numTypes]string{"unknown", "RawEvent", "EnrichedEvent", "Control", "Rejected", "Link", "IdentityState"}

func (t Type) String() string {
	if t < numTypes {
		return typeNames[t]
	}
	return "unknown"
}

// CRC-64-AVRO fingerprints of the current schemas' canonical forms. A test
// holds them against the schema files.
var fingerprints = [numTypes]uint64{
	TypeRaw:      0xA42806B91A38A514,
	TypeEnriched: 0x8F57B0D784EF9C17,
	TypeControl:  0x5CCD1C96AC505E90,
	TypeRejected: 0x048FA7BEFDDE9B2A,

	TypeLink:          0x32C7C63CDCAD5A58,
	TypeIdentityState: 0x85790E18A1FB7105,
}

// MaxValueBytes bounds a value before it is decoded. It is far above what the
// gateway lets in, and keeps a broken length from costing memory.
const MaxValueBytes = 16 << 20

const (
	singleObjectHeader = 10 // 0xC3 0x01, fingerprint
	registryHeader     = 5  // 0x00, schema id
)

var (
	// ErrHeader is in the chain of errors about values that start with no known header.
	ErrHeader = errors.New("value does not start with a known Avro header")
	// ErrSchema is in the chain of errors about a writer schema that is not known.
	ErrSchema = errors.New("writer schema is not known")
	// ErrType is in the chain of errors about a value that holds another record type.
	ErrType = errors.New("value holds another record type")
	// ErrBody is in the chain of errors about a value of a known schema whose fields
	// cannot be read.
	ErrBody = errors.New("not a value of its schema")
	// ErrSize is in the chain of errors about values above MaxValueBytes.
	ErrSize = errors.New("value is too large")
)

// Unwritten reports whether err, of reading a value, says that no release can have
// written it to where it was found: it has no header of ours, is too large, or names a
// schema that is known and is no value of it, or not of the type that belongs there. A
// schema that is not known may be a newer release's.
func Unwritten(err error) bool {
	return errors.Is(err, ErrHeader) || errors.Is(err, ErrBody) || errors.Is(err, ErrType) || errors.Is(err, ErrSize)
}

// Codec encodes and decodes values. It is safe for concurrent use.
type Codec struct {
	header   [numTypes][]byte
	versions *versions // other published versions, and ids of a registry
}

// NewCodec returns a codec that writes single-object encoding and reads every
// published version.
func NewCodec() *Codec {
	c := &Codec{versions: newVersions()}
	for t := TypeRaw; t < numTypes; t++ {
		h := []byte{0xC3, 0x01}
		c.header[t] = binary.LittleEndian.AppendUint64(h, fingerprints[t])
	}
	return c
}

// AppendRaw appends the encoded e to dst.
func (c *Codec) AppendRaw(dst []byte, e *RawEvent) []byte {
	return e.appendTo(append(dst, c.header[TypeRaw]...))
}

// AppendEnriched appends the encoded e to dst.
func (c *Codec) AppendEnriched(dst []byte, e *EnrichedEvent) []byte {
	return e.appendTo(append(dst, c.header[TypeEnriched]...))
}

// AppendControl appends the encoded e to dst.
func (c *Codec) AppendControl(dst []byte, e *Control) []byte {
	return e.appendTo(append(dst, c.header[TypeControl]...))
}

// AppendRejected appends the encoded e to dst.
func (c *Codec) AppendRejected(dst []byte, e *Rejected) []byte {
	return e.appendTo(append(dst, c.header[TypeRejected]...))
}

// AppendLink appends the encoded e to dst.
func (c *Codec) AppendLink(dst []byte, e *Link) []byte {
	return e.appendTo(append(dst, c.header[TypeLink]...))
}

// AppendIdentityState appends the encoded e to dst.
func (c *Codec) AppendIdentityState(dst []byte, e *IdentityState) []byte {
	return e.appendTo(append(dst, c.header[TypeIdentityState]...))
}

// DecodeRaw reads value into e, whose fields alias value afterwards. On an error
// e is undefined.
func (c *Codec) DecodeRaw(value []byte, e *RawEvent) error {
	r, err := c.open(value, TypeRaw)
	if err != nil {
		return err
	}
	e.readFrom(&r)
	return r.close(TypeRaw, value)
}

// DecodeEnriched reads value into e, whose fields alias value afterwards. On an error
// e is undefined.
func (c *Codec) DecodeEnriched(value []byte, e *EnrichedEvent) error {
	r, err := c.open(value, TypeEnriched)
	if err != nil {
		return err
	}
	e.readFrom(&r)
	return r.close(TypeEnriched, value)
}

// DecodeControl reads value into e, whose fields alias value afterwards. On an error
// e is undefined.
func (c *Codec) DecodeControl(value []byte, e *Control) error {
	r, err := c.open(value, TypeControl)
	if err != nil {
		return err
	}
	e.readFrom(&r)
	return r.close(TypeControl, value)
}

// DecodeRejected reads value into e, whose fields alias value afterwards. On an error
// e is undefined.
func (c *Codec) DecodeRejected(value []byte, e *Rejected) error {
	r, err := c.open(value, TypeRejected)
	if err != nil {
		return err
	}
	e.readFrom(&r)
	return r.close(TypeRejected, value)
}

// DecodeLink reads value into e, whose fields alias value afterwards. On an error
// e is undefined.
func (c *Codec) DecodeLink(value []byte, e *Link) error {
	r, err := c.open(value, TypeLink)
	if err != nil {
		return err
	}
	e.readFrom(&r)
	return r.close(TypeLink, value)
}

// DecodeIdentityState reads value into e, whose fields alias value afterwards. On an error
// e is undefined.
func (c *Codec) DecodeIdentityState(value []byte, e *IdentityState) error {
	r, err := c.open(value, TypeIdentityState)
	if err != nil {
		return err
	}
	e.readFrom(&r)
	return r.close(TypeIdentityState, value)
}

// Type tells which record value holds, by its header alone.
func (c *Codec) Type(value []byte) (Type, error) {
	w, _, err := c.writer(value)
	return w.typ, err
}

// open returns a reader of the bytes after value's header, as the current
// schema of a type has it. It is a value of the caller: behind an interface it
// would be on the heap, with every event.
func (c *Codec) open(value []byte, want Type) (reader, error) {
	if len(value) >= singleObjectHeader && len(value) <= MaxValueBytes &&
		value[0] == 0xC3 && value[1] == 0x01 && binary.LittleEndian.Uint64(value[2:]) == fingerprints[want] {
		return reader{b: value[singleObjectHeader:]}, nil
	}
	return c.openOther(value, want)
}

// openOther is open for what is not written with the current schema and its
// fingerprint.
func (c *Codec) openOther(value []byte, want Type) (reader, error) {
	if len(value) > MaxValueBytes {
		return reader{}, fmt.Errorf("decode %s of %d bytes, bound %d: %w", want, len(value), MaxValueBytes, ErrSize)
	}
	w, body, err := c.writer(value)
	if err != nil {
		return reader{}, fmt.Errorf("decode %s: %w", want, err)
	}
	if w.typ != want {
		return reader{}, fmt.Errorf("decode %s: %w: %s", want, ErrType, w.typ)
	}
	if !w.current {
		if body, err = c.versions.resolve(w, body); err != nil {
			return reader{}, fmt.Errorf("decode %s written with schema %016x: %w", want, w.fingerprint, err)
		}
	}
	return reader{b: body}, nil
}

// writer finds the writer schema that value's header names, and the body behind
// the header.
func (c *Codec) writer(value []byte) (writer, []byte, error) {
	if len(value) >= singleObjectHeader && value[0] == 0xC3 && value[1] == 0x01 {
		body := value[singleObjectHeader:]
		fp := binary.LittleEndian.Uint64(value[2:])
		for t := TypeRaw; t < numTypes; t++ {
			if fingerprints[t] == fp {
				return writer{typ: t, fingerprint: fp, current: true}, body, nil
			}
		}
		if w, ok := c.versions.byFingerprint(fp); ok {
			return w, body, nil
		}
		return writer{}, nil, fmt.Errorf("%w: fingerprint %016x", ErrSchema, fp)
	}
	if len(value) >= registryHeader && value[0] == 0x00 {
		id := int(binary.BigEndian.Uint32(value[1:]))
		w, err := c.versions.byID(id)
		if err != nil {
			return writer{}, nil, fmt.Errorf("%w: registry id %d: %w", ErrSchema, id, err)
		}
		return w, value[registryHeader:], nil
	}
	return writer{}, nil, fmt.Errorf("%w (%d bytes)", ErrHeader, len(value))
}
