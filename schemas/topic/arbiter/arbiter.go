// Package arbiter lets one writer at a time add to a topic, so that what it writes can
// depend on the topic's content: compare-and-set on a log.
//
// It needs only Kafka's transactions. All writers of the same thing share a
// transactional id. A writer first requests a producer epoch under it, which fences
// every earlier writer, and waits until the transactions of those are in the log. Then
// it reads the log to its end, decides, and writes in a transaction. If another writer
// has requested an epoch in the meantime, the transaction cannot commit, and everything
// starts again. So between the reading and the commit of one writer no other has
// committed anything.
//
// The package owns the transaction, its retries, and the check that the written records
// are in the log. The caller knows the log's content and what to write.
package arbiter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// Decide returns the records to write, none if there is nothing to do. It must read the
// log up to the high watermark that it finds when it is called. It may be called again,
// if another writer came first or the outcome of a commit is unknown. Its error ends
// Write.
type Decide func(ctx context.Context) ([]*kgo.Record, error)

// Config configures Write.
type Config struct {
	// Options are the connection options. Every attempt has its own client: after an
	// error in a transaction a client may continue with another epoch, and the fencing
	// would be lost.
	Options []kgo.Opt
	// TransactionalID is shared by all writers of the same thing.
	TransactionalID string
	// Attempted, if not nil, is called with the error of each attempt that is repeated.
	Attempted func(error)
}

// MaxBytes bounds a record. It is below the topics' limit.
const MaxBytes = 7 << 20

const (
	// transactionTimeout is when brokers abort the transaction of a writer that is
	// gone, unless the next writer ends it earlier. Readers of committed records wait
	// for it.
	transactionTimeout = 10 * time.Second

	minBackoff = 10 * time.Millisecond
	maxBackoff = time.Second
)

// errLostEpoch means that the client has taken another epoch by itself.
var errLostEpoch = errors.New("producer epoch changed during the attempt")

// Write calls decide and writes what it returns, as the only writer. It returns the
// records as written, with their offsets; none if there was nothing to do. It retries
// until ctx ends or an error is permanent.
func Write(ctx context.Context, cfg Config, decide Decide) ([]*kgo.Record, error) {
	// Writers that fenced each other must not meet again.
	pause := backoff.Backoff{Min: minBackoff, Max: maxBackoff, Spread: true}
	for {
		records, final, err := attempt(ctx, cfg, decide)
		if err == nil {
			return records, nil
		}
		if final || ctx.Err() != nil {
			return nil, fmt.Errorf("write as %s: %w", cfg.TransactionalID, err)
		}
		if cfg.Attempted != nil {
			cfg.Attempted(err)
		}
		if backoff.Sleep(ctx, pause.Next()) != nil {
			return nil, fmt.Errorf("write as %s: %w (last attempt: %w)", cfg.TransactionalID, ctx.Err(), err)
		}
	}
}

// attempt is one attempt; final reports that its error is permanent.
func attempt(ctx context.Context, cfg Config, decide Decide) (written []*kgo.Record, final bool, err error) {
	opts := append([]kgo.Opt{}, cfg.Options...)
	opts = append(
		opts,
		kgo.TransactionalID(cfg.TransactionalID),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RecordDeliveryTimeout(transactionTimeout),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(MaxBytes),
	)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, true, err
	}
	defer cl.Close()
	id, epoch, err := cl.ProducerID(ctx)
	if err != nil {
		return nil, permanent(err), fmt.Errorf("take over: %w", topic.Needs(err, topic.OperationWrite, topic.ResourceTransactionalID, cfg.TransactionalID))
	}
	records, err := decide(ctx)
	if err != nil || len(records) == 0 {
		return nil, true, err
	}
	if err := cl.BeginTransaction(); err != nil {
		return nil, permanent(err), err
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		// Spares others the wait for the transaction's timeout, if it succeeds.
		_ = cl.EndTransaction(ctx, kgo.TryAbort)
		return nil, permanent(err), fmt.Errorf("produce: %w", err)
	}
	nowID, nowEpoch, err := cl.ProducerID(ctx)
	if err == nil && (nowID != id || nowEpoch != epoch) {
		err = errLostEpoch
	}
	if err != nil {
		_ = cl.EndTransaction(ctx, kgo.TryAbort)
		return nil, permanent(err), err
	}
	if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return nil, permanent(err), fmt.Errorf("commit: %w", err)
	}
	if err := readBack(ctx, cfg.Options, records[0]); err != nil {
		return nil, false, fmt.Errorf("read back: %w", err)
	}
	return records, false, nil
}

// errAborted means that committed records are not in the log.
var errAborted = errors.New("the transaction was aborted although its commit was answered with success")

// readBack makes sure that readers of committed records can see a record of a committed
// transaction. The client (seen with franz-go 1.22.2) sometimes does not know that it
// produced, ends the transaction with an abort instead of a commit, and returns no
// error.
func readBack(ctx context.Context, opts []kgo.Opt, written *kgo.Record) error {
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	r, err := reader.New(opts...)
	if err != nil {
		return err
	}
	defer r.Close()
	found := false
	_, err = r.Read(ctx, written.Topic, written.Partition, written.Offset, written.Offset+1, func(rec *kgo.Record) error {
		found = found || rec.Offset == written.Offset
		return nil
	}, nil)
	if err == nil && !found {
		err = fmt.Errorf("%s/%d@%d: %w", written.Topic, written.Partition, written.Offset, errAborted)
	}
	return err
}

// permanent reports whether an error of the brokers is permanent. Being fenced, or a
// transaction of another writer, is temporary; so is an error that is not a broker's,
// such as a broken connection.
func permanent(err error) bool {
	for _, passing := range []error{
		kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidTxnState, kerr.InvalidProducerIDMapping,
		kerr.ConcurrentTransactions, kerr.OperationNotAttempted, kerr.UnknownProducerID, kerr.OutOfOrderSequenceNumber,
		kerr.TransactionAbortable, kerr.UnknownServerError,
	} {
		if errors.Is(err, passing) {
			return false
		}
	}
	var ke *kerr.Error
	return errors.As(err, &ke) && !ke.Retriable
}
