package locallog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// StampAppendTime makes cluster do what a broker does on topics with
// message.timestamp.type=LogAppendTime: every record gets the time at which it
// is appended, and within a partition that time never runs backwards.
//
// kfake keeps that setting and ignores it. It does look at the batch attribute
// that says "append time", which no producer sets, but then changes the
// timestamps without the checksum, so that the batch cannot be read any more.
// So the batches are rewritten before kfake sees them, with the attribute left
// as it was: to consumers the timestamps are right, only their type still says
// "create time".
func StampAppendTime(cluster *kfake.Cluster) {
	s := &stamper{cluster: cluster, last: map[partition]int64{}, decompressor: kgo.DefaultDecompressor(), compressors: map[kgo.CompressionCodecType]kgo.Compressor{}}
	cluster.ControlKey(int16(kmsg.Produce), s.produce)
}

// ListAborted makes cluster name the aborted transactions of everything that it
// returns to a reader of committed records. Where a fetch is full by the bound of the
// whole request, kfake leaves the list out for the partition at which it stops, and
// the reader takes aborted records as committed; by the bound of one partition it does
// not. So that one is left to bound a fetch, as this log has one broker and few
// partitions.
func ListAborted(cluster *kfake.Cluster) {
	cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) { //nolint:revive // kfake's order
		if fetch, ok := req.(*kmsg.FetchRequest); ok {
			fetch.MaxBytes = math.MaxInt32
		}
		return nil, nil, false
	})
}

type partition struct {
	topic string
	index int32
}

// stamper's fields belong to kfake's control functions, which run one at a time.
type stamper struct {
	cluster      *kfake.Cluster
	last         map[partition]int64 // newest append time in ms
	decompressor kgo.Decompressor
	compressors  map[kgo.CompressionCodecType]kgo.Compressor
}

func (s *stamper) produce(req kmsg.Request) (kmsg.Response, error, bool) { //nolint:revive // kfake's order
	produce, ok := req.(*kmsg.ProduceRequest)
	if !ok {
		return nil, nil, false
	}
	for i := range produce.Topics {
		t := &produce.Topics[i]
		name, appendTime := s.lookup(t)
		if !appendTime {
			continue
		}
		for j := range t.Partitions {
			p := &t.Partitions[j]
			key := partition{name, p.Partition}
			now := max(time.Now().UnixMilli(), s.last[key])
			batch, err := s.stamp(p.Records, now)
			if err != nil {
				continue // kfake finds the same fault and answers with its code
			}
			s.last[key] = now
			p.Records = batch
		}
	}
	return nil, nil, false
}

func (s *stamper) lookup(t *kmsg.ProduceRequestTopic) (name string, appendTime bool) {
	var info *kfake.TopicInfo
	if t.Topic != "" {
		info = s.cluster.TopicInfo(t.Topic)
	} else {
		info = s.cluster.TopicIDInfo(t.TopicID)
	}
	if info == nil {
		return "", false
	}
	v := info.Configs["message.timestamp.type"]
	return info.Topic, v != nil && *v == "LogAppendTime"
}

const (
	crcAt   = 17 // of the checksum in a record batch
	crcFrom = 21 // of the first byte that it covers
	codecs  = 0x0007
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp returns a copy of a record batch in which every record has the
// timestamp now.
func (s *stamper) stamp(raw []byte, now int64) ([]byte, error) {
	var batch kmsg.RecordBatch
	if err := batch.ReadFrom(raw); err != nil {
		return nil, fmt.Errorf("read batch: %w", err)
	}
	if got := crc32.Checksum(raw[crcFrom:], castagnoli); batch.Magic != 2 || got != uint32(batch.CRC) {
		return nil, errors.New("read batch: wrong format or checksum")
	}
	codec := kgo.CompressionCodecType(batch.Attributes & codecs)
	records, err := s.decompressor.Decompress(batch.Records, codec)
	if err != nil {
		return nil, fmt.Errorf("decompress batch: %w", err)
	}
	records, err = withoutDeltas(records, int(batch.NumRecords))
	if err != nil {
		return nil, err
	}
	if batch.Records, err = s.compress(records, codec); err != nil {
		return nil, err
	}
	batch.FirstTimestamp, batch.MaxTimestamp = now, now
	batch.Length = 0
	out := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	binary.BigEndian.PutUint32(out[crcAt:], crc32.Checksum(out[crcFrom:], castagnoli))
	return out, nil
}

// withoutDeltas rewrites n records so that each has the batch's first
// timestamp. A record is: its length, one byte of attributes, its timestamp's
// distance from the first, and the rest.
func withoutDeltas(records []byte, n int) ([]byte, error) {
	out := make([]byte, 0, len(records))
	for range n {
		length, width := binary.Varint(records)
		if width <= 0 || length < 2 || int64(len(records)-width) < length {
			return nil, errors.New("read record: wrong length")
		}
		body := records[width : int64(width)+length]
		records = records[int64(width)+length:]
		_, delta := binary.Varint(body[1:])
		if delta <= 0 {
			return nil, errors.New("read record: wrong timestamp")
		}
		rest := body[1+delta:]
		out = binary.AppendVarint(out, int64(2+len(rest)))
		out = append(out, body[0], 0)
		out = append(out, rest...)
	}
	if len(records) != 0 {
		return nil, errors.New("read batch: more than its records")
	}
	return out, nil
}

// compress packs records as they came. A compressor is kept for each codec.
func (s *stamper) compress(records []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecNone {
		return records, nil
	}
	c, ok := s.compressors[codec]
	if !ok {
		kind, known := map[kgo.CompressionCodecType]kgo.CompressionCodec{
			kgo.CodecGzip: kgo.GzipCompression(), kgo.CodecSnappy: kgo.SnappyCompression(),
			kgo.CodecLz4: kgo.Lz4Compression(), kgo.CodecZstd: kgo.ZstdCompression(),
		}[codec]
		if !known {
			return nil, fmt.Errorf("compress batch: no codec %d", codec)
		}
		var err error
		if c, err = kgo.DefaultCompressor(kind); err != nil {
			return nil, fmt.Errorf("compress batch: %w", err)
		}
		s.compressors[codec] = c
	}
	out, used := c.Compress(new(bytes.Buffer), records)
	if used != codec {
		return nil, fmt.Errorf("compress batch: got codec %d, want %d", used, codec)
	}
	return out, nil
}
