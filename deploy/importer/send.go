package importer

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// sender sends batches until the gateway has taken them.
type sender struct {
	cfg    Config
	client *http.Client
	log    *slog.Logger
}

// maxReply bounds what is read of an answer.
const maxReply = 16 << 20

// all sends a batch, in halves where the gateway says that it is too large, and
// returns how many of its events were rejected and how many are too large by
// themselves. Whatever may be better later is tried again until ctx ends;
// anything else is an error.
func (s *sender) all(ctx context.Context, f format, batch [][]byte) (v verdict, err error) {
	body, err := pack(f.envelope(batch))
	if err != nil {
		return v, err
	}
	pause := s.cfg.RetryMin
	for {
		status, reply, after, err := s.once(ctx, f, body)
		if ctx.Err() != nil {
			return v, context.Cause(ctx)
		}
		if err == nil {
			said, taken := f.answer(status, reply)
			switch {
			case taken:
				return said, nil
			case status == http.StatusRequestEntityTooLarge && len(batch) == 1:
				s.log.Warn("event too large for the gateway, skipped", "bytes", len(batch[0]), "answer", clip(reply))
				return verdict{tooLarge: 1}, nil
			case status == http.StatusRequestEntityTooLarge:
				return s.halves(ctx, f, batch)
			case status != http.StatusTooManyRequests && status != http.StatusRequestTimeout && status < 500:
				return v, fmt.Errorf("the gateway answers %d: %s", status, clip(reply))
			}
		}
		wait := max(pause, after)
		s.log.Warn("sending again", "status", status, "error", err, "in", wait)
		if err := backoff.Sleep(ctx, wait); err != nil {
			return v, err
		}
		pause = min(2*pause, s.cfg.RetryMax)
	}
}

func (s *sender) halves(ctx context.Context, f format, batch [][]byte) (v verdict, err error) {
	half := len(batch) / 2
	for _, part := range [][][]byte{batch[:half], batch[half:]} {
		w, err := s.all(ctx, f, part)
		v.add(w)
		if err != nil {
			return v, err
		}
	}
	return v, nil
}

func (s *sender) once(ctx context.Context, f format, body []byte) (status int, reply []byte, after time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(s.cfg.Gateway, "/")+f.path(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Content-Encoding", "gzip")
	req.Header.Set("User-Agent", "uptake-import")
	history := "1" // what cannot be read is rejected, and does not count as of today
	if s.cfg.History {
		history = ingest.HistoryAnyAge
	}
	req.Header.Set(ingest.HistoryHeader, history)
	f.authorize(req, s.cfg.Key)
	res, err := s.client.Do(req)
	if err != nil {
		return 0, nil, 0, err
	}
	defer res.Body.Close()
	if reply, err = io.ReadAll(io.LimitReader(res.Body, maxReply)); err != nil {
		return 0, nil, 0, fmt.Errorf("read the answer: %w", err)
	}
	if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && seconds > 0 {
		after = min(time.Duration(seconds)*time.Second, s.cfg.RetryMax)
	}
	return res.StatusCode, reply, after, nil
}

func pack(text []byte) ([]byte, error) {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(text)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("pack a batch: %w", err)
	}
	return buf.Bytes(), nil
}

// clip shortens an answer for an error.
func clip(b []byte) string {
	const most = 300
	s := strings.ToValidUTF8(strings.TrimSpace(string(b)), "\uFFFD")
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}
