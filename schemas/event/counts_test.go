package event

import (
	"reflect"
	"testing"
	"time"
)

func TestCountsPayload(t *testing.T) {
	at := time.Date(2026, 11, 21, 10, 59, 59, 0, time.UTC)
	c := Counts{RawTopicID: "t", First: 5, Next: 9, Cells: []Cell{
		{AppID: "dev", Hour: HourOf(FromTime(at)), Accepted: 4, Stored: 1, Duplicates: 1, Rejected: 1, OptedOut: 1},
	}}
	if got, want := c.Cells[0].Hour, at.Truncate(time.Hour).Unix(); got != want {
		t.Errorf("hour: got %d, want %d", got, want)
	}
	text, err := c.Payload()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"raw_topic_id":"t","first":5,"next":9,"cells":[{"app_id":"dev","hour":1795255200,"accepted":4,"stored":1,"duplicates":1,"rejected":1,"opted_out":1}]}`
	if string(text) != want {
		t.Errorf("payload: got %s, want %s", text, want)
	}
	back, err := ParseCounts(text)
	if err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("parsed: got %+v, %v, want %+v", back, err, c)
	}
	for _, bad := range []string{
		``, `{}`, `{"raw_topic_id":"t","first":5,"next":9}`,
		`{"raw_topic_id":"","first":5,"next":9,"cells":[{}]}`,
		`{"raw_topic_id":"t","first":5,"next":4,"cells":[{}]}`,
		`{"raw_topic_id":"t","first":-1,"next":4,"cells":[{}]}`,
		`{"raw_topic_id":"t","first":5,"next":9,"cells":[{"hour":3601}]}`,
		`{"raw_topic_id":"t","first":5,"next":9,"cells":[{"hour":4294969200}]}`,
	} {
		if _, err := ParseCounts([]byte(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	if h := HourOf(MaxReceived - 1); h > 1<<32-1 {
		t.Errorf("the last hour is %d", h)
	}
}
