package note

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic"
)

// Log writes notes to topic.Notes, and looks to topic.Looks.
type Log struct {
	cl    *kgo.Client
	names *topic.Names
	ctx   context.Context // of looks; ends with Close
	end   context.CancelFunc
}

// closeWait bounds how long Close waits for looks.
const closeWait = 2 * time.Second

// NewLog returns a Log with a client of its own, which Close closes. It connects when the
// first note is written.
func NewLog(opts []kgo.Opt, names *topic.Names) (*Log, error) {
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("notes: %w", err)
	}
	ctx, end := context.WithCancel(context.Background())
	return &Log{cl, names, ctx, end}, nil
}

// Close writes the looks that wait, for at most two seconds, and closes the client. A nil
// Log has none.
func (l *Log) Close() {
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(l.ctx, closeWait)
	defer cancel()
	_ = l.cl.Flush(ctx) // what is left then fails, and is reported by its record
	l.end()
	l.cl.Close()
}

// Write writes a version of a note and returns once the brokers have it. It returns
// Validate's error without writing anything.
func (l *Log) Write(ctx context.Context, n *Note) error {
	if err := n.Validate(); err != nil {
		return err
	}
	if err := l.cl.ProduceSync(ctx, &kgo.Record{Topic: l.names.Notes, Key: []byte(n.Key()), Value: n.Value(), Timestamp: n.Written}).FirstErr(); err != nil {
		return fmt.Errorf("write to %s: %w", l.names.Notes, err)
	}
	return nil
}
