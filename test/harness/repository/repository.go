// Package repository finds the repository that a program runs in.
package repository

import (
	"fmt"
	"os"
	"path/filepath"
)

// Root returns the repository's root: the nearest folder from the working
// directory up that holds go.work.
func Root() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.work in %s or above: run this inside the repository", wd)
		}
	}
}
