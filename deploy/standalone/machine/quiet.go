package machine

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// quietStart drops what is below warnings until the banner is printed, so that it
// can be found, unless the log has debug lines.
type quietStart struct {
	slog.Handler
	over *atomic.Bool
}

func (q quietStart) Enabled(ctx context.Context, level slog.Level) bool {
	return (level >= slog.LevelWarn || q.over.Load() || q.Handler.Enabled(ctx, slog.LevelDebug)) && q.Handler.Enabled(ctx, level)
}

func (q quietStart) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietStart{q.Handler.WithAttrs(attrs), q.over}
}

func (q quietStart) WithGroup(name string) slog.Handler {
	return quietStart{q.Handler.WithGroup(name), q.over}
}

// quietKafka drops what Kafka clients say below warnings. Six clients in one
// process tell of each other's comings and goings, and nobody would find the
// lines of the services among that.
type quietKafka struct {
	slog.Handler
	client bool // the logger is a client's
}

func (q quietKafka) Enabled(ctx context.Context, level slog.Level) bool {
	return (!q.client || level >= slog.LevelWarn) && q.Handler.Enabled(ctx, level)
}

func (q quietKafka) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		q.client = q.client || a.Key == "component" && a.Value.String() == "kafka"
	}
	q.Handler = q.Handler.WithAttrs(attrs)
	return q
}

func (q quietKafka) WithGroup(name string) slog.Handler {
	q.Handler = q.Handler.WithGroup(name)
	return q
}
