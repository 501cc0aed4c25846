// Package alerts_test runs deploy/grafana/alerts_test.yaml, which is in the
// format of `promtool test rules`, with Prometheus' own rule engine.
//
// It is a module of its own: Prometheus brings some 700 packages, which nothing
// else of the repository needs. Of promtool's format it knows what the file uses:
// input_series and promql_expr_test of ALERTS that fire. A rule is evaluated from
// its `for` before the time in question on, and not from the beginning.
package alerts_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"go.yaml.in/yaml/v3"
)

type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

type testFile struct {
	RuleFiles          []string `yaml:"rule_files"`
	EvaluationInterval string   `yaml:"evaluation_interval"`
	Tests              []struct {
		Name        string
		Interval    string
		InputSeries []struct{ Series, Values string } `yaml:"input_series"`
		PromqlTest  []struct {
			Expr       string
			EvalTime   string `yaml:"eval_time"`
			ExpSamples []struct {
				Labels string
				Value  float64
			} `yaml:"exp_samples"`
		} `yaml:"promql_expr_test"`
	}
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	if err := dec.Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	if s == "" {
		return 0
	}
	d, err := model.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(d)
}

func TestAlerts(t *testing.T) {
	const dir = "../../deploy/grafana"
	var tests testFile
	read(t, filepath.Join(dir, "alerts_test.yaml"), &tests)
	fired, silent := map[string]bool{}, map[string]bool{}
	var all []string
	for _, name := range tests.RuleFiles {
		var file ruleFile
		read(t, filepath.Join(dir, name), &file)
		for _, g := range file.Groups {
			for _, r := range g.Rules {
				all = append(all, r.Alert)
			}
		}
		step := duration(t, tests.EvaluationInterval)
		for _, tc := range tests.Tests {
			t.Run(tc.Name, func(t *testing.T) {
				var load strings.Builder
				fmt.Fprintf(&load, "load %s\n", tc.Interval)
				for _, s := range tc.InputSeries {
					fmt.Fprintf(&load, "  %s %s\n", s.Series, s.Values)
				}
				store := promqltest.LoadedStorage(t, load.String())
				engine := promqltest.NewTestEngine(t, false, 5*time.Minute, 1_000_000)
				query := rules.EngineQueryFunc(engine, store)
				parse := parser.NewParser(parser.Options{})
				firing := func(end time.Duration) []string {
					var out []string
					for _, g := range file.Groups {
						for _, r := range g.Rules {
							expr, err := parse.ParseExpr(r.Expr)
							if err != nil {
								t.Fatalf("%s: %v", r.Alert, err)
							}
							rule := rules.NewAlertingRule(r.Alert, expr, duration(t, r.For), 0, labels.FromMap(r.Labels), labels.FromMap(r.Annotations), labels.EmptyLabels(), "", true, slog.New(slog.DiscardHandler))
							var vector promql.Vector
							for at := max(0, end-duration(t, r.For)-2*step); at <= end; at += step {
								if vector, err = rule.Eval(t.Context(), 0, time.Unix(0, 0).Add(at), query, nil, 0); err != nil {
									t.Fatalf("%s: %v", r.Alert, err)
								}
							}
							out = append(out, alerts(vector)...)
						}
					}
					return out
				}
				for _, p := range tc.PromqlTest {
					if p.Expr != `ALERTS{alertstate="firing"}` {
						t.Fatalf("this test knows no expression %s", p.Expr)
					}
					var want []string
					for _, s := range p.ExpSamples {
						ls, err := parse.ParseMetric(s.Labels)
						if err != nil {
							t.Fatal(err)
						}
						want = append(want, ls.String())
					}
					got := firing(duration(t, p.EvalTime))
					slices.Sort(got)
					slices.Sort(want)
					if !slices.Equal(got, want) {
						t.Errorf("at %s: got\n%s\nwant\n%s", p.EvalTime, strings.Join(got, "\n"), strings.Join(want, "\n"))
					}
					for _, name := range all {
						if slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, `"`+name+`"`) }) {
							fired[name] = true
						} else {
							silent[name] = true
						}
					}
				}
			})
		}
	}
	for _, name := range all {
		if !fired[name] || !silent[name] {
			t.Errorf("%s: fires in a test: %v, is silent in one: %v; want both", name, fired[name], silent[name])
		}
	}
}

// alerts are the samples of alerts that fire, as text.
func alerts(v promql.Vector) []string {
	var out []string
	for _, s := range v {
		if s.Metric.Get(labels.MetricName) == "ALERTS" && s.Metric.Get("alertstate") == "firing" {
			out = append(out, s.Metric.String())
		}
	}
	return out
}
