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
	apps   map[string]string // hash of a program's token to its app
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
// program may ask questions about that app. Empty lines and those that begin with # are
// ignored.
func readAppTokens(path string) (map[string]string, error) {
	apps := map[string]string{}
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
		sum, ok := strings.CutPrefix(fields[len(fields)-1], "sha256:")
		if raw, err := hex.DecodeString(sum); len(fields) != 2 || !ok || err != nil || len(raw) != sha256.Size {
			return nil, fmt.Errorf("line %d must be: APP sha256:HASH, with the 64 hexadecimal digits of the token's SHA-256", i+1)
		}
		if _, twice := apps[strings.ToLower(sum)]; twice {
			return nil, fmt.Errorf("line %d names the token of an earlier line: a token is of one app", i+1)
		}
		apps[strings.ToLower(sum)] = fields[0]
	}
	return apps, nil
}

// mayAsk reports whether a token is of the one app that a question to the API is about.
func (a *access) mayAsk(r *http.Request, token string) bool {
	sum := sha256.Sum256([]byte(token))
	app, ok := a.apps[hex.EncodeToString(sum[:])]
	q := r.URL.Query()["app"]
	return ok && (r.Method == http.MethodGet || r.Method == http.MethodHead) && strings.HasPrefix(r.URL.Path, "/api/v1/") && r.URL.Path != "/api/v1/apps" && len(q) == 1 && q[0] == app
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
			if !sameOrigin(r) {
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
		case !a.allowed(r):
			c.fail(w, r, http.StatusUnauthorized, "This console opens with the address that it printed when it started.",
				"The address contains a token. It is in the log of the console, in the banner of standalone, and in the file that console-token-file names.")
			return
		}
		next.ServeHTTP(w, r)
	})
}
