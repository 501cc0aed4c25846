package metadata

import (
	"bytes"
	"strconv"
	"unsafe"

	"github.com/uptakehq/uptake/schemas/rawjson"
)

// decimal is a number as digits, without zeros at either end, times a power of
// ten. Zero has no digits.
type decimal struct {
	neg    bool
	digits []byte // valid while the buffer is
	exp    int
}

// maxExponent is above that of any meaningful value; larger exponents are clamped to
// it.
const maxExponent = 1 << 20

// decompose reads a JSON number into buf.
func decompose(buf, raw []byte) decimal {
	d := decimal{digits: buf[:0]}
	i := 0
	if raw[i] == '-' {
		d.neg = true
		i++
	}
	fraction := false
	for ; i < len(raw); i++ {
		c := raw[i]
		switch c {
		case '.':
			fraction = true
			continue
		case 'e', 'E':
			e, err := strconv.Atoi(string(raw[i+1:]))
			if err != nil || e > maxExponent || e < -maxExponent {
				e = maxExponent
				if raw[i+1] == '-' {
					e = -maxExponent
				}
			}
			d.exp += e
			i = len(raw)
			continue
		}
		if fraction {
			d.exp--
		}
		if c != '0' || len(d.digits) > 0 {
			d.digits = append(d.digits, c)
		}
	}
	for len(d.digits) > 0 && d.digits[len(d.digits)-1] == '0' {
		d.digits = d.digits[:len(d.digits)-1]
		d.exp++
	}
	if len(d.digits) == 0 {
		d.exp = 0
	}
	return d
}

// appendInteger appends a JSON number as an integer: 12, 12.0 and 1.2e1 are 12. For a
// number with a fraction or an exponent the digits are those of its double's shortest
// form. It returns false for a number that is not an integer, or does not fit 64 bits.
func appendInteger(dst, raw []byte) ([]byte, bool) {
	if _, integer := rawjson.EndNumber(raw, 0); integer {
		if len(raw) > 18 {
			if _, err := strconv.ParseInt(view(raw), 10, 64); err != nil {
				return dst, false
			}
		}
		if string(raw) == "-0" {
			raw = raw[1:]
		}
		return append(dst, raw...), true
	}
	var text, buf [64]byte
	if len(raw) > shortBytes {
		v, ok := Double(raw)
		if !ok {
			return dst, false
		}
		raw = strconv.AppendFloat(text[:0], v, 'e', -1, 64)
	}
	d := decompose(buf[:0], raw)
	if len(d.digits) == 0 {
		return append(dst, '0'), true
	}
	if d.exp < 0 || len(d.digits)+d.exp > 19 {
		return dst, false
	}
	start := len(dst)
	if d.neg {
		dst = append(dst, '-')
	}
	dst = append(dst, d.digits...)
	for range d.exp {
		dst = append(dst, '0')
	}
	if _, err := strconv.ParseInt(view(dst[start:]), 10, 64); err != nil {
		return dst[:start], false
	}
	return dst, true
}

// shortBytes is the length up to which a number with a fraction or an exponent is
// appended as it was sent: it has at most 15 digits, which every parser reads as the
// same double. Longer ones are appended in the double's shortest form.
const shortBytes = 16

// appendFloat appends a JSON number in a form that reads as a double, with a fraction
// or an exponent. It returns false for a number that Double does not accept.
func appendFloat(dst, raw []byte) ([]byte, bool) {
	v, ok := Double(raw)
	if !ok {
		return dst, false
	}
	start := len(dst)
	if _, integer := rawjson.EndNumber(raw, 0); integer || len(raw) <= shortBytes {
		dst = append(dst, raw...)
	} else {
		dst = strconv.AppendFloat(dst, v, 'g', -1, 64)
	}
	if !bytes.ContainsAny(dst[start:], ".eE") {
		dst = append(dst, '.', '0')
	}
	return dst, true
}

// Double returns the double for a JSON number. One with a fraction or an exponent is
// the nearest double, as for every JSON parser (RFC 8259, section 6): serializers write
// 4.95 as 4.9500000000000002. It returns false for what a double cannot represent:
// integers that would change, and numbers that would become infinite or zero.
func Double(raw []byte) (float64, bool) {
	v, err := strconv.ParseFloat(view(raw), 64)
	if err != nil {
		return 0, false
	}
	if _, integer := rawjson.EndNumber(raw, 0); integer {
		return v, len(raw) <= 15 || exact(raw, v)
	}
	return v, v != 0 || isZero(raw)
}

// exact reports whether an integer equals the double v; apart from zeros its digits
// must be those of v's shortest form.
func exact(raw []byte, v float64) bool {
	var buf, shortest, digits [64]byte
	if len(raw) > len(buf) {
		return false // more digits than any column can hold
	}
	d := decompose(buf[:0], raw)
	back := decompose(digits[:0], strconv.AppendFloat(shortest[:0], v, 'e', -1, 64))
	return back.exp == d.exp && bytes.Equal(back.digits, d.digits)
}

// isZero reports whether all digits of a JSON number before its exponent are zeros.
func isZero(raw []byte) bool {
	for _, c := range raw {
		if c == 'e' || c == 'E' {
			break
		}
		if c >= '1' && c <= '9' {
			return false
		}
	}
	return true
}

// inRange reports whether a parser accepts a number, with or without loss.
func inRange(raw []byte) bool {
	if _, integer := rawjson.EndNumber(raw, 0); integer {
		if len(raw) <= 18 {
			return true
		}
		if raw[0] == '-' {
			_, err := strconv.ParseInt(view(raw), 10, 64)
			return err == nil
		}
		_, err := strconv.ParseUint(view(raw), 10, 64)
		return err == nil
	}
	_, err := strconv.ParseFloat(view(raw), 64)
	return err == nil
}

// view returns b as a string, valid while b is unchanged.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
