package segment

import (
	"encoding/json"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// Bounds of a pixel's query.
const (
	maxPixelFields = 256
	maxPixelDepth  = 8
)

// decodePixel reads an event whose fields are query parameters, nested ones
// written with dots (properties.path=..., context.page.url=...). Their values
// are all strings.
func (p Protocol) decodePixel(r *ingest.Request, b *ingest.Batch, kind string) error {
	root := map[string]any{}
	n := 0
	for pair := range strings.SplitSeq(r.Query, "&") {
		if pair == "" {
			continue
		}
		if n++; n > maxPixelFields {
			return ingest.Unreadable("more than %d query parameters", maxPixelFields)
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err1 := url.QueryUnescape(name)
		value, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil || !utf8.ValidString(name) || !utf8.ValidString(value) {
			return ingest.Unreadable("query parameter %q is not percent-encoded well", pair)
		}
		if !put(root, name, value) {
			return ingest.Unreadable("query parameter %q is nested too deeply or both a value and an object", name)
		}
	}
	text, err := json.Marshal(root)
	if err != nil {
		return ingest.Unreadable("query: %v", err)
	}
	return p.decodeText(r, b, text, kind)
}

// put sets a field by its path.
func put(object map[string]any, name, value string) bool {
	path := strings.Split(name, ".")
	if len(path) > maxPixelDepth {
		return false
	}
	last := len(path) - 1
	for _, key := range path[:last] {
		next, exists := object[key]
		if !exists {
			next = map[string]any{}
			object[key] = next
		}
		inner, ok := next.(map[string]any)
		if !ok {
			return false
		}
		object = inner
	}
	if _, exists := object[path[last]]; exists {
		return false
	}
	object[path[last]] = value
	return true
}

// pixel is a transparent GIF of one pixel.
const pixel = "GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"

func answerPixel(r *ingest.Request, b *ingest.Batch, fault *ingest.Fault, w *ingest.Reply) {
	if fault != nil {
		answer(r, b, fault, w)
		return
	}
	w.ContentType = "image/gif"
	w.SetHeader("Cache-Control", "no-store")
	w.WriteString(pixel)
}
