package identitycli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/enrich"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/locallog"
)

// running is a log with an enricher that serves it.
type running struct {
	t      *testing.T
	addr   string
	cl     *kgo.Client
	codec  *event.Codec
	layout topic.Layout
	sent   int
}

func run(t *testing.T) *running {
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
	r := &running{t: t, addr: log.Addr(), cl: cl, codec: event.NewCodec(), layout: topic.SingleLayout()}
	if err := topic.Unprefixed.Ensure(r.ctx(), kadm.NewClient(cl), r.layout); err != nil {
		t.Fatal(err)
	}
	cfg := enrich.DefaultConfig()
	cfg.Kafka.Brokers = []string{log.Addr()}
	cfg.DataDir = t.TempDir()
	cfg.CommitInterval = 10 * time.Millisecond
	service, err := enrich.New(cfg, enrich.Dependencies{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	kill, giveUp := context.WithCancel(context.Background())
	stop, end := context.WithCancel(kill)
	done := make(chan error, 1)
	go func() { done <- service.Run(process.Signals{Stop: stop, Kill: kill}) }()
	t.Cleanup(func() {
		end()
		timer := time.AfterFunc(30*time.Second, giveUp)
		if err := <-done; err != nil {
			t.Error(err)
		}
		timer.Stop()
		giveUp()
	})
	return r
}

func (r *running) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	r.t.Cleanup(cancel)
	return ctx
}

// send produces a call of app dev and returns its message id.
func (r *running) send(e event.RawEvent) {
	r.t.Helper()
	r.sent++
	e.AppID, e.Quantity = "dev", 1
	e.MessageID = fmt.Sprintf("m%d", r.sent)
	e.ReceivedAt = event.FromTime(time.Now())
	key := topic.RawKey(nil, e.AppID, e.UserID, e.AnonymousID, e.AccountID)
	rec := &kgo.Record{Topic: topic.Unprefixed.Raw, Partition: topic.Partition(key, r.layout.Partitions), Key: key, Value: r.codec.AppendRaw(nil, &e)}
	if err := r.cl.ProduceSync(r.ctx(), rec).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// command runs `enricher identity`.
func (r *running) command(args ...string) (string, error) {
	var out, errs bytes.Buffer
	err := Commands(func(string) (string, bool) { return "", false }, &out, &errs).Run(append(args, "-kafka-brokers", r.addr, "-app", "dev"), &out, &errs)
	return out.String(), err
}

// show waits until what show answers is as ok says.
func (r *running) show(ok func(*Answer) bool, args ...string) *Answer {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		out, err := r.command(append([]string{"show", "-json"}, args...)...)
		if err != nil {
			r.t.Fatal(err)
		}
		var a Answer
		if err := json.Unmarshal([]byte(out), &a); err != nil {
			r.t.Fatalf("%v in %s", err, out)
		}
		if ok(&a) {
			return &a
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("waited too long; the last answer was %s", out)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestShowSaysWhatIsKnownAndWhy(t *testing.T) {
	r := run(t)
	r.send(event.RawEvent{Kind: event.KindTrack, Event: "e", AnonymousID: "a1"})
	r.send(event.RawEvent{Kind: event.KindGroup, UserID: "u1", AccountID: "acct1", Traits: []byte(`{"role":"admin"}`)})
	r.send(event.RawEvent{Kind: event.KindIdentify, UserID: "u1", AnonymousID: "a1"})
	r.send(event.RawEvent{Kind: event.KindAlias, UserID: "u2", PreviousID: "u1"})

	a := r.show(func(a *Answer) bool { return a.CountsFor == "u2" && len(a.IDs[2].Accounts) == 1 }, "-anonymous", "a1")
	if got := []string{a.IDs[0].ID, a.IDs[1].ID, a.IDs[2].ID}; !slices.Equal(got, []string{"a1", "u1", "u2"}) {
		t.Errorf("it leads along %q", got)
	}
	if l := a.IDs[0].Links[0]; l.ID != "u1" || l.Call != event.KindIdentify || l.MessageID != "m3" || l.Raw == "" {
		t.Errorf("link %+v", l)
	}
	if l := a.IDs[1].Aliases[0]; l.ID != "u2" || l.Call != event.KindAlias || l.MessageID != "m4" {
		t.Errorf("alias %+v", l)
	}
	if l := a.IDs[1].Anonymous[0]; l.ID != "a1" || l.MessageID != "m3" {
		t.Errorf("anonymous id %+v", l)
	}
	if m := a.IDs[1].Accounts[0]; m.ID != "acct1" || m.Role != "admin" || m.Via != "" || m.MessageID != "m2" {
		t.Errorf("membership %+v", m)
	}
	// u2 has it because of the alias.
	if m := a.IDs[2].Accounts[0]; m.ID != "acct1" || m.Role != "admin" || m.Via != "u1" || m.MessageID != "m4" {
		t.Errorf("membership by alias %+v", m)
	}

	out, err := r.command("show", "-anonymous", "a1")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`anonymous id "a1" of app "dev"`, "by identify m3", "became user u2", "acct1 as admin by user u1",
		`events of anonymous id "a1" count for user "u2" now`,
	} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	out, err = r.command("show", "-user", "stranger")
	if err != nil || !strings.Contains(out, "nothing is known") {
		t.Errorf("a stranger: %v\n%s", err, out)
	}
}

func TestUnlinkOrdersAndIsCarriedOut(t *testing.T) {
	r := run(t)
	if _, err := r.command("unlink", "-anonymous", "a1", "-from", "u1"); !errors.Is(err, ErrNoLink) {
		t.Errorf("unlink of what is not linked: got %v, want %v", err, ErrNoLink)
	}
	r.send(event.RawEvent{Kind: event.KindIdentify, UserID: "u1", AnonymousID: "a1"})
	r.show(func(a *Answer) bool { return a.CountsFor == "u1" }, "-anonymous", "a1")
	out, err := r.command("unlink", "-anonymous", "a1", "-from", "u1")
	if err != nil || !strings.Contains(out, `ordered: unlink anonymous id "a1" from "u1"`) {
		t.Fatalf("%v\n%s", err, out)
	}
	a := r.show(func(a *Answer) bool { return len(a.IDs[0].Undone) == 1 }, "-anonymous", "a1")
	if a.CountsFor != "a1" || len(a.IDs[0].Links) != 0 || a.IDs[0].Undone[0].UserID != "u1" {
		t.Errorf("after unlink: %+v", a.IDs[0])
	}

	// An alias call says it of the anonymous id and of the user: both go.
	r.send(event.RawEvent{Kind: event.KindAlias, UserID: "u3", PreviousID: "p1"})
	r.show(func(a *Answer) bool { return a.CountsFor == "u3" }, "-user", "p1")
	r.show(func(a *Answer) bool { return a.CountsFor == "u3" }, "-anonymous", "p1")
	if out, err = r.command("unlink", "-user", "p1", "-from", "u3"); err != nil || strings.Count(out, "ordered:") != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
	r.show(func(a *Answer) bool { return a.CountsFor == "p1" }, "-user", "p1")
	r.show(func(a *Answer) bool { return a.CountsFor == "p1" }, "-anonymous", "p1")
}

func TestFaultsAreNamedAtOnce(t *testing.T) {
	var out, errs bytes.Buffer
	none := func(string) (string, bool) { return "", false }
	err := Commands(none, &out, &errs).Run([]string{"unlink", "-until", "yesterday", "extra"}, &out, &errs)
	for _, want := range []string{"extra", "-app", "-anonymous", "-from", "-until"} {
		if err == nil || !errors.Is(err, process.ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if err := Commands(none, &out, &errs).Run([]string{"forget"}, &out, &errs); !errors.Is(err, process.ErrUsage) {
		t.Errorf("unknown command: %v", err)
	}
}
