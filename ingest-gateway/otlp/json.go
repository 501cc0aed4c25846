package otlp

import (
	"encoding/json"
	"strconv"

	"github.com/uptakehq/uptake/ingest-gateway/mapping"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
)

// maxNesting bounds the values within values that are followed; what is deeper
// becomes null. Records as deep are rejected before by the gateway's own bound.
const maxNesting = 64

// appendList writes OTLP's list of keys and values as fields.
func appendList(w *mapping.Writer, list scan.Value, depth int) {
	if list.Kind != scan.Array {
		return
	}
	var s scan.Scanner
	s.Reset(list.Raw, len(list.Raw))
	s.Array()
	var o mapping.Object
	for s.More() {
		v := s.Value()
		if v.Kind != scan.Object {
			continue
		}
		o.Parse(v.Raw)
		if key := o.Get("key"); key.Kind == scan.String {
			w.Raw(key.Text(), appendValue(nil, o.Get("value"), depth-1))
		}
	}
}

// appendValue writes one of OTLP's values, an object that names its type, as the
// JSON that it stands for.
func appendValue(dst []byte, v scan.Value, depth int) []byte {
	if v.Kind != scan.Object || depth <= 0 {
		return append(dst, "null"...)
	}
	var o mapping.Object
	o.Parse(v.Raw)
	if o.Len() == 0 {
		return append(dst, "null"...)
	}
	name := o.Names()[0]
	value := o.Get(name)
	switch name {
	case "stringValue", "bytesValue":
		if value.Kind == scan.String {
			return append(dst, value.Raw...)
		}
	case "boolValue":
		if value.Kind == scan.True || value.Kind == scan.False {
			return append(dst, value.Raw...)
		}
	case "doubleValue": // a number, or text, also of what JSON has no number for
		if value.Kind == scan.String {
			text := value.Text()
			if _, err := strconv.ParseFloat(text, 64); err == nil && json.Valid([]byte(text)) {
				return append(dst, text...)
			}
		}
		if value.Kind == scan.Number || value.Kind == scan.String {
			return append(dst, value.Raw...)
		}
	case "intValue": // 64 bits travel as text
		if n, err := strconv.ParseInt(value.Text(), 10, 64); err == nil {
			return strconv.AppendInt(dst, n, 10)
		}
	case "arrayValue":
		return appendArray(dst, value, depth)
	case "kvlistValue":
		var list mapping.Object
		list.Of(value)
		var w mapping.Writer
		appendList(&w, list.Get("values"), depth)
		if text := w.Object(); text != nil {
			return append(dst, text...)
		}
		return append(dst, "{}"...)
	}
	return append(dst, "null"...)
}

func appendArray(dst []byte, value scan.Value, depth int) []byte {
	var list mapping.Object
	list.Of(value)
	dst = append(dst, '[')
	var s scan.Scanner
	raw := list.Get("values").Raw
	s.Reset(raw, len(raw))
	if s.Array() {
		for first := true; s.More(); first = false {
			if !first {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, s.Value(), depth-1)
		}
	}
	return append(dst, ']')
}
