package stack

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Run runs a command of a service, such as "audit" or "topics apply", against the stack's
// log and, of the writer, ClickHouse, and returns what it wrote to standard output. An error holds what
// it wrote to standard error.
func (s *Stack) Run(ctx context.Context, service string, command string, args ...string) (string, error) {
	all := strings.Fields(command)
	if command != "migrate" {
		all = append(all, s.common()...)
	}
	if service == Writer {
		all = append(all, s.tables(s.ClickHouse.NativeAddr())...)
	}
	cmd := exec.CommandContext(ctx, s.binaries[service], append(all, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s %s: %w\n%s", service, command, strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}
