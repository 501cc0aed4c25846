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

// followLooks copies who looked at whom, until ctx ends.
func (s *Service) followLooks(ctx context.Context) error {
	return s.followLogs(ctx, &logCopy{topic: s.names.Looks, table: "looks", row: lookRow, columns: "app_id, looked_at, viewer, person_id, account_id"})
}

// lookRow of a record of the looks.
func lookRow(rec *kgo.Record) ([]any, error) {
	l, err := note.DecodeLook(rec.Value)
	if err != nil {
		return nil, err
	}
	return []any{l.App, l.At.UTC(), l.Viewer, l.Person, l.Account}, nil
}

// noteRow of a record of the notes.
func noteRow(rec *kgo.Record) ([]any, error) {
	n, err := note.Decode(rec.Value)
	if err != nil {
		return nil, err
	}
	return []any{n.App, n.Kind, n.ID, string(rec.Value), n.By, n.Removed}, nil
}
