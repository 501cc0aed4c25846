package rollup

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/signal"
)

// followSignals copies what there is and what comes, until ctx ends. What cannot be
// copied does not hold up events.
func (s *Service) followSignals(ctx context.Context) error {
	return s.followLogs(ctx,
		&logCopy{topic: s.names.Alerts, table: "signal_log", row: signalRow, columns: signalColumns},
		&logCopy{topic: s.names.AlertState, table: "health_scores", row: healthRow, columns: healthColumns})
}

const signalColumns = "app_id, alert_id, message_id, signal_use, signal, band, version, state, level, subject, severity, owner, title, reason, playbook, closes, " +
	"value, limit_value, mean, at, valid_from, valid_to, silent, acted_by, feedback, note"

// signalRow of a record of the alerts log.
func signalRow(rec *kgo.Record) ([]any, error) {
	r, err := signal.Decode(rec.Value)
	if err != nil {
		return nil, err
	}
	return []any{
		r.App, r.AlertID, r.ID, r.Use, r.Signal, r.Band, r.Version, r.State, r.Level, r.Subject, r.Severity, r.Owner, r.Title, r.Reason, r.Playbook, r.Closes,
		r.Facts.Value, r.Facts.Limit, r.Facts.Mean, r.At, r.From, r.To, r.Silent, r.By, r.Feedback, r.Note,
	}, nil
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
