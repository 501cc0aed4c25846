package keys

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/uptakehq/uptake/schemas/svc/wholefile"
)

// Listed is one key of a file, for display.
type Listed struct {
	App, ID, Note string
	Expires       time.Time // zero: never
	Expired       bool
	Protocols     []string
	Origins       []string
	RatePerSecond float64
	DailyQuota    int64
	History       bool
}

// List returns the keys of a file in its order, with their state at an instant. An app
// that may not send is listed once, without a key.
func List(path string, now time.Time) ([]Listed, error) {
	text, _, err := load(path)
	if err != nil {
		return nil, err
	}
	var f file
	if err := wholefile.YAML(text, &f); err != nil {
		return nil, err
	}
	var all []Listed
	for _, app := range f.Apps {
		if app.Keys.none {
			all = append(all, Listed{App: app.ID})
		}
		for _, k := range app.Keys.list {
			h, err := parseHash(k.Hash)
			if err != nil {
				return nil, err
			}
			all = append(all, Listed{
				App: app.ID, ID: h.ID(), Note: k.Note, Expires: k.Expires.Time, Expired: !k.Expires.IsZero() && !now.Before(k.Expires.Time),
				Protocols: k.Protocols, Origins: k.Origins, RatePerSecond: k.Rate, DailyQuota: k.DailyQuota, History: k.History,
			})
		}
	}
	return all, nil
}

// Terms are the restrictions of a new key. The zero value allows everything that the
// app may do except history of any age, without expiry.
type Terms struct {
	Note       string
	Expires    time.Time
	Protocols  []string
	Origins    []string
	Rate       float64
	Burst      int
	DailyQuota int64
	History    bool // may send events that count however old they are
}

// Add creates a key for an app of the file, writes its hash to the file, and returns
// the key.
func Add(path, app string, terms Terms) (string, error) {
	key := New()
	return key, edit(path, func(f *document) error {
		keys, err := f.keys(app)
		if err != nil {
			return err
		}
		return appendKey(keys, fileKey{
			Hash: HashOf(key).String(), Note: terms.Note, Expires: instant{terms.Expires}, Protocols: terms.Protocols, Origins: terms.Origins,
			Rate: terms.Rate, Burst: terms.Burst, DailyQuota: terms.DailyQuota, History: terms.History,
		})
	})
}

// Rotate creates a key with the same scope as the key with the id, which then expires
// at an instant unless it expires earlier. It returns the new key.
func Rotate(path, app, id string, until time.Time) (string, error) {
	key := New()
	return key, edit(path, func(f *document) error {
		keys, i, old, err := f.key(app, id)
		if err != nil {
			return err
		}
		fresh := old
		fresh.Hash, fresh.Expires = HashOf(key).String(), instant{}
		if old.Expires.IsZero() || until.Before(old.Expires.Time) {
			old.Expires = instant{until.UTC().Truncate(time.Second)}
		}
		if err := setKey(keys.Content[i], old); err != nil {
			return err
		}
		return appendKey(keys, fresh)
	})
}

// Revoke removes the key with the id. An app whose last key is removed stays in the
// file, as one that may not send.
func Revoke(path, app, id string) error {
	return edit(path, func(f *document) error {
		keys, i, _, err := f.key(app, id)
		if err != nil {
			return err
		}
		if keys.Content = slices.Delete(keys.Content, i, i+1); len(keys.Content) == 0 {
			*keys = yaml.Node{Kind: yaml.ScalarNode, Value: "none", LineComment: keys.LineComment}
		}
		return nil
	})
}

// document is a key file as YAML nodes, which keep comments and order.
type document struct{ root yaml.Node }

// keys returns the node with the keys of an app.
func (d *document) keys(app string) (*yaml.Node, error) {
	for _, a := range field(d.root.Content[0], "apps").Content {
		if field(a, "id").Value == app {
			return field(a, "keys"), nil
		}
	}
	return nil, fmt.Errorf("app %s is not in the file", app)
}

// key finds a key of an app by its id: the node with all keys, and its place.
func (d *document) key(app, id string) (*yaml.Node, int, fileKey, error) {
	keys, err := d.keys(app)
	if err != nil {
		return nil, 0, fileKey{}, err
	}
	for i, n := range keys.Content {
		var k fileKey
		if err := n.Decode(&k); err != nil {
			return nil, 0, k, err
		}
		if h, err := parseHash(k.Hash); err == nil && h.ID() == id {
			return keys, i, k, nil
		}
	}
	return nil, 0, fileKey{}, fmt.Errorf("app %s has no key %s: see `ingest-gateway key list`", app, id)
}

// field returns the value of a name in a mapping. The file was parsed before, so names
// that must exist do.
func field(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return &yaml.Node{}
}

func appendKey(keys *yaml.Node, k fileKey) error {
	if keys.Kind != yaml.SequenceNode { // none
		*keys = yaml.Node{Kind: yaml.SequenceNode, LineComment: keys.LineComment}
	}
	keys.Style = 0 // one key a line
	n := new(yaml.Node)
	keys.Content = append(keys.Content, n)
	return setKey(n, k)
}

// setKey writes a key into a node and keeps the node's comments.
func setKey(n *yaml.Node, k fileKey) error {
	head, line, foot := n.HeadComment, n.LineComment, n.FootComment
	var err error
	if k.plain() && k.Note == "" {
		*n = yaml.Node{Kind: yaml.ScalarNode, Value: k.Hash, Style: yaml.DoubleQuotedStyle}
	} else if err = n.Encode(k); err == nil {
		n.Style = yaml.FlowStyle
	}
	n.HeadComment, n.LineComment, n.FootComment = head, line, foot
	return err
}

// edit changes a key file. Both the old and the new text must be valid. A reader sees
// the old file or the new one, since the new one replaces the old by a rename; two
// concurrent edits are refused.
func edit(path string, change func(*document) error) (err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	mode := os.FileMode(0o600)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	lock := path + ".new"
	out, err := os.OpenFile(lock, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("key file: %s exists: another edit is under way, or one was killed; remove it in the latter case", lock)
	}
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Close(), os.Remove(lock))
		}
	}()
	text, before, err := load(path)
	if err != nil {
		return err
	}
	var d document
	if err := yaml.Unmarshal(text, &d.root); err != nil {
		return err
	}
	if err := change(&d); err != nil {
		return err
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(d.root.Content[0]), enc.Close()); err != nil {
		return err
	}
	fresh := strings.TrimSuffix(b.String(), "\n") + "\n" + wholefile.Mark
	after, err := Parse([]byte(fresh))
	if err != nil {
		return fmt.Errorf("key file: the change would make it unusable: %w", err)
	}
	if lost := before.lost(after); len(lost) > 0 {
		return fmt.Errorf("key file: the change would lose app %s", strings.Join(lost, ", "))
	}
	if _, err := out.WriteString(fresh); err != nil {
		return err
	}
	if err := errors.Join(out.Sync(), out.Chmod(mode), out.Close()); err != nil {
		return err
	}
	return os.Rename(lock, path)
}
