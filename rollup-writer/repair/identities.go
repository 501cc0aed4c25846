package repair

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/erase"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
)

// ExportIdentities writes the calls from which identities were learnt, as ClickHouse has
// them, and who was erased, for `enricher identity import`. It fails with
// [erase.ErrUnknown] if it cannot be known who was erased, unless withoutErasures. Calls of
// erased persons are left out.
func ExportIdentities(ctx context.Context, cfg boundary.Config, withoutErasures bool, log *slog.Logger, w io.Writer) (calls int64, err error) {
	err = withLog(ctx, cfg, log, func(s *session) error {
		codec, err := cfg.Registry.Codec(ctx)
		if err != nil {
			return err
		}
		erased, err := erase.ReadErasures(ctx, s.client, s.names, codec)
		switch {
		case errors.Is(err, erase.ErrUnknown) && withoutErasures:
			log.Warn("it is not known who was erased: their later events will be stored", "topic", s.names.EnricherState)
			erased = nil
		case err != nil:
			return err
		}
		calls, err = s.exportIdentities(ctx, erased, w)
		return err
	})
	return calls, err
}

// identityCalls are the calls in SQL, in the columns of scan. What is known of a pair of a
// user and an anonymous id is the first call that named both; of claims that follow,
// those that changed whom the id belongs to are read from events, as long as those are
// kept. Operators' orders come last: they count for what was said up to their time.
func identityCalls(schema tables.Schema) string {
	facts := schema.Table("identity_facts")
	const none = "''"
	row := func(order, kind, at, user, anonymous, previous, account, role, idKind, id, from string) string {
		return "SELECT " + order + " AS o, app_id, '" + kind + "' AS kind, " + at + " AS at, " + user + " AS user, " + anonymous + " AS anonymous, " + previous + " AS previous, " +
			account + " AS account, " + role + " AS role, " + idKind + " AS id_kind, " + id + " AS id FROM " + from
	}
	changed := "(SELECT app_id, anonymous_id, user_id, event_time, lagInFrame(user_id, 1, '') OVER (PARTITION BY app_id, anonymous_id ORDER BY event_time, user_id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before FROM " +
		schema.Table(boundary.EventsTable) + " WHERE kind = 'identify' AND user_id != '' AND anonymous_id != '') WHERE user_id != before"
	merged := func(fact string) string {
		return "(SELECT app_id, subject, object, at, min(first) AS first, max(last) AS last FROM " + facts + " WHERE fact = '" + fact + "' GROUP BY app_id, subject, object, at)"
	}
	return row("0", event.KindIdentify, "first", "object", "subject", none, none, none, none, none, merged("anonymous")) +
		" UNION ALL " + row("0", event.KindIdentify, "event_time", "user_id", "anonymous_id", none, none, none, none, none, changed) +
		" UNION ALL " + row("0", event.KindAlias, "first", "object", none, "subject", none, none, none, none, merged("alias")) +
		" UNION ALL " + row("0", event.KindAlias, "last.1", "object", none, "subject", none, none, none, none, merged("alias")+" WHERE last.1 != first") +
		" UNION ALL " + row("0", event.KindGroup, "at", "subject", none, none, "object", "last.2", none, none, merged("membership")) +
		" UNION ALL " + row("1", event.KnownUnlink, "u", "user_id", none, none, none, none, "toString(id_kind)", "id",
		"(SELECT app_id, id_kind, id, user_id, max(until) AS u FROM "+schema.Table("identity_unlinks")+" GROUP BY app_id, id_kind, id, user_id)") +
		" ORDER BY o, at, app_id, user, anonymous, previous"
}

func (s *session) exportIdentities(ctx context.Context, erased *erase.Erasures, w io.Writer) (calls int64, err error) {
	zip := gzip.NewWriter(w)
	out := json.NewEncoder(zip)
	out.SetEscapeHTML(false)
	err = out.Encode(event.KnownHeader{
		Version: event.KnownVersion, MadeAt: time.Now().UTC().Truncate(time.Second),
		Personal: "This file holds personal data: ids, links and memberships of people. Keep and delete it as you do the database.",
	})
	lines := int64(0)
	put := func(c *event.KnownCall) {
		if err == nil {
			lines++
			err = out.Encode(c)
		}
	}
	if erased != nil {
		for _, app := range erased.Apps() {
			for _, ids := range erased.Of(app).Lists() {
				put(&event.KnownCall{AppID: app, Kind: event.KnownErased, Erased: &ids})
			}
		}
	}
	type row struct {
		o uint8
		event.KnownCall
	}
	failed := tables.Each(ctx, s.sql, func(r *row) []any {
		return []any{&r.o, &r.AppID, &r.Kind, &r.At, &r.UserID, &r.AnonymousID, &r.PreviousID, &r.AccountID, &r.Role, &r.IDKind, &r.ID}
	}, func(r *row) {
		if erased != nil && erased.Of(r.AppID).Names(&r.KnownCall) {
			return
		}
		calls++
		put(&r.KnownCall)
	}, identityCalls(s.cfg.ClickHouse.Schema())+" SETTINGS max_bytes_before_external_sort = 1000000000")
	if err = errors.Join(err, failed); err != nil {
		return 0, fmt.Errorf("read identities: %w", err)
	}
	return calls, errors.Join(out.Encode(event.KnownCall{End: &lines}), zip.Close())
}
