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
func appendList(w *mapping.Writer, list scan.Node, depth int) {
	var scratch [64]byte
	for kv := range list.Elements() {
		if key := kv.Get("key"); key.Kind() == scan.String {
			w.Raw(key.Value().Text(), appendValue(scratch[:0], kv.Get("value"), depth-1))
		}
	}
}

// appendValue writes one of OTLP's values, an object that names its type, as the
// JSON that it stands for. A value that is not of the type it names, or of a type that
// is not known, stays as it was sent.
func appendValue(dst []byte, v scan.Node, depth int) []byte {
	if depth <= 0 {
		return append(dst, "null"...)
	}
	for name, value := range v.Members() {
		return appendTyped(dst, name, value, depth) // the first of them counts
	}
	return append(dst, "null"...)
}

func appendTyped(dst []byte, name string, n scan.Node, depth int) []byte {
	value := n.Value()
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
		return appendArray(dst, n, depth)
	case "kvlistValue":
		var w mapping.Writer
		appendList(&w, n.Get("values"), depth)
		if text := w.Object(); text != nil {
			return append(dst, text...)
		}
		return append(dst, "{}"...)
	}
	if value.Kind == scan.Invalid {
		return append(dst, "null"...)
	}
	return append(dst, value.Raw...)
}

func appendArray(dst []byte, n scan.Node, depth int) []byte {
	dst = append(dst, '[')
	first := true
	for v := range n.Get("values").Elements() {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = appendValue(dst, v, depth-1)
	}
	return append(dst, ']')
}
