package rollup

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/topic"
)

// apply writes a version of an app's catalog as enricher catalog apply does.
func (b *bench) apply(number int64, features ...catalog.Feature) {
	b.T.Helper()
	for i := range features {
		features[i].Name, features[i].Kind, features[i].Status = "The "+features[i].ID, catalog.KindCore, catalog.StatusActive
		features[i].Names = []string{"Event " + features[i].ID}
	}
	v := &catalog.Version{
		App: "dev", Number: number, Author: "a", Reason: "r", AppliedAt: time.Date(2026, 11, 21, 12, 0, int(number), 0, time.UTC),
		Catalog: &catalog.Catalog{Name: "c", Products: []catalog.Product{{
			ID: "p", Name: "P", Status: catalog.StatusActive, Owner: "team-p",
			Modules: []catalog.Module{{ID: "m", Name: "M", Status: catalog.StatusActive, Features: features}},
		}}},
	}
	value, err := v.Encode()
	if err != nil {
		b.T.Fatal(err)
	}
	if err := b.Client.ProduceSync(context.Background(), &kgo.Record{Topic: topic.Unprefixed.Catalog, Key: v.Key(), Value: value}).FirstErr(); err != nil {
		b.T.Fatal(err)
	}
}

// strings runs a query that gives rows of one string.
func (b *bench) strings(query string) []string {
	b.T.Helper()
	rows, err := b.SQL.Query(context.Background(), query)
	if err != nil {
		b.T.Fatalf("%v in %s", err, query)
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			b.T.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

// Analysts see the newest catalog, without what it took out, and every version
// in the history; a writer that starts again writes nothing twice.
func TestCatalogIsCopied(t *testing.T) {
	b := newBench(t)
	b.init()
	b.apply(1, catalog.Feature{ID: "scan"}, catalog.Feature{ID: "print", Owner: "team-f"})
	w := b.start()
	newest := "SELECT concatWithSeparator(' ', feature_id, feature_name, module_id, product_id, owner, toString(catalog_version), toString(applied_at)) FROM catalog_features FINAL ORDER BY feature_id"
	b.Await("version 1", func() bool {
		return slices.Equal(b.strings(newest), []string{"print The print m p team-f 1 2026-11-21 12:00:01.000", "scan The scan m p team-p 1 2026-11-21 12:00:01.000"})
	})
	b.apply(2, catalog.Feature{ID: "scan"}, catalog.Feature{ID: "bag"})
	want := []string{"bag The bag m p team-p 2 2026-11-21 12:00:02.000", "scan The scan m p team-p 2 2026-11-21 12:00:02.000"}
	b.Await("version 2", func() bool { return slices.Equal(b.strings(newest), want) })
	w.End()
	b.start()
	b.apply(3, catalog.Feature{ID: "scan"})
	b.Await("version 3", func() bool {
		return slices.Equal(b.strings("SELECT feature_id FROM catalog_features FINAL"), []string{"scan"})
	})
	history := b.strings("SELECT concat(toString(catalog_version), ' ', feature_id, if(removed = 1, ' removed', '')) FROM catalog_features_history ORDER BY catalog_version, feature_id")
	if want := []string{"1 print", "1 scan", "2 bag", "2 print removed", "2 scan", "3 bag removed", "3 scan"}; !slices.Equal(history, want) {
		t.Errorf("history: %s", fmt.Sprintf("got %q, want %q", history, want))
	}
}
