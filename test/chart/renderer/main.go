// Command renderer renders a chart as `helm template` does, with Helm's own
// engine, and decodes what comes out strictly into Kubernetes' own types.
//
// It is a module of its own: Helm and Kubernetes bring 170 packages, which
// nothing else of the repository needs.
//
//	renderer CHART < cases.json > results.json
//
// Input is a list of values, output a list of results in the same order.
package main

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/runtime"
	k8sjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
)

// result is what became of one set of values.
type result struct {
	Files  map[string]string `json:"files"`  // by template, NOTES.txt among them
	Faults []string          `json:"faults"` // what the API server would refuse
	Error  string            `json:"error"`  // why nothing was rendered
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "renderer:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: renderer CHART < cases.json")
	}
	c, err := loader.Load(args[0])
	if err != nil {
		return err
	}
	var cases []map[string]any
	if err := stdjson.NewDecoder(in).Decode(&cases); err != nil {
		return fmt.Errorf("read cases: %w", err)
	}
	results := []result{}
	for _, values := range cases {
		r, err := render(c, values)
		if err != nil {
			r.Error = err.Error()
		}
		results = append(results, r)
	}
	return stdjson.NewEncoder(out).Encode(results)
}

// render renders the chart as release "prod" in the namespace "uptake".
func render(c *chart.Chart, values map[string]any) (result, error) {
	var r result
	release := chartutil.ReleaseOptions{Name: "prod", Namespace: "uptake", Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, values, release, chartutil.DefaultCapabilities) // checks the schema
	if err != nil {
		return r, err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return r, err
	}
	r.Files = map[string]string{}
	strict := k8sjson.NewSerializerWithOptions(k8sjson.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, k8sjson.SerializerOptions{Yaml: true, Strict: true})
	for name, text := range files {
		name = name[strings.LastIndexByte(name, '/')+1:]
		r.Files[name] = text
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		for _, doc := range strings.Split("\n"+text, "\n---\n") {
			if err := decode(strict, doc); err != nil {
				r.Faults = append(r.Faults, fmt.Sprintf("%s: %v\n%s", name, err, doc))
			}
		}
	}
	slices.Sort(r.Faults)
	return r, nil
}

// decode checks one document. Kinds of operators, which Kubernetes does not
// know, are left to the tests.
func decode(strict runtime.Decoder, doc string) error {
	empty := true
	for _, line := range strings.Split(doc, "\n") {
		empty = empty && (strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"))
	}
	if empty {
		return nil
	}
	_, kind, err := strict.Decode([]byte(doc), nil, nil)
	if runtime.IsNotRegisteredError(err) && kind != nil && (kind.Group == "monitoring.coreos.com" || kind.Group == "keda.sh") {
		return nil
	}
	return err
}
