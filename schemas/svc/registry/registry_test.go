package registry

import (
	"context"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

func TestCodec(t *testing.T) {
	fake := srfake.New(srfake.WithAuth("Basic dXNlcjpyaWdodA=="))
	defer fake.Close()
	for _, tc := range []struct {
		name      string
		cfg       Config
		firstByte byte
		wantErr   string
	}{
		{"none", Config{}, 0xC3, ""},
		{"registry", Config{setting.Strings{fake.URL()}, "user", "right"}, 0x00, ""},
		{"wrong password", Config{setting.Strings{fake.URL()}, "user", "wrong"}, 0, "schema-registry " + fake.URL()},
	} {
		if err := tc.cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		codec, err := tc.cfg.Codec(context.Background())
		if tc.wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), tc.wantErr) || strings.Contains(err.Error(), "wrong") {
				t.Errorf("%s: got %v, want %q", tc.name, err, tc.wantErr)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if got := codec.AppendControl(nil, &event.Control{})[0]; got != tc.firstByte {
			t.Errorf("%s: first byte %#x, want %#x", tc.name, got, tc.firstByte)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{URLs: setting.Strings{"registry:8081"}}, `got "registry:8081"`},
		{Config{User: "u"}, "need schema-registry"},
	} {
		if err := tc.cfg.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: got %v, want %q", tc.cfg, err, tc.want)
		}
	}
}
