package replay

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// client sends to a gateway.
type client struct{ http http.Client }

const (
	requestTimeout = 30 * time.Second
	attempts       = 6
	maxReply       = 64 << 10
)

// send returns the reason for which the gateway rejected the event again, empty
// if it took it. An error is about the gateway.
func (c *client) send(ctx context.Context, cfg *Config, m *repaired) (verdict string, err error) {
	p := protocols[m.row.protocol]
	key := cfg.WriteKey.Reveal()
	var content any = m.doc
	if m.route.body != nil {
		content = m.route.body(key, m)
	}
	body, err := encode(content)
	if err != nil {
		return "", err
	}
	kind := "application/json"
	if m.route.form != "" {
		kind, body = "application/x-www-form-urlencoded", []byte(url.Values{"api_key": {key}, m.route.form: {string(body)}}.Encode())
	}
	method, path := http.MethodPost, m.route.path
	for attempt := 1; ; attempt++ {
		req, err := http.NewRequest(method, strings.TrimSuffix(cfg.Gateway, "/")+path, bytes.NewReader(body))
		if err != nil {
			return "", err
		}
		p.sign(req.Header, key)
		req.Header.Set("Content-Type", kind)
		if m.route.id == nil {
			req.Header.Set("Idempotency-Key", m.id.message)
		}
		status, wait, reply, err := c.do(ctx, req)
		switch {
		case err == nil && status < 300:
			return refusal(reply), nil
		case err == nil && (status == http.StatusBadRequest || status == http.StatusNotFound) && m.route.change != "":
			// It is there already, or it was rejected again.
			if said := message(reply); method == http.MethodPut || said != "exists already" {
				return said, nil
			}
			method, path = http.MethodPut, m.route.change
			continue
		case err == nil && status == http.StatusBadRequest && refused(reply, m.route.form != "") != "":
			return refused(reply, m.route.form != ""), nil
		case err == nil && status != http.StatusTooManyRequests && status < 500:
			return "", fmt.Errorf("status %d: %s", status, reply)
		case attempt == attempts && err == nil:
			return "", fmt.Errorf("status %d after %d attempts: %s", status, attempt, reply)
		case attempt == attempts || ctx.Err() != nil:
			return "", err
		}
		if err := backoff.Sleep(ctx, wait); err != nil {
			return "", err
		}
	}
}

func (c *client) do(ctx context.Context, req *http.Request) (status int, wait time.Duration, reply []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	wait = time.Second
	resp, err := c.http.Do(req.WithContext(ctx))
	if err != nil {
		return 0, wait, nil, err
	}
	defer resp.Body.Close()
	if reply, err = io.ReadAll(io.LimitReader(resp.Body, maxReply)); err != nil {
		return 0, wait, nil, err
	}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		wait = min(time.Duration(n)*time.Second, requestTimeout)
	}
	return resp.StatusCode, wait, reply, nil
}

// refusal reads why an event was rejected out of a reply that names the reason:
// those of Segment, Mixpanel, CustomerSuccessBox and OTLP do.
func refusal(reply []byte) string {
	var r struct {
		Rejected []struct{ Code, Field string }
		Failed   []struct{ Field, Message string } `json:"failed_records"`
		Warning  string
		Partial  struct{ ErrorMessage string } `json:"partialSuccess"`
	}
	if json.Unmarshal(reply, &r) != nil {
		return ""
	}
	for _, x := range r.Rejected {
		return strings.TrimSpace(x.Code + " " + x.Field)
	}
	for _, x := range r.Failed {
		return strings.TrimSpace("bad_event " + x.Field)
	}
	code, _, _ := strings.Cut(cmp.Or(r.Warning, strings.TrimPrefix(r.Partial.ErrorMessage, "the first: ")), ":")
	return code
}

// refused returns why the one event of a request was rejected again, where a protocol
// answers that with 400: Amplitude's lists, and its words to a form, and CloudEvents'
// detail. It is "" where the 400 is about something else.
func refused(reply []byte, form bool) string {
	var r struct {
		Error, Detail string
		Invalid       map[string][]int `json:"events_with_invalid_fields"`
		Missing       map[string][]int `json:"events_with_missing_fields"`
		Lengths       map[string][]int `json:"events_with_invalid_id_lengths"`
	}
	text := ""
	if err := json.Unmarshal(reply, &r); err != nil {
		if form && bytes.Contains(reply, []byte(": ")) {
			text = string(reply)
		}
	} else if _, after, ok := strings.Cut(r.Detail, "events are bad, the others are stored; event 0: "); ok {
		text = after
	} else if len(r.Invalid)+len(r.Missing)+len(r.Lengths) > 0 {
		text = r.Error
	}
	code, _, _ := strings.Cut(text, ":")
	return code
}

// message is what Gainsight PX's replies say, without what is of one event alone.
func message(reply []byte) string {
	var r struct{ Message string }
	_ = json.Unmarshal(reply, &r) // then it says nothing
	said, _, _ := strings.Cut(r.Message, ":")
	if said == "" {
		return "no reason is given"
	}
	return said
}

// show writes what would be sent.
func (r *run) show(m *repaired) error {
	line, err := encode(map[string]any{
		"to": m.to, "app_id": m.id.app, "message_id": m.id.message, "code": m.row.code,
		"received_at": m.row.received.UTC().Format(time.RFC3339Nano), "event": m.doc,
	})
	if err != nil {
		return err
	}
	_, err = r.out.Write(append(line, '\n'))
	return err
}
