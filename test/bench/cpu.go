package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, which Linux shows to every program as 100.
const ticksPerSecond = 100

// cpuOf reads a process's user and system time (proc_pid_stat(5), fields 14
// and 15).
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command name is in parentheses and may hold spaces.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// peakOf reads a process's peak resident memory in bytes.
func peakOf(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64) // 0 where the kernel says nothing
			return kb << 10
		}
	}
	return 0
}

// span measures CPU and wall time of a process from start to stop.
type span struct {
	pid   int
	cpu   time.Duration
	start time.Time
}

func startSpan(pid int) (span, error) {
	cpu, err := cpuOf(pid)
	return span{pid, cpu, time.Now()}, err
}

func (s span) stop(events int) (Sample, error) {
	cpu, err := cpuOf(s.pid)
	return Sample{Events: events, CPU: cpu - s.cpu, Wall: time.Since(s.start), PeakRSS: peakOf(s.pid)}, err
}
