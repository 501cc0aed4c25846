// Package statefile writes the compacted topics to a file and reads them back: identity
// state with who was erased, catalogs, types of metadata keys, known ids, what alerts go on
// from, and notes. It is what a lost Kafka cannot have back from anywhere else.
//
// A file is JSON, gzipped: a Header, a Record per line, and an End. It holds personal data.
package statefile

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// Topics are those that a file has, in its order. Catalogs and types come before the state
// that was made with them. A file names them without the prefix, so that an installation
// with another one can read it.
func Topics(names *topic.Names) []string {
	return []string{names.Catalog, names.Metadata, names.KnownIDs, names.AlertState, names.Notes, names.EnricherState}
}

const version = 1

// Header begins a file.
type Header struct {
	Version  int              `json:"uptake_state"`
	MadeAt   time.Time        `json:"made_at"`
	Topics   map[string]int32 `json:"topics"` // partitions
	Personal string           `json:"personal_data"`
}

// Record is a record of a topic.
type Record struct {
	Topic     string         `json:"t"`
	Partition int32          `json:"p"`
	Key       []byte         `json:"k"`
	Value     []byte         `json:"v"` // null: the key is deleted
	Time      int64          `json:"at"`
	Headers   []RecordHeader `json:"h,omitempty"`
}

// RecordHeader is a header of a record.
type RecordHeader struct {
	Key   string `json:"k"`
	Value []byte `json:"v"`
}

// End is the last line: a file without it was cut short.
type End struct {
	Records map[string]int64 `json:"end"` // by topic
}

// line is any line but the first.
type line struct {
	Record
	End map[string]int64 `json:"end"`
}

// Write writes what the topics hold now. Enrichers may run: each partition is of one moment
// after Write was called.
func Write(ctx context.Context, client *kgo.Client, names *topic.Names, w io.Writer) (*End, error) {
	infos, err := names.Check(ctx, kadm.NewClient(client), Topics(names)...)
	if err != nil {
		return nil, err
	}
	head := Header{
		Version: version, MadeAt: time.Now().UTC().Truncate(time.Second), Topics: map[string]int32{},
		Personal: "This file holds personal data: ids, links and memberships of people. Keep and delete it as you do the database.",
	}
	for _, name := range Topics(names) {
		head.Topics[names.Base(name)] = infos[name].Partitions
	}
	zip := gzip.NewWriter(w)
	out := json.NewEncoder(zip)
	if err := out.Encode(head); err != nil {
		return nil, fmt.Errorf("write state: %w", err)
	}
	end := &End{map[string]int64{}}
	in := reader.On(client)
	in.FetchBytes = 8 << 20 // one partition after the other
	for _, name := range Topics(names) {
		for p := range infos[name].Partitions {
			err := in.All(ctx, name, p, func(r *kgo.Record) error {
				rec := Record{Topic: names.Base(name), Partition: p, Key: r.Key, Value: r.Value, Time: r.Timestamp.UnixMilli()}
				for _, h := range r.Headers {
					rec.Headers = append(rec.Headers, RecordHeader{h.Key, h.Value})
				}
				end.Records[names.Base(name)]++
				return out.Encode(rec)
			})
			if err != nil {
				return nil, fmt.Errorf("write %s/%d: %w", name, p, err)
			}
		}
	}
	if err := errors.Join(out.Encode(end), zip.Close()); err != nil {
		return nil, fmt.Errorf("write state: %w", err)
	}
	return end, nil
}

// batch bounds the records that are produced before their acks are awaited.
const batch = 5000

// Read puts what a file holds into the topics, which must be empty and have the partitions
// of the file, while no enricher runs. The file is read twice: nothing is produced of one
// that is damaged or was cut short. client's producer must leave the partition to the
// record, with acks of all replicas. only names the topics to be read; the others are left
// as they are. Nil is all.
func Read(ctx context.Context, client *kgo.Client, names *topic.Names, file io.ReadSeeker, only []string) (*Header, *End, error) {
	all := Topics(names)
	if len(only) == 0 {
		only = all
	}
	for _, name := range only {
		if !slices.Contains(all, name) {
			return nil, nil, fmt.Errorf("topics must be of %s (got %q)", strings.Join(all, ", "), name)
		}
	}
	head, end, err := scan(names, file, func(*Record) error { return nil })
	if err != nil {
		return nil, nil, err
	}
	if err := mayRead(ctx, client, names, head, only); err != nil {
		return nil, nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, nil, fmt.Errorf("read state: %w", err)
	}
	var pending []*kgo.Record
	flush := func() error {
		if err := client.ProduceSync(ctx, pending...).FirstErr(); err != nil {
			return fmt.Errorf("write records: %w; delete the topics %v and make them anew before another try", err, only)
		}
		pending = pending[:0]
		return nil
	}
	_, _, err = scan(names, file, func(r *Record) error {
		if !slices.Contains(only, names.Prefix+r.Topic) {
			return nil
		}
		rec := &kgo.Record{Topic: names.Prefix + r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Time)}
		for _, h := range r.Headers {
			rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		if pending = append(pending, rec); len(pending) < batch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return nil, nil, err
	}
	maps.DeleteFunc(end.Records, func(name string, _ int64) bool { return !slices.Contains(only, names.Prefix+name) })
	return head, end, nil
}

// mayRead refuses where records are, or where enrichers run.
func mayRead(ctx context.Context, client *kgo.Client, names *topic.Names, head *Header, only []string) error {
	admin := kadm.NewClient(client)
	infos, err := names.Check(ctx, admin, only...)
	if err != nil {
		return err
	}
	n, err := topic.Members(ctx, admin, names.GroupEnricher)
	if err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("group %s has %d running enrichers: stop them first", names.GroupEnricher, n)
	}
	ends, err := admin.ListEndOffsets(ctx, only...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("ends of the topics: %w", err)
	}
	var errs []error
	for _, name := range only {
		// A file of an earlier release lacks topics that were added since.
		if want, ok := head.Topics[names.Base(name)]; ok && infos[name].Partitions != want {
			errs = append(errs, fmt.Errorf("topic %s has %d partitions, and had %d when the file was made: make it with as many", name, infos[name].Partitions, want))
		}
	}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			errs = append(errs, fmt.Errorf("%s/%d has records: state is imported into empty topics only; -topics names those that were lost, where not all were", o.Topic, o.Partition))
		}
	})
	return errors.Join(errs...)
}

// scan calls fn with each record of a file, and returns an error if the file is not whole.
func scan(names *topic.Names, file io.Reader, fn func(*Record) error) (*Header, *End, error) {
	zip, err := gzip.NewReader(bufio.NewReaderSize(file, 1<<20))
	if err != nil {
		return nil, nil, fmt.Errorf("this is no file of `enricher state export`: %w", err)
	}
	in := json.NewDecoder(zip)
	var head Header
	if err := in.Decode(&head); err != nil || head.Version != version {
		return nil, nil, fmt.Errorf("this is no file of `enricher state export` of version %d: %w", version, errors.Join(err, errors.ErrUnsupported))
	}
	known := map[string]bool{}
	for _, name := range Topics(names) {
		known[names.Base(name)] = true
	}
	counted := map[string]int64{}
	for {
		var l line
		if err := in.Decode(&l); err != nil {
			return nil, nil, fmt.Errorf("the file was cut short, or is damaged: %w", err)
		}
		if l.End != nil {
			for _, name := range Topics(names) {
				name = names.Base(name)
				if counted[name] != l.End[name] {
					return nil, nil, fmt.Errorf("the file has %d records of %s, and its end says %d", counted[name], name, l.End[name])
				}
			}
			// The checksum of gzip comes after the last byte.
			if _, err := io.Copy(io.Discard, io.MultiReader(in.Buffered(), zip)); err != nil {
				return nil, nil, fmt.Errorf("the file is damaged: %w", err)
			}
			return &head, &End{l.End}, nil
		}
		if !known[l.Topic] || l.Partition < 0 || l.Partition >= head.Topics[l.Topic] {
			return nil, nil, fmt.Errorf("the file has a record of %s/%d, which it does not announce", l.Topic, l.Partition)
		}
		counted[l.Topic]++
		if err := fn(&l.Record); err != nil {
			return nil, nil, err
		}
	}
}
