package chart_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// kubernetes are the schemas of one version, by apiVersion and kind.
type kubernetes map[string]*jsonschema.Schema

// versions reads testdata/kubernetes, which prune.py there writes.
func versions(t *testing.T) map[string]kubernetes {
	t.Helper()
	files, err := filepath.Glob("testdata/kubernetes/*.json")
	if err != nil || len(files) != 3 {
		t.Fatalf("got schemas %v, %v, want three versions", files, err)
	}
	all := map[string]kubernetes{}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource(file, doc); err != nil {
			t.Fatal(err)
		}
		version := strings.TrimSuffix(filepath.Base(file), ".json")
		all[version] = kubernetes{}
		for name := range at(doc, "definitions").(object) {
			for _, api := range list(doc, "definitions", name, "properties", "apiVersion", "enum") {
				s, err := c.Compile(file + "#/definitions/" + name)
				if err != nil {
					t.Fatal(err)
				}
				all[version][fmt.Sprint(api, " ", name[strings.LastIndexByte(name, '.')+1:])] = s
			}
		}
	}
	return all
}

// check says what a version refuses of an object. Kinds of operators are left out.
func (k kubernetes) check(o object) error {
	api := text(o, "apiVersion")
	if strings.HasPrefix(api, "monitoring.coreos.com/") || strings.HasPrefix(api, "keda.sh/") {
		return nil
	}
	s := k[api+" "+text(o, "kind")]
	if s == nil {
		return fmt.Errorf("there is no kind %s %s", api, text(o, "kind"))
	}
	return s.Validate(o)
}

// What the chart renders is valid in three versions of Kubernetes, and what is not
// valid is found.
func TestKubernetesVersions(t *testing.T) {
	all := versions(t)
	for i, r := range render(t, values(t, "least"), values(t, "most")) {
		for _, o := range objects(t, r) {
			for version, k := range all {
				if err := k.check(o); err != nil {
					t.Errorf("case %d, %s: %s: %v", i, version, nameOf(o), err)
				}
			}
		}
	}
	for version, k := range all {
		for _, change := range []struct {
			name   string
			change func(o object)
		}{
			{"a field that does not exist", func(o object) { at(o, "spec").(object)["replica"] = 1 }},
			{"a wrong type", func(o object) { at(o, "spec").(object)["replicas"] = "two" }},
			{"a version that is gone", func(o object) { o["apiVersion"] = "apps/v1beta1" }},
			{"a field that is missing", func(o object) { delete(at(o, "spec").(object), "selector") }},
		} {
			deployment := slices.IndexFunc(objects(t, render(t, values(t, "least"))[0]), func(o object) bool { return o["kind"] == "Deployment" })
			o := objects(t, render(t, values(t, "least"))[0])[deployment]
			change.change(o)
			if k.check(o) == nil {
				t.Errorf("%s accepts %s", version, change.name)
			}
		}
	}
}
