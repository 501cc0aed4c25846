//go:build !unguarded

package rollup

// unguarded leaves out tokens and dedup windows. Only builds that measure their cost
// set it: such a writer counts events twice after a retry.
const unguarded = false
