package geo_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/geo"
	"github.com/uptakehq/uptake/ingest-gateway/geo/geotest"
)

var vienna = map[string]string{"198.51.100.0/25": "AT", "198.51.100.128/25": "DE", "2001:db8:1::/48": "CH"}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil { // nobody sees half of it
		t.Fatal(err)
	}
}

func country(f *geo.File, addr string) string {
	a, _ := netip.ParseAddr(addr)
	return f.Country(a)
}

func TestCountryOfAnAddress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.mmdb")
	for name, text := range map[string][]byte{
		"MaxMind": geotest.Database(1_700_000_000, vienna),
		"IPinfo": geotest.Records(1, map[string]any{
			"198.51.100.0/25": map[string]any{"country": "Austria", "country_code": "AT"}, "198.51.100.128/25": map[string]any{"country_code": "DE"},
			"2001:db8:1::/48": map[string]any{"country_code": "CH"},
		}),
		"earlier IPinfo": geotest.Records(1, map[string]any{
			"198.51.100.0/25": map[string]any{"country": "AT"}, "198.51.100.128/25": map[string]any{"country": "DE"}, "2001:db8:1::/48": map[string]any{"country": "CH"},
		}),
	} {
		write(t, path, text)
		f, err := geo.Open(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for addr, want := range map[string]string{
			"198.51.100.1": "AT", "198.51.100.200": "DE", "::ffff:198.51.100.1": "AT", "2001:db8:1::5": "CH", "2001:db8:1::5%eth0": "CH",
			"198.51.101.1": "", "2001:db8:2::": "", "": "",
		} {
			if got := country(f, addr); got != want {
				t.Errorf("%s: %q: got %q, want %q", name, addr, got, want)
			}
		}
	}
	none, err := geo.Open("")
	if err != nil || country(none, "198.51.100.1") != "" || !none.Built().IsZero() {
		t.Errorf("without a file: %v", err)
	}
}

// A file that is not a whole database with countries is refused.
func TestBrokenFilesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.mmdb")
	whole := geotest.Database(1, vienna)
	hole := append([]byte(nil), whole...)
	for i := range hole[:60] {
		hole[i] = 0xff
	}
	for want, text := range map[string][]byte{
		"not a whole database": whole[:len(whole)-40],
		"MaxMind's format":     []byte("hello"),
		"damaged":              hole,
		"has a country":        geotest.Records(1, map[string]any{"198.51.100.0/24": map[string]any{"city": "Linz"}}),
	} {
		write(t, path, text)
		if _, err := geo.Open(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "geo-file") {
			t.Errorf("got %v, want an error with geo-file and %q", err, want)
		}
	}
	if _, err := geo.Open(path + ".gone"); err == nil {
		t.Error("a file that does not exist was opened")
	}
}

// A changed file is read again; a broken one is refused, and the database before stays.
func TestFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.mmdb")
	write(t, path, geotest.Database(1, vienna))
	f, err := geo.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Follow(ctx, time.Millisecond, func(err error) { told <- err })
	}()
	write(t, path, []byte("half a file"))
	if err := <-told; err == nil || !strings.Contains(err.Error(), "stays in force") {
		t.Errorf("of a broken file got %v", err)
	}
	if got := country(f, "198.51.100.1"); got != "AT" {
		t.Errorf("after a broken file: got %q, want AT", got)
	}
	write(t, path, geotest.Database(86_400, map[string]string{"198.51.100.0/24": "IT"}))
	if err := <-told; err != nil {
		t.Error(err)
	}
	if got := country(f, "198.51.100.1"); got != "IT" || f.Built().Unix() != 86_400 {
		t.Errorf("got %q of %v, want IT of the second file", got, f.Built())
	}
	cancel()
	<-done
}

func FuzzCheck(f *testing.F) {
	f.Add(geotest.Database(1, vienna))
	path := filepath.Join(f.TempDir(), "c.mmdb")
	f.Fuzz(func(t *testing.T, text []byte) {
		write(t, path, text)
		if db, err := geo.Open(path); err == nil {
			country(db, "198.51.100.1")
		}
	})
}

func BenchmarkCountry(b *testing.B) {
	path := filepath.Join(b.TempDir(), "c.mmdb")
	if err := os.WriteFile(path, geotest.Database(1, vienna), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := geo.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	addr := netip.MustParseAddr("198.51.100.200")
	b.ReportAllocs()
	for b.Loop() {
		f.Country(addr)
	}
}
