package gateway

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/svc/kafka"
	"github.com/uptakehq/uptake/schemas/svc/registry"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// Config is the gateway's settings.
type Config struct {
	Kafka    kafka.Config
	Registry registry.Config

	Addr     string
	Keys     string
	KeysPoll time.Duration

	PrivacyFile string
	// GeoFile names the database of countries; empty: none.
	GeoFile string

	Limits         ingest.Limits
	MaxConnections int
	MaxHeaderBytes int
	ReadTimeout    time.Duration
	WriteTimeout   time.Duration
	IdleTimeout    time.Duration

	MaxInflightBytes  int64
	MaxInflightEvents int64

	MaxAddressShare         float64 // of MaxInflightBytes and of MaxConnections
	MaxUnauthenticatedShare float64 // of MaxInflightBytes
	MinRequestRate          int     // bytes per second

	AckTimeout time.Duration
	// StallTimeout is how long records may be in flight without any ack until the Kafka
	// client is replaced.
	StallTimeout time.Duration
	Linger       time.Duration
	Compression  string

	TrustedProxies  setting.Strings
	ForwardedHeader string

	StopTimeout time.Duration

	extra []kgo.Opt // of the client; for tests
}

// DefaultConfig is for one gateway on one machine.
func DefaultConfig() Config {
	return Config{
		Kafka:             kafka.DefaultConfig("uptake-ingest-gateway"),
		Addr:              "127.0.0.1:8080",
		Keys:              "keys.yaml",
		KeysPoll:          2 * time.Second,
		Limits:            ingest.DefaultLimits(),
		MaxConnections:    8192,
		MaxHeaderBytes:    16 << 10,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       75 * time.Second,
		MaxInflightBytes:  256 << 20,
		MaxInflightEvents: 200_000,

		MaxAddressShare:         0.25,
		MaxUnauthenticatedShare: 0.5,
		MinRequestRate:          1024,

		AckTimeout:      8 * time.Second,
		StallTimeout:    3 * time.Minute,
		Linger:          2 * time.Millisecond,
		Compression:     "snappy",
		ForwardedHeader: "X-Forwarded-For",
		StopTimeout:     25 * time.Second,
	}
}

// Names of settings that replies and metrics name, beside those of package
// ingest.
const (
	settingMaxInflightBytes        = "max-inflight-bytes"
	settingMaxInflightEvents       = "max-inflight-events"
	settingMaxConnections          = "max-connections"
	settingMaxHeaderBytes          = "max-header-bytes"
	settingReadTimeout             = "read-timeout"
	settingMinRequestRate          = "min-request-rate"
	settingMaxAddressShare         = "max-address-share"
	settingMaxUnauthenticatedShare = "max-unauthenticated-share"
	settingAckTimeout              = "ack-timeout"
	settingRate                    = "keys: rate"
	settingQuota                   = "keys: daily_quota"
)

// Flags binds the config to flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	c.Kafka.Flags(set)
	c.Registry.Flags(set)
	set.StringVar(&c.Addr, "addr", c.Addr, "`host:port` to take events on")
	set.StringVar(&c.Keys, "keys", c.Keys, "`file` of apps and their write keys; reloaded when it changes")
	set.DurationVar(&c.KeysPoll, "keys-poll", c.KeysPoll, "how often the key file is checked for changes; SIGHUP checks it at once")
	set.StringVar(&c.PrivacyFile, "privacy-file", c.PrivacyFile, "YAML `file` of privacy rules, applied before anything is written to the log (docs/privacy.md); reloaded when it changes; empty for none")
	set.StringVar(&c.GeoFile, "geo-file", c.GeoFile, "database `file` in MaxMind's format (MMDB), by which the country of an address is found before the address is truncated (docs/privacy.md); reloaded when it changes; empty for none")
	l := &c.Limits
	set.IntVar(&l.MaxCompressedBytes, ingest.SettingMaxCompressedBytes, l.MaxCompressedBytes, "`bytes` of a packed body (gzip, zstd, ...) before unpacking")
	set.IntVar(&l.MaxBodyBytes, ingest.SettingMaxBodyBytes, l.MaxBodyBytes, "`bytes` of a body, after unpacking")
	set.IntVar(&l.MaxImportBytes, ingest.SettingMaxImportBytes, l.MaxImportBytes, "`bytes` of a body on paths for imports (/import, /v1/import, /batch), before and after unpacking; not less than max-body-bytes")
	set.IntVar(&l.MaxBatchEvents, ingest.SettingMaxBatchEvents, l.MaxBatchEvents, "events of one request")
	set.IntVar(&l.MaxEventBytes, ingest.SettingMaxEventBytes, l.MaxEventBytes, "`bytes` of one event's JSON; a larger event is rejected, the others of its request are not")
	set.IntVar(&l.MaxIDBytes, ingest.SettingMaxIDBytes, l.MaxIDBytes, "`bytes` of an id")
	set.IntVar(&l.MaxNameBytes, ingest.SettingMaxNameBytes, l.MaxNameBytes, "`bytes` of an event's name")
	set.IntVar(&l.MaxDepth, ingest.SettingMaxDepth, l.MaxDepth, "nesting of one event's JSON")
	set.Int64Var(&l.MaxQuantity, ingest.SettingMaxQuantity, l.MaxQuantity, "largest quantity of one event")
	set.IntVar(&c.MaxConnections, settingMaxConnections, c.MaxConnections, "open connections; further ones are answered 503 and closed")
	set.IntVar(&c.MaxHeaderBytes, settingMaxHeaderBytes, c.MaxHeaderBytes, "`bytes` of a request's line and header; each connection holds a buffer of this size")
	set.DurationVar(&c.ReadTimeout, settingReadTimeout, c.ReadTimeout, "how long a client may take to send one request")
	set.DurationVar(&c.WriteTimeout, "write-timeout", c.WriteTimeout, "how long a client may take to receive the reply")
	set.DurationVar(&c.IdleTimeout, "idle-timeout", c.IdleTimeout, "how long a connection may be idle between requests")
	set.Int64Var(&c.MaxInflightBytes, settingMaxInflightBytes, c.MaxInflightBytes, "`bytes` of bodies and records in flight (not yet answered or acked); requests above it get 503")
	set.Int64Var(&c.MaxInflightEvents, settingMaxInflightEvents, c.MaxInflightEvents, "records in flight (not yet acked); requests above it get 503")
	set.Float64Var(&c.MaxAddressShare, settingMaxAddressShare, c.MaxAddressShare, "`share` of max-inflight-bytes and of max-connections that one client address (IPv6: one /64) may take; requests above it get 503; 1 for no bound. Connections of trusted proxies are not counted, but their clients' requests are")
	set.Float64Var(&c.MaxUnauthenticatedShare, settingMaxUnauthenticatedShare, c.MaxUnauthenticatedShare, "`share` of max-inflight-bytes for bodies of requests whose write key has not been read yet; requests above it get 503")
	set.IntVar(&c.MinRequestRate, settingMinRequestRate, c.MinRequestRate, "`bytes` per second at which a request must arrive once 5s have passed since its first byte; a slower one is answered 408; 0 for no bound")
	set.DurationVar(&c.StallTimeout, "stall-timeout", c.StallTimeout, "how long records may be in flight without any ack until the Kafka client is replaced")
	set.DurationVar(&c.AckTimeout, settingAckTimeout, c.AckTimeout, "how long a request waits for the brokers' ack before it is answered 503; keep it below the timeout of the clients, 10s in most SDKs")
	set.DurationVar(&c.Linger, "linger", c.Linger, "longest time that a partition's records wait for more records to share a batch (latency against cost); the wait ends early when all senders wait for their replies")
	set.StringVar(&c.Compression, "compression", c.Compression, "compression of produced records: none, snappy, lz4 or zstd")
	set.Var(&c.TrustedProxies, "trusted-proxies", "comma-separated `CIDRs` of proxies whose forwarded header is trusted; empty trusts none")
	set.StringVar(&c.ForwardedHeader, "forwarded-header", c.ForwardedHeader, "header `field` in which trusted proxies give the client's address")
	set.DurationVar(&c.StopTimeout, "stop-timeout", c.StopTimeout, "how long a stopping gateway waits for requests in progress")
}

// Validate reports all faults.
func (c *Config) Validate() error {
	errs := []error{c.Kafka.Validate(), c.Registry.Validate(), c.Limits.Validate()}
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		fault("addr must be host:port (got %q)", c.Addr)
	}
	if c.Keys == "" {
		fault("keys must name a file")
	}
	for _, d := range []struct {
		name        string
		got, lo, hi time.Duration
	}{
		{"keys-poll", c.KeysPoll, 100 * time.Millisecond, time.Hour},
		{settingReadTimeout, c.ReadTimeout, 100 * time.Millisecond, time.Hour},
		{"write-timeout", c.WriteTimeout, 100 * time.Millisecond, time.Hour},
		{"idle-timeout", c.IdleTimeout, time.Second, time.Hour},
		{settingAckTimeout, c.AckTimeout, time.Second, 5 * time.Minute},
		{"stall-timeout", c.StallTimeout, time.Second, 24 * time.Hour},
		{"linger", c.Linger, 0, time.Second},
		{"stop-timeout", c.StopTimeout, 0, time.Hour},
	} {
		if d.got < d.lo || d.got > d.hi {
			fault("%s must be %s to %s (got %s)", d.name, d.lo, d.hi, d.got)
		}
	}
	if c.MaxConnections < 1 || c.MaxConnections > 1<<20 {
		fault("%s must be 1 to %d (got %d)", settingMaxConnections, 1<<20, c.MaxConnections)
	}
	if c.MaxHeaderBytes < 4096 || c.MaxHeaderBytes > 1<<20 {
		fault("%s must be 4096 to %d (got %d)", settingMaxHeaderBytes, 1<<20, c.MaxHeaderBytes)
	}
	if least := 4 * int64(c.Limits.Bodies(true).Text); c.MaxInflightBytes < least {
		fault("%s must be at least 4 times %s and %s, %d (got %d)", settingMaxInflightBytes, ingest.SettingMaxBodyBytes, ingest.SettingMaxImportBytes, least, c.MaxInflightBytes)
	}
	if least := 2 * int64(c.Limits.MaxBatchEvents); c.MaxInflightEvents < least {
		fault("%s must be at least 2 times %s, %d (got %d)", settingMaxInflightEvents, ingest.SettingMaxBatchEvents, least, c.MaxInflightEvents)
	}
	for _, s := range []struct {
		name string
		got  float64
	}{{settingMaxAddressShare, c.MaxAddressShare}, {settingMaxUnauthenticatedShare, c.MaxUnauthenticatedShare}} {
		if !(s.got > 0 && s.got <= 1) {
			fault("%s must be above 0 and at most 1 (got %v)", s.name, s.got)
		}
	}
	if c.MinRequestRate < 0 || c.MinRequestRate > 1<<30 {
		fault("%s must be 0 to %d (got %d)", settingMinRequestRate, 1<<30, c.MinRequestRate)
	}
	if _, err := codecOf(c.Compression); err != nil {
		errs = append(errs, err)
	}
	if _, err := parseProxies(c.TrustedProxies); err != nil {
		errs = append(errs, err)
	}
	if len(c.TrustedProxies) > 0 && c.ForwardedHeader == "" {
		fault("forwarded-header must name a field with trusted-proxies (got %q)", c.ForwardedHeader)
	}
	return errors.Join(errs...)
}

// shareOfBytes is a share of MaxInflightBytes, but never less than a few requests of
// the largest size.
func (c *Config) shareOfBytes(share float64) int64 {
	return min(max(int64(share*float64(c.MaxInflightBytes)), 4*int64(c.Limits.Bodies(true).Text)), c.MaxInflightBytes)
}

// connectionsOfAddress is how many connections one client address may have.
func (c *Config) connectionsOfAddress() int64 {
	return max(int64(c.MaxAddressShare*float64(c.MaxConnections)), 1)
}

func codecOf(name string) (kgo.CompressionCodec, error) {
	switch name {
	case "none":
		return kgo.NoCompression(), nil
	case "snappy":
		return kgo.SnappyCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	}
	return kgo.CompressionCodec{}, fmt.Errorf("compression must be none, snappy, lz4 or zstd (got %q)", name)
}

func parseProxies(cidrs []string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, s := range cidrs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			addr, err := netip.ParseAddr(s)
			if err != nil {
				return nil, fmt.Errorf("trusted-proxies must be CIDRs or addresses (got %q)", s)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		list = append(list, p.Masked())
	}
	return list, nil
}
