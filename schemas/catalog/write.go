package catalog

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/schemas/svc/wholefile"
)

// YAML returns the catalog as people write it: what is as it would be if left
// out is left out. Parse reads the same catalog back.
func (c *Catalog) YAML() ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(catalogNode(c)); err != nil {
		return nil, fmt.Errorf("write catalog %s: %w", c.Name, err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write catalog %s: %w", c.Name, err)
	}
	out.WriteString(wholefile.Mark)
	return out.Bytes(), nil
}

func mapping() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode} }

func text(s string) *yaml.Node {
	n := &yaml.Node{}
	if n.SetString(s); strings.HasSuffix(s, "\n") {
		n.Style = yaml.DoubleQuotedStyle // the end of a block is none of its text
	}
	return n
}

func put(m *yaml.Node, key string, value *yaml.Node) {
	m.Content = append(m.Content, text(key), value)
}

// putText leaves out what is empty or as by default.
func putText(m *yaml.Node, key, value, otherwise string) {
	if value != "" && value != otherwise {
		put(m, key, text(value))
	}
}

func texts(values []string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, v := range values {
		n.Content = append(n.Content, text(v))
	}
	return n
}

func items[T any](values []T, one func(*T) *yaml.Node) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range values {
		n.Content = append(n.Content, one(&values[i]))
	}
	return n
}

func catalogNode(c *Catalog) *yaml.Node {
	m := mapping()
	put(m, "catalog", text(c.Name))
	putText(m, "description", c.Description, "")
	put(m, "products", items(c.Products, productNode))
	if len(c.Metrics) > 0 {
		put(m, "metrics", items(c.Metrics, metricNode))
	}
	if h := c.History; h.Default != "" || h.Unmapped != "" || len(h.Features) > 0 {
		hm := mapping()
		putText(hm, "default", h.Default, "")
		putText(hm, "unmapped", h.Unmapped, "")
		if len(h.Features) > 0 {
			fm := mapping()
			for _, id := range sortedKeys(h.Features) {
				put(fm, id, text(h.Features[id]))
			}
			put(hm, "features", fm)
		}
		put(m, "history", hm)
	}
	if l := c.Lint; l.Convention != "" || l.Casing != "" || len(l.Synonyms) > 0 || len(l.Ignore) > 0 {
		lm := mapping()
		putText(lm, "convention", l.Convention, "")
		putText(lm, "casing", l.Casing, "")
		if len(l.Synonyms) > 0 {
			put(lm, "synonyms", items(l.Synonyms, func(s *[]string) *yaml.Node { return texts(*s) }))
		}
		if len(l.Ignore) > 0 {
			put(lm, "ignore", items(l.Ignore, func(ig *Ignore) *yaml.Node {
				im := mapping()
				put(im, "check", text(ig.Check))
				put(im, "id", text(ig.ID))
				put(im, "reason", text(ig.Reason))
				return im
			}))
		}
		put(m, "lint", lm)
	}
	return m
}

func putHead(m *yaml.Node, id, name, owner, purpose string) {
	put(m, "name", text(name))
	putText(m, "id", id, Slug(name))
	putText(m, "owner", owner, "")
	putText(m, "purpose", purpose, "")
}

func productNode(p *Product) *yaml.Node {
	m := mapping()
	putHead(m, p.ID, p.Name, p.Owner, p.Purpose)
	putText(m, "status", p.Status, StatusActive)
	put(m, "modules", items(p.Modules, moduleNode))
	return m
}

func moduleNode(mod *Module) *yaml.Node {
	m := mapping()
	putHead(m, mod.ID, mod.Name, mod.Owner, mod.Purpose)
	putText(m, "status", mod.Status, StatusActive)
	put(m, "features", items(mod.Features, featureNode))
	return m
}

func featureNode(f *Feature) *yaml.Node {
	m := mapping()
	putHead(m, f.ID, f.Name, f.Owner, f.Purpose)
	put(m, "kind", text(f.Kind))
	putText(m, "status", f.Status, StatusActive)
	putNames(m, f.Name, f.Names)
	if len(f.Rules) > 0 {
		put(m, "rules", items(f.Rules, ruleNode))
	}
	if len(f.Replaces) > 0 {
		put(m, "replaces", texts(f.Replaces))
	}
	return m
}

func putNames(m *yaml.Node, name string, names []string) {
	if len(names) > 0 && names[0] == name {
		if len(names) > 1 {
			put(m, "aliases", texts(names[1:]))
		}
		return
	}
	put(m, "events", texts(names))
}

func ruleNode(r *Rule) *yaml.Node {
	m := mapping()
	putText(m, "kind", r.Kind, impliedKind(r))
	putText(m, "event", r.Event, "")
	putText(m, "path", r.Path, "")
	putText(m, "method", r.Method, "")
	putText(m, "route", r.Route, "")
	if len(r.Where) > 0 {
		put(m, "where", items(r.Where, predicateNode))
	}
	if r.Priority != 0 {
		put(m, "priority", scalar("!!int", strconv.Itoa(r.Priority)))
	}
	return m
}

func scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

func predicateNode(p *Predicate) *yaml.Node {
	m := mapping()
	m.Style = yaml.FlowStyle
	putText(m, "property", p.Property, "")
	putText(m, "context", p.Context, "")
	if p.Equals != nil {
		put(m, "equals", text(*p.Equals))
	}
	if len(p.In) > 0 {
		put(m, "in", texts(p.In))
	}
	if p.Not != nil {
		put(m, "not_equals", text(*p.Not))
	}
	if len(p.NotIn) > 0 {
		put(m, "not_in", texts(p.NotIn))
	}
	if p.Exists != nil {
		put(m, "exists", scalar("!!bool", strconv.FormatBool(*p.Exists)))
	}
	putText(m, "prefix", p.Prefix, "")
	putText(m, "suffix", p.Suffix, "")
	putText(m, "contains", p.Contains, "")
	number := func(key string, v *float64) {
		if v != nil {
			put(m, key, scalar("!!float", strconv.FormatFloat(*v, 'g', -1, 64)))
		}
	}
	number("gt", p.GT)
	number("gte", p.GTE)
	number("lt", p.LT)
	number("lte", p.LTE)
	return m
}

func metricNode(mt *Metric) *yaml.Node {
	m := mapping()
	putHead(m, mt.ID, mt.Name, mt.Owner, mt.Purpose)
	put(m, "semantics", text(mt.Semantics))
	putText(m, "unit", mt.Unit, "")
	putNames(m, mt.Name, mt.Names)
	return m
}
