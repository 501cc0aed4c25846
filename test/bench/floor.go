package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/valyala/fasthttp"
)

// floorEnv marks a child that runs a floor; its value is a floorJob as JSON.
const floorEnv = "UPTAKE_BENCH_FLOOR"

// floorJob tells a child which floor to run and on what.
type floorJob struct {
	Kind        string // http, produce, copy or insert
	Addr        string // http: where to listen; insert: of ClickHouse
	Brokers     []string
	Topic       string // produce: to; copy and insert: from
	To          string // copy: to
	Partitions  int32
	Requests    int // produce
	Events      int // produce: per request; copy and insert: in all
	Connections int
	Bytes       int // produce: of a value
	Database    string
	BlockRows   int
}

// floorResult is what a child prints.
type floorResult struct {
	Events int
	CPU    time.Duration
	Wall   time.Duration
}

// FloorMain runs a floor if this process was started for one, and then does not
// return. Call it first in main.
func FloorMain() {
	text := os.Getenv(floorEnv)
	if text == "" {
		return
	}
	var job floorJob
	err := json.Unmarshal([]byte(text), &job)
	if err == nil {
		err = job.run(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (j floorJob) run(out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var work func() (int, error)
	var err error
	switch j.Kind {
	case "http":
		return discardServer(j.Addr)
	case "produce":
		work, err = j.produce(ctx)
	case "copy":
		work, err = j.copy(ctx)
	case "insert":
		work, err = j.insert(ctx)
	default:
		err = fmt.Errorf("unknown floor %q", j.Kind)
	}
	if err != nil {
		return err
	}
	cpu, start := selfCPU(), time.Now()
	n, err := work()
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(floorResult{Events: n, CPU: selfCPU() - cpu, Wall: time.Since(start)})
}

func selfCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// discardServer answers every request without looking at it.
func discardServer(addr string) error {
	server := &fasthttp.Server{
		MaxRequestBodySize: 64 << 20,
		Handler: func(ctx *fasthttp.RequestCtx) {
			ctx.SetContentType("application/json")
			ctx.SetBodyString(`{"success":true}`)
		},
	}
	return server.ListenAndServe(addr) // until it is killed
}

func (j floorJob) client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(j.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.ProducerLinger(2 * time.Millisecond),
		kgo.ProducerBatchMaxBytes(4 << 20), kgo.MaxBufferedRecords(200_000),
	}, opts...)...)
}

// produce sends the requests' events as records of the given size and waits for
// the acks of each request, as many at a time as there are connections.
func (j floorJob) produce(ctx context.Context) (func() (int, error), error) {
	cl, err := j.client()
	if err != nil {
		return nil, err
	}
	if err := cl.Ping(ctx); err != nil {
		return nil, err
	}
	// As compressible as an event.
	value := []byte(strings.Repeat(eventHead+eventTail, 1+j.Bytes/len(eventTail)))[:j.Bytes]
	return func() (int, error) {
		var left atomic.Int64
		left.Store(int64(j.Requests))
		errs := make([]error, j.Connections)
		var wg sync.WaitGroup
		for c := range j.Connections {
			wg.Go(func() {
				for n := left.Add(-1); n >= 0; n = left.Add(-1) {
					var acked sync.WaitGroup
					acked.Add(j.Events)
					records := make([]kgo.Record, j.Events)
					for i := range records {
						records[i] = kgo.Record{Topic: j.Topic, Partition: int32((int(n) + i) % int(j.Partitions)), Value: value}
						cl.Produce(ctx, &records[i], func(_ *kgo.Record, err error) {
							if err != nil {
								errs[c] = err
							}
							acked.Done()
						})
					}
					acked.Wait()
				}
			})
		}
		wg.Wait()
		return j.Requests * j.Events, errors.Join(errs...)
	}, nil
}

// each consumes j.Events records of the topic.
func (j floorJob) each(ctx context.Context, cl *kgo.Client, fn func(*kgo.Record)) error {
	for n := 0; n < j.Events; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) { n++; fn(r) })
	}
	return nil
}

func (j floorJob) consumer() []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumeTopics(j.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxBytes(16 << 20), kgo.FetchMaxPartitionBytes(16 << 20),
	}
}

// copy consumes the topic and produces the same values to another.
func (j floorJob) copy(ctx context.Context) (func() (int, error), error) {
	cl, err := j.client(j.consumer()...)
	if err != nil {
		return nil, err
	}
	return func() (int, error) {
		var failed atomic.Pointer[error]
		err := j.each(ctx, cl, func(r *kgo.Record) {
			cl.Produce(ctx, &kgo.Record{Topic: j.To, Partition: r.Partition, Value: r.Value}, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.Store(&err)
				}
			})
		})
		if err != nil {
			return 0, err
		}
		if err := cl.Flush(ctx); err != nil {
			return 0, err
		}
		if err := failed.Load(); err != nil {
			return 0, *err
		}
		return j.Events, nil
	}, nil
}

// insert consumes the topic, and for each block of records inserts a block of as
// many rows, built beforehand, into a table that discards them.
func (j floorJob) insert(ctx context.Context) (func() (int, error), error) {
	cl, err := j.client(j.consumer()...)
	if err != nil {
		return nil, err
	}
	conn, err := ch.Dial(ctx, ch.Options{Address: j.Addr, Database: j.Database})
	if err != nil {
		return nil, err
	}
	var block proto.Results
	err = conn.Do(ctx, ch.Query{
		Body:     fmt.Sprintf("SELECT * FROM uptake_internal.bench_sample LIMIT %d", j.BlockRows),
		Result:   block.Auto(),
		Settings: []ch.Setting{{Key: "max_block_size", Value: fmt.Sprint(j.BlockRows), Important: true}, {Key: "output_format_native_write_json_as_string", Value: "1", Important: true}},
	})
	if err != nil {
		return nil, fmt.Errorf("read a block of rows: %w", err)
	}
	var input proto.Input
	for _, c := range block {
		data, ok := c.Data.(proto.ColInput)
		if auto, isAuto := c.Data.(*proto.ColAuto); isAuto {
			data, ok = auto.Data.(proto.ColInput)
		}
		if !ok {
			return nil, fmt.Errorf("column %s is %T, which cannot be inserted", c.Name, c.Data)
		}
		input = append(input, proto.InputColumn{Name: c.Name, Data: data})
	}
	rows := block.Rows()
	if rows == 0 {
		return nil, errors.New("bench_sample is empty")
	}
	return func() (int, error) {
		pending := 0
		flush := func() error {
			pending -= rows
			return conn.Do(ctx, ch.Query{Body: input.Into("uptake_internal.bench_null"), Input: input})
		}
		var failed error
		err := j.each(ctx, cl, func(*kgo.Record) {
			if pending++; pending >= rows && failed == nil {
				failed = flush()
			}
		})
		return j.Events, errors.Join(err, failed)
	}, nil
}

// floor runs a job in a child and returns what it printed.
func (r *runner) floor(ctx context.Context, job floorJob) (Sample, error) {
	dir, err := r.dir("floor-" + job.Kind)
	if err != nil {
		return Sample{}, err
	}
	p, err := startFloor(dir, job)
	if err != nil {
		return Sample{}, err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.kill()
		return Sample{}, ctx.Err()
	}
	text, err := os.ReadFile(p.log)
	if err != nil {
		return Sample{}, err
	}
	if p.err != nil {
		return Sample{}, fmt.Errorf("floor %s: %w: %s", job.Kind, p.err, text)
	}
	var result floorResult
	if err := json.Unmarshal(text, &result); err != nil {
		return Sample{}, fmt.Errorf("floor %s printed %q: %w", job.Kind, text, err)
	}
	return Sample{Events: result.Events, CPU: result.CPU, Wall: result.Wall}, nil
}

func startFloor(dir string, job floorJob) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	return startProcess("floor-"+job.Kind, dir, []string{floorEnv + "=" + string(text)}, filepath.Clean(self))
}
