//go:build !linux && !darwin

package embedded

const (
	confineEnv = "UPTAKE_EMBEDDED_CLICKHOUSE_CONFINE"
	childEnv   = "UPTAKE_EMBEDDED_CLICKHOUSE_LIBRARY"
	parentEnv  = "UPTAKE_EMBEDDED_CLICKHOUSE_PARENT"
)

// ChildMain returns at once: there is no library for this platform, and Start
// says so.
func ChildMain() {}
