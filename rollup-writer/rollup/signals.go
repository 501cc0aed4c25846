package rollup

import (
	"bytes"
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/signal"
)

// followSignals copies what there is and what comes, until ctx ends. What cannot be
// copied does not hold up events.
//
// Records about users who were erased are not copied: the topic keeps them for 90 days,
// and a writer that starts, or finds an older copy of the table, reads them again. Who was
// erased is read before, and along with the state.
func (s *Service) followSignals(ctx context.Context) error {
	var erased signal.ErasedUsers
	if err := s.untilDone(ctx, "read of whom alerts may not say anything", func(ctx context.Context) error {
		in, err := s.reader()
		if err != nil {
			return err
		}
		defer in.Close()
		list, err := in.Newest(ctx, s.names.AlertState, 0, func(key []byte) bool { return bytes.HasPrefix(key, []byte(signal.KeyErased+"\x00")) })
		if err != nil {
			return err
		}
		for key, rec := range list {
			if _, err := erased.Take(key, rec.Value); err != nil {
				s.notCopied(rec, err)
			}
		}
		return nil
	}); err != nil {
		return nil // stopped
	}
	return s.followLogs(ctx,
		&logCopy{topic: s.names.AlertState, table: "health_scores", columns: healthColumns, row: func(rec *kgo.Record) ([]any, error) {
			if ours, err := erased.Take(string(rec.Key), rec.Value); ours || err != nil {
				return nil, err
			}
			return healthRow(rec)
		}},
		&logCopy{topic: s.names.Alerts, table: "signal_log", columns: signalColumns, row: func(rec *kgo.Record) ([]any, error) {
			r, err := signal.Decode(rec.Value)
			if err != nil || erased.Names(&r) {
				return nil, err
			}
			return signalRow(&r), nil
		}})
}

const signalColumns = "app_id, alert_id, message_id, signal_use, signal, band, version, state, level, subject, severity, owner, title, reason, playbook, closes, " +
	"value, limit_value, mean, at, valid_from, valid_to, silent, acted_by, feedback, note"

// signalRow of a record of the alerts log.
func signalRow(r *signal.Record) []any {
	return []any{
		r.App, r.AlertID, r.ID, r.Use, r.Signal, r.Band, r.Version, r.State, r.Level, r.Subject, r.Severity, r.Owner, r.Title, r.Reason, r.Playbook, r.Closes,
		r.Facts.Value, r.Facts.Limit, r.Facts.Mean, r.At, r.From, r.To, r.Silent, r.By, r.Feedback, r.Note,
	}
}

const healthColumns = "app_id, health_id, account_id, version, owner, day, score, band, score_4w, score_12w, reason, consequence, priority, parts, removed"

// healthRow of a record of the state; nil of what is no score.
func healthRow(rec *kgo.Record) ([]any, error) {
	key := signal.Parts(string(rec.Key))
	if key[0] != signal.KeyHealth || len(key) != 4 {
		return nil, nil
	}
	if len(rec.Value) == 0 {
		return []any{key[1], key[2], key[3], uint32(0), "", time.Unix(0, 0).UTC(), 0.0, "", 0.0, 0.0, "", (*float64)(nil), 0.0, [][]any{}, true}, nil
	}
	h, err := signal.DecodeHealth(rec.Value)
	if err != nil {
		return nil, err
	}
	parts := make([][]any, len(h.Parts))
	for i, p := range h.Parts {
		parts[i] = []any{p.ID, p.Kind, p.Value, p.Yardstick, p.Weight, p.Share, p.Change, p.Sentence}
	}
	return []any{h.App, h.Health, h.Account, h.Version, h.Owner, h.Day, h.Score, h.Band, h.Score4, h.Score12, h.Reason, h.Consequence, h.Priority, parts, false}, nil
}
