package columns

import (
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
)

func TestReceived(t *testing.T) {
	events, rejected := NewEvents(), NewRejected()
	check := func(wantOldest, wantNewest int64) {
		t.Helper()
		for name, received := range map[string]func() (int64, int64){"events": events.Received, "rejected": rejected.Received} {
			if oldest, newest := received(); oldest != wantOldest || newest != wantNewest {
				t.Errorf("%s: got %d to %d, want %d to %d", name, oldest, newest, wantOldest, wantNewest)
			}
		}
	}
	check(0, 0)
	for i, at := range []int64{5e6, 3e6, 9e6, 4e6} {
		e := event.EnrichedEvent{}
		e.ReceivedAt = at
		events.Append(Source{}, int64(i), &e)
		rejected.Append(Source{}, int64(i), &event.Rejected{ReceivedAt: at})
	}
	check(3e6, 9e6)
	events.Reset()
	rejected.Reset()
	check(0, 0)
}
