package alert

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/topic"
)

// What no release can have written is skipped and changes nothing; what a newer one may
// have written ends the round.
func TestGarbageInTheLog(t *testing.T) {
	skipped := 0
	m := newMemory(nil, topic.Unprefixed, func(*kgo.Record, error) { skipped++ })
	subject, versions, delivery := signal.KeySubject+"\x00dev\x00s", signal.KeyVersions+"\x00dev", signal.KeyDelivery+"\x00id\x00target"
	for _, c := range []struct {
		key, value string
		skipped    bool
	}{
		{"", `{"alert_id":"a","state":"firing","id":"1"}`, false},
		{"", "garbage", true},
		{"", "", true},
		{"", `{"alert_id":"a"`, true},
		{"", `42`, true},
		{"", `["a"]`, true},
		{subject, `{}`, false},
		{subject, "garbage", true},
		{subject, `"text"`, true},
		{versions, `{}`, true},
		{delivery, "\x00\x01", true},
		{"no key of ours", "garbage", false}, // a newer release may have other kinds
	} {
		before := skipped
		apply := m.takeState
		if c.key == "" {
			apply = m.takeAlert
		}
		if err := m.take(&kgo.Record{Key: []byte(c.key), Value: []byte(c.value)}, apply); err != nil || (skipped > before) != c.skipped {
			t.Errorf("key %q, value %q: %v, skipped %v", c.key, c.value, err, skipped > before)
		}
	}
	if len(m.alerts) != 1 || len(m.subjects) != 1 || len(m.versions) != 0 || len(m.marks) != 0 {
		t.Errorf("memory: %+v", m)
	}
	for key, value := range map[string]string{
		"":       `{"alert_id":["a newer form"]}`,
		delivery: `{"state":{"newer":true}}`,
	} {
		apply := m.takeState
		if key == "" {
			apply = m.takeAlert
		}
		if err := m.take(&kgo.Record{Key: []byte(key), Value: []byte(value)}, apply); err == nil {
			t.Errorf("key %q, value %q was taken", key, value)
		}
	}
}
