package catalog

import (
	"slices"
	"sort"
	"strings"
	"unicode"
)

// Naming conventions that Lint knows; the first is the default.
const (
	conventionObjectAction = "object_action"
	conventionActionObject = "action_object"
	conventionNone         = "none"
)

func conventions() []string {
	return []string{conventionObjectAction, conventionActionObject, conventionNone}
}

// Casings that Lint knows; the first is the default.
func casings() []string { return []string{"title", "snake", "kebab", "camel", "any"} }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// splitWords returns the words of a name in any naming style, lower-case.
// "ctaTapped", "cta_tapped" and "CTA Tapped" are cta, tapped.
func splitWords(name string) []string {
	var words []string
	var word []rune
	flush := func() {
		if len(word) > 0 {
			words = append(words, strings.ToLower(string(word)))
			word = word[:0]
		}
	}
	runes := []rune(name)
	for i, r := range runes {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			flush()
			continue
		}
		if unicode.IsUpper(r) && len(word) > 0 {
			// A new word starts after a small letter, and at the last of
			// several capitals: PDFExport is pdf, export.
			last := word[len(word)-1]
			nextLower := i+1 < len(runes) && unicode.IsLower(runes[i+1])
			if !unicode.IsUpper(last) || nextLower {
				flush()
			}
		}
		word = append(word, r)
	}
	flush()
	return words
}

// irregular participles and past forms, and what they come from.
var irregular = map[string]string{
	"begun": "begin", "began": "begin", "bought": "buy", "brought": "bring", "built": "build", "chosen": "choose", "chose": "choose",
	"cut": "cut", "done": "do", "drawn": "draw", "driven": "drive", "fallen": "fall", "felt": "feel", "found": "find", "frozen": "freeze",
	"given": "give", "gone": "go", "held": "hold", "hidden": "hide", "hit": "hit", "kept": "keep", "left": "leave", "lost": "lose",
	"made": "make", "met": "meet", "paid": "pay", "put": "put", "read": "read", "run": "run", "said": "say", "saw": "see", "seen": "see",
	"sent": "send", "set": "set", "shown": "show", "shut": "shut", "sold": "sell", "sought": "seek", "spent": "spend", "split": "split",
	"spoken": "speak", "sunk": "sink", "taken": "take", "taught": "teach", "told": "tell", "thrown": "throw", "understood": "understand",
	"won": "win", "withdrawn": "withdraw", "written": "write",
}

// isPast says that a word looks like a past form: what an action is named by.
func isPast(word string) bool {
	_, ok := irregular[word]
	return ok || (len(word) > 3 && strings.HasSuffix(word, "ed"))
}

// stem takes the endings off an English word so that forms of one verb or noun
// meet. It is for comparing names, so what it leaves need not be a word.
func stem(w string) string {
	if base, ok := irregular[w]; ok {
		w = base
	}
	switch {
	case len(w) > 4 && strings.HasSuffix(w, "ied"), len(w) > 4 && strings.HasSuffix(w, "ies"):
		w = w[:len(w)-3] + "y"
	case len(w) > 4 && strings.HasSuffix(w, "ed"):
		w = w[:len(w)-2]
	case len(w) > 5 && strings.HasSuffix(w, "ing"):
		w = w[:len(w)-3]
	case len(w) > 3 && strings.HasSuffix(w, "s") && !strings.HasSuffix(w, "ss"):
		w = w[:len(w)-1]
	}
	if len(w) > 3 {
		w = strings.TrimSuffix(w, "e")
	}
	if n := len(w); n > 2 && w[n-1] == w[n-2] {
		w = w[:n-1]
	}
	return w
}

// Words that interfaces use for the same thing or deed.
func defaultSynonyms() [][]string {
	return [][]string{
		{"click", "tap", "press"},
		{"button", "btn", "cta"},
		{"view", "see", "show", "display", "visit"},
		{"delete", "remove"},
		{"update", "edit", "change", "modify"},
		{"start", "begin"},
		{"finish", "complete", "end"},
		{"login", "signin"},
		{"signup", "register"},
		{"create", "generate"},
	}
}

// vocabulary compares names.
type vocabulary struct {
	canonical map[string]string // stem to the stem that stands for its synonyms
}

func newVocabulary(extra [][]string) vocabulary {
	v := vocabulary{canonical: map[string]string{}}
	for _, group := range slices.Concat(extra, defaultSynonyms()) {
		first := ""
		for _, w := range group {
			// A word may have a place already: then its group joins that one.
			if c, ok := v.canonical[stem(strings.ToLower(w))]; ok && first == "" {
				first = c
			}
		}
		for _, w := range group {
			s := stem(strings.ToLower(w))
			if first == "" {
				first = s
			}
			if _, ok := v.canonical[s]; !ok {
				v.canonical[s] = first
			}
		}
	}
	return v
}

// keys returns what is the same for names that say the same in another style,
// form or order: with synonyms made one, and without.
func (v vocabulary) keys(name string) (key, plain string) {
	words := splitWords(name)
	// Log In and Sign Up are one word in other styles.
	for i := 0; i+1 < len(words); i++ {
		if two := words[i] + words[i+1]; two == "login" || two == "signin" || two == "signup" {
			words = slices.Replace(words, i, i+2, two)
		}
	}
	stems := words[:0]
	for _, w := range words {
		switch w {
		case "a", "an", "the", "of", "on", "to":
		default:
			stems = append(stems, stem(w))
		}
	}
	slices.Sort(stems)
	plain = strings.Join(stems, " ")
	for i, w := range stems {
		if c, ok := v.canonical[w]; ok {
			stems[i] = c
		}
	}
	slices.Sort(stems)
	return strings.Join(stems, " "), plain
}

// Senses returns a function of names of events that is equal for names that say
// the same in another style, form or order ("Clicked Button", "button_click"), or by
// the catalog's synonyms; empty for a name without words.
func Senses(c *Catalog) func(name string) string {
	v := newVocabulary(c.Lint.Synonyms)
	return func(name string) string {
		key, _ := v.keys(name)
		return key
	}
}

// nearly says that two keys differ by one letter, typed wrong, left out or
// swapped with its neighbour; numbers that differ are different things.
func nearly(a, b string) bool {
	ra, rb := []rune(a), []rune(b)
	if len(ra) > len(rb) {
		ra, rb = rb, ra
	}
	if len(rb)-len(ra) > 1 {
		return false
	}
	i := 0
	for i < len(ra) && ra[i] == rb[i] {
		i++
	}
	differ := func(rs []rune, n int) bool { // one of the letters that differ is a digit
		return slices.ContainsFunc(rs[i:min(i+n, len(rs))], unicode.IsDigit)
	}
	if differ(ra, 1) || differ(rb, 1) {
		return false
	}
	if len(ra) < len(rb) {
		return slices.Equal(ra[i:], rb[i+1:])
	}
	if i == len(ra) || slices.Equal(ra[i+1:], rb[i+1:]) {
		return true
	}
	return i+1 < len(ra) && ra[i] == rb[i+1] && ra[i+1] == rb[i] && slices.Equal(ra[i+2:], rb[i+2:])
}

// inCasing says that a name is written in a casing.
func inCasing(name, casing string) bool {
	switch casing {
	case "snake", "kebab":
		sep := "_"
		if casing == "kebab" {
			sep = "-"
		}
		return name == strings.Join(splitWords(name), sep)
	case "camel":
		words := splitWords(name)
		for i, w := range words[min(1, len(words)):] {
			r := []rune(w)
			r[0] = unicode.ToUpper(r[0])
			words[i+1] = string(r)
		}
		return name == strings.Join(words, "")
	case "title", "":
		fields := strings.Fields(name)
		return (len(fields) > 1 || len(splitWords(name)) == 1) && !slices.ContainsFunc(fields, func(w string) bool {
			return unicode.IsLower([]rune(w)[0]) || strings.ContainsRune(w, '_')
		})
	}
	return true
}
