// Command drivers runs one SDK for Go against the addresses that the plan on standard
// input names, and prints what the SDK said of each: see ../run.js. It is a module of
// its own, outside the workspace, so that what the SDKs require does not choose the
// versions of the services' dependencies.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"
)

// scenario is one run of an SDK: every kind of call, or n events with a fault.
type scenario struct {
	Name  string `json:"name"`
	URL   string `json:"url"`
	Key   string `json:"key"`
	Calls bool   `json:"calls"`
	N     int    `json:"n"`
}

// batchSize is as many messages as the scenario sends, so that they go as one.
func (s scenario) batchSize(calls int) int {
	if s.Calls {
		return calls
	}
	return s.N
}

// report collects what an SDK says.
type report struct {
	mu      sync.Mutex // covers the fields below
	Errors  []string   `json:"errors"`
	Crashes []string   `json:"crashes"`

	messages sync.WaitGroup // that have not been called back for
}

func (r *report) fail(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Errors = append(r.Errors, err.Error())
}

// quiet is a logger of any SDK.
type quiet struct{}

func (quiet) Debugf(string, ...any) {}
func (quiet) Logf(string, ...any)   {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}

var then = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)

// impatient gives up on a reply after four seconds.
func impatient() *http.Transport {
	return &http.Transport{ResponseHeaderTimeout: 4 * time.Second}
}

func soon(int) time.Duration { return 100 * time.Millisecond }

var sdks = map[string]func(scenario, *report){
	"segment-go": runSegment, "posthog-go": runPostHog, "cloudevents-go": runCloudEvents, "otlp-go": runOTLP,
}

func main() {
	var plan struct {
		SDK       string     `json:"sdk"`
		Scenarios []scenario `json:"scenarios"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&plan); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	results := map[string]*report{}
	var running sync.WaitGroup
	for _, s := range plan.Scenarios {
		r := &report{}
		results[s.Name] = r
		running.Go(func() { sdks[plan.SDK](s, r) })
	}
	running.Wait()
	b, err := json.Marshal(results)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("\nRESULT %s\n", b)
}
