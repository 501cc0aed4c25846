package console

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/uptakehq/uptake/rollup-writer/console/signin"
)

// access decides who may see a page. Other users of the machine can reach a loopback
// port, and so can every page that a browser has open. The token of the printed
// address, which becomes a cookie, keeps out the former; Host, which a page that uses
// DNS rebinding cannot set, and the cookie, which browsers send to no other site
// (SameSite=Strict), keep out the latter.
//
// People sign in at a provider (package signin), or at a proxy, which names the user and
// the groups: its headers count only from the listed networks and together with the
// secret. What they may see is said by the rights of their groups.
type access struct {
	token  string
	hosts  []string
	peers  []netip.Prefix
	secret string
	apps   map[string]appToken // by the hash of a program's token

	rights   *signin.Rights
	provider *signin.Provider // nil: nobody signs in here
}

// appToken is what a program may do with its token: ask questions about one app or, with
// annotate, add annotations to it and nothing else.
type appToken struct {
	app      string
	annotate bool
}

const cookieName = "uptake_console"

func newAccess(token string, hosts, peers []string, secret string) *access {
	a := &access{token: token, hosts: hosts, secret: secret}
	for _, p := range peers {
		a.peers = append(a.peers, netip.MustParsePrefix(p)) // Validate has read it
	}
	return a
}

// ReadToken returns the token in the file (Config.TokenFile) and creates one if the file
// does not exist.
func ReadToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		token := strings.TrimSpace(string(b))
		if len(token) < 32 {
			return "", errors.New(path + " holds no token of at least 32 characters: remove it to have one made")
		}
		return token, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var raw [24]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", err
	}
	token := hex.EncodeToString(raw[:])
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) { // another console made it meanwhile
		return ReadToken(path)
	}
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(token + "\n")
	return token, errors.Join(err, f.Close())
}

// cookie is derived from the token. It is not the token, so that somebody who has seen
// a cookie cannot open the printed address.
func (a *access) cookie() string {
	sum := sha256.Sum256([]byte("cookie:" + a.token))
	return hex.EncodeToString(sum[:])
}

// pseudonym stands for a person where people are not shown: the same in every answer
// about an app, and without meaning elsewhere.
func (a *access) pseudonym(app, id string) string {
	mac := hmac.New(sha256.New, []byte("pseudonym:"+a.token))
	fmt.Fprintf(mac, "%q %q", app, id)
	return "person " + hex.EncodeToString(mac.Sum(nil)[:4])
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// proxied returns the user and the groups that a listed proxy names.
func (a *access) proxied(r *http.Request) (name string, groups []string) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || a.secret == "" || !same(r.Header.Get("X-Proxy-Secret"), a.secret) {
		return "", nil
	}
	from := peer.Addr().Unmap()
	if !slices.ContainsFunc(a.peers, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return "", nil
	}
	for _, g := range strings.Split(r.Header.Get("Remote-Groups"), ",") {
		if g = strings.TrimSpace(g); g != "" {
			groups = append(groups, g)
		}
	}
	return r.Header.Get("Remote-User"), groups
}

// holder is who has the token: it admits to everything.
const holder = "holder of the token"

// person returns who a request is from: somebody whom the proxy names, somebody who
// signed in, the holder of the token (as a cookie or, for programs, as a bearer token),
// or a program with the token of one app. It is nil for others.
func (a *access) person(r *http.Request) *signin.Person {
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if same(bearer, a.token) {
			return signin.Everything(holder)
		}
		return a.program(r, bearer)
	}
	if name, groups := a.proxied(r); name != "" {
		return a.rights.Person(name, groups)
	}
	if a.provider != nil {
		if p := a.provider.Person(r); p != nil {
			return p
		}
	}
	if c, err := r.Cookie(cookieName); err == nil && same(c.Value, a.cookie()) {
		return signin.Everything(holder)
	}
	return nil
}

// signedIn is the name of who a request is from, empty for the holder of the token.
func signedIn(r *http.Request) string {
	if p := signin.From(r.Context()); p != nil && p.Name != holder {
		return p.Name
	}
	return ""
}

// readAppTokens reads a file of lines `APP sha256:HEX`: the hash of a token with which a
// program may ask questions about that app. A third word, annotate, makes it one that may
// add annotations only. Empty lines and those that begin with # are ignored.
func readAppTokens(path string) (map[string]appToken, error) {
	apps := map[string]appToken{}
	if path == "" {
		return apps, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(b), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		annotate := len(fields) == 3 && fields[2] == "annotate"
		sum, ok := strings.CutPrefix(fields[min(1, len(fields)-1)], "sha256:")
		if raw, err := hex.DecodeString(sum); (len(fields) != 2 && !annotate) || !ok || err != nil || len(raw) != sha256.Size {
			return nil, fmt.Errorf("line %d must be: APP sha256:HASH, with the 64 hexadecimal digits of the token's SHA-256, and may end with the word annotate", i+1)
		}
		if _, twice := apps[strings.ToLower(sum)]; twice {
			return nil, fmt.Errorf("line %d names the token of an earlier line: a token is of one app", i+1)
		}
		apps[strings.ToLower(sum)] = appToken{fields[0], annotate}
	}
	return apps, nil
}

// program returns who has the token of an app: for a question to the API about that app,
// or to add an annotation to it.
func (a *access) program(r *http.Request, token string) *signin.Person {
	sum := sha256.Sum256([]byte(token))
	t, ok := a.apps[hex.EncodeToString(sum[:])]
	if q := r.URL.Query()["app"]; !ok || len(q) != 1 || q[0] != t.app {
		return nil
	}
	asks := (r.Method == http.MethodGet || r.Method == http.MethodHead) && strings.HasPrefix(r.URL.Path, "/api/v1/") && r.URL.Path != "/api/v1/apps"
	if t.annotate && !annotates(r) || !t.annotate && !asks {
		return nil
	}
	return signin.Of("program of "+t.app, t.app, signin.Grant{Role: signin.Analyst, People: true})
}

// annotates reports whether a program adds an annotation: with a bearer token, which no
// page of another site can make a browser send.
func annotates(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") && r.Method == http.MethodPost && r.URL.Path == annotatePath
}

// policy allows a page to load only from its own origin.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guard refuses requests that may not see a page, and sets the headers of all
// responses.
func (a *access) guard(c *Console, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		// With no-referrer browsers send a form with the Origin "null". Addresses are
		// sent to no other site under this policy either.
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !hasHost(a.hosts, r.Host) {
			http.Error(w, "The console is not addressed by this host name. console-hosts names more.", http.StatusMisdirectedRequest)
			return
		}
		person := a.person(r)
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			if r.Method != http.MethodPost {
				h.Set("Allow", "GET, HEAD, POST")
				http.Error(w, "The console has pages and forms only.", http.StatusMethodNotAllowed)
				return
			}
			if r.URL.Path == annotatePath {
				if person == nil || !annotates(r) {
					http.Error(w, "Annotations are added with a token of the app that the parameter app names, as Authorization: Bearer.", http.StatusUnauthorized)
					return
				}
			} else if !sameOrigin(r) {
				http.Error(w, "Only a page of the console may change something.", http.StatusForbidden)
				return
			}
		}
		if token := r.URL.Query().Get("token"); token != "" && same(token, a.token) {
			http.SetCookie(w, &http.Cookie{Name: cookieName, Value: a.cookie(), Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: 90 * 24 * 3600})
			// The redirect removes the token from the address, and so from the
			// browser's history.
			q := r.URL.Query()
			q.Del("token")
			target := r.URL.Path
			if len(q) > 0 {
				target += "?" + q.Encode()
			}
			if target == "/" || strings.HasPrefix(target, "//") || !strings.HasPrefix(target, "/") {
				target = "/overview"
			}
			http.Redirect(w, r, target, http.StatusFound)
			return
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/static/"):
			h.Set("Cache-Control", "max-age=300")
		case r.URL.Path == "/feedback": // the link is what admits
		case a.provider != nil && (strings.HasPrefix(r.URL.Path, signin.Path) || r.URL.Path == signin.SignOutPath):
		case person != nil:
		case a.provider != nil && r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html"):
			http.Redirect(w, r, signin.Path+"?"+url.Values{"to": {r.URL.RequestURI()}}.Encode(), http.StatusFound)
			return
		default:
			c.turnAway(w, r)
			return
		}
		next.ServeHTTP(w, r.WithContext(signin.With(r.Context(), person)))
	})
}

// turnAway answers somebody who may see nothing.
func (c *Console) turnAway(w http.ResponseWriter, r *http.Request) {
	if name, _ := c.access.proxied(r); name != "" {
		c.fail(w, r, http.StatusForbidden, fmt.Sprintf("%s may not see the console.", name), "Neither the name nor one of the groups that the proxy sends has a right in console-access-file.")
		return
	}
	if c.access.provider != nil {
		c.fail(w, r, http.StatusUnauthorized, "You are not signed in.", "Open the console in a browser.")
		return
	}
	c.fail(w, r, http.StatusUnauthorized, "This console opens with the address that it printed when it started.",
		"The address contains a token. It is in the log of the console, in the banner of standalone, and in the file that console-token-file names.")
}

// need is what a page or an answer asks of its viewer.
type need struct {
	role   signin.Role
	people bool // it is about single people
}

// needs of pages that ask for more than to be a viewer.
var needs = map[string]need{
	"live": {signin.Analyst, true}, "quality": {signin.Analyst, true}, "health": {signin.Analyst, false}, "question": {signin.Analyst, false},
	"annotate": {signin.Analyst, false}, "person": {signin.Viewer, true}, "explain": {signin.Viewer, true}, "looks": {signin.Admin, true}, "api": {signin.Analyst, false},
}

var roleWords = map[signin.Role]string{signin.Viewer: "viewers", signin.Analyst: "analysts", signin.Admin: "admins"}

// may returns why the viewer may not see a page about an app, or nil.
func may(r *http.Request, page, app string) error {
	g, n := signin.From(r.Context()).On(app), needs[page]
	switch n.role = max(n.role, signin.Viewer); {
	case g.Role == signin.Nobody:
		return &denial{fmt.Sprintf("You may not see the app %q.", app), noRight}
	case g.Role < n.role:
		return &denial{fmt.Sprintf("This page is for %s.", roleWords[n.role]), noRight}
	case n.people && !g.People:
		return &denial{"This page is about single people, who are not shown to you.", noRight}
	}
	return nil
}

const noRight = "Rights are given by the groups of console-access-file; ask those who run the console."

// begin sends somebody to the provider.
func (c *Console) begin(w http.ResponseWriter, r *http.Request) {
	if err := c.access.provider.Begin(w, r, r.URL.Query().Get("to")); err != nil {
		c.notSignedIn(w, r, err)
	}
}

// finish takes what the provider said about somebody.
func (c *Console) finish(w http.ResponseWriter, r *http.Request) {
	to, err := c.access.provider.Finish(w, r)
	if err != nil {
		c.notSignedIn(w, r, err)
		return
	}
	http.Redirect(w, r, to, http.StatusFound)
}

func (c *Console) notSignedIn(w http.ResponseWriter, r *http.Request, err error) {
	c.log.Warn("sign-in failed", "error", err, "cause", errors.Unwrap(err))
	if failed := new(signin.Error); errors.As(err, &failed) {
		c.fail(w, r, failed.Status, failed.What, failed.Todo)
		return
	}
	c.failed(w, r, err)
}

// signOut ends a session: at the console, not at the provider.
func (c *Console) signOut(w http.ResponseWriter, r *http.Request) {
	c.access.provider.End(w)
	c.fail(w, r, http.StatusOK, "You are signed out.", "Open the console again to sign in.")
}
