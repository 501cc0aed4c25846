//go:build !unguarded

package rollup

// unguarded leaves out tokens and dedup windows. Only a build that measures what
// they cost has it: such a writer counts events twice.
const unguarded = false
