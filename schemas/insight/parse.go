package insight

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/schemas/yamldoc"
)

// Parse reads definitions in YAML. The error, if any, is [Faults].
func Parse(text []byte) (*Definitions, error) {
	if len(text) > MaxBytes {
		return nil, Faults{{Text: fmt.Sprintf("must be at most %d bytes (got %d)", MaxBytes, len(text))}}
	}
	root, faults := yamldoc.Document(text)
	if len(faults) > 0 {
		return nil, faults
	}
	if root == nil {
		return nil, Faults{{Line: 1, Column: 1, Text: "is empty"}}
	}
	p := parser{d: &Definitions{lines: map[Rule]position{}}}
	p.file(root)
	if p.d.Name == "" && len(p.Faults) == 0 {
		p.Fault("insight", root, "must name the definitions")
	}
	if len(p.Faults) == 0 {
		p.resolve()
	}
	p.d.Rules = append(p.d.Rules, p.d.Signals.rules()...)
	if len(p.d.Rules) > MaxRules {
		p.Faults = append(p.Faults, Fault{Text: fmt.Sprintf("must be at most %d rules (got %d)", MaxRules, len(p.d.Rules))})
	}
	if len(p.Faults) > 0 {
		return nil, p.Faults.Sorted()
	}
	slices.SortFunc(p.d.Rules, compareRules)
	return p.d, nil
}

// parser walks the nodes of the one document.
type parser struct {
	yamldoc.Reader
	d     *Definitions
	count int // of signals
}

type field = yamldoc.Field

func (p *parser) file(n *yaml.Node) {
	milestones := map[string]field{}
	for _, m := range Milestones() {
		milestones[m] = p.references(m, MatchFeature, MatchEvent)
	}
	milestones["steps"] = p.steps()
	p.Mapping("", n, map[string]field{
		"insight":     p.text(&p.d.Name),
		"description": p.text(&p.d.Description),
		"activity":    p.references(UseActivity, MatchFeature, MatchModule, MatchProduct),
		"exclude": func(path string, n *yaml.Node) {
			p.Mapping(path, n, map[string]field{
				"users":          p.values(UseExclude, MatchUser),
				"mail_domains":   p.domains,
				"user_agents":    p.userAgents,
				"user_traits":    p.traits(MatchTrait),
				"accounts":       p.values(UseExclude, MatchAccount),
				"account_traits": p.traits(MatchAccountTrait),
				"roles":          p.values(UseExclude, MatchRole),
			})
		},
		"milestones": func(path string, n *yaml.Node) { p.Mapping(path, n, milestones) },
		"friction":   p.references(UseFriction, MatchFeature, MatchEvent),
		"segments":   p.segments(),
		"health":     p.health(),
		"alerts":     p.alerts(),
		"sessions": func(path string, n *yaml.Node) {
			p.Mapping(path, n, map[string]field{"gap": p.gap})
		},
		"seats": func(path string, n *yaml.Node) {
			p.Mapping(path, n, map[string]field{"trait": func(path string, n *yaml.Node) {
				if s, ok := p.Word(path, n); ok {
					p.add(path, n, Rule{Use: UseSeats, Match: MatchAccountTrait, Key: s})
				}
			}})
		},
	})
}

func (p *parser) text(into *string) field {
	return func(path string, n *yaml.Node) { *into, _ = p.Word(path, n) }
}

func (p *parser) add(path string, n *yaml.Node, r Rule) {
	if _, ok := p.d.lines[r]; ok {
		p.Fault(path, n, "is given twice")
		return
	}
	p.d.lines[r] = position{n.Line, n.Column}
	p.d.Rules = append(p.d.Rules, r)
}

// references reads a list of words such as item_scanned, module:billing or
// event:Sign-up Viewed; a word without a kind is the first of kinds.
func (p *parser) references(use string, kinds ...string) field {
	return func(path string, n *yaml.Node) {
		p.List(path, n, func(path string, n *yaml.Node) {
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
	s, ok := p.Word(path, n)
	if !ok {
		return "", "", false
	}
	match, value = kinds[0], s
	if kind, rest, found := strings.Cut(s, ":"); found {
		if match, value = kind, strings.TrimSpace(rest); !slices.Contains(kinds, kind) {
			p.Fault(path, n, "must be a feature id or one of %s: and a name (got %q)", strings.Join(kinds, ":, "), s)
			return "", "", false
		}
	}
	if value == "" {
		p.Fault(path, n, "must name something after %q", match+":")
		return "", "", false
	}
	return match, value, true
}

func (p *parser) values(use, match string) field {
	return func(path string, n *yaml.Node) {
		p.List(path, n, func(path string, n *yaml.Node) {
			if s, ok := p.Word(path, n); ok {
				p.add(path, n, Rule{Use: use, Match: match, Value: s})
			}
		})
	}
}

func (p *parser) domains(path string, n *yaml.Node) {
	p.List(path, n, func(path string, n *yaml.Node) {
		s, ok := p.Word(path, n)
		if !ok {
			return
		}
		if strings.Contains(s, "@") || !strings.Contains(s, ".") {
			p.Fault(path, n, "must be a domain such as shop.example, without @ (got %q)", s)
			return
		}
		p.add(path, n, Rule{Use: UseExclude, Match: MatchMailDomain, Value: strings.ToLower(s)})
	})
}

func (p *parser) userAgents(path string, n *yaml.Node) {
	if n.Kind == yaml.SequenceNode && len(n.Content) > MaxUserAgents {
		p.Fault(path, n, "must be at most %d user agents (got %d)", MaxUserAgents, len(n.Content))
		return
	}
	p.List(path, n, func(path string, n *yaml.Node) {
		s, ok := p.Word(path, n)
		if !ok {
			return
		}
		if len(s) < 3 || len(s) > 200 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			p.Fault(path, n, "must be a part of a user agent such as Googlebot, 3 to 200 characters of ASCII (got %q)", s)
			return
		}
		p.add(path, n, Rule{Use: UseExclude, Match: MatchUserAgent, Value: strings.ToLower(s)})
	})
}

func (p *parser) traits(match string) field {
	return func(path string, n *yaml.Node) {
		p.List(path, n, func(path string, n *yaml.Node) {
			r := Rule{Use: UseExclude, Match: match}
			before := len(p.Faults)
			p.Mapping(path, n, map[string]field{"trait": p.text(&r.Key), "equals": p.text(&r.Value)})
			if len(p.Faults) > before {
				return
			}
			if r.Key == "" || r.Value == "" {
				p.Fault(path, n, "must have trait and equals")
				return
			}
			p.add(path, n, r)
		})
	}
}

func (p *parser) gap(path string, n *yaml.Node) {
	s, ok := p.Word(path, n)
	if !ok {
		return
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Minute || d > 24*time.Hour || d%time.Second != 0 {
		p.Fault(path, n, "must be a duration of 1m to 24h in whole seconds, such as 30m (got %q)", s)
		return
	}
	p.add(path, n, Rule{Use: UseSessionGap, Value: strconv.Itoa(int(d / time.Second))})
}
