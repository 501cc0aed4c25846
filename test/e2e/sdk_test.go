package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

// sdkModules returns the folder of the SDK's packages, which npm installs from
// the lock file on first use.
func sdkModules(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: the embedded ClickHouse comes by it, too (Debian and Ubuntu: apt-get install npm)", tool)
		}
	}
	lock, err := os.ReadFile("sdk/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(lock)
	target := filepath.Join(root(t), ".cache", "e2e-sdk-"+hex.EncodeToString(sum[:6]))
	modules := filepath.Join(target, "node_modules")
	if isFile(filepath.Join(modules, "@segment", "analytics-node", "package.json")) {
		return modules
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(target), "e2e-sdk-tmp-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
		text, err := os.ReadFile(filepath.Join("sdk", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tmp, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(within(t, 5*time.Minute), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci of the SDK: %v\n%s", err, out)
	}
	_ = os.RemoveAll(target) // of an install that was cut short
	if err := os.Rename(tmp, target); err != nil && !isFile(filepath.Join(modules, "@segment", "analytics-node", "package.json")) {
		t.Fatal(err) // and no other process was faster
	}
	return modules
}

// sdkEvent is an event as the SDK says that it delivered it.
type sdkEvent struct {
	Type        string    `json:"type"`
	Event       string    `json:"event"`
	Name        string    `json:"name"`
	MessageID   string    `json:"messageId"`
	UserID      string    `json:"userId"`
	AnonymousID string    `json:"anonymousId"`
	PreviousID  string    `json:"previousId"`
	GroupID     string    `json:"groupId"`
	Timestamp   time.Time `json:"timestamp"`
	Traits      struct {
		Role string `json:"role"`
	} `json:"traits"`
	Context struct {
		GroupID string `json:"groupId"`
	} `json:"context"`
}

// event is what the oracle has to know of it.
func (e sdkEvent) event() *loadgen.Event {
	out := &loadgen.Event{
		Kind: e.Type, Name: e.Event, MessageID: e.MessageID, User: e.UserID, Anonymous: e.AnonymousID,
		Previous: e.PreviousID, Account: e.Context.GroupID, Role: e.Traits.Role, Time: e.Timestamp.UTC(),
	}
	switch e.Type {
	case "page", "screen":
		out.Name = e.Name
	case "group":
		out.Account = e.GroupID
	}
	return out
}

// sendBySDK sends every kind of call, rounds times, through the SDK.
func sendBySDK(t *testing.T, url, key string, rounds int) []*loadgen.Event {
	t.Helper()
	modules := sdkModules(t)
	cmd := exec.CommandContext(within(t, 2*time.Minute), "node", "sdk/send.mjs", url, key, fmt.Sprint(rounds), modules)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("send by @segment/analytics-node: %v\n%s", err, stderr.String())
	}
	var events []*loadgen.Event
	lines := bufio.NewScanner(&stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e sdkEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%v in what the SDK printed: %s", err, lines.Text())
		}
		events = append(events, e.event())
	}
	if want := rounds * 9; len(events) != want {
		t.Fatalf("the SDK delivered %d events, want %d", len(events), want)
	}
	return events
}

// What an SDK that people run sends through every kind of call is what ClickHouse
// shows, over both of its ports, seconds later.
func TestSDK(t *testing.T) {
	s, _ := forTest(t)
	checkSDK(t, s, appSDK)
}

// The same over three real brokers.
func TestSDKOverThreeBrokers(t *testing.T) {
	longtest.Only(t)
	log := kafka.ForTest(t, kafka.Config{Brokers: 3})
	layout := topic.DefaultLayout()
	layout.Partitions = 4
	s := stack.ForTest(t, stack.Config{Log: log, Layout: layout, Apps: apps})
	checkSDK(t, s, appSDK)
	underLoad(t, s, "three-", 4_000, func(func(int)) {})
}

func checkSDK(t *testing.T, s *stack.Stack, app string) {
	o := loadgen.NewOracle(app, loadgen.Resolved)
	all := sendBySDK(t, s.URLs()[0], stack.WriteKeyOf(app), 20)
	acked := time.Now()
	o.AddAcked(all...)
	equal(t, s, o)
	t.Logf("everything was visible %s after the SDK had sent it", time.Since(acked).Round(time.Millisecond))

	// The totals, as an analyst asks for them over HTTP.
	want := map[string]int{}
	for _, e := range all {
		switch e.Kind {
		case "track", "page", "screen":
			want[loadgen.PlaceOf(e.Name).Feature]++
		}
	}
	var lines []string
	for feature, n := range want {
		lines = append(lines, fmt.Sprintf("%s\t%d", feature, n))
	}
	sort.Strings(lines)
	q := fmt.Sprintf("SELECT feature_id, sum(events) FROM %s.account_feature_daily WHERE app_id = '%s' GROUP BY feature_id ORDER BY feature_id", stack.Database, app)
	got, err := s.ClickHouse.Query(within(t, time.Minute), q)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(lines, "\n"); strings.TrimSuffix(got, "\n") != want {
		t.Errorf("over HTTP: got\n%s\nwant\n%s", got, want)
	}

	// A key with a dot, a character beyond ASCII and quotes arrive as sent.
	var store string
	q = fmt.Sprintf("SELECT DISTINCT toString(properties.store_name) FROM %s.events WHERE app_id = ? AND event = 'Item Scanned'", stack.Database)
	if err := s.Conn.QueryRow(within(t, time.Minute), q, app).Scan(&store); err != nil || store != `Nørrebro "5"` {
		t.Errorf("properties.store_name: got %q, %v", store, err)
	}
}
