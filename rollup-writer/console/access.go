package console

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// access decides who may see a page. Other users of the machine can reach a loopback
// port, and so can every page that a browser has open. The token of the printed
// address, which becomes a cookie, keeps out the former; Host, which a page that uses
// DNS rebinding cannot set, and the cookie, which browsers send to no other site
// (SameSite=Strict), keep out the latter.
//
// Behind a proxy with sign-in the proxy names the user. Its header counts only from the
// listed networks and together with the secret.
type access struct {
	token  string
	hosts  []string
	peers  []netip.Prefix
	secret string
	apps   map[string]appToken // by the hash of a program's token
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

// readToken returns the token in the file and creates one if the file does not exist.
func readToken(path string) (string, error) {
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
		return readToken(path)
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

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// signedIn returns the user that a listed proxy names.
func (a *access) signedIn(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || a.secret == "" || !same(r.Header.Get("X-Proxy-Secret"), a.secret) {
		return ""
	}
	from := peer.Addr().Unmap()
	if !slices.ContainsFunc(a.peers, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return ""
	}
	return r.Header.Get("Remote-User")
}

// allowed reports whether r comes from a user of the proxy, or has the token: as a
// cookie or, for programs, as a bearer token.
func (a *access) allowed(r *http.Request) bool {
	if a.signedIn(r) != "" {
		return true
	}
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return same(bearer, a.token) || a.mayAsk(r, bearer)
	}
	c, err := r.Cookie(cookieName)
	return err == nil && same(c.Value, a.cookie())
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

// ofApp returns what a program's token is for, if that is the one app that the address
// names.
func (a *access) ofApp(r *http.Request, token string) (appToken, bool) {
	sum := sha256.Sum256([]byte(token))
	t, ok := a.apps[hex.EncodeToString(sum[:])]
	q := r.URL.Query()["app"]
	return t, ok && len(q) == 1 && q[0] == t.app
}

// mayAsk reports whether a token is of the one app that a question to the API is about.
func (a *access) mayAsk(r *http.Request, token string) bool {
	t, ok := a.ofApp(r, token)
	return ok && !t.annotate && (r.Method == http.MethodGet || r.Method == http.MethodHead) && strings.HasPrefix(r.URL.Path, "/api/v1/") && r.URL.Path != "/api/v1/apps"
}

// mayAnnotate reports whether a program may add an annotation: by a bearer token, which no
// page of another site can make a browser send.
func (a *access) mayAnnotate(r *http.Request) bool {
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || r.Method != http.MethodPost || r.URL.Path != annotatePath {
		return false
	}
	t, own := a.ofApp(r, bearer)
	return own && t.annotate || same(bearer, a.token)
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
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			if r.Method != http.MethodPost {
				h.Set("Allow", "GET, HEAD, POST")
				http.Error(w, "The console has pages and forms only.", http.StatusMethodNotAllowed)
				return
			}
			if r.URL.Path == annotatePath {
				if !a.mayAnnotate(r) {
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
		case a.mayAnnotate(r):
		case !a.allowed(r):
			c.fail(w, r, http.StatusUnauthorized, "This console opens with the address that it printed when it started.",
				"The address contains a token. It is in the log of the console, in the banner of standalone, and in the file that console-token-file names.")
			return
		}
		next.ServeHTTP(w, r)
	})
}
