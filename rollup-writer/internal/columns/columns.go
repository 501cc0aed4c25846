// Package columns builds the native columns of one INSERT.
//
// A column here is its own wire format: appending a value writes the bytes that
// ClickHouse will read, so that sending a block copies nothing and sending it
// again costs nothing. The types implement ch-go's proto.ColInput. The package
// owns which columns a block of each table has, in which order, and how a field
// of a record becomes a value; when a block begins and ends is for package block.
//
// Values are copied when they are appended: a record may be reused at once. A
// block's columns are used again after Reset.
package columns

import (
	"encoding/binary"
	"slices"
	"strconv"
	"unsafe"

	"github.com/ClickHouse/ch-go/proto"
)

// text is a String column: for each value its length as a varint and its bytes.
type text struct {
	buf  []byte
	rows int
}

func (c *text) appendString(v string) {
	c.appendLen(len(v))
	c.buf = append(c.buf, v...)
	c.rows++
}

func (c *text) appendBytes(v []byte) {
	c.appendLen(len(v))
	c.buf = append(c.buf, v...)
	c.rows++
}

// appendLen appends a length, in place for most: then only the length of buf
// changes, and no pointer is written for the collector to note.
func (c *text) appendLen(n int) {
	if n < 0x80 {
		c.buf = append(c.buf, byte(n))
		return
	}
	c.buf = binary.AppendUvarint(c.buf, uint64(n))
}

func (c *text) Reset()                       { c.buf, c.rows = c.buf[:0], 0 }
func (c *text) Type() proto.ColumnType       { return proto.ColumnTypeString }
func (c *text) Rows() int                    { return c.rows }
func (c *text) EncodeColumn(b *proto.Buffer) { b.PutRaw(c.buf) }
func (c *text) WriteColumn(w *proto.Writer)  { w.ChainWrite(c.buf) }

// reader reads the values of a text column, one after the other.
type reader struct{ buf []byte }

// next returns the next value. It is part of the column, and valid until its
// Reset.
func (r *reader) next() string {
	n, size := binary.Uvarint(r.buf)
	v := r.buf[size : size+int(n)]
	r.buf = r.buf[size+int(n):]
	return unsafe.String(unsafe.SliceData(v), len(v))
}

// object is a JSON column, which is sent as typed paths, or as text where those
// cannot hold a block's values (typed.go). kind is the column's type as the table
// has it, to the letter: from any other JSON type the server would convert every
// row, at three times the cost of the whole insert.
type object struct {
	text
	kind    proto.ColumnType
	objects string // type of arrays of objects within it
	typed   *typed // of formTyped
	form    form
}

// form is how a block's objects are sent.
type form byte

const (
	formUnknown form = iota // until they are sent
	formTyped
	formText
)

// newObject returns a column of the type JSON(max_dynamic_paths=paths).
func newObject(paths int) object {
	// Objects within an array are columns of their own, with a quarter of the
	// paths and half of the types.
	return object{
		kind:    proto.ColumnType("JSON(max_dynamic_paths=" + strconv.Itoa(paths) + ")"),
		objects: "Array(JSON(max_dynamic_types=16, max_dynamic_paths=" + strconv.Itoa(paths/4) + "))",
	}
}

var emptyObject = []byte("{}")

// appendJSON appends object text; none is an empty object.
func (c *object) appendJSON(v []byte) {
	if len(v) == 0 {
		v = emptyObject
	}
	c.appendBytes(v)
}

func (c *object) Type() proto.ColumnType { return c.kind }

func (c *object) Reset() {
	c.text.Reset()
	c.choose(formUnknown)
}

// choose sets the form, and drops what only typed paths need.
func (c *object) choose(f form) {
	if c.form = f; c.typed != nil {
		typedPool.Put(c.typed)
		c.typed = nil
	}
}

// EncodeState writes the version of the serialization and what else precedes the
// values. A repeat sends the same form.
func (c *object) EncodeState(b *proto.Buffer) {
	if c.form == formUnknown {
		c.typed, c.form = typedPool.Get().(*typed), formTyped
		if !c.typed.read(&c.text) {
			c.choose(formText)
		}
	}
	if c.form == formText {
		b.PutUInt64(proto.JSONStringSerializationVersion)
		return
	}
	c.typed.state(b, c.objects)
}

func (c *object) EncodeColumn(b *proto.Buffer) {
	if c.form == formTyped {
		c.typed.write(b.PutRaw)
		return
	}
	c.text.EncodeColumn(b)
}

func (c *object) WriteColumn(w *proto.Writer) {
	if c.form == formTyped {
		c.typed.write(w.ChainWrite)
		return
	}
	c.text.WriteColumn(w)
}

// dict is a LowCardinality(String) column: the distinct values of the block, and
// for each row the number of its value.
type dict struct {
	values []string // owned
	wire   text     // values, as sent
	number map[string]uint32
	keys   []uint32
}

func (c *dict) appendString(v string) {
	// Neighbours mostly have the same value.
	if n := len(c.keys); n > 0 && c.values[c.keys[n-1]] == v {
		c.keys = append(c.keys, c.keys[n-1])
		return
	}
	k, ok := c.number[v]
	if !ok {
		if c.number == nil {
			c.number = map[string]uint32{}
		}
		own := string(append([]byte(nil), v...))
		k = uint32(len(c.values))
		c.number[own] = k
		c.values = append(c.values, own)
		c.wire.appendString(own)
	}
	c.keys = append(c.keys, k)
}

// at is the value of a row.
func (c *dict) at(row int) string { return c.values[c.keys[row]] }

// each calls fn with every value that rows have, and how many.
func (c *dict) each(fn func(value string, rows int)) {
	n := make([]int, len(c.values))
	for _, k := range c.keys {
		n[k]++
	}
	for k, v := range c.values {
		fn(v, n[k])
	}
}

func (c *dict) Reset() {
	clear(c.number)
	clear(c.values)
	c.values, c.keys = c.values[:0], c.keys[:0]
	c.wire.Reset()
}

func (c *dict) Type() proto.ColumnType {
	return proto.ColumnTypeLowCardinality.Sub(proto.ColumnTypeString)
}

func (c *dict) Rows() int { return len(c.keys) }

// What precedes a dictionary in the native format: the version of the keys'
// serialization, and before the block's values their flags: it comes with the
// block (bit 9) and replaces what was there (bit 10); the low byte is the width
// of the numbers. ClickHouse calls it SerializationLowCardinality.
const (
	dictVersion = 1
	dictFlags   = 1<<9 | 1<<10
)

// EncodeState writes the version of the serialization.
func (c *dict) EncodeState(b *proto.Buffer) { b.PutInt64(dictVersion) }

// EncodeColumn writes the dictionary and the numbers, as narrow as they fit.
func (c *dict) EncodeColumn(b *proto.Buffer) {
	if len(c.keys) == 0 {
		return
	}
	width := proto.KeyUInt32
	switch n := len(c.values); {
	case n <= 1<<8:
		width = proto.KeyUInt8
	case n <= 1<<16:
		width = proto.KeyUInt16
	}
	b.PutInt64(dictFlags | int64(width))
	b.PutInt64(int64(len(c.values)))
	b.PutRaw(c.wire.buf)
	b.PutInt64(int64(len(c.keys)))
	switch width {
	case proto.KeyUInt8:
		for _, k := range c.keys {
			b.Buf = append(b.Buf, byte(k))
		}
	case proto.KeyUInt16:
		for _, k := range c.keys {
			b.Buf = binary.LittleEndian.AppendUint16(b.Buf, uint16(k))
		}
	default:
		for _, k := range c.keys {
			b.Buf = binary.LittleEndian.AppendUint32(b.Buf, k)
		}
	}
}

// WriteColumn is EncodeColumn: the numbers are narrowed on the way.
func (c *dict) WriteColumn(w *proto.Writer) { w.ChainBuffer(c.EncodeColumn) }

// longs is an Int64 column.
type longs struct{ proto.ColInt64 }

func (c *longs) appendLong(v int64) { c.Append(v) }

// bounds returns the least and the greatest value, 0 without rows.
func (c *longs) bounds() (least, greatest int64) {
	if len(c.ColInt64) == 0 {
		return 0, 0
	}
	return slices.Min(c.ColInt64), slices.Max(c.ColInt64)
}

// micros is a DateTime64(6, 'UTC') column, in microseconds since the epoch.
type micros struct{ longs }

func (c *micros) Type() proto.ColumnType { return "DateTime64(6, 'UTC')" }

// millis is a DateTime64(3, 'UTC') column, in milliseconds since the epoch.
type millis struct{ longs }

func (c *millis) Type() proto.ColumnType { return "DateTime64(3, 'UTC')" }

// optionalMicros is a Nullable(DateTime64(6, 'UTC')) column; 0 is NULL.
type optionalMicros struct {
	nulls  []byte
	values proto.ColInt64
}

func (c *optionalMicros) appendLong(v int64) {
	var null byte
	if v == 0 {
		null = 1
	}
	c.nulls = append(c.nulls, null)
	c.values.Append(v)
}

func (c *optionalMicros) Reset()                 { c.nulls, c.values = c.nulls[:0], c.values[:0] }
func (c *optionalMicros) Type() proto.ColumnType { return "Nullable(DateTime64(6, 'UTC'))" }
func (c *optionalMicros) Rows() int              { return len(c.nulls) }

func (c *optionalMicros) EncodeColumn(b *proto.Buffer) {
	b.PutRaw(c.nulls)
	c.values.EncodeColumn(b)
}

func (c *optionalMicros) WriteColumn(w *proto.Writer) {
	w.ChainWrite(c.nulls)
	c.values.WriteColumn(w)
}

// seconds is a DateTime('UTC') column, in seconds since the epoch.
type seconds struct{ proto.ColUInt32 }

func (c *seconds) Type() proto.ColumnType { return "DateTime('UTC')" }

// ints is an Int32 column.
type ints struct{ proto.ColInt32 }

// counts is a UInt32 column.
type counts struct{ proto.ColUInt32 }

// column is what the blocks below need of the types above.
type column interface {
	proto.ColInput
	Reset()
}

// block is what the tables' blocks have in common.
type block struct {
	input   proto.Input
	columns []column
}

func (b *block) add(name string, c column) {
	b.input = append(b.input, proto.InputColumn{Name: name, Data: c})
	b.columns = append(b.columns, c)
}

// Input is the columns in the order of the INSERT. It is valid until Reset.
func (b *block) Input() proto.Input { return b.input }

// Rows is how many rows were appended.
func (b *block) Rows() int { return b.columns[0].Rows() }

// Reset empties the columns and keeps their memory.
func (b *block) Reset() {
	for _, c := range b.columns {
		c.Reset()
	}
}

// Into is the INSERT statement of the block into a table.
func (b *block) Into(table string) string {
	return "INSERT INTO " + table + " " + b.input.Columns() + " VALUES"
}

// Source says where in the log a row comes from.
type Source struct {
	TopicID   string
	Partition int32
}

// picker is a column that takes values of another one of its type.
type picker interface {
	pick(from column, keep []bool)
}

// pick appends the rows of from, a block of the same table, that keep says.
func (b *block) pick(from *block, keep []bool) {
	for i, c := range b.columns {
		c.(picker).pick(from.columns[i], keep)
	}
}

func (c *text) pick(from column, keep []bool) {
	r := reader{buf: from.(*text).buf}
	for _, k := range keep {
		if v := r.next(); k {
			c.appendString(v)
		}
	}
}

func (c *object) pick(from column, keep []bool) {
	f := from.(*object)
	c.text.pick(&f.text, keep)
	if f.form == formText { // the server may have refused the other one
		c.choose(formText)
	}
}

func (c *dict) pick(from column, keep []bool) {
	for i, k := range keep {
		if k {
			c.appendString(from.(*dict).at(i))
		}
	}
}

func (c *longs) pick(from column, keep []bool) {
	c.ColInt64 = pickValues(c.ColInt64, from.(*longs).ColInt64, keep)
}

func (c *micros) pick(from column, keep []bool) { c.longs.pick(&from.(*micros).longs, keep) }

func (c *optionalMicros) pick(from column, keep []bool) {
	f := from.(*optionalMicros)
	c.nulls, c.values = pickValues(c.nulls, f.nulls, keep), pickValues(c.values, f.values, keep)
}

func (c *ints) pick(from column, keep []bool) {
	c.ColInt32 = pickValues(c.ColInt32, from.(*ints).ColInt32, keep)
}

func pickValues[S ~[]E, E any](to, from S, keep []bool) S {
	for i, k := range keep {
		if k {
			to = append(to, from[i])
		}
	}
	return to
}
