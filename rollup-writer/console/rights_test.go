package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/uptakehq/uptake/rollup-writer/console/question"
	"github.com/uptakehq/uptake/rollup-writer/console/signin"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	schema "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// file writes a file of a test.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const accessText = `
groups:
  support: {role: viewer, apps: [dev], people: hidden}
  research: {role: analyst, apps: [dev], people: hidden}
  success: {role: viewer, apps: [dev]}
  growth: {role: analyst, apps: [dev]}
  platform: {role: admin, apps: all}
  others: {role: admin, apps: [other]}
...
`

// of makes a request one of somebody in groups, as a proxy names them.
func of(groups string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Del("Authorization")
		r.RemoteAddr = "10.1.2.3:999"
		r.Header.Set("X-Proxy-Secret", "a secret of the proxy")
		r.Header.Set("Remote-User", "maria")
		r.Header.Set("Remote-Groups", groups)
	}
}

func TestWhatGroupsMaySee(t *testing.T) {
	s := start(t, func(c *Config, _ *Dependencies) { c.AccessFile = file(t, "access.yaml", accessText) })
	s.insert(usage{"shop", "user", "ines", "scan", "Scan", today.Add(-time.Hour)})
	if err := s.conn.Exec(t.Context(), "INSERT INTO events (app_id, kind, event, message_id, actor_id, actor_kind, event_time, received_at, quantity, source_offset) VALUES ('other', 'track', 'Planted', 'm', 'x', 'user', ?, ?, 1, 900)", today.Add(-time.Hour), today.Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		groups, target string
		want           int
	}{
		{"", "/overview", 403},
		{"unknown", "/overview", 403},
		{"support", "/overview", 200},
		{"support", "/overview?app=dev", 200},
		{"support", "/overview?app=other", 403},
		{"support", "/account?app=dev&account=shop", 200},
		{"support", "/person?app=dev&person=ines", 403},
		{"support", "/explain?app=dev&account=shop", 403},
		{"support", "/live?app=dev", 403},
		{"support", "/explore?app=dev&show=funnel&step=scan&step=feature_1&by=user.email", 403},
		{"support", "/explore?app=dev&show=breakdown&path=email", 403},
		{"support", "/explore?app=dev&show=funnel&step=scan&step=feature_1&by=account.plan", 200},
		{"support", "/api/v1/summary?app=dev", 403},
		{"support", "/question?app=dev&name=summary", 403},
		{"support", "/health?app=dev", 403},
		{"research", "/api/v1/summary?app=dev", 200},
		{"research", "/api/v1/person_traits?app=dev&person=ines", 403},
		{"research", "/api/v1/live?app=dev", 403},
		{"research", "/health?app=dev", 200},
		{"research", "/quality?app=dev", 403},
		{"success", "/person?app=dev&person=ines", 200},
		{"success", "/explain?app=dev&account=shop", 200},
		{"success", "/live?app=dev", 403},
		{"success", "/live/events?app=dev", 403},
		{"success", "/api/v1/account_people?app=dev&account=shop", 403},
		{"growth", "/live?app=dev", 200},
		{"growth", "/quality?app=dev", 200},
		{"growth", "/live/events?app=other", 403},
		{"growth", "/api/v1/summary?app=other", 403},
		{"growth", "/api/v1/apps", 200},
		{"support, growth", "/live?app=dev", 200},
		{"platform", "/live?app=other", 200},
		{"platform", "/overview?app=dev", 200},
		{"others", "/overview", 200},
		{"others", "/overview?app=dev", 403},
	} {
		target := tc.target
		if strings.HasPrefix(target, "/live/events") && tc.want == 200 {
			t.Fatal("a stream does not end")
		}
		if w := s.do(of(tc.groups), target); w.Code != tc.want {
			t.Errorf("%q asks for %s: got %d, want %d\n%.400s", tc.groups, target, w.Code, tc.want, w.Body)
		}
	}
	for _, target := range []string{"/overview", "/overview?app=dev", "/api/v1/apps"} {
		for groups, sees := range map[string]bool{"growth": false, "platform": true} {
			if body := s.do(of(groups), target).Body.String(); strings.Contains(body, ">other<") != sees && strings.Contains(body, `"other"`) != sees {
				t.Errorf("%s of %s names the app other: %v", target, groups, !sees)
			}
		}
	}
	// A program with the token of an app is not limited by groups, and nothing else.
	post := func(groups string) int {
		return s.do(func(r *http.Request) {
			of(groups)(r)
			r.Method, r.Body = http.MethodPost, http.NoBody
			r.Header.Set("Origin", "http://"+r.Host)
		}, "/live/test").Code
	}
	if got := post("success"); got != http.StatusForbidden {
		t.Errorf("a viewer sends a test event: %d", got)
	}
	html := s.do(of("support"), "/account?app=dev&account=shop").Body.String()
	for _, never := range []string{"/question?", "/api/v1/", "/person?", "/explain?", `href="/live`} {
		if strings.Contains(html, never) {
			t.Errorf("the page of a viewer links to %s", never)
		}
	}
}

// Where people are not shown, nothing that a page or an answer says names one, whatever
// the question. The same pages for others do name them.
func TestPeopleAreHidden(t *testing.T) {
	s := start(t, func(c *Config, _ *Dependencies) { c.AccessFile = file(t, "access.yaml", accessText) })
	const secret = "ines-0c9f"
	at := today.Add(-time.Hour)
	s.insert(
		usage{"shop", "user", secret, "scan", "Scan", at}, usage{"shop", "anonymous", secret + "-visitor", "scan", "Scan", at},
		usage{"shop", "user", secret, "scan", "Scan", at.AddDate(0, 0, -30)}, usage{"shop", "user", "bo", "scan", "Scan", at},
	)
	machinery := s.c.cfg.ClickHouse.Schema()
	for _, statement := range []string{
		"INSERT INTO " + machinery.Table("signal_log") + ` (app_id, signal_use, alert_id, message_id, signal, state, level, subject, severity, owner, title, reason, playbook, valid_from, written_at) VALUES
			('dev', 'alert', 'a1', 'm1', 'silent', 'firing', 'user', '` + secret + `', 'critical', 'cs', 'Gone silent: ` + secret + `', 'r', 'p', '2026-11-19', '2026-11-20')`,
		"INSERT INTO rejected_events (app_id, stage, code, field, detail, protocol, received_at, rejected_at, original) VALUES ('dev', 'gateway', 'bad_field', '', 'of " + secret + "', 'segment', '2026-11-20 15:29:00', '2026-11-20 15:29:00', '" + secret + "')",
	} {
		if err := s.conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	rest := "&p=90d&account=shop&feature=scan&step=scan&step=feature_1&path=a&by=product&q=ines"
	paths := []string{
		"/overview?app=dev", "/usage?app=dev", "/feature?app=dev" + rest, "/accounts?app=dev", "/account?app=dev" + rest, "/alerts?app=dev", "/search?app=dev" + rest,
		"/person?app=dev&person=" + secret[:4], "/live?app=dev", "/quality?app=dev", "/explain?app=dev" + rest, "/explore?app=dev&show=paths" + rest, "/explore?app=dev&show=retention" + rest, "/explore?app=dev&show=sessions" + rest,
	}
	for _, name := range question.Names() {
		paths = append(paths, "/question?app=dev&name="+name+rest, "/api/v1/"+name+"?app=dev"+rest, "/api/v1/"+name+"?app=dev&format=csv"+rest)
	}
	named := 0
	for _, path := range paths {
		if strings.Contains(s.do(of("growth"), path).Body.String(), secret) {
			named++
		}
		for _, groups := range []string{"support", "research"} {
			if w := s.do(of(groups), path); strings.Contains(w.Body.String(), secret) {
				t.Errorf("%s names a person to %s (%d)", path, groups, w.Code)
			} else if w.Code >= 500 {
				t.Errorf("%s: %d for %s", path, w.Code, groups)
			}
		}
	}
	if named < 20 {
		t.Errorf("only %d pages and answers name the person to an analyst: the test sees too little", named)
	}
	people := func(groups string) (ids []string) {
		s.do(of(groups), "/overview?app=dev")
		ctx := signin.With(t.Context(), s.c.access.rights.Person("x", []string{groups}))
		r, err := s.c.asker.ask(ctx, "account_people", question.Values{"app": "dev", "account": "shop", "from": "1700000000", "to": fmt.Sprint(today.Unix())})
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.Rows {
			ids = append(ids, text(r.cell(i, "actor_id")))
		}
		slices.Sort(ids)
		return slices.Compact(ids)
	}
	masked, shown := people("research"), people("growth")
	if len(masked) != 3 || len(shown) != 3 || !strings.HasPrefix(masked[0], "person ") || !slices.Equal(masked, people("research")) || !slices.Contains(shown, secret) {
		t.Errorf("shown as %q and %q", shown, masked)
	}
}

// Columns by which results name people.
var personal = []string{"actor_id", "user_id", "anonymous_id", "person", "user", "email", "ip", "user_agent", "properties", "traits", "context", "original", "last_detail", "last_value", "trait"}

// Whoever adds a question says what of it is about people.
func TestQuestionsSayWhatIsAboutPeople(t *testing.T) {
	s := start(t)
	s.insert(usage{"shop", "user", "ines", "scan", "Scan", today.Add(-time.Hour)})
	for _, name := range question.Names() {
		q := question.Get(name)
		v := question.Values{}
		for _, p := range q.Parameters {
			v[p] = map[string]string{"app": "dev", "from": "1700000000", "to": "1800000000", "before": "1700000000", "first": "2026-11-01", "end": "2026-11-21", "zone": "UTC", "steps": "['scan']", "without": "[]", "since": "0", "window": "86400", "unit": "person", "grain": "day", "ordering": "ordered", "by": "product"}[p]
		}
		r, err := s.c.asker.ask(signin.With(t.Context(), signin.Everything("x")), name, v)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, c := range r.Columns {
			if slices.Contains(personal, c.Name) && !q.People.Hidden && !slices.Contains(q.People.Columns, c.Name) && name != "account_traits" && name != "accounts" { // traits of accounts
				t.Errorf("%s has a column %s: say `-- people:` in its file", name, c.Name)
			}
		}
		for _, c := range append(slices.Clone(q.People.Columns), q.People.RowsBy) {
			if c != "" && !slices.ContainsFunc(r.Columns, func(have Column) bool { return have.Name == c }) {
				t.Errorf("%s: no column %s", name, c)
			}
		}
	}
}

// The console asks about an app as the app's user of ClickHouse, to whom row policies
// show that app alone: a question that names another app has no rows, also if the
// console itself let it through. Without the policies it has.
func TestClickHouseKeepsAppsApart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts ClickHouse servers; not under -short")
	}
	const password = "a password of the test"
	cfg := clickhouse.DefaultConfig()
	rights := &schema.Rights{Schema: cfg.Schema(), Limits: schema.DefaultLimits(), Apps: []string{"dev", "store"}}
	rights.Schema.Definer = "uptake_definer"
	for _, name := range []string{schema.Migrator, schema.Writer, "console_dev", "console_store"} {
		u, err := schema.NewUser("uptake", name, password)
		if err != nil {
			t.Fatal(err)
		}
		rights.Users = append(rights.Users, u)
	}
	users, err := rights.UsersXML("secret")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for _, app := range []string{"dev", "store"} {
		if err := os.WriteFile(filepath.Join(folder, app), []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for _, policies := range []bool{true, false} {
		if !policies {
			users = strings.ReplaceAll(users, "<filter>app_id IN", "<filter>1 OR app_id IN")
		}
		func() {
			if err := os.MkdirAll(filepath.Join(dir, "config", "users.d"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "config", "users.d", "roles.xml"), []byte(users), 0o600); err != nil {
				t.Fatal(err)
			}
			server, err := embedded.Start(t.Context(), embedded.Config{DataDir: dir, Access: &embedded.Access{Owner: "owner", Password: "o", ConsolePassword: "c", Database: "uptake"}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := server.Stop(context.Background()); err != nil {
					t.Error(err)
				}
			}()
			if policies {
				migrator, err := clickhousego.Open(&clickhousego.Options{Addr: []string{server.NativeAddr()}, Auth: clickhousego.Auth{Database: "system", Username: "uptake_migrator_user", Password: password}})
				if err != nil {
					t.Fatal(err)
				}
				defer migrator.Close()
				if _, err := rights.Schema.Apply(t.Context(), migrator); err != nil {
					t.Fatal(err)
				}
				if err := migrator.Exec(t.Context(), "INSERT INTO uptake.events (app_id, kind, event, message_id, actor_id, actor_kind, account_id, feature_id, event_time, received_at, quantity, source_offset) VALUES ('dev', 'track', 'Scan', 'm1', 'a', 'user', 'x', 'scan', ?, ?, 1, 1), ('store', 'track', 'Scan', 'm2', 'b', 'user', 'y', 'scan', ?, ?, 1, 2)",
					today.Add(-time.Hour), today.Add(-time.Minute), today.Add(-time.Hour), today.Add(-time.Minute)); err != nil {
					t.Fatal(err)
				}
			}
			s := start(t, func(c *Config, _ *Dependencies) {
				c.ClickHouse = clickhouse.DefaultConfig()
				c.ClickHouse.Addr, c.AppUsers = server.NativeAddr(), folder
			})
			html := s.page("/overview")
			if !strings.Contains(html, "App: </span>dev") || !strings.Contains(html, ">store</a>") {
				t.Errorf("the menu does not list the apps of the folder:\n%.2000s", html)
			}
			for _, name := range []string{"active_by_day", "live", "account_names", "accounts"} {
				if rows := s.ask(name, "p=7d").Rows; len(rows) == 0 && name != "account_names" {
					t.Errorf("%s of the app itself has no rows", name)
				}
			}
			q := question.Get("live")
			v := question.Values{"app": "store", "since": "0", "q": ""}
			conn := s.c.conns.apps["dev"]
			rows, err := conn.Query(clickhousego.Context(t.Context(), clickhousego.WithParameters(clickhousego.Parameters(v))), q.SQL)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for rows.Next() {
				n++
			}
			if rows.Close(); rows.Err() != nil || (n == 0) != policies {
				t.Errorf("policies %v: the user of dev sees %d events of store, %v", policies, n, rows.Err())
			}
			if w := s.do(nil, "/overview?app=third"); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "console-app-users") {
				t.Errorf("an app without a user: %d %s", w.Code, w.Body)
			}
		}()
	}
}

func TestAppUsersMustBeReadable(t *testing.T) {
	for folder, want := range map[string]string{t.TempDir(): "console-app-users: the folder holds no file", filepath.Join(t.TempDir(), "none"): "console-app-users: open"} {
		cfg := DefaultConfig()
		cfg.AppUsers = folder
		if _, err := openConns(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	cfg := DefaultConfig()
	cfg.SignIn.Issuer, cfg.SignIn.ClientID, cfg.SignIn.ClientSecret, cfg.SignIn.URL = "https://idp.example", "c", "s", "https://uptake.example"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "needs console-access-file") {
		t.Errorf("a provider without rights: %v", err)
	}
	cfg.AccessFile, cfg.Addr = "access.yaml", "0.0.0.0:8088"
	if err := cfg.Validate(); err != nil {
		t.Errorf("sign-in on all addresses: %v", err)
	}
	if _, err := url.Parse(cfg.SignIn.URL); err != nil || cfg.SignIn.Host() != "uptake.example" {
		t.Errorf("host %q", cfg.SignIn.Host())
	}
}
