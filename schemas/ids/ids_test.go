package ids

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	for _, text := range []string{
		"undefined", "null", "NULL", "None", "nil", "NaN", "[object Object]", "{}", "[]", "true", "false", "FALSE", "0", "-1", "anonymous", "Guest", "unknown", "N/A", "n/a",
		"00000000-0000-0000-0000-000000000000", "(null)", " undefined ", "\tnull\n", "\ufeffguest", "\u00a0N/A\u200b",
		" ", "\t\r\n", "\u00a0", "\u3000", "\u200b\ufeff", "\x00", "\u00ad",
	} {
		if id, dropped := Default.Read(text); id != "" || !dropped {
			t.Errorf("%q: got %q, %v, want none, dropped", text, id, dropped)
		}
	}
	for text, want := range map[string]string{
		"": "", "u1": "u1", " u1 ": "u1", "u 1": "u 1", "\ufeffu1\u200b": "u1", "\u00a0Jane Doe\r\n": "Jane Doe", "日本": "日本", "\u3000日本\u3000": "日本",
		"00": "00", "-10": "-10", "0.0": "0.0", "undefined1": "undefined1", "nully": "nully", "guest@example.com": "guest@example.com", "n/a/b": "n/a/b", "nil ": "",
		"00000000-0000-0000-0000-000000000001": "00000000-0000-0000-0000-000000000001", strings.Repeat("0", 65): strings.Repeat("0", 65), "NUL": "NUL", "ŃULL": "ŃULL",
	} {
		id, dropped := Default.Read(text)
		if id != want || dropped != (want == "" && text != "") {
			t.Errorf("%q: got %q, %v, want %q", text, id, dropped, want)
		}
	}
}

func TestListOfAnApp(t *testing.T) {
	l := NewList([]string{"Kiosk", "ÖFFENTLICH", "0x0", " ", strings.Repeat("x", MaxText+1)})
	for text, none := range map[string]bool{"kiosk": true, "KIOSK": true, "öffentlich": true, "Öffentlich": true, "0X0": true, "undefined": false, "kiosk1": false, "": false} {
		if got := l.None(text); got != none {
			t.Errorf("%q: got %v, want %v", text, got, none)
		}
	}
	if (&List{}).None("null") {
		t.Error("an empty list has null")
	}
}

func TestAppendUnread(t *testing.T) {
	b := AppendUnread(AppendUnread(nil, User, "undefined"), Anonymous, "a\"\n\ufeff")
	var got map[string]string
	if err := json.Unmarshal(b, &got); err != nil || len(got) != 2 || got[User] != "undefined" || got[Anonymous] != "a\"\n\ufeff" {
		t.Errorf("got %s, %v", b, err)
	}
}

func BenchmarkRead(b *testing.B) {
	b.ReportAllocs()
	for range b.N {
		for _, id := range [...]string{"u-4711", "0b6c3a0e-4d5c-4c5c-9d5d-0a1b2c3d4e5f", "", "acme"} {
			Default.Read(id)
		}
	}
}

func TestNumber(t *testing.T) {
	for number, want := range map[string]string{
		"4711": "4711", "4711.0": "4711", "4.711e3": "4711", "47110E-1": "4711", "4711.000": "4711", "1e3": "1000", "1E+3": "1000", "-0": "0", "-0.0": "0", "0.0": "0", "1.50": "1.5", "-7.0": "-7",
		"9007199254740992": "9007199254740992", "9007199254740992.0": "9007199254740992", "9007199254740993": "9007199254740993", "9007199254740993.0": "9007199254740993", "-9007199254740993.0": "-9007199254740993", "9007199254740993e0": "9007199254740993e0",
		"9007199254740995.0": "9007199254740995", "123456789012345678901234567890": "123456789012345678901234567890", "1e20": "1e20", "1e400": "1e400",
	} {
		if got := Number(number); got != want {
			t.Errorf("%s: got %q, want %q", number, got, want)
		}
	}
}
