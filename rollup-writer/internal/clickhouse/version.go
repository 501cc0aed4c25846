package clickhouse

import (
	"fmt"
	"strconv"
	"strings"
)

// minVersion is the oldest release line with everything that the tables and the pinned
// settings need.
var minVersion = []int{26, 5}

// ClickHouse #112649: with dedup on, a view that changes the number of rows and
// feeds a partitioned table reads out of bounds. Fixed from these on, in each
// line, and in every later line.
var fixed112649 = [][]int{{26, 5, 7, 20}, {26, 6, 3, 19}, {26, 7, 3, 9}, {26, 8}}

// CheckVersion returns an error if a server must not be used with tables of that form,
// and a warning for one that may.
func CheckVersion(version string, cluster bool) (notice string, err error) {
	v, err := parseVersion(version)
	if err != nil {
		return "", err
	}
	if before(v, minVersion) {
		return "", fmt.Errorf("ClickHouse %s is too old: 26.5 is needed, and 26.8.36.3 or later recommended", version)
	}
	if isFixed(v) {
		return "", nil
	}
	const bug = "has ClickHouse issue 112649 (out-of-bounds reads where views feed partitioned tables)"
	if cluster {
		return "", fmt.Errorf("ClickHouse %s %s, and the rollups of the cluster form are partitioned: use 26.5.7.20, 26.6.3.19, 26.7.3.9 or 26.8 and later; 26.8.36.3 or later is recommended", version, bug)
	}
	return fmt.Sprintf("ClickHouse %s %s; the rollups of the single form are not partitioned, so that it is not met. Use 26.8.36.3 or later for a server", version, bug), nil
}

func parseVersion(version string) ([]int, error) {
	var v []int
	for _, part := range strings.Split(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			break // 26.8.36.3-altinity, 26.8.36.3.altinitystable
		}
		v = append(v, n)
	}
	if len(v) < 2 {
		return nil, fmt.Errorf("ClickHouse calls its version %q, which is no version", version)
	}
	return v, nil
}

// before compares versions as far as b has components.
func before(a, b []int) bool {
	for i := range b {
		if i >= len(a) {
			return true
		}
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func isFixed(v []int) bool {
	last := fixed112649[len(fixed112649)-1]
	if !before(v, last) {
		return true
	}
	for _, f := range fixed112649 {
		if v[0] == f[0] && v[1] == f[1] {
			return !before(v, f)
		}
	}
	return false
}
