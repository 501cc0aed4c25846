package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/ingest-gateway/gateway"
)

// TestEverySourceIsDocumented holds the pages in docs/sources against the routes.
func TestEverySourceIsDocumented(t *testing.T) {
	index, err := os.ReadFile(filepath.Join(root, "docs", "sources", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range gateway.Protocols() {
		page, err := os.ReadFile(filepath.Join(root, "docs", "sources", p.Name()+".md"))
		if err != nil {
			t.Errorf("%s: %v", p.Name(), err)
			continue
		}
		if !strings.Contains(string(index), "]("+p.Name()+".md)") {
			t.Errorf("the index does not name %s", p.Name())
		}
		for _, r := range p.Routes() {
			path := strings.TrimSuffix(r.Path, "/batch")
			if p.Name() == "segment" {
				// The browser's one letters are there in words, pixels as a pattern.
				if len(r.Path) == len("/v1/x") || strings.HasPrefix(r.Path, "/pixel/") {
					continue
				}
				path = r.Path
			}
			if path != "" && !strings.Contains(string(page), "`"+path+"`") && !strings.Contains(string(page), "`"+r.Path+"`") {
				t.Errorf("%s.md does not name %s %s", p.Name(), r.Method, r.Path)
			}
		}
	}
}
