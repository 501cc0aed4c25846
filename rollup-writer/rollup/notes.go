package rollup

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/note"
)

const noteColumns = "app_id, kind, id, value, author, removed"

// followNotes copies what people write down beside the numbers, until ctx ends. It does
// not wait for the topics of alerts: an installation may lack either until `topics apply`.
func (s *Service) followNotes(ctx context.Context) error {
	return s.followLogs(ctx, &logCopy{topic: s.names.Notes, table: "notes", row: noteRow, columns: noteColumns, versioned: true})
}

// noteRow of a record of the notes.
func noteRow(rec *kgo.Record) ([]any, error) {
	n, err := note.Decode(rec.Value)
	if err != nil {
		return nil, err
	}
	return []any{n.App, n.Kind, n.ID, string(rec.Value), n.By, n.Removed}, nil
}
