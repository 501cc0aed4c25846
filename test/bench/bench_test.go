package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

func TestBodiesAreUniqueAndValid(t *testing.T) {
	seen := map[string]bool{}
	b := newBodies(3, 1)
	for round := range int64(2) {
		var body struct {
			Batch []struct{ MessageID string }
		}
		if err := json.Unmarshal(b.next(8+round*3), &body); err != nil {
			t.Fatal(err)
		}
		for _, e := range body.Batch {
			if seen[e.MessageID] {
				t.Errorf("message id %s comes twice", e.MessageID)
			}
			seen[e.MessageID] = true
		}
	}
	if len(seen) != 6 || !seen["bench-0000000013"] {
		t.Errorf("message ids: %v", seen)
	}
	if !json.Valid(newBodies(1, 7).next(5)) || !json.Valid(propertiesJSON(nil, 12, 3)) {
		t.Error("an event or its properties are no JSON")
	}
}

func TestCPUOfThisProcess(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Skipf("this system shows no /proc: %v", err)
	}
	for until := selfCPU() + 50*time.Millisecond; selfCPU() < until; { // burn
		bytes.Repeat([]byte("x"), 1000)
	}
	after, err := cpuOf(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("after 50 ms of CPU: %v, then %v, %v", before, after, err)
	}
	if peakOf(os.Getpid()) == 0 {
		t.Error("no peak memory")
	}
}

func TestReport(t *testing.T) {
	sample := func(us int) Sample {
		return Sample{Events: 1000, CPU: time.Duration(us) * time.Millisecond, Wall: time.Second, Latency: []time.Duration{time.Millisecond, 3 * time.Millisecond}}
	}
	figures := []Figure{{"gateway_batch", []Sample{sample(9), sample(4), sample(5)}, []Sample{sample(2)}}}
	text, err := JSON(figures, "abc", time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got["gateway_batch_us"] != 5.0 || got["gateway_batch_floor_us"] != 2.0 || got["gateway_batch_p99_ms"] != 3.0 {
		t.Errorf("JSON: %s", text)
	}
	if table := Table(figures); !strings.Contains(table, "| gateway_batch | 5.00 (4.00–9.00) | 2.00 (2.00–2.00) | 2.5 | 1000 | 3.0 / 3.0 |") {
		t.Errorf("table:\n%s", table)
	}
}

func TestValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	c := DefaultConfig()
	c.Rounds, c.Stages = 0, []string{"gateway"}
	err := c.Validate()
	if err == nil || !strings.Contains(err.Error(), "rounds must be > 0") || !strings.Contains(err.Error(), `"gateway"`) {
		t.Errorf("got %v", err)
	}
}
