package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"
)

// Avro's binary encoding of the only types our schemas use: long as a zigzag
// varint, bytes and string as a long and that many bytes.
// https://avro.apache.org/docs/1.12.0/specification/#binary-encoding

func appendLong(b []byte, v int64) []byte {
	return binary.AppendVarint(b, v)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

func appendBytes(b, s []byte) []byte {
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

var (
	errTruncated = errors.New("value ends inside a field")
	errVarint    = errors.New("varint longer than 64 bits")
	errLength    = errors.New("negative length")
	errTrailing  = errors.New("bytes left over after the last field")
)

// reader reads fields off b until the first error, which sticks: after it every
// read returns a zero value. What it returns aliases b.
type reader struct {
	b   []byte
	err error
}

// close returns the error of reading value, of which nothing may be left.
func (r *reader) close(want Type, value []byte) error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errTrailing
	}
	if r.err != nil {
		return fmt.Errorf("decode %s of %d bytes: %w: %w", want, len(value), ErrBody, r.err)
	}
	return nil
}

func (r *reader) long() int64 {
	// One- and two-byte varints are nearly all there are: lengths.
	if len(r.b) > 0 && r.b[0] < 0x80 {
		u := uint64(r.b[0])
		r.b = r.b[1:]
		return int64(u>>1) ^ -int64(u&1)
	}
	if len(r.b) > 1 && r.b[1] < 0x80 {
		u := uint64(r.b[0]&0x7f) | uint64(r.b[1])<<7
		r.b = r.b[2:]
		return int64(u>>1) ^ -int64(u&1)
	}
	v, n := binary.Varint(r.b)
	if n <= 0 {
		if r.err == nil {
			r.err = errTruncated
			if n < 0 {
				r.err = errVarint
			}
		}
		r.b = nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes returns nil for an empty field.
func (r *reader) bytes() []byte {
	n := r.long()
	if n <= 0 {
		if n < 0 {
			r.fail(errLength)
		}
		return nil
	}
	if uint64(n) > uint64(len(r.b)) {
		r.fail(errTruncated)
		return nil
	}
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}

func (r *reader) string() string {
	s := r.bytes()
	return unsafe.String(unsafe.SliceData(s), len(s))
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}
