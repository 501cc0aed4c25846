package clickhouse

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// Config holds how to reach ClickHouse and the form of its tables.
type Config struct {
	// Addr lists the native addresses: replicas of a shard separated by commas,
	// shards by semicolons, in the order of their numbers.
	Addr string
	// Database is the one for people; connections use the internal database beside it.
	Database string
	User     string
	Password setting.Secret

	TLS           bool
	TLSCA         string // PEM file; empty: the system's
	TLSCert       string // PEM file of the client's certificate
	TLSKey        string // PEM file of its key
	TLSServerName string

	// Compression of what is sent: none or lz4.
	Compression string
	DialTimeout time.Duration
	// Silence is how long a server may say nothing before a request counts as
	// lost. A working server reports progress all the time.
	Silence time.Duration

	// Form of the tables.
	Cluster       string
	WindowEntries int
	Window        time.Duration
	// ViewDefiner is the user that the views in Database run as; empty: the user
	// that migrates.
	ViewDefiner string
}

// DefaultConfig is one server on this machine.
func DefaultConfig() Config {
	return Config{
		Addr:        "127.0.0.1:9000",
		Database:    "uptake",
		User:        "default",
		Compression: "none",
		DialTimeout: 5 * time.Second,
		Silence:     2 * time.Minute,
	}
}

// Flags defines the settings as flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	set.StringVar(&c.Addr, "clickhouse-addr", c.Addr, "native `host:port` of ClickHouse; replicas separated by commas, shards by semicolons")
	set.StringVar(&c.Database, "clickhouse-database", c.Database, "`name` of the database that people use; the machinery is in <name>_internal beside it")
	set.StringVar(&c.User, "clickhouse-user", c.User, "`name` to log in with")
	set.Var(&c.Password, "clickhouse-password", "`password`, or file:PATH")
	set.BoolVar(&c.TLS, "clickhouse-tls", c.TLS, "speak TLS")
	set.StringVar(&c.TLSCA, "clickhouse-tls-ca", c.TLSCA, "PEM `file` of the authorities to trust, in place of the system's")
	set.StringVar(&c.TLSCert, "clickhouse-tls-cert", c.TLSCert, "PEM `file` of the client certificate, for servers that ask for one")
	set.StringVar(&c.TLSKey, "clickhouse-tls-key", c.TLSKey, "PEM `file` of the client certificate's key")
	set.StringVar(&c.TLSServerName, "clickhouse-tls-server-name", c.TLSServerName, "`name` to verify in place of the host")
	set.StringVar(&c.Compression, "clickhouse-compression", c.Compression, "compression of inserts: none, or lz4 where the network is the bottleneck")
	set.DurationVar(&c.DialTimeout, "clickhouse-dial-timeout", c.DialTimeout, "timeout for connecting")
	set.DurationVar(&c.Silence, "clickhouse-silence", c.Silence, "how long a server may say nothing before a request counts as lost and is repeated")
	set.StringVar(&c.Cluster, "clickhouse-cluster", c.Cluster, "`name` of the cluster for the replicated form of the tables; empty for one server")
	set.IntVar(&c.WindowEntries, "clickhouse-window-entries", c.WindowEntries, "entries of each table's dedup window, applied when the tables are created; 0 for the form's default")
	set.DurationVar(&c.Window, "clickhouse-window", c.Window, "age of each table's dedup window in the replicated form, applied when the tables are created; 0 for the form's default")
	set.StringVar(&c.ViewDefiner, "clickhouse-view-definer", c.ViewDefiner, "`name` of the user that views run as, applied when migrate creates them: it needs SELECT on both databases and nothing else; empty for the user that migrates")
}

// Schema returns the location and the form of the tables.
func (c *Config) Schema() clickhouse.Schema {
	return clickhouse.Schema{Database: c.Database, Form: c.form(), Definer: c.ViewDefiner}
}

func (c *Config) form() clickhouse.Form {
	f := clickhouse.SingleForm()
	if c.Cluster != "" {
		f = clickhouse.ClusterForm(c.Cluster)
	}
	if c.WindowEntries != 0 {
		f.WindowEntries = c.WindowEntries
	}
	if c.Window != 0 && c.Cluster != "" {
		f.Window = c.Window
	}
	return f
}

// Shards returns the addresses of each shard's replicas.
func (c *Config) Shards() [][]string {
	var shards [][]string
	for _, s := range strings.Split(c.Addr, ";") {
		var replicas setting.Strings
		_ = replicas.Set(s) // never fails
		shards = append(shards, replicas)
	}
	return shards
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	for i, replicas := range c.Shards() {
		if len(replicas) == 0 {
			errs = append(errs, fmt.Errorf("clickhouse-addr must name at least one address of each shard (shard %d has none in %q)", i, c.Addr))
		}
		for _, a := range replicas {
			if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
				errs = append(errs, fmt.Errorf("clickhouse-addr must be host:port (got %q)", a))
			}
		}
	}
	if c.Cluster == "" && strings.ContainsAny(c.Addr, ",;") {
		errs = append(errs, fmt.Errorf("clickhouse-addr may name several servers only with clickhouse-cluster (got %q)", c.Addr))
	}
	if c.Database == "" {
		errs = append(errs, errors.New("clickhouse-database must be set"))
	}
	if c.Compression != "none" && c.Compression != "lz4" {
		errs = append(errs, fmt.Errorf("clickhouse-compression must be none or lz4 (got %q)", c.Compression))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, fmt.Errorf("clickhouse-tls-cert and clickhouse-tls-key go together (got %q and %q)", c.TLSCert, c.TLSKey))
	}
	if !c.TLS && (c.TLSCA != "" || c.TLSCert != "" || c.TLSServerName != "") {
		errs = append(errs, errors.New("clickhouse-tls-ca, -cert, -key and -server-name need clickhouse-tls"))
	}
	if c.DialTimeout <= 0 {
		errs = append(errs, fmt.Errorf("clickhouse-dial-timeout must be > 0 (got %s)", c.DialTimeout))
	}
	if c.Silence < time.Second {
		errs = append(errs, fmt.Errorf("clickhouse-silence must be at least 1s (got %s)", c.Silence))
	}
	return errors.Join(append(errs, c.form().Validate())...)
}

func (c *Config) tlsConfig() (*tls.Config, error) {
	if !c.TLS {
		return nil, nil
	}
	tc := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
	if c.TLSCA != "" {
		var err error
		if tc.RootCAs, err = setting.CertPool("clickhouse-tls-ca", c.TLSCA); err != nil {
			return nil, err
		}
	}
	if c.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("clickhouse-tls-cert and clickhouse-tls-key: %w", err)
		}
		tc.Certificates = []tls.Certificate{pair}
	}
	return tc, nil
}
