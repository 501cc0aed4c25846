package bench

import (
	"fmt"
	"strings"
)

// benchApp is the app of every load.
const benchApp = "dev"

// feature is one of the catalog's, and what an event needs to be matched by it.
type feature struct {
	id, module, product string
	kind, event         string
	property, value     string // that an event carries; empty: none
	where               string // the rule, in YAML; empty: found by name
}

// featureOf is the i-th feature of a catalog. The first ones are found by name,
// the rest in turns by the path of a page, the route of an API call and a
// property of an event.
func featureOf(i int, cfg Config) feature {
	f := feature{id: fmt.Sprintf("feature_%d", i), module: fmt.Sprintf("module_%d", i%modules), product: fmt.Sprintf("product_%d", i%modules%products)}
	if i < cfg.Features-cfg.RuleFeatures {
		f.kind, f.event = "track", fmt.Sprintf("Thing %d Done", i)
		return f
	}
	switch i % 3 {
	case 0:
		f.kind, f.event = "page", "Item"
		f.property, f.value = "path", fmt.Sprintf("/shop/s%d/items/%d/tab%d", i%7, i%11, i)
		f.where = fmt.Sprintf(`path: "/shop/{shop}/items/{item}/tab%d"`, i)
	case 1:
		f.kind, f.event = "api_call", fmt.Sprintf("POST /v1/r%d/77", i)
		f.property, f.value = "method", "POST"
		f.where = fmt.Sprintf(`method: POST, route: "/v1/r%d/{id}"`, i)
	default:
		f.kind, f.event = "track", "Button Clicked"
		f.property, f.value = "button_id", fmt.Sprintf("b%d", i)
		f.where = fmt.Sprintf("event: Button Clicked, where: [{property: button_id, equals: b%d}]", i)
	}
	return f
}

const (
	modules  = 20
	products = 4
)

// catalogText is the catalog of a load.
func catalogText(cfg Config) []byte {
	var b strings.Builder
	b.WriteString("catalog: bench\nproducts:\n")
	for p := range products {
		fmt.Fprintf(&b, "  - name: Product %d\n    modules:\n", p)
		for m := p; m < modules; m += products {
			fmt.Fprintf(&b, "      - name: Module %d\n        features:\n", m)
			for i := m; i < cfg.Features; i += modules {
				f := featureOf(i, cfg)
				fmt.Fprintf(&b, "          - name: Feature %d\n", i)
				if f.where == "" {
					fmt.Fprintf(&b, "            events: [%s]\n", f.event)
					continue
				}
				fmt.Fprintf(&b, "            events: []\n            rules: [{%s}]\n", f.where)
			}
			if m >= cfg.Features {
				b.WriteString("          []\n")
			}
		}
	}
	b.WriteString("...\n")
	return []byte(b.String())
}
