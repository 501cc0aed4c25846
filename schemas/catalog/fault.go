package catalog

import (
	"fmt"
	"sort"
	"strings"
)

// Fault is one fault of a catalog.
type Fault struct {
	Line int    // in the YAML text; 0 if it did not come from YAML
	Path string // such as products[0].modules[1].features[2].kind
	Text string // what is wrong, with the value
}

func (f Fault) String() string {
	var b strings.Builder
	if f.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", f.Line)
	}
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Text)
	return b.String()
}

// Faults is the error of Parse and Decode: all faults at once.
type Faults []Fault

// maxShownFaults bounds the text of an error.
const maxShownFaults = 100

func (fs Faults) Error() string {
	lines := make([]string, 0, len(fs)+1)
	for i, f := range fs {
		if i == maxShownFaults {
			lines = append(lines, fmt.Sprintf("and %d more", len(fs)-i))
			break
		}
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

// sorted sorts the faults by line.
func (fs Faults) sorted() Faults {
	sort.SliceStable(fs, func(i, j int) bool { return fs[i].Line < fs[j].Line })
	return fs
}
