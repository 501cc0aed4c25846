package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/svc/process"
)

func TestArguments(t *testing.T) {
	var keys []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		keys = append(keys, user)
		_, _ = io.WriteString(w, `{"success":true}`)
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(file, []byte(`{"type":"track","event":"a","userId":"u"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(name string) string { return map[string]string{keyEnv: "from-the-environment"}[name] }
	none := func(string) string { return "" }
	for _, tc := range []struct {
		args   string
		getenv func(string) string
		key    string // "" is a usage error
	}{
		{"-from segment FILE -gateway URL -key k1 -state FILE.1", none, "k1"},
		{"FILE -from segment -gateway URL -state FILE.2", env, "from-the-environment"},
		{"-from segment -gateway URL -key k3 -state FILE.3 FILE", env, "k3"},
		{"-from segment -gateway URL FILE", none, ""},
		{"-from elsewhere -gateway URL -key k FILE", none, ""},
		{"-from segment -gateway URL -key k FILE FILE", none, ""},
		{"-from segment -gateway URL -key k", none, ""},
		{"-nonsense", none, ""},
	} {
		keys = nil
		args := strings.Fields(strings.NewReplacer("FILE", file, "URL", server.URL).Replace(tc.args))
		err := run(args, tc.getenv, io.Discard)
		if tc.key == "" {
			if !errors.Is(err, process.ErrUsage) {
				t.Errorf("%s: got %v, want a usage error", tc.args, err)
			}
			continue
		}
		if err != nil || len(keys) != 1 || keys[0] != tc.key {
			t.Errorf("%s: got %v and keys %q, want %q", tc.args, err, keys, tc.key)
		}
	}
	var help strings.Builder
	if err := run([]string{"-help"}, env, &help); err == nil || strings.Contains(help.String(), "from-the-environment") {
		t.Errorf("help: got %v and\n%s", err, help.String())
	}
}
