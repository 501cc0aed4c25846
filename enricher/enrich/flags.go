package enrich

import "strings"

// flags gathers the flags of one event (EnrichedEvent.Flags). Nearly all events have
// none or one, which allocates nothing.
type flags struct {
	words []string
	texts map[string]string // joined texts that were made before
	buf   []byte
}

// maxTexts bounds the joined texts that are kept.
const maxTexts = 256

func (f *flags) clear() { f.words = f.words[:0] }

// add adds a flag, or several separated by commas; an empty text adds nothing.
func (f *flags) add(words string) {
	if words != "" {
		f.words = append(f.words, words)
	}
}

// text returns the flags separated by commas.
func (f *flags) text() string {
	switch len(f.words) {
	case 0:
		return ""
	case 1:
		return f.words[0]
	}
	f.buf = f.buf[:0]
	for i, w := range f.words {
		if i > 0 {
			f.buf = append(f.buf, ',')
		}
		f.buf = append(f.buf, w...)
	}
	if t, ok := f.texts[string(f.buf)]; ok {
		return t
	}
	if f.texts == nil || len(f.texts) >= maxTexts {
		f.texts = map[string]string{}
	}
	t := strings.Clone(string(f.buf))
	f.texts[t] = t
	return t
}
