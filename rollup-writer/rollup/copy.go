package rollup

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// reader opens a client for one of the topics that are copied beside events. Close it.
func (s *Service) reader() (*reader.Reader, error) {
	opts, err := s.cfg.Kafka.Options(s.log, nil)
	if err != nil {
		return nil, err
	}
	return reader.New(opts...)
}

// notCopied reports a record that cannot be read. Events do not wait for it.
func (s *Service) notCopied(r *kgo.Record, err error) {
	s.metrics.skipped.WithLabelValues(r.Topic).Inc()
	s.log.Error("a record cannot be read and was not copied", "topic", r.Topic, "offset", r.Offset, "error", err)
}

// insertRows inserts rows, whose values are in the order of columns, into the local
// table of that name.
func (s *Service) insertRows(ctx context.Context, table, columns string, rows [][]any) error {
	batch, err := s.sql.PrepareBatch(ctx, "INSERT INTO "+s.schema.Local(table)+" ("+columns+") SETTINGS async_insert = 0")
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := batch.Append(row...); err != nil {
			return errors.Join(err, batch.Abort())
		}
	}
	return batch.Send()
}
