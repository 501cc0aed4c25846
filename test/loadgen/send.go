package loadgen

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// Sender sends a plan to gateways as SDKs do. The zero values of its fields,
// but for URLs and WriteKey, give the defaults that they name.
type Sender struct {
	URLs     []string // roots of gateways: requests go to them in turn, as a balancer's would
	WriteKey string
	Workers  int           // requests at a time; default 8
	Rate     float64       // events a second; 0: as fast as they are acked
	Timeout  time.Duration // of one attempt; default 30 s
	// MaxBackoff bounds the wait before the next attempt, also against what a
	// Retry-After asks for; default 5 s.
	MaxBackoff time.Duration
	Client     *http.Client     // default: one of its own
	Progress   *Progress        // counts events; may be nil
	Now        func() time.Time // the producers' clock; default time.Now
	// Acked is called once a request is acked that was first sent at began, from any
	// goroutine; may be nil.
	Acked func(request int, began time.Time)
}

// RefusedError is a reply that no SDK would retry: it means that the plan, the
// key or the gateway is wrong, so it ends the run.
type RefusedError struct {
	Request int
	Status  int
	Body    string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("request %d: status %d: %s", e.Request, e.Status, e.Body)
}

// Run sends requests [from, to) of the plan that the ledger does not have as
// acked, and records what became of each. A request is tried, always with the
// same message ids, until it is acked or ctx ends; what is then not acked is in
// the ledger with its attempts. Run returns ctx's error in that case, a
// RefusedError where the gateway refused, and a fault of a verdict where the
// gateway said of an event what it must not say.
func (s *Sender) Run(ctx context.Context, p *Plan, l *Ledger, from, to int) error {
	if len(s.URLs) == 0 {
		return errors.New("send: no gateway is named")
	}
	client := s.Client
	if client == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = max(s.Workers, 8)
		t.Proxy = nil
		client = &http.Client{Transport: t}
		defer t.CloseIdleConnections()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for range cmpOr(s.Workers, 8) {
		wg.Go(func() { // ends when next is closed
			var body []byte
			for n := range next {
				var err error
				body, err = s.one(ctx, client, p, l, n, body[:0])
				if err != nil {
					cancel(err) // the others give up, too
				}
			}
		})
	}
	start, sent := time.Now(), 0
	for n := from; n < to && ctx.Err() == nil; n++ {
		events := len(p.Requests[n].Events)
		if l.Outcome(n).Acked {
			s.Progress.Add(events)
			continue
		}
		if s.Rate > 0 {
			due := start.Add(time.Duration(float64(sent) / s.Rate * float64(time.Second)))
			if backoff.Sleep(ctx, time.Until(due)) != nil {
				break
			}
			sent += events
		}
		select {
		case next <- n:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

func cmpOr[T int | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// one sends request n until it is acked. It returns the body's buffer, and an
// error only where the run has to end.
func (s *Sender) one(ctx context.Context, client *http.Client, p *Plan, l *Ledger, n int, body []byte) ([]byte, error) {
	if ctx.Err() != nil {
		return body, nil
	}
	o := Outcome{Request: n}
	pause := backoff.Backoff{Min: 50 * time.Millisecond, Max: cmpOr(s.MaxBackoff, 5*time.Second)}
	began := time.Now()
	var fault error
	now := s.Now
	if now == nil {
		now = time.Now
	}
	for {
		body = p.AppendBody(body[:0], n, now())
		url := s.URLs[(n+o.Attempts)%len(s.URLs)]
		o.Attempts++
		reply, err := s.try(ctx, client, url+p.Requests[n].Path, body)
		if err == nil && reply.status == http.StatusOK {
			o.Acked, o.Rejected = true, reply.verdicts
			fault = p.checkVerdicts(n, reply.verdicts)
			break
		}
		if err == nil && !retriable(reply.status) {
			fault = &RefusedError{Request: n, Status: reply.status, Body: reply.body}
			break
		}
		wait := pause.Next()
		wait = wait/2 + rand.N(wait)
		if err == nil && reply.retryAfter > 0 {
			wait = min(reply.retryAfter, pause.Max)
		}
		if backoff.Sleep(ctx, wait) != nil {
			break
		}
	}
	if o.Acked {
		s.Progress.Add(len(p.Requests[n].Events))
		if s.Acked != nil {
			s.Acked(n, began)
		}
	}
	return body, errors.Join(fault, l.Add(o))
}

// retriable is what analytics-node retries: 408, 410, 429, 460 and 5xx except
// those that say "never".
func retriable(status int) bool {
	switch status {
	case 408, 410, 429, 460:
		return true
	case 501, 505, 511:
		return false
	}
	return status >= 500
}

type reply struct {
	status     int
	retryAfter time.Duration
	verdicts   []Verdict
	body       string // start of it, when it is no ack
}

func (s *Sender) try(ctx context.Context, client *http.Client, url string, body []byte) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, cmpOr(s.Timeout, 30*time.Second))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return reply{}, fmt.Errorf("post %s: %w", url, err)
	}
	req.SetBasicAuth(s.WriteKey, "")
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return reply{}, fmt.Errorf("read reply of %s: %w", url, err)
	}
	r := reply{status: res.StatusCode}
	if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil {
		r.retryAfter = time.Duration(n) * time.Second
	}
	if r.status != http.StatusOK {
		r.body = strings.TrimSpace(string(text[:min(len(text), 500)]))
		return r, nil
	}
	var ack struct {
		Rejected []Verdict `json:"rejected"`
	}
	if err := json.Unmarshal(text, &ack); err != nil {
		// A status without its whole body is no ack: it may be a cut connection.
		return reply{}, fmt.Errorf("read reply of %s: %w", url, err)
	}
	r.verdicts = ack.Rejected
	return r, nil
}

// checkVerdicts holds what an ack said against what the plan did wrong on
// purpose.
func (p *Plan) checkVerdicts(n int, got []Verdict) error {
	said := map[int]Verdict{}
	for _, v := range got {
		said[v.Index] = v
	}
	var faults []error
	for k, i := range p.Requests[n].Events {
		v, rejected := said[k]
		delete(said, k)
		switch bad := p.Events[i].Bad; {
		case bad == nil && rejected:
			faults = append(faults, fmt.Errorf("request %d: good event %d (%s) was rejected: %+v", n, k, p.Events[i].MessageID, v))
		case bad != nil && !rejected:
			faults = append(faults, fmt.Errorf("request %d: bad event %d (%s) was not rejected, want %s", n, k, p.Events[i].MessageID, bad.Code))
		case bad != nil && (v.Code != bad.Code || v.Field != bad.Field):
			faults = append(faults, fmt.Errorf("request %d: bad event %d (%s) was rejected as %q of field %q, want %q of %q", n, k, p.Events[i].MessageID, v.Code, v.Field, bad.Code, bad.Field))
		}
	}
	for k, v := range said {
		faults = append(faults, fmt.Errorf("request %d has no event %d, which was rejected: %+v", n, k, v))
	}
	return errors.Join(faults...)
}
