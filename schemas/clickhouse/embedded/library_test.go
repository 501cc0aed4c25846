package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestLockFileHasChecksumAndNoAddress(t *testing.T) {
	text, err := npm.ReadFile("npm/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("resolved")) || bytes.Contains(text, []byte("://")) {
		t.Error("the lock file names an address")
	}
	var lock struct {
		Packages map[string]struct{ Version, Integrity string }
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		t.Fatal(err)
	}
	got := lock.Packages["node_modules/"+packageName]
	if got.Version != PackageVersion || !strings.HasPrefix(got.Integrity, "sha512-") {
		t.Errorf("locked: got %+v, want version %s with a checksum", got, PackageVersion)
	}
	npmrc, err := npm.ReadFile("npm/.npmrc")
	if err != nil || string(npmrc) != "omit-lockfile-registry-resolved=true\n" {
		t.Errorf(".npmrc: got %q, %v", npmrc, err)
	}
}

// Several callers fetch into an empty cache at once; one runs npm, all get the
// same whole library, and nothing else is left behind.
func TestFetchOnceForAll(t *testing.T) {
	if testing.Short() {
		t.Skip("unpacks 570 MB; not under -short")
	}
	if err := supported("linux", "amd64"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stale := filepath.Join(dir, "chdb-"+PackageVersion+".tmp-123")
	if err := os.Mkdir(stale, 0o755); err != nil { // of a fetch that was killed
		t.Fatal(err)
	}
	var mu sync.Mutex
	var progress bytes.Buffer
	var wg sync.WaitGroup
	paths, errs := make([]string, 3), make([]error, 3)
	for i := range paths {
		wg.Go(func() {
			var own bytes.Buffer
			paths[i], errs[i] = fetch(context.Background(), dir, &own)
			mu.Lock()
			defer mu.Unlock()
			progress.Write(own.Bytes())
		})
	}
	wg.Wait()
	for i := range paths {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if want := libraryIn(filepath.Join(dir, "chdb-"+PackageVersion)); paths[i] != want {
			t.Errorf("got %s, want %s", paths[i], want)
		}
	}
	info, err := os.Stat(paths[0])
	if err != nil || info.Size() < 500_000_000 {
		t.Errorf("library: got %v, %v; want more than 500 MB", info, err)
	}
	if got := strings.Count(progress.String(), ": 0 of 569 MB"); got != 1 {
		t.Errorf("npm ran %d times, want 1:\n%s", got, progress.String())
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) != 2 { // the library and the lock
		t.Errorf("in the cache: got %v, %v", names, err)
	}
}

func TestNpmMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := fetch(t.Context(), t.TempDir(), &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "apt-get install npm") || !strings.Contains(err.Error(), LibraryEnv) {
		t.Errorf("got %v, want the command that installs npm and the other way out", err)
	}
}

func TestNpmFailureIsShown(t *testing.T) {
	bin := t.TempDir()
	script := "#!/bin/sh\necho the registry is on fire >&2\nexit 7\n"
	if err := os.WriteFile(filepath.Join(bin, "npm"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	dir := t.TempDir()
	_, err := fetch(t.Context(), dir, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "the registry is on fire") || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("got %v, want what npm said", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestExplicitLibrary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "libchdb.so")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(LibraryEnv, path)
	if got, err := Library(t.Context(), nil); err != nil || got != path {
		t.Errorf("got %q, %v; want %q", got, err, path)
	}
	t.Setenv(LibraryEnv, path+".missing")
	if _, err := Library(t.Context(), nil); err == nil || !strings.Contains(err.Error(), path+".missing") {
		t.Errorf("missing: got %v", err)
	}
}

func TestPlatforms(t *testing.T) {
	for platform, want := range map[[2]string]string{
		{"linux", "arm64"}:   "@chdb/lib-linux-arm64-gnu@" + PackageVersion,
		{"darwin", "arm64"}:  "@chdb/lib-darwin-arm64@" + PackageVersion,
		{"windows", "amd64"}: "run a ClickHouse server",
	} {
		if err := supported(platform[0], platform[1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want it to name %s", platform, err, want)
		}
	}
}
