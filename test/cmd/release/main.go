// Command release builds the binaries of a release for every platform into a
// folder, with an SBOM of each, a report of licences, and SHA256SUMS.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/test/harness/repository"
	"github.com/uptakehq/uptake/test/release"
)

func main() { os.Exit(process.Main(os.Stderr, "release", run)) }

func run() error {
	set := flag.NewFlagSet("release", flag.ContinueOnError)
	out := set.String("out", "bin/release", "`folder` to write to")
	platforms := set.String("platforms", strings.Join(release.Platforms, ","), "platforms to build for, separated by commas")
	if err := set.Parse(os.Args[1:]); err != nil {
		return err
	}
	root, err := repository.Root()
	if err != nil {
		return err
	}
	if err := release.Build(context.Background(), root, *out, strings.Split(*platforms, ",")); err != nil {
		return err
	}
	fmt.Println(*out)
	return nil
}
