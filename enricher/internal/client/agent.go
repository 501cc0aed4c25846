package client

import (
	"bytes"
	"strings"
)

// Classes of devices.
const (
	Desktop  = "desktop"
	Mobile   = "mobile"
	Tablet   = "tablet"
	TV       = "tv"
	Console  = "console"
	Wearable = "wearable"
	Bot      = "bot"
)

// agent is what a user agent says.
type agent struct{ browser, os, device string }

// token is a part of a user agent, in lower case, and what it means.
type token struct{ part, means string }

// The tables are read from the top; the first part that a user agent contains decides.
// The parsers that exist were not used: they take the HTTP libraries of server SDKs for
// bots or browsers, Android tablets for phones, or cost a dozen allocations; what is
// needed here is the name and no version, and since browsers froze their user agents
// (User-Agent reduction) these names rarely change.
//
// A browser names those that it wants to be served like: Edge says Chrome and Safari
// too. So the more special names stand first.
var browserTokens = []token{
	{"edg/", "Edge"},
	{"edge/", "Edge"},
	{"edga/", "Edge"},
	{"edgios/", "Edge"},
	{"opr/", "Opera"},
	{"opera", "Opera"},
	{"opt/", "Opera"},
	{"opios/", "Opera"},
	{"samsungbrowser/", "Samsung Internet"},
	{"yabrowser/", "Yandex Browser"},
	{"vivaldi/", "Vivaldi"},
	{"ucbrowser/", "UC Browser"},
	{"huaweibrowser/", "Huawei Browser"},
	{"miuibrowser/", "MIUI Browser"},
	{"duckduckgo/", "DuckDuckGo"},
	{"ddg/", "DuckDuckGo"},
	{"silk/", "Silk"},
	{"electron/", "Electron"},
	{"fbav/", "Facebook"},
	{"instagram ", "Instagram"},
	{"focus/", "Firefox"},
	{"fxios/", "Firefox"},
	{"firefox/", "Firefox"},
	{"crios/", "Chrome"},
	{"chromium/", "Chrome"},
	{"chrome/", "Chrome"},
	{"msie ", "Internet Explorer"},
	{"trident/", "Internet Explorer"},
	{"android", ""}, // its old browser and apps say Safari too
	{"safari/", "Safari"},
}

// iPadOS says Macintosh and cannot be told from macOS. iPads of before do not.
var systemTokens = []token{
	{"windows phone", "Windows Phone"},
	{"xbox", "Xbox"},
	{"playstation", "PlayStation"},
	{"nintendo", "Nintendo"},
	{"windows", "Windows"},
	{"iphone", "iOS"},
	{"ipad", "iPadOS"},
	{"ipod", "iOS"},
	{"apple tv", "tvOS"},
	{"appletv", "tvOS"},
	{"tvos", "tvOS"},
	{"watchos", "watchOS"},
	{"macintosh", "macOS"},
	{"mac os x", "macOS"},
	{"tizen", "Tizen"},
	{"web0s", "webOS"},
	{"webos", "webOS"},
	{"harmonyos", "HarmonyOS"},
	{"openharmony", "HarmonyOS"},
	{"android", "Android"},
	{"cros ", "ChromeOS"},
	{"freebsd", "FreeBSD"},
	{"openbsd", "OpenBSD"},
	{"linux", "Linux"},
	{"x11", "Linux"},
}

var deviceTokens = []token{
	{"xbox", Console},
	{"playstation", Console},
	{"nintendo", Console},
	{"smart-tv", TV},
	{"smarttv", TV},
	{"hbbtv", TV},
	{"apple tv", TV},
	{"appletv", TV},
	{"tvos", TV},
	{"googletv", TV},
	{"android tv", TV},
	{"bravia", TV},
	{"; aft", TV},
	{"crkey", TV},
	{"roku", TV},
	{"web0s", TV},
	{" tv ", TV},
	{"watchos", Wearable},
	{"apple watch", Wearable},
	{"wear os", Wearable},
	{"ipad", Tablet},
	{"tablet", Tablet},
	{"kindle", Tablet},
	{"mobi", Mobile},
	{"iphone", Mobile},
	{"ipod", Mobile},
	{"windows phone", Mobile},
	{"android", Tablet}, // without "Mobile", which phones have
	{"windows", Desktop},
	{"macintosh", Desktop},
	{"cros ", Desktop},
	{"x11", Desktop},
	{"linux", Desktop},
	{"freebsd", Desktop},
	{"openbsd", Desktop},
}

// botTokens are parts of the names of crawlers and of programs that drive browsers.
var botTokens = []string{
	"bot/", "bot;", "bot)", "bot-", "bot ", "bot+", "robot", "crawler", "spider", "slurp", "headlesschrome", "phantomjs", "lighthouse", "pagespeed",
	"facebookexternalhit", "whatsapp/", "pingdom", "statuscake", "site24x7", "datadogsynthetics", "chatgpt-user", "google-read-aloud", "mediapartners",
}

// browserLike begins the user agents of browsers and of crawlers; those of HTTP
// libraries and server SDKs do not say on what device they run.
var browserLike = []byte("mozilla/")

// agents reads user agents and remembers what it read: an app's events come from few.
type agents struct {
	known map[string]agent
	lower []byte
}

// maxAgents bounds what is remembered; user agents have up to 1024 bytes.
const maxAgents = 1024

func (a *agents) read(text string) agent {
	if text == "" {
		return agent{}
	}
	if got, ok := a.known[text]; ok {
		return got
	}
	if a.known == nil || len(a.known) >= maxAgents {
		a.known = make(map[string]agent, 64)
	}
	got := a.parse(text)
	a.known[strings.Clone(text)] = got
	return got
}

func (a *agents) parse(text string) agent {
	a.lower = a.lower[:0]
	for i := range len(text) {
		c := text[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		a.lower = append(a.lower, c)
	}
	s := a.lower
	if isBot(s) {
		return agent{device: Bot}
	}
	if !bytes.HasPrefix(s, browserLike) && !bytes.HasPrefix(s, []byte("opera/")) {
		return ofApp(s)
	}
	return agent{browser: find(browserTokens, s), os: find(systemTokens, s), device: find(deviceTokens, s)}
}

func isBot(s []byte) bool {
	for _, part := range botTokens {
		if bytes.Contains(s, []byte(part)) {
			return !bytes.Contains(s, []byte("cubot")) // a maker of phones
		}
	}
	return false
}

// ofApp reads the user agents that the HTTP libraries of mobile systems send for an
// app: they have the system in brackets, and no browser. iOS and macOS say Darwin, and
// not which of them.
func ofApp(s []byte) agent {
	if open := bytes.IndexByte(s, '('); open >= 0 {
		switch in := s[open:]; {
		case bytes.Contains(in, []byte("android")):
			return agent{os: "Android", device: Mobile}
		case bytes.Contains(in, []byte("ipad")):
			return agent{os: "iPadOS", device: Tablet}
		case bytes.Contains(in, []byte("iphone")), bytes.Contains(in, []byte("; ios ")):
			return agent{os: "iOS", device: Mobile}
		}
	}
	return agent{}
}

func find(tokens []token, s []byte) string {
	for _, t := range tokens {
		if bytes.Contains(s, []byte(t.part)) {
			return t.means
		}
	}
	return ""
}

// Other spellings of what senders state, in lower case.
var browserNames = map[string]string{
	"microsoft edge": "Edge", "edge": "Edge", "edge ios": "Edge", "edge mobile": "Edge",
	"google chrome": "Chrome", "chrome": "Chrome", "chrome ios": "Chrome", "chrome mobile": "Chrome", "chrome mobile ios": "Chrome", "chrome mobile webview": "Chrome", "chrome webview": "Chrome", "chromium": "Chrome",
	"safari": "Safari", "mobile safari": "Safari", "mobile safari ui/wkwebview": "Safari",
	"firefox": "Firefox", "firefox ios": "Firefox", "firefox mobile": "Firefox", "mozilla firefox": "Firefox", "mozilla": "Firefox", "mobile firefox": "Firefox",
	"opera": "Opera", "opera mini": "Opera", "opera mobile": "Opera", "opera touch": "Opera",
	"internet explorer": "Internet Explorer", "internet explorer mobile": "Internet Explorer", "ie": "Internet Explorer", "iemobile": "Internet Explorer",
	"samsung browser": "Samsung Internet", "samsung internet": "Samsung Internet", "samsunginternet": "Samsung Internet",
	"facebook mobile": "Facebook", "facebook": "Facebook", "uc browser": "UC Browser", "yandex": "Yandex Browser", "yandex browser": "Yandex Browser",
	"silk": "Silk", "amazon silk": "Silk", "vivaldi": "Vivaldi", "electron": "Electron", "duckduckgo": "DuckDuckGo",
}

var systemNames = map[string]string{
	"mac os x": "macOS", "mac os": "macOS", "macos": "macOS", "os x": "macOS", "osx": "macOS", "mac": "macOS", "macintosh": "macOS",
	"ios": "iOS", "iphone os": "iOS", "iphone": "iOS", "ipados": "iPadOS", "ipad os": "iPadOS", "ipad": "iPadOS", "tvos": "tvOS", "watchos": "watchOS", "visionos": "visionOS",
	"android": "Android", "windows": "Windows", "microsoft windows": "Windows", "win32": "Windows", "windows phone": "Windows Phone", "windows mobile": "Windows Phone",
	"linux": "Linux", "gnu/linux": "Linux", "chrome os": "ChromeOS", "chromeos": "ChromeOS", "chromium os": "ChromeOS",
	"xbox": "Xbox", "playstation": "PlayStation", "nintendo": "Nintendo", "tizen": "Tizen", "webos": "webOS", "harmonyos": "HarmonyOS", "freebsd": "FreeBSD", "openbsd": "OpenBSD",
}

var deviceNames = map[string]string{
	"desktop": Desktop, "pc": Desktop, "laptop": Desktop, "computer": Desktop,
	"mobile": Mobile, "phone": Mobile, "smartphone": Mobile, "mobile phone": Mobile, "handset": Mobile,
	"tablet": Tablet, "tv": TV, "smart tv": TV, "smarttv": TV, "smart-tv": TV, "settop": TV,
	"console": Console, "game console": Console, "wearable": Wearable, "watch": Wearable, "bot": Bot,
}

// browserOf and systemOf return the one spelling of a name; one that is not known is
// left as it was sent.
func browserOf(name string) string { return spelling(browserNames, name) }

// systemOf knows "Windows 11" by its first word too.
func systemOf(name string) string {
	if known := systemNames[strings.ToLower(name)]; known != "" || name == "" {
		return known
	}
	first, version, _ := strings.Cut(name, " ")
	if version != "" && (version[0] >= '0' && version[0] <= '9' || first == "Windows") {
		if known := systemNames[strings.ToLower(first)]; known != "" {
			return known
		}
	}
	return cut(name, maxName)
}

func spelling(known map[string]string, name string) string {
	if name == "" {
		return ""
	}
	if to := known[strings.ToLower(name)]; to != "" {
		return to
	}
	return cut(name, maxName)
}

// deviceOf returns the class that a text names or implies, such as a model; "" where it
// says nothing about one: the columns have only the classes above.
func deviceOf(text string) string {
	if text == "" {
		return ""
	}
	if class := deviceNames[strings.ToLower(text)]; class != "" {
		return class
	}
	for _, m := range [...]struct{ prefix, class string }{
		{"iPhone", Mobile},
		{"iPod", Mobile},
		{"iPad", Tablet},
		{"Apple TV", TV},
		{"AppleTV", TV},
		{"Apple Watch", Wearable},
		{"Watch", Wearable},
		{"Mac", Desktop},
		{"iMac", Desktop},
	} {
		if strings.HasPrefix(text, m.prefix) {
			return m.class
		}
	}
	return ""
}

// deviceOfSystem is the class of a device of which only the system is known.
func deviceOfSystem(system string) string {
	switch system {
	case "iOS", "Android", "Windows Phone", "HarmonyOS":
		return Mobile
	case "iPadOS":
		return Tablet
	case "tvOS", "webOS", "Tizen":
		return TV
	case "watchOS":
		return Wearable
	case "Xbox", "PlayStation", "Nintendo":
		return Console
	case "Windows", "macOS", "Linux", "ChromeOS", "FreeBSD", "OpenBSD":
		return Desktop
	}
	return ""
}
