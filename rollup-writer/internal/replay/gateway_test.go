package replay

import "testing"

// TestRefused tells an event that is rejected again under a 400 from other faults of
// its request.
func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		reply string
		form  bool
		want  string
	}{
		{`{"code":400,"error":"missing_field: track needs user_id","events_with_invalid_fields":{},"events_with_missing_fields":{"user_id":[0]},"events_with_invalid_id_lengths":{}}`, false, "missing_field"},
		{`{"code":400,"error":"too_long: 900 bytes","events_with_invalid_fields":{},"events_with_missing_fields":{},"events_with_invalid_id_lengths":{"user_id":[0]}}`, false, "too_long"},
		{`{"code":400,"error":"Invalid API key: bad_key: unknown write key"}`, false, ""},
		{`{"code":400,"error":"bad_body: JSON: ends too early","missing_field":"events"}`, false, ""},
		{`missing_field: identify needs user_id or device_id`, true, "missing_field"},
		{`invalid_api_key`, true, ""},
		{`{"status":400,"detail":"1 of 1 events are bad, the others are stored; event 0: missing_field: track needs userid"}`, false, "missing_field"},
		{`{"status":400,"detail":"bad_body: JSON: ends too early at byte 3"}`, false, ""},
		{`<html>`, false, ""},
	} {
		if got := refused([]byte(tc.reply), tc.form); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.reply, got, tc.want)
		}
	}
}
