// Package privacy takes out of events what must not be kept.
//
// It owns the rules' YAML format and its checks, the detectors of emails, card
// numbers, phone numbers and tokens, keyed hashing, the treatment of IP
// addresses, and the lists of those who opted out. It stands in schemas because
// the rules can run in the gateway, before the log, and in the enricher, before
// the enriched topic.
//
// A Policy and its Rules are immutable and safe for concurrent use. A Redactor is
// for one goroutine.
package privacy

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/schemas/svc/wholefile"
)

// Objects of an event that rules are about: the first part of a path.
const (
	Properties = "properties"
	Traits     = "traits"
	Context    = "context"
)

// Actions.
const (
	Drop = "drop" // the key goes
	Mask = "mask" // the key stays, its value does not
	Hash = "hash" // the same value has the same hash, as long as the key is not rotated
)

// Treatments of IP addresses.
const (
	IPFull      = "full"
	IPTruncated = "truncated" // the last byte of IPv4, all behind the first 48 bits of IPv6
	IPNone      = "none"
)

// MaxRules bounds the rules of one app.
const MaxRules = 60

// Config is the rules file, which ends with the line "...": package wholefile.
type Config struct {
	// HashKeys make hashes. The first is used; the others are kept so that
	// what was hashed under them can still be found.
	HashKeys []HashKey      `yaml:"hash_keys"`
	Apps     map[string]App `yaml:"apps"`
	// None names the apps of which the file says `none`: they have no rules.
	None map[string]bool `yaml:"-"`
}

// HashKey is a secret and its name, which stands in every hash made with it.
type HashKey struct {
	ID     string         `yaml:"id"`
	Secret setting.Secret `yaml:"secret"` // or file:PATH
}

// UnmarshalYAML reads the secret, from a file if it names one.
func (k *HashKey) UnmarshalYAML(n *yaml.Node) error {
	var raw struct {
		ID     string `yaml:"id"`
		Secret string `yaml:"secret"`
	}
	if err := n.Decode(&raw); err != nil {
		return err
	}
	k.ID = raw.ID
	return k.Secret.Set(raw.Secret)
}

// App is what holds for one app.
type App struct {
	IP        string `yaml:"ip"`         // full (default), truncated or none; context.ip too
	UserAgent string `yaml:"user_agent"` // keep (default) or drop; context.userAgent too
	Rules     []Rule `yaml:"rules"`
	OptOut    OptOut `yaml:"opt_out"`
	// RetentionDays is how long events are kept after their receipt; 0 is for
	// ever. ClickHouse removes them: `rollup-writer retention`.
	RetentionDays int `yaml:"retention_days"`
}

// Rule says what happens to values at a path. Of the rules without detect that
// fit a value the first one decides; where there is none, all with detect look
// at it, of each detector the first.
type Rule struct {
	// Path is keys joined by dots, from properties, traits or context on. * is
	// any one key; ** at the end any number of keys, none too. Elements of
	// arrays have the path of their array. A dot in a key of an event counts
	// as an underscore.
	Path   string   `yaml:"path"`
	Detect []string `yaml:"detect"` // email, card, phone, token; empty: the whole value
	Action string   `yaml:"action"`
}

// OptOut lists those of whom nothing is kept.
type OptOut struct {
	Users     []string `yaml:"users"`
	Anonymous []string `yaml:"anonymous"`
	Accounts  []string `yaml:"accounts"`
	// File lists more, one a line: user, anonymous or account, a blank, the id.
	// A relative name is beside the rules file.
	File string `yaml:"file"`
}

// Policy is a rules file, ready for use.
type Policy struct {
	apps map[string]*Rules
	keys []HashKey
	days map[string]int // retention by app
	none map[string]bool
}

// Load reads a rules file and what it names.
func Load(path string) (*Policy, error) {
	p, _, err := load(path)
	return p, err
}

// load returns the files that the rules name too, also with an error.
func load(path string) (*Policy, []string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("privacy rules: %w", err)
	}
	p, files, err := parse(text, filepath.Dir(path))
	if err != nil {
		return nil, files, fmt.Errorf("privacy rules %s: %w", path, err)
	}
	return p, files, nil
}

// Parse reads the text of a complete rules file. Files that it names are relative
// to the working directory.
func Parse(text []byte) (*Policy, error) {
	p, _, err := parse(text, ".")
	if err != nil {
		return nil, fmt.Errorf("privacy rules: %w", err)
	}
	return p, nil
}

func parse(text []byte, dir string) (p *Policy, files []string, err error) {
	if err := wholefile.Check(text); err != nil {
		return nil, nil, err
	}
	text, none, err := withoutNone(text)
	if err != nil {
		return nil, nil, err
	}
	c := Config{None: none}
	if err := wholefile.YAML(text, &c); err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, name := range appNames(c.Apps) {
		app := c.Apps[name]
		if app.OptOut.File == "" {
			continue
		}
		file := app.OptOut.File
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		files = append(files, file)
		if err := app.OptOut.read(file); err != nil {
			errs = append(errs, fmt.Errorf("apps.%s.opt_out.file: %w", name, err))
		}
		c.Apps[name] = app
	}
	p, err = New(c)
	if err = errors.Join(append(errs, err)...); err != nil {
		return nil, files, err
	}
	return p, files, nil
}

// withoutNone returns the apps that are `none`, and the text with an empty mapping
// in each one's place, so that every line and column stays where it was. An app
// that says nothing is a fault: a file that was cut short behind its name reads so.
func withoutNone(text []byte) ([]byte, map[string]bool, error) {
	var doc struct {
		Apps yaml.Node `yaml:"apps"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, nil, err
	}
	if doc.Apps.Kind == 0 || doc.Apps.Tag == "!!null" {
		return nil, nil, errors.New("apps is missing; write apps: {} for no rules at all")
	}
	if doc.Apps.Kind != yaml.MappingNode {
		return text, nil, nil // the decoder reports it
	}
	text, none := bytes.Clone(text), map[string]bool{}
	lines := bytes.SplitAfter(text, []byte("\n"))
	for i := 0; i+1 < len(doc.Apps.Content); i += 2 {
		name, app := doc.Apps.Content[i].Value, doc.Apps.Content[i+1]
		if app.Tag == "!!null" || (app.Kind == yaml.MappingNode && len(app.Content) == 0) {
			return nil, nil, fmt.Errorf("line %d: apps.%s says nothing; write `none` for an app without rules", app.Line, name)
		}
		if app.Kind != yaml.ScalarNode || app.Value != "none" || app.Style != 0 {
			continue
		}
		line := lines[app.Line-1]
		at := len(string([]rune(string(line))[:app.Column-1]))
		if !bytes.HasPrefix(line[at:], []byte("none")) {
			return nil, nil, fmt.Errorf("line %d: apps.%s must be the word none alone, or rules", app.Line, name)
		}
		copy(line[at:], "{}  ")
		none[name] = true
	}
	return text, none, nil
}

// appNames returns the names of apps in their order.
func appNames(apps map[string]App) []string {
	names := make([]string, 0, len(apps))
	for name := range apps {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (o *OptOut) read(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// An id that was cut short is another person's.
	if err := wholefile.Check(text); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	line := 0
	for l := range strings.Lines(string(text)) {
		line++
		l = strings.TrimRight(l, "\r\n")
		if l == "..." {
			break
		}
		if l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		kind, id, ok := strings.Cut(l, " ")
		switch {
		case !ok || id == "":
			return fmt.Errorf("%s line %d: must be user, anonymous or account, a blank and the id", path, line)
		case kind == "user":
			o.Users = append(o.Users, id)
		case kind == "anonymous":
			o.Anonymous = append(o.Anonymous, id)
		case kind == "account":
			o.Accounts = append(o.Accounts, id)
		default:
			return fmt.Errorf("%s line %d: must start with user, anonymous or account (got %q)", path, line, kind)
		}
	}
	return nil
}

// New makes a Policy. Its error reports all faults.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &Policy{apps: map[string]*Rules{}, keys: c.HashKeys, days: map[string]int{}, none: c.None}
	for name, app := range c.Apps {
		if app.RetentionDays > 0 {
			p.days[name] = app.RetentionDays
		}
		p.apps[name] = compile(name, app, c.HashKeys)
	}
	return p, nil
}

// App returns the rules of an app, nil if there are none or the file says `none`.
func (p *Policy) App(name string) *Rules {
	if p == nil {
		return nil
	}
	if r := p.apps[name]; r != nil && !r.empty() {
		return r
	}
	return nil
}

// lost returns the apps that have rules by p and none by next, without next saying
// `none` of them.
func (p *Policy) lost(next *Policy) []string {
	if p == nil {
		return nil
	}
	var apps []string
	for name, r := range p.apps {
		if !r.empty() && !next.none[name] && (next.apps[name] == nil || next.apps[name].empty()) {
			apps = append(apps, name)
		}
	}
	slices.Sort(apps)
	return apps
}

// Retention returns the days that events are kept, of each app that does not keep
// them forever.
func (p *Policy) Retention() map[string]int { return maps.Clone(p.days) }

// maxRetentionDays is some 20 years: beyond it ClickHouse's clock ends.
const maxRetentionDays = 7300

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	seen := map[string]bool{}
	for i, k := range c.HashKeys {
		if k.ID == "" || len(k.ID) > 32 || strings.ContainsFunc(k.ID, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			fault("hash_keys[%d].id must be 1 to 32 letters, digits, - or _ (got %q)", i, k.ID)
		}
		if seen[k.ID] {
			fault("hash_keys[%d].id %q is taken", i, k.ID)
		}
		seen[k.ID] = true
		if len(k.Secret.Reveal()) < 16 {
			fault("hash_keys[%d].secret must have at least 16 bytes (got %d)", i, len(k.Secret.Reveal()))
		}
	}
	for _, name := range appNames(c.Apps) {
		app, at := c.Apps[name], "apps."+name
		oneOf := func(field, got string, want ...string) {
			if got != "" && !slices.Contains(want, got) {
				fault("%s.%s must be one of %s (got %q)", at, field, strings.Join(want, ", "), got)
			}
		}
		oneOf("ip", app.IP, IPFull, IPTruncated, IPNone)
		oneOf("user_agent", app.UserAgent, "keep", Drop)
		if app.RetentionDays < 0 || app.RetentionDays > maxRetentionDays {
			fault("%s.retention_days must be 0 (forever) to %d (got %d)", at, maxRetentionDays, app.RetentionDays)
		}
		if len(app.Rules) > MaxRules {
			fault("%s.rules must be at most %d (got %d)", at, MaxRules, len(app.Rules))
		}
		for i, r := range app.Rules {
			at := fmt.Sprintf("%s.rules[%d]", at, i)
			if why := checkPath(r.Path); why != "" {
				fault("%s.path %s (got %q)", at, why, r.Path)
			}
			switch r.Action {
			case Drop, Mask:
			case Hash:
				if len(c.HashKeys) == 0 {
					fault("%s.action hash needs hash_keys", at)
				}
			default:
				fault("%s.action must be drop, mask or hash (got %q)", at, r.Action)
			}
			for _, d := range r.Detect {
				if detectorOf(d) < 0 {
					fault("%s.detect must be of %s (got %q)", at, strings.Join(detectorNames[:], ", "), d)
				}
			}
		}
	}
	return errors.Join(errs...)
}

func checkPath(path string) string {
	parts := strings.Split(path, ".")
	switch {
	case parts[0] != Properties && parts[0] != Traits && parts[0] != Context:
		return "must start with properties, traits or context"
	case len(parts) < 2:
		return "must name a key, * or **"
	case len(parts) > maxDepth:
		return fmt.Sprintf("must have at most %d keys", maxDepth)
	}
	for i, p := range parts {
		if p == "" {
			return "must have no empty key"
		}
		if p == "**" && i < len(parts)-1 {
			return "may have ** only at its end"
		}
	}
	return ""
}

const (
	// maxDepth bounds paths and what is looked into; deeper values are masked.
	maxDepth = 64
	// maxNesting bounds what is read at all, and with it the stack.
	maxNesting = 512
)

// IP returns an address as it may be kept.
func (r *Rules) IP(ip string) string {
	if r == nil || ip == "" {
		return ip
	}
	switch r.ip {
	case IPNone:
		return ""
	case IPTruncated:
		return truncate(ip)
	}
	return ip
}

// truncate cuts an address; what is none is not kept.
func truncate(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return ""
	}
	a = a.Unmap().WithZone("")
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.Addr().String()
}

// UserAgent returns a user agent as it may be kept.
func (r *Rules) UserAgent(ua string) string {
	if r != nil && r.dropUserAgent {
		return ""
	}
	return ua
}

// DropsUserAgent says that nothing may be kept of what a user agent says.
func (r *Rules) DropsUserAgent() bool { return r != nil && r.dropUserAgent }

// DropsIP says that nothing may be kept of what an address says, its country included.
func (r *Rules) DropsIP() bool { return r != nil && r.ip == IPNone }

// OptedOut says that nothing may be kept of an event with these ids.
func (r *Rules) OptedOut(user, anonymous, account string) bool {
	if r == nil {
		return false
	}
	return in(r.optUsers, user) || in(r.optAnonymous, anonymous) || in(r.optAccounts, account)
}

func in(set map[string]struct{}, id string) bool {
	if len(set) == 0 || id == "" {
		return false
	}
	_, ok := set[id]
	return ok
}
