package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// requireEnv makes the absence of npm and Node a failure.
const requireEnv = "UPTAKE_REQUIRE_SDKS"

// root is the repository's root.
const root = "../.."

// sdks returns the folder with the SDKs' node_modules, which it fetches once, and
// skips the test where that cannot be.
func sdks(t *testing.T) string {
	t.Helper()
	missing := func(format string, args ...any) {
		t.Helper()
		if os.Getenv(requireEnv) != "" {
			t.Fatalf(format, args...)
		}
		t.Skipf("THE SDKS ARE NOT TESTED: "+format, args...)
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing("%s is not installed", tool)
		}
	}
	files := map[string][]byte{}
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
	}
	sum := sha256.Sum256(files["package-lock.json"])
	cache, err := filepath.Abs(filepath.Join(root, ".cache"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "sdks-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	// Fetched beside and renamed, so that what is there is whole.
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(cache, "sdks-fetch-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(fresh, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = fresh
	if out, err := cmd.CombinedOutput(); err != nil {
		missing("npm ci: %v\n%s", err, out)
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, there := os.Stat(dir); there != nil { // another run was faster
			t.Fatal(err)
		}
	}
	return dir
}

// scenario is one run of an SDK.
type scenario struct {
	Name  string `json:"name"`
	URL   string `json:"url"`
	Key   string `json:"key"`
	Calls bool   `json:"calls"`
	N     int    `json:"n"`
	Fault string `json:"fault"`
	Path  string `json:"path"`
	Batch bool   `json:"batch"`
}

// outcome is what the SDK said.
type outcome struct {
	Errors  []string `json:"errors"`
	Crashes []string `json:"crashes"`
}

// node runs an SDK's driver over scenarios.
func node(t *testing.T, dir, sdk string, scenarios []scenario) map[string]outcome {
	t.Helper()
	plan, err := json.Marshal(map[string]any{"sdk": sdk, "scenarios": scenarios})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", filepath.Join("drivers", "run.js"))
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"), "NODE_NO_WARNINGS=1", "HTTP_PROXY=", "HTTPS_PROXY=", "http_proxy=", "https_proxy=")
	cmd.Stdin = bytes.NewReader(plan)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s\n%s", sdk, err, stdout.String(), stderr.String())
	}
	for line := range strings.Lines(stdout.String()) {
		if text, ok := strings.CutPrefix(line, "RESULT "); ok {
			var results map[string]outcome
			if err := json.Unmarshal([]byte(text), &results); err != nil {
				t.Fatal(err)
			}
			return results
		}
	}
	t.Fatalf("%s: no result\n%s\n%s", sdk, stdout.String(), stderr.String())
	return nil
}

func (o outcome) String() string {
	return fmt.Sprintf("errors %q, crashes %q", o.Errors, o.Crashes)
}
