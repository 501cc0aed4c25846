package importer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// state is how far an import is, as the state file holds it.
type state struct {
	Version int    `json:"version"`
	From    string `json:"from"`
	File    string `json:"file"`
	Gateway string `json:"gateway"`
	Offset  int64  `json:"offset"` // bytes of the unpacked file that are done
	Sum     string `json:"sum"`    // of what is done, see lines
	Done    bool   `json:"done"`   // the file was read to its end
	Result
}

const stateVersion = 2

// loadState reads the state file, or starts anew where there is none. A state of
// another import is an error: going on from it would leave events out.
func loadState(cfg Config) (*state, error) {
	fresh := &state{Version: stateVersion, From: cfg.From, File: filepath.Base(cfg.File), Gateway: cfg.Gateway}
	text, err := os.ReadFile(cfg.State)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("read state %s: %w", cfg.State, err)
	}
	if s.Version != fresh.Version || s.From != fresh.From || s.File != fresh.File || s.Gateway != fresh.Gateway || s.Offset < 0 {
		return nil, fmt.Errorf("state %s is of another import (%s of %s to %s): name another state file, or remove it to start anew",
			cfg.State, s.File, s.From, s.Gateway)
	}
	return &s, nil
}

// save replaces the state file at once, so that an end in the middle leaves the
// old one.
func (s *state) save(path string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close()) // or a power cut could leave an empty file under its name
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save state: %w", err), os.Remove(f.Name()))
	}
	return nil
}
