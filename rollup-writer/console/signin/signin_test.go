package signin

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

var start = time.Date(2026, 11, 20, 15, 30, 0, 0, time.UTC)

const rightsText = `
groups:
  support:
    role: viewer
    apps: [shop, web]
    people: hidden
  growth:
    role: analyst
    apps: [shop]
  platform:
    role: admin
    apps: all
users:
  maria@example.com:
    role: analyst
    apps: [web]
...
`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRights(t *testing.T) {
	r, err := ReadRights(write(t, rightsText), slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		groups []string
		app    string
		want   Grant
	}{
		{"x", nil, "shop", Grant{}},
		{"x", []string{"unknown"}, "shop", Grant{}},
		{"x", []string{"support"}, "shop", Grant{Viewer, false}},
		{"x", []string{"support"}, "other", Grant{}},
		{"x", []string{"support", "growth"}, "shop", Grant{Analyst, true}},
		{"x", []string{"support", "growth"}, "web", Grant{Viewer, false}},
		{"x", []string{"platform", "support"}, "web", Grant{Admin, true}},
		{"x", []string{"platform"}, "whatever", Grant{Admin, true}},
		{"maria@example.com", nil, "web", Grant{Analyst, true}},
		{"maria@example.com", nil, "shop", Grant{}},
		{"Maria@example.com", nil, "web", Grant{}},
	} {
		if got := r.Person(tc.name, tc.groups).On(tc.app); got != tc.want {
			t.Errorf("%s of %v on %s: got %+v, want %+v", tc.name, tc.groups, tc.app, got, tc.want)
		}
	}
	if r.Person("x", []string{"unknown"}) != nil {
		t.Error("somebody without a right is a person")
	}
	if got := r.Named([]string{"z", "support", "growth", "support"}); !slices.Equal(got, []string{"growth", "support"}) {
		t.Errorf("named groups: %v", got)
	}
	if got := (*Person)(nil).On("shop"); got != (Grant{}) {
		t.Errorf("nobody has %+v", got)
	}
	all, err := ReadRights("", nil, time.Now)
	if err != nil || all.Person("x", nil).On("shop") != (Grant{Admin, true}) {
		t.Errorf("without a file: %v", err)
	}
}

// A file that cannot be used is refused at the start, and later leaves the rights as
// they were.
func TestRightsAreReadAgain(t *testing.T) {
	for text, want := range map[string]string{
		"": "empty",
		"groups:\n  a: {role: viewer, apps: all}\n":                   "cut short",
		"groups:\n  a: {role: owner, apps: all}\n...\n":               "groups.a: role must be viewer, analyst or admin (got \"owner\")",
		"groups:\n  a: {role: viewer}\n...\n":                         "groups.a: apps must be all, or a list",
		"groups:\n  a: {role: viewer, apps: shop}\n...\n":             "line 2: apps must be all, or a list",
		"groups:\n  a:\n...\n":                                        "groups.a: role",
		"users:\n  a: {role: viewer, apps: all, people: no}\n...\n":   "users.a: people must be shown or hidden",
		"everyone: {role: viewer, apps: []}\n...\n":                   "apps",
		"groups:\n  a: {role: viewer, apps: all, rights: all}\n...\n": "rights",
	} {
		if _, err := ReadRights(write(t, text), nil, time.Now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	path, now := write(t, rightsText), start
	r, err := ReadRights(path, slog.New(slog.DiscardHandler), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		text string
		want Role
	}{
		{"groups:\n  support: {role: admin, apps: all}\n...\n", Admin},
		{"groups:\n  support: {role: vie", Admin},
		{"groups:\n  others: {role: admin, apps: all}\n...\n", Nobody},
	} {
		if err := os.WriteFile(path, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		now = now.Add(lookEvery)
		if got := r.Person("x", []string{"support"}).On("shop").Role; got != step.want {
			t.Errorf("after %q: role %d, want %d", step.text, got, step.want)
		}
	}
}

// idp is an OpenID Connect provider that says what a test wants.
type idp struct {
	t      *testing.T
	server *httptest.Server
	signer jose.Signer
	keys   jose.JSONWebKeySet

	claims    map[string]any // of the ID token, besides those that every token has
	info      map[string]any // of the userinfo endpoint
	challenge string
	nonce     string
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &idp{t: t}
	p.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.keys.Keys = []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "RS256", Use: "sig"}}
	mux := http.NewServeMux()
	answer := func(path string, body func(r *http.Request) any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			b := body(r)
			if b == nil {
				w.WriteHeader(http.StatusBadRequest)
				b = map[string]string{"error": "invalid_grant"}
			}
			if err := json.NewEncoder(w).Encode(b); err != nil {
				t.Error(err)
			}
		})
	}
	answer("/.well-known/openid-configuration", func(*http.Request) any {
		u := p.server.URL
		return map[string]any{
			"issuer": u, "authorization_endpoint": u + "/auth", "token_endpoint": u + "/token", "jwks_uri": u + "/keys", "userinfo_endpoint": u + "/info",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		}
	})
	answer("/keys", func(*http.Request) any { return p.keys })
	answer("/info", func(*http.Request) any { return p.info })
	answer("/token", func(r *http.Request) any {
		id, secret, _ := r.BasicAuth()
		if r.FormValue("code") != "good" || id != "console" || secret != "s3cret" || s256(r.FormValue("code_verifier")) != p.challenge {
			return nil
		}
		return map[string]any{"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": p.token()}
	})
	p.server = httptest.NewServer(mux)
	t.Cleanup(p.server.Close)
	return p
}

// s256 is the challenge that belongs to a verifier, by RFC 7636.
func s256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (p *idp) token() string {
	claims := map[string]any{"iss": p.server.URL, "aud": "console", "sub": "42", "iat": start.Unix(), "exp": start.Add(time.Minute).Unix(), "nonce": p.nonce}
	for k, v := range p.claims {
		claims[k] = v
	}
	b, err := json.Marshal(claims)
	if err != nil {
		p.t.Fatal(err)
	}
	signed, err := p.signer.Sign(b)
	if err != nil {
		p.t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// browser keeps the cookies of one.
type browser struct {
	p       *Provider
	cookies map[string]string
}

func (b *browser) do(f func(w http.ResponseWriter, r *http.Request), target string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	f(w, r)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	return w
}

// Somebody is who the provider says, with the rights of the groups that it names, until
// the session ends; and nobody is anybody by another way.
func TestSignIn(t *testing.T) {
	p := newIDP(t)
	now := start
	clock := func() time.Time { return now }
	rights, err := ReadRights(write(t, rightsText), slog.New(slog.DiscardHandler), clock)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Issuer, cfg.ClientID, cfg.ClientSecret, cfg.URL = p.server.URL, "console", "s3cret", "https://uptake.example"
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	provider, err := NewProvider(cfg, "token", rights, clock)
	if err != nil {
		t.Fatal(err)
	}
	// to is where a browser is sent, and what the provider is asked.
	begin := func(b *browser, to string) url.Values {
		t.Helper()
		w := b.do(func(w http.ResponseWriter, r *http.Request) {
			if err := provider.Begin(w, r, to); err != nil {
				t.Fatal(err)
			}
		}, Path)
		u, err := url.Parse(w.Header().Get("Location"))
		if err != nil || w.Code != http.StatusFound || !strings.HasPrefix(u.String(), p.server.URL+"/auth?") {
			t.Fatalf("sent to %q with %d", u, w.Code)
		}
		for _, c := range w.Result().Cookies() {
			if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode {
				t.Errorf("cookie %+v", c)
			}
		}
		q := u.Query()
		p.nonce, p.challenge = q.Get("nonce"), q.Get("code_challenge")
		return q
	}
	finish := func(b *browser, query url.Values) (to string, err error) {
		b.do(func(w http.ResponseWriter, r *http.Request) { to, err = provider.Finish(w, r) }, CallbackPath+"?"+query.Encode())
		return to, err
	}
	person := func(b *browser) (who *Person) {
		b.do(func(_ http.ResponseWriter, r *http.Request) { who = provider.Person(r) }, "/")
		return who
	}
	fresh := func() *browser { return &browser{p: provider, cookies: map[string]string{}} }

	p.claims = map[string]any{"email": "ana@example.com", "email_verified": true, "groups": []string{"everybody", "support"}}
	b := fresh()
	q := begin(b, "/accounts?app=shop")
	for name, want := range map[string]string{"client_id": "console", "redirect_uri": "https://uptake.example/signin/callback", "response_type": "code", "scope": "openid profile email groups", "code_challenge_method": "S256"} {
		if q.Get(name) != want {
			t.Errorf("%s: got %q, want %q", name, q.Get(name), want)
		}
	}
	good := url.Values{"state": {q.Get("state")}, "code": {"good"}}
	to, err := finish(b, good)
	if err != nil || to != "/accounts?app=shop" {
		t.Fatalf("got %q, %v", to, err)
	}
	if who := person(b); who == nil || who.Name != "ana@example.com" || who.On("shop") != (Grant{Viewer, false}) || who.On("other") != (Grant{}) {
		t.Fatalf("signed in as %+v", who)
	}
	if _, err := finish(b, good); err == nil {
		t.Error("a sign-in was finished twice")
	}

	// Cookies of others, cut off, changed, exchanged, old.
	value := b.cookies[sessionCookie]
	other, err := NewProvider(cfg, "another token", rights, clock)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]string{
		"changed": value[:len(value)-2] + "AA", "cut off": value[:20], "empty": "", "no base64": "%%", "signed by another": other.seal(session{"ana@example.com", []string{"platform"}, start.Add(time.Hour).Unix()}),
		"another cookie": provider.seal(state{State: "s", Nonce: "ana", Until: start.Add(time.Hour).Unix()}),
		"nobody's":       provider.seal(session{"", []string{"platform"}, start.Add(time.Hour).Unix()}),
	} {
		if who := person(&browser{p: provider, cookies: map[string]string{sessionCookie: v}}); who != nil {
			t.Errorf("a cookie that is %s signs in %+v", name, who)
		}
	}
	now = start.Add(cfg.Session)
	if who := person(b); who != nil {
		t.Errorf("an old session signs in %+v", who)
	}
	now = start

	// What the provider says wrongly, and what it does not say.
	for name, tc := range map[string]struct {
		claims, info map[string]any
		query        func(url.Values)
		nonce        string
		want         string // in the error; empty: signed in as ana
		status       int
	}{
		"groups by userinfo": {claims: map[string]any{"email": "ana@example.com"}, info: map[string]any{"sub": "42", "groups": []string{"growth"}}},
		"the first claim counts": {
			claims: map[string]any{"email": "ana@example.com"}, info: map[string]any{"sub": "42", "email": "root@example.com", "groups": "growth"},
		},
		"information of another": {
			claims: map[string]any{"email": "ana@example.com"}, info: map[string]any{"sub": "43", "groups": []string{"platform"}}, want: "somebody else", status: 403,
		},
		"another audience":      {claims: map[string]any{"aud": "billing", "email": "ana@example.com"}, want: "could not be verified", status: 403},
		"another issuer":        {claims: map[string]any{"iss": "https://evil.example", "email": "ana@example.com"}, want: "could not be verified", status: 403},
		"an old token":          {claims: map[string]any{"exp": start.Add(-time.Hour).Unix(), "email": "ana@example.com"}, want: "could not be verified", status: 403},
		"another nonce":         {nonce: "x", want: "could not be verified", status: 403},
		"an address of whoever": {claims: map[string]any{"email": "maria@example.com", "email_verified": false, "groups": []string{}}, want: "has not verified", status: 403},
		"no name":               {claims: map[string]any{"groups": []string{"support"}}, info: map[string]any{"sub": "42"}, want: `"email"`, status: 403},
		"no right":              {claims: map[string]any{"email": "bo@example.com", "groups": []string{"everybody"}}, want: "bo@example.com may not see", status: 403},
		"a refusal":             {query: func(q url.Values) { q.Set("error", "access_denied"); q.Set("error_description", "No.") }, want: "access_denied No.", status: 403},
		"another state":         {query: func(q url.Values) { q.Set("state", "x") }, want: "not begun here", status: 400},
		"a bad code":            {query: func(q url.Values) { q.Set("code", "bad") }, want: "did not accept", status: 403},
	} {
		b := fresh()
		q := begin(b, "/x")
		if p.claims, p.info = tc.claims, tc.info; p.claims == nil {
			p.claims = map[string]any{"email": "ana@example.com", "groups": []string{"support"}}
		}
		if tc.nonce != "" {
			p.nonce = tc.nonce
		}
		query := url.Values{"state": {q.Get("state")}, "code": {"good"}}
		if tc.query != nil {
			tc.query(query)
		}
		_, err := finish(b, query)
		who := person(b)
		failed := new(Error)
		switch {
		case tc.want == "" && (err != nil || who == nil || who.Name != "ana@example.com" || who.On("shop") != (Grant{Analyst, true}) || who.On("web") != (Grant{})):
			t.Errorf("%s: signed in as %+v, %v", name, who, err)
		case tc.want != "" && (who != nil || !errors.As(err, &failed) || failed.Status != tc.status || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: signed in as %+v, got %v, want %q", name, who, err, tc.want)
		}
	}

	// A sign-in that took too long.
	p.claims = map[string]any{"email": "ana@example.com", "groups": []string{"support"}}
	b = fresh()
	q = begin(b, "/x")
	now = start.Add(stateFor + time.Second)
	if _, err := finish(b, url.Values{"state": {q.Get("state")}, "code": {"good"}}); err == nil {
		t.Error("a sign-in of eleven minutes was finished")
	}

	p.server.Close()
	late, err := NewProvider(cfg, "token", rights, clock)
	if err != nil {
		t.Fatal(err)
	}
	failed := new(Error)
	if err := late.Begin(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, Path, nil), "/"); !errors.As(err, &failed) || failed.Status != http.StatusBadGateway {
		t.Errorf("a provider that does not answer: %v", err)
	}
}

func TestOnlyPagesOfTheConsoleAreShownAfterwards(t *testing.T) {
	for to, want := range map[string]string{
		"/accounts?app=a&p=7d": "/accounts?app=a&p=7d", "/person?person=https%3A%2F%2Fx": "/person?person=https%3A%2F%2Fx",
		"": "/overview", "/": "/overview", "//evil.example": "/overview", "https://evil.example/": "/overview", `/\evil.example`: "/overview", "/signin": "/overview", "/signin/callback?code=1": "/overview",
		"javascript:alert(1)": "/overview", "/a\r\nSet-Cookie: x": "/overview", "evil": "/overview", "/\t/evil.example": "/overview",
	} {
		if got := Local(to); got != want {
			t.Errorf("%q: got %q, want %q", to, got, want)
		}
	}
}

func TestSettingsOfSignIn(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"console-oidc-issuer must be":         func(c *Config) { c.Issuer = "example" },
		"console-url must be an http":         func(c *Config) { c.URL = "" },
		"console-url must not end":            func(c *Config) { c.URL += "/" },
		"needs console-oidc-client-id":        func(c *Config) { c.ClientSecret = "" },
		"console-session must be at least 1m": func(c *Config) { c.Session = time.Second },
		"console-oidc-ca":                     func(c *Config) { c.CA = "/does/not/exist" },
		"need console-oidc-issuer":            func(c *Config) { c.Issuer = "" },
		"must be named":                       func(c *Config) { c.GroupsClaim = "" },
	} {
		c := DefaultConfig()
		c.Issuer, c.ClientID, c.ClientSecret, c.URL = "https://idp.example", "console", "s3cret", "https://uptake.example"
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
