//go:build unguarded

package rollup

const unguarded = true
