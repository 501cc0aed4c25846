package process

import (
	"bytes"
	"errors"
	"flag"
	"strings"
	"testing"
)

func TestFlags(t *testing.T) {
	bad := errors.New("n must be even")
	for _, tc := range []struct {
		args []string
		env  string // UPTAKE_LOG_LEVEL
		want string // in the error; empty: none
	}{
		{nil, "", ""},
		{[]string{"-n", "2", "-log-format", "json"}, "debug", ""},
		{[]string{"-n", "1", "-log-level", "loud"}, "", "usage: log-level must be debug, info, warn or error (got \"loud\")\nn must be even"},
		{nil, "loud", "log-level must be"},
		{[]string{"left"}, "", `usage: unexpected argument "left"`},
		{[]string{"-x"}, "", "usage: flag provided but not defined"},
		{[]string{"-help"}, "", flag.ErrHelp.Error()},
	} {
		var out bytes.Buffer
		f := NewFlags("svc run", "info", &out)
		n := f.Int("n", 0, "an even `number`")
		logger, err := f.Parse(tc.args, func(name string) (string, bool) { return tc.env, tc.env != "" && name == "UPTAKE_LOG_LEVEL" }, func() error {
			if *n%2 != 0 {
				return bad
			}
			return nil
		})
		if tc.want == "" {
			if err != nil || logger == nil {
				t.Errorf("%v: got %v", tc.args, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) || errors.Is(err, ErrUsage) == errors.Is(err, flag.ErrHelp) {
			t.Errorf("%v: got %v, want %q", tc.args, err, tc.want)
		}
	}
}
