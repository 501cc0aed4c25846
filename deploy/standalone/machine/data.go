package machine

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/uptakehq/uptake/ingest-gateway/keys"
)

// dataDir is the folder of one standalone: log/, clickhouse/, enricher/, keys.yaml
// and the passwords of ClickHouse's users. It is locked while in use, since two logs would destroy each
// other's files.
type dataDir struct {
	path string
	lock *os.File
}

func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("-data: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("-data: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("-data: %w", err)
	}
	if err := tryLock(f); err != nil {
		holder, _ := os.ReadFile(f.Name())
		f.Close()
		if errors.Is(err, errLocked) {
			return nil, fmt.Errorf("-data %s is in use by another standalone (process %s): stop that, or choose another folder", path, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("-data: lock %s: %w", path, err)
	}
	// For people and for the message above; the lock itself is the kernel's.
	if err := errors.Join(f.Truncate(0), write(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		f.Close()
		return nil, fmt.Errorf("-data: %w", err)
	}
	return &dataDir{path: path, lock: f}, nil
}

func write(f *os.File, text string) error {
	_, err := f.WriteString(text)
	return err
}

func (d *dataDir) in(name string) string { return filepath.Join(d.path, name) }

func (d *dataDir) close() { d.lock.Close() }

const keysYAML = `# Apps and the hashes of their write keys. The gateway reads this file again when
# it changes. %[3]s is written %[1]q; whoever knows it can send events.
apps:
  - id: %[2]s
    keys:
      - {hash: %[4]q, history: true}
# The last line says that the file is complete.
...
`

// keysFile returns the path of the key file and makes it at the first start.
func (d *dataDir) keysFile() (string, error) {
	path := d.in("keys.yaml")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	text := fmt.Sprintf(keysYAML, WriteKey, App, "The key of app "+App, keys.HashOf(WriteKey))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("make key file: %w", err)
	}
	return path, nil
}

// Files of secrets that exist from the first start: passwords of ClickHouse's users, and
// what signs the feedback links of alerts.
const (
	ownerPassword   = "clickhouse-password"
	consolePassword = "clickhouse-console-password"
	feedbackSecret  = "feedback-secret"
)

// password returns the secret in the file name and makes it at the first start.
func (d *dataDir) password(name string) (string, error) {
	path := d.in(name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = []byte(rand.Text())
		err = os.WriteFile(path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("read or make a secret: %w", err)
	}
	p := strings.TrimSpace(string(b))
	if p == "" {
		return "", fmt.Errorf("%s is empty: remove it, and a new secret is made", path)
	}
	return p, nil
}
