// Package geotest makes small databases in MaxMind's format, for tests.
package geotest

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
)

// Database returns a database of countries by network, such as "198.51.100.0/24" to
// "AT". Networks must not overlap.
func Database(built int64, countries map[string]string) []byte {
	records := map[string]any{}
	for network, code := range countries {
		records[network] = map[string]any{"country": map[string]any{"iso_code": code}}
	}
	return Records(built, records)
}

// Records returns a database of any records: strings and maps of them.
func Records(built int64, records map[string]any) []byte {
	type node [2]int // 0: nothing; positive: a node; negative: -1 - offset of data
	tree := []node{{}}
	var data []byte
	for _, network := range slices.Sorted(maps.Keys(records)) {
		p := netip.MustParsePrefix(network)
		bits, addr := p.Bits(), p.Addr().As16()
		if p.Addr().Is4() { // they stand at ::/96
			four := p.Addr().As4()
			addr = [16]byte{}
			copy(addr[12:], four[:])
			bits += 96
		}
		offset := len(data)
		data = appendValue(data, records[network])
		at := 0
		for i := range bits {
			side := addr[i/8] >> (7 - i%8) & 1
			if i == bits-1 {
				tree[at][side] = -1 - offset
				break
			}
			if tree[at][side] == 0 {
				tree = append(tree, node{})
				tree[at][side] = len(tree) - 1
			}
			at = tree[at][side]
		}
	}
	var out []byte
	for _, n := range tree {
		for _, to := range n {
			record := len(tree) // nothing
			switch {
			case to > 0:
				record = to
			case to < 0:
				record = len(tree) + separator + (-1 - to)
			}
			out = append(out, byte(record>>16), byte(record>>8), byte(record))
		}
	}
	out = append(append(out, make([]byte, separator)...), data...)
	out = append(out, "\xab\xcd\xefMaxMind.com"...)
	return appendValue(out, map[string]any{
		"node_count": uint32(len(tree)), "record_size": uint16(24), "ip_version": uint16(6), "database_type": "Test-Country", "languages": []string{"en"},
		"binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0), "build_epoch": uint64(built), "description": map[string]any{"en": "test"},
	})
}

// separator is the number of zero bytes between tree and data.
const separator = 16

// Types of the format; those above 7 have a byte of their own.
const (
	typeString = 2
	typeUint16 = 5
	typeUint32 = 6
	typeMap    = 7
	typeUint64 = 9
	typeArray  = 11
)

func appendControl(b []byte, typ, size int) []byte {
	if size > 284 {
		panic("geotest: values of so many bytes are not needed")
	}
	short := min(size, 29)
	if typ > typeMap {
		b = append(b, byte(short), byte(typ-typeMap))
	} else {
		b = append(b, byte(typ<<5|short))
	}
	if size >= 29 {
		b = append(b, byte(size-29))
	}
	return b
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return append(appendControl(b, typeString, len(v)), v...)
	case uint16:
		return binary.BigEndian.AppendUint16(appendControl(b, typeUint16, 2), v)
	case uint32:
		return binary.BigEndian.AppendUint32(appendControl(b, typeUint32, 4), v)
	case uint64:
		return binary.BigEndian.AppendUint64(appendControl(b, typeUint64, 8), v)
	case []string:
		b = appendControl(b, typeArray, len(v))
		for _, s := range v {
			b = appendValue(b, s)
		}
		return b
	case map[string]any:
		b = appendControl(b, typeMap, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			b = appendValue(appendValue(b, k), v[k])
		}
		return b
	}
	panic("geotest: a type that is not needed")
}
