package embedded_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// With Access a request that names no user reads the database for people, within
// bounds, and nothing else; default is nobody's; the owner has a password.
func TestAccess(t *testing.T) {
	access := &embedded.Access{Owner: "uptake", Password: "a&b<c", ConsolePassword: "pages", Database: "people", Reader: true}
	s := startIn(t, embedded.Config{DataDir: t.TempDir(), Access: access})
	for _, q := range []string{
		"CREATE DATABASE people", "CREATE DATABASE people_internal",
		"CREATE TABLE people_internal.secret (n Int32) ENGINE = MergeTree ORDER BY n",
		"INSERT INTO people_internal.secret VALUES (7)",
		"CREATE VIEW people.shown DEFINER = " + access.Definer() + " SQL SECURITY DEFINER AS SELECT n FROM people_internal.secret",
	} {
		if _, err := s.Query(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(statement, parameters string, headers ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTPAddr()+"/?"+parameters, strings.NewReader(statement))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, strings.TrimSpace(string(b))
	}
	password := url.QueryEscape(access.Password)
	for _, tc := range []struct {
		name, statement, parameters string
		headers                     []string
		want                        string // of the answer; empty: it is refused
	}{
		{"a view, as nobody", "SELECT n FROM people.shown", "", nil, "7"},
		{"as /play asks", "SELECT n FROM people.shown", "user=default&default_format=TSV", []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://" + s.HTTPAddr()}, "7"},
		{"by a setting", "SELECT n FROM people.shown", "max_execution_time=5", nil, "7"},
		{"who it is", "SELECT currentUser()", "", nil, "uptake_reader"},
		{"who default is", "SELECT currentUser()", "user=default", nil, "uptake_reader"},
		{"parameters log nobody in", "SELECT currentUser()", "user=uptake&password=" + password, nil, "uptake_reader"},
		{"the machinery", "SELECT n FROM people_internal.secret", "", nil, ""},
		{"a function that reads a file", "SELECT file('/etc/hostname')", "", nil, ""},
		{"another table of the server", "SELECT name FROM system.users", "", nil, ""},
		{"queries of others", "SELECT query FROM system.processes", "", nil, ""},
		{"writing", "CREATE TABLE people.t (n Int32) ENGINE = Memory", "", nil, ""},
		{"a temporary table", "CREATE TEMPORARY TABLE t (n Int32)", "session_id=x", nil, ""},
		{"dropping", "DROP TABLE people.shown", "", nil, ""},
		{"the server's end", "SYSTEM SHUTDOWN", "", nil, ""},
		{"more time", "SELECT 1", "max_execution_time=3600", nil, ""},
		{"no bound of time", "SELECT 1", "max_execution_time=0", nil, ""},
		{"no bound of memory", "SELECT 1 SETTINGS max_memory_usage = 0", "", nil, ""},
		{"another user's rights", "SELECT n FROM people_internal.secret", "user=uptake_views", nil, ""},
		{"the owner by header", "SELECT n FROM people_internal.secret", "", []string{"X-ClickHouse-User", "uptake", "X-ClickHouse-Key", access.Password}, "7"},
		{"the owner without a password", "SELECT 1", "", []string{"X-ClickHouse-User", "uptake"}, ""},
		{"the owner with a wrong one", "SELECT 1", "", []string{"X-ClickHouse-User", "uptake", "X-ClickHouse-Key", "x"}, ""},
		{"default by header", "SELECT count() FROM numbers(1)", "", []string{"X-ClickHouse-User", "default"}, ""},
		{"default by Authorization", "SELECT count() FROM numbers(1)", "", []string{"Authorization", "Basic ZGVmYXVsdDo="}, ""},
		{"default stops it", "SYSTEM STOP LISTEN HTTP", "", []string{"X-ClickHouse-User", "default"}, ""},
		{"default ends it", "SYSTEM SHUTDOWN", "", []string{"X-ClickHouse-User", "default"}, ""},
		{"the definer by Authorization", "SELECT 1", "", []string{"Authorization", "Basic dXB0YWtlX3ZpZXdzOg=="}, ""},
		{"a page of another origin", "SELECT 1", "", []string{"Origin", "http://elsewhere.example"}, ""},
	} {
		code, got := ask(tc.statement, tc.parameters, tc.headers...)
		if refused := code >= 300; refused != (tc.want == "") || (!refused && got != tc.want) {
			t.Errorf("%s: got %d %q, want %q", tc.name, code, got, tc.want)
		}
	}
	for _, tc := range []struct {
		user, password string
		want           bool
	}{{"uptake", access.Password, true}, {"default", "", false}, {"uptake_reader", "", true}, {access.Console(), "pages", true}} {
		conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{s.NativeAddr()}, Auth: clickhouse.Auth{Username: tc.user, Password: tc.password, Database: "system"}})
		if err != nil {
			t.Fatal(err)
		}
		var n int32
		if err := conn.QueryRow(t.Context(), "SELECT n FROM people.shown").Scan(&n); (err == nil) != tc.want {
			t.Errorf("native as %q: got %v", tc.user, err)
		}
		if err := conn.QueryRow(t.Context(), "SELECT n FROM people_internal.secret").Scan(&n); (err == nil) != (tc.want && tc.user == "uptake") {
			t.Errorf("native as %q, machinery: got %v", tc.user, err)
		}
		conn.Close()
	}

	closed := startIn(t, embedded.Config{DataDir: t.TempDir(), Access: &embedded.Access{Owner: "uptake", Password: "x", ConsolePassword: "y", Database: "people"}})
	res, err := http.Post("http://"+closed.HTTPAddr(), "text/plain", strings.NewReader("SELECT count() FROM numbers(1)"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode < 400 {
		t.Errorf("without a reader: got %d", res.StatusCode)
	}
}
