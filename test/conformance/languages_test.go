package conformance

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/test/harness/kit"
)

// language is one in which SDKs run in a process of their own.
type language struct {
	name string
	kit  kit.Kit
	// command runs the driver of the language's SDKs, given the kit's folder.
	command func(dir string) *exec.Cmd
}

var languages = []language{
	{
		name: "Python",
		kit: kit.Kit{
			Name: "sdks-python", Tools: []string{"python3"}, From: "drivers/python", Files: []string{"requirements.txt"},
			Install: []string{"python3", "-m", "pip", "install", "--quiet", "--no-deps", "--target", "lib", "-r", "requirements.txt"}, Timeout: 10 * time.Minute,
		},
		command: func(dir string) *exec.Cmd {
			cmd := exec.Command("python3", "drivers/python/run.py")
			cmd.Env = append(cmd.Environ(), "PYTHONPATH="+filepath.Join(dir, "lib"), "PYTHONDONTWRITEBYTECODE=1")
			return cmd
		},
	},
	{
		name: "Java",
		kit: kit.Kit{
			Name: "sdks-java", Tools: []string{"java", "javac", "mvn"}, From: "drivers/java", Files: []string{"pom.xml", "Drivers.java"},
			Install: []string{"sh", "-c", `mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib && javac -nowarn -cp 'lib/*' -d classes Drivers.java`}, Timeout: 10 * time.Minute,
		},
		command: func(dir string) *exec.Cmd {
			return exec.Command("java", "-cp", filepath.Join(dir, "classes")+":"+filepath.Join(dir, "lib", "*"), "Drivers")
		},
	},
	{
		name: "Rust",
		kit: kit.Kit{
			Name: "sdks-rust", Tools: []string{"cargo", "cc"}, From: "drivers/rust", Files: []string{"Cargo.toml", "Cargo.lock", "src/main.rs"},
			// What the SDKs depend on is compiled once, whatever becomes of the driver.
			Install: []string{"sh", "-c", `cargo build --quiet --locked --target-dir ../sdks-rust-target && cp ../sdks-rust-target/debug/uptake-conformance-drivers drivers`}, Timeout: 30 * time.Minute,
		},
		command: func(dir string) *exec.Cmd { return exec.Command(filepath.Join(dir, "drivers")) },
	},
}

// sdksEnv names the languages of which TestLanguages runs the SDKs, by commas; "all"
// are those of [languages]. Without it none are run.
const sdksEnv = "UPTAKE_SDKS"

// wanted reports whether the SDKs of a language are to be run.
func (l *language) wanted() bool {
	switch names := os.Getenv(sdksEnv); names {
	case "all":
		return true
	default:
		return slices.Contains(strings.Split(names, ","), l.name)
	}
}

// languageClients are the SDKs of each language. They make their calls and meet no
// faults: those are the libraries' own, and the gateway's part in them is that of
// TestSDKs.
func languageClients() map[string][]client {
	all := map[string][]client{"Python": pythonClients(), "Java": javaClients(), "Rust": rustClients()}
	for _, clients := range all {
		for i := range clients {
			clients[i].noFaults = true
		}
	}
	return all
}

// TestLanguages runs the SDKs of languages other than those of TestSDKs.
func TestLanguages(t *testing.T) {
	longtest.Only(t)
	if os.Getenv(sdksEnv) == "" {
		t.Skip(sdksEnv + " names no language: `make sdks` runs all")
	}
	var ran, kept []client
	commands := map[string]func() *exec.Cmd{} // by SDK
	for _, l := range languages {
		before := len(ran)
		if l.wanted() {
			t.Run(l.name, func(t *testing.T) { // skips a language that is not there
				dir := l.kit.Folder(t)
				for _, c := range languageClients()[l.name] {
					ran = append(ran, c)
					commands[c.sdk] = func() *exec.Cmd { return l.command(dir) }
				}
			})
		}
		if len(ran) == before {
			kept = append(kept, languageClients()[l.name]...)
		}
	}
	if len(ran) == 0 {
		return
	}
	s := forTest(t)
	table := results{path: root + "/docs/sources/conformance-languages.md", title: "Conformance in other languages", kept: kept}
	s.runAll(t, ran, &table, func(c client, scenarios []scenario) map[string]outcome {
		return drive(t, commands[c.sdk](), c.sdk, scenarios)
	})
	if t.Failed() {
		return
	}
	table.check(t)
	checkPages(t, ran)
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
		{call: "set", kind: event.KindIdentify, event: "$engage", user: "maria", traits: obj{"plan": "pro"}},
		{call: "set once", kind: event.KindIdentify, event: "$engage", user: "maria", traits: obj{"$set_once": obj{"first": 1.0}}},
		{call: "increment", kind: event.KindIdentify, event: "$engage", user: "maria", traits: obj{"$add": obj{"logins": 1.0}}},
		{call: "append", kind: event.KindIdentify, event: "$engage", user: "maria", traits: obj{"$append": obj{"tags": "a"}}},
		{call: "union", kind: event.KindIdentify, event: "$engage", user: "maria", traits: obj{"$union": obj{"list": []any{"x"}}}},
		{call: "remove", kind: event.KindIdentify, event: "$engage", user: "maria", traits: obj{"$remove": obj{"list": "x"}}},
		{call: "unset", kind: event.KindIdentify, event: "$engage", user: "maria", traits: obj{"$unset": []any{"plan"}}},
		{call: "delete", kind: event.KindIdentify, event: "$engage", user: "jo", traits: obj{"$delete": ""}},
		{call: "group set", kind: event.KindGroup, event: "$group", account: "corner-shop", traits: obj{"seats": 3.0}},
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
			protocol: "mixpanel", sdk: "mixpanel-python", version: "mixpanel (Python) 5.4.1", prefix: true, limits: "`alias()` goes to api.mixpanel.com whatever host the consumer has",
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
			calls: amplitudeCalls(), users: amplitudeUsers(), accounts: seats,
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
			protocol: "posthog", sdk: "posthog-java", version: "com.posthog:posthog-server 2.3.3", sentAt: true, limits: "`close()` drops what is not sent yet, and nothing says when it is",
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
		{protocol: "cloudevents", sdk: "cloudevents-java", version: "io.cloudevents:cloudevents-http-basic 4.0.1", prefix: true, limits: "letters beyond ASCII in attributes become question marks in binary mode with the JDK's HTTP client", calls: javaCloudEvents()},
		{protocol: "otlp", sdk: "otlp-java", version: "io.opentelemetry:opentelemetry-exporter-otlp 1.68.0, gzip", prefix: true, calls: recordCalls()},
	}
}

func rustClients() []client {
	// Rust's SDKs take no instant for profiles.
	profiles := mixpanelProfiles()
	for i := range profiles {
		profiles[i].noTime = true
	}
	atOnce := want{call: "send", kind: event.KindTrack, event: "At Once", user: "maria", noTime: true}
	batch := cloudEventCalls()[0]
	batch.user = "maria"
	return []client{
		{protocol: "segment", sdk: "segment-rust", version: "segment (Rust) 0.2.6", calls: append(spread(), atOnce), users: spreadUsers, accounts: seats},
		{
			protocol: "segment", sdk: "rudder-rust", version: "rudderanalytics (Rust) 2.0.1", sentAt: true, users: spreadUsers, accounts: seats,
			calls: append(spread(),
				want{call: "batch", kind: event.KindTrack, event: "Batched A", user: "maria"},
				want{call: "batch", kind: event.KindTrack, event: "Batched B", user: "maria"}),
		},
		{
			protocol: "posthog", sdk: "posthog-rust", version: "posthog-rs 0.30.0", prefix: true, sentAt: true, users: spreadUsers, accounts: seats,
			calls: []want{
				{call: "capture", kind: event.KindTrack, event: "Item Scanned", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "capture without an id", kind: event.KindTrack, event: "Job Ran", anonymous: anyID},
				{call: "capture of $set", kind: event.KindIdentify, event: "$set", user: "maria", traits: obj{"plan": "pro"}},
				{call: "group_identify", kind: event.KindGroup, event: "$groupidentify", account: "corner-shop", traits: obj{"seats": 3.0}},
				{call: "alias", kind: event.KindAlias, event: "$create_alias", user: "maria", previous: "maria-old"},
				{call: "capture_immediate", kind: event.KindTrack, event: "At Once", user: "maria", noTime: true},
			},
		},
		{
			protocol: "mixpanel", sdk: "mixpanel-rust", version: "mixpanel-rs 0.3.1", prefix: true, users: mixpanelUsers, accounts: seats,
			calls: slices.Concat([]want{
				{call: "track", kind: event.KindTrack, event: "Item Scanned", id: "m-track", user: "maria", account: "corner-shop", at: then, properties: obj{"sku": "4006"}},
				{call: "track_batch", kind: event.KindTrack, event: "A", user: "maria", noTime: true, properties: obj{"q": ">>>???ü"}},
				{call: "track_batch", kind: event.KindTrack, event: "B", user: "maria", noTime: true},
				{call: "alias", kind: event.KindAlias, event: "$create_alias", user: "maria", previous: "anon-1", noTime: true},
			}, profiles),
		},
		{
			protocol: "cloudevents", sdk: "cloudevents-rust", version: "cloudevents-sdk (Rust) 0.9.0", prefix: true,
			calls: []want{
				batch,
				{call: "batch", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 b-1", user: "maria", account: "corner shop", at: then, properties: obj{"sku": "4006"}},
				{call: "batch", kind: event.KindTrack, event: "item.scanned", id: "/pos/7 b-2", user: "maria", account: "corner shop", at: then, properties: obj{"sku": "4006"}},
			},
		},
		{protocol: "otlp", sdk: "otlp-rust", version: "opentelemetry-otlp (Rust) 0.33.1, gzip", prefix: true, calls: recordCalls()},
	}
}

// allClients are those of every test.
func allClients() []client {
	all := slices.Concat(servers(), browserClients())
	for _, name := range slices.Sorted(maps.Keys(languageClients())) {
		all = append(all, languageClients()[name]...)
	}
	return all
}
