//go:build !linux || !amd64

package replicated

// ChildMain does nothing: the library that is known is for Linux.
func ChildMain() {}
