package insight

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Parse reads definitions in YAML. The error, if any, is [Faults].
func Parse(text []byte) (*Definitions, error) {
	if len(text) > MaxBytes {
		return nil, Faults{{Text: fmt.Sprintf("must be at most %d bytes (got %d)", MaxBytes, len(text))}}
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, Faults{{Line: 1, Column: 1, Text: "is empty"}}
		}
		return nil, Faults{syntaxFault(err)}
	}
	if err := dec.Decode(&second); err == nil {
		return nil, Faults{{Line: second.Line, Column: second.Column, Text: "must be one YAML document"}}
	} else if !errors.Is(err, io.EOF) {
		return nil, Faults{syntaxFault(err)}
	}
	p := parser{d: &Definitions{lines: map[Rule]position{}}}
	p.file(doc.Content[0])
	if p.d.Name == "" && len(p.faults) == 0 {
		p.fault("insight", doc.Content[0], "must name the definitions")
	}
	if len(p.faults) == 0 {
		p.resolve()
	}
	p.d.Rules = append(p.d.Rules, p.d.Signals.rules()...)
	if len(p.d.Rules) > MaxRules {
		p.faults = append(p.faults, Fault{Text: fmt.Sprintf("must be at most %d rules (got %d)", MaxRules, len(p.d.Rules))})
	}
	if len(p.faults) > 0 {
		slices.SortStableFunc(p.faults, func(a, b Fault) int { return a.Line - b.Line })
		return nil, p.faults
	}
	slices.SortFunc(p.d.Rules, compareRules)
	return p.d, nil
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

func syntaxFault(err error) Fault {
	text := err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ := strconv.Atoi(m[1]) // digits by the pattern
		return Fault{Line: line, Column: 1, Text: "not YAML: " + text[len(m[0]):]}
	}
	return Fault{Text: "not YAML: " + strings.TrimPrefix(text, "yaml: ")}
}

// parser walks the nodes of the one document.
type parser struct {
	d      *Definitions
	faults Faults
	count  int // of signals
}

func (p *parser) fault(path string, n *yaml.Node, format string, args ...any) {
	p.faults = append(p.faults, Fault{Line: n.Line, Column: n.Column, Path: path, Text: fmt.Sprintf(format, args...)})
}

type field func(path string, n *yaml.Node)

func (p *parser) file(n *yaml.Node) {
	milestones := map[string]field{}
	for _, m := range Milestones() {
		milestones[m] = p.references(m, MatchFeature, MatchEvent)
	}
	milestones["steps"] = p.steps()
	p.mapping("", n, map[string]field{
		"insight":     p.text(&p.d.Name),
		"description": p.text(&p.d.Description),
		"activity":    p.references(UseActivity, MatchFeature, MatchModule, MatchProduct),
		"exclude": func(path string, n *yaml.Node) {
			p.mapping(path, n, map[string]field{
				"users":          p.values(UseExclude, MatchUser),
				"mail_domains":   p.domains,
				"user_traits":    p.traits(MatchTrait),
				"accounts":       p.values(UseExclude, MatchAccount),
				"account_traits": p.traits(MatchAccountTrait),
				"roles":          p.values(UseExclude, MatchRole),
			})
		},
		"milestones": func(path string, n *yaml.Node) { p.mapping(path, n, milestones) },
		"friction":   p.references(UseFriction, MatchFeature, MatchEvent),
		"segments":   p.segments(),
		"health":     p.health(),
		"alerts":     p.alerts(),
		"sessions": func(path string, n *yaml.Node) {
			p.mapping(path, n, map[string]field{"gap": p.gap})
		},
		"seats": func(path string, n *yaml.Node) {
			p.mapping(path, n, map[string]field{"trait": func(path string, n *yaml.Node) {
				if s, ok := p.scalar(path, n); ok {
					p.add(path, n, Rule{Use: UseSeats, Match: MatchAccountTrait, Key: s})
				}
			}})
		},
	})
}

func (p *parser) mapping(path string, n *yaml.Node, fields map[string]field) {
	if n.Kind != yaml.MappingNode {
		p.fault(path, n, "must be a mapping (got %s)", shape(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		f, ok := fields[key.Value]
		switch {
		case !ok:
			p.fault(at, key, "unknown field %q; there are %s", key.Value, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		case seen[key.Value]:
			p.fault(at, key, "is given twice")
		default:
			seen[key.Value] = true
			f(at, value)
		}
	}
}

func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias; write the value out"
	}
	return strconv.Quote(n.Value)
}

// scalar reads a value that must not be empty.
func (p *parser) scalar(path string, n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		p.fault(path, n, "must be text (got %s)", shape(n))
		return "", false
	}
	s := strings.TrimSpace(n.Value)
	if s == "" || n.Tag == "!!null" {
		p.fault(path, n, "must not be empty")
		return "", false
	}
	return s, true
}

func (p *parser) text(into *string) field {
	return func(path string, n *yaml.Node) { *into, _ = p.scalar(path, n) }
}

func (p *parser) list(path string, n *yaml.Node, read field) {
	if n.Kind != yaml.SequenceNode {
		p.fault(path, n, "must be a list (got %s)", shape(n))
		return
	}
	for i, item := range n.Content {
		read(fmt.Sprintf("%s[%d]", path, i), item)
	}
}

func (p *parser) add(path string, n *yaml.Node, r Rule) {
	if _, ok := p.d.lines[r]; ok {
		p.fault(path, n, "is given twice")
		return
	}
	p.d.lines[r] = position{n.Line, n.Column}
	p.d.Rules = append(p.d.Rules, r)
}

// references reads a list of words such as item_scanned, module:billing or
// event:Sign-up Viewed; a word without a kind is the first of kinds.
func (p *parser) references(use string, kinds ...string) field {
	return func(path string, n *yaml.Node) {
		p.list(path, n, func(path string, n *yaml.Node) {
			match, value, ok := p.reference(path, n, kinds...)
			if !ok {
				return
			}
			p.add(path, n, Rule{Use: use, Match: match, Value: value})
			if match == MatchEvent {
				p.d.names = append(p.d.names, named{MatchEvent, value, "", position{n.Line, n.Column}})
			}
		})
	}
}

func (p *parser) reference(path string, n *yaml.Node, kinds ...string) (match, value string, ok bool) {
	s, ok := p.scalar(path, n)
	if !ok {
		return "", "", false
	}
	match, value = kinds[0], s
	if kind, rest, found := strings.Cut(s, ":"); found {
		if match, value = kind, strings.TrimSpace(rest); !slices.Contains(kinds, kind) {
			p.fault(path, n, "must be a feature id or one of %s: and a name (got %q)", strings.Join(kinds, ":, "), s)
			return "", "", false
		}
	}
	if value == "" {
		p.fault(path, n, "must name something after %q", match+":")
		return "", "", false
	}
	return match, value, true
}

func (p *parser) values(use, match string) field {
	return func(path string, n *yaml.Node) {
		p.list(path, n, func(path string, n *yaml.Node) {
			if s, ok := p.scalar(path, n); ok {
				p.add(path, n, Rule{Use: use, Match: match, Value: s})
			}
		})
	}
}

func (p *parser) domains(path string, n *yaml.Node) {
	p.list(path, n, func(path string, n *yaml.Node) {
		s, ok := p.scalar(path, n)
		if !ok {
			return
		}
		if strings.Contains(s, "@") || !strings.Contains(s, ".") {
			p.fault(path, n, "must be a domain such as shop.example, without @ (got %q)", s)
			return
		}
		p.add(path, n, Rule{Use: UseExclude, Match: MatchMailDomain, Value: strings.ToLower(s)})
	})
}

func (p *parser) traits(match string) field {
	return func(path string, n *yaml.Node) {
		p.list(path, n, func(path string, n *yaml.Node) {
			r := Rule{Use: UseExclude, Match: match}
			before := len(p.faults)
			p.mapping(path, n, map[string]field{"trait": p.text(&r.Key), "equals": p.text(&r.Value)})
			if len(p.faults) > before {
				return
			}
			if r.Key == "" || r.Value == "" {
				p.fault(path, n, "must have trait and equals")
				return
			}
			p.add(path, n, r)
		})
	}
}

func (p *parser) gap(path string, n *yaml.Node) {
	s, ok := p.scalar(path, n)
	if !ok {
		return
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Minute || d > 24*time.Hour || d%time.Second != 0 {
		p.fault(path, n, "must be a duration of 1m to 24h in whole seconds, such as 30m (got %q)", s)
		return
	}
	p.add(path, n, Rule{Use: UseSessionGap, Value: strconv.Itoa(int(d / time.Second))})
}
