package loadgen

import (
	"strings"
)

// Bad is one way in which an event is wrong. It is always an item of a batch
// whose other items are good.
type Bad struct {
	Code   string // the reason that the gateway has to give
	Field  string // the field that it has to name
	damage func(good string) string
}

// badKinds are the ways in which an event of the plan can be wrong. Codes and
// fields are those that the gateway's interface promises.
var badKinds = []Bad{
	{"missing_field", "event", func(s string) string { return without(s, "event") }},
	{"missing_field", "type", func(s string) string { return strings.Replace(s, `"type":`, `"kind":`, 1) }},
	{"unknown_kind", "type", func(s string) string { return strings.Replace(s, `{"type":"track"`, `{"type":"purchase"`, 1) }},
	{"wrong_type", "properties", func(s string) string { return with(without(s, "properties"), `"properties":[1,2]`) }},
	{"wrong_type", "userId", func(s string) string { return with(without(without(s, "userId"), "anonymousId"), `"userId":{"id":1}`) }},
	{"too_long", "messageId", func(s string) string { return replaced(s, "messageId", strings.Repeat("m", 900)) }},
	{"too_long", "event", func(s string) string { return replaced(s, "event", strings.Repeat("e", 600)) }},
	{"bad_quantity", "context.quantity", func(s string) string { return strings.Replace(s, `"context":{`, `"context":{"quantity":-1,`, 1) }},
	{"duplicate_field", "event", func(s string) string { return with(s, `"event":"Another"`) }},
	{"too_deep", "", func(s string) string {
		deep := strings.Repeat(`{"a":`, 60) + "1" + strings.Repeat("}", 60)
		return with(without(s, "properties"), `"properties":`+deep)
	}},
}

// with adds a field at the end of a rendered event.
func with(s, field string) string { return s[:len(s)-1] + "," + field + "}" }

// without cuts a top-level field out of a rendered event.
func without(s, name string) string {
	start := strings.Index(s, `,"`+name+`":`)
	if start < 0 {
		return s
	}
	value := start + len(name) + 4
	return s[:start] + s[value+valueLen(s[value:]):]
}

// replaced gives a top-level field another string value.
func replaced(s, name, value string) string {
	start := strings.Index(s, `,"`+name+`":`)
	at := start + len(name) + 4
	return s[:at] + `"` + value + `"` + s[at+valueLen(s[at:]):]
}

// valueLen returns the length of the JSON value that s starts with: a string
// without escapes, or an object.
func valueLen(s string) int {
	if s[0] == '"' {
		return 2 + strings.IndexByte(s[1:], '"')
	}
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}
