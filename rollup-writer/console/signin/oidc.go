package signin

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// Config is of the OpenID Connect provider at which people sign in.
type Config struct {
	// Issuer is the provider's URL. Empty: nobody signs in.
	Issuer       string
	ClientID     string
	ClientSecret setting.Secret
	// URL is the console's own address as browsers see it. The provider must know
	// URL + [CallbackPath] as a redirect URL.
	URL string
	// Scopes to ask for, besides openid.
	Scopes setting.Strings
	// NameClaim and GroupsClaim are the claims with the name and the groups of a person.
	NameClaim, GroupsClaim string
	// Session is how long somebody stays signed in.
	Session time.Duration
	// CA is a PEM file of the authorities that the provider's certificate may be from, in
	// place of the system's.
	CA string
}

// DefaultConfig has what most providers understand.
func DefaultConfig() Config {
	return Config{Scopes: setting.Strings{"profile", "email", "groups"}, NameClaim: "email", GroupsClaim: "groups", Session: 8 * time.Hour}
}

// Flags defines the settings as flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	set.StringVar(&c.Issuer, "console-oidc-issuer", c.Issuer, "`URL` of the OpenID Connect provider at which people sign in; empty: none")
	set.StringVar(&c.ClientID, "console-oidc-client-id", c.ClientID, "the console's `id` at the provider")
	set.Var(&c.ClientSecret, "console-oidc-client-secret", "the console's `secret` at the provider, or file:PATH")
	set.StringVar(&c.URL, "console-url", c.URL, "`URL` of the console as browsers see it; the provider must allow the redirect URL console-url"+CallbackPath)
	set.Var(&c.Scopes, "console-oidc-scopes", "comma-separated `scopes` to ask for, besides openid")
	set.StringVar(&c.NameClaim, "console-oidc-name-claim", c.NameClaim, "`claim` with the name of a person; email counts only if the provider does not say that it is unverified")
	set.StringVar(&c.GroupsClaim, "console-oidc-groups-claim", c.GroupsClaim, "`claim` with the groups of a person: a list of texts, in the ID token or from the userinfo endpoint")
	set.DurationVar(&c.Session, "console-session", c.Session, "how long somebody stays signed in; groups are asked for again at the next sign-in")
	set.StringVar(&c.CA, "console-oidc-ca", c.CA, "PEM `file` of the authorities to trust for the provider, in place of the system's")
}

// Validate reports all faults.
func (c *Config) Validate() error {
	if c.Issuer == "" {
		if c.ClientID != "" || c.ClientSecret != "" {
			return errors.New("console-oidc-client-id and console-oidc-client-secret need console-oidc-issuer")
		}
		return nil
	}
	var errs []error
	for _, s := range []struct{ name, text string }{{"console-oidc-issuer", c.Issuer}, {"console-url", c.URL}} {
		if u, err := url.Parse(s.text); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			errs = append(errs, fmt.Errorf("%s must be an http or https URL (got %q)", s.name, s.text))
		}
	}
	if strings.HasSuffix(c.URL, "/") {
		errs = append(errs, fmt.Errorf("console-url must not end with / (got %q)", c.URL))
	}
	if c.ClientID == "" || c.ClientSecret == "" {
		errs = append(errs, errors.New("console-oidc-issuer needs console-oidc-client-id and console-oidc-client-secret"))
	}
	if c.NameClaim == "" || c.GroupsClaim == "" {
		errs = append(errs, errors.New("console-oidc-name-claim and console-oidc-groups-claim must be named"))
	}
	if c.Session < time.Minute {
		errs = append(errs, fmt.Errorf("console-session must be at least 1m (got %s)", c.Session))
	}
	if c.CA != "" {
		_, err := setting.CertPool("console-oidc-ca", c.CA)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Host is the value of Host that browsers send for URL.
func (c *Config) Host() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return ""
	}
	return u.Host
}

// Paths of sign-in.
const (
	Path         = "/signin"
	CallbackPath = "/signin/callback"
	SignOutPath  = "/signout"
)

const (
	sessionCookie = "uptake_session"
	stateCookie   = "uptake_signin"
	stateFor      = 10 * time.Minute
	askFor        = 15 * time.Second // the provider
	mostSession   = 3000             // bytes of the cookie; browsers keep 4096
)

// Provider signs people in.
type Provider struct {
	cfg    Config
	key    []byte // of cookies
	rights *Rights
	now    func() time.Time
	client *http.Client

	mu       sync.Mutex // covers all below
	oauth    *oauth2.Config
	provider *oidc.Provider
}

// NewProvider returns a provider that is asked for its addresses at the first sign-in.
// secret is what cookies are signed with: consoles that share it share their sessions.
func NewProvider(cfg Config, secret string, rights *Rights, now func() time.Time) (*Provider, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if cfg.CA != "" {
		pool, err := setting.CertPool("console-oidc-ca", cfg.CA)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	key := sha256.Sum256([]byte("session:" + secret))
	return &Provider{cfg: cfg, key: key[:], rights: rights, now: now, client: &http.Client{Transport: transport, Timeout: askFor}}, nil
}

// discover asks the provider for its addresses, once.
func (p *Provider) discover(ctx context.Context) (*oauth2.Config, *oidc.Provider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.oauth != nil {
		return p.oauth, p.provider, nil
	}
	provider, err := oidc.NewProvider(ctx, p.cfg.Issuer)
	if err != nil {
		return nil, nil, err
	}
	p.provider = provider
	p.oauth = &oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: p.cfg.ClientSecret.Reveal(), Endpoint: provider.Endpoint(),
		RedirectURL: p.cfg.URL + CallbackPath, Scopes: append([]string{oidc.ScopeOpenID}, p.cfg.Scopes...),
	}
	return p.oauth, p.provider, nil
}

// Error is a sign-in that failed, in words for the page that says so.
type Error struct {
	Status     int
	What, Todo string
	Cause      error // for the log; may be nil
}

func (e *Error) Error() string { return e.What + " " + e.Todo }
func (e *Error) Unwrap() error { return e.Cause }

// state is what the console remembers while somebody is at the provider.
type state struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"`
	To       string `json:"t"`
	Until    int64  `json:"u"` // seconds since the epoch
}

// session is of somebody who signed in.
type session struct {
	Name   string   `json:"n"`
	Groups []string `json:"g,omitempty"`
	Until  int64    `json:"u"` // seconds since the epoch
}

// Begin sends the browser to the provider, which sends it back to [CallbackPath]. to is
// the page of the console to show afterwards.
func (p *Provider) Begin(w http.ResponseWriter, r *http.Request, to string) error {
	ctx := oidc.ClientContext(r.Context(), p.client)
	oauth, _, err := p.discover(ctx)
	if err != nil {
		return p.unreachable(err)
	}
	s := state{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), To: Local(to), Until: p.now().Add(stateFor).Unix()}
	p.set(w, stateCookie, Path, p.seal(s), stateFor)
	http.Redirect(w, r, oauth.AuthCodeURL(s.State, oidc.Nonce(s.Nonce), oauth2.S256ChallengeOption(s.Verifier)), http.StatusFound)
	return nil
}

// Finish takes what the provider said, sets the session's cookie, and returns the page
// to show.
func (p *Provider) Finish(w http.ResponseWriter, r *http.Request) (to string, err error) {
	var s state
	c, err := r.Cookie(stateCookie)
	if err != nil || !p.open(c.Value, &s) || s.Until < p.now().Unix() || !same(s.State, r.URL.Query().Get("state")) {
		return "", &Error{Status: http.StatusBadRequest, What: "This sign-in was not begun here, or longer than ten minutes ago.", Todo: "Open the console again.", Cause: err}
	}
	p.set(w, stateCookie, Path, "", -1)
	if said := r.URL.Query().Get("error"); said != "" {
		return "", &Error{Status: http.StatusForbidden, What: fmt.Sprintf("The provider did not sign you in: %.200q.", strings.TrimSpace(said+" "+r.URL.Query().Get("error_description"))), Todo: "Ask those who run it, or try again."}
	}
	name, groups, err := p.exchange(oidc.ClientContext(r.Context(), p.client), s, r.URL.Query().Get("code"))
	if err != nil {
		return "", err
	}
	groups = p.rights.Named(groups)
	if p.rights.Person(name, groups) == nil {
		return "", &Error{Status: http.StatusForbidden, What: fmt.Sprintf("%s may not see the console.", name), Todo: "None of your groups, as the provider names them, has a right in console-access-file."}
	}
	value := p.seal(session{Name: name, Groups: groups, Until: p.now().Add(p.cfg.Session).Unix()})
	if len(value) > mostSession {
		return "", &Error{Status: http.StatusForbidden, What: "You are in more groups of console-access-file than a cookie can hold.", Todo: "Give the rights to fewer, larger groups."}
	}
	p.set(w, sessionCookie, "/", value, p.cfg.Session)
	return s.To, nil
}

// exchange asks the provider who has the code.
func (p *Provider) exchange(ctx context.Context, s state, code string) (name string, groups []string, err error) {
	oauth, provider, err := p.discover(ctx)
	if err != nil {
		return "", nil, p.unreachable(err)
	}
	token, err := oauth.Exchange(ctx, code, oauth2.VerifierOption(s.Verifier))
	if err != nil {
		if refused := new(oauth2.RetrieveError); errors.As(err, &refused) {
			return "", nil, &Error{Status: http.StatusForbidden, What: "The provider did not accept the sign-in.", Todo: "Try again. The console's log has its answer.", Cause: err}
		}
		return "", nil, p.unreachable(err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: p.cfg.ClientID, Now: p.now}).Verify(ctx, raw)
	if err != nil || !same(id.Nonce, s.Nonce) {
		return "", nil, &Error{Status: http.StatusForbidden, What: "What the provider said could not be verified.", Todo: "Try again. The console's log says what was wrong.", Cause: cmp.Or(err, errors.New("the ID token has another nonce"))}
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return "", nil, &Error{Status: http.StatusForbidden, What: "The claims of the provider cannot be read.", Todo: "The console's log has the error.", Cause: err}
	}
	_, hasName := claims[p.cfg.NameClaim]
	_, hasGroups := claims[p.cfg.GroupsClaim]
	if provider.UserInfoEndpoint() != "" && (!hasName || !hasGroups) {
		info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
		if err != nil {
			return "", nil, p.unreachable(err)
		}
		more := map[string]any{}
		if info.Subject != id.Subject || info.Claims(&more) != nil {
			return "", nil, &Error{Status: http.StatusForbidden, What: "The provider's user information is about somebody else, or cannot be read.", Todo: "Ask those who run it."}
		}
		for k, v := range more {
			if _, ok := claims[k]; !ok {
				claims[k] = v
			}
		}
	}
	name, _ = claims[p.cfg.NameClaim].(string)
	if verified, said := claims["email_verified"].(bool); p.cfg.NameClaim == "email" && said && !verified {
		return "", nil, &Error{Status: http.StatusForbidden, What: fmt.Sprintf("The provider has not verified the address %.200q.", name), Todo: "Verify it there."}
	}
	if name == "" {
		return "", nil, &Error{Status: http.StatusForbidden, What: fmt.Sprintf("The provider does not say the claim %q.", p.cfg.NameClaim), Todo: "console-oidc-name-claim names the claim, console-oidc-scopes what the console asks for."}
	}
	return name, texts(claims[p.cfg.GroupsClaim]), nil
}

// texts of a claim: a list of texts, or one.
func texts(claim any) (list []string) {
	switch c := claim.(type) {
	case string:
		return []string{c}
	case []any:
		for _, v := range c {
			if s, ok := v.(string); ok {
				list = append(list, s)
			}
		}
	}
	return list
}

func (p *Provider) unreachable(err error) error {
	return &Error{Status: http.StatusBadGateway, What: "The sign-in provider did not answer.", Todo: "Try again. The console's log has the error.", Cause: err}
}

// Person returns who a request is from by its session, nil without one.
func (p *Provider) Person(r *http.Request) *Person {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil
	}
	var s session
	if !p.open(c.Value, &s) || s.Name == "" || s.Until <= p.now().Unix() {
		return nil
	}
	return p.rights.Person(s.Name, s.Groups)
}

// End removes the session's cookie.
func (p *Provider) End(w http.ResponseWriter) { p.set(w, sessionCookie, "/", "", -1) }

// set a cookie. The provider's redirect comes from another site, so the cookies are Lax:
// they come along with links, never with another site's forms.
func (p *Provider) set(w http.ResponseWriter, name, path, value string, lasts time.Duration) {
	age := int(lasts.Seconds())
	if value == "" {
		age = -1
	}
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: path, MaxAge: age, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: strings.HasPrefix(p.cfg.URL, "https:")})
}

// seal writes a value with a signature that no other can make. Its type is signed too,
// so that the value of one cookie is none of another.
func (p *Provider) seal(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // cannot happen: texts and numbers
	}
	return base64.RawURLEncoding.EncodeToString(slices.Concat(p.sign(b, v), b))
}

func (p *Provider) sign(b []byte, v any) []byte {
	mac := hmac.New(sha256.New, p.key)
	fmt.Fprintf(mac, "%s\x00", strings.TrimPrefix(fmt.Sprintf("%T", v), "*"))
	mac.Write(b)
	return mac.Sum(nil)
}

// open reads what seal wrote of a value of the type that v points to.
func (p *Provider) open(text string, v any) bool {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < sha256.Size {
		return false
	}
	sum, b := b[:sha256.Size], b[sha256.Size:]
	return hmac.Equal(sum, p.sign(b, v)) && json.Unmarshal(b, v) == nil
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// Local returns a path of the console with its query, the overview in place of anything
// else.
func Local(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n\t") || u.Path == "/" || strings.HasPrefix(u.Path, Path) {
		return "/overview"
	}
	return to
}
