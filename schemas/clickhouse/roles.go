package clickhouse

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Rights are the roles, limits and row policies of an installation, in the two
// forms that ClickHouse has for them: SQL, which the server stores, and users.xml
// for servers without SQL access management.
//
// Each name is prefixed with the database, so that two installations share a
// server: the role Analyst of the database uptake is uptake_analyst.
type Rights struct {
	Schema Schema
	Limits Limits
	// Apps that get a role of their own, App(id), which lets an analyst see rows of
	// that app.
	Apps []string
	// Users to create, each with roles of this list.
	Users []User

	names []string // in place of People, for tests
}

func (r *Rights) people() ([]string, error) {
	if r.names != nil {
		return r.names, nil
	}
	return People()
}

// Roles of an installation, without the prefix.
const (
	// Migrator creates and alters tables and views.
	Migrator = "migrator"
	// Writer is for `serve`, `init`, `audit` and `insight`: reads and inserts.
	Writer = "writer"
	// Operator is for `rebuild`, `recount`, `cluster`, `erase` and `retention`: it also
	// alters and deletes rows.
	Operator = "operator"
	// Console and Alerts read the database for people, of every app.
	Console = "console"
	Alerts  = "alerts"
	// ConsoleOf is Console for the rows of apps whose role the user has: the console
	// asks about an app as that app's user. See docs/console.md, "Who may see it".
	ConsoleOf = "console_of_app"
	// Analyst reads the views of the database for people but whoLooked, and of them only
	// rows of apps whose role the user has.
	Analyst = "analyst"
	// Events adds the stored tables to Analyst. See docs/security.md, "Stored tables".
	Events = "events"
	// EveryApp adds the stored tables, whoLooked and the rows of every app to Analyst.
	EveryApp = "every_app"

	appPrefix = "app_"
)

// whoLooked is the view of what users of the console did.
const whoLooked = "who_looked"

// App is the role of one app.
func App(id string) string { return appPrefix + id }

// Limits bound one query of people, and what one user may use in an hour.
type Limits struct {
	Seconds     int   // of one query, unless it sets another limit
	MostSeconds int   // the largest limit that it may set
	MemoryBytes int64 // of one query
	Threads     int   // of one query
	HourQueries int   // of one user in an hour
	HourSeconds int   // of execution, of one user in an hour
}

// DefaultLimits are for a server that other programs use too.
func DefaultLimits() Limits {
	return Limits{Seconds: 60, MostSeconds: 600, MemoryBytes: 8 << 30, Threads: 8, HourQueries: 10_000, HourSeconds: 7200}
}

// Validate reports all faults.
func (l Limits) Validate() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"role-seconds", int64(l.Seconds)},
		{"role-memory", l.MemoryBytes},
		{"role-threads", int64(l.Threads)},
		{"role-hour-queries", int64(l.HourQueries)},
		{"role-hour-seconds", int64(l.HourSeconds)},
	} {
		if f.value <= 0 {
			errs = append(errs, fmt.Errorf("%s must be > 0 (got %d)", f.name, f.value))
		}
	}
	if l.MostSeconds < l.Seconds {
		errs = append(errs, fmt.Errorf("role-most-seconds must be at least role-seconds (got %d and %d)", l.MostSeconds, l.Seconds))
	}
	return errors.Join(errs...)
}

// User is an account to create. Its password is kept as SHA-256.
type User struct {
	Name     string
	Password string
	Roles    []string // without the prefix
}

// NewUser returns the user of a service, or of people: name is the name of a role,
// or analyst_APP or console_APP for one app. An analyst without an app sees every
// app. The user's name ends in _user: GRANT could not tell it from the role.
func NewUser(database, name, password string) (User, error) {
	u := User{Name: database + "_" + name + "_user", Password: password}
	app, ofApp := strings.CutPrefix(name, Analyst+"_")
	page, ofPage := strings.CutPrefix(name, Console+"_")
	switch {
	case ofApp && app != "":
		u.Roles = []string{Analyst, App(app)}
	case ofPage && page != "":
		u.Roles = []string{ConsoleOf, App(page)}
	case name == Analyst:
		u.Roles = []string{Analyst, EveryApp}
	case slices.Contains([]string{Migrator, Writer, Operator, Console, Alerts}, name):
		u.Roles = []string{name}
	default:
		return u, fmt.Errorf("user %q: name it %s, %s, %s, %s, %s, %s, or %s_APP or %s_APP for one app", name, Migrator, Writer, Operator, Console, Alerts, Analyst, Analyst, Console)
	}
	if len(password) < 12 {
		return u, fmt.Errorf("user %q: the password has %d characters and must have at least 12", name, len(password))
	}
	return u, nil
}

func (u User) hash() string {
	sum := sha256.Sum256([]byte(u.Password))
	return hex.EncodeToString(sum[:])
}

// Validate reports all faults of r.
func (r *Rights) Validate() error {
	errs := []error{r.Schema.Validate(), r.Limits.Validate()}
	if r.Schema.Definer == "" {
		errs = append(errs, errors.New("the user that views run as must be named"))
	}
	if slices.Contains(r.Apps, "") {
		errs = append(errs, errors.New("role-apps must not name an empty app"))
	}
	for _, u := range r.Users {
		for _, role := range u.Roles {
			if app, ok := strings.CutPrefix(role, appPrefix); ok && !slices.Contains(r.Apps, app) {
				errs = append(errs, fmt.Errorf("user %s: app %s is not in role-apps", u.Name, app))
			}
		}
	}
	return errors.Join(errs...)
}

// Name is the name of a role, profile, quota or row policy.
func (r *Rights) Name(role string) string { return r.Schema.Database + "_" + role }

// Row policies on each name in the database for people.
const (
	// policyApps shows an analyst, and the console of one app, the rows of the apps whose
	// roles the user has.
	policyApps = "apps"
	// policyEvery shows the rows of every app.
	policyEvery = "every"
	// policyOthers shows everybody but those everything, whatever the server does
	// for users that no policy names.
	policyOthers = "others"
)

// RowsOf is the condition of the row policy on each name in the database for
// people. It is a set, so that it selects granules by the primary key, also through
// a view; and it is taken from the roles of the user, so that a new app needs a
// role and no new policy.
func (r *Rights) RowsOf() string {
	prefix := r.Name(appPrefix)
	return fmt.Sprintf("app_id IN (SELECT substring(r, %d) FROM (SELECT arrayJoin(enabledRoles()) AS r) WHERE startsWith(r, %s))",
		len([]rune(prefix))+1, literal(prefix))
}

func literal(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// role is a role with what it may do: privileges, and where.
type role struct {
	name   string
	grants []string // "SELECT ON `uptake`.*"
	reader bool     // bounded by the reader's profile
	quota  bool
}

func (r *Rights) roles() ([]role, error) {
	names, err := r.people()
	if err != nil {
		return nil, err
	}
	people, internal := quote(r.Schema.Database)+".*", quote(Internal(r.Schema.Database))+".*"
	both := func(privileges string) []string {
		return []string{privileges + " ON " + people, privileges + " ON " + internal}
	}
	of := func(names []string) (grants []string) {
		for _, n := range names {
			grants = append(grants, "SELECT ON "+r.Schema.View(n))
		}
		return grants
	}
	var views, others []string // views that analysts read, and the other names
	for _, n := range names {
		if slices.Contains(peopleTables, n) || n == whoLooked {
			others = append(others, n)
		} else {
			views = append(views, n)
		}
	}
	cluster := func(grants ...string) []string {
		if r.Schema.Form.Cluster == "" {
			return nil
		}
		return grants
	}
	system := func(tables ...string) (grants []string) {
		for _, t := range tables {
			grants = append(grants, "SELECT ON system."+t)
		}
		return grants
	}
	writer := slices.Concat(both("SELECT, INSERT, SHOW"), system("parts"), cluster(append(system("replicas", "zookeeper"), both("SYSTEM SYNC REPLICA")...)...))
	roles := []role{
		{name: Migrator, grants: slices.Concat(both("SELECT, INSERT, ALTER, CREATE, DROP, SHOW"),
			[]string{"SET DEFINER ON " + quote(r.Schema.Definer), "TABLE ENGINE ON *"}, cluster("CLUSTER ON *.*"))},
		{name: Writer, grants: writer},
		{name: Operator, grants: slices.Concat(writer, both("ALTER, CREATE TABLE, DROP TABLE, TRUNCATE, OPTIMIZE"), system("mutations", "processes"),
			[]string{"TABLE ENGINE ON *"}, cluster("CLUSTER ON *.*", "REMOTE, CREATE TEMPORARY TABLE ON *.*"))},
		{name: Console, grants: []string{"SELECT, SHOW ON " + people}, reader: true},
		{name: Alerts, grants: []string{"SELECT, SHOW ON " + people}},
		{name: Analyst, grants: of(views), reader: true, quota: true},
		{name: EveryApp, grants: of(others)},
	}
	// Row policies on a Distributed table do not reach the shards.
	console := role{name: ConsoleOf, grants: of(append(slices.Clone(views), whoLooked)), reader: true}
	if r.Schema.Form.Cluster == "" {
		roles = append(roles, role{name: Events, grants: of(peopleTables)})
		console.grants = of(names)
	}
	roles = append(roles, console)
	for _, a := range r.Apps {
		roles = append(roles, role{name: App(a)})
	}
	return roles, nil
}

// Statements returns the SQL that makes the rights, in an order in which no moment
// shows anybody more than the end does: row policies come before the grants. All of
// it can be run again. stale are row policies of this installation on names that are
// gone, as pairs of policy and name. secret is what the definer's password hash is
// made from, once: nobody can connect as the definer.
func (r *Rights) Statements(secret string, stale [][2]string) ([]string, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	roles, err := r.roles()
	if err != nil {
		return nil, err
	}
	names, err := r.people()
	if err != nil {
		return nil, err
	}
	on := r.Schema.onCluster()
	id := func(name string) string { return quote(r.Name(name)) }
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }

	definer := quote(r.Schema.Definer)
	add("CREATE USER IF NOT EXISTS %s%s IDENTIFIED WITH sha256_hash BY '%s' HOST NONE", definer, on, User{Password: secret}.hash())
	add("GRANT%s SELECT ON %s.*, SELECT ON %s.* TO %s WITH REPLACE OPTION", on, quote(r.Schema.Database), quote(Internal(r.Schema.Database)), definer)
	var readers, quotas []string
	for _, role := range roles {
		add("CREATE ROLE IF NOT EXISTS %s%s", id(role.name), on)
		if role.reader {
			readers = append(readers, id(role.name))
		}
		if role.quota {
			quotas = append(quotas, id(role.name))
		}
	}
	for _, n := range names {
		table := r.Schema.View(n)
		add("CREATE ROW POLICY OR REPLACE %s%s ON %s FOR SELECT USING %s TO %s, %s", id(policyApps), on, table, r.RowsOf(), id(Analyst), id(ConsoleOf))
		add("CREATE ROW POLICY OR REPLACE %s%s ON %s FOR SELECT USING 1 TO %s", id(policyEvery), on, table, id(EveryApp))
		add("CREATE ROW POLICY OR REPLACE %s%s ON %s FOR SELECT USING 1 TO ALL EXCEPT %s, %s", id(policyOthers), on, table, id(Analyst), id(ConsoleOf))
	}
	l := r.Limits
	add("CREATE SETTINGS PROFILE OR REPLACE %s%s SETTINGS readonly = 2, max_execution_time = %d MIN 1 MAX %d, max_memory_usage = %d MIN 1 MAX %d, max_threads = %d MIN 1 MAX %d TO %s",
		id("reader"), on, l.Seconds, l.MostSeconds, l.MemoryBytes, l.MemoryBytes, l.Threads, l.Threads, strings.Join(readers, ", "))
	add("CREATE QUOTA OR REPLACE %s%s KEYED BY user_name FOR INTERVAL 1 hour MAX queries = %d, execution_time = %d TO %s",
		id("reader"), on, l.HourQueries, l.HourSeconds, strings.Join(quotas, ", "))
	for _, role := range roles {
		if len(role.grants) > 0 {
			add("GRANT%s %s TO %s WITH REPLACE OPTION", on, strings.Join(role.grants, ", "), id(role.name))
		}
	}
	for _, p := range stale {
		add("DROP ROW POLICY IF EXISTS %s ON %s%s", quote(p[0]), r.Schema.View(p[1]), on)
	}
	for _, u := range r.Users {
		granted := make([]string, len(u.Roles))
		for i, role := range u.Roles {
			granted[i] = id(role)
		}
		add("CREATE USER IF NOT EXISTS %s%s IDENTIFIED WITH sha256_hash BY '%s'", quote(u.Name), on, u.hash())
		add("GRANT%s %s TO %s WITH REPLACE OPTION", on, strings.Join(granted, ", "), quote(u.Name))
		add("ALTER USER %s%s IDENTIFIED WITH sha256_hash BY '%s' DEFAULT ROLE ALL", quote(u.Name), on, u.hash())
	}
	return list, nil
}

// element is what a name must be to be an element of users.xml: ClickHouse takes a
// dot for a step into the element.
var element = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// UsersXML returns the same rights as a file for the folder users.d of a server.
// Row policies of users.xml are those of a user and not of a role, so it needs all
// users; the definer is one of them. secret is as for Statements.
func (r *Rights) UsersXML(secret string) (string, error) {
	if err := r.Validate(); err != nil {
		return "", err
	}
	roles, err := r.roles()
	if err != nil {
		return "", err
	}
	names, err := r.people()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	var errs []error
	text := func(s string) string {
		var out strings.Builder
		errs = append(errs, xml.EscapeText(&out, []byte(s)))
		return out.String()
	}
	open := func(indent, name string) string {
		if !element.MatchString(name) {
			errs = append(errs, fmt.Errorf("%q cannot be an element of users.xml: use SQL access management", name))
		}
		return indent + "<" + name + ">\n"
	}
	block := func(indent, name string, inside func(indent string)) {
		b.WriteString(open(indent, name))
		inside(indent + "    ")
		b.WriteString(indent + "</" + name + ">\n")
	}
	line := func(indent, name, value string) {
		fmt.Fprintf(&b, "%s<%s>%s</%s>\n", indent, name, text(value), name)
	}
	queries := func(indent string, list []string) {
		block(indent, "grants", func(in string) {
			for _, g := range list {
				line(in, "query", "GRANT "+g)
			}
		})
	}
	l := r.Limits
	b.WriteString("<?xml version=\"1.0\"?>\n<!-- Written by rollup-writer migrate -roles-print xml. -->\n")
	block("", "clickhouse", func(in string) {
		block(in, "profiles", func(in string) {
			block(in, r.Name("reader"), func(in string) {
				line(in, "readonly", "2")
				line(in, "max_execution_time", strconv.Itoa(l.Seconds))
				line(in, "max_memory_usage", strconv.FormatInt(l.MemoryBytes, 10))
				line(in, "max_threads", strconv.Itoa(l.Threads))
				block(in, "constraints", func(in string) {
					for _, c := range [][2]string{
						{"max_execution_time", strconv.Itoa(l.MostSeconds)}, {"max_memory_usage", strconv.FormatInt(l.MemoryBytes, 10)}, {"max_threads", strconv.Itoa(l.Threads)},
					} {
						block(in, c[0], func(in string) { line(in, "min", "1"); line(in, "max", c[1]) })
					}
				})
			})
			block(in, r.Name("service"), func(string) {})
		})
		block(in, "quotas", func(in string) {
			block(in, r.Name("reader"), func(in string) {
				block(in, "interval", func(in string) {
					line(in, "duration", "3600")
					line(in, "queries", strconv.Itoa(l.HourQueries))
					line(in, "execution_time", strconv.Itoa(l.HourSeconds))
				})
			})
			block(in, r.Name("unlimited"), func(string) {})
		})
		block(in, "roles", func(in string) {
			for _, role := range roles {
				block(in, r.Name(role.name), func(in string) {
					if len(role.grants) > 0 {
						queries(in, role.grants)
					}
				})
			}
		})
		user := func(in, name, hash, network, profile, quota string, grants []string, filter string) {
			block(in, name, func(in string) {
				line(in, "password_sha256_hex", hash)
				block(in, "networks", func(in string) { line(in, "ip", network) })
				line(in, "profile", profile)
				line(in, "quota", quota)
				queries(in, grants)
				block(in, "databases", func(in string) {
					block(in, r.Schema.Database, func(in string) {
						for _, n := range names {
							block(in, n, func(in string) { line(in, "filter", filter) })
						}
					})
				})
			})
		}
		block(in, "users", func(in string) {
			// 0.0.0.0 is the address of nobody.
			user(in, r.Schema.Definer, User{Password: secret}.hash(), "0.0.0.0", r.Name("service"), r.Name("unlimited"),
				[]string{"SELECT ON " + quote(r.Schema.Database) + ".*", "SELECT ON " + quote(Internal(r.Schema.Database)) + ".*"}, "1")
			for _, u := range r.Users {
				profile, quota, filter := "service", "unlimited", "1"
				granted := make([]string, len(u.Roles))
				for i, name := range u.Roles {
					granted[i] = quote(r.Name(name))
					at := slices.IndexFunc(roles, func(r role) bool { return r.name == name })
					if at >= 0 && roles[at].reader {
						profile = "reader"
					}
					if at >= 0 && roles[at].quota {
						quota = "reader"
					}
				}
				if slices.ContainsFunc(u.Roles, func(role string) bool { return role == Analyst || role == ConsoleOf }) && !slices.Contains(u.Roles, EveryApp) {
					filter = r.RowsOf()
				}
				user(in, u.Name, u.hash(), "::/0", r.Name(profile), r.Name(quota), []string{strings.Join(granted, ", ")}, filter)
			}
		})
	})
	return b.String(), errors.Join(errs...)
}

// Apply makes the rights on a server with SQL access management. The connection's
// user must be allowed to manage access. It may run before the schema exists.
func (r *Rights) Apply(ctx context.Context, conn driver.Conn) error {
	names, err := r.people()
	if err != nil {
		return err
	}
	var stale [][2]string
	err = Each(ctx, conn, func(p *[2]string) []any { return []any{&p[0], &p[1]} }, func(p *[2]string) { stale = append(stale, *p) },
		"SELECT short_name, `table` FROM system.row_policies WHERE database = ? AND short_name IN (?, ?, ?) AND `table` NOT IN (?)",
		r.Schema.Database, r.Name(policyApps), r.Name(policyEvery), r.Name(policyOthers), names)
	if err != nil {
		return fmt.Errorf("read row policies: %w", err)
	}
	statements, err := r.Statements(rand.Text(), stale)
	if err != nil {
		return err
	}
	for _, s := range statements {
		if err := conn.Exec(ctx, s); err != nil {
			head, _, _ := strings.Cut(s, " IDENTIFIED ") // no password hash in an error
			return fmt.Errorf("roles: %w in: %s", err, head)
		}
	}
	return nil
}

// Unprotected returns the names in the database for people on which no row policy
// holds for a role or user.
func (r *Rights) Unprotected(ctx context.Context, conn driver.Conn, roleOrUser string) ([]string, error) {
	names, err := CollectColumn[string](ctx, conn, "SELECT name FROM system.tables WHERE database = ? AND name NOT IN ("+
		"SELECT `table` FROM system.row_policies WHERE database = ? AND has(apply_to_list, ?)) ORDER BY name", r.Schema.Database, r.Schema.Database, roleOrUser)
	if err != nil {
		return nil, fmt.Errorf("look for names without a row policy: %w", err)
	}
	return names, nil
}
