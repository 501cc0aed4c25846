//go:build goexperiment.jsonv2

package scan

import (
	"encoding/json/jsontext"
	"testing"
)

// checkStrict holds what the scanner let through, repaired, against a parser that
// refuses what is not UTF-8 and half surrogates: GOEXPERIMENT=jsonv2 go test.
func checkStrict(t *testing.T, text []byte) {
	t.Helper()
	if !jsontext.Value(text).IsValid(jsontext.AllowDuplicateNames(true)) {
		t.Fatalf("jsontext refuses %q", text)
	}
}
