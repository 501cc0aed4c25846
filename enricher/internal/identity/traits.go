package identity

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	idtext "github.com/uptakehq/uptake/schemas/ids"
)

// firstTrait returns the value of the first of keys that traits, JSON object
// text, holds as a string or a number; empty when there is none.
func firstTrait(traits []byte, keys []string) string {
	var fields map[string]json.RawMessage
	for _, k := range keys {
		if !bytes.Contains(traits, []byte(k)) {
			continue
		}
		if fields == nil {
			if json.Unmarshal(traits, &fields) != nil {
				return ""
			}
		}
		v, ok := fields[k]
		if !ok || len(v) == 0 {
			continue
		}
		switch v[0] {
		case '"':
			var s string
			if json.Unmarshal(v, &s) == nil {
				if s = strings.TrimSpace(s); s != "" {
					return s
				}
			}
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			if _, err := strconv.ParseFloat(string(v), 64); err == nil {
				return idtext.Number(string(v))
			}
		}
	}
	return ""
}
