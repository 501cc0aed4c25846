package deliver

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/template"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/yamldoc"
)

// Kinds of targets.
const (
	KindWebhook = "webhook" // Standard Webhooks
	KindSlack   = "slack"   // an incoming webhook of Slack, or what takes the same JSON
	KindEmail   = "email"
)

// Targets are the receivers of a file.
type Targets struct {
	// Allow are names of external hosts that may be dialled, and networks of local
	// addresses that may be.
	Allow   []string
	Targets []Target

	hosts    map[string]bool
	networks []netip.Prefix
}

// Target is one receiver.
type Target struct {
	Name string
	Kind string
	URL  string // of webhook and slack
	// URLFile holds the URL if it is a secret, as Slack's are.
	URLFile string
	// SecretFiles hold keys of signatures (whsec_ and base64). All sign, so that a
	// key is rotated by adding the new one, and removing the old one later.
	SecretFiles []string
	// HeaderFiles hold values of request headers, by name: Authorization.
	HeaderFiles map[string]string
	// BodyFile is a JSON document for the webhook's body, whose strings are
	// templates: {{.Title}}, {{.Reason}} and the other fields of a message.
	BodyFile string

	SMTP         string // host:port
	From         string
	To           []string
	Username     string
	PasswordFile string
	// PlainSMTP sends mail without TLS, to a host whose network is in allow.
	PlainSMTP bool

	// Reports lets it receive what is mailed on a schedule; of email only.
	Reports bool

	// Which messages it receives; without these fields, all.
	MinSeverity string
	Owners      []string
	Apps        []string
	// Segments whose entering and leaving it receives; none by default.
	Segments []string
	Default  *bool // also alerts that name no audience; true unless given

	Quiet      *Quiet
	MaxPerHour int // requests or mails; 0: no limit
	// GroupWait is how long a message waits for others of its owner, to be sent
	// together; for slack and email.
	GroupWait time.Duration
	// GiveUp is how long a message is retried before it is given up.
	GiveUp time.Duration
	// Timeout of one attempt.
	Timeout time.Duration

	location *time.Location
	body     any // parsed BodyFile
}

// Quiet are hours in which nothing is delivered; messages are held, and for slack and
// email sent as one digest per owner at their end.
type Quiet struct {
	Zone string   // IANA name
	From string   // 20:00
	To   string   // 07:00
	Days []string // mon to sun: quiet all day

	from, to int // minutes of the day
	days     [7]bool
}

// LoadTargets reads and checks a file of targets. Secrets are read when they are used,
// so that a rotated one takes effect at once.
func LoadTargets(file string) (*Targets, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read targets: %w", err)
	}
	ts, err := parseTargets(text)
	if err != nil {
		return nil, fmt.Errorf("%s:\n%w", file, err)
	}
	if err := ts.check(); err != nil {
		return nil, fmt.Errorf("%s:\n%w", file, err)
	}
	return ts, nil
}

func parseTargets(text []byte) (*Targets, error) {
	ts := &Targets{}
	root, faults := yamldoc.Document(text)
	if len(faults) > 0 {
		return nil, faults
	}
	if root == nil {
		return ts, nil
	}
	var r yamldoc.Reader
	r.Mapping("", root, map[string]yamldoc.Field{
		"allow": r.TextsField(&ts.Allow),
		"targets": func(path string, n *yaml.Node) {
			yamldoc.Items(&r, path, n, &ts.Targets, func(path string, n *yaml.Node, t *Target) { t.read(&r, path, n) })
		},
	})
	if len(r.Faults) > 0 {
		return nil, r.Faults.Sorted()
	}
	return ts, nil
}

func (t *Target) read(r *yamldoc.Reader, path string, n *yaml.Node) {
	const trueOrFalse, whole, duration = "true or false", "a whole number", "a duration such as 10m"
	r.Mapping(path, n, map[string]yamldoc.Field{
		"name":          r.TextField(&t.Name),
		"kind":          r.TextField(&t.Kind),
		"url":           r.TextField(&t.URL),
		"url_file":      r.TextField(&t.URLFile),
		"secret_files":  r.TextsField(&t.SecretFiles),
		"header_files":  r.TextMapField(&t.HeaderFiles),
		"body_file":     r.TextField(&t.BodyFile),
		"smtp":          r.TextField(&t.SMTP),
		"from":          r.TextField(&t.From),
		"to":            r.TextsField(&t.To),
		"username":      r.TextField(&t.Username),
		"password_file": r.TextField(&t.PasswordFile),
		"plain_smtp":    yamldoc.ValueField(r, &t.PlainSMTP, trueOrFalse),
		"reports":       yamldoc.ValueField(r, &t.Reports, trueOrFalse),
		"min_severity":  r.TextField(&t.MinSeverity),
		"owners":        r.TextsField(&t.Owners),
		"apps":          r.TextsField(&t.Apps),
		"segments":      r.TextsField(&t.Segments),
		"default":       yamldoc.ValueField(r, &t.Default, trueOrFalse),
		"quiet": func(path string, n *yaml.Node) {
			t.Quiet = &Quiet{}
			r.Mapping(path, n, map[string]yamldoc.Field{
				"zone": r.TextField(&t.Quiet.Zone),
				"from": r.TextField(&t.Quiet.From),
				"to":   r.TextField(&t.Quiet.To),
				"days": r.TextsField(&t.Quiet.Days),
			})
		},
		"max_per_hour": yamldoc.ValueField(r, &t.MaxPerHour, whole),
		"group_wait":   yamldoc.ValueField(r, &t.GroupWait, duration),
		"give_up":      yamldoc.ValueField(r, &t.GiveUp, duration),
		"timeout":      yamldoc.ValueField(r, &t.Timeout, duration),
	})
}

func (ts *Targets) check() error {
	var errs []error
	ts.hosts = map[string]bool{}
	for _, a := range ts.Allow {
		if p, err := netip.ParsePrefix(a); err == nil {
			ts.networks = append(ts.networks, p.Masked())
		} else if ip, err := netip.ParseAddr(a); err == nil {
			ts.networks = append(ts.networks, netip.PrefixFrom(ip, ip.BitLen()))
		} else {
			ts.hosts[strings.ToLower(a)] = true
		}
	}
	seen := map[string]bool{}
	for i := range ts.Targets {
		t := &ts.Targets[i]
		if t.Name == "" || seen[t.Name] {
			errs = append(errs, fmt.Errorf("targets[%d].name must be given once (got %q)", i, t.Name))
		}
		seen[t.Name] = true
		if err := t.check(ts); err != nil {
			errs = append(errs, fmt.Errorf("target %s: %w", t.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (t *Target) check(ts *Targets) error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	t.Timeout = defaultTo(t.Timeout, 10*time.Second)
	t.GiveUp = defaultTo(t.GiveUp, 72*time.Hour)
	switch t.Kind {
	case KindWebhook, KindSlack:
		if _, err := t.address(ts); err != nil {
			errs = append(errs, err)
		}
	case KindEmail:
		errs = append(errs, t.checkMail(ts))
	default:
		fault("kind must be webhook, slack or email (got %q)", t.Kind)
	}
	if t.Kind == KindWebhook && t.GroupWait > 0 {
		fault("group_wait must not be given for a webhook: each message is a request of its own, with an id of its own")
	}
	if t.Reports && t.Kind != KindEmail {
		fault("reports is for kind email (got %s)", t.Kind)
	}
	if t.MinSeverity != "" && !slices.Contains(insight.Severities(), t.MinSeverity) {
		fault("min_severity must be one of %s (got %q)", strings.Join(insight.Severities(), ", "), t.MinSeverity)
	}
	if t.MaxPerHour < 0 || t.GroupWait < 0 || t.GroupWait > time.Hour || t.Timeout < 0 || t.Timeout > time.Minute || t.GiveUp < time.Minute {
		fault("max_per_hour must be at least 0, group_wait at most 1h, timeout at most 1m and give_up at least 1m")
	}
	if t.Quiet != nil {
		errs = append(errs, t.checkQuiet())
	}
	if t.BodyFile != "" {
		errs = append(errs, t.readBody())
	}
	return errors.Join(errs...)
}

func defaultTo(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// address reads and checks the URL.
func (t *Target) address(ts *Targets) (*url.URL, error) {
	text := t.URL
	if t.URLFile != "" {
		secret, err := readSecret(t.URLFile)
		if err != nil {
			return nil, err
		}
		text = string(secret)
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil {
		return nil, errors.New("url must be https://host/path, without a user; a password belongs into header_files") // the URL may be a secret
	}
	if err := ts.allowedHost(u.Hostname()); err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err != nil || !ts.named(ip)) {
		return nil, errors.New("url must be https; http is for an address of a network that allow names")
	}
	return u, nil
}

func (t *Target) checkMail(ts *Targets) error {
	host, _, err := net.SplitHostPort(t.SMTP)
	if err != nil || host == "" {
		return fmt.Errorf("smtp must be host:port (got %q)", t.SMTP)
	}
	errs := []error{ts.allowedHost(host)}
	if len(t.To) == 0 {
		errs = append(errs, errors.New("to must name someone"))
	}
	for _, a := range append([]string{t.From}, t.To...) {
		if _, err := mail.ParseAddress(a); err != nil || strings.ContainsAny(a, "\r\n") {
			errs = append(errs, fmt.Errorf("from and to must be mail addresses (got %q)", a))
		}
	}
	if ip, err := netip.ParseAddr(host); t.PlainSMTP && (err != nil || !ts.named(ip)) {
		errs = append(errs, errors.New("plain_smtp is for an address of a network that allow names"))
	}
	return errors.Join(errs...)
}

func (t *Target) checkQuiet() error {
	q := t.Quiet
	var err error
	if t.location, err = time.LoadLocation(q.Zone); err != nil || q.Zone == "" || q.Zone == "Local" {
		return fmt.Errorf("quiet.zone must be the name of a time zone such as Europe/Berlin (got %q)", q.Zone)
	}
	for _, s := range []struct {
		text string
		into *int
	}{{q.From, &q.from}, {q.To, &q.to}} {
		if s.text == "" {
			continue
		}
		at, err := time.Parse("15:04", s.text)
		if err != nil {
			return fmt.Errorf("quiet.from and quiet.to must be times such as 20:00 (got %q)", s.text)
		}
		*s.into = at.Hour()*60 + at.Minute()
	}
	names := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	for _, d := range q.Days {
		i := slices.Index(names, d)
		if i < 0 {
			return fmt.Errorf("quiet.days must be of mon, tue, wed, thu, fri, sat, sun (got %q)", d)
		}
		q.days[i] = true
	}
	if q.from == q.to && len(q.Days) == 0 {
		return errors.New("quiet must have from and to, or days")
	}
	if q.days == [7]bool{true, true, true, true, true, true, true} {
		return errors.New("quiet.days must leave a day: nothing would ever be delivered")
	}
	return nil
}

// readBody parses the JSON document whose strings are templates, and tests the
// templates.
func (t *Target) readBody() error {
	text, err := os.ReadFile(t.BodyFile)
	if err != nil {
		return fmt.Errorf("body_file: %w", err)
	}
	if err := json.Unmarshal(text, &t.body); err != nil {
		return fmt.Errorf("body_file must be JSON: %w", err)
	}
	if _, err := fill(t.body, &signal.Message{}); err != nil {
		return fmt.Errorf("body_file: %w", err)
	}
	return nil
}

// fill executes the strings of a JSON value as templates over the fields of a message.
// Inserted text cannot change the document's shape. Templates have only Go's own
// functions, none of which reads files, the environment or the network.
func fill(v any, m *signal.Message) (any, error) {
	switch v := v.(type) {
	case string:
		t, err := template.New("").Option("missingkey=error").Parse(v)
		if err != nil {
			return nil, err
		}
		var b strings.Builder
		// A copy, so that templates cannot call methods of Message.
		type fields signal.Message
		if err := t.Execute(&b, fields(*m)); err != nil {
			return nil, err
		}
		return b.String(), nil
	case []any:
		out := make([]any, len(v))
		for i := range v {
			var err error
			if out[i], err = fill(v[i], m); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			var err error
			if out[k], err = fill(v[k], m); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return v, nil
}

// Wants reports whether a target receives a message of an alert with that audience.
func (t *Target) Wants(m *signal.Message, audience []string) bool {
	among := func(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }
	severities := insight.Severities()
	return (slices.Contains(audience, t.Name) || (len(audience) == 0 && (t.Default == nil || *t.Default))) &&
		among(t.Owners, m.Owner) && among(t.Apps, m.App) &&
		(t.MinSeverity == "" || slices.Index(severities, m.Severity) >= slices.Index(severities, t.MinSeverity))
}

const maxSecret = 64 << 10

// readSecret reads a file without its trailing line end. Errors do not contain its
// content.
func readSecret(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 || len(text) > maxSecret {
		return nil, fmt.Errorf("secret in %s must be 1 to %d bytes", file, maxSecret)
	}
	return text, nil
}

// signingKey reads a key of Standard Webhooks.
func signingKey(file string) ([]byte, error) {
	text, err := readSecret(file)
	if err != nil {
		return nil, err
	}
	encoded, ok := bytes.CutPrefix(text, []byte("whsec_"))
	if !ok {
		return nil, fmt.Errorf("secret in %s must begin with whsec_", file)
	}
	key, err := base64.StdEncoding.DecodeString(string(encoded))
	if err != nil || len(key) < 24 || len(key) > 64 {
		return nil, fmt.Errorf("secret in %s must be whsec_ and the base64 of 24 to 64 bytes", file)
	}
	return key, nil
}
