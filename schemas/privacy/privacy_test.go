package privacy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// policy makes a policy with one app "a" of a hash key k1.
func policy(t testing.TB, app string) *Rules {
	t.Helper()
	p, err := Parse([]byte("hash_keys: [{id: k1, secret: 0123456789abcdef}]\napps:\n  a:\n" + app + "\n...\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p.App("a")
}

func TestRedact(t *testing.T) {
	for _, tc := range []struct {
		name, rules, object, doc, want string
	}{
		{
			"drop", `    rules: [{path: properties.secret, action: drop}]`, Properties,
			`{"a":1,"secret":{"x":1},"b":2}`, `{"a":1,"b":2}`,
		},
		{"drop the only one", `    rules: [{path: properties.secret, action: drop}]`, Properties, `{"secret":1}`, `{}`},
		{"drop the first one", `    rules: [{path: properties.secret, action: drop}]`, Properties, `{"secret":1,"a":[ 1 ]}`, `{"a":[ 1 ]}`},
		{"mask", `    rules: [{path: properties.m, action: mask}]`, Properties, `{"m":"x"}`, `{"m":"[masked]"}`},
		{"mask of what is no text is null", `    rules: [{path: "properties.*", action: mask}]`, Properties, `{"m":1,"n":true,"o":{},"p":[],"q":null}`, `{"m":null,"n":null,"o":null,"p":null,"q":null}`},
		{"hash", `    rules: [{path: traits.id, action: hash}]`, Traits, `{"id":"u-1"}`, `{"id":"hmac:k1:a5d9eeb55b299e907ad995bb8c4433be"}`},
		{"within", `    rules: [{path: properties.a.b, action: drop}]`, Properties, `{"b":1,"a":{"b":2,"c":3}}`, `{"b":1,"a":{"c":3}}`},
		{"in elements", `    rules: [{path: properties.a.b, action: drop}]`, Properties, `{"a":[{"b":2,"c":3},[{"b":4}],5]}`, `{"a":[{"c":3},[{}],5]}`},
		{"elements keep their places", `    rules: [{path: "properties.**", detect: [email], action: drop}]`, Properties, `{"a":["x","m@ex.org","y"]}`, `{"a":["x",null,"y"]}`},
		{"any key", `    rules: [{path: "properties.*.b", action: drop}]`, Properties, `{"x":{"b":1,"c":1},"b":2}`, `{"x":{"c":1},"b":2}`},
		{"everything", `    rules: [{path: "traits.**", action: drop}]`, Traits, `{"x":{"b":1},"b":2}`, `{}`},
		{"dots in keys", `    rules: [{path: properties.a_b, action: drop}]`, Properties, `{"a.b":1,"a\u002eb":2,"c":3}`, `{"c":3}`},
		{"another object", `    rules: [{path: properties.a, action: drop}]`, Traits, `{"a": 1}`, `{"a": 1}`},
		{
			"a rule without detect goes first", `    rules: [{path: "properties.**", detect: [email], action: mask}, {path: properties.m, action: drop}]`, Properties,
			`{"m":"m@ex.org","n":"m@ex.org"}`, `{"n":"[email]"}`,
		},
		{"among equals the first", `    rules: [{path: "properties.m", action: mask}, {path: properties.*, action: drop}]`, Properties, `{"m":"x","n":"x"}`, `{"m":"[masked]"}`},
		{
			"two detectors", `    rules: [{path: "properties.**", detect: [email, phone], action: mask}]`, Properties,
			`{"t":"write m@ex.org or call +43 1 234 5678, ok?"}`, `{"t":"write [email] or call [phone], ok?"}`,
		},
		{
			"one detector hashes, another masks", `    rules: [{path: "properties.**", detect: [phone], action: mask}, {path: "properties.t", detect: [email], action: hash}]`, Properties,
			`{"t":"m@ex.org +4312345678","u":"m@ex.org"}`, `{"t":"hmac:k1:99b80ecebe593cf92269b1b9af2b9082 [phone]","u":"m@ex.org"}`,
		},
		{"text with escapes", `    rules: [{path: "properties.**", detect: [email], action: mask}]`, Properties, `{"t":"\"m\u0040ex.org\"\n","u":"a\nb"}`, `{"t":"\"[email]\"\n","u":"a\nb"}`},
		{"card as a number", `    rules: [{path: "properties.**", detect: [card], action: mask}]`, Properties, `{"c":4111111111111111,"n":12}`, `{"c":null,"n":12}`},
		{"ip and user agent of the context", "    ip: truncated\n    user_agent: drop", Context, `{"ip":"203.0.113.77","userAgent":"x","os":1}`, `{"ip":"203.0.113.0","os":1}`},
		{"no ip at all", "    ip: none", Context, `{"ip":"203.0.113.77"}`, `{}`},
		{"what is no ip goes", "    ip: truncated", Context, `{"ip":"home"}`, `{}`},
		{"no JSON", `    rules: [{path: properties.a, action: drop}]`, Properties, `{"b":"m@ex.org","a":`, `{}`},
		{"more than an object", `    rules: [{path: properties.a, action: drop}]`, Properties, `{"b":1} {`, `{}`},
		{"white space", `    rules: [{path: properties.b, action: drop}]`, Properties, ` { "a" : [ 1 , 2 ] , "b" : 1 } `, `{"a":[ 1 , 2 ]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := NewRedactor()
			d.Begin(policy(t, tc.rules))
			if got := string(d.Append([]byte("x"), tc.object, []byte(tc.doc))); got != "x"+tc.want {
				t.Errorf("got %s, want x%s", got, tc.want)
			}
		})
	}
}

func TestRedactConflicts(t *testing.T) {
	for _, tc := range []struct{ name, rules, doc, want string }{
		{"plain", `{path: properties.a, action: drop}`, `{"properties.a":1,"properties.b":2}`, `{"properties.b":2}`},
		{"nothing left", `{path: properties.a, action: drop}`, `{"properties.a":1}`, ``},
		{"numbered", `{path: properties.a, action: drop}`, `{"properties.a#2":1}`, ``},
		{"within", `{path: properties.a.b, action: mask}`, `{"properties.a":{"b":"x","c":1}}`, `{"properties.a":{"b":"[masked]","c":1}}`},
		{"elements", `{path: properties.a.b, action: drop}`, `{"properties.a[3].b":1,"properties.a[3]":[{"b":1}]}`, `{"properties.a[3]":[{}]}`},
		{"key written with dots", `{path: properties.a_b.c, action: drop}`, `{"properties.a.b.c":1,"properties.a.b.d":1}`, `{"properties.a.b.d":1}`},
		{"members too many", `{path: properties.a, action: drop}`, `{"properties.*":{"a":1,"z":2},"properties.b.*":{"a":1}}`, `{"properties.*":{"z":2},"properties.b.*":{"a":1}}`},
		{"deep", `{path: properties.a.**, detect: [email], action: mask}`, `{"properties.a.b.c":"m@ex.org","properties.b":"m@ex.org"}`, `{"properties.a.b.c":"[email]","properties.b":"m@ex.org"}`},
		{"raw text with a find", `{path: properties.**, detect: [email], action: mask}`, `{"properties.a":{"$raw":"\"m@ex.org \\ud800\""},"properties.b":{"$raw":"1e400"}}`, `{"properties.b":{"$raw":"1e400"}}`},
		{"raw text a rule may be about", `{path: properties.a.b, action: drop}`, `{"properties.a":{"$raw":"{\"b\":\"\\ud800\"}"},"properties.c":{"$raw":"1e400"}}`, `{"properties.c":{"$raw":"1e400"}}`},
		{"bytes", `{path: properties.**, detect: [email], action: mask}`, `{"properties.a":{"$base64":"Im1AZXgub3JnIP8i"}}`, ``},
		{"no JSON", `{path: properties.a, action: drop}`, `{"properties.b":`, ``},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := NewRedactor()
			d.Begin(policy(t, "    rules: ["+tc.rules+"]"))
			if got := string(d.AppendConflicts(nil, []byte(tc.doc))); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestDetectors(t *testing.T) {
	for name, cases := range map[string]map[string]string{
		"email": {
			"a@b.co": "<a@b.co>", "mail john.doe+x@mail.example.org.": "mail <john.doe+x@mail.example.org>.", "x@localhost": "x@localhost", "@home": "@home",
			"a@b.c": "a@b.c", "é@ü.example": "<é@ü.example>", "a@b.co,c@d.co": "<a@b.co>,<c@d.co>", "at a@ b.co": "at a@ b.co", "mailto:a@b.co?x=1": "mailto:<a@b.co>?x=1",
			"https://x.example/?to=a%40b.co&c=d%40e": "https://x.example/?to=<a%40b.co>&c=d%40e", "a@b.co%40c.co": "<a@b.co>%40c.co", "%40b.co": "%40b.co",
		},
		"card": {
			"4111 1111 1111 1111": "<4111 1111 1111 1111>", "4111-1111-1111-1111": "<4111-1111-1111-1111>", "4111111111111112": "4111111111111112",
			"378282246310005": "<378282246310005>", "5555555555554444!": "<5555555555554444>!", "x4111111111111111": "x4111111111111111", "4111111111111111x": "4111111111111111x",
			"4006381333931": "4006381333931", "2026 4111 1111 1111 1111 12/29": "2026 <4111 1111 1111 1111> 12/29", "0000000000000000": "0000000000000000",
			"41111111111111111111": "41111111111111111111", "4111 1111 1111 1111 99": "<4111 1111 1111 1111> 99", "3.4111111111111111": "3.4111111111111111",
		},
		"phone": {
			"+43 1 234 5678": "<+43 1 234 5678>", "0043 1 2345678": "<0043 1 2345678>", "(415) 555-0100": "<(415) 555-0100>", "415.555.0100": "<415.555.0100>",
			"2026-11-21": "2026-11-21", "4155550100": "4155550100", "+1": "+1", "order 12345678": "order 12345678", "192.168.100.2000": "192.168.100.2000", "+123456789012345678": "+123456789012345678",
			"call +1 (415) 555-0100 now": "call <+1 (415) 555-0100> now", "000123": "000123", "1+1": "1+1",
			"+43 660 1234567 4111111111111111": "<+43 660 1234567> 4111111111111111", "+436601234567 12345678": "<+436601234567> 12345678", "+43 12345678901234567": "+43 12345678901234567",
		},
		"token": {
			"Bearer abcdefgh12345": "Bearer <abcdefgh12345>", "https://x.example/?token=s3cret&page=2": "https://x.example/?token=<s3cret>&page=2",
			"?Access_Token=abc": "?Access_Token=<abc>", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc": "<eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc>", "tokens are fine": "tokens are fine",
			"https://user:pass@host.example/x": "https://<user:pass>@host.example/x", "https://host.example/a@b": "https://host.example/a@b", "AKIAIOSFODNN7EXAMPLE": "<AKIAIOSFODNN7EXAMPLE>",
			"password: \"hunter2\"": "password: \"<hunter2>\"", "a -----BEGIN RSA PRIVATE KEY-----\nx": "a <-----BEGIN RSA PRIVATE KEY-----\nx>", "-----BEGIN CERTIFICATE-----": "-----BEGIN CERTIFICATE-----",
			"monkey=1": "monkey=1", "token=": "token=",
		},
	} {
		for text, want := range cases {
			var got strings.Builder
			at := 0
			for {
				start, end, ok := detectorOf(name).find([]byte(text), at)
				if !ok {
					break
				}
				got.WriteString(text[at:start] + "<" + text[start:end] + ">")
				at = end
			}
			got.WriteString(text[at:])
			if got.String() != want {
				t.Errorf("%s: got %s, want %s", name, got.String(), want)
			}
		}
	}
}

func TestHashing(t *testing.T) {
	text := func(first string) string {
		return "hash_keys: [" + first + "{id: old, secret: 0123456789abcdef}]\napps: {a: {rules: [{path: properties.id, action: hash}]}, b: {rules: [{path: properties.id, action: hash}]}}"
	}
	hash := func(p *Policy, d *Redactor, app string) string {
		d.Begin(p.App(app))
		var out struct{ ID string }
		if err := json.Unmarshal(d.Append(nil, Properties, []byte(`{"id":"u-1"}`)), &out); err != nil {
			t.Fatal(err)
		}
		return out.ID
	}
	before, err := Parse([]byte(text("") + "\n...\n"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := Parse([]byte(text("{id: new, secret: fedcba9876543210}, ") + "\n...\n"))
	if err != nil {
		t.Fatal(err)
	}
	stolen, err := Parse([]byte(strings.Replace(text(""), "0123456789abcdef", "fedcba9876543210", 1) + "\n...\n"))
	if err != nil {
		t.Fatal(err)
	}
	d := NewRedactor()
	old, fresh := hash(before, d, "a"), hash(after, d, "a")
	if old != hash(before, NewRedactor(), "a") {
		t.Error("the same value has two hashes")
	}
	if old == hash(before, d, "b") {
		t.Error("two apps have one hash of a value")
	}
	if !strings.HasPrefix(old, "hmac:old:") || !strings.HasPrefix(fresh, "hmac:new:") {
		t.Errorf("got %s and %s, want the keys' ids in them", old, fresh)
	}
	if got := hash(stolen, d, "a"); got == old {
		t.Error("another secret under the same id gives the same hash")
	}
	if got := after.Hashes("a", "u-1"); len(got) != 2 || got[0] != fresh || got[1] != old {
		t.Errorf("Hashes: got %v, want %v", got, []string{fresh, old})
	}
}

func TestIP(t *testing.T) {
	full, truncated, none := policy(t, "    ip: full"), policy(t, "    ip: truncated"), policy(t, "    ip: none")
	for ip, want := range map[string]string{
		"203.0.113.77": "203.0.113.0", "2001:db8:1:2:3::4": "2001:db8:1::", "::ffff:203.0.113.77": "203.0.113.0", "fe80::1%eth0": "fe80::", "nonsense": "", "": "",
	} {
		if got := truncated.IP(ip); got != want {
			t.Errorf("truncated %q: got %q, want %q", ip, got, want)
		}
		if got := none.IP(ip); got != "" {
			t.Errorf("none %q: got %q", ip, got)
		}
		if got := full.IP(ip); got != ip {
			t.Errorf("full %q: got %q", ip, got)
		}
		if got := (*Rules)(nil).IP(ip); got != ip {
			t.Errorf("no rules %q: got %q", ip, got)
		}
	}
	if got := policy(t, "    user_agent: drop").UserAgent("x"); got != "" {
		t.Errorf("user agent: got %q, want none", got)
	}
}

// Addresses and user agents go wherever a protocol or a proxy leaves them.
func TestAddressesAndAgentsAnywhere(t *testing.T) {
	const addr, agent = `"203.0.113.77"`, `"Mozilla/5.0 (Secret)"`
	doc := func(ip, ua string) string {
		member := func(key, v string) string {
			if v == "" {
				return ""
			}
			return `"` + key + `":` + v + `,`
		}
		out := `{`
		for _, key := range []string{"ip", "$ip", "ip_address", "ipAddress", "client.address", "client_ip", "net.sock.peer.addr", "Forwarded", "x-real-ip", "http.request.header.x-client-ip", "remoteHost", "REMOTE_HOST", "DO-Connecting-IP", "WL-Proxy-Client-IP", "lastLoginIP", "clientIPAddress", "CloudFront-Viewer-Address", "x-vercel-forwarded-for", "ips"} {
			out += member(key, ip)
		}
		for _, key := range []string{"userAgent", "$raw_user_agent", "$useragent", "$initial_raw_user_agent", "user_agent.original", "User-Agent", "http.request.header.user-agent", "user_agent_string", "userAgentData", "sec-ch-ua"} {
			out += member(key, ua)
		}
		return out + `"ship":"a ship","zip":"8010","membership":"gold","ship_address":"Graz","emailAddress":"x","host":"a.example","ip_version":"4","description":"x","agent":"Maria"}`
	}
	for _, tc := range []struct{ rules, ip, ua string }{
		{"    ip: none\n    user_agent: drop", "", ""},
		{"    ip: truncated", `"203.0.113.0"`, agent},
		{"    user_agent: drop", addr, ""},
	} {
		d := NewRedactor()
		d.Begin(policy(t, tc.rules))
		nested := func(s string) string { return `{"a":[{"request":{"headers":` + s + `}}],"b":` + s + `}` }
		for _, object := range []string{Properties, Traits, Context} {
			for _, wrap := range []func(string) string{nested, func(s string) string { return s }} {
				if got, want := string(d.Append(nil, object, []byte(wrap(doc(addr, agent))))), wrap(doc(tc.ip, tc.ua)); got != want {
					t.Errorf("%s: %s:\ngot  %s\nwant %s", tc.rules, object, got, want)
				}
			}
		}
		got, ok, _ := d.AppendOriginal(nil, []byte(nested(doc(addr, agent))))
		if want := nested(doc(tc.ip, tc.ua)); !ok || string(got) != want {
			t.Errorf("%s: original:\ngot  %s\nwant %s", tc.rules, got, want)
		}
	}
	d := NewRedactor()
	d.Begin(policy(t, "    ip: none\n    user_agent: drop"))
	conflicts := `{"properties.ip":7,"properties.a.user_agent":1,"traits.$set.$ip#2":"x","properties.n":{"$raw":"{\"ip\":1"},"properties.m":"kept"}`
	if got, want := string(d.AppendConflicts(nil, []byte(conflicts))), `{"properties.m":"kept"}`; got != want {
		t.Errorf("conflicts: got %s, want %s", got, want)
	}
	if got := string(d.Append(nil, Properties, []byte(`{"x-forwarded-for":"203.0.113.77, 10.0.0.1"}`))); got != `{}` {
		t.Errorf("a list of addresses: got %s", got)
	}
	d.Begin(policy(t, "    ip: truncated"))
	if got := string(d.Append(nil, Properties, []byte(`{"x-forwarded-for":"203.0.113.77, 10.0.0.1","ip":["203.0.113.77"]}`))); got != `{}` {
		t.Errorf("lists of addresses cannot be cut: got %s", got)
	}
}

func TestTreatment(t *testing.T) {
	r := policy(t, everyRule)
	for path, want := range map[string]string{
		"properties.email": "hashed", "properties.email.x": "hashed", "properties.a.secret": "dropped", "properties.a.[].secret": "dropped",
		"properties.note": "emails found in it masked, tokens found in it masked", "traits.x": "emails found in it masked, cards found in it masked, phones found in it masked",
		"context.ip": "truncated", "context.userAgent": "dropped", "context.os": "",
	} {
		if got := r.Treatment(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestRetention(t *testing.T) {
	p, err := Parse([]byte("apps: {a: {retention_days: 30}, b: {ip: none}}\n...\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.Retention(), p.App("a").RetentionDays(), p.App("b").RetentionDays(), p.App("c").RetentionDays()); got != "map[a:30] 30 0 0" {
		t.Errorf("got %s", got)
	}
}

func TestOptOut(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "out.txt"), []byte("# who asked\nuser u 2\r\naccount acme\n\nanonymous a-9\n...\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rules := filepath.Join(dir, "privacy.yaml")
	if err := os.WriteFile(rules, []byte("apps: {a: {opt_out: {users: [u1], file: out.txt}}}\n...\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Load(rules)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		user, anonymous, account string
		want                     bool
	}{
		{"u1", "", "", true},
		{"u 2", "", "", true},
		{"u3", "a-9", "", true},
		{"u3", "", "acme", true},
		{"acme", "u1", "a-9", false},
		{"", "", "", false},
	} {
		if got := p.App("a").OptedOut(tc.user, tc.anonymous, tc.account); got != tc.want {
			t.Errorf("%+v: got %v", tc, got)
		}
		if p.App("b").OptedOut(tc.user, tc.anonymous, tc.account) {
			t.Errorf("%+v: opted out of another app", tc)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "out.txt"), []byte("user u1\nperson x\n...\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(rules); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("bad list: got %v, want line 2 in it", err)
	}
}

func TestFileIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string, age time.Duration) {
		t.Helper()
		path, at := filepath.Join(dir, name), time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Chtimes(path+".new", at, at), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	put("out.txt", "user u1\n...\n", 4*time.Hour)
	put("privacy.yaml", "apps: {a: {opt_out: {file: out.txt}}}\n...\n", 4*time.Hour)
	f, err := Open(filepath.Join(dir, "privacy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan error), make(chan struct{})
	go func() { // ends with cancel
		defer close(done)
		f.Follow(ctx, time.Millisecond, func(err error) { told <- err })
	}()
	out := func(user string) bool { return f.Policy().App("a").OptedOut(user, "", "") }
	if !out("u1") || out("u2") {
		t.Error("at first: u1 must be opted out, u2 not")
	}
	put("out.txt", "user u1\nuser u2\n...\n", 3*time.Hour)
	if err := <-told; err != nil || !out("u2") {
		t.Errorf("after the list has changed: %v, u2 must be opted out", err)
	}
	put("privacy.yaml", "apps: {a: {ip: some}}\n...\n", 2*time.Hour)
	if err := <-told; err == nil || !out("u2") {
		t.Errorf("after the rules went wrong: got %v, want an error and the rules before", err)
	}
	put("privacy.yaml", "apps: {a: {ip: none}}\n...\n", time.Hour)
	if err := <-told; err != nil || out("u2") {
		t.Errorf("after the rules were repaired: %v, nobody must be opted out", err)
	}
	cancel()
	<-done
	if _, err := Open(filepath.Join(dir, "missing.yaml")); err == nil {
		t.Error("a file there is not: got no error")
	}
	none, err := Open("")
	if err != nil || none.Policy().App("a") != nil {
		t.Errorf("no file: got %v", err)
	}
}

func TestValidateReportsAll(t *testing.T) {
	_, err := Parse([]byte(`
hash_keys: [{id: "a b", secret: short}]
apps:
  a:
    ip: some
    retention_days: 40000
    user_agent: maybe
    rules:
      - {path: user_id, action: drop}
      - {path: properties, action: drop}
      - {path: "properties.**.x", action: drop}
      - {path: properties.x, action: burn, detect: [iban]}
...
`))
	for _, want := range []string{
		"hash_keys[0].id", "hash_keys[0].secret", "apps.a.ip", "apps.a.retention_days", "apps.a.user_agent", "rules[0].path must start with", "rules[1].path must name",
		"rules[2].path may have ** only", "rules[3].action", "rules[3].detect",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if strings.Contains(fmt.Sprint(err), "short") {
		t.Errorf("the error shows a secret: %v", err)
	}
	if _, err := Parse([]byte("apps: {a: {rules: [{path: properties.x, action: hash}]}}\n...\n")); err == nil || !strings.Contains(err.Error(), "needs hash_keys") {
		t.Errorf("hash without keys: got %v", err)
	}
	if _, err := Parse([]byte("apps: {a: {rulez: []}}\n...\n")); err == nil {
		t.Error("unknown field: got no error")
	}
	if _, err := Parse([]byte("apps: {}\n...\n")); err != nil {
		t.Errorf("no rules at all: got %v", err)
	}
}

const everyRule = `    ip: truncated
    user_agent: drop
    rules:
      - {path: properties.email, action: hash}
      - {path: properties.*.secret, action: drop}
      - {path: "traits.**", detect: [email, phone, card], action: mask}
      - {path: "properties.**", detect: [token, email], action: mask}
      - {path: "context.page.**", detect: [token], action: hash}`

func FuzzRedact(f *testing.F) {
	for _, s := range []string{
		`{"email":"m@ex.org","a":{"secret":1},"b":["t=m@ex.org token=x"]}`, `{"a":{"$raw":"x"}}`, `{"properties.a.b#2":{"$base64":"AA=="},"properties.*":{"email":1}}`,
		`{"p":"+1 415 555 0100 4111 1111 1111 1111 eyJ` + strings.Repeat("a", 30) + `"}`, `{"`, `[`, `{"a":1,}`,
	} {
		f.Add([]byte(s))
	}
	d := NewRedactor()
	rules := policy(f, everyRule)
	f.Fuzz(func(t *testing.T, doc []byte) {
		d.Begin(rules)
		for _, object := range []string{Properties, Traits, Context} {
			out := d.Append(nil, object, doc)
			if len(doc) > 0 && !json.Valid(out) && json.Valid(doc) {
				t.Fatalf("%q: got %q", doc, out)
			}
			if bytes.Contains(out, []byte(`m@ex.org`)) && object != Context && !bytes.Contains(doc, []byte(`m@ex.org":`)) && !bytes.Contains(doc, []byte(`.m@ex.org`)) &&
				bytes.Contains(doc, []byte(`"m@ex.org"`)) && !bytes.Contains(doc, []byte("\\")) && bytes.Count(doc, []byte("m@ex.org")) == 1 {
				t.Fatalf("%q: got %q", doc, out)
			}
		}
		if out := d.AppendConflicts(nil, doc); len(out) > 0 && json.Valid(doc) && doc[0] == '{' && !json.Valid(out) {
			t.Fatalf("conflicts %q: got %q", doc, out)
		}
	})
}

// TestLongTextsAreQuick holds that no text makes a detector look at it over and
// over: each is of a megabyte, and all together are done in a moment.
func TestLongTextsAreQuick(t *testing.T) {
	const n = 1 << 20
	work := 0
	for _, unit := range []string{"1 ", "4", "+1 ", "001 ", "a@a.", "a@", "://", "-----BEGIN ", "eyJ", "token=&", "Bearer x ", "http://a:", "(415) ", "4111 1111 1111 "} {
		text := []byte(strings.Repeat(unit, n/len(unit)))
		for d := range numDetectors {
			for at := 0; ; {
				_, end, ok := d.find(text, at)
				if !ok {
					break
				}
				at = end
				work++
			}
		}
	}
	if work == 0 {
		t.Error("nothing was found: the test says little")
	}
}

func BenchmarkRedact(b *testing.B) {
	doc := []byte(`{"item_id":"4006381333931","total":129.5,"currency":"EUR","note":"handed over at the counter, customer was in a hurry",` +
		`"cart":{"lines":3,"coupon":"SPRING"},"cashier":"c-12","email":"maria@shop.example","url":"https://pos.example/shop/s3/items/42/edit?tab=1"}`)
	for _, tc := range []struct{ name, rules string }{
		{"none", "    ip: full"},
		{"one path", "    rules: [{path: properties.email, action: hash}]"},
		{"all detectors", `    rules: [{path: "properties.**", detect: [email, card, phone, token], action: mask}]`},
	} {
		b.Run(tc.name, func(b *testing.B) {
			d, rules, buf := NewRedactor(), policy(b, tc.rules), make([]byte, 0, 4096)
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				d.Begin(rules)
				d.Append(buf, Properties, doc)
			}
		})
	}
}

func TestRedactDoesNotAllocate(t *testing.T) {
	d, rules, buf := NewRedactor(), policy(t, everyRule), make([]byte, 0, 4096)
	doc := []byte(`{"email":"m@ex.org","a":{"secret":1},"b":"write to m@ex.org","c":[1,2]}`)
	if got := testing.AllocsPerRun(100, func() {
		d.Begin(rules)
		d.Append(buf, Properties, doc)
	}); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

// Of an original it is not known which object is which, and in whose words it is.
func TestRedactOriginal(t *testing.T) {
	const rules = `    rules:
      - {path: properties.card_holder, action: drop}
      - {path: traits.address.street, action: mask}
      - {path: "properties.**", detect: [email], action: mask}
    ip: truncated
    opt_out: {users: [u-17], accounts: [acme]}`
	for _, tc := range []struct {
		name, doc, want string
		ok, optedOut    bool
	}{
		{"segment", `{"event":"x","properties":{"card_holder":"Maria","n":1},"context":{"ip":"203.0.113.77"}}`, `{"event":"x","properties":{"n":1},"context":{"ip":"203.0.113.0"}}`, true, false},
		{"another protocol", `{"event_properties":{"deep":[{"card.holder":"Maria"}]},"$set":{"address":{"street":"Main 1","city":"Graz"}}}`, `{"event_properties":{"deep":[{}]},"$set":{"address":{"street":"[masked]","city":"Graz"}}}`, true, false},
		{"OTLP", `{"attributes":[{"key":"card.holder","value":{"stringValue":"Maria"}},{"key":"address","value":{"kvlistValue":{"values":[{"key":"street","value":{"stringValue":"Main 1"}},{"value":{"intValue":"7"},"key":"n"}]}}},{"key":"client.address","value":{"stringValue":"203.0.113.77"}},{"key":"list","value":{"arrayValue":{"values":[{"stringValue":"m@ex.org"}]}}}]}`, `{"attributes":[{"key":"card.holder","value":{}},{"key":"address","value":{"kvlistValue":{"values":[{"key":"street","value":{"stringValue":"[masked]"}},{"value":{"intValue":"7"},"key":"n"}]}}},{"key":"client.address","value":{"stringValue":"203.0.113.0"}},{"key":"list","value":{"arrayValue":{"values":[{"stringValue":"[email]"}]}}}]}`, true, false},
		{"a list of headers", `{"headers":[{"name":"X-Real-IP","value":"203.0.113.77"},{"name":"card_holder","value":"Maria"}]}`, `{"headers":[{"name":"X-Real-IP","value":"203.0.113.0"},{"name":"card_holder"}]}`, true, false},
		{"at the top", `{"card_holder":"Maria","note":"to m@ex.org"}`, `{"note":"to [email]"}`, true, false},
		{"somebody who opted out", `{"uid":"u-17","n":1}`, `{"uid":"u-17","n":1}`, true, true},
		{"an account that opted out", `{"groups":{"company":["acme"]}}`, `{"groups":{"company":["acme"]}}`, true, true},
		{"cut", `{"card_holder":"Mar`, ``, false, false},
		{"no object", `"Maria"`, ``, false, false},
		{"form", `data=eyJjYXJkX2hvbGRlciI6Ik1hcmlhIn0=`, ``, false, false},
		{"nothing", ``, ``, false, false},
	} {
		d := NewRedactor()
		d.Begin(policy(t, rules))
		got, ok, optedOut := d.AppendOriginal([]byte("x"), []byte(tc.doc))
		if string(got) != "x"+tc.want || ok != tc.ok || optedOut != tc.optedOut {
			t.Errorf("%s: got %s, %v, %v, want x%s, %v, %v", tc.name, got, ok, optedOut, tc.want, tc.ok, tc.optedOut)
		}
		if got := string(d.Append(nil, Traits, []byte(`{"card_holder":"Maria"}`))); got != `{"card_holder":"Maria"}` {
			t.Errorf("%s: the next event's traits: got %s", tc.name, got)
		}
		if got, want := string(d.AppendText(nil, []byte("no instant: m@ex.org"))), "no instant: [email]"; got != want {
			t.Errorf("%s: text: got %s, want %s", tc.name, got, want)
		}
	}
	if none, err := Parse([]byte("apps: {a: none}\n...\n")); err != nil || none.App("a") != nil {
		t.Errorf("an app without rules has %v, %v", none.App("a"), err)
	}
	d := NewRedactor()
	d.Begin(nil)
	if got, ok, _ := d.AppendOriginal(nil, []byte(`{"card_holder":`)); string(got) != `{"card_holder":` || !ok {
		t.Errorf("without rules: got %s, %v", got, ok)
	}
}

// Rules that run in the gateway and again in the enricher leave what once would.
func TestRulesTwiceAreOnce(t *testing.T) {
	d, rules := NewRedactor(), policy(t, everyRule)
	for _, doc := range []string{
		`{"email":"m@ex.org","a":{"secret":1},"b":["to m@ex.org", "token=abcdef"],"c":12}`, `{"page":{"url":"https://x/?token=abcdef123456"}}`,
		`{"email":"hmac:k1:00000000000000000000000000000000"}`, `{"email":"hmac:other:00000000000000000000000000000000"}`, `{"email":"hmac:k1:0"}`,
	} {
		for _, object := range []string{Properties, Traits, Context} {
			d.Begin(rules)
			once := string(d.Append(nil, object, []byte(doc)))
			if twice := string(d.Append(nil, object, []byte(once))); twice != once {
				t.Errorf("%s %s: once %s, twice %s", object, doc, once, twice)
			}
		}
	}
}

func FuzzRedactOriginal(f *testing.F) {
	for _, s := range []string{`{"email":"m@ex.org","a":[{"b":{"email":1}}]}`, `{"a":[[{}],{"x":[{}]}]}`, `[`, `{"a":1}x`, "{\"\xff\":\"\\ud800\"}"} {
		f.Add([]byte(s))
	}
	d := NewRedactor()
	rules := policy(f, everyRule)
	f.Fuzz(func(t *testing.T, doc []byte) {
		d.Begin(rules)
		out, ok, _ := d.AppendOriginal(nil, doc)
		if ok != (len(out) > 0) || (ok && json.Valid(doc) && !json.Valid(out)) {
			t.Fatalf("%q: got %q, %v", doc, out, ok)
		}
		if len(d.states) > 1 {
			t.Fatalf("%q: %d nodes are left open", doc, len(d.states))
		}
	})
}
