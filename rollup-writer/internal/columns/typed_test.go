package columns_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
)

// objectTexts are objects of which each makes a block of its own.
var objectTexts = []struct {
	text  string
	typed bool // is sent as typed paths
}{
	{`{}`, true},
	{` { "a" : 1 , "b":{"c": "x" } } `, true},
	{`{"a":0,"b":-1,"c":9223372036854775807,"d":-9223372036854775808,"e":-0}`, true},
	{`{"a":9223372036854775808}`, false},
	{`{"a":1.0,"b":-0.0,"c":1e3,"d":2.5E-7,"e":0.1,"f":1.7976931348623157e308,"g":5e-324,"h":123456789.123456789}`, true},
	{`{"a":true,"b":false,"c":null}`, true},
	{`{"a":null}`, true},
	{`{"a":"","b":"2026-11-30","c":"2026-11-30T12:00:00Z","d":"2026-11-30 12:00:00","e":"17","f":"1.5","g":"true","h":"null","i":"192.0.2.1","j":"{\"x\":1}"}`, true},
	{`{"a":"\"\\\/\b\f\n\r\t","b":"\u00fc\u20ac","c":"ü€😀"}`, true},
	{`{"a":"\ud83d\ude00"}`, false},
	{`{"a":"\u0000"}`, false},
	{`{"ü key":1,"a b":{"c d":2},"$x":3,"_":4,"a-b":5}`, true},
	{`{"k\u0061":1}`, false},
	{`{"":1}`, false},
	{`{"a.b":1}`, false},
	{`{"a.b":1,"a":{"b":2}}`, false},
	{`{"a":1,"a":2}`, false},
	{`{"a":null,"a":2}`, false},
	{`{"a":2,"a":null}`, false},
	{`{"a":1,"a":{"b":2}}`, false},
	{`{"a":{"b":2},"a":{"c":3}}`, false},
	{`{"a":{"b":2},"a":1}`, false},
	{`{"a":{"b":2},"a":{"b":3}}`, false},
	{`{"a":{}}`, false},
	{`{"a":{"b":{"c":{"d":{"e":[1,2,{"f":1}]}}}}}`, false},
	{`{"a":[1,2,3],"b":["x","y"],"c":[1.5,2.5],"d":[true,false]}`, true},
	{`{"a":[1,null,3],"b":[null,"y"],"c":[null,2.5,null],"d":[true,null]}`, true},
	{`{"a":["2026-11-30","17"]}`, true},
	{`{"a":[]}`, false},
	{`{"a":[null]}`, false},
	{`{"a":[1,2.5]}`, false},
	{`{"a":[1,"x"]}`, false},
	{`{"a":[true,1]}`, false},
	{`{"a":[[1]]}`, false},
	{`{"a":[{"sku":"x","price":1.5},{"sku":"y","n":[1,2],"deep":{"er":"z"}}]}`, true},
	{`{"a":[{}]}`, true},
	{`{"a":[{"b":1},null]}`, false},
	{`{"a":[{"b":1},2]}`, false},
	{`{"a":[{"b":"}\"{"}]}`, true},
}

// What is sent as typed paths is what the server makes of the text, to the types
// of values; and what typed paths cannot hold goes as text.
func TestTypedPathsAreWhatTheServerMakesOfText(t *testing.T) {
	ctx := context.Background()
	sql, conn := server(t)
	if err := sql.Exec(ctx, "CREATE TABLE "+conn.schema.Local("forms")+" AS "+conn.schema.Local("events")); err != nil { // without views
		t.Fatal(err)
	}
	offset := int64(0)
	send := func(docs []string, asText bool, token string) (typed bool) {
		b := columns.NewEvents()
		for i, doc := range docs {
			e := sample(1)
			e.Properties, e.Traits = []byte(doc), []byte(doc)
			b.Append(columns.Source{TopicID: token[:1], Partition: 3}, offset+int64(i), e)
		}
		if asText {
			b.SendAsText()
		}
		if err := conn.Insert(ctx, "forms", b, token); err != nil {
			t.Fatalf("%s: %v in\n%s", token, err, strings.Join(docs, "\n"))
		}
		return b.SentTyped()
	}
	both := func(docs []string) bool {
		typed := send(docs, false, fmt.Sprint("n", offset))
		if typed {
			send(docs, true, fmt.Sprint("t", offset))
		}
		offset += int64(len(docs))
		return typed
	}
	for _, tc := range objectTexts {
		if typed := both([]string{tc.text}); typed != tc.typed {
			t.Errorf("%s: sent as typed paths: %t, want %t", tc.text, typed, tc.typed)
		}
	}
	rng := rand.New(rand.NewPCG(17, 4))
	blocks, asTyped := 20, 0
	for range blocks {
		docs := make([]string, 40)
		for i := range docs {
			docs[i] = randomObject(rng, 0)
		}
		if both(docs) {
			asTyped++
		}
	}
	var many []string // more paths than a column keeps as columns of their own
	for i := range 60 {
		many = append(many, fmt.Sprintf(`{"k%d":%d,"k%d":"x","k%d":[1],"always":true}`, i*5, i, i*5+1, i*7%300+1000))
	}
	if both([]string{`{"a":[1.5]}`, `{"a":[1]}`}) {
		t.Error("arrays of integers and of floats of one path were sent as typed paths")
	}
	if !both(many) || asTyped < blocks/2 {
		t.Errorf("%d of %d random blocks were sent as typed paths", asTyped, blocks)
	}
	var wide []string // more than are sent so
	for i := range 600 {
		wide = append(wide, fmt.Sprintf(`{"w%d":1}`, i))
	}
	if both(wide) {
		t.Error("600 paths were sent as typed paths")
	}
	compareForms(t, sql, conn.schema.Local("forms"))
}

// compareForms compares the rows of topic n with those of topic t.
func compareForms(t *testing.T, sql driver.Conn, forms string) {
	t.Helper()
	const shown = `toJSONString(properties), toString(JSONAllPathsWithTypes(properties)), toJSONString(traits), toString(JSONAllPathsWithTypes(traits))`
	rows, err := sql.Query(context.Background(), `SELECT n.source_offset, n.r, t.r FROM
		(SELECT source_offset, [`+shown+`] AS r FROM `+forms+` WHERE source_topic_id = 'n') AS n
		JOIN (SELECT source_offset, [`+shown+`] AS r FROM `+forms+` WHERE source_topic_id = 't') AS t ON n.source_offset = t.source_offset ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var offset int64
		var typed, text []string
		if err := rows.Scan(&offset, &typed, &text); err != nil {
			t.Fatal(err)
		}
		for i := range typed {
			if typed[i] != text[i] {
				t.Errorf("row %d: typed %s\ntext  %s", offset, typed[i], text[i])
			}
		}
	}
	if err := rows.Err(); err != nil || n < 500 {
		t.Fatalf("%d rows compared: %v", n, err)
	}
}

func randomObject(rng *rand.Rand, depth int) string {
	keys := rng.Perm(8)[:rng.IntN(6)+1]
	var members []string
	for _, k := range keys {
		members = append(members, fmt.Sprintf(`"key_%d":%s`, k, randomValue(rng, depth)))
	}
	return "{" + strings.Join(members, ",") + "}"
}

func randomValue(rng *rand.Rand, depth int) string {
	scalars := []func() string{
		func() string { return fmt.Sprint(rng.Int64() >> rng.IntN(63)) },
		func() string { return fmt.Sprint(-(rng.Int64() >> rng.IntN(63))) },
		func() string { f, _ := json.Marshal(rng.NormFloat64() * 1e3); return string(f) },
		func() string { return fmt.Sprintf("%.2f", rng.Float64()*100) },
		func() string { return fmt.Sprint(rng.IntN(2) == 0) },
		func() string { return fmt.Sprintf(`"text %d"`, rng.IntN(1000)) },
		func() string { return fmt.Sprintf(`"2026-11-%02d"`, 1+rng.IntN(30)) },
		func() string { s, _ := json.Marshal(string(rune(1 + rng.IntN(0x2000)))); return string(s) },
	}
	kind := rng.IntN(12)
	switch {
	case kind < len(scalars):
		return scalars[kind]()
	case kind == len(scalars):
		return "null"
	case kind == len(scalars)+1 && depth < 3:
		return randomObject(rng, depth+1)
	case kind == len(scalars)+2 && depth == 0:
		var list []string
		for range 1 + rng.IntN(3) {
			list = append(list, randomObject(rng, 3))
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	of := []int{0, 2, 4, 5}[rng.IntN(4)]
	var list []string
	for range 1 + rng.IntN(4) {
		v := scalars[of]()
		if of == 2 && !strings.ContainsAny(v, ".eE") {
			v += ".5"
		}
		list = append(list, v)
	}
	return "[" + strings.Join(list, ",") + "]"
}
