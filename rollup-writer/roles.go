package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// rolesFlags are the flags of migrate about who may do what in ClickHouse.
type rolesFlags struct {
	roles, schema bool
	users         string // folder
	apps          setting.Strings
	print         string
	limits        clickhouse.Limits
}

func (f *rolesFlags) flags(set *flag.FlagSet) {
	f.limits = clickhouse.DefaultLimits()
	set.BoolVar(&f.roles, "roles", false, "before the schema, create or update the roles of services and analysts, row policies on every name, limits and quotas; the user must be allowed to manage access. Views then run as <database>_views unless clickhouse-view-definer names another user")
	set.BoolVar(&f.schema, "schema", true, "create or update databases, tables and views; false with -roles: only the roles")
	set.StringVar(&f.users, "role-users", "", "`folder` of passwords: for each file, named migrator, writer, operator, console, alerts, analyst (of every app), analyst_APP or console_APP, create the user <database>_<file>_user or set its password")
	set.Var(&f.apps, "role-apps", "`ids` of the apps that get a role <database>_app_<id>, separated by commas; roles of others are left as they are")
	set.StringVar(&f.print, "roles-print", "", "print the roles as `sql` or xml (for the folder users.d of a server without SQL access management) and exit")
	set.IntVar(&f.limits.Seconds, "role-seconds", f.limits.Seconds, "`seconds` that a query of an analyst or of the console may take, unless it sets another limit")
	set.IntVar(&f.limits.MostSeconds, "role-most-seconds", f.limits.MostSeconds, "largest limit in `seconds` that such a query may set")
	set.Int64Var(&f.limits.MemoryBytes, "role-memory", f.limits.MemoryBytes, "`bytes` of memory that such a query may use")
	set.IntVar(&f.limits.Threads, "role-threads", f.limits.Threads, "threads that such a query may use")
	set.IntVar(&f.limits.HourQueries, "role-hour-queries", f.limits.HourQueries, "queries that one analyst may make in an hour")
	set.IntVar(&f.limits.HourSeconds, "role-hour-seconds", f.limits.HourSeconds, "`seconds` of execution that one analyst may use in an hour")
}

func (f *rolesFlags) validate() error {
	var errs []error
	if !f.roles && (f.users != "" || len(f.apps) > 0 || f.print != "") {
		errs = append(errs, errors.New("role-users, role-apps and roles-print need roles"))
	}
	if !f.roles && !f.schema {
		errs = append(errs, errors.New("schema=false needs roles: otherwise there is nothing to do"))
	}
	if !slices.Contains([]string{"", "sql", "xml"}, f.print) {
		errs = append(errs, fmt.Errorf("roles-print must be sql or xml (got %q)", f.print))
	}
	return errors.Join(append(errs, f.limits.Validate())...)
}

// rights reads the folder of passwords. A file whose name begins with a dot is
// skipped: Kubernetes puts those beside the keys of a mounted secret.
func (f *rolesFlags) rights(schema clickhouse.Schema) (*clickhouse.Rights, error) {
	r := &clickhouse.Rights{Schema: schema, Limits: f.limits, Apps: f.apps}
	if f.users == "" {
		return r, nil
	}
	entries, err := os.ReadDir(f.users) // sorted
	if err != nil {
		return r, fmt.Errorf("role-users: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		var password setting.Secret
		err := password.Set("file:" + filepath.Join(f.users, e.Name()))
		if err == nil {
			var u clickhouse.User
			if u, err = clickhouse.NewUser(schema.Database, e.Name(), password.Reveal()); err == nil {
				r.Users = append(r.Users, u)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("role-users: %w", err))
		}
	}
	return r, errors.Join(errs...)
}

func migrate(c *invocation) error {
	var f rolesFlags
	f.flags(c.flags("migrate"))
	logger, err := c.parse(f.validate)
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	if f.roles {
		if err := f.apply(signals.Stop, c, logger, c.stdout); err != nil {
			return err
		}
	}
	if !f.schema || f.print != "" {
		return nil
	}
	return repair.Migrate(signals.Stop, c.cfg.Config, logger)
}

// apply prints the rights or makes them, and sets the definer for the schema.
func (f *rolesFlags) apply(ctx context.Context, c *invocation, logger *slog.Logger, stdout io.Writer) error {
	cfg := &c.cfg.ClickHouse
	if cfg.ViewDefiner == "" {
		cfg.ViewDefiner = cfg.Database + "_views"
	}
	rights, err := f.rights(cfg.Schema())
	if err = errors.Join(err, rights.Validate()); err != nil {
		return err
	}
	switch f.print {
	case "sql":
		statements, err := rights.Statements(rand.Text(), nil)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, strings.Join(statements, ";\n\n")+";")
		return err
	case "xml":
		text, err := rights.UsersXML(rand.Text())
		if err != nil {
			return err
		}
		_, err = io.WriteString(stdout, text)
		return err
	}
	return repair.Roles(ctx, cfg, rights, logger)
}
