package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/gateway"
)

// section heads the part of a source's page that says which SDKs were run.
const section = "\n## SDKs that were run\n"

// notRun are SDKs of which it is known that they exist and why no test runs them.
var notRun = []struct{ protocol, sdk, why string }{
	{"segment", "rudderlabs/analytics-go v4 (Go)", "the module proxy does not serve it; its source was read"},
	{"segment", "Segment for PHP, Ruby and .NET, RudderStack for PHP, Ruby and .NET", noPackages},
	{"segment", "Segment for Swift, Kotlin, React Native and Unity, RudderStack for Android, iOS and Flutter", noDevice},
	{"posthog", "posthog-php, posthog-ruby, PostHog for .NET, posthog-elixir", noPackages},
	{"posthog", "posthog-ios, posthog-android, posthog-react-native, posthog-flutter", noDevice},
	{"moesif", "moesifapi-go (Go)", "the module proxy does not serve it; its source was read"},
	{"moesif", "Moesif for PHP, Ruby and .NET", noPackages},
	{"mixpanel", "mixpanel-go (Go)", "the module proxy does not serve it; its source was read"},
	{"mixpanel", "mixpanel-php, mixpanel-ruby", noPackages},
	{"mixpanel", "Mixpanel for Swift, Android, React Native, Flutter and Unity", noDevice},
	{"amplitude", "analytics-go (Go)", "the module proxy does not serve it; its source was read"},
	{"amplitude", "com.amplitude:java-sdk 1.13.0", "sends over HTTPS alone, which the tests' gateway does not speak"},
	{"amplitude", "amplitude 0.1.0 (Rust)", "sends to api2.amplitude.com alone"},
	{"amplitude", "Amplitude for Swift, Kotlin, React Native, Flutter and Unity", noDevice},
	{"cloudevents", "CloudEvents for PHP, Ruby and .NET", noPackages},
	{"otlp", "OpenTelemetry for PHP, Ruby, .NET, Swift, C++ and Erlang", noPackages},
	{"csb", "CustomerSuccessBox for PHP and Ruby", noPackages},
	{"gainsightpx", "the browser's tag", "its wire format is not public"},
}

const (
	noPackages = "the machines that run the tests reach no registry of these languages"
	noDevice   = "need a device or its emulator; their source was read where it is public"
)

var sdkRow = regexp.MustCompile(`(?m)^\| (.+?) \| (\d{4}-\d\d-\d\d) \| `)

// checkPages holds the section of each source's page against what is known of its SDKs,
// or writes it: then the rows of those that were run now get today's date.
func checkPages(t *testing.T, ran []client) {
	t.Helper()
	for _, p := range gateway.Protocols() {
		if !slices.ContainsFunc(ran, func(c client) bool { return c.protocol == p.Name() }) {
			continue
		}
		path := filepath.Join(root, "docs", "sources", p.Name()+".md")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(b), section)
		dates := map[string]string{}
		for _, row := range sdkRow.FindAllStringSubmatch(string(b), -1) {
			dates[row[1]] = row[2]
		}
		if *update {
			for _, c := range ran {
				dates[c.version] = time.Now().UTC().Format(time.DateOnly)
			}
		}
		want := strings.TrimRight(head, "\n") + "\n" + sdkSection(p.Name(), dates)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if string(b) != want {
			t.Errorf("%s: the section on SDKs is not what is known; run go test ./test/conformance -update", path)
		}
	}
}

func sdkSection(protocol string, dates map[string]string) string {
	var b strings.Builder
	b.WriteString(section + `
Written by the tests in test/conformance, which run each SDK against a gateway and hold the rows in ClickHouse against what it was told to send: [on servers](conformance.md), [in browsers](conformance-browsers.md).

| SDK | last run | does not work |
|---|---|---|
`)
	for _, c := range allClients() {
		if c.protocol != protocol || strings.Contains(c.version, "no SDK") {
			continue
		}
		date := dates[c.version]
		if date == "" {
			date = "never" // which the next run with -update changes
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", c.version, date, c.fails())
	}
	for _, s := range notRun {
		if s.protocol == protocol {
			fmt.Fprintf(&b, "| %s | not run | %s |\n", s.sdk, s.why)
		}
	}
	return b.String()
}

// fails says what does not work with an SDK, by what its scenarios showed.
func (c *client) fails() string {
	var lost []string
	for _, f := range slices.Concat(faults, []string{leave}) {
		if r := c.faults[f]; r == told || r == silent {
			lost = append(lost, f)
		}
	}
	var parts []string
	if len(lost) > 0 {
		parts = append(parts, "it does not send again after: "+strings.Join(lost, ", "))
	}
	if c.limits != "" {
		parts = append(parts, c.limits)
	}
	if len(parts) == 0 {
		return "–"
	}
	return strings.Join(parts, "; ")
}
