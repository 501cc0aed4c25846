package release

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/longtest"
)

const root = "../.."

// step is an instruction of a Dockerfile, with its continuation lines joined.
type step struct{ name, args string }

// stages of deploy/docker/Dockerfile, by the name after AS.
func stages(t *testing.T) map[string][]step {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", "docker", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	all, stage := map[string][]step{}, ""
	for _, line := range strings.Split(strings.ReplaceAll(string(text), "\\\n", " "), "\n") {
		name, args, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case name == "" || strings.HasPrefix(name, "#"):
		case name == "FROM":
			_, stage, _ = strings.Cut(args, " AS ")
			all[stage] = []step{{name, args}}
		default:
			all[stage] = append(all[stage], step{name, args})
		}
	}
	return all
}

// The Dockerfile copies what the build needs, and has an image for each service.
func TestDockerfile(t *testing.T) {
	all := stages(t)
	copied := map[string]bool{}
	for _, s := range all["build"] {
		if s.name != "COPY" {
			continue
		}
		words := strings.Fields(s.args)
		for _, from := range words[:len(words)-1] {
			if _, err := os.Stat(filepath.Join(root, from)); err != nil {
				t.Errorf("COPY %s: %v", s.args, err)
			}
			copied[from] = true
		}
	}
	for _, service := range append([]string{"schemas"}, Services...) {
		if !copied[service] || !copied[service+"/go.mod"] || !copied[service+"/go.sum"] {
			t.Errorf("the build lacks %s or its go.mod and go.sum", service)
		}
	}
	for _, service := range Services {
		if !slices.Contains(all[service], step{"ENTRYPOINT", `["/` + service + `"]`}) || !slices.Contains(all[service], step{"CMD", `["serve"]`}) {
			t.Errorf("the image of %s is %v", service, all[service])
		}
	}
	if !slices.Contains(all["base"], step{"USER", "65532:65532"}) {
		t.Error("images run as root")
	}
	bake, err := os.ReadFile(filepath.Join(root, "deploy", "docker", "bake.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range append(slices.Clone(Platforms), Services...) {
		if !strings.Contains(string(bake), `"`+want+`"`) {
			t.Errorf("deploy/docker/bake.hcl does not build %s", want)
		}
	}
}

// perform runs the build stage of the Dockerfile below dir and returns the
// checksums of what it builds.
func perform(t *testing.T, dir, arch string) map[string]string {
	t.Helper()
	env := append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+arch)
	local := strings.NewReplacer("/out", dir+"/out", "/data", dir+"/data").Replace
	src := filepath.Join(dir, "src")
	shell := func(command string) {
		t.Helper()
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir, cmd.Env = src, env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	if err := os.MkdirAll(src, 0o750); err != nil {
		t.Fatal(err)
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stages(t)["build"] {
		switch s.name {
		case "FROM", "WORKDIR", "ARG":
		case "ENV":
			env = append(env, strings.Fields(s.args)...)
		case "COPY":
			words := strings.Fields(s.args)
			to := words[len(words)-1]
			for _, from := range words[:len(words)-1] {
				if strings.HasSuffix(to, "/") {
					shell("mkdir -p " + to + " && cp " + abs + "/" + from + " " + to)
				} else {
					shell("mkdir -p " + to + " && cp -R " + abs + "/" + from + "/. " + to)
				}
			}
		case "RUN":
			shell(local(s.args))
		default:
			t.Fatalf("the build has a step that this test does not know: %v", s)
		}
	}
	sums := map[string]string{}
	for _, service := range Services {
		if sums[service], err = Checksum(filepath.Join(dir, "out", service)); err != nil {
			t.Fatal(err)
		}
	}
	return sums
}

// The steps of the Dockerfile, carried out in two folders, give the same binaries,
// for the other platform too; with them come SBOMs, licences and checksums.
func TestBuildsAreReproducible(t *testing.T) {
	longtest.Only(t)
	first, second := perform(t, t.TempDir(), "amd64"), perform(t, t.TempDir(), "amd64")
	for _, service := range Services {
		if first[service] != second[service] {
			t.Errorf("%s: two builds differ: %s and %s", service, first[service], second[service])
		}
	}
	other := perform(t, t.TempDir(), "arm64")
	if other["enricher"] == first["enricher"] {
		t.Error("the platform makes no difference")
	}
	out := t.TempDir()
	if err := Build(t.Context(), root, out, []string{"linux/amd64"}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sha256sum", "-c", "SHA256SUMS")
	cmd.Dir = out
	if text, err := cmd.CombinedOutput(); err != nil || strings.Count(string(text), ": OK") != 7 {
		t.Errorf("checksums: %v\n%s", err, text)
	}
}

// This test's own modules stand for those of a binary.
func TestSBOMAndLicences(t *testing.T) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("no build information")
	}
	info.Deps = append(info.Deps, &debug.Module{Path: "example.com/replaced", Version: "v1.0.0", Replace: &debug.Module{Path: "../local"}},
		&debug.Module{Path: "go.yaml.in/yaml/v3", Version: "v3.0.6"})
	text, err := SBOM("service", "abc", info)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		BOMFormat, SpecVersion string
		Metadata               struct {
			Component struct {
				Hashes []struct{ Alg, Content string }
			}
		}
		Components []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.BOMFormat != "CycloneDX" || doc.SpecVersion != "1.5" || doc.Metadata.Component.Hashes[0].Content != "abc" {
		t.Errorf("got %+v", doc)
	}
	seen := map[string]bool{}
	for _, c := range doc.Components {
		seen[c.PURL] = true
		if strings.HasPrefix(c.Name, ours) || strings.HasPrefix(c.Name, ".") || c.Version == "" {
			t.Errorf("%s %s is listed", c.Name, c.Version)
		}
	}
	if !seen["pkg:golang/go.yaml.in/yaml/v3@v3.0.6"] {
		t.Errorf("got %v", seen)
	}
	report, err := Licences(t.Context(), root, map[string]*debug.Module{"go.yaml.in/yaml/v3@v3.0.6": nil})
	if err != nil || !regexp.MustCompile(`\| go\.yaml\.in/yaml/v3 \| v3\.0\.6 \| (MIT|Apache-2\.0) \|`).Match(report) {
		t.Errorf("licences: %v\n%s", err, report)
	}
}

func TestKind(t *testing.T) {
	own, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string]string{
		"Apache-2.0":   string(own),
		"MIT":          "Permission is hereby granted, free of\ncharge, to any person",
		"BSD-3-Clause": "Redistributions in binary form must ... Neither the name of the copyright holder",
		"BSD-2-Clause": "Redistributions in binary form must reproduce",
		"GPL":          "GNU General Public License, version 3",
		"":             "All rights reserved.",
	} {
		if got := Kind(text); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// RELEASES names each release, the newest first, with a commit of this repository.
func TestReleases(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "RELEASES"))
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^(\d+\.\d+\.\d+) ([0-9a-f]{40}) (\d{4}-\d{2}-\d{2})$`)
	n := 0
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		m := form.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("RELEASES: %q is not version, commit and date", line)
			continue
		}
		n++
		if out, err := exec.Command("git", "-C", root, "cat-file", "-e", m[2]+"^{commit}").CombinedOutput(); err != nil {
			if shallow, _ := exec.Command("git", "-C", root, "rev-parse", "--is-shallow-repository").Output(); strings.TrimSpace(string(shallow)) == "false" {
				t.Errorf("release %s: commit %s: %v %s", m[1], m[2], err, out)
			}
		}
		if n > 1 {
			continue
		}
		chart, err := os.ReadFile(filepath.Join(root, "deploy", "helm", "uptake", "Chart.yaml"))
		if err != nil || !strings.Contains(string(chart), `appVersion: "`+m[1]+`"`) {
			t.Errorf("the chart's appVersion is not the newest release %s: %v", m[1], err)
		}
	}
	if n == 0 {
		t.Error("RELEASES names none")
	}
}
