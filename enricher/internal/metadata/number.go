package metadata

import (
	"bytes"
	"math"
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

// maxExponent is beyond what any value with a meaning has; larger ones are
// taken for it.
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

// appendInteger appends a JSON number as an integer: 12, 12.0 and 1.2e1 are 12.
// It is false for one that is none, or does not fit 64 bits.
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
	var buf [64]byte
	if len(raw) > len(buf) {
		return dst, false // more digits than a column holds; it need not be told apart
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

// appendFloat appends a JSON number in a form that reads as a double, with a
// fraction or an exponent. It is false when a double does not hold it.
func appendFloat(dst, raw []byte) ([]byte, bool) {
	if !IsFloat(raw) {
		return dst, false
	}
	dst = append(dst, raw...)
	if !bytes.ContainsAny(raw, ".eE") {
		dst = append(dst, '.', '0')
	}
	return dst, true
}

// IsFloat says that a double holds a number: that it reads back from its
// shortest form as the same number.
func IsFloat(raw []byte) bool {
	var buf [64]byte
	if len(raw) > len(buf) {
		return false // as in appendInteger
	}
	d := decompose(buf[:0], raw)
	if len(d.digits) == 0 {
		return true
	}
	// Any 15 digits survive in the range of normal doubles.
	if top := len(d.digits) + d.exp; len(d.digits) <= 15 && top > -290 && top < 290 {
		return true
	}
	v, err := strconv.ParseFloat(view(raw), 64)
	if err != nil || v == 0 || math.IsInf(v, 0) {
		return false
	}
	var shortest, digits [64]byte
	back := decompose(digits[:0], strconv.AppendFloat(shortest[:0], v, 'e', -1, 64))
	return back.exp == d.exp && bytes.Equal(back.digits, d.digits)
}

// inRange says that a reader takes a number, with or without loss.
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

// view returns b as a string that lives as long as b stays unchanged.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
