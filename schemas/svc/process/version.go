package process

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// Build describes the source that a binary was built from.
type Build struct {
	Version string // of the module: a tag, or (devel)
	Commit  string // with "+" if files were changed since; empty where the toolchain has not stamped it
	Go      string
}

// ReadBuild reads the build information of the toolchain.
func ReadBuild() Build {
	b := Build{Version: "(devel)", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	changed := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	if changed {
		b.Commit += "+"
	}
	return b
}

// PrintVersion prints the version if args ask for it, and reports whether it did.
func PrintVersion(name string, args []string, stdout io.Writer) bool {
	if len(args) == 0 || (args[0] != "-version" && args[0] != "--version") {
		return false
	}
	b := ReadBuild()
	if b.Commit == "" {
		b.Commit = "unknown"
	}
	fmt.Fprintf(stdout, "%s %s, commit %s, %s\n", name, b.Version, b.Commit, b.Go)
	return true
}
