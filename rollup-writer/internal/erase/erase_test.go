package erase

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

func TestSpellingsOfAnID(t *testing.T) {
	for id, want := range map[string][]string{
		"jane":       {"jane"},
		`a"b\c`:      {`a"b\c`, `a\"b\\c`},
		"x/y":        {`x/y`, `x\/y`},
		"<é>":        {"<é>", `\u003cé\u003e`, `<\u00e9>`},
		"\U0001F600": {"\U0001F600", `\ud83d\ude00`},
	} {
		got := spellings(id)
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("spellings(%q) = %q lacks %q", id, got, w)
			}
		}
		for _, g := range got {
			var back string
			if g != id && (json.Unmarshal([]byte(`"`+g+`"`), &back) != nil || back != id) {
				t.Errorf("spellings(%q) has %q, which is %q", id, g, back)
			}
		}
	}
}

// Every order is within the bounds that its reader holds it to, and all of them
// together name everything once.
func TestOrdersAreCut(t *testing.T) {
	var all event.Erase
	want := map[string]int{}
	for i := range 1200 {
		id := fmt.Sprintf("%d%s", i, strings.Repeat("x", i))
		all.Anonymous = append(all.Anonymous, id)
		all.Known = append(all.Known, event.KnownPair{UserID: "jane", AnonymousID: id})
		want["a"+id]++
		want["k"+id]++
	}
	all.Users = []string{"jane"}
	want["ujane"]++
	for _, order := range split(all) {
		order.Key = bytes.Repeat([]byte{1}, event.EraseKeyBytes)
		body, err := json.Marshal(order)
		if err != nil {
			t.Fatal(err)
		}
		if len(body) > 900_000 {
			t.Errorf("an order has %d bytes", len(body))
		}
		back, err := event.ParseErase(body)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range back.Users {
			want["u"+id]--
		}
		for _, id := range back.Anonymous {
			want["a"+id]--
		}
		for _, k := range back.Known {
			want["k"+k.AnonymousID]--
		}
	}
	for id, n := range want {
		if n != 0 {
			t.Errorf("%.10s is named %d times too few", id, n)
		}
	}
}

// A table that this release does not know of is counted, so that the receipt is
// not silent about it.
func TestUnknownTablesAreCounted(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, schema := newTables(t)
	for _, q := range []string{
		"CREATE TABLE remarks (app_id String, user_id String, note String) ENGINE = MergeTree ORDER BY app_id",
		"INSERT INTO remarks VALUES ('shop', 'jane', 'x'), ('shop', 'joan', 'y'), ('till', 'jane', 'z')",
	} {
		if err := conn.Exec(ctx, q); err != nil {
			t.Fatal(err)
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
	counts, err := e.counts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(counts, func(r Rows) bool { return r.Table == "remarks" }); i < 0 || counts[i].Left != 1 {
		t.Errorf("remarks is not counted once: %+v", counts)
	}
	// A migration that adds a table with ids has to say here what becomes of it.
	if others, err := e.others(ctx); err != nil || len(others) != 1 {
		t.Errorf("%d tables have ids and are not rewritten, want remarks alone: %+v, %v", len(others), others, err)
	}
	// Another run for the same person goes on with the list, one for another does not.
	again, other := *e, *e
	other.cfg.User = "joan"
	for _, x := range []*eraser{&again, &other} {
		x.list = list{}
		if err := x.openList(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if again.list.name != e.list.name || other.list.name == e.list.name {
		t.Errorf("lists %s, again %s, of another %s", e.list.name, again.list.name, other.list.name)
	}
}
