// Package setting reads a service's settings.
//
// A setting is a flag of a flag.FlagSet, and the flag set is the one list of them: each is
// given on the command line (-kafka-brokers), in the environment (UPTAKE_KAFKA_BROKERS) or in a
// YAML file (kafka-brokers: ...), and the first of these that names it wins. The package owns
// that order, the masking of secrets, and the listing of the settings in force. Validate of the
// config that the flags belong to checks the values.
package setting

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// EnvPrefix starts the name of every setting's environment variable.
const EnvPrefix = "UPTAKE_"

// Secret is a string that no log shows. Its flag takes the value itself, or
// file:PATH to read it from a file without its trailing newline.
type Secret string

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// LogValue hides the value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Reveal returns the value.
func (s Secret) Reveal() string { return string(s) }

// Set implements flag.Value.
func (s *Secret) Set(v string) error {
	if path, ok := strings.CutPrefix(v, "file:"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		v = string(bytes.TrimRight(b, "\r\n"))
	}
	*s = Secret(v)
	return nil
}

// Strings is a comma-separated list.
type Strings []string

// String implements flag.Value.
func (s Strings) String() string { return strings.Join(s, ",") }

// Set implements flag.Value.
func (s *Strings) Set(v string) error {
	*s = nil
	for _, part := range strings.Split(v, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*s = append(*s, part)
		}
	}
	return nil
}

// Env returns the environment variable of a flag.
func Env(name string) string {
	return EnvPrefix + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(name))
}

// configFlag is the setting that names the YAML file.
const configFlag = "config"

// Parse fills the flags of set: from args, else from the environment, else from
// the file that -config names, else their defaults. It adds -config. getenv is
// os.LookupEnv in programs. It returns the arguments left over. flag.ErrHelp
// means that help was asked for and shown.
func Parse(set *flag.FlagSet, args []string, getenv func(string) (string, bool)) ([]string, error) {
	file := set.String(configFlag, "", "YAML `file` with a line \"name: value\" for each setting; flags and the environment take precedence")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	given := map[string]bool{}
	set.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var errs []error
	set.VisitAll(func(f *flag.Flag) {
		if given[f.Name] {
			return
		}
		if v, ok := getenv(Env(f.Name)); ok {
			given[f.Name] = true
			if err := set.Set(f.Name, v); err != nil {
				errs = append(errs, fmt.Errorf("%s=%q: %w", Env(f.Name), shown(f, v), err))
			}
		}
	})
	if *file != "" {
		errs = append(errs, fromFile(set, *file, given)...)
	}
	return set.Args(), errors.Join(errs...)
}

func fromFile(set *flag.FlagSet, path string, given map[string]bool) []error {
	text, err := os.ReadFile(path)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return []error{fmt.Errorf("-config %s: %w", path, err)}
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(text, &values); err != nil {
		return []error{fmt.Errorf("-config %s: %w", path, err)}
	}
	var errs []error
	for _, name := range sortedKeys(values) {
		f := set.Lookup(name)
		switch {
		case f == nil || name == configFlag:
			errs = append(errs, fmt.Errorf("-config %s: unknown setting %q", path, name))
		case given[name]:
		default:
			v := fmt.Sprint(values[name])
			if list, ok := values[name].([]any); ok {
				parts := make([]string, len(list))
				for i, p := range list {
					parts[i] = fmt.Sprint(p)
				}
				v = strings.Join(parts, ",")
			}
			if err := set.Set(name, v); err != nil {
				errs = append(errs, fmt.Errorf("-config %s: %s=%q: %w", path, name, shown(f, v), err))
			}
		}
	}
	return errs
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func shown(f *flag.Flag, v string) string {
	if _, ok := f.Value.(*Secret); ok {
		return "***"
	}
	return v
}

// Effective returns every setting in force as attributes of one log record,
// secrets masked.
func Effective(set *flag.FlagSet) []any {
	var attrs []any
	set.VisitAll(func(f *flag.Flag) {
		attrs = append(attrs, slog.String(f.Name, f.Value.String()))
	})
	return attrs
}
