package metadata

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

// TestClickHouseTakesIt sends what a Normalizer lets through, of objects with
// the values that stop an insert for good, into a JSON column, and holds that
// each key has one type there, or two if it was widened.
func TestClickHouseTakesIt(t *testing.T) {
	s := embedded.ForTest(t)
	_, db := embedded.Database(t)
	ctx := context.Background()
	query := func(q string) string {
		t.Helper()
		out, err := s.Query(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	query("CREATE TABLE " + db + ".t (p JSON(max_dynamic_paths = 64)) ENGINE = MergeTree ORDER BY tuple()")

	const seed = 11
	rnd := rand.New(rand.NewPCG(seed, seed))
	scalars := []string{
		"1", "-7", "12.0", "0.5", "1e3", `"x"`, `"12"`, `"2026-11-21"`, `"2026-11-21T10:00:00Z"`, "true", "null", `""`, "-0", "-0.0",
		"9223372036854775807", "18446744073709551615", "18446744073709551616", "123456789012345678901234567890", "1e400", "1e-400",
		`"\ud800"`, `"\ud83d\ude00"`, `"a\u0000b"`, `"\/"`, "\"\xff\"", "0.1234567890123456789",
	}
	keys := []string{"a", "b", "a.b", "a_b", "c", "", "[]", "d[]", "e:Int64", "^", "f`g", `h\"i`, "日本", `\u0061`, "i", "j", "k.l.m", `n\u0000o`, "p\xffq", "NULL", "`"}
	var value func(depth int) string
	value = func(depth int) string {
		switch n := rnd.IntN(10); {
		case n < 6 || depth > 10:
			return scalars[rnd.IntN(len(scalars))]
		case n < 8:
			var parts []string
			for range rnd.IntN(4) {
				parts = append(parts, value(depth+1))
			}
			return "[" + strings.Join(parts, ",") + "]"
		}
		var parts []string
		for range rnd.IntN(6) {
			parts = append(parts, fmt.Sprintf(`"%s":%s`, keys[rnd.IntN(len(keys))], value(depth+1)))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	n, r := New(DefaultLimits()), NewRegistry()
	insert := strings.Builder{}
	insert.WriteString("INSERT INTO " + db + ".t SETTINGS input_format_try_infer_dates = 0, input_format_try_infer_datetimes = 0 FORMAT JSONAsObject\n")
	rows, conflicts := 0, 0
	for range 3000 {
		var parts []string
		for range 1 + rnd.IntN(12) {
			parts = append(parts, fmt.Sprintf(`"%s":%s`, keys[rnd.IntN(len(keys))], value(1)))
		}
		out, kept, err := run(t, n, r, "{"+strings.Join(parts, ",")+"}")
		if err != nil {
			t.Fatal(err)
		}
		if kept != "" {
			conflicts++
			// Readers must get at each value of conflicts.
			if rows%100 == 0 {
				quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(kept)
				if got := query("SELECT isValidJSON('" + quoted + "'), length(JSONExtractKeys('" + quoted + "')) > 0"); got != "1\t1" {
					t.Errorf("conflicts %s: ClickHouse says %q", kept, got)
				}
			}
		}
		insert.WriteString(out + "\n")
		rows++
	}
	query(insert.String())
	if got := query("SELECT count() FROM " + db + ".t"); got != fmt.Sprint(rows) {
		t.Errorf("rows: got %s, want %d", got, rows)
	}
	if conflicts < rows/10 {
		t.Errorf("only %d of %d objects had conflicts: the test says little", conflicts, rows)
	}
	// Arrays have the type of their elements, and an empty one has none.
	mixed := query(`SELECT path, groupUniqArray(type) AS types FROM (
		SELECT arrayJoin(JSONAllPathsWithTypes(p)) AS pt, pt.1 AS path, pt.2 AS type FROM ` + db + `.t
	) WHERE type NOT LIKE 'Array%' GROUP BY path HAVING length(types) > 1 AND arraySort(types) != ['Float64', 'Int64']`)
	if mixed != "" {
		t.Errorf("keys with several types:\n%s", mixed)
	}
}

// A key that was an integer at first is one column of numbers over all of its
// time: nothing that was sent before or after it was widened is missing.
func TestWidenedKeyReadsAsOneColumn(t *testing.T) {
	s := embedded.ForTest(t)
	_, db := embedded.Database(t)
	query := func(q string) string {
		t.Helper()
		out, err := s.Query(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	query("CREATE TABLE " + db + ".t (n UInt8, p JSON(max_dynamic_paths = 64)) ENGINE = MergeTree ORDER BY n")
	n, r := New(DefaultLimits()), NewRegistry()
	for i, doc := range []string{`{"total":12}`, `{"total":12.5}`, `{"total":13}`, `{"total":"0.25"}`, `{"total":9007199254740993}`} {
		out, kept, err := run(t, n, r, doc)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[int]string{4: `{"properties.total":9007199254740993}`}[i]; kept != want {
			t.Errorf("%s: got conflicts %q, want %q", doc, kept, want)
		}
		query(fmt.Sprintf("INSERT INTO %s.t FORMAT JSONEachRow {\"n\":%d,\"p\":%s}", db, i, out))
	}
	if got, want := query("SELECT groupArray(p.total::Nullable(Float64)), sum(p.total::Nullable(Float64)) FROM (SELECT p FROM "+db+".t ORDER BY n)"), "[12,12.5,13,0.25]\t37.75"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := query("SELECT sum(p.total.:Float64), sum(p.total.:Int64) FROM "+db+".t"), "25.75\t12"; got != want {
		t.Errorf("by stored type: got %s, want %s", got, want)
	}
}
