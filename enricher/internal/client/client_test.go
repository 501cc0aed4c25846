package client

import (
	"fmt"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
)

const webkit = "AppleWebKit/537.36 (KHTML, like Gecko)"

// User agents as browsers, apps, crawlers and HTTP libraries send them.
func TestUserAgents(t *testing.T) {
	for _, c := range []struct{ agent, browser, os, device string }{
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + webkit + " Chrome/131.0.0.0 Safari/537.36", "Chrome", "Windows", Desktop},
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + webkit + " Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0", "Edge", "Windows", Desktop},
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + webkit + " Chrome/131.0.0.0 Safari/537.36 OPR/116.0.0.0", "Opera", "Windows", Desktop},
		{"Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko", "Internet Explorer", "Windows", Desktop},
		{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Safari/605.1.15", "Safari", "macOS", Desktop},
		{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:133.0) Gecko/20100101 Firefox/133.0", "Firefox", "macOS", Desktop},
		{"Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0", "Firefox", "Linux", Desktop},
		{"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) " + webkit + " Chrome/131.0.0.0 Safari/537.36", "Chrome", "ChromeOS", Desktop},
		{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1", "Safari", "iOS", Mobile},
		{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/131.0.6778.73 Mobile/15E148 Safari/604.1", "Chrome", "iOS", Mobile},
		{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/132.0 Mobile/15E148 Safari/605.1.15", "Firefox", "iOS", Mobile},
		{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 [FBAN/FBIOS;FBAV/489.0]", "Facebook", "iOS", Mobile},
		{"Mozilla/5.0 (iPad; CPU OS 15_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/15.6 Mobile/15E148 Safari/604.1", "Safari", "iPadOS", Tablet},
		{"Mozilla/5.0 (Linux; Android 10; K) " + webkit + " Chrome/131.0.0.0 Mobile Safari/537.36", "Chrome", "Android", Mobile},
		{"Mozilla/5.0 (Linux; Android 10; K) " + webkit + " Chrome/131.0.0.0 Safari/537.36", "Chrome", "Android", Tablet},
		{"Mozilla/5.0 (Linux; Android 14; SAMSUNG SM-S918B) " + webkit + " SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36", "Samsung Internet", "Android", Mobile},
		{"Mozilla/5.0 (Linux; Android 11; CUBOT NOTE 20) " + webkit + " Chrome/131.0.0.0 Mobile Safari/537.36", "Chrome", "Android", Mobile},
		{"Mozilla/5.0 (Linux; Android 9; KFMAWI) " + webkit + " Silk/108.4 like Chrome/108 Safari/537.36", "Silk", "Android", Tablet},
		{"Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) " + webkit + " 76.0.3809.146/6.0 TV Safari/537.36", "Safari", "Tizen", TV},
		{"Mozilla/5.0 (PlayStation; PlayStation 5/2.26) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.0 Safari/605.1.15", "Safari", "PlayStation", Console},
		{"Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/AP2A)", "", "Android", Mobile},
		{"Shop/3.2 (iPhone; iOS 17.6; Scale/3.00)", "", "iOS", Mobile},
		{"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "", "", Bot},
		{"Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)", "", "", Bot},
		{"Mozilla/5.0 " + webkit + "; compatible; GPTBot/1.2; +https://openai.com/gptbot)", "", "", Bot},
		{"Mozilla/5.0 (X11; Linux x86_64) " + webkit + " HeadlessChrome/131.0.0.0 Safari/537.36", "", "", Bot},
		{"python-requests/2.32.3", "", "", ""},
		{"Go-http-client/2.0", "", "", ""},
		{"Java/17.0.2", "", "", ""},
		{"@segment/analytics-node/3.1.0", "", "", ""},
		{"Shop/1 CFNetwork/1498 Darwin/23.6.0", "", "", ""},
		{"\xff\x00", "", "", ""},
	} {
		for range 2 { // the second is remembered
			var r Reader
			got := r.Read(&Sent{Kind: event.KindTrack, UserAgent: c.agent})
			if want := (event.Client{Browser: c.browser, OS: c.os, DeviceClass: c.device}); got != want {
				t.Errorf("%q: got %+v, want %+v", c.agent, got, want)
			}
		}
	}
}

const windowsEdge = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + webkit + " Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0"

// What each protocol's SDKs send, in the form that the gateway gives it.
func TestReadsWhatSendersState(t *testing.T) {
	for _, c := range []struct {
		name string
		sent Sent
		want event.Client
	}{
		{"nothing", Sent{}, event.Client{}},
		{
			"Segment in a browser",
			Sent{
				Kind: event.KindPage, UserAgent: windowsEdge, Country: "AT",
				Context: []byte(`{"page":{"url":"https://shop.example/a?utm_source=ignored","referrer":"https://www.search.example/find?q=x","search":""},"campaign":{"source":"news","medium":"mail","name":"May"},"locale":"de"}`),
			},
			event.Client{Country: "AT", Browser: "Edge", OS: "Windows", DeviceClass: Desktop, Referrer: "www.search.example", UTMSource: "news", UTMMedium: "mail", UTMCampaign: "May"},
		},
		{
			"Segment in an app: what it states has precedence",
			Sent{
				Kind: event.KindTrack, UserAgent: windowsEdge, Country: "AT",
				Context: []byte(`{"os":{"name":"iOS","version":"17.6"},"device":{"type":"ios","model":"iPad13,4"},"location":{"country":"Germany"}}`),
			},
			event.Client{Country: "DE", Browser: "Edge", OS: "iOS", DeviceClass: Tablet},
		},
		{
			"Segment on a server: only the system's name",
			Sent{Context: []byte(`{"os":{"name":"android"}}`), UserAgent: "analytics-java/3"},
			event.Client{OS: "Android", DeviceClass: Mobile},
		},
		{
			"Segment's page call without a context",
			Sent{Kind: event.KindPage, Properties: []byte(`{"url":"https://a.example/?utm_campaign=%C3%BCber+50%25&utm_source=%ff&x","referrer":"HTTPS://User@Blog.Example:8080/p","country":"Peru"}`)},
			event.Client{Referrer: "blog.example", UTMSource: "\uFFFD", UTMCampaign: "über 50%"},
		},
		{
			"words of a track call are the product's",
			Sent{Kind: event.KindTrack, Properties: []byte(`{"url":"https://a.example/?utm_campaign=c","referrer":"https://b.example","country":"PE","browser":"x","os":"y"}`)},
			event.Client{},
		},
		{
			"PostHog",
			Sent{
				Kind: event.KindPage, UserAgent: windowsEdge,
				Properties: []byte(`{"$browser":"Mobile Safari","$os":"Mac OS X","$device_type":"Mobile","$referrer":"$direct","$referring_domain":"$direct","$current_url":"https://a.example/","$geoip_country_code":"fr","utm_source":"news","utm_campaign":21546}`),
			},
			event.Client{Country: "FR", Browser: "Safari", OS: "macOS", DeviceClass: Mobile, UTMSource: "news", UTMCampaign: "21546"},
		},
		{
			"PostHog, from a page of the same site",
			Sent{Properties: []byte(`{"$referrer":"https:\/\/a.example\/start","$host":"www.a.example"}`)},
			event.Client{},
		},
		{
			"Mixpanel",
			Sent{Properties: []byte(`{"$browser":"Microsoft Edge","$os":"Windows","$device":"iPhone","mp_country_code":"US","$referring_domain":"b.example"}`)},
			event.Client{Country: "US", Browser: "Edge", OS: "Windows", DeviceClass: Mobile, Referrer: "b.example"},
		},
		{
			"Amplitude in an app",
			Sent{Context: []byte(`{"platform":"Android","os_name":"android","device_family":"Google Phone","country":"United States"}`)},
			event.Client{Country: "US", OS: "Android", DeviceClass: Mobile},
		},
		{
			"Amplitude in a browser: os_name is the browser",
			Sent{Context: []byte(`{"platform":"Web","os_name":"Chrome","os_version":"131"}`), Properties: []byte(`{"[Amplitude] Page Location":"https://a.example/?utm_medium=cpc"}`), UserAgent: windowsEdge},
			event.Client{Browser: "Chrome", OS: "Windows", DeviceClass: Desktop, UTMMedium: "cpc"},
		},
		{
			"Moesif's action in a browser",
			Sent{Kind: event.KindTrack, Context: []byte(`{"request":{"uri":"https://a.example/x?utm_source=ad#utm_medium=no","headers":{}}}`)},
			event.Client{UTMSource: "ad"},
		},
		{
			"an API call has no referrer",
			Sent{Kind: event.KindAPICall, Context: []byte(`{"page":{"referrer":"https://b.example"},"request":{"uri":"https://api.example/x"}}`)},
			event.Client{},
		},
		{
			"OpenTelemetry: the system of a server is not the client's",
			Sent{Context: []byte(`{"resource":{"os.name":"Ubuntu","os.type":"linux"}}`)},
			event.Client{},
		},
		{
			"OpenTelemetry in a browser",
			Sent{Context: []byte(`{"resource":{"browser.platform":"macOS","browser.mobile":false}}`), Properties: []byte(`{"user_agent.name":"Chrome Mobile","geo.country.iso_code":"CH","http.request.header.referer":["https://b.example/"],"url.full":"https://a.example/?utm_source=s"}`)},
			event.Client{Country: "CH", Browser: "Chrome", OS: "macOS", DeviceClass: Desktop, Referrer: "b.example", UTMSource: "s"},
		},
		{
			"no texts, broken objects, unknown values",
			Sent{Country: "AT", Context: []byte(`{"os":{"name":{}},"browser":"Own Browser","device":{"type":null},"location":{"country":"Atlantis"},"campaign":{"source":" "},"page":{"referrer":"not a url"}`), Properties: []byte(`[]`)},
			event.Client{Country: "AT", Browser: "Own Browser"},
		},
		{
			"long texts are cut as whole characters",
			Sent{Properties: []byte(`{"utm_source":"` + strings.Repeat("ü", 200) + `","$browser":"x` + strings.Repeat("ü", 50) + `"}`)},
			event.Client{Browser: "x" + strings.Repeat("ü", 31), UTMSource: strings.Repeat("ü", 128)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Reader
			if got := r.Read(&c.sent); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			c.sent.Properties = r.Pick(c.sent.Properties) // has all that is looked at
			if got := r.Read(&c.sent); got != c.want {
				t.Errorf("after Pick got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestHosts(t *testing.T) {
	for url, want := range map[string]string{
		"https://a.example/x": "a.example", "http://a.example:80": "a.example", "//a.example?q": "a.example", "a.example/x": "a.example", "http://[2001:db8::1]:80/": "2001:db8::1",
		"android-app://com.mail.example/": "com.mail.example", "http://u:p@a.example./": "a.example", "http://localhost:3000/": "localhost",
		"$direct": "", "(direct)": "", "": "", "direct": "", "http://": "", "http://a b.example": "", "http://[::1": "",
	} {
		if got := hostOf(url); got != want {
			t.Errorf("%q: got %q, want %q", url, got, want)
		}
	}
}

func TestCountries(t *testing.T) {
	for text, want := range map[string]string{
		"AT": "AT", "at": "AT", "AUT": "AT", "Austria": "AT", "south korea": "KR", "UK": "GB", "Türkiye": "TR", "XK": "XK",
		"": "", "A": "", "EU": "", "ZZ": "", "QQ": "", "Atlantis": "", "12": "", "ü": "",
	} {
		if got := countryOf(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if n := len(countries().codes); n < 249 || n > 260 {
		t.Errorf("%d countries", n)
	}
}

// Senders choose user agents; what is remembered of them is bounded.
func TestRememberedAgentsAreBounded(t *testing.T) {
	var r Reader
	for i := range 3 * maxAgents {
		r.Read(&Sent{UserAgent: fmt.Sprint("Mozilla/5.0 (Windows) ", i)})
		if n := len(r.agents.known); n > maxAgents {
			t.Fatalf("%d user agents are remembered, at most %d may be", n, maxAgents)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`{"page":{"referrer":"https://\u0061.example"}}`, `{"utm_source":["x"]}`, windowsEdge)
	f.Fuzz(func(t *testing.T, context, properties, agent string) {
		var r Reader
		c := r.Read(&Sent{Kind: event.KindPage, Context: []byte(context), Properties: []byte(properties), UserAgent: agent})
		for _, text := range []string{c.Browser, c.OS, c.Referrer, c.UTMSource, c.UTMMedium, c.UTMCampaign} {
			if len(text) > maxCampaign {
				t.Errorf("%d bytes", len(text))
			}
		}
		if c.Country != "" && !countries().codes[c.Country] {
			t.Errorf("country %q", c.Country)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	sent := Sent{
		Kind: event.KindTrack, UserAgent: windowsEdge,
		Properties: []byte(`{"sku":"4006381333931","price":12.5,"quantity":3,"currency":"EUR","store":"Linz","register":"r-4","tax":0.2,"category":"dairy","discount":0,"loyalty":true,"weight":0.75,"note":"none"}`),
		Context:    []byte(`{"page":{"url":"https://shop.example/a?utm_source=x","path":"/a","referrer":"https://search.example/find?q=x","title":"A"},"campaign":{"source":"news","medium":"mail","name":"May"},"locale":"de","timezone":"Europe/Vienna","library":{"name":"analytics.js","version":"2.1"}}`),
	}
	var r Reader
	b.ReportAllocs()
	for b.Loop() {
		r.Read(&sent)
	}
}
