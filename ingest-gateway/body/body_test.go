package body

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

func pack(t testing.TB, e Encoding, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch e {
	case Gzip:
		w = gzip.NewWriter(&b)
	case Zlib:
		w = zlib.NewWriter(&b)
	case Deflate:
		w, err = flate.NewWriter(&b, flate.DefaultCompression)
	case Zstd:
		w, err = zstd.NewWriter(&b)
	default:
		return []byte(text)
	}
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const text = `{"event":"Item Scanned","userId":"u1"}`

// The bytes decide; the header is asked only where they say nothing, and a wrong
// one does no harm.
func TestDetectAndUnpack(t *testing.T) {
	var u Unpacker
	for _, header := range []string{"", "gzip", "identity", "deflate", "zstd", "nonsense"} {
		for _, e := range []Encoding{Plain, Gzip, Zstd, Zlib, Deflate} {
			if e == Deflate && header != "deflate" {
				continue // nothing says so
			}
			packed := pack(t, e, text)
			if got := Detect(packed, header); got != e {
				t.Errorf("%s with header %q: got %s", e, header, got)
				continue
			}
			if e == Plain {
				continue
			}
			for range 3 { // readers are used again
				out, err := u.Unpack([]byte("before:"), packed, e, len(text), nil)
				if err != nil || string(out) != "before:"+text {
					t.Errorf("%s: got %q, %v", e, out, err)
				}
			}
			if _, err := u.Unpack(nil, packed[:len(packed)-3], e, 1000, nil); err == nil {
				t.Errorf("%s: a cut body is no error", e)
			}
			if _, err := u.Unpack(nil, packed, e, len(text)-1, nil); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: got %v, want %v", e, err, ErrTooLarge)
			}
			refuse := errors.New("no memory")
			if _, err := u.Unpack(nil, packed, e, 1000, func(int) error { return refuse }); !errors.Is(err, refuse) {
				t.Errorf("%s: got %v, want %v", e, err, refuse)
			}
		}
	}
	for _, plain := range []string{"x^2", "x\x9c"[:1], "data=x", "", "\x1f", "\x1f\x8b"} {
		if got := Detect([]byte(plain), ""); got != Plain {
			t.Errorf("%q: got %s", plain, got)
		}
	}
}

// What a small body unpacks to is bounded, in output and in what it makes the
// reader hold.
func TestBombs(t *testing.T) {
	var u Unpacker
	big := strings.Repeat("0", 16<<20)
	for _, e := range []Encoding{Gzip, Zstd, Zlib, Deflate} {
		grown := 0
		out, err := u.Unpack(nil, pack(t, e, big), e, 1<<20, func(n int) error { grown += n; return nil })
		if !errors.Is(err, ErrTooLarge) || cap(out) > 4<<20 || grown > 4<<20 {
			t.Errorf("%s: got %v, %d bytes held, %d asked for", e, err, cap(out), grown)
		}
	}
	// A zstd frame may ask for a window of its own choice.
	header := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8 /* 2 GiB */, 0x01, 0x00, 0x00}
	if out, err := u.Unpack(nil, header, Zstd, 1<<20, nil); err == nil {
		t.Errorf("a window of 2 GiB gives %q", out)
	}
}

func TestUnwrap(t *testing.T) {
	plus := `{"event":"1+1 = 2","n":"a b"}`
	// Base64 with "+" and "/" in it.
	odd := `{"e":"` + "\u07fb\u07fe>>>???~~~" + `"}`
	std, urlsafe := base64.StdEncoding.EncodeToString([]byte(odd)), base64.RawURLEncoding.EncodeToString([]byte(odd))
	if !strings.ContainsAny(std, "+/") {
		t.Fatalf("the sample %s tests nothing", std)
	}
	for _, tc := range []struct{ name, in, want string }{
		{"object", text, text},
		{"array, white space", " \n[1]", " \n[1]"},
		{"base64", std, odd},
		{"base64 for URLs", urlsafe, odd},
		{"base64 that a form parser touched", strings.ReplaceAll(std, "+", " "), odd},
		{"base64 over lines", std[:8] + "\r\n" + std[8:] + "\n", odd},
		{"form of base64, not escaped", "data=" + std + "&verbose=1", odd},
		{"form of base64, escaped", "ip=1&data=" + url.QueryEscape(std), odd},
		{"form of JSON, not escaped", `data={"a":"x&y=%41"}&verbose=1`, `{"a":"x&y=%41"}`},
		{"form of JSON, by a form encoder", "data=" + url.QueryEscape(plus), plus},
		{"form of JSON, by encodeURIComponent", "data=" + strings.ReplaceAll(url.QueryEscape(plus), "+", "%20"), plus},
		{"a mark before JSON", "\xef\xbb\xbf" + text, text},
		{"a mark within base64", "data=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("\xef\xbb\xbf"+text))), text},
		{"a mark within a form", "data=" + url.QueryEscape("\xef\xbb\xbf"+plus), plus},
		{"a mark within gzip within base64", base64.StdEncoding.EncodeToString(pack(t, Gzip, "\xef\xbb\xbf"+text)), text},
		{"form of base64 of gzip", "data=" + url.QueryEscape(base64.StdEncoding.EncodeToString(pack(t, Gzip, text))), text},
	} {
		got, err := Unwrap([]byte(tc.in), 1000)
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: got %q, %v, want %q", tc.name, got, err, tc.want)
		}
	}
	bomb := base64.StdEncoding.EncodeToString(pack(t, Gzip, "{"+strings.Repeat(" ", 1<<20)+"}"))
	for _, tc := range []struct {
		name, in string
		is       error
	}{
		{"empty", "  ", nil},
		{"words", "hello world!", nil},
		{"base64 of no JSON", base64.StdEncoding.EncodeToString([]byte("hello")), nil},
		{"form without data", "api_key=1&e=2", nil},
		{"bad escape", "data=%7", nil},
		{"bomb in base64", bomb, ErrTooLarge},
	} {
		got, err := Unwrap([]byte(tc.in), 1000)
		if err == nil || (tc.is != nil && !errors.Is(err, tc.is)) {
			t.Errorf("%s: got %q, %v, want an error", tc.name, got, err)
		}
	}
}

// Whatever comes, the bound holds and nothing panics.
func FuzzBody(f *testing.F) {
	for _, e := range []Encoding{Plain, Gzip, Zstd, Zlib, Deflate} {
		f.Add(pack(f, e, text), "deflate")
	}
	f.Add([]byte("data="+base64.StdEncoding.EncodeToString(pack(f, Gzip, text))), "")
	f.Fuzz(func(t *testing.T, in []byte, header string) {
		const limit = 1 << 16
		e := Detect(in, header)
		if e != Plain {
			var u Unpacker
			asked := 0
			out, err := u.Unpack(nil, in, e, limit, func(n int) error { asked += n; return nil })
			if len(out) > limit+1 || (err == nil && len(out) > limit) || cap(out) > asked {
				t.Fatalf("%d bytes, %d held, %d asked for", len(out), cap(out), asked)
			}
			in = out
		}
		if out, err := Unwrap(in, limit); err == nil && !isJSON(out) {
			t.Fatalf("%q", out)
		}
	})
}
