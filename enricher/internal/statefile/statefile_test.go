package statefile

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/locallog"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// cluster is a log with the topics.
func cluster(t *testing.T, partitions int32) *kgo.Client {
	t.Helper()
	log, err := locallog.Start(locallog.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(log.Addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	layout := topic.SingleLayout()
	layout.Partitions = partitions
	if err := topic.Unprefixed.Ensure(t.Context(), kadm.NewClient(cl), layout); err != nil {
		t.Fatal(err)
	}
	return cl
}

func produce(t *testing.T, cl *kgo.Client, records ...*kgo.Record) {
	t.Helper()
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// held are all records of the topics, in order.
func held(t *testing.T, cl *kgo.Client, names *topic.Names, partitions int32) (list []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, name := range Topics(names) {
		n := int32(1)
		if name == names.EnricherState {
			n = partitions
		}
		for p := range n {
			err := reader.On(cl).All(ctx, name, p, func(r *kgo.Record) error {
				list = append(list, fmt.Sprintf("%s/%d %q %q nil %v at %d %v", names.Base(name), p, r.Key, r.Value, r.Value == nil, r.Timestamp.UnixMilli(), r.Headers))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return list
}

func TestStateGoesIntoAFileAndBack(t *testing.T) {
	from := cluster(t, 2)
	for i := range batch + 10 { // more than one batch
		produceLater := &kgo.Record{Topic: topic.Unprefixed.EnricherState, Partition: int32(i % 2), Key: fmt.Appendf(nil, "shop\x00u%d", i%7), Value: fmt.Appendf(nil, "\xc3\x01 %d", i)}
		from.Produce(t.Context(), produceLater, nil)
	}
	if err := from.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	produce(t, from,
		&kgo.Record{Topic: topic.Unprefixed.EnricherState, Partition: 1, Key: []byte("shop\x00u1")}, // deleted
		&kgo.Record{Topic: topic.Unprefixed.Catalog, Key: []byte("shop"), Value: []byte("catalog"), Headers: []kgo.RecordHeader{{Key: "v", Value: []byte{0, 255}}}, Timestamp: time.UnixMilli(1_700_000_000_000)},
		&kgo.Record{Topic: topic.Unprefixed.Metadata, Key: []byte("shop\x00k"), Value: []byte("string")},
		&kgo.Record{Topic: topic.Unprefixed.KnownIDs, Key: bytes.Repeat([]byte{7}, 16), Value: []byte{1}},
	)
	var file bytes.Buffer
	end, err := Write(t.Context(), from, topic.Unprefixed, &file)
	if err != nil {
		t.Fatal(err)
	}
	want := held(t, from, topic.Unprefixed, 2)
	if end.Records[topic.Unprefixed.EnricherState] != batch+11 || len(want) != batch+14 {
		t.Fatalf("%d records, of which the export has %v", len(want), end.Records)
	}

	to := cluster(t, 2)
	refused := func(cl *kgo.Client, data []byte, why string) {
		t.Helper()
		if _, _, err := Read(t.Context(), cl, topic.Unprefixed, bytes.NewReader(data), nil); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("got %v, want %q", err, why)
		}
	}
	refused(to, file.Bytes()[:file.Len()-9], "damaged") // only the checksum is missing
	refused(to, file.Bytes()[:file.Len()/2], "cut short")
	refused(to, []byte("{}"), "no file of `enricher state export`")
	refused(cluster(t, 3), file.Bytes(), "3 partitions, and had 2")
	if list := held(t, to, topic.Unprefixed, 2); len(list) != 0 {
		t.Fatalf("a refused file left %q", list)
	}
	if _, _, err := Read(t.Context(), to, topic.Unprefixed, bytes.NewReader(file.Bytes()), nil); err != nil {
		t.Fatal(err)
	}
	if got := held(t, to, topic.Unprefixed, 2); !reflect.DeepEqual(got, want) {
		t.Errorf("%d records, want %d; the first is %s, want %s", len(got), len(want), got[0], want[0])
	}
	refused(to, file.Bytes(), "into empty topics only")

	// One topic of several is lost.
	one := cluster(t, 2)
	produce(t, one, &kgo.Record{Topic: topic.Unprefixed.Catalog, Key: []byte("shop"), Value: []byte("another catalog")})
	refused(one, file.Bytes(), "-topics names those that were lost")
	if _, _, err := Read(t.Context(), one, topic.Unprefixed, bytes.NewReader(file.Bytes()), []string{topic.Unprefixed.Raw}); err == nil || !strings.Contains(err.Error(), `(got "uptake.raw.v1")`) {
		t.Errorf("a topic that no file has: %v", err)
	}
	_, end, err = Read(t.Context(), one, topic.Unprefixed, bytes.NewReader(file.Bytes()), []string{topic.Unprefixed.EnricherState})
	if err != nil || len(end.Records) != 1 || end.Records[topic.Unprefixed.EnricherState] != batch+11 {
		t.Errorf("one topic: %+v, %v", end, err)
	}

	// An installation with a prefix reads the file too, on the same cluster.
	staging := topic.NewNames("staging.")
	layout := topic.SingleLayout()
	layout.Partitions = 2
	if err := staging.Ensure(t.Context(), kadm.NewClient(to), layout); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(t.Context(), to, staging, bytes.NewReader(file.Bytes()), nil); err != nil {
		t.Fatal(err)
	}
	if got := held(t, to, staging, 2); !reflect.DeepEqual(got, want) {
		t.Errorf("%d records with a prefix, want %d", len(got), len(want))
	}
}

// A file that was made before a topic was added is read.
func TestFileOfAnEarlierReleaseIsRead(t *testing.T) {
	var file bytes.Buffer
	zip := gzip.NewWriter(&file)
	fmt.Fprintf(zip, `{"uptake_state":1,"topics":{"uptake.catalog.v1":1,"uptake.metadata.v1":1,"uptake.known-ids.v1":1,"uptake.alert-state.v1":1,"uptake.enricher-state.v1":2}}`+
		`{"t":"uptake.metadata.v1","p":0,"k":"c2hvcA==","v":"c3RyaW5n","at":1700000000000}{"end":{"uptake.metadata.v1":1}}`)
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	to := cluster(t, 2)
	if _, _, err := Read(t.Context(), to, topic.Unprefixed, bytes.NewReader(file.Bytes()), nil); err != nil {
		t.Fatal(err)
	}
	if got := held(t, to, topic.Unprefixed, 2); len(got) != 1 || !strings.Contains(got[0], `uptake.metadata.v1/0 "shop" "string"`) {
		t.Errorf("got %q", got)
	}
}
