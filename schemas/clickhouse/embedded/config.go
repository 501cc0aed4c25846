package embedded

import (
	"bytes"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// startQueries is what the child runs. The table named "table" is its standard
// input, so the last query, and with it the server, ends when the parent closes
// the pipe or dies.
const startQueries = "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; SELECT count() FROM table"

// The rights of default are all that schemas, writers and analysts need.
// Sources (file, url, remote, s3, executable and so on) are left out: a web
// page that is open on the same machine can send a POST to the HTTP port, and
// with them it could read any file or reach any host. stdin is for startQueries.
//
// Rights do not suffice: this is clickhouse-local, which lets anyone who may make a
// dictionary, or call the function file, read files and run programs. So the child
// confines itself (confine), the HTTP port refuses what a browser sends for a page
// of any other origin or name (handlersXML), and the ports are on the loopback
// unless someone says otherwise.
//
// With the default poll_interval of 10 s an idle connection would hold up the
// end of the server for the five seconds that ClickHouse gives connections.
//
// Settings that decide what a write means are not set here: the writer pins
// them in each request, so that it is right on any server.
//
// On a disk that is full to the last byte 26.7.2.1 acknowledges inserts, and
// finishes merges, whose files it could not write: write(2) returns ENOSPC, the
// files stay empty, and the part is renamed into place all the same. So the last
// keepFree bytes are kept out of its reach: inserts and merges are then refused
// while there are still bytes for those that have begun.
const keepFree = 256 << 20

const configXML = `<?xml version="1.0"?>
<clickhouse>
    <logger><size>10M</size><count>2</count></logger>
    <display_name>%[1]s</display_name>
    <users_config>%[2]s</users_config>
    <max_server_memory_usage>%[3]d</max_server_memory_usage>
    <mark_cache_size>67108864</mark_cache_size>
    <primary_index_cache_size>67108864</primary_index_cache_size>
    <uncompressed_cache_size>0</uncompressed_cache_size>
    <query_condition_cache_size>8388608</query_condition_cache_size>
    <background_schedule_pool_size>8</background_schedule_pool_size>
    <http_handlers>
        %[7]s
    </http_handlers>
    <backups><allowed_path>%[8]s</allowed_path></backups>
    <storage_configuration><disks><default><keep_free_space_bytes>%[5]d</keep_free_space_bytes></default></disks></storage_configuration>
    <merge_tree>
        <fsync_after_insert>%[4]d</fsync_after_insert>
        <fsync_part_directory>%[4]d</fsync_part_directory>
    </merge_tree>
</clickhouse>
`

// refuseXML answers what a browser sends for a page of another origin: by Origin,
// which it sends with each POST, or by Sec-Fetch-Site, which it sends with all.
const refuseXML = `<handler><type>static</type><status>403</status><content_type>text/plain</content_type><response_content>A page of another origin may not ask this server.
</response_content></handler>`

// The users of a server with [Access]. startQueries run as default, whatever the
// configuration says, and only if default needs no password and may come from
// anywhere. So default has no more rights than they need, and a quota of as many
// queries as they make: whoever connects as default afterwards has none left, but
// for those that read no table. (Intervals
// begin at multiples of their duration since the epoch, so this one ends in 2038.)
const (
	definerUser = "uptake_views"
	readerUser  = "uptake_reader"
	consoleUser = "uptake_console"

	startQuota = "<interval><duration>2147483647</duration><queries>4</queries></interval>"
)

// ownHost is the Host of a request that names this server by an address or as
// localhost. A page of a name that was made to lead here has the same origin in the
// browser's eyes, and sends that name; an address cannot be made to lead elsewhere.
const ownHost = `<Host>regex:(localhost|[0-9.]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?</Host>`

// handlersXML returns the rules for HTTP requests, of which the first that fits
// holds: a request without a Host of ours fits none but the last.
func handlersXML(port int, access *Access) string {
	const query = `<handler><type>dynamic_query_handler</type><query_param_name>query</query_param_name>%s</handler>`
	rule := func(url, headers, handler string) string {
		if url != "" {
			url = "<url>" + url + "</url>"
		}
		return "<rule>" + url + "<headers>" + headers + "</headers>" + handler + "</rule>\n"
	}
	// asks are the rules for a query. With Access a request is the reader's unless it
	// has the headers by which one logs in. (Parameters cannot be matched here: those
	// named user and password, as /play sends them, are ignored.)
	asks := func(url, headers string) string {
		plain := fmt.Sprintf(query, "")
		if access == nil || !access.Reader {
			return rule(url, headers, plain)
		}
		return rule(url, headers+"<X-ClickHouse-User>regex:.+</X-ClickHouse-User>", plain) +
			rule(url, headers+"<Authorization>regex:.+</Authorization>", plain) +
			rule(url, headers, fmt.Sprintf(query, "<user>"+readerUser+"</user>"))
	}
	var b strings.Builder
	b.WriteString(asks("", ownHost+fmt.Sprintf(`<Origin>regex:http://(localhost|127\.0\.0\.1|\[::1\]):%d</Origin>`, port)))
	b.WriteString(rule("", ownHost+`<Origin>regex:.+</Origin>`, refuseXML))
	b.WriteString(rule("", ownHost+`<Sec-Fetch-Site>regex:cross-site|same-site</Sec-Fetch-Site>`, refuseXML))
	b.WriteString(rule("/", ownHost+`<Sec-Fetch-Site>same-origin</Sec-Fetch-Site>`, refuseXML))
	b.WriteString(asks("/", ownHost))
	for _, page := range []string{"ping", "play", "dashboard"} {
		b.WriteString(rule("/"+page, ownHost, "<handler><type>"+page+"</type></handler>"))
	}
	for _, script := range []string{"uplot.js", "lz-string.js"} {
		b.WriteString(rule("/js/"+script, ownHost, "<handler><type>js</type></handler>"))
	}
	b.WriteString("<rule>" + refuseXML + "</rule>")
	return b.String()
}

// ownerGrants are all that schemas, writers and analysts need.
const ownerGrants = `
                <query>GRANT CHECK, SHOW, SELECT, INSERT, ALTER, BACKUP, CREATE, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, MOVE PARTITION BETWEEN SHARDS, KILL QUERY, SYSTEM, dictGet, CLUSTER, TABLE ENGINE ON *.*</query>
                <query>GRANT SET DEFINER ON *</query>`

// startGrants are what startQueries need.
const startGrants = `
                <query>GRANT SYSTEM LISTEN, CREATE ARBITRARY TEMPORARY TABLE, TABLE ENGINE ON *.*</query>`

// Bounds of the reader, for one query: a query that would go beyond them fails.
const (
	readerSeconds = 60  // unless it asks for another bound,
	readerMost    = 600 // up to this
	readerBytes   = 2 << 30
	readerThreads = 4
)

// usersXML returns the users of a server: default alone, who may all that the
// grants say; with access the owner, the reader, the views' definer, and default
// for the start alone.
func usersXML(access *Access) string {
	const anywhere, nowhere = "<networks><ip>::/0</ip></networks>", "<networks><ip>0.0.0.0</ip></networks>"
	user := func(name, password, networks, profile, quota, grants string) string {
		return fmt.Sprintf(`
        <%[1]s>
            %[2]s
            %[3]s
            <profile>%[4]s</profile>
            <quota>%[5]s</quota>
            <grants>%[6]s
            </grants>
        </%[1]s>`, name, password, networks, profile, quota, grants)
	}
	const none, stdin = "<password></password>", `
                <query>GRANT READ ON FILE('stdin')</query>`
	users := user("default", none, anywhere, "default", "default", ownerGrants+stdin)
	if access != nil {
		hash := func(password string) string {
			return fmt.Sprintf("<password_sha256_hex>%x</password_sha256_hex>", sha256.Sum256([]byte(password)))
		}
		people := fmt.Sprintf("<query>GRANT SELECT ON `%s`.*</query>", access.Database)
		users = user("default", none, anywhere, "default", "start", startGrants+stdin) +
			user(access.Owner, hash(access.Password), anywhere, "default", "default", ownerGrants) +
			user(definerUser, none, nowhere, "default", "default", people+fmt.Sprintf("<query>GRANT SELECT ON `%s_internal`.*</query>", access.Database)) +
			user(consoleUser, hash(access.ConsolePassword), anywhere, "reader", "default", people)
		if access.Reader {
			users += user(readerUser, none, anywhere, "reader", "default", people)
		}
	}
	return fmt.Sprintf(`<?xml version="1.0"?>
<clickhouse>
    <profiles>
        <default>
            <allow_introspection_functions>0</allow_introspection_functions>
            <poll_interval>1</poll_interval>
        </default>
        <reader>
            <readonly>2</readonly>
            <poll_interval>1</poll_interval>
            <max_execution_time>%[2]d</max_execution_time>
            <max_memory_usage>%[3]d</max_memory_usage>
            <max_threads>%[4]d</max_threads>
            <constraints>
                <max_execution_time><min>1</min><max>%[6]d</max></max_execution_time>
                <max_memory_usage><min>1</min><max>%[3]d</max></max_memory_usage>
                <max_threads><min>1</min><max>%[4]d</max></max_threads>
            </constraints>
        </reader>
    </profiles>
    <quotas><default/><start>%[5]s</start></quotas>
    <users>%[1]s
    </users>
</clickhouse>
`, users, readerSeconds, readerBytes, readerThreads, startQuota, readerMost)
}

// writeConfig makes the directories and configuration files of a server and
// returns the arguments of the child.
func writeConfig(cfg Config, nativeAddr, httpAddr, instance string) ([]string, error) {
	dirs := map[string]string{}
	for _, name := range []string{"config", "data", "log", "backups"} {
		dirs[name] = filepath.Join(cfg.DataDir, name)
		if err := os.MkdirAll(dirs[name], 0o700); err != nil {
			return nil, fmt.Errorf("make data directory: %w", err)
		}
	}
	host, nativePort, err := splitAddr(nativeAddr)
	if err != nil {
		return nil, fmt.Errorf("NativeAddr: %w", err)
	}
	_, httpPort, err := splitAddr(httpAddr)
	if err != nil {
		return nil, fmt.Errorf("HTTPAddr: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		what := "embedded clickhouse has no password and listens beyond this machine: whoever reaches it reads and writes the tables, in clear"
		if cfg.Access != nil {
			what = "embedded clickhouse listens beyond this machine without TLS: passwords and data travel in clear"
		}
		cfg.Logger.Warn(what, "host", host)
	}

	users := filepath.Join(dirs["config"], "users.xml")
	var escaped, backups bytes.Buffer
	if err := errors.Join(xml.EscapeText(&escaped, []byte(users)), xml.EscapeText(&backups, []byte(dirs["backups"]))); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	fsync := 0
	if cfg.Fsync {
		fsync = 1
	}
	config := filepath.Join(dirs["config"], "config.xml")
	for path, text := range map[string]string{
		config: fmt.Sprintf(configXML, instance, escaped.String(), cfg.MemoryBytes, fsync, keepFree, httpPort, handlersXML(httpPort, cfg.Access), backups.String()),
		users:  usersXML(cfg.Access),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("write configuration: %w", err)
		}
	}
	return []string{
		"--config-file=" + config,
		"--path=" + dirs["data"],
		"--logger.log=" + filepath.Join(dirs["log"], "clickhouse.log"),
		"--log-level=warning",
		"--listen_host=" + host,
		"--tcp_port=" + strconv.Itoa(nativePort),
		"--http_port=" + strconv.Itoa(httpPort),
		"--input-format=LineAsString",
		"--multiquery",
		"--query=" + startQueries,
	}, nil
}
