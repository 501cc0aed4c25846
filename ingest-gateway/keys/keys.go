// Package keys manages the applications and their write keys.
//
// It owns the key file: its format, its checks, and reloading it while the gateway
// runs. The file ends with the line "...", so that a truncated file is never accepted:
// package wholefile. A write key is shown once, when it is created; the file holds its
// SHA-256, so that a reader of the file cannot send. A plain hash without salt or
// stretching suffices because keys are 192 random bits and not chosen by people.
package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"
	"unsafe"

	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/ids"
	"github.com/uptakehq/uptake/schemas/svc/wholefile"
)

// Hash is the SHA-256 of a write key.
type Hash [sha256.Size]byte

// HashOf returns the hash that the file holds for a key.
func HashOf(key string) Hash {
	return sha256.Sum256(unsafe.Slice(unsafe.StringData(key), len(key))) // Sum256 only reads the bytes
}

// String is the form of a hash in the file.
func (h Hash) String() string { return "sha256:" + hex.EncodeToString(h[:]) }

// ID names a key for people and commands: the first 8 digits of its hash.
func (h Hash) ID() string { return hex.EncodeToString(h[:4]) }

// New returns a new write key.
func New() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return "uk_" + base64.RawURLEncoding.EncodeToString(b[:])
}

// Table is the content of a key file. It is immutable.
type Table struct {
	apps    map[Hash]*ingest.App
	list    []*ingest.App
	origins map[string]bool // that any app allows
	all     bool            // some app allows every origin
}

// App returns the app that the key belongs to, or nil. It looks up a hash, so its
// duration reveals nothing about how much of a key is right.
func (t *Table) App(key string) *ingest.App { return t.apps[HashOf(key)] }

// Apps lists the apps in the file's order.
func (t *Table) Apps() []*ingest.App { return t.list }

// lost returns the apps of t that next does not contain.
func (t *Table) lost(next *Table) []string {
	var ids []string
	for _, app := range t.list {
		if !slices.ContainsFunc(next.list, func(a *ingest.App) bool { return a.ID == app.ID }) {
			ids = append(ids, app.ID)
		}
	}
	return ids
}

// AllowsOrigin reports whether any app lets pages of that origin send. No more can be
// decided before a preflighted request shows its key.
func (t *Table) AllowsOrigin(origin string) bool { return t.all || t.origins[origin] }

type file struct {
	Apps []fileApp `yaml:"apps"`
}

type fileApp struct {
	ID          string   `yaml:"id"`
	Keys        appKeys  `yaml:"keys"`
	Origins     []string `yaml:"origins"`
	Rate        float64  `yaml:"rate"`
	Burst       int      `yaml:"burst"`
	DailyQuota  int64    `yaml:"daily_quota"`
	AccountKeys []string `yaml:"account_keys"`
	QuantityKey string   `yaml:"quantity_key"`
	NoIDs       []string `yaml:"no_ids"`
	IP          string   `yaml:"ip"`
}

// appKeys are keys, or the word none: the app may no longer send.
type appKeys struct {
	none bool
	list []fileKey
}

// fileKey is a hash, or a hash with restrictions of the key and the right to send
// history of any age.
type fileKey struct {
	Hash       string   `yaml:"hash"`
	Note       string   `yaml:"note,omitempty"`
	Expires    instant  `yaml:"expires,omitempty"`
	Protocols  []string `yaml:"protocols,flow,omitempty"`
	Origins    []string `yaml:"origins,flow,omitempty"`
	Rate       float64  `yaml:"rate,omitempty"`
	Burst      int      `yaml:"burst,omitempty"`
	DailyQuota int64    `yaml:"daily_quota,omitempty"`
	History    bool     `yaml:"history,omitempty"` // may send events of any age
}

// UnmarshalYAML reads either form. Unknown names are refused here, since decoding a
// node does not apply the file decoder's KnownFields.
func (k *fileKey) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&k.Hash)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch name := n.Content[i].Value; name {
		case "hash", "note", "expires", "protocols", "origins", "rate", "burst", "daily_quota", "history":
		default:
			return fmt.Errorf("line %d: field %s not found in a key", n.Content[i].Line, name)
		}
	}
	type plain fileKey
	return n.Decode((*plain)(k))
}

// plain reports whether the hash is all there is: the key has no restrictions, never
// expires, and may not send history of any age.
func (k *fileKey) plain() bool {
	return k.Expires.IsZero() && len(k.Protocols) == 0 && len(k.Origins) == 0 && k.Rate == 0 && k.Burst == 0 && k.DailyQuota == 0 && !k.History
}

// instant is a date, which means its first moment in UTC, or an instant of RFC 3339.
type instant struct{ time.Time }

// UnmarshalYAML reads either form.
func (t *instant) UnmarshalYAML(n *yaml.Node) error {
	var err error
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t.Time, err = time.Parse(layout, n.Value); err == nil {
			t.Time = t.UTC()
			return nil
		}
	}
	return fmt.Errorf("line %d: %q is no date such as 2027-01-31 and no instant such as 2027-01-31T12:00:00Z", n.Line, n.Value)
}

// MarshalYAML writes a form that UnmarshalYAML reads.
func (t instant) MarshalYAML() (any, error) { return t.Format(time.RFC3339), nil }

// UnmarshalYAML reads either form.
func (k *appKeys) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && n.Value == "none" {
		k.none = true
		return nil
	}
	return n.Decode(&k.list)
}

// maxFile bounds the key file.
const maxFile = 8 << 20

// maxAppID bounds an app's id, which is part of every record's key.
const maxAppID = 64

// Load reads a key file.
func Load(path string) (*Table, error) {
	_, t, err := load(path)
	return t, err
}

func load(path string) ([]byte, *Table, error) {
	text, err := wholefile.Read(path, maxFile)
	if err != nil {
		return nil, nil, fmt.Errorf("key file: %w", err)
	}
	t, err := Parse(text)
	if err != nil {
		return text, nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return text, t, nil
}

// Parse reads the text of a key file and reports everything that is wrong with
// it.
func Parse(text []byte) (*Table, error) {
	var f file
	if err := wholefile.YAML(text, &f); err != nil {
		return nil, err
	}
	t := &Table{apps: map[Hash]*ingest.App{}, origins: map[string]bool{}}
	var errs []error
	seen := map[string]bool{}
	for i, fa := range f.Apps {
		where := fmt.Sprintf("apps[%d]", i)
		if fa.ID != "" {
			where = "app " + fa.ID
		}
		fault := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf(where+": "+format, args...))
		}
		switch {
		case !validID(fa.ID):
			fault("id must be 1 to %d letters, digits, dots, dashes or underscores (got %q)", maxAppID, fa.ID)
		case seen[fa.ID]:
			fault("id is declared twice")
		}
		seen[fa.ID] = true
		app := &ingest.App{
			ID: fa.ID, AllowedOrigins: fa.Origins, RatePerSecond: fa.Rate, Burst: fa.Burst, DailyQuota: fa.DailyQuota,
			AccountKeys: fa.AccountKeys, QuantityKey: fa.QuantityKey,
		}
		if fa.Rate < 0 || fa.Rate > 1e9 || math.IsNaN(fa.Rate) {
			fault("rate must be 0 (no bound) to 1e9 events per second (got %v)", fa.Rate)
		}
		if fa.Burst < 0 || (fa.Burst > 0 && fa.Rate == 0) {
			fault("burst must be at least 0, and needs a rate (got %d)", fa.Burst)
		}
		if fa.Burst == 0 {
			app.Burst = int(math.Ceil(2 * fa.Rate))
		}
		if fa.DailyQuota < 0 {
			fault("daily_quota must be at least 0 (got %d)", fa.DailyQuota)
		}
		for _, k := range fa.AccountKeys {
			if k == "" {
				fault("account_keys holds an empty name")
			}
		}
		if fa.NoIDs != nil { // an empty list is one
			app.NoIDs = ids.NewList(fa.NoIDs)
		}
		for _, text := range fa.NoIDs {
			if n := len(ids.Trim(text)); n == 0 || n > ids.MaxText {
				fault("no_ids: texts must have 1 to %d bytes (got %q)", ids.MaxText, text)
			}
		}
		switch fa.IP {
		case "none":
			app.IPMode = ingest.IPNone
		case "truncated", "":
			app.IPMode = ingest.IPTruncated
		case "full":
			app.IPMode = ingest.IPFull
		default:
			fault("ip must be full, truncated or none (got %q)", fa.IP)
		}
		if len(fa.Origins) == 0 {
			t.all = true
		}
		for _, o := range fa.Origins {
			if o == "*" {
				t.all = true
				continue
			}
			if !validOrigin(o) {
				fault("origins: %q is no origin, write scheme://host or scheme://host:port", o)
			}
			t.origins[o] = true
		}
		if len(fa.Keys.list) == 0 && !fa.Keys.none {
			fault("has no keys; make one with `ingest-gateway key new`, or write `keys: none`")
		}
		for _, k := range fa.Keys.list {
			h, err := parseHash(k.Hash)
			if err != nil {
				fault("keys: %w", err)
				continue
			}
			if other := t.apps[h]; other != nil {
				fault("key %s… is also of app %s", k.Hash[:min(len(k.Hash), 20)], other.ID)
			}
			for _, err := range k.faults(fa.Origins) {
				fault("key %s: %w", h.ID(), err)
			}
			t.apps[h] = k.narrow(app, h)
			for _, o := range k.Origins {
				t.origins[o] = true
			}
		}
		t.list = append(t.list, app)
	}
	if len(f.Apps) == 0 {
		errs = append(errs, errors.New("apps: there are none, nobody could send"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return t, nil
}

// Protocols are the names that `protocols` of a key may list: those of the gateway, as
// a test of package gateway checks.
var Protocols = []string{"amplitude", "cloudevents", "csb", "gainsightpx", "mixpanel", "moesif", "otlp", "posthog", "segment"}

// faults reports all faults of a key's scope. A key may use no origin that its app does
// not allow.
func (k *fileKey) faults(origins []string) []error {
	var errs []error
	for _, p := range k.Protocols {
		if !slices.Contains(Protocols, p) {
			errs = append(errs, fmt.Errorf("protocols: %q is none of %s", p, strings.Join(Protocols, ", ")))
		}
	}
	for _, o := range k.Origins {
		switch {
		case !validOrigin(o):
			errs = append(errs, fmt.Errorf("origins: %q is no origin, write scheme://host or scheme://host:port", o))
		case len(origins) > 0 && !slices.Contains(origins, o) && !slices.Contains(origins, "*"):
			errs = append(errs, fmt.Errorf("origins: the app does not allow %q", o))
		}
	}
	if !(k.Rate >= 0 && k.Rate <= 1e9) {
		errs = append(errs, fmt.Errorf("rate must be 0 (no bound) to 1e9 events per second (got %v)", k.Rate))
	}
	if k.Burst < 0 || (k.Burst > 0 && k.Rate == 0) {
		errs = append(errs, fmt.Errorf("burst must be at least 0, and needs a rate (got %d)", k.Burst))
	}
	if k.DailyQuota < 0 {
		errs = append(errs, fmt.Errorf("daily_quota must be at least 0 (got %d)", k.DailyQuota))
	}
	return errs
}

// narrow returns the app with the restrictions of the key.
func (k *fileKey) narrow(app *ingest.App, h Hash) *ingest.App {
	if k.plain() {
		return app
	}
	a := *app
	if len(k.Origins) > 0 {
		a.AllowedOrigins = k.Origins
	}
	a.Key = ingest.Scope{
		ID: h.ID(), Expires: event.FromTime(k.Expires.Time), Protocols: k.Protocols,
		RatePerSecond: k.Rate, Burst: k.Burst, DailyQuota: k.DailyQuota, History: k.History,
	}
	if k.Burst == 0 {
		a.Key.Burst = int(math.Ceil(2 * k.Rate))
	}
	return &a
}

func validOrigin(o string) bool {
	u, err := url.Parse(o)
	return err == nil && u.Scheme != "" && u.Host != "" && u.Path == "" && u.RawQuery == "" && u.User == nil
}

func parseHash(s string) (Hash, error) {
	var h Hash
	digits, ok := strings.CutPrefix(s, "sha256:")
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(h) {
		// The text is not shown: it may be a write key.
		return h, fmt.Errorf("an entry of %d characters is not sha256: and 64 hex digits; the file holds hashes, make one with `ingest-gateway key new`", len(s))
	}
	copy(h[:], b)
	return h, nil
}

func validID(id string) bool {
	for _, c := range id {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return id != "" && len(id) <= maxAppID
}
