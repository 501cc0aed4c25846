// Package registry builds the record codec that a service's settings ask for:
// self-describing records, or, with a schema registry, the Confluent wire
// format.
package registry

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// Config says which registry to use, if any.
type Config struct {
	URLs     setting.Strings // empty: none
	User     string
	Password setting.Secret
}

// Flags binds the config to flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	set.Var(&c.URLs, "schema-registry", "comma-separated `URLs` of a schema registry; empty writes records that carry their schema's fingerprint")
	set.StringVar(&c.User, "schema-registry-user", c.User, "`name` for the registry's basic authentication")
	set.Var(&c.Password, "schema-registry-password", "`password` for it, or file:PATH")
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	for _, u := range c.URLs {
		if p, err := url.Parse(u); err != nil || p.Host == "" || (p.Scheme != "http" && p.Scheme != "https") {
			errs = append(errs, fmt.Errorf("schema-registry must be http or https URLs (got %q)", u))
		}
	}
	if len(c.URLs) == 0 && (c.User != "" || c.Password != "") {
		errs = append(errs, errors.New("schema-registry-user and -password need schema-registry"))
	}
	return errors.Join(errs...)
}

// Codec returns the codec. With a registry it registers the current schemas,
// and fails when that does.
func (c *Config) Codec(ctx context.Context) (*event.Codec, error) {
	if len(c.URLs) == 0 {
		return event.NewCodec(), nil
	}
	opts := []sr.ClientOpt{sr.URLs(c.URLs...)}
	if c.User != "" {
		opts = append(opts, sr.BasicAuth(c.User, c.Password.Reveal()))
	}
	cl, err := sr.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("schema-registry: %w", err)
	}
	codec, err := event.NewRegistryCodec(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("schema-registry %s: %w", c.URLs, err)
	}
	return codec, nil
}
