//go:build !linux && !darwin

package embedded

import (
	"context"
	"syscall"
)

func childAttr() *syscall.SysProcAttr { return nil }

func awaitUnlocked(context.Context, string) error { return nil }

func lockFile(context.Context, string) (unlock func(), err error) { return func() {}, nil }
