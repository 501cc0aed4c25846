package replicated

import (
	"regexp"
	"strings"
	"testing"

	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// What is left of every statement of the cluster form is that form, but for where
// it is carried out.
func TestLocal(t *testing.T) {
	ms, err := tables.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	unique := regexp.MustCompile(` UUID '[0-9a-f-]{36}'`)
	replicated := 0
	for _, m := range ms {
		statements, err := m.Statements(tables.Schema{Database: "uptake", Form: tables.ClusterForm(Cluster)})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range statements {
			got := Local(s)
			isReplicated := strings.HasPrefix(s, "CREATE TABLE") && strings.Contains(s, "= Replicated")
			if isReplicated {
				replicated++
			}
			if unique.MatchString(got) != isReplicated {
				t.Errorf("replicated %v, and it got %q", isReplicated, unique.FindString(got))
			}
			if want := strings.Replace(s, " ON CLUSTER `main`", "", 1); unique.ReplaceAllString(got, "") != want || strings.Contains(want, "ON CLUSTER") {
				t.Errorf("got:\n%s\nof:\n%s", got, s)
			}
		}
	}
	if replicated == 0 {
		t.Error("no table is replicated")
	}
}
