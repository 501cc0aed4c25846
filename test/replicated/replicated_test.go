// Package replicated holds the cluster form of the tables: on Replicated engines
// nothing is lost and nothing is doubled, whenever ClickHouse or its Keeper dies.
// Package harness/replicated says how an embedded ClickHouse is brought to it.
package replicated

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/svc/systemcall"
	"github.com/uptakehq/uptake/test/harness/jvm"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/proxy"
	"github.com/uptakehq/uptake/test/harness/replicated"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/harness/zookeeper"
	"github.com/uptakehq/uptake/test/loadgen"
)

func TestMain(m *testing.M) {
	replicated.ChildMain()
	embedded.ChildMain()
	code := m.Run()
	if err := errors.Join(installation.close(), stack.Cleanup()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// env is an installation whose tables are replicated. ClickHouse talks to its
// Keeper through a proxy.
type env struct {
	dir    string
	keeper *zookeeper.Server
	path   *proxy.Proxy // between ClickHouse and keeper
	nodes  *replicated.Listing
	log    *kafka.Fake
	stack  *stack.Stack

	oracle *loadgen.Oracle
	plans  uint64
}

// long has the tests kill at more places: make test takes the first of them.
var long = longtest.Enabled()

// installation is the one that all tests use. It is started by the first.
var installation env

var start = sync.OnceValue(func() error { return installation.start() })

func forTest(t *testing.T) *env {
	t.Helper()
	if testing.Short() {
		t.Skip("starts the services, ClickHouse and ZooKeeper; not under -short")
	}
	err := start()
	if errors.Is(err, jvm.ErrMissing) && os.Getenv(zookeeper.RequireEnv) != "1" {
		t.Skipf("SKIPPED, not run on replicated tables: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(installation.stack.Tails(40))
		}
	})
	return &installation
}

func (e *env) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute) // it may have to fetch and build
	defer cancel()
	var err error
	if e.dir, err = os.MkdirTemp("", "uptake-replicated-"); err != nil {
		return err
	}
	zoo := filepath.Join(e.dir, "zookeeper")
	if err := os.Mkdir(zoo, 0o755); err != nil {
		return err
	}
	if e.keeper, err = zookeeper.Start(ctx, zoo); err != nil {
		return err
	}
	if e.path, err = proxy.Listen(e.keeper.Addr()); err != nil {
		return err
	}
	if e.nodes, err = replicated.List(e.keeper.Addr()); err != nil {
		return err
	}
	if e.log, err = kafka.StartFake(kfake.GroupMinSessionTimeout(500 * time.Millisecond)); err != nil {
		return err
	}
	e.oracle = loadgen.NewOracle(stack.App, loadgen.Resolved)
	e.stack, err = stack.Start(ctx, stack.Config{
		Dir: e.dir, Log: e.log, Keeper: e.path.Addr(), KeeperNodes: e.nodes, Writers: 2,
		Args: map[string][]string{stack.Writer: {
			"-session-timeout", "2s", "-rebalance-timeout", "3s", "-revoke-wait", "1s",
			"-retry-max", "500ms", "-halt-retry", "1s", "-block-interval", "500ms", "-clickhouse-silence", "5s",
		}},
	})
	return err
}

func (e *env) close() error {
	var errs []error
	if e.stack != nil {
		errs = append(errs, e.stack.Close())
	}
	if e.log != nil {
		errs = append(errs, e.log.Close())
	}
	if e.path != nil {
		e.path.Close()
	}
	if e.nodes != nil {
		errs = append(errs, e.nodes.Close())
	}
	if e.keeper != nil {
		errs = append(errs, e.keeper.Close())
	}
	if e.dir != "" {
		errs = append(errs, os.RemoveAll(e.dir))
	}
	return errors.Join(errs...)
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// plan is of about n events, some of which come twice, some of which are bad.
func (e *env) plan(n int) (*loadgen.Plan, error) {
	e.plans++
	c := loadgen.DefaultConfig(time.Now())
	c.Seed, c.IDPrefix, c.Events, c.Accounts, c.BatchMax = e.plans, fmt.Sprintf("r%d-", e.plans), n, 2, 20
	c.Resend, c.Repeat, c.Bad = 0.1, 0.05, 0.05
	return loadgen.New(c)
}

// sendPlan sends requests [from, to) of a plan and returns when all are acked.
func (e *env) sendPlan(ctx context.Context, p *loadgen.Plan, l *loadgen.Ledger, from, to int) error {
	s := loadgen.Sender{URLs: e.stack.URLs(), WriteKey: stack.WriteKeyOf(stack.App), MaxBackoff: 200 * time.Millisecond}
	return s.Run(ctx, p, l, from, to)
}

// send sends about n events. Whatever of them does not show is lost.
func (e *env) send(ctx context.Context, n int) error {
	p, err := e.plan(n)
	if err != nil {
		return err
	}
	ledger := loadgen.NewLedger()
	if err := e.sendPlan(ctx, p, ledger, 0, len(p.Requests)); err != nil {
		return err
	}
	e.oracle.Add(p, ledger)
	return nil
}

func (e *env) mustSend(t *testing.T, n int) {
	t.Helper()
	if err := e.send(within(t, time.Minute), n); err != nil {
		t.Fatal(err)
	}
}

// equal waits until every table holds what was acked, and nothing else.
func (e *env) equal(t *testing.T) {
	t.Helper()
	d, err := loadgen.AwaitEqual(within(t, 90*time.Second), e.stack.Conn, stack.Database, e.oracle)
	if err != nil {
		t.Fatal(err)
	}
	if !d.Equal() {
		t.Fatalf("ClickHouse does not hold what was acked:\n%s", d)
	}
}

// audited has rollup-writer compare all tables and account for every event.
func (e *env) audited(t *testing.T) {
	t.Helper()
	ctx := within(t, time.Minute)
	if err := stack.Await(ctx, "audit to find everything where it belongs", func() error {
		out, err := e.stack.Run(ctx, stack.Writer, "audit", "-json", "-settle-wait", "200ms")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		var report struct {
			Equal        bool
			Conservation struct{ Balanced bool }
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			return err
		}
		if !report.Equal || !report.Conservation.Balanced {
			return fmt.Errorf("audit: %s", out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// number runs a query that gives one number.
func (e *env) number(t *testing.T, query string) int {
	t.Helper()
	var n uint64
	if err := e.stack.Conn.QueryRow(within(t, 30*time.Second), "SELECT toUInt64(("+query+"))").Scan(&n); err != nil {
		t.Fatalf("%v in %s", err, query)
	}
	return int(n)
}

// The tables are those of the cluster form, all of them replicated, and a load
// through the services that ship gives what it should.
func TestClusterForm(t *testing.T) {
	e := forTest(t)
	const local = "FROM system.tables WHERE database IN ('" + stack.Database + "', '" + stack.Internal + "') AND engine LIKE '%MergeTree'"
	if n := e.number(t, "SELECT count() "+local+" AND engine NOT LIKE 'Replicated%'"); n > 0 {
		t.Errorf("%d tables are not replicated", n)
	}
	if n, replicas := e.number(t, "SELECT count() "+local), e.number(t, "SELECT count() FROM system.replicas WHERE NOT is_readonly"); n == 0 || n != replicas {
		t.Errorf("%d of %d tables can be written", replicas, n)
	}
	e.mustSend(t, 200)
	e.equal(t)
	e.audited(t)
}

var month = regexp.MustCompile(`^\d{6}$`)

// The same kills lose a part of a table that is not replicated, every time: see
// TestAPartThatIsLostBeforeItsRename of rollup-writer. Here the Keeper does not
// know of a part before it is there, so that the writer's repeat makes it.
func TestKilledBeforeARename(t *testing.T) {
	systemcall.Need(t)
	e := forTest(t)
	e.mustSend(t, 200) // every table has its months by then
	e.equal(t)
	for i, table := range []string{
		"events", "usage_hourly", "user_feature_daily", "audit_blocks",
		"account_feature_daily", "account_module_daily", "account_product_daily", "rejected_events", "identity_facts",
	} {
		if i >= 4 && !long {
			break
		}
		t.Run(table, func(t *testing.T) {
			ctx := within(t, 2*time.Minute)
			var data string
			var ids []string
			if err := e.stack.Conn.QueryRow(ctx, `SELECT t.data_paths[1], groupUniqArray(p.partition_id) FROM system.parts AS p
				INNER JOIN system.tables AS t ON t.database = p.database AND t.name = p.table
				WHERE p.database = ? AND p.table = ? GROUP BY t.data_paths`, stack.Internal, table+"_local").Scan(&data, &ids); err != nil {
				t.Fatal(err)
			}
			var paths []string
			for _, id := range ids {
				if id != "all" && !month.MatchString(id) {
					t.Fatalf("partition %s of %s", id, table)
				}
				for n := 1; n <= 150; n++ {
					for level := range 2 {
						paths = append(paths, fmt.Sprintf("%stmp_insert_%s_%d_%d_%d/", data, id, n, n, level))
					}
				}
			}
			pid := e.stack.ClickHouse.Pid()
			tr := systemcall.Rename(t, pid, paths, "error=EIO:signal=SIGKILL")
			e.mustSend(t, 100)
			if err := stack.Await(ctx, "ClickHouse to be killed at a rename, and to start again", func() error {
				if e.stack.ClickHouse.Pid() == pid {
					return errors.New("it runs")
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			tr.End()
			e.equal(t)
		})
		if t.Failed() {
			return
		}
	}
	e.audited(t)
}

// ClickHouse dies, or loses the path to its Keeper, at any byte that it says to
// the Keeper or the Keeper says to it: before the Keeper has heard of a part,
// while it hears of it, when it has and ClickHouse does not know.
func TestAtAnyByteOfTheKeeper(t *testing.T) {
	longtest.Only(t)
	e := forTest(t)
	seeds := uint64(4)
	if long {
		seeds = 24
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 17))
		f := proxy.Fault{Direction: proxy.Direction(seed % 2), After: r.Int64N(15_000), Action: proxy.Swallow, For: 5 * time.Second}
		killed := seed%4 < 2 // each direction with and without
		if !killed && r.IntN(2) == 0 {
			f.Action = proxy.Cut
		}
		t.Run(fmt.Sprintf("seed %d: %s, %s after %d, killed %v", seed, f.Action, f.Direction, f.After, killed), func(t *testing.T) {
			ctx := within(t, 2*time.Minute)
			armed := e.path.Arm(f)
			defer e.path.Disarm()
			e.mustSend(t, 100)
			select {
			case <-armed.Fired():
			case <-ctx.Done():
				t.Fatal("too few bytes went by")
			}
			if killed {
				e.stack.ClickHouse.Kill()
				if err := e.stack.ClickHouse.Start(ctx); err != nil {
					t.Fatal(err)
				}
			}
			e.equal(t)
		})
		if t.Failed() {
			return
		}
	}
	e.audited(t)
}

// While events come, ClickHouse is killed, its Keeper is killed, and its Keeper
// sleeps for longer than a session lives.
func TestDeathsUnderLoad(t *testing.T) {
	longtest.Only(t)
	e := forTest(t)
	ctx := within(t, 3*time.Minute)
	sent := make(chan error, 1)
	go func() { // ends with ctx
		for range 6 {
			if err := e.send(ctx, 100); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	r := rand.New(rand.NewPCG(1, 18))
	for _, fault := range []func() error{
		func() error { e.stack.ClickHouse.Kill(); return e.stack.ClickHouse.Start(ctx) },
		func() error { e.keeper.Kill(); return e.keeper.Restart(ctx) },
		func() error {
			if err := e.keeper.Pause(); err != nil {
				return err
			}
			time.Sleep(4 * time.Second) // a session lives for 3
			return e.keeper.Resume()
		},
		func() error {
			e.keeper.Kill()
			e.stack.ClickHouse.Kill()
			return errors.Join(e.keeper.Restart(ctx), e.stack.ClickHouse.Start(ctx))
		},
	} {
		time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond) // when a fault strikes
		if err := fault(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	e.equal(t)
	e.audited(t)
}

// A ClickHouse that is started while its Keeper is away takes every part on its
// disk for one that the Keeper knows, also one whose insert was repeated. What it
// holds counts twice until ClickHouse is started again. Corrections are planned
// from these counts, and planned from what is there twice they would be wrong for
// ever: they wait.
func TestStartedWithoutItsKeeper(t *testing.T) {
	longtest.Only(t)
	e := forTest(t)
	ctx := within(t, 3*time.Minute)
	p, err := e.plan(3000)
	if err != nil {
		t.Fatal(err)
	}
	ledger, half := loadgen.NewLedger(), len(p.Requests)/2
	if err := e.sendPlan(ctx, p, ledger, 0, half); err != nil {
		t.Fatal(err)
	}
	o := loadgen.NewOracle(stack.App, loadgen.Resolved)
	o.Prefix = p.Config.IDPrefix
	o.Add(p, ledger)
	if d, err := loadgen.AwaitEqual(ctx, e.stack.Conn, stack.Database, o); err != nil || !d.Equal() {
		t.Fatalf("%v\n%s", err, d)
	}
	// A merge that is under way would leave more behind than is meant here.
	if err := e.stack.Conn.Exec(ctx, "SYSTEM STOP MERGES"); err != nil {
		t.Fatal(err)
	}
	const table = "usage_hourly_local"
	var path, month string
	var block int64
	if err := e.stack.Conn.QueryRow(ctx, `SELECT path, partition_id, max_block_number FROM system.parts
		WHERE database = ? AND table = ? AND active ORDER BY rows DESC LIMIT 1`, stack.Internal, table).Scan(&path, &month, &block); err != nil {
		t.Fatal(err)
	}
	e.keeper.Kill()
	e.stack.ClickHouse.Kill()
	// As an insert leaves it that was renamed and of which the Keeper never heard.
	block += 1000
	left := fmt.Sprintf("%s_%d_%d_0", month, block, block)
	if err := os.CopyFS(filepath.Join(filepath.Dir(filepath.Clean(path)), left), os.DirFS(path)); err != nil {
		t.Fatal(err)
	}
	if err := e.stack.ClickHouse.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := e.keeper.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if n := e.number(t, "SELECT count() FROM system.parts WHERE active AND name = '"+left+"'"); n != 1 {
		t.Fatalf("ClickHouse has not taken %s", left)
	}
	// Of these some say who did what is there already.
	if err := e.sendPlan(ctx, p, ledger, half, len(p.Requests)); err != nil {
		t.Fatal(err)
	}
	e.oracle.Add(p, ledger)
	want := "parts " + left + " of `" + stack.Internal + "`.`" + table + "`: its Keeper does not know them"
	if err := stack.Await(ctx, "a correction to wait", func() error {
		for _, w := range e.stack.Writers {
			if _, body, err := w.Get(ctx, "/readyz"); err == nil && strings.Contains(body, want) {
				return nil
			}
		}
		return fmt.Errorf("no writer says %q", want)
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.stack.Run(ctx, stack.Writer, "rebuild", "-app", stack.App, "-dry-run"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("rebuild on such tables: got %v, want %q", err, want)
	}
	e.stack.ClickHouse.Kill()
	if err := e.stack.ClickHouse.Start(ctx); err != nil {
		t.Fatal(err)
	}
	e.equal(t)
	e.audited(t)
}
