package locallog_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic/locallog"
)

// holderEnv turns the test binary into a program that runs a log in the named
// directory until it is killed.
const holderEnv = "UPTAKE_TEST_HOLD_LOG"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holderEnv); dir != "" {
		l, err := locallog.Start(locallog.Config{Addr: "127.0.0.1:0", DataDir: dir})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(l.Addr())
		select {}
	}
	os.Exit(m.Run())
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, cfg locallog.Config) *locallog.Log {
	t.Helper()
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	l, err := locallog.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func create(t *testing.T, addr, topic string, configs ...string) {
	t.Helper()
	m := map[string]*string{}
	for i := 0; i < len(configs); i += 2 {
		m[configs[i]] = &configs[i+1]
	}
	if _, err := kadm.NewClient(client(t, addr)).CreateTopic(within(t), 1, 1, m, topic); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, addr, topic string, n int) (records []*kgo.Record) {
	t.Helper()
	cl := client(t, addr, kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	for len(records) < n {
		fs := cl.PollFetches(within(t))
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		records = append(records, fs.Records()...)
	}
	return records
}

// Whatever the codec and whatever clients claim, records of a topic with append
// time carry the broker's, the rest of them is untouched, and other topics keep
// what the client said.
func TestStamps(t *testing.T) {
	l := start(t, locallog.Config{})
	create(t, l.Addr(), "append", "message.timestamp.type", "LogAppendTime")
	create(t, l.Addr(), "create")
	begin := time.Now().Truncate(time.Millisecond)
	claimed := time.UnixMilli(1_234_567_890_123)
	var want []string
	for codec, opt := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		cl := client(t, l.Addr(), kgo.ProducerBatchCompression(opt), kgo.ProducerLinger(20*time.Millisecond))
		var records []*kgo.Record
		for i := range 20 { // one batch, its timestamps going up and down
			r := &kgo.Record{
				Topic: "append", Key: fmt.Appendf(nil, "%s-%d", codec, i), Value: []byte(strings.Repeat(codec, i)),
				Headers:   []kgo.RecordHeader{{Key: "h", Value: []byte{byte(i)}}},
				Timestamp: claimed.Add(time.Duration(i%3*i) * time.Hour),
			}
			records = append(records, r)
			want = append(want, fmt.Sprintf("%s=%s h%d", r.Key, r.Value, i))
		}
		if err := cl.ProduceSync(within(t), records...).FirstErr(); err != nil {
			t.Fatalf("produce with %s: %v", codec, err)
		}
	}
	records := read(t, l.Addr(), "append", len(want))
	var got []string
	for i, r := range records {
		got = append(got, fmt.Sprintf("%s=%s h%d", r.Key, r.Value, r.Headers[0].Value[0]))
		if r.Timestamp.Before(begin) || r.Timestamp.After(time.Now()) {
			t.Errorf("record %s: got timestamp %v, want the broker's", r.Key, r.Timestamp)
		}
		if i > 0 && r.Timestamp.Before(records[i-1].Timestamp) {
			t.Errorf("time runs backwards at offset %d", r.Offset)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v,\nwant %v", got, want)
	}

	cl := client(t, l.Addr())
	if err := cl.ProduceSync(within(t), &kgo.Record{Topic: "create", Timestamp: claimed}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, l.Addr(), "create", 1)[0].Timestamp; !got.Equal(claimed) {
		t.Errorf("topic with create time: got %v, want %v", got, claimed)
	}
}

// A reader of committed records gets no aborted ones, also where its fetches are full:
// by the bound of a request as by that of a partition.
func TestFullFetchesLeaveOutAbortedTransactions(t *testing.T) {
	l := start(t, locallog.Config{})
	create(t, l.Addr(), "log")
	for i, how := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		p := client(t, l.Addr(), kgo.TransactionalID("p"))
		if err := p.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for n := range 5 {
			r := &kgo.Record{Topic: "log", Value: fmt.Appendf(nil, "%d-%d %s", i, n, strings.Repeat("x", 300))}
			if err := p.ProduceSync(within(t), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.EndTransaction(within(t), how); err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
	const want = "[0-0 0-1 0-2 0-3 0-4 2-0 2-1 2-2 2-3 2-4 4-0 4-1 4-2 4-3 4-4]"
	for _, bounds := range [][2]int32{{700, 700}, {2500, 2500}, {2500, 1 << 20}, {1 << 20, 2500}} {
		c := client(t, l.Addr(), kgo.ConsumeTopics("log"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.FetchMaxBytes(bounds[0]), kgo.FetchMaxPartitionBytes(bounds[1]))
		var got []string
		for ctx := within(t); len(got) < 15 || got[len(got)-1] != "4-4"; {
			fetches := c.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				t.Fatalf("bounds %v: got %v: %v", bounds, got, err)
			}
			fetches.EachRecord(func(r *kgo.Record) { got = append(got, strings.Fields(string(r.Value))[0]) })
		}
		if fmt.Sprint(got) != want {
			t.Errorf("bounds %v: got %v, want %s", bounds, got, want)
		}
	}
}

// What was acked, committed and decided is there after SIGKILL, under the same
// topic ids and offsets.
func TestSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	run := func() (addr string, kill func()) {
		t.Helper()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), holderEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
		t.Cleanup(kill)
		line, err := bufio.NewReader(out).ReadString('\n')
		addr = strings.TrimSpace(line)
		if _, _, splitErr := net.SplitHostPort(addr); splitErr != nil {
			t.Fatalf("start: %q, %v", line, err)
		}
		return addr, kill
	}
	id := func(addr string) kadm.TopicID {
		t.Helper()
		topics, err := kadm.NewClient(client(t, addr)).ListTopics(within(t), "t")
		if err != nil {
			t.Fatal(err)
		}
		return topics["t"].ID
	}

	addr, kill := run()
	create(t, addr, "t", "message.timestamp.type", "LogAppendTime")
	first := id(addr)
	txn := client(t, addr, kgo.TransactionalID("x"))
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := txn.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := txn.ProduceSync(within(t), kgo.SliceRecord(fmt.Append(nil, end))).FirstErr(); err == nil {
			t.Fatal("a record without a topic was produced")
		}
		if err := txn.ProduceSync(within(t), &kgo.Record{Topic: "t", Value: fmt.Append(nil, "commit ", end)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := txn.EndTransaction(within(t), end); err != nil {
			t.Fatal(err)
		}
	}
	if err := client(t, addr).ProduceSync(within(t), &kgo.Record{Topic: "t", Value: []byte("plain")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	stamp := read(t, addr, "t", 2)[1].Timestamp
	var commit kadm.Offsets
	commit.Add(kadm.Offset{Topic: "t", At: 3, LeaderEpoch: -1, Metadata: "m"})
	if err := kadm.NewClient(client(t, addr)).CommitAllOffsets(within(t), "g", commit); err != nil {
		t.Fatal(err)
	}
	kill()

	addr, _ = run()
	if got := id(addr); got != first {
		t.Errorf("topic id after the kill: got %v, want %v", got, first)
	}
	records := read(t, addr, "t", 2)
	var got []string
	for _, r := range records {
		got = append(got, string(r.Value))
	}
	if want := []string{"commit true", "plain"}; !slices.Equal(got, want) {
		t.Errorf("committed records after the kill: got %v, want %v", got, want)
	}
	if got := records[1].Timestamp; !got.Equal(stamp) {
		t.Errorf("append time after the kill: got %v, want %v", got, stamp)
	}
	adm := kadm.NewClient(client(t, addr))
	offsets, err := adm.FetchOffsets(within(t), "g")
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := offsets.Lookup("t", 0); !ok || o.At != 3 || o.Metadata != "m" {
		t.Errorf("committed offset after the kill: got %v, %+v", ok, o.Offset)
	}
	configs, err := adm.DescribeTopicConfigs(within(t), "t")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(configs[0].Configs, func(c kadm.Config) bool { return c.Key == "message.timestamp.type" })
	if i < 0 || configs[0].Configs[i].MaybeValue() != "LogAppendTime" {
		t.Errorf("topic settings after the kill: got %+v", configs[0].Configs)
	}
	// The producer's id goes on where it was.
	txn = client(t, addr, kgo.TransactionalID("x"))
	if err := txn.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := txn.ProduceSync(within(t), &kgo.Record{Topic: "t", Value: []byte("next")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := txn.EndTransaction(within(t), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
}

func TestAddr(t *testing.T) {
	for _, addr := range []string{"nowhere", ":9092", "0.0.0.0:9092", "[::]:9092"} {
		if _, err := locallog.Start(locallog.Config{Addr: addr}); err == nil || !strings.Contains(err.Error(), "Addr") {
			t.Errorf("%s: got %v, want an error that names Addr", addr, err)
		}
	}
	one := start(t, locallog.Config{})
	_, err := locallog.Start(locallog.Config{Addr: one.Addr()})
	var inUse *locallog.AddrInUseError
	if !errors.As(err, &inUse) || inUse.Addr != one.Addr() {
		t.Errorf("an address in use: got %v", err)
	}
}
