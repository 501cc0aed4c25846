//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Enabled tells whether this build has failpoints.
const Enabled = true

// envPlan names the environment variable of the plan.
const envPlan = "UPTAKE_FAILPOINTS"

// point is one entry of a plan.
type point struct {
	at   int
	from bool         // at and every later hit
	act  func() error // nil: on, or an offset
	off  time.Duration
	text string
}

var (
	readEnv sync.Once
	mu      sync.Mutex // covers plan and hits
	plan    map[string][]point
	hits    = map[string]int{}
)

// Hit counts a step and does what the plan says for this count.
func Hit(name string) error {
	loadEnv()
	mu.Lock()
	hits[name]++
	n := hits[name]
	var todo []point
	for _, p := range plan[name] {
		if p.act != nil && (n == p.at || (p.from && n > p.at)) {
			todo = append(todo, p)
		}
	}
	mu.Unlock()
	for _, p := range todo {
		fmt.Fprintf(os.Stderr, "failpoint %s: %s at hit %d\n", name, p.text, n)
		if err := p.act(); err != nil {
			return fmt.Errorf("%s: %w: %w", name, ErrInjected, err)
		}
	}
	return nil
}

// Reach is Hit at a step whose caller has nothing to make of an error: it can kill,
// stop and sleep. An error that a plan names for it is told and has no effect.
func Reach(name string) { _ = Hit(name) }

// On tells whether the plan switches a mistake on.
func On(name string) bool {
	loadEnv()
	mu.Lock()
	defer mu.Unlock()
	for _, p := range plan[name] {
		if p.act == nil && p.off == 0 {
			return true
		}
	}
	return false
}

// Now is the time, off by what the plan says of the name clock.
func Now() time.Time {
	loadEnv()
	mu.Lock()
	defer mu.Unlock()
	now := time.Now()
	for _, p := range plan["clock"] {
		now = now.Add(p.off)
	}
	return now
}

// Set replaces the plan and starts counting anew; an empty spec is no plan.
func Set(spec string) error {
	readEnv.Do(func() {})
	p, err := parse(spec)
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	plan = p
	clear(hits)
	return nil
}

// Hits returns how often a step was reached since the plan was set.
func Hits(name string) int {
	mu.Lock()
	defer mu.Unlock()
	return hits[name]
}

// loadEnv reads the plan of the environment. A plan that cannot be read ends the
// process: a harness that injects nothing would prove nothing.
func loadEnv() {
	readEnv.Do(func() {
		p, err := parse(os.Getenv(envPlan))
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", envPlan, err)
			os.Exit(2)
		}
		mu.Lock()
		defer mu.Unlock()
		plan = p
	})
}

func parse(spec string) (map[string][]point, error) {
	p := map[string][]point{}
	for _, entry := range strings.Split(spec, ";") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		name, rest, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("failpoint %q: want name=action@n", entry)
		}
		pt, err := parsePoint(rest)
		if err != nil {
			return nil, fmt.Errorf("failpoint %q: %w", entry, err)
		}
		p[name] = append(p[name], pt)
	}
	return p, nil
}

func parsePoint(s string) (point, error) {
	pt := point{at: 1}
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		count, plus := strings.CutSuffix(s[i+1:], "+")
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 {
			return point{}, fmt.Errorf("hit must be a number from 1 (got %q)", s[i+1:])
		}
		pt.at, pt.from, s = n, plus, s[:i]
	}
	pt.text = s
	verb, arg, _ := strings.Cut(strings.TrimSuffix(s, ")"), "(")
	switch verb {
	case "kill":
		pt.act = func() error { return signal(syscall.SIGKILL) }
	case "stop":
		pt.act = func() error { return signal(syscall.SIGSTOP) }
	case "sleep":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return point{}, err
		}
		pt.act = func() error { time.Sleep(d); return nil }
	case "error":
		pt.act = func() error { return fmt.Errorf("%s", arg) }
	case "on":
	case "offset":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return point{}, err
		}
		pt.off = d
	default:
		return point{}, fmt.Errorf("action must be kill, stop, sleep(duration), error(text), on or offset(duration) (got %q)", verb)
	}
	return pt, nil
}

func signal(s syscall.Signal) error {
	if err := syscall.Kill(os.Getpid(), s); err != nil {
		return err
	}
	if s == syscall.SIGKILL {
		select {} // it has been sent; nothing after this step may run
	}
	return nil
}
