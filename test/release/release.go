// Package release builds the binaries of a release and what comes with them: their
// checksums, a list of the modules in each (SBOM), and a report of licences.
//
// All of it follows from the source: two builds of a commit with the same Go
// release give the same files.
package release

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

// Services are the modules whose binaries are released.
var Services = []string{"ingest-gateway", "enricher", "rollup-writer"}

// Platforms are what binaries and images are built for.
var Platforms = []string{"linux/amd64", "linux/arm64"}

const ours = "github.com/uptakehq/uptake/"

// Build builds the services into out, with the flags of deploy/docker/Dockerfile,
// and writes SBOMs, licences and checksums beside them.
func Build(ctx context.Context, root, out string, platforms []string) error {
	if err := os.MkdirAll(out, 0o750); err != nil {
		return err
	}
	deps := map[string]*debug.Module{}
	for _, service := range Services {
		for _, platform := range platforms {
			goos, goarch, _ := strings.Cut(platform, "/")
			path, err := filepath.Abs(filepath.Join(out, service+"-"+goos+"-"+goarch))
			if err != nil {
				return err
			}
			cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s", "-o", path, ".")
			cmd.Dir = filepath.Join(root, service)
			cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
			if text, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("build %s for %s: %w\n%s", service, platform, err, text)
			}
			info, err := buildinfo.ReadFile(path)
			if err != nil {
				return fmt.Errorf("read modules of %s: %w", path, err)
			}
			sum, err := Checksum(path)
			if err != nil {
				return err
			}
			bom, err := SBOM(filepath.Base(path), sum, info)
			if err == nil {
				err = os.WriteFile(path+".cdx.json", bom, 0o600)
			}
			if err != nil {
				return err
			}
			for _, m := range modules(info) {
				deps[m.Path+"@"+m.Version] = m
			}
		}
	}
	report, err := Licences(ctx, root, deps)
	if err == nil {
		err = os.WriteFile(filepath.Join(out, "LICENCES.md"), report, 0o600)
	}
	if err != nil {
		return err
	}
	return writeChecksums(out)
}

// Checksum is the SHA-256 of a file, in hex.
func Checksum(path string) (string, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// writeChecksums writes SHA256SUMS, which `sha256sum -c` reads.
func writeChecksums(dir string) error {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, e := range entries {
		if e.IsDir() || e.Name() == "SHA256SUMS" {
			continue
		}
		sum, err := Checksum(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, e.Name())
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(b.String()), 0o600)
}

// modules are those of others in a binary, as they were built.
func modules(info *debug.BuildInfo) []*debug.Module {
	var list []*debug.Module
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		if !strings.HasPrefix(m.Path, ours) && !strings.HasPrefix(m.Path, ".") {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b *debug.Module) int { return cmp.Compare(a.Path, b.Path) })
	return list
}

// Component of a CycloneDX document.
type component struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	PURL    string `json:"purl,omitempty"`
	Hashes  []hash `json:"hashes,omitempty"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

// SBOM lists the modules of a binary and the Go release that built it, in
// CycloneDX 1.5 (https://cyclonedx.org/docs/1.5/json/). It has no time and no serial
// number: those would differ in each build.
func SBOM(name, sum string, info *debug.BuildInfo) ([]byte, error) {
	var doc struct {
		Format   string `json:"bomFormat"`
		Spec     string `json:"specVersion"`
		Version  int    `json:"version"`
		Metadata struct {
			Component component `json:"component"`
		} `json:"metadata"`
		Components []component `json:"components"`
	}
	doc.Format, doc.Spec, doc.Version = "CycloneDX", "1.5", 1
	doc.Metadata.Component = component{Type: "application", Name: name, Version: info.Main.Version, Hashes: []hash{{"SHA-256", sum}}}
	doc.Components = []component{{Type: "library", Name: "std", Version: info.GoVersion, PURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")}}
	for _, m := range modules(info) {
		doc.Components = append(doc.Components, component{Type: "library", Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + m.Version})
	}
	b, err := json.MarshalIndent(doc, "", " ")
	return append(b, '\n'), err
}

// kinds of licences, by a phrase that each has and the ones before it lack.
var kinds = []struct {
	name   string
	phrase *regexp.Regexp
}{
	{"MPL-2.0", regexp.MustCompile(`(?i)Mozilla Public License,? Version 2\.0`)},
	{"AGPL", regexp.MustCompile(`(?i)GNU AFFERO GENERAL PUBLIC`)},
	{"LGPL", regexp.MustCompile(`(?i)GNU LESSER GENERAL PUBLIC`)},
	{"GPL", regexp.MustCompile(`(?i)GNU GENERAL PUBLIC`)},
	{"Apache-2.0", regexp.MustCompile(`(?i)Apache License\s+Version 2\.0|apache\.org/licenses/LICENSE-2\.0`)},
	{"BSD-3-Clause", regexp.MustCompile(`(?i)neither the name of|names of its contributors`)},
	{"BSD-2-Clause", regexp.MustCompile(`(?i)redistributions in binary form`)},
	{"MIT", regexp.MustCompile(`(?i)permission is hereby granted, free of charge`)},
	{"ISC", regexp.MustCompile(`(?i)permission to use, copy, modify, and(/or)? distribute this software`)},
}

// Kind names the licence that a text is, "" where it is none that is known.
func Kind(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, k := range kinds {
		if k.phrase.MatchString(text) {
			return k.name
		}
	}
	return ""
}

// Allowed are licences under which what a binary contains may be given away with it.
var Allowed = []string{"MPL-2.0", "Apache-2.0", "BSD-3-Clause", "BSD-2-Clause", "MIT", "ISC"}

// Licences reports the licence of each module, from the text in its source. It is
// an error if a module has none that is in Allowed.
func Licences(ctx context.Context, root string, deps map[string]*debug.Module) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Licences of what the binaries contain\n\n| module | version | licence |\n|---|---|---|\n")
	var errs []error
	keys := make([]string, 0, len(deps))
	for k := range deps {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if len(keys) == 0 {
		return nil, errors.New("licences: there are no modules")
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"mod", "download", "-json"}, keys...)...)
	cmd.Dir = filepath.Join(root, "schemas")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("find the sources of modules: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var m struct{ Path, Version, Dir string }
		err := dec.Decode(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("find the sources of modules: %w", err)
		}
		kind := licenceIn(m.Dir)
		if !slices.Contains(Allowed, kind) {
			errs = append(errs, fmt.Errorf("%s@%s has the licence %q: see %s", m.Path, m.Version, kind, m.Dir))
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", m.Path, m.Version, kind)
	}
	return b.Bytes(), errors.Join(errs...)
}

func licenceIn(dir string) string {
	for _, pattern := range []string{"LICENSE*", "LICENCE*", "License*", "license*", "COPYING*"} {
		files, _ := filepath.Glob(filepath.Join(dir, pattern)) // the pattern is well-formed
		for _, f := range files {
			if text, err := os.ReadFile(filepath.Clean(f)); err == nil {
				if kind := Kind(string(text)); kind != "" {
					return kind
				}
			}
		}
	}
	return ""
}
