package embedded_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// Whoever reaches the ports as the user who may most reads no file of this machine,
// runs no program and reaches no host: by no engine, function, dictionary or format.
func TestNothingLeavesTheDatabase(t *testing.T) {
	if why := embedded.Confinement(); why != nil {
		t.Skip("nothing confines a child here: ", why)
	}
	_, db := embedded.Database(t)
	s := embedded.ForTest(t)
	dir := t.TempDir()
	const secret = "a-line-of-a-secret-file"
	private := filepath.Join(dir, "private.txt")
	if err := os.WriteFile(private, []byte(secret+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("UPTAKE_PLANTED", secret)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var reached atomic.Int64
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			c.Close()
		}
	}()
	defer l.Close()
	host := l.Addr().String()
	_, port, _ := net.SplitHostPort(host)
	out := filepath.Join(dir, "out")

	pid := s.Pid()
	run := func(statement string) {
		got, err := s.Query(t.Context(), statement)
		if strings.Contains(got, secret) || (err != nil && strings.Contains(err.Error(), secret)) {
			t.Errorf("%s: shows the secret", statement)
		}
	}
	for _, q := range []string{
		// files
		"SELECT file('" + private + "')",
		"SELECT file('/proc/" + fmt.Sprint(os.Getpid()) + "/environ')",
		"SELECT file('/proc/self/environ')",
		"SELECT file('../../../../../../" + private + "')",
		"SELECT * FROM file('" + private + "', LineAsString)",
		"SELECT * FROM sqlite('" + private + "', 't')",
		"INSERT INTO FUNCTION file('" + out + "', LineAsString, 'a String') SELECT 'x'",
		"SELECT 'x' INTO OUTFILE '" + out + "'",
		"INSERT INTO " + db + ".t FROM INFILE '" + private + "' FORMAT LineAsString",
		"BACKUP DATABASE " + db + " TO File('" + out + "')",
		"BACKUP DATABASE " + db + " TO Disk('default', '../../" + out + "')",
		"RESTORE DATABASE " + db + " FROM File('" + private + "')",
		"CREATE DATABASE fs ENGINE = Filesystem('" + dir + "')",
		"SELECT * FROM fs.`private.txt`",
		// programs
		"SELECT * FROM executable('id', TSV, 'a String')",
		"CREATE FUNCTION f AS x -> file('" + private + "')",
		"SELECT f(1)",
		"DROP FUNCTION IF EXISTS f",
		"SYSTEM RELOAD FUNCTIONS",
		"SYSTEM RELOAD CONFIG",
		// hosts
		"SELECT * FROM url('http://" + host + "/x', LineAsString) SETTINGS http_max_tries = 1",
		"SELECT * FROM remote('" + host + "', system.one)",
		"SELECT * FROM s3('http://" + host + "/b/k', LineAsString)",
		"SELECT * FROM mysql('" + host + "', 'd', 't', 'u', 'p')",
		"SELECT * FROM postgresql('" + host + "', 'd', 't', 'u', 'p')",
		"SELECT * FROM mongodb('" + host + "', 'd', 't', 'u', 'p', 'a String')",
		"SELECT * FROM redis('" + host + "', 'k', 'k String, v String')",
		"BACKUP DATABASE " + db + " TO S3('http://" + host + "/b/k', 'u', 'p')",
		"CREATE DATABASE my ENGINE = MySQL('" + host + "', 'd', 'u', 'p')",
	} {
		run(q)
	}
	// Engines: what makes a table, what reads it, what writes to it.
	for i, engine := range []string{
		"File(LineAsString, '" + private + "')", "File(LineAsString)", "URL('http://" + host + "/x', LineAsString)", "S3('http://" + host + "/b/k', LineAsString)",
		"MySQL('" + host + "', 'd', 't', 'u', 'p')", "PostgreSQL('" + host + "', 'd', 't', 'u', 'p')", "MongoDB('" + host + "', 'd', 't', 'u', 'p')",
		"Redis('" + host + "')", "SQLite('" + private + "', 't')", "Executable('id', TSV)", "ExecutablePool('id', TSV)",
		"Distributed('default', 'system', 'one')",
	} {
		name := fmt.Sprintf("%s.e%d", db, i)
		run("CREATE TABLE " + name + " (line String) ENGINE = " + engine)
		run("SELECT * FROM " + name + " LIMIT 10 SETTINGS http_max_tries = 1")
		run("INSERT INTO " + name + " SETTINGS http_max_tries = 1 VALUES ('x')")
	}
	// Dictionaries.
	for i, source := range []string{
		"EXECUTABLE(COMMAND 'cat " + private + " | tee " + out + "' FORMAT LineAsString)", "EXECUTABLE(COMMAND '/bin/sh' FORMAT LineAsString)",
		"EXECUTABLE_POOL(COMMAND 'tee " + out + "' FORMAT LineAsString)", "FILE(PATH '" + private + "' FORMAT LineAsString)",
		"HTTP(URL 'http://" + host + "/x' FORMAT LineAsString)", "MYSQL(HOST '127.0.0.1' PORT " + port + " USER 'u' PASSWORD 'p' DB 'd' TABLE 't')",
		"POSTGRESQL(HOST '127.0.0.1' PORT " + port + " USER 'u' PASSWORD 'p' DB 'd' TABLE 't')", "REDIS(HOST '127.0.0.1' PORT " + port + ")",
		"MONGODB(HOST '127.0.0.1' PORT " + port + " USER 'u' PASSWORD 'p' DB 'd' COLLECTION 't')", "CASSANDRA(HOST '127.0.0.1' PORT " + port + " KEYSPACE 'd' COLUMN_FAMILY 't')",
		"CLICKHOUSE(HOST '127.0.0.1' PORT " + port + " TABLE 't')", "CLICKHOUSE(QUERY 'SELECT file(\\'" + private + "\\') AS line')",
	} {
		name := fmt.Sprintf("%s.d%d", db, i)
		run("CREATE DICTIONARY " + name + " (line String) PRIMARY KEY line SOURCE(" + source + ") LAYOUT(COMPLEX_KEY_HASHED()) LIFETIME(0) SETTINGS(http_max_tries = 1)")
		run("SYSTEM RELOAD DICTIONARY " + name)
		run("SELECT * FROM " + name)
	}
	if s.Pid() != pid {
		t.Error("the server ended meanwhile, so that this shows nothing")
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("got %d connections from the server", n)
	}
	if left, _ := filepath.Glob(out + "*"); len(left) > 0 {
		t.Errorf("the server wrote %v", left)
	}
	// What Uptake's own dictionaries do still works.
	for _, q := range []string{
		"CREATE TABLE " + db + ".own (k UInt64, v String) ENGINE = MergeTree ORDER BY k", "INSERT INTO " + db + ".own VALUES (1, 'one')",
		"CREATE DICTIONARY " + db + ".own_dict (k UInt64, v String) PRIMARY KEY k SOURCE(CLICKHOUSE(QUERY 'SELECT k, v FROM " + db + ".own')) LAYOUT(FLAT()) LIFETIME(0)",
	} {
		if _, err := s.Query(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Query(t.Context(), "SELECT dictGet('"+db+".own_dict', 'v', 1)"); err != nil || got != "one\n" {
		t.Errorf("a dictionary over a table of this server: got %q, %v", got, err)
	}
}

// A page whose name was made to lead to this machine has the same origin in the
// browser's eyes; the Host that the browser sends gives it away.
func TestHostIsChecked(t *testing.T) {
	s := embedded.ForTest(t)
	_, port, _ := net.SplitHostPort(s.HTTPAddr())
	for host, want := range map[string]int{
		s.HTTPAddr(): http.StatusOK, "localhost:" + port: http.StatusOK, "[::1]:" + port: http.StatusOK,
		"rebound.example:" + port: http.StatusForbidden, "rebound.example": http.StatusForbidden, "127.0.0.1.rebound.example:" + port: http.StatusForbidden,
		"localhost.rebound.example": http.StatusForbidden, "xlocalhost:" + port: http.StatusForbidden,
	} {
		for _, path := range []string{"/?query=SELECT%2042", "/play", "/ping", "/dashboard", "/js/uplot.js"} {
			for _, origin := range []string{"", "http://" + host} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.HTTPAddr()+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = host
				if origin != "" {
					req.Header.Set("Origin", origin)
				}
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.Copy(io.Discard, res.Body) // a connection that is reset can end the server
				if err = errors.Join(err, res.Body.Close()); err != nil {
					t.Fatal(err)
				}
				if (res.StatusCode == http.StatusForbidden) != (want == http.StatusForbidden) {
					t.Errorf("Host %s, Origin %q, %s: got status %d, want %d", host, origin, path, res.StatusCode, want)
				}
			}
		}
	}
}
