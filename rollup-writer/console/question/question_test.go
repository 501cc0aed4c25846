package question

import (
	"strings"
	"testing"
)

func TestEveryQuestionIsDefined(t *testing.T) {
	if len(Names()) < 20 {
		t.Fatalf("%d questions", len(Names()))
	}
	for _, name := range Names() {
		q := Get(name)
		if !strings.HasSuffix(q.Definition, ".") || len(q.Definition) < 40 {
			t.Errorf("%s: the definition is no sentence: %q", name, q.Definition)
		}
		if name != "apps" && !strings.Contains(q.SQL, "app_id = {app:String}") {
			t.Errorf("%s does not ask for one app", name)
		}
		for _, p := range q.Parameters {
			if !strings.Contains(" app zone from to before account alert person feature q since first end step steps window unit by grain path ordering without ", " "+p+" ") {
				t.Errorf("%s: no page has a value for the parameter %s", name, p)
			}
		}
	}
}

func TestParseTellsWhatIsMissing(t *testing.T) {
	for text, want := range map[string]string{
		"SELECT 1":                       "-- title:",
		"-- title: A\nSELECT 1":          "-- definition:",
		"-- title: A\n-- definition: \n": "-- definition:",
	} {
		if _, err := parse("x", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error that names %s", text, err, want)
		}
	}
}

// What a statement shows to paste sets each parameter as one literal.
func TestStatementQuotesValues(t *testing.T) {
	q, err := parse("x", "-- title: A\n-- definition: B.\nSELECT {app:String}, {from:DateTime('UTC')}")
	if err != nil {
		t.Fatal(err)
	}
	got := q.Statement(Values{"app": "it's \\ \n;DROP", "from": "0"})
	want := "-- A\n-- B.\n-- version " + q.Version + "\nSET param_app = 'it\\'s \\\\ \\n;DROP';\nSET param_from = '0';\nSELECT {app:String}, {from:DateTime('UTC')};\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := q.Bound(Values{"app": "a"}); err == nil || !strings.Contains(err.Error(), "from") {
		t.Errorf("got %v, want an error that names from", err)
	}
}
