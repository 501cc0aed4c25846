package catalog

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// row is one row of the base rollup as far as moves look at it.
type row struct{ feature, module, product, event string }

// carryOut does with rows what control records order: chunk by chunk, each row
// by the first move of the chunk that matches.
func carryOut(rows []row, chunks []event.Moves) []row {
	is := func(p *string, v string) bool { return p == nil || *p == v }
	set := func(p *string, v *string) {
		if p != nil {
			*v = *p
		}
	}
	for _, chunk := range chunks {
		for i := range rows {
			r := &rows[i]
			for _, m := range chunk.Moves {
				if is(m.Match.FeatureID, r.feature) && is(m.Match.ModuleID, r.module) && is(m.Match.ProductID, r.product) && is(m.Match.Event, r.event) {
					set(m.Set.FeatureID, &r.feature)
					set(m.Set.ModuleID, &r.module)
					set(m.Set.ProductID, &r.product)
					break
				}
			}
		}
	}
	return rows
}

// A feature that stands for one which an earlier version removed takes over what
// was counted for that one, and not what came under its names since.
func TestReplacesWhatWasRemovedEarlier(t *testing.T) {
	wrap := func(features string) *Catalog {
		return mustParse(t, "catalog: t\nproducts:\n- name: P\n  modules:\n  - name: M\n    features: ["+features+"]\n  - name: N\n    features: [{name: Other}]\nhistory: {default: move}")
	}
	const a, b = `{name: A, events: [a1, a2]}`, `{name: B, events: [a1, b1], replaces: [a]}`
	rows := func() []row {
		return []row{
			{"a", "m", "p", "a1"},
			{"a", "attic", "p", "a1"}, // kept there by a version before
			{"", "", "", "a1"},        // since a was removed
			{"", "", "", "b1"},
			{"", "", "", "a2"},
		}
	}
	for _, tc := range []struct {
		name     string
		versions []*Catalog
		last     *Catalog
		want     []row
	}{
		{
			"removed by the version before the last",
			[]*Catalog{wrap(a), wrap(`{name: C}`), wrap(`{name: C}, {name: D}`)},
			wrap(b),
			[]row{{"b", "m", "p", "a1"}, {"b", "attic", "p", "a1"}, {"", "", "", "a1"}, {"b", "m", "p", "b1"}, {"", "", "", "a2"}},
		},
		{
			"removed by the same version",
			[]*Catalog{wrap(a)},
			wrap(b),
			[]row{{"b", "m", "p", "a1"}, {"b", "attic", "p", "a1"}, {"", "", "", "a1"}, {"b", "m", "p", "b1"}, {"", "", "", "a2"}},
		},
		{
			"done before",
			[]*Catalog{wrap(a), wrap(b)},
			wrap(`{name: B, events: [a1, b1, a2], replaces: [a]}`),
			[]row{{"a", "m", "p", "a1"}, {"a", "attic", "p", "a1"}, {"", "", "", "a1"}, {"", "", "", "b1"}, {"b", "m", "p", "a2"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var versions []*Version
			for _, c := range append(tc.versions, tc.last) {
				v, _, err := NewVersion(versions, "dev", c, "x", "y", time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				versions = append(versions, v)
			}
			if got := carryOut(rows(), versions[len(versions)-1].Moves()); !slices.Equal(got, tc.want) {
				t.Errorf("got  %v\nwant %v", got, tc.want)
			}
		})
	}
	all := wrap(b)
	all.History.Unmapped = HistoryMove
	changes := Compare([]*Version{{Catalog: wrap(a)}, {Catalog: wrap(`{name: C}`)}}, all)
	if got, want := carryOut(rows(), (&Version{HistoryMoves: changes.Moves}).Moves())[2], (row{"b", "m", "p", "a1"}); got != want {
		t.Errorf("with history.unmapped move: got %v, want %v", got, want)
	}
}

const before = `catalog: t
products:
- name: P
  modules:
  - name: Billing
    features: [{name: Scan, aliases: [scan2]}, {name: Bag}, {name: Old, events: [old1, old2]}, {name: Twin, events: [twin]}]
  - name: Other
    features: [{name: Gone}, {name: Ruled, events: [], rules: [{event: maybe, where: [{property: k, equals: 1}]}]}]
`

func TestHistory(t *testing.T) {
	rows := func() []row {
		return []row{
			{"scan", "billing", "p", "Scan"},
			{"scan", "attic", "p", "Scan"}, // kept there by an earlier version
			{"scan", "billing", "p", "scan2"},
			{"bag", "billing", "p", "Bag"},
			{"old", "billing", "p", "old1"},
			{"old", "billing", "p", "old2"},
			{"old", "attic", "p", "old1"},
			{"twin", "billing", "p", "twin"},
			{"gone", "other", "p", "Gone"},
			{"", "", "", "Lost"},
			{"", "", "", "maybe"},
			{"ruled", "other", "p", "maybe"},
		}
	}
	for _, tc := range []struct {
		name  string
		after string
		want  map[row]row // what differs afterwards
	}{
		{"feature to another module", `
  - name: Billing
    features: [{name: Bag}, {name: Old, events: [old1, old2]}, {name: Twin, events: [twin]}]
  - name: Other
    features: [{name: Scan, aliases: [scan2]}, {name: Gone}, {name: Ruled, events: [], rules: [{event: maybe, where: [{property: k, equals: 1}]}]}]
history: {default: move}`, map[row]row{
			{"scan", "billing", "p", "Scan"}:  {"scan", "other", "p", "Scan"},
			{"scan", "billing", "p", "scan2"}: {"scan", "other", "p", "scan2"},
		}},
		{"feature to another module without its history", `
  - name: Billing
    features: [{name: Bag}, {name: Old, events: [old1, old2]}, {name: Twin, events: [twin]}]
  - name: Other
    features: [{name: Scan, aliases: [scan2]}, {name: Gone}, {name: Ruled, events: [], rules: [{event: maybe, where: [{property: k, equals: 1}]}]}]
history: {default: move, features: {scan: keep}}`, map[row]row{}},
		{"product renamed, all go", `
  - name: Billing
    features: [{name: Scan, aliases: [scan2]}, {name: Bag}, {name: Old, events: [old1, old2]}, {name: Twin, events: [twin]}]
  - name: Other
    features: [{name: Gone}, {name: Ruled, events: [], rules: [{event: maybe, where: [{property: k, equals: 1}]}]}]
- name: Q
  modules: []
history: {default: move}`, map[row]row{}},
		{"rename to another module, merge, name to another feature, lost name found", `
  - name: Billing
    features:
    - {name: Scan, aliases: [scan2, old2, Lost]}
    - {name: Bag, events: [Bag, twin], replaces: [twin]}
  - name: Other
    features:
    - {name: New, events: [old1], replaces: [old]}
    - {name: Ruled, events: [], rules: [{event: maybe, where: [{property: k, equals: 1}]}]}
    - {name: Maybe, events: [maybe]}
history: {default: move}`, map[row]row{
			{"old", "billing", "p", "old1"}:  {"new", "other", "p", "old1"},
			{"old", "billing", "p", "old2"}:  {"scan", "billing", "p", "old2"},
			{"old", "attic", "p", "old1"}:    {"new", "attic", "p", "old1"},
			{"twin", "billing", "p", "twin"}: {"bag", "billing", "p", "twin"},
			{"", "", "", "Lost"}:             {"scan", "billing", "p", "Lost"},
		}},
		{"unmapped stays", `
  - name: Billing
    features: [{name: Scan, aliases: [scan2]}, {name: Bag}, {name: Old, events: [old1, old2]}, {name: Twin, events: [twin]}]
  - name: Other
    features: [{name: Gone, aliases: [Lost]}, {name: Ruled, events: [], rules: [{event: maybe, where: [{property: k, equals: 1}]}]}]
history: {unmapped: keep}`, map[row]row{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			live := &Version{App: "dev", Number: 4, Catalog: mustParse(t, before)}
			c := mustParse(t, "catalog: t\nproducts:\n- name: P\n  modules:"+tc.after)
			v, _, err := NewVersion([]*Version{live}, "dev", c, "a", "r", time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			if v.Number != 5 {
				t.Errorf("number: got %d, want 5", v.Number)
			}
			want := rows()
			for i, r := range want {
				if to, ok := tc.want[r]; ok {
					want[i] = to
				}
			}
			if got := carryOut(rows(), v.Moves()); !slices.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			// One move per control record must do the same as all in one.
			var single []event.Moves
			for _, m := range v.HistoryMoves {
				single = append(single, event.Moves{Moves: []event.Move{m}})
			}
			if got := carryOut(rows(), single); !slices.Equal(got, want) {
				t.Errorf("one by one: got  %v\nwant %v", got, want)
			}
		})
	}
}

func TestHistoryNeedsAWord(t *testing.T) {
	live := &Version{App: "dev", Number: 1, Catalog: mustParse(t, flat("    - {name: A}\n    - {name: B}"))}
	next := mustParse(t, `catalog: t
products:
- name: P
  modules:
  - name: M
    features: [{name: B2, events: [B], replaces: [b]}]
  - name: N
    features: [{name: A}]
`)
	_, changes, err := NewVersion([]*Version{live}, "dev", next, "a", "r", time.Time{})
	if err == nil || !strings.Contains(err.Error(), ": b2, a") {
		t.Errorf("got %v, want a refusal that names b2 and a", err)
	}
	if want := []string{"b2", "a"}; !slices.Equal(changes.Undecided, want) {
		t.Errorf("undecided: got %v, want %v", changes.Undecided, want)
	}
}

func TestReplacesIsDoneOnce(t *testing.T) {
	c1 := mustParse(t, flat("    - {name: A}"))
	c2 := mustParse(t, flat("    - {name: B, aliases: [A], replaces: [a]}")+"\nhistory: {default: move}")
	v1, _, err := NewVersion(nil, "dev", c1, "a", "r", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	v2, ch2, err := NewVersion([]*Version{v1}, "dev", c2, "a", "r", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	v3, ch3, err := NewVersion([]*Version{v1, v2}, "dev", c2, "a", "r", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if len(ch2.Features) != 1 || ch2.Features[0].Kind != ChangeRenamed {
		t.Errorf("second version: got %+v, want one rename", ch2.Features)
	}
	if !ch3.Empty() || len(v3.HistoryMoves) != 0 {
		t.Errorf("same catalog again: got %+v and %v, want nothing", ch3, v3.HistoryMoves)
	}
}

func TestMovesAreCutForControlRecords(t *testing.T) {
	var v Version
	for range 2*event.MaxMoves + 1 {
		v.HistoryMoves = append(v.HistoryMoves, move(full(Mapping{"a", "b", "c"}), where(Mapping{"a", "d", "e"})))
	}
	chunks := v.Moves()
	var sizes []int
	for _, c := range chunks {
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
		sizes = append(sizes, len(c.Moves))
	}
	if want := []int{event.MaxMoves, event.MaxMoves, 1}; !slices.Equal(sizes, want) {
		t.Errorf("got chunks of %v, want %v", sizes, want)
	}
	// A match on the empty feature must survive JSON: it is not "any".
	none := ""
	text, err := json.Marshal(event.Attribution{FeatureID: &none})
	if err != nil || string(text) != `{"feature_id":""}` {
		t.Errorf("got %s, %v", text, err)
	}
}
