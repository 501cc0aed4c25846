package erase

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// impersonal are the tables of which an erasure changes nothing and an export writes
// nothing, with the reason.
var impersonal = map[string]string{
	"audit_blocks": "counts by app and hour", "replayed_events": "places of events and an operator's words",
	"insight_rules": "definitions", "health_scores": "scores of accounts", "notes": "words of the console's users", "behaviour_clusters": "means, without ids",
	"catalog_features": "the catalog", "catalog_features_history": "the catalog", "catalog_metrics": "the catalog",
	"schema_migrations": "names of migrations", "schema_views": "names of views",
}

// Erase and export have one list of tables. Every table that the schema declares is on it,
// or has a reason not to be.
func TestEveryTableIsErasedOrImpersonal(t *testing.T) {
	listed := map[string]bool{}
	for _, x := range targets {
		if listed[x.name] {
			t.Errorf("%s is in targets twice", x.name)
		}
		listed[x.name] = true
	}
	for _, table := range tables.Tables {
		if table.Kind == tables.Rollup && !table.Has("actor_id") {
			impersonal[table.Name] = "no actor"
		}
		if listed[table.Name] == (impersonal[table.Name] != "") {
			t.Errorf("%s must be either in targets or in impersonal", table.Name)
		}
		delete(impersonal, table.Name)
	}
	for name := range impersonal {
		t.Errorf("impersonal has %s, which is not declared", name)
	}
}

// TestExportHasWhatEraseFinds plants a row of the person in every table that an erasure
// changes; each must be in the export, as often as erase counts it.
func TestExportHasWhatEraseFinds(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, schema := newTables(t)
	const cell = "(app_id, actor_id, actor_kind, user_id, anonymous_id"
	for _, q := range []string{
		"INSERT INTO events (app_id, kind, event, message_id, user_id, anonymous_id, actor_id, actor_kind, account_id, event_time, quantity, properties, metric, source_topic_id, source_offset) VALUES" +
			` ('shop', 'identify', 'e', 'm1', 'jane', 'device', 'jane', 'user', 'acme', '2026-11-20 10:00:00', 1, '{"a":{"b":18446744073709551615}}', '', 't', 1),` +
			` ('shop', 'metric', 'Seats', 'm2', 'jane', '', 'jane', 'user', 'acme', '2026-11-20 10:00:00', 1, '{}', '{"numbers":{"":5}}', 't', 2),` +
			` ('shop', 'metric', 'Seats', 'm3', 'joan', 'device', 'joan', 'user', 'acme', '2026-11-20 10:00:00', 1, '{"secret":"joans"}', '{"numbers":{"":7}}', 't', 3),` +
			` ('shop', 'track', 'e', 'm4', 'joan', '', 'joan', 'user', 'acme', '2026-11-20 10:00:00', 1, '{"secret":"joans"}', '', 't', 4),` +
			` ('till', 'track', 'e', 'm5', 'jane', '', 'jane', 'user', 'acme', '2026-11-20 10:00:00', 1, '{"secret":"tills"}', '', 't', 5)`,
		"INSERT INTO corrections " + cell + ", hour, events, source_offset, corrected_at) VALUES ('shop', 'jane', 'user', 'jane', 'device', '2026-11-20 10:00:00', 1, 1, now())",
		"INSERT INTO correction_plans " + cell + ", hour, events, source_offset, corrected_at, chunk) VALUES ('shop', 'jane', 'user', 'jane', 'device', '2026-11-20 10:00:00', 1, 1, now(), 1)",
		`INSERT INTO correction_plans (app_id, source_offset, corrected_at, chunk, reason) VALUES ('shop', 9, now(), 0, '{"kind":"unlink","id_kind":"anonymous","id":"device","user_id":"jane","until":1}')`,
		`INSERT INTO rejected_events (app_id, stage, received_at, original) VALUES ('shop', 'gateway', now(), '{"userId":"jane"}'), ('shop', 'gateway', now(), '{"userId":"joan"}')`,
		"INSERT INTO user_agents (app_id, user_agent, user_id, actor_kind, actor_id) VALUES ('shop', 'Agent/1', 'jane', 'user', 'jane'), ('shop', 'Agent of joans', 'joan', 'user', 'joan')",
		"INSERT INTO signal_log (app_id, alert_id, message_id, level, subject) VALUES ('shop', 'al_1', 'm1', 'user', 'jane')",
		"INSERT INTO looks (app_id, looked_at, viewer, person_id) VALUES ('shop', '2026-11-20 10:00:00', 'joan', 'jane'), ('shop', '2026-11-20 11:00:00', 'joan', 'joan')",
		"INSERT INTO behaviour_cluster_members (app_id, unit_kind, unit_id, cluster) VALUES ('shop', 'user', 'jane', 1), ('shop', 'user', 'joans', 1), ('shop', 'account', 'jane', 2)",
	} {
		if err := conn.Exec(ctx, q); err != nil {
			t.Fatalf("%v in %s", err, q)
		}
	}
	e := &eraser{
		Dependencies: Dependencies{Names: topic.Unprefixed, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), SQL: conn, Schema: schema},
		cfg:          Config{App: "shop", User: "jane"},
	}
	ctx = e.context(ctx)
	if err := e.openList(ctx); err != nil {
		t.Fatal(err)
	}
	if err := e.add(ctx, kindAnonymous, "device"); err != nil {
		t.Fatal(err)
	}
	places, err := e.places(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exported := map[string]uint64{}
	for _, p := range places {
		err := e.exportRows(ctx, &p, func(x *Exported) error {
			exported[x.In]++
			var row map[string]any
			if err := json.Unmarshal(x.Row, &row); err != nil {
				t.Errorf("a row of %s: %v", x.In, err)
			}
			if text := string(x.Row); strings.Contains(text, "joans") || strings.Contains(text, "tills") {
				t.Errorf("%s has what is not the person's: %s", x.In, text)
			}
			if another := x.In == "events" && row["source_offset"] == 3.0; x.In == "events" && (another != x.OfAnother || another != (row["event"] == nil)) {
				t.Errorf("of another user: %v, in %s", x.OfAnother, x.Row)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	counts, err := e.counts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if exported[c.Table] != c.Left {
			t.Errorf("%s: %d rows exported, erase finds %d", c.Table, exported[c.Table], c.Left)
		}
		if i := slices.IndexFunc(targets, func(x target) bool { return x.name == c.Table }); i < 0 || (c.Left == 0 && targets[i].change != nil) {
			t.Errorf("no row of %s was planted, or it is not in targets", c.Table)
		}
	}
	// A run that only reads leaves the list of an erasure that was interrupted.
	for _, found := range []bool{true, false} {
		e.list.found = found
		if err := e.closeList(ctx); err != nil {
			t.Fatal(err)
		}
		var n uint64
		if err := conn.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = ?", e.list.name).Scan(&n); err != nil || (n == 1) != found {
			t.Errorf("found %v: %d lists are left, %v", found, n, err)
		}
	}
}

func TestStateRowsAreJSON(t *testing.T) {
	for body, want := range map[string]string{"": "", `{"a":1}`: `"body":{"a":1}`, "plain": `"body":"plain"`, "\xff": `"body":"/w=="`} {
		row := string(stateRow(&event.IdentityState{Kind: event.StateUser, ID: "jane", Body: []byte(body)}))
		if !json.Valid([]byte(row)) || !strings.Contains(row, want) || strings.Contains(row, "body") != (want != "") {
			t.Errorf("body %q: %s", body, row)
		}
	}
}
