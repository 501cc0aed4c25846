package page

import (
	"fmt"
	"html/template"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

var functions = template.FuncMap{
	"whole":  func(v any) string { return Whole(integer(v)) },
	"spark":  Spark,
	"words":  func(words ...string) []string { return words },
	"last":   func(list any) any { v := reflect.ValueOf(list); return v.Index(v.Len() - 1).Interface() },
	"plural": func(v any, one, many string) string { return Plural(integer(v), one, many) },
}

// integer is a template's number.
func integer(v any) int64 {
	switch n := v.(type) {
	case int:
		return int64(n)
	case int64:
		return n
	}
	panic(fmt.Sprintf("a template shows a %T as a number", v)) // a test draws every page
}

// Whole is a number with thousands separated: 1,234,567.
func Whole[T int | int64 | uint64](n T) string {
	text := strconv.FormatInt(int64(n), 10)
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign, text = "−", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}

// Short is for charts: 1.2k, 3.4M.
func Short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1e9:
		return trimmed(v/1e9) + "G"
	case a >= 1e6:
		return trimmed(v/1e6) + "M"
	case a >= 1e4:
		return trimmed(v/1e3) + "k"
	}
	return trimmed(v)
}

func trimmed(v float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}

// Percent of a share between 0 and 1.
func Percent(share float64) string {
	if share > 0 && share < 0.095 {
		return strconv.FormatFloat(share*100, 'f', 1, 64) + " %"
	}
	return strconv.FormatFloat(share*100, 'f', 0, 64) + " %"
}

// Difference of a number to the one of the period before.
type Difference struct {
	Text  string // +12 %, −3, new
	Class string // up, down or same
}

// Change compares two numbers.
func Change(now, before int64) Difference {
	switch {
	case now == before:
		return Difference{"±0", "same"}
	case before == 0:
		return Difference{"new", "up"}
	}
	class, sign := "up", "+"
	if now < before {
		class, sign = "down", "−"
	}
	share := math.Abs(float64(now-before)) / float64(before) * 100
	if share > 999 {
		return Difference{fmt.Sprintf("%s%s", sign, Whole(abs(now-before))), class}
	}
	return Difference{fmt.Sprintf("%s%.0f %%", sign, math.Max(share, 1)), class}
}

func abs(n int64) int64 {
	if n < 0 {
		return -n
	}
	return n
}

// Ago is how long ago an instant was.
func Ago(now, then time.Time) string {
	if then.IsZero() || then.Unix() <= 0 {
		return "never"
	}
	switch d := now.Sub(then); {
	case d < 2*time.Second:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
}

// Plural is a number with its noun: "1 account", "3 accounts", "1 person",
// "2 people".
func Plural[T int | int64 | uint64](n T, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Whole(n) + " " + many
}
