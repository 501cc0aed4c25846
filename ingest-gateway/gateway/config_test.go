package gateway

import (
	"flag"
	"io"
	"strings"
	"testing"
)

func TestDefaultsAreValid(t *testing.T) {
	cfg := DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

// Validate reports every fault at once and names the setting as its flag is
// named.
func TestValidateNamesEverySetting(t *testing.T) {
	bad := map[string]string{
		"addr": "nowhere", "keys": "", "keys-poll": "1ms", "max-compressed-bytes": "0", "max-body-bytes": "-1", "max-import-bytes": "0", "max-batch-events": "0",
		"max-event-bytes": "1", "max-id-bytes": "1", "max-name-bytes": "0", "max-depth": "1", "max-quantity": "0", "max-connections": "0",
		"max-header-bytes": "1", "read-timeout": "0s", "write-timeout": "-1s", "idle-timeout": "0s", "max-inflight-bytes": "-5",
		"max-inflight-events": "-1", "ack-timeout": "1ms", "linger": "1h", "compression": "rar", "trusted-proxies": "10.0.0.0/8,here",
		"max-address-share": "0", "max-unauthenticated-share": "1.5", "min-request-rate": "-1", "forwarded-header": "", "stop-timeout": "-1s", "stall-timeout": "1ms", "kafka-brokers": ",", "schema-registry": "registry:8081",
	}
	cfg := DefaultConfig()
	set := flag.NewFlagSet("x", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	cfg.Flags(set)
	for name, value := range bad {
		if err := set.Set(name, value); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no fault was found")
	}
	set.VisitAll(func(f *flag.Flag) {
		if strings.HasPrefix(f.Name, "kafka-") || strings.HasPrefix(f.Name, "schema-registry-") {
			return // of packages with tests of their own
		}
		if f.Name == "privacy-file" || f.Name == "geo-file" {
			return // any name, or none; New reads it
		}
		if _, tested := bad[f.Name]; !tested {
			t.Errorf("the test gives %s no bad value", f.Name)
		}
		if !strings.Contains(err.Error(), f.Name+" must") {
			t.Errorf("the bad value of %s is not reported", f.Name)
		}
	})
}

func TestNewRefusesWhatItCannotUse(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"max-depth must be": func(c *Config) { c.Limits.MaxDepth = 0 },
		"no such file":      func(c *Config) { c.Keys += ".none" },
		"privacy rules":     func(c *Config) { c.PrivacyFile = c.Keys + ".none" },
		"geo-file":          func(c *Config) { c.GeoFile = c.Keys },
		"addr: ":            func(c *Config) { c.Addr = "192.0.2.1:1" },
		"tls-ca":            func(c *Config) { c.Kafka.TLS, c.Kafka.TLSCA = true, "none.pem" },
	} {
		cfg, deps := testConfig(t, []string{"127.0.0.1:1"}, "")
		change(&cfg)
		if g, err := New(cfg, deps); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v, want %q", g, err, want)
		}
	}
}
