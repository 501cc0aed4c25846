package catalog

import "strings"

// Names finds the name that is most similar to that of an event, for events that match
// no feature.
type Names struct {
	names []string
	words [][]string // of each
}

// NewNames prepares the search among names.
func NewNames(names []string) *Names {
	n := &Names{names: names, words: make([][]string, len(names))}
	for i, name := range names {
		n.words[i] = words(name)
	}
	return n
}

// FeatureNames prepares the search among the catalog's features by their ids, names and
// event names. It finds ids.
func FeatureNames(c *Catalog) *Names {
	n := &Names{}
	c.Each(func(_ *Product, _ *Module, f *Feature) {
		for _, name := range append([]string{f.ID, f.Name}, f.Names...) {
			n.names, n.words = append(n.names, f.ID), append(n.words, words(name))
		}
	})
	return n
}

// To returns the name that shares the most words with event, or "" if none shares more
// than half of them.
func (n *Names) To(event string) string {
	best, most := "", 0.5
	of := words(event)
	for i, have := range n.words {
		shared := 0
		for _, w := range of {
			for _, h := range have {
				if w == h {
					shared++
					break
				}
			}
		}
		if share := 2 * float64(shared) / float64(max(1, len(of)+len(have))); share > most {
			best, most = n.names[i], share
		}
	}
	return best
}

// words returns the words of a name in lower case, in any style of writing, so that
// `Clicked Button`, `button_click` and `ctaTapped` become comparable.
func words(name string) []string {
	var b strings.Builder
	lower := false
	for _, r := range name {
		if r >= 'A' && r <= 'Z' && lower {
			b.WriteByte(' ')
		}
		lower = r >= 'a' && r <= 'z'
		b.WriteRune(r)
	}
	fields := strings.FieldsFunc(strings.ToLower(b.String()), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r < 128 })
	for i, f := range fields {
		for _, ending := range []string{"ing", "ed", "s"} {
			if len(f) > len(ending)+3 && strings.HasSuffix(f, ending) {
				f = strings.TrimSuffix(f, ending)
				if n := len(f); f[n-1] == f[n-2] { // scanned, tapped
					f = f[:n-1]
				}
				fields[i] = f
				break
			}
		}
	}
	return fields
}
