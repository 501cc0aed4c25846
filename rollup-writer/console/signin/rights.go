// Package signin decides who looks at the console: it signs people in at an OpenID
// Connect provider, and says from the groups of a person what they may see.
//
// It owns the session's cookie and the file of rights. It knows nothing of pages and of
// ClickHouse.
package signin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/schemas/svc/wholefile"
)

// Role is what somebody may do with the data of an app. Each includes those before it.
type Role uint8

// Roles. Nobody sees nothing.
const (
	Nobody  Role = iota
	Viewer       // pages, and feedback on alerts
	Analyst      // also statements, rows as CSV and JSON, single events, and data quality
	Admin        // also what others did in the console
)

var roleNames = map[string]Role{"viewer": Viewer, "analyst": Analyst, "admin": Admin}

// Grant is a role with what it shows of people.
type Grant struct {
	Role   Role
	People bool // ids, traits and single events of people are shown
}

func (g Grant) or(other Grant) Grant {
	return Grant{Role: max(g.Role, other.Role), People: g.People || other.People}
}

// Person is somebody who looks, with what they may see. The nil Person sees nothing.
type Person struct {
	Name  string // as the provider or the proxy names them
	every Grant
	apps  map[string]Grant
}

// Everything is a person who may see everything.
func Everything(name string) *Person { return &Person{Name: name, every: Grant{Admin, true}} }

// Of is a person with rights on one app.
func Of(name, app string, g Grant) *Person {
	return &Person{Name: name, apps: map[string]Grant{app: g}}
}

// On is what the person may do with the data of an app.
func (p *Person) On(app string) Grant {
	if p == nil {
		return Grant{}
	}
	return p.every.or(p.apps[app])
}

// Apps are those that the person has rights on by name, sorted.
func (p *Person) Apps() []string {
	if p == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(p.apps))
}

// Any is the largest role that the person has on an app.
func (p *Person) Any() Role {
	if p == nil {
		return Nobody
	}
	role := p.every.Role
	for _, g := range p.apps {
		role = max(role, g.Role)
	}
	return role
}

type personKey struct{}

// With returns a context in which p looks.
func With(ctx context.Context, p *Person) context.Context {
	return context.WithValue(ctx, personKey{}, p)
}

// From returns who looks, or nil.
func From(ctx context.Context) *Person {
	p, _ := ctx.Value(personKey{}).(*Person)
	return p
}

// apps is a list of ids, or the word all.
type apps struct {
	all bool
	ids []string
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (a *apps) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && n.Value == "all" {
		a.all = true
		return nil
	}
	if err := n.Decode(&a.ids); err != nil || len(a.ids) == 0 || slices.Contains(a.ids, "") {
		return fmt.Errorf("line %d: apps must be all, or a list of ids", n.Line)
	}
	return nil
}

// rights are those of one group, one user or everyone.
type rights struct {
	Role   string `yaml:"role"`
	Apps   apps   `yaml:"apps"`
	People string `yaml:"people"`
}

func (r *rights) check(where string) error {
	var errs []error
	if roleNames[r.Role] == Nobody {
		errs = append(errs, fmt.Errorf("%s: role must be viewer, analyst or admin (got %q)", where, r.Role))
	}
	if !r.Apps.all && len(r.Apps.ids) == 0 {
		errs = append(errs, fmt.Errorf("%s: apps must be all, or a list of ids", where))
	}
	if !slices.Contains([]string{"", "shown", "hidden"}, r.People) {
		errs = append(errs, fmt.Errorf("%s: people must be shown or hidden (got %q)", where, r.People))
	}
	return errors.Join(errs...)
}

func (r *rights) add(to *Person) {
	g := Grant{Role: roleNames[r.Role], People: r.People != "hidden"}
	if r.Apps.all {
		to.every = to.every.or(g)
	}
	for _, app := range r.Apps.ids {
		to.apps[app] = to.apps[app].or(g)
	}
}

// file is the file of rights.
type file struct {
	Groups   map[string]*rights `yaml:"groups"`
	Users    map[string]*rights `yaml:"users"`
	Everyone *rights            `yaml:"everyone"`
}

const largestFile = 1 << 20

func readFile(path string) (*file, error) {
	text, err := wholefile.Read(path, largestFile)
	if err != nil {
		return nil, err
	}
	f := &file{}
	if err := wholefile.YAML(text, f); err != nil {
		return nil, err
	}
	var errs []error
	for what, list := range map[string]map[string]*rights{"groups": f.Groups, "users": f.Users} {
		for name, r := range list {
			if r == nil {
				r = &rights{}
			}
			errs = append(errs, r.check(what+"."+name))
		}
	}
	if f.Everyone != nil {
		errs = append(errs, f.Everyone.check("everyone"))
	}
	return f, errors.Join(errs...)
}

// Rights says what people may see, from a file that is read again when it changes.
type Rights struct {
	path string
	log  *slog.Logger
	now  func() time.Time

	mu      sync.Mutex // covers all below
	file    *file
	looked  time.Time
	changed time.Time
	size    int64
}

// lookEvery is how often a file is looked at for changes.
const lookEvery = 2 * time.Second

// ReadRights reads the file at path. Without a path everybody who signed in may see
// everything.
func ReadRights(path string, log *slog.Logger, now func() time.Time) (*Rights, error) {
	r := &Rights{path: path, log: log, now: now}
	if path == "" {
		return r, nil
	}
	return r, r.read()
}

func (r *Rights) read() error {
	info, err := os.Stat(r.path)
	if err != nil {
		return err
	}
	f, err := readFile(r.path)
	if err != nil {
		return err
	}
	r.file, r.changed, r.size = f, info.ModTime(), info.Size()
	return nil
}

// current returns the file as it is now. A file that cannot be used leaves the rights
// that were read before in force.
func (r *Rights) current() *file {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.path == "" || r.now().Sub(r.looked) < lookEvery {
		return r.file
	}
	r.looked = r.now()
	info, err := os.Stat(r.path)
	if err == nil && info.ModTime().Equal(r.changed) && info.Size() == r.size {
		return r.file
	}
	if err == nil {
		err = r.read()
	}
	if err != nil {
		r.log.Error("console-access-file not read: the rights read before stay in force", "error", err)
	} else {
		r.log.Info("console-access-file read again")
	}
	return r.file
}

// Person returns who has a name and groups. It is nil for somebody without any right.
func (r *Rights) Person(name string, groups []string) *Person {
	f := r.current()
	if f == nil {
		return Everything(name)
	}
	p := &Person{Name: name, apps: map[string]Grant{}}
	if f.Everyone != nil {
		f.Everyone.add(p)
	}
	if u := f.Users[name]; u != nil {
		u.add(p)
	}
	for _, group := range groups {
		if g := f.Groups[group]; g != nil {
			g.add(p)
		}
	}
	if p.Any() == Nobody {
		return nil
	}
	return p
}

// Named returns those of the groups that the file names.
func (r *Rights) Named(groups []string) []string {
	f := r.current()
	if f == nil {
		return nil
	}
	var named []string
	for _, g := range groups {
		if f.Groups[g] != nil && !slices.Contains(named, g) {
			named = append(named, g)
		}
	}
	slices.Sort(named)
	return named
}
