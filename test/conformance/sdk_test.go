package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/test/harness/kit"
)

// root is the repository's root.
const root = "../.."

var npm = kit.NPM("sdks", ".")

// scenario is one run of an SDK.
type scenario struct {
	Name  string `json:"name"`
	URL   string `json:"url"`
	Key   string `json:"key"`
	Calls bool   `json:"calls"`
	N     int    `json:"n"`
	Fault string `json:"fault"`
	Path  string `json:"path"`
	Batch bool   `json:"batch"`
}

// outcome is what the SDK said.
type outcome struct {
	Errors  []string `json:"errors"`
	Crashes []string `json:"crashes"`
}

// node runs the driver of an SDK for Node over scenarios.
func node(t *testing.T, dir, sdk string, scenarios []scenario) map[string]outcome {
	t.Helper()
	cmd := exec.Command("node", filepath.Join("drivers", "run.js"))
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"), "NODE_NO_WARNINGS=1")
	return drive(t, cmd, sdk, scenarios)
}

// drive runs a driver, which reads its plan from standard input and prints what the
// SDK said.
func drive(t *testing.T, cmd *exec.Cmd, sdk string, scenarios []scenario) map[string]outcome {
	t.Helper()
	plan, err := json.Marshal(map[string]any{"sdk": sdk, "scenarios": scenarios})
	if err != nil {
		t.Error(err)
		return nil
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "HTTP_PROXY=", "HTTPS_PROXY=", "http_proxy=", "https_proxy=")
	cmd.Stdin = bytes.NewReader(plan)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Errorf("%s: %v", sdk, err)
		return nil
	}
	timer := time.AfterFunc(6*time.Minute, func() { _ = cmd.Process.Kill() }) // fails when it has ended
	err = cmd.Wait()
	timer.Stop()
	if err != nil {
		t.Errorf("%s: %v\n%s\n%s", sdk, err, stdout.String(), stderr.String())
		return nil
	}
	for line := range strings.Lines(stdout.String()) {
		if text, ok := strings.CutPrefix(line, "RESULT "); ok {
			var results map[string]outcome
			if err := json.Unmarshal([]byte(text), &results); err != nil {
				t.Errorf("%s: %v", sdk, err)
			}
			return results
		}
	}
	t.Errorf("%s: no result\n%s\n%s", sdk, stdout.String(), stderr.String())
	return nil
}

func (o *outcome) fail(err error) {
	if err != nil {
		o.Errors = append(o.Errors, err.Error())
	}
}

func (o outcome) String() string {
	return fmt.Sprintf("errors %q, crashes %q", o.Errors, o.Crashes)
}
