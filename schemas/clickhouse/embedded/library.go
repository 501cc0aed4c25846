package embedded

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

const (
	// PackageVersion is the one version of the npm package that is used. The
	// package's "latest" tag is older and lacks the listener.
	PackageVersion = "26.7.3-stable.1"
	// LibraryEnv is the environment variable that names libchdb.so.
	LibraryEnv = "UPTAKE_LIBCHDB"

	packageName = "@chdb/lib-linux-x64-gnu"
	// unpackedBytes is the size of the unpacked package, for progress only.
	unpackedBytes = 569_042_837
)

// npm holds package.json, the lock file with the package's checksum (and no
// address: npm asks the registry that the machine is configured for) and the
// .npmrc that keeps addresses out of the lock file when it is renewed.
//
//go:embed npm/package.json npm/package-lock.json npm/.npmrc
var npm embed.FS

// Library returns the path of libchdb.so. It looks at the environment variable
// [LibraryEnv], then into .cache at the root of this repository when the
// working directory is inside it, then into the user's cache directory; if
// there is none it is fetched through npm, about 180 MB, into the repository's
// cache if there is one and else into the user's. Progress gets lines about
// that and may be nil. Any number of processes may call it at once: one
// fetches, the others wait for it.
func Library(ctx context.Context, progress io.Writer) (string, error) {
	return findLibrary(ctx, "", progress)
}

func findLibrary(ctx context.Context, explicit string, progress io.Writer) (string, error) {
	if explicit == "" {
		explicit = os.Getenv(LibraryEnv)
	}
	if explicit != "" {
		path, err := filepath.Abs(explicit)
		if err != nil {
			return "", fmt.Errorf("find ClickHouse library: %w", err)
		}
		if !isFile(path) {
			return "", fmt.Errorf("find ClickHouse library: %s, which was named explicitly, is not a file", path)
		}
		return path, nil
	}
	if err := supported(runtime.GOOS, runtime.GOARCH); err != nil {
		return "", err
	}
	dirs, err := cacheDirs()
	if err != nil {
		return "", fmt.Errorf("find ClickHouse library: %w", err)
	}
	for _, dir := range dirs {
		if path := libraryIn(filepath.Join(dir, "chdb-"+PackageVersion)); isFile(path) {
			return path, nil
		}
	}
	if progress == nil {
		progress = io.Discard
	}
	path, err := fetch(ctx, dirs[0], progress)
	if err != nil {
		return "", fmt.Errorf("fetch ClickHouse library: %w", err)
	}
	return path, nil
}

// supported says what to do on platforms for which the lock file has no entry.
func supported(goos, goarch string) error {
	if goos == "linux" && goarch == "amd64" {
		return nil
	}
	sibling := map[string]string{
		"linux/arm64":  "@chdb/lib-linux-arm64-gnu",
		"darwin/arm64": "@chdb/lib-darwin-arm64",
		"darwin/amd64": "@chdb/lib-darwin-x64",
	}[goos+"/"+goarch]
	if sibling == "" {
		return fmt.Errorf("no embedded ClickHouse for %s/%s: run a ClickHouse server and name its address instead", goos, goarch)
	}
	return fmt.Errorf("the embedded ClickHouse is locked for linux/amd64 only: on %s/%s run `npm install %s@%s` "+
		"and set %s to the libchdb.so in it, or run a ClickHouse server and name its address instead",
		goos, goarch, sibling, PackageVersion, LibraryEnv)
}

// cacheDirs lists where the library may lie, the place to fetch it to first.
func cacheDirs() ([]string, error) {
	var dirs []string
	if wd, err := os.Getwd(); err == nil {
		for dir := wd; ; dir = filepath.Dir(dir) {
			if isFile(filepath.Join(dir, "go.work")) && isFile(filepath.Join(dir, "schemas", "clickhouse", "embedded", "library.go")) {
				dirs = append(dirs, filepath.Join(dir, ".cache"))
				break
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	user, err := os.UserCacheDir()
	if err == nil {
		dirs = append(dirs, filepath.Join(user, "uptake"))
	} else if len(dirs) == 0 {
		return nil, fmt.Errorf("no place to keep it (set %s): %w", LibraryEnv, err)
	}
	return dirs, nil
}

func libraryIn(dir string) string {
	return filepath.Join(dir, "node_modules", filepath.FromSlash(packageName), "libchdb.so")
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() > 0
}

// fetch runs npm in a directory beside the target and renames it, so that a
// library that is there is whole.
func fetch(ctx context.Context, cacheDir string, progress io.Writer) (string, error) {
	npmPath, err := exec.LookPath("npm")
	if err != nil {
		return "", fmt.Errorf("npm is needed and is not installed (Debian and Ubuntu: apt-get install npm; "+
			"elsewhere it comes with Node.js), or set %s to a libchdb.so of %s: %w", LibraryEnv, PackageVersion, err)
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", err
	}
	target := filepath.Join(cacheDir, "chdb-"+PackageVersion)
	unlock, err := lockFile(ctx, target+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if path := libraryIn(target); isFile(path) {
		return path, nil // another process was faster
	}
	left, err := filepath.Glob(target + ".tmp-*")
	if err != nil {
		return "", err
	}
	for _, dir := range append(left, target) { // of a process that was killed
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
	}
	tmp, err := os.MkdirTemp(cacheDir, filepath.Base(target)+".tmp-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
		text, err := npm.ReadFile("npm/" + name)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(tmp, name), text, 0o644); err != nil {
			return "", err
		}
	}
	if err := npmCI(ctx, npmPath, tmp, progress); err != nil {
		return "", err
	}
	if !isFile(libraryIn(tmp)) {
		return "", fmt.Errorf("npm ci left no %s", libraryIn(tmp))
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, target); err != nil {
		return "", err
	}
	return libraryIn(target), nil
}

func npmCI(ctx context.Context, npmPath, dir string, progress io.Writer) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, npmPath, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start npm ci: %w", err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { showProgress(progress, dir, stop) })
	err := cmd.Wait()
	close(stop)
	wg.Wait()
	if err != nil {
		return fmt.Errorf("npm ci for %s@%s: %w\n%s", packageName, PackageVersion, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// showProgress writes how much lies in dir until stop is closed: on a terminal
// into one line, elsewhere as a line whenever another quarter is there.
func showProgress(w io.Writer, dir string, stop <-chan struct{}) {
	file, ok := w.(*os.File)
	terminal := false
	if ok {
		info, err := file.Stat()
		terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	const total = unpackedBytes / 1_000_000
	line := func(mb int64) string {
		return fmt.Sprintf("fetching ClickHouse (%s %s) through npm: %d of %d MB unpacked", packageName, PackageVersion, mb, int64(total))
	}
	if !terminal {
		fmt.Fprintln(w, line(0))
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var quarters int64
	for {
		mb := dirBytes(dir) / 1_000_000
		if terminal {
			fmt.Fprintf(w, "\r%s", line(mb))
		} else if q := mb * 4 / total; q > quarters {
			quarters = q
			fmt.Fprintln(w, line(mb))
		}
		select {
		case <-stop:
			if terminal {
				fmt.Fprintf(w, "\r%s\n", line(dirBytes(dir)/1_000_000))
			}
			return
		case <-tick.C:
		}
	}
}

func dirBytes(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // npm renames while it works
			}
			return err
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
