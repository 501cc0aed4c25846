package otlp

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"strconv"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// Wire types of protobuf.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

var errProtobuf = errors.New("the body is neither OTLP's JSON nor its protobuf")

// field is one field of a message: its number, and its value by wire type.
type field struct {
	number int
	wire   byte
	bits   uint64 // of varint, fixed64, fixed32
	bytes  []byte // of bytes
}

// next reads a field and returns what follows.
func next(b []byte) (field, []byte, error) {
	tag, n := binary.Uvarint(b)
	if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
		return field{}, nil, errProtobuf
	}
	f := field{number: int(tag >> 3), wire: byte(tag & 7)}
	b = b[n:]
	switch f.wire {
	case wireVarint:
		if f.bits, n = binary.Uvarint(b); n <= 0 {
			return f, nil, errProtobuf
		}
		return f, b[n:], nil
	case wireFixed64:
		if len(b) < 8 {
			return f, nil, errProtobuf
		}
		f.bits = binary.LittleEndian.Uint64(b)
		return f, b[8:], nil
	case wireFixed32:
		if len(b) < 4 {
			return f, nil, errProtobuf
		}
		f.bits = uint64(binary.LittleEndian.Uint32(b))
		return f, b[4:], nil
	case wireBytes:
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return f, nil, errProtobuf
		}
		f.bytes = b[n : n+int(size)]
		return f, b[n+int(size):], nil
	}
	return f, nil, errProtobuf
}

// shape says how a field of a message is written: its name in OTLP's JSON and
// what it holds.
type shape struct {
	name     string
	wire     byte
	repeated bool
	message  message // of an embedded message
	write    func(dst []byte, f field) []byte
}

// message maps numbers to fields. A function, since values hold values.
type message func(number int) (shape, bool)

// toJSON writes an ExportLogsServiceRequest in protobuf as OTLP's JSON. The field
// numbers are those of opentelemetry-proto 1.x. The error is a fault.
func toJSON(b []byte, limit int) ([]byte, error) {
	w := writer{limit: limit, out: make([]byte, 0, min(3*len(b), limit))} // three is usual
	if err := w.message(b, request, maxNesting+16); err != nil {
		return nil, err
	}
	return w.out, nil
}

type writer struct {
	out   []byte
	limit int
}

// message writes one message as an object. Fields of one number that repeat are
// gathered where they first stand, which takes a second look at the message for
// each such number.
func (w *writer) message(b []byte, m message, depth int) error {
	if depth == 0 {
		return ingest.Unreadable("nested too deeply")
	}
	w.out = append(w.out, '{')
	empty := true
	var seen uint32 // bit set of the numbers written
	for rest := b; len(rest) > 0; {
		f, after, err := next(rest)
		if err != nil {
			return ingest.Unreadable("%v", err)
		}
		at := rest
		rest = after
		s, ok := m(f.number)
		if !ok || s.wire != f.wire || seen&(1<<f.number) != 0 {
			continue // unknown fields are skipped, as protobuf asks; the first of a single one holds
		}
		seen |= 1 << f.number
		if !empty {
			w.out = append(w.out, ',')
		}
		empty = false
		w.out = append(append(append(w.out, '"'), s.name...), '"', ':')
		if !s.repeated {
			if err := w.value(f, s, depth); err != nil {
				return err
			}
			continue
		}
		if rest, err = w.repeated(at, f.number, s, depth); err != nil {
			return err
		}
	}
	w.out = append(w.out, '}')
	return nil
}

// repeated writes the fields of one number as an array. It returns what comes after
// those that follow each other at the beginning of b.
func (w *writer) repeated(b []byte, number int, s shape, depth int) (rest []byte, err error) {
	w.out = append(w.out, '[')
	together := true
	for first := true; len(b) > 0; {
		f, after, err := next(b)
		if err != nil {
			return nil, ingest.Unreadable("%v", err)
		}
		if f.number != number || f.wire != s.wire {
			if together {
				rest, together = b, false
			}
			b = after
			continue
		}
		b = after
		if !first {
			w.out = append(w.out, ',')
		}
		first = false
		if err := w.value(f, s, depth); err != nil {
			return nil, err
		}
	}
	w.out = append(w.out, ']')
	return rest, nil
}

func (w *writer) value(f field, s shape, depth int) error {
	if len(w.out) > w.limit {
		return ingest.Exceeds(ingest.SettingMaxBodyBytes, "body too large when written as JSON", w.limit)
	}
	if s.message != nil {
		return w.message(f.bytes, s.message, depth-1)
	}
	w.out = s.write(w.out, f)
	return nil
}

func text(dst []byte, f field) []byte { return ingest.AppendSent(dst, ingest.String(f.bytes)) }

func hexText(dst []byte, f field) []byte {
	dst = append(dst, '"')
	dst = hex.AppendEncode(dst, f.bytes)
	return append(dst, '"')
}

func base64Text(dst []byte, f field) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, f.bytes)
	return append(dst, '"')
}

func unsigned(dst []byte, f field) []byte { return strconv.AppendUint(dst, f.bits, 10) }

func unsignedText(dst []byte, f field) []byte {
	return append(strconv.AppendUint(append(dst, '"'), f.bits, 10), '"')
}

func signedText(dst []byte, f field) []byte {
	return append(strconv.AppendInt(append(dst, '"'), int64(f.bits), 10), '"')
}

func boolean(dst []byte, f field) []byte { return strconv.AppendBool(dst, f.bits != 0) }

func double(dst []byte, f field) []byte {
	v := math.Float64frombits(f.bits)
	switch {
	case math.IsNaN(v):
		return append(dst, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(dst, `"-Infinity"`...)
	}
	return strconv.AppendFloat(dst, v, 'g', -1, 64)
}

func request(number int) (shape, bool) {
	if number == 1 {
		return shape{name: "resourceLogs", wire: wireBytes, repeated: true, message: resourceLogs}, true
	}
	return shape{}, false
}

func resourceLogs(number int) (shape, bool) {
	switch number {
	case 1:
		return shape{name: "resource", wire: wireBytes, message: resource}, true
	case 2:
		return shape{name: "scopeLogs", wire: wireBytes, repeated: true, message: scopeLogs}, true
	}
	return shape{}, false
}

func resource(number int) (shape, bool) {
	if number == 1 {
		return shape{name: "attributes", wire: wireBytes, repeated: true, message: keyValue}, true
	}
	return shape{}, false
}

func scopeLogs(number int) (shape, bool) {
	switch number {
	case 1:
		return shape{name: "scope", wire: wireBytes, message: scope}, true
	case 2:
		return shape{name: "logRecords", wire: wireBytes, repeated: true, message: logRecord}, true
	}
	return shape{}, false
}

func scope(number int) (shape, bool) {
	switch number {
	case 1:
		return shape{name: "name", wire: wireBytes, write: text}, true
	case 2:
		return shape{name: "version", wire: wireBytes, write: text}, true
	case 3:
		return shape{name: "attributes", wire: wireBytes, repeated: true, message: keyValue}, true
	}
	return shape{}, false
}

func logRecord(number int) (shape, bool) {
	switch number {
	case 1:
		return shape{name: "timeUnixNano", wire: wireFixed64, write: unsignedText}, true
	case 2:
		return shape{name: "severityNumber", wire: wireVarint, write: unsigned}, true
	case 3:
		return shape{name: "severityText", wire: wireBytes, write: text}, true
	case 5:
		return shape{name: "body", wire: wireBytes, message: anyValue}, true
	case 6:
		return shape{name: "attributes", wire: wireBytes, repeated: true, message: keyValue}, true
	case 8:
		return shape{name: "flags", wire: wireFixed32, write: unsigned}, true
	case 9:
		return shape{name: "traceId", wire: wireBytes, write: hexText}, true
	case 10:
		return shape{name: "spanId", wire: wireBytes, write: hexText}, true
	case 11:
		return shape{name: "observedTimeUnixNano", wire: wireFixed64, write: unsignedText}, true
	case 12:
		return shape{name: "eventName", wire: wireBytes, write: text}, true
	}
	return shape{}, false
}

func keyValue(number int) (shape, bool) {
	switch number {
	case 1:
		return shape{name: "key", wire: wireBytes, write: text}, true
	case 2:
		return shape{name: "value", wire: wireBytes, message: anyValue}, true
	}
	return shape{}, false
}

func anyValue(number int) (shape, bool) {
	switch number {
	case 1:
		return shape{name: "stringValue", wire: wireBytes, write: text}, true
	case 2:
		return shape{name: "boolValue", wire: wireVarint, write: boolean}, true
	case 3:
		return shape{name: "intValue", wire: wireVarint, write: signedText}, true
	case 4:
		return shape{name: "doubleValue", wire: wireFixed64, write: double}, true
	case 5:
		return shape{name: "arrayValue", wire: wireBytes, message: arrayValue}, true
	case 6:
		return shape{name: "kvlistValue", wire: wireBytes, message: kvlistValue}, true
	case 7:
		return shape{name: "bytesValue", wire: wireBytes, write: base64Text}, true
	}
	return shape{}, false
}

func arrayValue(number int) (shape, bool) {
	if number == 1 {
		return shape{name: "values", wire: wireBytes, repeated: true, message: anyValue}, true
	}
	return shape{}, false
}

func kvlistValue(number int) (shape, bool) {
	if number == 1 {
		return shape{name: "values", wire: wireBytes, repeated: true, message: keyValue}, true
	}
	return shape{}, false
}
