package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/note"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
)

// A pipeline puts a release on the time axes, changes it under its id, and deletes it; what
// cannot be an annotation is refused before Kafka is asked.
func TestAnnotate(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "p."+topic.Unprefixed.Notes))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	call := func(args ...string) (int, string) {
		var out bytes.Buffer
		args = append([]string{"annotate", "-kafka-brokers", strings.Join(cluster.ListenAddrs(), ","), "-kafka-prefix", "p."}, args...)
		code := process.Main(&out, "rollup-writer", func() error {
			return run(args, func(string) (string, bool) { return "", false }, &out, &out)
		})
		return code, out.String()
	}
	for _, args := range [][]string{
		{"-app", "dev", "-id", "release-1.2", "-text", "release 1.2", "-by", "ci"},
		{"-app", "dev", "-id", "release-1.2", "-text", "release 1.2.1", "-by", "ci", "-at", "2026-11-20", "-category", "incident"},
		{"-app", "dev", "-id", "release-1.2", "-remove"},
	} {
		if code, out := call(args...); code != process.ExitOK || !strings.HasPrefix(out, "annotation release-1.2 is ") {
			t.Errorf("%q: %d %s", args, code, out)
		}
	}
	for want, args := range map[string][]string{
		"app must not be empty":   {"-text", "x"},
		"text must not be empty":  {"-app", "dev"},
		"category must be one of": {"-app", "dev", "-text", "x", "-category", "y"},
		`(got "tomorrow")`:        {"-app", "dev", "-text", "x", "-at", "tomorrow"},
		"remove needs id":         {"-app", "dev", "-remove"},
	} {
		if code, out := call(args...); code != process.ExitUsage || !strings.Contains(out, want) {
			t.Errorf("%q: want %q, got %d %s", args, want, code, out)
		}
	}

	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("p."+topic.Unprefixed.Notes))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(t.Context(), "p."+topic.Unprefixed.Notes)
	if err != nil {
		t.Fatal(err)
	}
	if end, _ := ends.Lookup("p."+topic.Unprefixed.Notes, 0); end.Offset != 3 {
		t.Fatalf("%d records, want 3", end.Offset)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var notes []note.Note
	for len(notes) < 3 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			n, err := note.Decode(r.Value)
			if err != nil || string(r.Key) != n.Key() {
				t.Errorf("%q: %v", r.Value, err)
			}
			notes = append(notes, n)
		})
	}
	first, second, third := notes[0], notes[1], notes[2]
	if a := first.Annotation; first.By != "ci" || a.Text != "release 1.2" || a.Category != "release" || a.WholeDay || time.Since(a.At) > time.Hour {
		t.Errorf("got %+v, %+v", first, a)
	}
	if a := second.Annotation; a.Text != "release 1.2.1" || a.Category != "incident" || !a.WholeDay || a.At.Format(time.DateOnly) != "2026-11-20" {
		t.Errorf("got %+v", a)
	}
	if !third.Removed || third.Annotation != nil || third.Key() != first.Key() {
		t.Errorf("got %+v", third)
	}
}
