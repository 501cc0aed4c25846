// Package body unpacks the bodies of requests.
//
// SDKs and the proxies before them say wrongly, or not at all, how a body is
// packed, so it is told by its first bytes; the header is a hint for raw deflate
// alone, which has no mark. The package owns the bounds on the way: gzip grows a thousandfold, zstd nine thousandfold.
//
// Unpack undoes compression and is done for every request. Unwrap undoes what
// some SDKs put around JSON text, form data and base64, and is done by the
// protocols that know such clients (ingest.Request.Text).
package body

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// ErrTooLarge is in the chain of errors about a body that grows past its bound.
var ErrTooLarge = errors.New("too large after unpacking")

// Encoding is how a body is packed.
type Encoding uint8

// Encodings.
const (
	Plain Encoding = iota
	Gzip
	Zstd
	Zlib
	Deflate // raw; by header only
)

// Detect tells how a body is packed by its first bytes, and by the
// Content-Encoding header where these say nothing.
func Detect(b []byte, contentEncoding string) Encoding {
	switch {
	case len(b) >= 3 && b[0] == 0x1f && b[1] == 0x8b && b[2] == 8:
		return Gzip
	case len(b) >= 4 && b[0] == 0x28 && b[1] == 0xb5 && b[2] == 0x2f && b[3] == 0xfd:
		return Zstd
	case len(b) >= 2 && b[0] == 0x78 && (int(b[0])<<8|int(b[1]))%31 == 0 && !printable(b[1]):
		return Zlib
	case len(b) >= 2 && b[0] == 0x78 && (int(b[0])<<8|int(b[1]))%31 == 0 && strings.EqualFold(contentEncoding, "deflate"):
		return Zlib
	case strings.EqualFold(contentEncoding, "deflate") && len(b) > 0 && !looksLikeText(b):
		return Deflate
	}
	return Plain
}

// printable keeps text that starts with "x^" from being taken for zlib.
func printable(c byte) bool { return c >= 0x20 && c < 0x7f }

// looksLikeText reports whether the body starts as JSON or form data does: a
// proxy may have unpacked it and left the header.
func looksLikeText(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && (b[0] == '{' || b[0] == '[' || bytes.HasPrefix(b, []byte("data=")))
}

type resetter interface {
	io.Reader
	reset(io.Reader) error
}

type gzipReader struct{ *gzip.Reader }

func (r gzipReader) reset(src io.Reader) error { return r.Reset(src) }

type zlibReader struct{ io.ReadCloser }

func (r zlibReader) reset(src io.Reader) error { return r.ReadCloser.(zlib.Resetter).Reset(src, nil) }

type flateReader struct{ io.ReadCloser }

func (r flateReader) reset(src io.Reader) error {
	return r.ReadCloser.(flate.Resetter).Reset(src, nil)
}

type zstdReader struct{ *zstd.Decoder }

func (r zstdReader) reset(src io.Reader) error { return r.Reset(src) }

// maxZstdWindow bounds what a zstd frame makes its reader hold beside the
// output.
const maxZstdWindow = 8 << 20

// TrimMark returns a body without a byte order mark of UTF-8 before it.
func TrimMark(b []byte) []byte { return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) }

// Unpacker unpacks bodies. It keeps readers for use again and is safe for
// concurrent use.
type Unpacker struct {
	pools [Deflate + 1]sync.Pool // of resetter
}

// Unpack appends the unpacked body to dst, at most limit bytes of it. Before dst
// grows it asks grow, which may be nil, for that many bytes, and ends with its
// error. dst is returned also with an error, as it grew.
func (u *Unpacker) Unpack(dst, packed []byte, e Encoding, limit int, grow func(bytes int) error) ([]byte, error) {
	src := bytes.NewReader(packed)
	r, err := u.reader(e, src)
	if err != nil {
		return dst, fmt.Errorf("unpack %s: %w", e, err)
	}
	start := len(dst)
	dst, err = readAll(dst, r, limit, grow)
	if err != nil {
		return dst, fmt.Errorf("unpack %s: %w", e, err)
	}
	_ = r.reset(bytes.NewReader(nil)) // drops the reference to packed; an empty source leaves no error
	u.pools[e].Put(r)
	if len(dst)-start > limit {
		return dst[:start], fmt.Errorf("unpack %s: %w: more than %d bytes", e, ErrTooLarge, limit)
	}
	return dst, nil
}

// readAll appends what r gives to dst, up to one byte past limit.
func readAll(dst []byte, r io.Reader, limit int, grow func(int) error) ([]byte, error) {
	end := len(dst) + limit + 1
	if grow != nil {
		if err := grow(cap(dst)); err != nil { // what a buffer has from before counts too
			return dst, err
		}
	}
	for len(dst) < end {
		if len(dst) == cap(dst) {
			more := max(cap(dst), 4096)
			if grow != nil {
				if err := grow(more); err != nil {
					return dst, err
				}
			}
			dst = append(make([]byte, 0, cap(dst)+more), dst...)
		}
		n, err := r.Read(dst[len(dst):min(cap(dst), end)])
		dst = dst[:len(dst)+n]
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func (u *Unpacker) reader(e Encoding, src io.Reader) (resetter, error) {
	if r, ok := u.pools[e].Get().(resetter); ok {
		return r, r.reset(src)
	}
	switch e {
	case Gzip:
		r, err := gzip.NewReader(src)
		return gzipReader{r}, err
	case Zlib:
		r, err := zlib.NewReader(src)
		return zlibReader{r}, err
	case Deflate:
		return flateReader{flate.NewReader(src)}, nil
	case Zstd:
		// One goroutine: Reset and pools need no Close then.
		r, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderLowmem(true))
		return zstdReader{r}, err
	}
	return nil, errors.New("not packed")
}

// String names the encoding for errors.
func (e Encoding) String() string {
	return [...]string{"plain", "gzip", "zstd", "zlib", "deflate"}[e]
}

// Unwrap returns the JSON text within b. Text that starts with a brace, a
// bracket or what JSON values start with is returned as it is. Form data gives
// its field data, percent-decoded; what then is no JSON is base64 (standard or
// URL alphabet, padded or not, with the spaces that form parsers make of "+"),
// and what that holds may be packed with gzip or zlib once more. limit bounds
// the result. A byte order mark before the JSON is left out at every layer.
func Unwrap(b []byte, limit int) ([]byte, error) {
	if b = TrimMark(b); isJSON(b) {
		return b, nil
	}
	b = bytes.TrimSpace(b)
	if data, ok := formData(b); ok {
		if data = TrimMark(data); isJSON(data) { // not escaped at all; its strings may hold "&"
			return data, nil
		}
		// Percent signs are undone and "+" is kept, which base64 needs.
		text, err := url.PathUnescape(string(data))
		if err != nil {
			return nil, fmt.Errorf("form data: %w", err)
		}
		if b = TrimMark([]byte(text)); isJSON(b) { // here "+" is a space: what was a "+" came as %2B
			if text, err = url.QueryUnescape(string(data)); err != nil {
				return nil, fmt.Errorf("form data: %w", err)
			}
			return TrimMark([]byte(text)), nil
		}
	}
	if len(b) == 0 {
		return nil, errors.New("empty body")
	}
	raw, err := decodeBase64(b)
	if err != nil {
		return nil, errors.New("neither JSON nor form data nor base64")
	}
	if e := Detect(raw, ""); e != Plain {
		var u Unpacker
		if raw, err = u.Unpack(nil, raw, e, limit, nil); err != nil {
			return nil, err
		}
	}
	if raw = TrimMark(raw); !isJSON(raw) {
		return nil, errors.New("base64 that holds no JSON")
	}
	return raw, nil
}

// isJSON tells JSON objects and arrays, which is all that SDKs send, from the
// wrappings, none of which starts so.
func isJSON(b []byte) bool {
	for _, c := range b {
		switch c {
		case ' ', '\t', '\r', '\n':
		case '{', '[':
			return true
		default:
			return false
		}
	}
	return false
}

// formData finds the field data of form data. Where it is JSON that nobody
// escaped it ends at the last bracket of the body.
func formData(b []byte) ([]byte, bool) {
	for rest := b; len(rest) > 0; {
		var pair []byte
		all := rest
		pair, rest, _ = bytes.Cut(rest, []byte("&"))
		if data, ok := bytes.CutPrefix(pair, []byte("data=")); ok {
			if isJSON(data) {
				data = all[len("data="):]
				return data[:bytes.LastIndexAny(data, "}]")+1], true
			}
			return data, true
		}
	}
	return nil, false
}

// Fields returns what form data has beside its field data, as form data. It reports
// false for anything else.
func Fields(b []byte) (fields string, is bool) {
	if isJSON(b) {
		return "", false
	}
	for start := 0; start < len(b); {
		pair, _, _ := bytes.Cut(b[start:], []byte("&"))
		data, ok := bytes.CutPrefix(pair, []byte("data="))
		if !ok {
			start += len(pair) + 1
			continue
		}
		end := start + len(pair)
		if isJSON(data) {
			end = bytes.LastIndexAny(b, "}]") + 1
		}
		return string(b[:start]) + strings.TrimPrefix(string(b[end:]), "&"), true
	}
	return "", false
}

func decodeBase64(b []byte) ([]byte, error) {
	clean := make([]byte, 0, len(b))
	for _, c := range b {
		switch c {
		case ' ', '-':
			c = '+'
		case '_':
			c = '/'
		case '\r', '\n', '=':
			continue
		}
		clean = append(clean, c)
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(clean)))
	n, err := base64.RawStdEncoding.Decode(out, clean)
	return out[:n], err
}
