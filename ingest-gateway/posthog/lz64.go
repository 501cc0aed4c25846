package posthog

import (
	"errors"
	"net/url"
	"strings"
	"unicode/utf16"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// packed reports whether the body is packed with LZString: compression=lz64 in the
// query or in the form, in any case.
func packed(r *ingest.Request) bool {
	compression, _ := r.Option("compression")
	return strings.EqualFold(compression, "lz64")
}

// requestText is the request's text, also of the oldest SDKs, which pack it.
func requestText(r *ingest.Request, limit int) ([]byte, error) {
	if !packed(r) {
		return r.Text()
	}
	data := r.FormValue("data")
	if data == "" {
		data = r.QueryValue("data")
	}
	if data == "" {
		data = ingest.String(r.Body)
		if p, err := url.PathUnescape(data); err == nil {
			data = p
		}
	}
	text, err := unpackLZ(data, limit)
	if err != nil {
		return nil, err
	}
	return text, nil
}

const lzAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// lzBits reads numbers of base64 text, six bits a letter, most significant bit of
// a letter first, least significant bit of a number first.
type lzBits struct {
	in   string
	at   int
	left uint
	word byte
	err  error
}

func (r *lzBits) read(n uint) uint32 {
	var v uint32
	for i := range n {
		if r.left == 0 {
			if r.at >= len(r.in) {
				r.err = errors.New("ends too early")
				return 0
			}
			c := r.in[r.at]
			r.at++
			if c == ' ' {
				c = '+' // what a form parser makes of it
			}
			k := strings.IndexByte(lzAlphabet, c)
			if c == '=' {
				k = 0
			}
			if k < 0 {
				r.err = errors.New("not base64")
				return 0
			}
			r.word, r.left = byte(k), 6
		}
		r.left--
		v |= uint32(r.word>>r.left&1) << i
	}
	return v
}

// span is a stretch of the output: every entry of the dictionary has stood there.
type span struct{ start, n int }

// unpackLZ reads LZString's compressToBase64: LZ78 over UTF-16 code units, whose
// codes 0 and 1 announce a new unit of 8 or 16 bits and 2 is the end. Codes grow
// by a bit whenever the dictionary could need one. The error is a fault.
func unpackLZ(in string, limit int) ([]byte, error) {
	const first = 3 // code of the first entry of the dictionary
	bad := func(what string) error { return ingest.Unreadable("lz64: %s", what) }
	r := &lzBits{in: strings.TrimSpace(in)}
	var dictionary []span
	var out []uint16
	last := span{}
	bits, room := uint(2), 0
	grow := func() {
		if room--; room == 0 {
			room, bits = 1<<bits, bits+1
		}
	}
	for {
		code := r.read(bits)
		entry := span{start: len(out), n: 1}
		switch {
		case r.err != nil:
		case code == 2:
			text := string(utf16.Decode(out))
			if len(text) > limit {
				return nil, tooLarge(limit)
			}
			return []byte(text), nil
		case code < 2:
			out = append(out, uint16(r.read(8+8*uint(code))))
			dictionary = append(dictionary, entry)
		case int(code)-first < len(dictionary):
			known := dictionary[code-first]
			entry.n = known.n
			out = append(out, out[known.start:known.start+known.n]...)
		case int(code)-first == len(dictionary) && last.n > 0:
			entry.n = last.n + 1
			out = append(out, out[last.start:last.start+last.n]...)
			out = append(out, out[last.start])
		default:
			return nil, bad("unknown code")
		}
		switch {
		case r.err != nil:
			return nil, bad(r.err.Error())
		case len(out) > limit:
			return nil, tooLarge(limit)
		case last.n == 0: // the first code
			bits, room = 3, 4
		default:
			if code < 2 {
				grow()
			}
			dictionary = append(dictionary, span{last.start, last.n + 1})
			grow()
		}
		last = entry
	}
}

func tooLarge(limit int) error {
	return ingest.Exceeds(ingest.SettingMaxBodyBytes, "body too large after unpacking", limit)
}
