// Package kit installs what tests take from package managers, below the repository's
// .cache, and finds the browser. A test that cannot have it is skipped with the reason.
package kit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/test/harness/repository"
)

// RequireEnv makes the absence of what a kit needs a failure.
const RequireEnv = "UPTAKE_REQUIRE_SDKS"

// Kit is a set of libraries that a package manager installs.
type Kit struct {
	Name  string   // of the folder below .cache
	Tools []string // that must be installed
	From  string   // folder of the files
	Files []string // that say what is installed; the folder is named after them
	// Install is the command that installs in the folder it runs in, where the files
	// are.
	Install []string
	Timeout time.Duration
}

// NPM is what a package.json in the folder from says, as its lock file has it. The lock
// file has no addresses (.npmrc), so that it holds with any registry.
func NPM(name, from string) Kit {
	return Kit{
		Name: name, Tools: []string{"node", "npm"}, From: from, Files: []string{"package.json", "package-lock.json", ".npmrc"},
		Install: []string{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"}, Timeout: 5 * time.Minute,
	}
}

// Folder returns the folder with the kit, which it installs once, and skips the
// test where that cannot be.
func (k *Kit) Folder(t *testing.T) string {
	t.Helper()
	missing := func(format string, args ...any) {
		t.Helper()
		what := fmt.Sprintf(format, args...)
		if os.Getenv(RequireEnv) != "" {
			t.Fatalf("%s (%s makes that a failure)", what, RequireEnv)
		}
		t.Skip("NOT TESTED: " + what)
	}
	for _, tool := range k.Tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing("%s is not installed", tool)
		}
	}
	files := map[string][]byte{}
	sum := sha256.New()
	for _, name := range k.Files {
		b, err := os.ReadFile(filepath.Join(k.From, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
		sum.Write(b)
	}
	root, err := repository.Root()
	if err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(root, ".cache")
	dir := filepath.Join(cache, k.Name+"-"+hex.EncodeToString(sum.Sum(nil)[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	// Installed beside and renamed, so that what is there is whole.
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(cache, k.Name+"-fetch-")
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
		t.Logf("%s: %v; once more\n%s", strings.Join(k.Install, " "), err, out)
		if out, err = k.run(t, fresh); err != nil {
			missing("the packages of %s could not be installed, since a package registry refused or could not be reached: %s: %v\n%s",
				k.From, strings.Join(k.Install, " "), err, out)
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
func (k *Kit) run(t *testing.T, dir string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), k.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, k.Install[0], k.Install[1:]...)
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

// Chromium returns the browser, and skips the test where there is none.
func Chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("UPTAKE_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const text = "no Chromium: install one, or name it in UPTAKE_CHROMIUM"
	if os.Getenv(RequireEnv) != "" {
		t.Fatal(text)
	}
	t.Skip("NOT TESTED: " + text)
	return ""
}
