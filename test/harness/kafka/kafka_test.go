package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/longtest"
)

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func client(t *testing.T, l Log, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(l.Addrs()...), kgo.MetadataMinAge(100 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func produce(t *testing.T, ctx context.Context, cl *kgo.Client, topic string, values ...string) {
	t.Helper()
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{Topic: topic, Value: []byte(v)})
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatalf("produce %v: %v", values, err)
	}
}

func end(t *testing.T, ctx context.Context, cl *kgo.Client, topic string) int64 {
	t.Helper()
	offsets, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	o, _ := offsets.Lookup(topic, 0)
	if o.Err != nil {
		t.Fatal(o.Err)
	}
	return o.Offset
}

func TestOneBrokerKeepsItsData(t *testing.T) {
	c := ForTest(t, Config{Brokers: 1})
	ctx := within(t, 2*time.Minute)
	cl := client(t, c)
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	produce(t, ctx, cl, "t", "a", "b")
	first := c.Pid(0)
	for i, stop := range []func(context.Context, int) error{c.StopBroker, c.KillBroker} {
		if err := stop(ctx, 0); err != nil {
			t.Fatal(err)
		}
		if err := c.PauseBroker(0); err == nil {
			t.Error("pause of a broker that does not run: got nil")
		}
		if err := c.RestartBroker(ctx, 0); err != nil {
			t.Fatal(err)
		}
		produce(t, ctx, cl, "t", "more")
		if got, want := end(t, ctx, cl, "t"), int64(3+i); got != want {
			t.Errorf("end offset after restart %d: got %d, want %d", i, got, want)
		}
	}
	if c.Pid(0) == first {
		t.Error("the broker was never restarted")
	}
	if err := c.RestartBroker(ctx, 0); err == nil {
		t.Error("restart of a running broker: got nil")
	}
}

// With acks from all of two replicas in sync, three brokers go on without any
// one of them, and without two of them they do not.
func TestThreeBrokers(t *testing.T) {
	longtest.Only(t)
	c := ForTest(t, Config{Brokers: 3})
	ctx := within(t, 4*time.Minute)
	cl := client(t, c)
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, -1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	produce(t, ctx, cl, "t", "a")
	leader := func() int {
		topics, err := kadm.NewClient(cl).ListTopics(ctx, "t")
		if err != nil {
			t.Fatal(err)
		}
		if got := len(topics["t"].Partitions[0].Replicas); got != 3 {
			t.Fatalf("replicas: got %d, want 3", got)
		}
		for i := range c.Brokers() {
			if c.Node(i) == topics["t"].Partitions[0].Leader {
				return i
			}
		}
		t.Fatalf("leader of %+v is no broker", topics["t"])
		return -1
	}

	killed := leader()
	if err := c.KillBroker(ctx, killed); err != nil {
		t.Fatal(err)
	}
	produce(t, ctx, cl, "t", "b")
	if err := c.RestartBroker(ctx, killed); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitInSync(ctx); err != nil {
		t.Fatal(err)
	}

	paused := leader()
	if err := c.PauseBroker(paused); err != nil {
		t.Fatal(err)
	}
	produce(t, ctx, cl, "t", "c")
	if err := c.ResumeBroker(paused); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitInSync(ctx); err != nil {
		t.Fatal(err)
	}

	for _, i := range []int{0, 1} {
		if err := c.KillBroker(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	// An idempotent producer never gives up a record that may have arrived.
	impatient := client(t, c, kgo.DisableIdempotentWrite(), kgo.RecordDeliveryTimeout(3*time.Second))
	if err := impatient.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("lost")}).FirstErr(); err == nil {
		t.Error("produce with one of three brokers: got an ack")
	}
	for _, i := range []int{0, 1} {
		if err := c.spawn(c.brokers[i]); err != nil { // both, before either can serve
			t.Fatal(err)
		}
	}
	if err := c.AwaitInSync(ctx); err != nil {
		t.Fatal(err)
	}
	produce(t, ctx, cl, "t", "d")
	if got := end(t, ctx, cl, "t"); got < 4 || got > 5 { // the one without an ack may be there
		t.Errorf("end offset: got %d, want 4 or 5", got)
	}
}

func TestToolsMissing(t *testing.T) {
	empty := t.TempDir()
	t.Setenv("PATH", empty)
	t.Setenv("JAVA_HOME", "")
	_, err := Start(t.Context(), Config{Brokers: 1})
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "apt-get install openjdk-17-jre-headless") {
		t.Errorf("without java: got %v", err)
	}
	old := filepath.Join(empty, "java")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", empty+string(os.PathListSeparator)+"/bin")
	_, err = Start(t.Context(), Config{Brokers: 1})
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "is 11") {
		t.Errorf("with java 11: got %v", err)
	}

	t.Setenv("PATH", empty)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "go.work"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(outside)
	if _, err = Jars(t.Context()); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "apt-get install maven") {
		t.Errorf("without mvn: got %v", err)
	}
}

func TestBrokerThatCannotStart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka; not under -short")
	}
	ctx := within(t, time.Minute)
	_, err := Start(ctx, Config{Brokers: 1, Properties: map[string]string{"num.io.threads": "none"}})
	if errors.Is(err, ErrMissing) {
		t.Skip(err)
	}
	if err == nil || !strings.Contains(err.Error(), "num.io.threads") {
		t.Errorf("got %v, want an error that names num.io.threads", err)
	}
}

func TestValidate(t *testing.T) {
	err := (&Config{Brokers: 2, HeapMB: 1}).Validate()
	if err == nil || fmt.Sprint(err) != "Brokers must be 1 or 3 (got 2)\nHeapMB must be at least 128 (got 1)" {
		t.Errorf("got %v", err)
	}
}
