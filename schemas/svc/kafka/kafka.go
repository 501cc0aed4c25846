// Package kafka turns a service's Kafka settings into client options.
//
// It owns how a cluster is reached, and what is the installation's there: brokers, TLS,
// SASL, the prefix of names, the client's log and metrics.
// What a client consumes or produces belongs to the service.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/twmb/franz-go/plugin/kprom"
	"github.com/twmb/franz-go/plugin/kslog"

	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Config says how to reach a cluster.
type Config struct {
	Brokers  setting.Strings
	ClientID string
	// Prefix begins the names of all topics, groups and transactional ids of the
	// installation; see topic.Names.
	Prefix        string
	TLS           bool
	TLSCA         string // PEM file; empty: the system's
	TLSCert       string // PEM file of the client's certificate
	TLSKey        string // PEM file of its key
	TLSServerName string
	SASLMechanism string // "", PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	SASLUser      string
	SASLPassword  setting.Secret
	// Dial connects to a broker instead of a plain dialer. It is not a setting: it is
	// for fault tests, which run a service in their own process. It cannot be combined
	// with TLS.
	Dial func(ctx context.Context, network, host string) (net.Conn, error)
}

// DefaultConfig is one broker on this machine, in the clear.
func DefaultConfig(clientID string) Config {
	return Config{Brokers: setting.Strings{"127.0.0.1:9092"}, ClientID: clientID}
}

// Flags binds the config to flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	set.Var(&c.Brokers, "kafka-brokers", "comma-separated `host:port` of brokers to start from")
	set.StringVar(&c.ClientID, "kafka-client-id", c.ClientID, "client `id` that brokers see in logs and quotas")
	set.StringVar(&c.Prefix, "kafka-prefix", c.Prefix, "`text` that begins the names of all topics, consumer groups and transactional ids, such as \"staging.\"; all services and commands of an installation have the same; empty for none")
	set.BoolVar(&c.TLS, "kafka-tls", c.TLS, "speak TLS to the brokers")
	set.StringVar(&c.TLSCA, "kafka-tls-ca", c.TLSCA, "PEM `file` of the authorities to trust, in place of the system's")
	set.StringVar(&c.TLSCert, "kafka-tls-cert", c.TLSCert, "PEM `file` of the client certificate")
	set.StringVar(&c.TLSKey, "kafka-tls-key", c.TLSKey, "PEM `file` of the client certificate's key")
	set.StringVar(&c.TLSServerName, "kafka-tls-server-name", c.TLSServerName, "`name` to verify in place of the broker's address")
	set.StringVar(&c.SASLMechanism, "kafka-sasl-mechanism", c.SASLMechanism, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty for none")
	set.StringVar(&c.SASLUser, "kafka-sasl-user", c.SASLUser, "SASL user `name`")
	set.Var(&c.SASLPassword, "kafka-sasl-password", "SASL `password`, or file:PATH")
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("kafka-brokers must name at least one broker"))
	}
	if err := topic.ValidatePrefix(c.Prefix); err != nil {
		errs = append(errs, err)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, fmt.Errorf("kafka-tls-cert and kafka-tls-key go together (got %q and %q)", c.TLSCert, c.TLSKey))
	}
	if !c.TLS && (c.TLSCA != "" || c.TLSCert != "" || c.TLSServerName != "") {
		errs = append(errs, errors.New("kafka-tls-ca, -cert, -key and -server-name need kafka-tls"))
	}
	if c.TLS && c.Dial != nil {
		errs = append(errs, errors.New("kafka-tls does not go with a dialer of one's own"))
	}
	switch c.SASLMechanism {
	case "":
		if c.SASLUser != "" || c.SASLPassword != "" {
			errs = append(errs, errors.New("kafka-sasl-user and kafka-sasl-password need kafka-sasl-mechanism"))
		}
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		if c.SASLUser == "" || c.SASLPassword == "" {
			errs = append(errs, errors.New("kafka-sasl-mechanism needs kafka-sasl-user and kafka-sasl-password"))
		}
	default:
		errs = append(errs, fmt.Errorf("kafka-sasl-mechanism must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 (got %q)", c.SASLMechanism))
	}
	return errors.Join(errs...)
}

// Names returns the names of the installation's topics and groups.
func (c *Config) Names() *topic.Names { return topic.NewNames(c.Prefix) }

// maxDecompressed bounds a compressed batch of records once it is unpacked: a
// gzip body can grow a thousandfold, a zstd body nine thousandfold.
const maxDecompressed = 64 << 20

// Options returns the client options. reg may be nil; a client's metrics are
// named uptake_kafka_* and carry the client id.
func (c *Config) Options(logger *slog.Logger, reg prometheus.Registerer) ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.WithLogger(kslog.New(logger.With("component", "kafka"))),
		kgo.DialTimeout(5 * time.Second),
		kgo.RequestTimeoutOverhead(10 * time.Second),
		kgo.MaxDecompressBatchBytes(maxDecompressed),
	}
	if reg != nil {
		opts = append(opts, kgo.WithHooks(kprom.NewMetrics("uptake_kafka", kprom.Registerer(reg), kprom.WithClientLabel())))
	}
	if c.TLS {
		tc, err := c.tlsConfig()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(tc))
	}
	if c.Dial != nil {
		opts = append(opts, kgo.Dialer(c.Dial))
	}
	if m := c.mechanism(); m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}

func (c *Config) mechanism() sasl.Mechanism {
	switch c.SASLMechanism {
	case "PLAIN":
		return plain.Auth{User: c.SASLUser, Pass: c.SASLPassword.Reveal()}.AsMechanism()
	case "SCRAM-SHA-256":
		return scram.Auth{User: c.SASLUser, Pass: c.SASLPassword.Reveal()}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		return scram.Auth{User: c.SASLUser, Pass: c.SASLPassword.Reveal()}.AsSha512Mechanism()
	}
	return nil
}

func (c *Config) tlsConfig() (*tls.Config, error) {
	tc := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
	if c.TLSCA != "" {
		var err error
		if tc.RootCAs, err = setting.CertPool("kafka-tls-ca", c.TLSCA); err != nil {
			return nil, err
		}
	}
	if c.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("kafka-tls-cert and kafka-tls-key: %w", err)
		}
		tc.Certificates = []tls.Certificate{pair}
	}
	return tc, nil
}
