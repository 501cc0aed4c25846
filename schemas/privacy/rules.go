package privacy

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"math/bits"
	"slices"
	"strings"
)

// action is what a compiled rule does.
type action uint8

const (
	actNone action = iota
	actDrop
	actMask
	actHash
	actTruncateIP
)

var actions = map[string]action{Drop: actDrop, Mask: actMask, Hash: actHash}

// Rules are those of one app.
type Rules struct {
	app           string
	days          int // events are kept; 0: forever
	ip            string
	dropUserAgent bool

	root  *node
	whole uint64 // rules without detect
	rules []rule
	keys  []HashKey
	named []namedRule

	optUsers, optAnonymous, optAccounts map[string]struct{}
}

type rule struct {
	act    action
	detect detectors
}

// node is a key on the way to what rules are about.
type node struct {
	children map[string]*node
	any      *node
	end      uint64 // rules whose path ends here
	deep     uint64 // rules that hold here and for all within
}

func compile(name string, app App, keys []HashKey) *Rules {
	r := &Rules{app: name, days: app.RetentionDays, ip: app.IP, dropUserAgent: app.UserAgent == Drop, root: &node{}, keys: keys}
	for _, c := range app.Rules {
		rl := rule{act: actions[c.Action]}
		for _, d := range c.Detect {
			rl.detect |= 1 << detectorOf(d)
		}
		r.add(c.Path, rl)
	}
	switch app.IP {
	case IPTruncated:
		r.addNamed(actTruncateIP, false)
	case IPNone:
		r.addNamed(actDrop, false)
	}
	if r.dropUserAgent {
		r.addNamed(actDrop, true)
	}
	set := func(ids []string) map[string]struct{} {
		m := make(map[string]struct{}, len(ids))
		for _, id := range ids {
			m[id] = struct{}{}
		}
		return m
	}
	r.optUsers, r.optAnonymous, r.optAccounts = set(app.OptOut.Users), set(app.OptOut.Anonymous), set(app.OptOut.Accounts)
	return r
}

// namedRule is a rule about keys by what they are called, wherever they are.
type namedRule struct {
	bit   uint64
	agent bool // about user agents, else about addresses
}

func (r *Rules) addNamed(act action, agent bool) {
	bit := uint64(1) << len(r.rules)
	r.rules, r.whole = append(r.rules, rule{act: act}), r.whole|bit
	r.named = append(r.named, namedRule{bit, agent})
}

// namedBits returns the rules that hold for a key, and for all within it, by its
// name.
func (r *Rules) namedBits(key []byte) (bits uint64) {
	if len(r.named) == 0 || len(key) > maxName {
		return 0
	}
	var buf [maxName]byte
	name, last, before := plainName(buf[:0], key)
	for _, n := range r.named {
		if (n.agent && isUserAgent(name)) || (!n.agent && isAddress(name, last, before)) {
			bits |= n.bit
		}
	}
	return bits
}

// maxName bounds the keys that are looked up by name.
const maxName = 64

// plainName appends the letters and digits of a key in lower case, without what
// OpenTelemetry puts before headers: $raw_user_agent is rawuseragent, and
// http.request.header.x-real-ip is xrealip. It returns the key's last word too, and the
// one before it: of clientIP these are ip and client.
func plainName(dst, key []byte) (name, last, before []byte) {
	isUpper := func(i int) bool { return i < len(key) && key[i] >= 'A' && key[i] <= 'Z' }
	isLower := func(i int) bool { return i < len(key) && key[i] >= 'a' && key[i] <= 'z' }
	word, previous := 0, 0 // where they start
	for i, c := range key {
		begins := i == 0 || !isAlnum(key[i-1]) || (isUpper(i) && (!isUpper(i-1) || isLower(i+1)))
		if begins && isAlnum(c) && len(dst) > 0 {
			previous, word = word, len(dst)
		}
		switch {
		case isUpper(i):
			dst = append(dst, c+'a'-'A')
		case isAlnum(c):
			dst = append(dst, c)
		}
	}
	return bytes.TrimPrefix(dst, []byte("httprequestheader")), dst[word:], dst[previous:word]
}

// isAddress says that a key has the address of a client: the fields of the
// protocols, OpenTelemetry's attributes, what proxies put into headers, and whatever has
// the word ip as its last.
func isAddress(name, last, before []byte) bool {
	switch string(last) {
	case "ip", "ips", "ipv4", "ipv6":
		return true
	case "addr", "address", "addresses":
		switch string(before) {
		case "ip", "ipv4", "ipv6", "remote", "client", "peer", "viewer", "socket":
			return true
		}
	case "host":
		return string(before) == "remote" || string(before) == "client"
	case "for":
		return string(before) == "forwarded" || string(before) == "proxied"
	}
	switch string(name) {
	case "ipaddress", "ipaddr", "clientip", "clientipaddress", "clientaddress", "userip", "useripaddress", "lastip", "initialip",
		"remoteip", "remoteaddr", "remoteaddress", "remotehost", "sourceip", "sourceaddress", "httpclientip", "netpeerip", "netpeeraddr", "netsockpeeraddr", "networkpeeraddress",
		"forwarded", "forwardedfor", "xforwarded", "xforwardedfor", "xoriginalforwardedfor", "xrealip", "xclientip", "xclusterclientip", "xremoteip", "xremoteaddr",
		"trueclientip", "cfconnectingip", "cfconnectingipv6", "cfpseudoipv4", "fastlyclientip", "flyclientip", "xazureclientip", "xazuresocketip", "xappengineuserip", "xenvoyexternaladdress":
		return true
	}
	return false
}

// isUserAgent says that a key has a user agent, or a client hint that says the
// same.
func isUserAgent(name []byte) bool {
	return bytes.Contains(name, []byte("useragent")) || bytes.HasPrefix(name, []byte("secchua"))
}

// empty says that all is kept of an app with these rules, and of everybody, forever.
func (r *Rules) empty() bool {
	return len(r.rules) == 0 && r.days == 0 && len(r.optUsers)+len(r.optAnonymous)+len(r.optAccounts) == 0
}

func (r *Rules) add(path string, rl rule) {
	bit := uint64(1) << len(r.rules)
	r.rules = append(r.rules, rl)
	if rl.detect == 0 {
		r.whole |= bit
	}
	n := r.root
	for part := range strings.SplitSeq(path, ".") {
		switch part {
		case "**":
			n.deep |= bit
			return
		case "*":
			if n.any == nil {
				n.any = &node{}
			}
			n = n.any
		default:
			next := n.children[part]
			if next == nil {
				if n.children == nil {
					n.children = map[string]*node{}
				}
				next = &node{}
				n.children[part] = next
			}
			n = next
		}
	}
	n.end |= bit
}

// first returns the action of the first rule without detect among mask.
func (r *Rules) first(mask uint64) action {
	if mask &= r.whole; mask != 0 {
		return r.rules[bits.TrailingZeros64(mask)].act
	}
	return actNone
}

// hasher makes hashes with one key.
type hasher struct {
	id  string
	mac hash.Hash
	sum []byte
}

func newHasher(k HashKey) *hasher {
	return &hasher{id: k.ID, mac: hmac.New(sha256.New, []byte(k.Secret.Reveal()))}
}

// hashPrefix starts every hash; the id of the key follows.
const hashPrefix = "hmac:"

// append appends the hash of a value of an app: 128 bits of HMAC-SHA-256 over
// the app, a 0 byte and the value. Of two apps the hashes of one value differ.
func (h *hasher) append(dst []byte, app string, value []byte) []byte {
	h.mac.Reset()
	h.sum = append(append(h.sum[:0], app...), 0)
	_, _ = h.mac.Write(h.sum) // a hash never fails
	_, _ = h.mac.Write(value)
	h.sum = h.mac.Sum(h.sum[:0])
	dst = append(dst, hashPrefix...)
	dst = append(dst, h.id...)
	dst = append(dst, ':')
	return hex.AppendEncode(dst, h.sum[:16])
}

// hashed says that a text is a hash under one of the keys, so that rules can run in
// the gateway and in the enricher.
func (r *Rules) hashed(text []byte) bool {
	rest, ok := bytes.CutPrefix(text, []byte(hashPrefix))
	if !ok {
		return false
	}
	id, sum, ok := bytes.Cut(rest, []byte{':'})
	if !ok || len(sum) != 32 || bytes.IndexFunc(sum, func(c rune) bool { return (c < '0' || c > '9') && (c < 'a' || c > 'f') }) >= 0 {
		return false
	}
	return slices.ContainsFunc(r.keys, func(k HashKey) bool { return k.ID == string(id) })
}

// names says that an id is one of somebody who opted out.
func (r *Rules) names(id string) bool {
	return in(r.optUsers, id) || in(r.optAnonymous, id) || in(r.optAccounts, id)
}

// Hashes returns the hashes that a value of an app has under every key, the one
// in use first: what to look for when a person asks what is kept of them.
func (p *Policy) Hashes(app, value string) []string {
	var out []string
	for _, k := range p.keys {
		out = append(out, string(newHasher(k).append(nil, app, []byte(value))))
	}
	return out
}

// Treatment says in words what happens to the value of a key path, such as
// "dropped" or "emails and tokens masked"; empty if nothing does. Elements of
// arrays have the path of their array.
func (r *Rules) Treatment(path string) string {
	if r == nil {
		return ""
	}
	states := []*node{r.root}
	deep := r.root.deep
	for part := range strings.SplitSeq(path, ".") {
		if part == "[]" {
			continue
		}
		var next []*node
		for _, n := range states {
			if c := n.children[part]; c != nil {
				next = append(next, c)
			}
			if n.any != nil {
				next = append(next, n.any)
			}
		}
		states = next
		deep |= r.namedBits([]byte(part))
		for _, n := range states {
			deep |= n.deep
		}
		// What a rule without detect does to a key it does to all within.
		if act := r.first(deep | ends(states)); act != actNone {
			return done[act]
		}
	}
	var said []string
	mask := deep | ends(states)
	for det := range numDetectors {
		for m := mask; m != 0; m &= m - 1 {
			if rl := &r.rules[bits.TrailingZeros64(m)]; rl.detect&(1<<det) != 0 {
				what := detectorNames[det] + "s found in it " + done[rl.act]
				if rl.act == actDrop {
					what = "dropped where it holds a " + detectorNames[det]
				}
				said = append(said, what)
				break
			}
		}
	}
	return strings.Join(said, ", ")
}

var done = [...]string{actDrop: "dropped", actMask: "masked", actHash: "hashed", actTruncateIP: "truncated"}

// ends returns the rules whose path ends at one of the states.
func ends(states []*node) uint64 {
	var mask uint64
	for _, n := range states {
		mask |= n.end
	}
	return mask
}

// RetentionDays is how long events are kept after their receipt; 0 is forever.
func (r *Rules) RetentionDays() int {
	if r == nil {
		return 0
	}
	return r.days
}

// IPTreatment says in words what happens to the IP address of a request; empty
// if nothing does.
func (r *Rules) IPTreatment() string {
	if r == nil {
		return ""
	}
	return map[string]string{IPTruncated: "truncated", IPNone: "dropped"}[r.ip]
}
