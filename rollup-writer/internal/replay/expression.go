package replay

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // for images that have none

	"github.com/uptakehq/uptake/schemas/instant"
)

// expression is what a patch makes of an event's own fields: a call of one of
// functions, whose arguments are paths of fields, texts in quotes, or calls.
type expression struct {
	source string
	name   string
	args   []argument
}

type argument struct {
	path []string    // of a field
	text *string     // literal
	call *expression // nested
}

// functions is the closed list of what patches can call.
var functions = map[string]struct {
	least, most int
	eval        func(args []any) (any, error)
}{
	"parse": {1, 3, parse},
	"trim":  {1, 1, ofText(strings.TrimSpace)},
	"lower": {1, 1, ofText(strings.ToLower)},
	"first": {1, 16, first},
}

func functionNames() string { return strings.Join(slices.Sorted(maps.Keys(functions)), ", ") }

// MarshalJSON writes the expression as Patch.Set reads it.
func (e *expression) MarshalJSON() ([]byte, error) {
	return encode(map[string]string{expressionKey: e.source})
}

// expressionKey is the one field of an object that stands for an expression in a
// patch that is JSON.
const expressionKey = "$expr"

// called tells a text that is a call, and not one that only has brackets.
var called = regexp.MustCompile(`^\s*([a-z_]+)\(.*\)\s*$`)

// parseExpression reads a text of path=value. It returns nil for one that is no call.
func parseExpression(s string) (*expression, error) {
	if !called.MatchString(s) {
		return nil, nil
	}
	e, rest, err := readCall(strings.TrimSpace(s))
	if err == nil && rest != "" {
		err = fmt.Errorf("%q follows the call", rest)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; a text that only looks like a call goes in quotes", s, err)
	}
	return e, nil
}

// readCall reads a call that s begins with.
func readCall(s string) (*expression, string, error) {
	name, rest, _ := strings.Cut(s, "(")
	fn, ok := functions[name]
	if !ok {
		return nil, "", fmt.Errorf("no function %q, there are %s", name, functionNames())
	}
	e := &expression{name: name}
	for {
		var a argument
		var err error
		if rest = strings.TrimLeft(rest, " \t"); rest == "" {
			return nil, "", errors.New("a bracket is not closed")
		}
		end := strings.IndexAny(rest, ",()")
		switch {
		case rest[0] == '"':
			d := json.NewDecoder(strings.NewReader(rest))
			a.text = new(string)
			if err := d.Decode(a.text); err != nil {
				return nil, "", fmt.Errorf("a text in quotes: %w", err)
			}
			rest = rest[d.InputOffset():]
		case end < 0:
			return nil, "", errors.New("a bracket is not closed")
		case rest[end] == '(':
			if a.call, rest, err = readCall(rest); err != nil {
				return nil, "", err
			}
		default:
			path := strings.TrimSpace(rest[:end])
			if a.path = strings.Split(path, "."); slices.Contains(a.path, "") {
				return nil, "", fmt.Errorf("%q is no field", path)
			}
			rest = rest[end:]
		}
		e.args = append(e.args, a)
		if rest = strings.TrimLeft(rest, " \t"); rest == "" {
			return nil, "", errors.New("a bracket is not closed")
		}
		c := rest[0]
		if rest = strings.TrimLeft(rest[1:], " \t"); c == ')' {
			break
		}
		if c != ',' {
			return nil, "", fmt.Errorf("%q where a comma or bracket must be", c)
		}
	}
	if n := len(e.args); n < fn.least || n > fn.most {
		return nil, "", fmt.Errorf("%s takes %d to %d arguments (got %d)", name, fn.least, fn.most, n)
	}
	e.source = strings.TrimSpace(s[:len(s)-len(rest)])
	return e, rest, nil
}

// eval returns the expression's value over an event as it was rejected. Errors name no
// values: they are counted.
func (e *expression) eval(doc map[string]any) (any, error) {
	args := make([]any, len(e.args))
	for i, a := range e.args {
		switch {
		case a.text != nil:
			args[i] = *a.text
		case a.call != nil:
			v, err := a.call.eval(doc)
			if err != nil {
				return nil, err
			}
			args[i] = v
		default:
			var v any = doc
			for _, key := range a.path {
				object, _ := v.(map[string]any)
				v = object[key]
			}
			args[i] = v
		}
	}
	v, err := functions[e.name].eval(args)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.source, err)
	}
	return v, nil
}

// parse reads an instant: by package instant, or by a layout of Go or of strptime, in a
// zone or in UTC where the text names none.
func parse(args []any) (any, error) {
	text, err := textOf(args[0])
	if err != nil {
		return nil, err
	}
	var layout, zone string
	if len(args) > 1 {
		if layout, err = textOf(args[1]); err != nil {
			return nil, err
		}
	}
	if len(args) > 2 {
		if zone, err = textOf(args[2]); err != nil {
			return nil, err
		}
	}
	in, err := time.LoadLocation(zone)
	if err != nil {
		return nil, errors.New("no such time zone")
	}
	if layout == "" {
		us, _, ok := instant.ParseIn(text, in)
		if !ok {
			return nil, errors.New("not an instant")
		}
		return time.UnixMicro(us).UTC().Format(time.RFC3339Nano), nil
	}
	at, err := time.ParseInLocation(strptime.Replace(layout), strings.TrimSpace(text), in)
	if err != nil {
		return nil, errors.New("not of that layout")
	}
	return at.UTC().Format(time.RFC3339Nano), nil
}

// strptime makes a layout of C one of Go; those of Go have no percent signs.
var strptime = strings.NewReplacer("%Y", "2006", "%y", "06", "%m", "01", "%d", "02", "%e", "_2", "%H", "15", "%I", "03", "%p", "PM", "%M", "04", "%S", "05",
	".%f", ".999999", "%b", "Jan", "%B", "January", "%a", "Mon", "%A", "Monday", "%j", "002", "%z", "-0700", "%Z", "MST", "%T", "15:04:05", "%F", "2006-01-02", "%%", "%")

func textOf(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case nil:
		return "", errors.New("there is no such field")
	}
	return "", errors.New("the field is no text")
}

func ofText(fn func(string) string) func([]any) (any, error) {
	return func(args []any) (any, error) {
		s, err := textOf(args[0])
		return fn(s), err
	}
}

// first returns the first argument that is there and not empty.
func first(args []any) (any, error) {
	for _, v := range args {
		if v != nil && v != "" {
			return v, nil
		}
	}
	return nil, errors.New("none of the fields is there")
}

// evaluated returns a patch with the values of its expressions over doc, which does not
// change.
func evaluated(patch any, doc map[string]any) (any, error) {
	switch p := patch.(type) {
	case *expression:
		return p.eval(doc)
	case map[string]any:
		out := make(map[string]any, len(p))
		for k, v := range p {
			var err error
			if out[k], err = evaluated(v, doc); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return patch, nil
}

// expressions replaces the objects of a patch that stand for expressions.
func expressions(v any) (any, error) {
	object, ok := v.(map[string]any)
	if !ok {
		return v, nil
	}
	if source, ok := object[expressionKey].(string); ok && len(object) == 1 {
		e, err := parseExpression(source)
		if err == nil && e == nil {
			err = fmt.Errorf("%q is no call", source)
		}
		return e, err
	}
	for k, inner := range object {
		var err error
		if object[k], err = expressions(inner); err != nil {
			return nil, err
		}
	}
	return object, nil
}

// fixed are what no patch can set: whose the event is, the key that says so, and what
// protocol it is of.
var fixed = []string{"app_id", "protocol", "writeKey", "api_key", "apiKey", "token", "$token"}

// fixedIn reports a fixed field among changes; those of Mixpanel and PostHog have the
// key among the properties too.
func fixedIn(changes map[string]any, protocol string) error {
	for _, name := range fixed {
		if _, ok := changes[name]; ok {
			return fmt.Errorf("a patch cannot set %s", name)
		}
	}
	if properties, ok := changes["properties"].(map[string]any); ok && (protocol == "mixpanel" || protocol == "posthog") {
		for _, name := range []string{"token", "$token", "api_key"} {
			if _, ok := properties[name]; ok {
				return fmt.Errorf("a patch cannot set properties.%s of %s", name, protocol)
			}
		}
	}
	return nil
}
