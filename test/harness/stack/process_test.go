package stack

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func shell(t *testing.T, script string) *Process {
	t.Helper()
	p := &Process{Name: "sh", binary: "/bin/sh", args: []string{"-c", script}, log: filepath.Join(t.TempDir(), "sh.log")}
	t.Cleanup(p.Kill)
	return p
}

func start(t *testing.T, p *Process) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
}

func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func says(p *Process, text string) func() error {
	return func() error {
		if !strings.Contains(p.LastLog(), text) {
			return &notYet{text}
		}
		return nil
	}
}

type notYet struct{ text string }

func (e *notYet) Error() string { return "not yet " + e.text }

func TestProcessLives(t *testing.T) {
	p := shell(t, `echo "hello $GREETING"; trap 'echo bye; exit 0' TERM; while :; do sleep 0.02; done`)
	p.SetEnv("GREETING=world")
	start(t, p)
	if err := Await(limit(t), "its word", says(p, "hello world")); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err == nil {
		t.Error("it was started twice")
	}
	if err := p.Stop(limit(t)); err != nil || p.Running() || !strings.Contains(p.LastLog(), "bye") {
		t.Errorf("stop: %v, running %v, log %q", err, p.Running(), p.LastLog())
	}
	p.SetEnv()
	start(t, p)
	if err := Await(limit(t), "its word", says(p, "hello")); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(p.LastLog(), "world") || !strings.Contains(p.Log(), "world") || p.Runs() != 2 {
		t.Errorf("run 2 of %d: last log %q, log %q", p.Runs(), p.LastLog(), p.Log())
	}
	p.Kill()
	if p.Running() || p.ExitError() == nil {
		t.Errorf("killed: running %v, error %v", p.Running(), p.ExitError())
	}
	if err := p.Signal(0); err == nil {
		t.Error("a process that has ended took a signal")
	}
}

func TestStopTellsHowItEnded(t *testing.T) {
	p := shell(t, `trap 'echo could not flush; exit 3' TERM; echo up $((40+2)); while :; do sleep 0.02; done`)
	start(t, p)
	if err := Await(limit(t), "its word", says(p, "up 42")); err != nil {
		t.Fatal(err)
	}
	err := p.Stop(limit(t))
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "could not flush") {
		t.Errorf("got %v", err)
	}
}

func TestAwaitReadyTellsWhyNot(t *testing.T) {
	p := shell(t, `echo cannot bind; exit 1`)
	p.Metrics = "127.0.0.1:1"
	start(t, p)
	if err := p.AwaitReady(limit(t)); err == nil || !strings.Contains(err.Error(), "cannot bind") {
		t.Errorf("of a process that ended: %v", err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"ready":false,"faults":["no kafka"]}`, http.StatusServiceUnavailable)
	}))
	defer srv.Close()
	q := shell(t, `while :; do sleep 0.02; done`)
	q.Metrics = strings.TrimPrefix(srv.URL, "http://")
	start(t, q)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := q.AwaitReady(ctx); err == nil || !strings.Contains(err.Error(), "no kafka") {
		t.Errorf("of a process that is not ready: %v", err)
	}
}

func TestTail(t *testing.T) {
	p := shell(t, `for i in 1 2 3 4 5; do echo line $i; done`)
	start(t, p)
	<-p.Exited()
	if got := p.Tail(2); got != "line 4\nline 5" {
		t.Errorf("got %q", got)
	}
	if got := p.Tail(100); !strings.HasPrefix(got, "---- run 1 of sh") {
		t.Errorf("got %q", got)
	}
}
