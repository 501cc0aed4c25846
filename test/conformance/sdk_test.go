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

// requireEnv makes the absence of what the SDKs need a failure.
const requireEnv = "UPTAKE_REQUIRE_SDKS"

// root is the repository's root.
const root = "../.."

// kit is a set of SDKs that a package manager installs.
type kit struct {
	name  string   // of the folder below .cache
	tools []string // that must be installed
	from  string   // folder of the files
	files []string // that say what is installed; the folder is named after them
	// install is the command that installs in the folder it runs in, where the files
	// are.
	install []string
	timeout time.Duration
}

var npm = kit{
	name: "sdks", tools: []string{"node", "npm"}, from: ".", files: []string{"package.json", "package-lock.json", ".npmrc"},
	install: []string{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"}, timeout: 5 * time.Minute,
}

// folder returns the folder with the kit, which it installs once, and skips the
// test where that cannot be.
func (k *kit) folder(t *testing.T) string {
	t.Helper()
	missing := func(format string, args ...any) {
		t.Helper()
		what := fmt.Sprintf(format, args...)
		if os.Getenv(requireEnv) != "" {
			t.Fatalf("%s (%s makes that a failure)", what, requireEnv)
		}
		t.Skip("THE SDKS ARE NOT TESTED: " + what)
	}
	for _, tool := range k.tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing("%s is not installed", tool)
		}
	}
	files := map[string][]byte{}
	sum := sha256.New()
	for _, name := range k.files {
		b, err := os.ReadFile(filepath.Join(k.from, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
		sum.Write(b)
	}
	cache, err := filepath.Abs(filepath.Join(root, ".cache"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, k.name+"-"+hex.EncodeToString(sum.Sum(nil)[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	// Installed beside and renamed, so that what is there is whole.
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(cache, k.name+"-fetch-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	for name, b := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(fresh, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(fresh, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := k.run(t, fresh); err != nil {
		t.Logf("%s: %v; once more\n%s", strings.Join(k.install, " "), err, out)
		if out, err = k.run(t, fresh); err != nil {
			missing("the SDKs of %s could not be installed, since a package registry refused or could not be reached: %s: %v\n%s",
				k.from, strings.Join(k.install, " "), err, out)
		}
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, there := os.Stat(dir); there != nil { // another run was faster
			t.Fatal(err)
		}
	}
	return dir
}

// run installs the kit in dir.
func (k *kit) run(t *testing.T, dir string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), k.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, k.install[0], k.install[1:]...)
	cmd.Dir = dir
	return cmd.CombinedOutput()
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

// node runs the driver of an SDK for Node over scenarios.
func node(t *testing.T, dir, sdk string, scenarios []scenario) map[string]outcome {
	t.Helper()
	cmd := exec.Command("node", filepath.Join("drivers", "run.js"))
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"), "NODE_NO_WARNINGS=1")
	return drive(t, cmd, sdk, scenarios)
}

// drive runs a driver, which reads its plan from standard input and prints what the
// SDK said.
func drive(t *testing.T, cmd *exec.Cmd, sdk string, scenarios []scenario) map[string]outcome {
	t.Helper()
	plan, err := json.Marshal(map[string]any{"sdk": sdk, "scenarios": scenarios})
	if err != nil {
		t.Error(err)
		return nil
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "HTTP_PROXY=", "HTTPS_PROXY=", "http_proxy=", "https_proxy=")
	cmd.Stdin = bytes.NewReader(plan)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Errorf("%s: %v", sdk, err)
		return nil
	}
	timer := time.AfterFunc(6*time.Minute, func() { _ = cmd.Process.Kill() }) // fails when it has ended
	err = cmd.Wait()
	timer.Stop()
	if err != nil {
		t.Errorf("%s: %v\n%s\n%s", sdk, err, stdout.String(), stderr.String())
		return nil
	}
	for line := range strings.Lines(stdout.String()) {
		if text, ok := strings.CutPrefix(line, "RESULT "); ok {
			var results map[string]outcome
			if err := json.Unmarshal([]byte(text), &results); err != nil {
				t.Errorf("%s: %v", sdk, err)
			}
			return results
		}
	}
	t.Errorf("%s: no result\n%s\n%s", sdk, stdout.String(), stderr.String())
	return nil
}

func (o *outcome) fail(err error) {
	if err != nil {
		o.Errors = append(o.Errors, err.Error())
	}
}

func (o outcome) String() string {
	return fmt.Sprintf("errors %q, crashes %q", o.Errors, o.Crashes)
}
