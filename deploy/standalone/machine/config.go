package machine

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"strconv"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// App and its write key are there from the first start.
const (
	App      = "dev"
	WriteKey = "dev-write-key"
)

// Config says where everything lives and listens.
type Config struct {
	Data               string
	GatewayAddr        string
	KafkaAddr          string
	ClickHouseAddr     string
	ClickHouseHTTPAddr string
	MetricsAddr        string
	// ConsoleAddr is where the pages are; empty: there are none.
	ConsoleAddr string

	// AlertsTargets is the file of who is told of alerts; empty: nobody, and alerts
	// are evaluated and recorded all the same.
	AlertsTargets string

	// ExternalClickHouse uses the server at ClickHouseAddr and
	// ClickHouseHTTPAddr in place of the embedded one.
	ExternalClickHouse bool
	ClickHouseUser     string
	ClickHousePassword setting.Secret
	ClickHouseDatabase string
	ClickHouseLibrary  string
	ClickHouseFsync    bool
	// WithoutReader closes the embedded server to connections without a login.
	WithoutReader bool
	// ClickHouseRemote lets the embedded server listen beyond the loopback.
	ClickHouseRemote bool

	// PrivacyFile has the privacy rules, for the gateway and the enricher.
	PrivacyFile string
	// GeoFile is the gateway's database of countries.
	GeoFile string

	// WithoutWriter leaves the rollup-writer out, for `rollup-writer rebuild`.
	WithoutWriter bool
}

// DefaultConfig is what a program without arguments runs with.
func DefaultConfig() Config {
	return Config{
		Data:               "data",
		GatewayAddr:        "127.0.0.1:8080",
		KafkaAddr:          "127.0.0.1:9092",
		ClickHouseAddr:     "127.0.0.1:9000",
		ClickHouseHTTPAddr: "127.0.0.1:8123",
		MetricsAddr:        "127.0.0.1:9100",
		ConsoleAddr:        "127.0.0.1:8088",
		ClickHouseUser:     "default",
		ClickHouseDatabase: "uptake",
	}
}

// addr is one of the addresses, with the flag that sets it.
type addr struct {
	flag  string
	value string
	ours  bool // this process, or its child, listens on it
}

func (c *Config) addrs() []addr {
	all := []addr{
		{"gateway-addr", c.GatewayAddr, true},
		{"kafka-addr", c.KafkaAddr, true},
		{"clickhouse-addr", c.ClickHouseAddr, !c.ExternalClickHouse},
		{"clickhouse-http-addr", c.ClickHouseHTTPAddr, !c.ExternalClickHouse},
		{"metrics-addr", c.MetricsAddr, true},
	}
	if c.ConsoleAddr != "" {
		all = append(all, addr{"console-addr", c.ConsoleAddr, true})
	}
	return all
}

// Flags binds the config to flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	set.StringVar(&c.Data, "data", c.Data, "`folder` of the log, the tables, the write keys and the services' state; made when it is missing")
	set.StringVar(&c.GatewayAddr, "gateway-addr", c.GatewayAddr, "`host:port` that takes events")
	set.StringVar(&c.KafkaAddr, "kafka-addr", c.KafkaAddr, "`host:port` of the embedded log")
	set.StringVar(&c.ClickHouseAddr, "clickhouse-addr", c.ClickHouseAddr, "`host:port` of ClickHouse's native protocol")
	set.StringVar(&c.ClickHouseHTTPAddr, "clickhouse-http-addr", c.ClickHouseHTTPAddr, "`host:port` of ClickHouse's HTTP interface")
	set.StringVar(&c.MetricsAddr, "metrics-addr", c.MetricsAddr, "`host:port` of /metrics, /healthz, /readyz and /debug/pprof")
	set.StringVar(&c.ConsoleAddr, "console-addr", c.ConsoleAddr, "`host:port` of the pages that show who uses what; empty for none")
	set.StringVar(&c.AlertsTargets, "alerts-targets", c.AlertsTargets, "YAML `file` of who is told of alerts: docs/signals.md; empty for nobody: they are evaluated and recorded all the same")
	set.BoolVar(&c.ExternalClickHouse, "clickhouse-external", c.ExternalClickHouse, "use the ClickHouse server that runs at -clickhouse-addr in place of the embedded one")
	set.StringVar(&c.ClickHouseUser, "clickhouse-user", c.ClickHouseUser, "`name` of the user on the external server")
	set.Var(&c.ClickHousePassword, "clickhouse-password", "`password` of that user, or file:PATH")
	set.StringVar(&c.ClickHouseDatabase, "clickhouse-database", c.ClickHouseDatabase, "`name` of the database; made when it is missing")
	set.StringVar(&c.ClickHouseLibrary, "clickhouse-library", c.ClickHouseLibrary, "`path` of libchdb.so; empty: where it was fetched to, or through npm")
	set.BoolVar(&c.ClickHouseFsync, "clickhouse-fsync", c.ClickHouseFsync, "have the embedded ClickHouse sync every insert to disk, against power cuts; without it an insert survives the death of every process")
	set.Func("clickhouse-reader", "`true or false`: whether queries that do not log in may read the database of the embedded ClickHouse, as README's do (default true)", func(v string) error {
		b, err := strconv.ParseBool(v)
		c.WithoutReader = !b
		return err
	})
	set.BoolVar(&c.ClickHouseRemote, "clickhouse-remote", c.ClickHouseRemote, "let the embedded ClickHouse listen on an address beyond this machine, where passwords travel in clear and everybody may read unless -clickhouse-reader=false")
	set.StringVar(&c.PrivacyFile, "privacy-file", c.PrivacyFile, "YAML `file` of privacy rules, applied before anything is written to the log (docs/privacy.md); reloaded when it changes; empty for none")
	set.StringVar(&c.GeoFile, "geo-file", c.GeoFile, "database `file` in MaxMind's format (MMDB), by which the country of an address is found before the address is truncated (docs/privacy.md); reloaded when it changes; empty for none")
	set.BoolVar(&c.WithoutWriter, "without-writer", c.WithoutWriter, "do not run the rollup-writer, so that the command \"rollup-writer rebuild\" can repair tables; events are accepted and wait in the log")
}

// Validate reports all faults at once, each with the name of its flag.
func (c *Config) Validate() error {
	var errs []error
	if c.Data == "" {
		errs = append(errs, errors.New("data must name a folder"))
	}
	seen := map[string]string{}
	for _, a := range c.addrs() {
		host, port, err := net.SplitHostPort(a.value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s must be host:port: %w", a.flag, err))
			continue
		}
		if host == "" {
			errs = append(errs, fmt.Errorf("%s must name a host, such as 127.0.0.1 (got %q)", a.flag, a.value))
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			errs = append(errs, fmt.Errorf("%s must have a port from 1 to 65535 (got %q)", a.flag, a.value))
		}
		if other, ok := seen[a.value]; ok {
			errs = append(errs, fmt.Errorf("%s and %s must differ (both %s)", other, a.flag, a.value))
		}
		seen[a.value] = a.flag
	}
	if ip := net.ParseIP(hostOf(c.KafkaAddr)); ip != nil && ip.IsUnspecified() {
		errs = append(errs, fmt.Errorf("kafka-addr must name the host that clients connect to (got %q)", c.KafkaAddr))
	}
	if !c.ExternalClickHouse {
		if a, b := hostOf(c.ClickHouseAddr), hostOf(c.ClickHouseHTTPAddr); a != b {
			errs = append(errs, fmt.Errorf("clickhouse-addr and clickhouse-http-addr must have the same host (got %q and %q)", a, b))
		}
		if host := hostOf(c.ClickHouseAddr); !loopback(host) && !c.ClickHouseRemote {
			errs = append(errs, fmt.Errorf("clickhouse-addr and clickhouse-http-addr must be on the loopback, or be allowed elsewhere by clickhouse-remote: the embedded ClickHouse has no TLS (got %q)", host))
		}
		if c.ClickHouseUser != "default" || c.ClickHousePassword != "" {
			errs = append(errs, errors.New("clickhouse-user and clickhouse-password need clickhouse-external: the embedded server makes its users and their passwords itself"))
		}
	}
	if c.ClickHouseDatabase == "" {
		errs = append(errs, errors.New("clickhouse-database must be named"))
	}
	return errors.Join(errs...)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || host == "" || (ip != nil && ip.IsLoopback())
}

func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr) // Validate has told what is wrong with it
	return host
}

// access says who may do what in the embedded ClickHouse.
func (c *Config) access(data *dataDir) (*embedded.Access, error) {
	owner, err := data.password(ownerPassword)
	if err != nil {
		return nil, err
	}
	pages, err := data.password(consolePassword)
	return &embedded.Access{Owner: "uptake", Password: owner, ConsolePassword: pages, Database: c.ClickHouseDatabase, Reader: !c.WithoutReader}, err
}
