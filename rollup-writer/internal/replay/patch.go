package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Patch is a JSON merge patch (RFC 7396): an object that is merged into another,
// where null removes. It is a flag that may be given more than once, as such an
// object or as path=value; what comes later goes over what came before. A value may
// be a call over the event's own fields as they were sent, see expression.
type Patch struct{ changes map[string]any }

// String is the patch as JSON.
func (p *Patch) String() string {
	if p == nil || len(p.changes) == 0 {
		return "{}"
	}
	text, err := encode(p.changes)
	if err != nil {
		return "{}" // what Set decoded can be encoded
	}
	return string(text)
}

// Set adds changes. The path of path=value is of keys with dots between; the
// value is JSON, or text where it is no JSON.
func (p *Patch) Set(s string) error {
	var more map[string]any
	if strings.HasPrefix(strings.TrimSpace(s), "{") {
		v, err := decode([]byte(s))
		if err != nil {
			return fmt.Errorf("not a JSON object: %w", err)
		}
		if v, err = expressions(v); err != nil {
			return err
		}
		if more, _ = v.(map[string]any); more == nil {
			return errors.New("a call needs the path=… that it is for")
		}
	} else {
		path, value, ok := strings.Cut(s, "=")
		if !ok || path == "" {
			return errors.New("want path=value or a JSON object")
		}
		v, err := decode([]byte(value))
		if err != nil {
			call, err := parseExpression(value)
			if err != nil {
				return err
			}
			if v = value; call != nil {
				v = call
			}
		}
		keys := strings.Split(path, ".")
		for i := len(keys) - 1; i >= 0; i-- {
			if keys[i] == "" {
				return fmt.Errorf("path %q has an empty key", path)
			}
			v = map[string]any{keys[i]: v}
		}
		more = v.(map[string]any)
	}
	if err := fixedIn(more, ""); err != nil {
		return err
	}
	if p.changes == nil {
		p.changes = map[string]any{}
	}
	combine(p.changes, more)
	return nil
}

// combine puts more over changes; unlike merge it keeps null, which says remove.
func combine(changes, more map[string]any) {
	for k, v := range more {
		into, ok1 := changes[k].(map[string]any)
		from, ok2 := v.(map[string]any)
		if ok1 && ok2 {
			combine(into, from)
		} else {
			changes[k] = v
		}
	}
}

// merge applies a patch to a value and returns what becomes of it. It changes
// objects in place and shares nothing with the patch.
func merge(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for k, v := range changes {
		if v == nil {
			delete(object, k)
		} else {
			object[k] = merge(object[k], v)
		}
	}
	return object
}

// decode reads one JSON value; numbers keep their text.
func decode(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the value")
	}
	return v, nil
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
