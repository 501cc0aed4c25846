package client

import (
	"strings"
	"sync"

	"golang.org/x/text/language"
	"golang.org/x/text/language/display"
)

// countryOf returns the two letters of ISO 3166-1 of a country that a sender states as a
// code of two or three letters or by its English name, "" for any other text: a column
// with two spellings of a country could not be grouped by.
func countryOf(text string) string {
	switch len(text) {
	case 0, 1:
		return ""
	case 2:
		if a, b := text[0]&^0x20, text[1]&^0x20; a == text[0] && b == text[1] && countries().codes[text] {
			return text
		}
		fallthrough
	case 3:
		return countries().byName[strings.ToUpper(text)]
	}
	if len(text) > maxName {
		return ""
	}
	return countries().byName[strings.ToUpper(text)]
}

type countryTable struct {
	codes  map[string]bool
	byName map[string]string // by names and codes in upper case
}

// countries is made when the first event states a country.
var countries = sync.OnceValue(func() countryTable {
	t := countryTable{map[string]bool{}, map[string]string{}}
	english := display.English.Regions()
	for a := 'A'; a <= 'Z'; a++ {
		for b := 'A'; b <= 'Z'; b++ {
			code := string([]rune{a, b})
			region, err := language.ParseRegion(code)
			if err != nil || !region.IsCountry() || region.String() != code || region.Canonicalize() != region || english.Name(region) == "" || code == "EZ" || code == "UN" {
				continue
			}
			t.codes[code] = true
			t.byName[code] = code
			if three := region.ISO3(); len(three) == 3 && three != "ZZZ" {
				t.byName[three] = code
			}
			t.byName[strings.ToUpper(english.Name(region))] = code
		}
	}
	// Names that collectors use beside those of the Unicode CLDR.
	for name, code := range map[string]string{
		"UK": "GB", "GREAT BRITAIN": "GB", "UNITED STATES OF AMERICA": "US", "REPUBLIC OF KOREA": "KR", "KOREA, REPUBLIC OF": "KR",
		"RUSSIAN FEDERATION": "RU", "CZECH REPUBLIC": "CZ", "THE NETHERLANDS": "NL", "TURKEY": "TR", "TÜRKIYE": "TR", "VIET NAM": "VN", "HONG KONG": "HK", "MACAO": "MO", "MACAU": "MO",
		"IRAN, ISLAMIC REPUBLIC OF": "IR", "IVORY COAST": "CI", "MACEDONIA": "MK", "SWAZILAND": "SZ", "BURMA": "MM", "MYANMAR": "MM", "PALESTINE": "PS", "BOSNIA AND HERZEGOVINA": "BA",
	} {
		t.byName[name] = code
	}
	return t
})
