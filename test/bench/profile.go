package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

// profileSeconds is about the shortest round.
const profileSeconds = 2

// profiled runs a round, and with wanted takes CPU profiles of the first seconds
// of it. The round's own figure then holds a few percent for that.
func (r *runner) profiled(ctx context.Context, l *load, wanted bool) (Sample, error) {
	if !wanted || r.cfg.ProfileDir == "" {
		return l.round(ctx)
	}
	if err := os.MkdirAll(r.cfg.ProfileDir, 0o755); err != nil {
		return Sample{}, err
	}
	var wg sync.WaitGroup
	for name, addr := range l.pprofs {
		wg.Go(func() {
			if err := fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, profileSeconds), filepath.Join(r.cfg.ProfileDir, name+".pprof")); err != nil {
				fmt.Fprintf(r.cfg.Progress, "no profile of %s: %v\n", name, err)
			}
		})
	}
	s, err := l.round(ctx)
	wg.Wait()
	return s, err
}

func fetch(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return os.WriteFile(file, text, 0o644)
}
