package setting

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

type config struct {
	a, b, c, d string
	list       Strings
	secret     Secret
	n          int
}

func flags(c *config) *flag.FlagSet {
	set := flag.NewFlagSet("x", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&c.a, "name-a", "default", "")
	set.StringVar(&c.b, "name-b", "default", "")
	set.StringVar(&c.c, "name-c", "default", "")
	set.StringVar(&c.d, "name-d", "default", "")
	set.Var(&c.list, "list", "")
	set.Var(&c.secret, "secret", "")
	set.IntVar(&c.n, "n", 1, "")
	return set
}

func env(m map[string]string) func(string) (string, bool) {
	return func(k string) (string, bool) { v, ok := m[k]; return v, ok }
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOrder(t *testing.T) {
	file := write(t, "c.yaml", "name-a: file\nname-b: file\nname-c: file\nlist: [x, y]\nn: 7\n")
	var c config
	rest, err := Parse(flags(&c), []string{"-config", file, "-name-a", "flag", "left"}, env(map[string]string{
		"UPTAKE_NAME_A": "env", "UPTAKE_NAME_B": "env",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if want := (config{"flag", "env", "file", "default", Strings{"x", "y"}, "", 7}); !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
	if !reflect.DeepEqual(rest, []string{"left"}) {
		t.Errorf("left over: %v", rest)
	}
}

func TestSecretsAreReadFromFilesAndMasked(t *testing.T) {
	path := write(t, "pw", "hunter2\n")
	var c config
	set := flags(&c)
	if _, err := Parse(set, nil, env(map[string]string{"UPTAKE_SECRET": "file:" + path})); err != nil {
		t.Fatal(err)
	}
	if c.secret.Reveal() != "hunter2" {
		t.Errorf("secret is %q", c.secret.Reveal())
	}
	for _, a := range Effective(set) {
		if strings.Contains(a.(interface{ String() string }).String(), "hunter2") {
			t.Errorf("the secret shows in %v", a)
		}
	}
}

func TestFaultsNameTheSetting(t *testing.T) {
	file := write(t, "c.yaml", "n: many\nnope: 1\n")
	var c config
	_, err := Parse(flags(&c), []string{"-config", file}, env(map[string]string{"UPTAKE_SECRET": "file:/nonexistent"}))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`n="many"`, `unknown setting "nope"`, `UPTAKE_SECRET="***"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q:\n%v", want, err)
		}
	}
}
