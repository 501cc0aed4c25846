// Command demo sends a seeded week of MyPOS traffic through the HTTP API, waits
// until ClickHouse shows it, prints the rollups as tables and compares them, cell
// by cell, with what has to be there. It starts a standalone of its own, or uses
// one that runs.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/uptakehq/uptake/schemas/svc/process"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := process.Main(os.Stderr, "demo", func() error { return run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr) })
	stop()
	os.Exit(code)
}
