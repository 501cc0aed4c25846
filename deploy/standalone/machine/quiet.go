package machine

import (
	"context"
	"log/slog"
)

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
