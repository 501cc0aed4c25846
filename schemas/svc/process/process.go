// Package process runs a service as a process: logger, signals, exit code.
//
// It owns what every main has in common. The order in which a service stops belongs to
// the service's Run.
package process

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// ErrUsage marks an error about the command line or the settings: exit code 2.
var ErrUsage = errors.New("usage")

// ErrCutShort is the cause of a context whose owner must stop at once because of a
// second signal.
var ErrCutShort = errors.New("second signal: stopping without waiting")

// NewLogger returns a logger that writes to w in a format, "text" or "json".
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log-level must be debug, info, warn or error (got %q)", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("log-format must be text or json (got %q)", format)
}

// Signals is the two-step stop of a process. Stop ends at the first SIGINT or SIGTERM:
// stop the intake, drain, flush. Kill ends at the second: abandon what is not done.
type Signals struct {
	Stop context.Context
	Kill context.Context
}

// Notify returns the process's Signals and a function that stops listening for signals.
func Notify() (Signals, func()) {
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	s, stop, kill := newSignals()
	quit := make(chan struct{})
	go func() { // ends with the returned function
		for _, act := range []func(){stop, kill} {
			select {
			case <-ch:
				act()
			case <-quit:
				return
			}
		}
	}()
	return s, func() { signal.Stop(ch); close(quit) }
}

func newSignals() (s Signals, stop, kill func()) {
	killCtx, killFn := context.WithCancelCause(context.Background())
	stopCtx, stopFn := context.WithCancel(killCtx)
	return Signals{Stop: stopCtx, Kill: killCtx}, stopFn, func() { killFn(ErrCutShort) }
}

// Main maps the result of run to an exit code and prints an error on stderr.
func Main(stderr io.Writer, name string, run func() error) int {
	err := run()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return ExitOK
	case errors.Is(err, ErrUsage):
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitUsage
	}
	fmt.Fprintf(stderr, "%s: %v\n", name, err)
	return ExitFailed
}
