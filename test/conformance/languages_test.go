//go:build languages

package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// language is one in which SDKs run in a process of their own.
type language struct {
	name string
	kit  kit
	// command runs the driver of the language's SDKs, given the kit's folder.
	command func(dir string) *exec.Cmd
}

var languages = []language{
	{
		name: "Python",
		kit: kit{
			name: "sdks-python", tools: []string{"python3"}, from: "drivers/python", files: []string{"requirements.txt"},
			install: []string{"python3", "-m", "pip", "install", "--quiet", "--no-deps", "--target", "lib", "-r", "requirements.txt"}, timeout: 10 * time.Minute,
		},
		command: func(dir string) *exec.Cmd {
			cmd := exec.Command("python3", "drivers/python/run.py")
			cmd.Env = append(cmd.Environ(), "PYTHONPATH="+filepath.Join(dir, "lib"), "PYTHONDONTWRITEBYTECODE=1")
			return cmd
		},
	},
	{
		name: "Java",
		kit: kit{
			name: "sdks-java", tools: []string{"java", "javac", "mvn"}, from: "drivers/java", files: []string{"pom.xml", "Drivers.java"},
			install: []string{"sh", "-c", `mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib && javac -nowarn -cp 'lib/*' -d classes Drivers.java`}, timeout: 10 * time.Minute,
		},
		command: func(dir string) *exec.Cmd {
			return exec.Command("java", "-cp", filepath.Join(dir, "classes")+":"+filepath.Join(dir, "lib", "*"), "Drivers")
		},
	},
}

// languageClients are the SDKs of each language. They make their calls and meet no
// faults: those are the libraries' own, and the gateway's part in them is that of
// TestSDKs.
func languageClients() map[string][]client {
	all := map[string][]client{"Python": pythonClients(), "Java": javaClients()}
	for _, clients := range all {
		for i := range clients {
			clients[i].noFaults = true
		}
	}
	return all
}

func init() {
	for _, clients := range languageClients() {
		languageSDKs = append(languageSDKs, clients...)
	}
}

// TestLanguages has the SDKs of languages other than those of TestSDKs make their calls:
// go test -tags languages ./test/conformance -run TestLanguages.
func TestLanguages(t *testing.T) {
	s := forTest(t)
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			dir := l.kit.folder(t)
			clients := languageClients()[l.name]
			said := map[string]outcome{}
			for _, c := range clients {
				p := newProxy(t, s.url(), none)
				sc := scenario{Name: callsScenario, URL: p.URL, Key: keyOf(appOf(c.sdk, callsScenario)), Calls: true}
				if c.prefix {
					sc.URL += "/" + c.protocol
				}
				said[c.sdk] = drive(t, l.command(dir), c.sdk, []scenario{sc})[callsScenario]
				p.Close() // waits for what is under way
			}
			s.settled(t)
			events, rejected := s.events(t), s.rejected(t)
			for _, c := range clients {
				t.Run(c.sdk, func(t *testing.T) {
					app := appOf(c.sdk, callsScenario)
					if o := said[c.sdk]; len(o.Errors)+len(o.Crashes) > 0 {
						t.Errorf("the SDK says %s", o)
					}
					compare(t, c, events[app])
					compareRejected(t, c, rejected[app])
					s.compareTraits(t, c, app)
				})
			}
		})
	}
}

// spread are the calls of Segment's SDK and of RudderStack's.
func spread() []want {
	return []want{
		{call: "track", kind: event.KindTrack, event: "Item Scanned", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
		{call: "identify", kind: event.KindIdentify, user: "maria", anonymous: "anon-1", traits: obj{"plan": "pro"}},
		{call: "group", kind: event.KindGroup, user: "maria", account: "corner-shop", traits: obj{"seats": 3.0}},
		{call: "page", kind: event.KindPage, event: "Cart", user: "maria", properties: obj{"path": "/cart"}},
		{call: "screen", kind: event.KindScreen, event: "Home", anonymous: "anon-1"},
		{call: "alias", kind: event.KindAlias, user: "maria", previous: "maria-old"},
	}
}

func cloudEventCalls() []want {
	return []want{
		{call: "binary", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 binary", user: "maría", account: "corner shop", at: then, properties: obj{"sku": "4006"}},
		{call: "structured", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 structured", user: "maría", account: "corner shop", at: then, properties: obj{"sku": "4006"}},
	}
}

// javaCloudEvents have an ASCII name in binary mode: the JDK's client makes question
// marks of other letters in header fields.
func javaCloudEvents() []want {
	calls := cloudEventCalls()
	calls[0].user = "maria"
	return calls
}

func recordCalls() []want {
	return []want{{
		call: "emit", kind: event.KindTrack, event: "item.scanned", user: "maria", account: "corner-shop", at: then,
		properties: obj{"price": 1.5, "ok": true, "sku": "4006"}, context: obj{"scope": obj{"name": "scanner", "version": "1.0"}},
	}}
}

// mixpanelProfiles are the calls about people and groups, in the order in which
// they are made.
func mixpanelProfiles() []want {
	return []want{
		{call: "set", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"plan": "pro"}},
		{call: "set once", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$set_once": obj{"first": 1.0}}},
		{call: "increment", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$add": obj{"logins": 1.0}}},
		{call: "append", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$append": obj{"tags": "a"}}},
		{call: "union", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$union": obj{"list": []any{"x"}}}},
		{call: "remove", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$remove": obj{"list": "x"}}},
		{call: "unset", kind: event.KindIdentify, event: "$engage", user: "maria", noTime: true, traits: obj{"$unset": []any{"plan"}}},
		{call: "delete", kind: event.KindIdentify, event: "$engage", user: "jo", noTime: true, traits: obj{"$delete": ""}},
		{call: "group set", kind: event.KindGroup, event: "$group", account: "corner-shop", noTime: true, traits: obj{"seats": 3.0}},
	}
}

var (
	spreadUsers   = people{"maria": {"plan": "pro"}}
	seats         = people{"corner-shop": {"seats": "3"}}
	mixpanelUsers = people{"maria": {"first": "1", "logins": "1", "tags": `["a"]`, "list": "[]"}, "jo": {}}
)

func pythonClients() []client {
	return []client{
		{protocol: "segment", sdk: "segment-python", version: "segment-analytics-python 2.4.0", sentAt: true, calls: spread(), users: spreadUsers, accounts: seats},
		{protocol: "segment", sdk: "rudder-python", version: "rudder-sdk-python 2.1.9", sentAt: true, calls: spread(), users: spreadUsers, accounts: seats},
		{
			protocol: "posthog", sdk: "posthog-python", version: "posthog (Python) 7.91.1", prefix: true, sentAt: true,
			users: people{"maria": {"plan": "pro", "since": "2020"}}, accounts: seats,
			calls: []want{
				{call: "capture", kind: event.KindTrack, event: "Item Scanned", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "capture without an id", kind: event.KindTrack, event: "Job Ran", anonymous: anyID},
				{call: "set", kind: event.KindIdentify, event: "$set", user: "maria", traits: obj{"plan": "pro"}},
				{call: "set_once", kind: event.KindIdentify, event: "$set_once", user: "maria", traits: obj{"$set_once": obj{"since": 2020.0}}},
				{call: "group_identify", kind: event.KindGroup, event: "$groupidentify", account: "corner-shop", traits: obj{"seats": 3.0}},
				{call: "alias", kind: event.KindAlias, event: "$create_alias", user: "maria", previous: "maria-old"},
			},
		},
		{
			protocol: "mixpanel", sdk: "mixpanel-python", version: "mixpanel (Python) 5.4.1", prefix: true,
			calls: slices.Concat([]want{
				{call: "track", kind: event.KindTrack, event: "Item Scanned", user: "maria", account: "corner-shop", at: then.Truncate(time.Second), properties: obj{"sku": "4006"}},
				{call: "import_data", kind: event.KindTrack, event: "Old", user: "maria", at: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)},
			}, mixpanelProfiles(), []want{
				{call: "BufferedConsumer", kind: event.KindTrack, event: "Buffered A", user: "maria", properties: obj{"q": ">>>???ü"}},
				{call: "BufferedConsumer", kind: event.KindTrack, event: "Buffered B", user: "maria"},
			}),
			users: mixpanelUsers, accounts: seats,
		},
		{
			protocol: "amplitude", sdk: "amplitude-python", version: "amplitude-analytics 1.3.0", prefix: true,
			calls: amplitudeCalls(), accounts: seats,
		},
		{
			protocol: "moesif", sdk: "moesif-python", version: "moesifapi (Python) 1.5.5", prefix: true, calls: moesifCalls(),
		},
		{protocol: "cloudevents", sdk: "cloudevents-python", version: "cloudevents (Python) 2.2.0", prefix: true, calls: cloudEventCalls()},
		{protocol: "otlp", sdk: "otlp-python", version: "opentelemetry-exporter-otlp-proto-http 1.45.2, gzip", calls: recordCalls()},
	}
}

func moesifCalls() []want {
	return []want{
		{call: "update user", kind: event.KindIdentify, user: "maria", account: "corner-shop", noTime: true, traits: obj{"plan": "pro"}},
		{call: "update users", kind: event.KindIdentify, user: "jo", noTime: true},
		{call: "update users", kind: event.KindIdentify, user: "ann", noTime: true},
		{call: "update company", kind: event.KindGroup, account: "corner-shop", noTime: true, traits: obj{"company_domain": "corner.example", "seats": 3.0}},
		{call: "update subscription", kind: event.KindGroup, event: "subscription", account: "corner-shop", noTime: true, traits: obj{"subscription": obj{"subscription_id": "s-1", "status": "active"}}},
		{
			call: "API call", kind: event.KindAPICall, event: "POST /v1/orders/{id}", user: "maria", account: "corner-shop", at: then,
			properties: obj{"method": "POST", "route": "/v1/orders/{id}", "path": "/v1/orders/4711", "status": 201.0, "region": "eu"},
		},
	}
}

func javaClients() []client {
	return []client{
		{protocol: "segment", sdk: "segment-java", version: "com.segment.analytics.java 3.5.4", sentAt: true, calls: spread(), users: spreadUsers, accounts: seats},
		{protocol: "segment", sdk: "rudder-java", version: "com.rudderstack.sdk.java.analytics 3.1.2", sentAt: true, calls: spread(), users: spreadUsers, accounts: seats},
		{
			protocol: "posthog", sdk: "posthog-java", version: "com.posthog:posthog-server 2.3.3", sentAt: true,
			users: spreadUsers, accounts: seats,
			calls: []want{
				{call: "capture", kind: event.KindTrack, event: "Item Scanned", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "identify", kind: event.KindIdentify, event: "$identify", user: "maria", traits: obj{"plan": "pro"}},
				{call: "group", kind: event.KindGroup, event: "$groupidentify", user: "maria", account: "corner-shop", traits: obj{"seats": 3.0}},
				{call: "alias", kind: event.KindAlias, event: "$create_alias", user: "maria", previous: "maria-old"},
			},
		},
		{
			protocol: "mixpanel", sdk: "mixpanel-java", version: "com.mixpanel:mixpanel-java 1.6.1", prefix: true,
			calls: slices.Concat([]want{
				{call: "event", kind: event.KindTrack, event: "Item Scanned", id: "m-track", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "importEvent", kind: event.KindTrack, event: "Old", id: "m-old", user: "maria", at: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)},
			}, mixpanelProfiles()),
			users: mixpanelUsers, accounts: seats,
		},
		{protocol: "moesif", sdk: "moesif-java", version: "com.moesif.api:moesifapi 1.8.5", calls: moesifCalls()},
		{protocol: "cloudevents", sdk: "cloudevents-java", version: "io.cloudevents:cloudevents-http-basic 4.0.1", prefix: true, calls: javaCloudEvents()},
		{protocol: "otlp", sdk: "otlp-java", version: "io.opentelemetry:opentelemetry-exporter-otlp 1.68.0, gzip", prefix: true, calls: recordCalls()},
	}
}

// kit is a set of SDKs that a package manager installs.
type kit struct {
	name  string   // of the folder below .cache
	tools []string // that must be installed
	from  string   // folder of the files
	files []string // that say what is installed; the folder is named after them
	// install is the command that installs in the folder it runs in, where the files
	// are.
	install []string
	timeout time.Duration
}

// folder returns the folder with the kit, which it installs once, and skips the
// test where that cannot be.
func (k *kit) folder(t *testing.T) string {
	t.Helper()
	missing := func(format string, args ...any) {
		t.Helper()
		if os.Getenv(requireEnv) != "" {
			t.Fatalf(format, args...)
		}
		t.Skipf("THE SDKS ARE NOT TESTED: "+format, args...)
	}
	for _, tool := range k.tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing("%s is not installed", tool)
		}
	}
	files := map[string][]byte{}
	sum := sha256.New()
	for _, name := range k.files {
		b, err := os.ReadFile(filepath.Join(k.from, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
		sum.Write(b)
	}
	cache, err := filepath.Abs(filepath.Join(root, ".cache"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, k.name+"-"+hex.EncodeToString(sum.Sum(nil)[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	// Installed beside and renamed, so that what is there is whole.
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(cache, k.name+"-fetch-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	for name, b := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(fresh, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(fresh, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), k.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, k.install[0], k.install[1:]...)
	cmd.Dir = fresh
	if out, err := cmd.CombinedOutput(); err != nil {
		missing("%s: %v\n%s", strings.Join(k.install, " "), err, out)
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, there := os.Stat(dir); there != nil { // another run was faster
			t.Fatal(err)
		}
	}
	return dir
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
