package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// protocol is how one event of a wire protocol is sent to a gateway.
type protocol struct {
	path string
	id   []string // of the message id
	body func(key string, doc any) any
	// basic: the write key is the user of the Authorization header.
	basic bool
}

// protocols that events can be sent by. The others either have no place for a
// message id or tell by the path what the event is.
var protocols = map[string]protocol{
	"segment": {"/v1/batch", []string{"messageId"}, func(_ string, doc any) any { return map[string]any{"batch": []any{doc}} }, true},
	"posthog": {"/batch", []string{"uuid"}, func(key string, doc any) any { return map[string]any{"api_key": key, "batch": []any{doc}} }, false},
	"amplitude": {"/2/httpapi", []string{"insert_id"}, func(key string, doc any) any {
		return map[string]any{"api_key": key, "events": []any{doc}}
	}, false},
	"mixpanel": {"/import", []string{"properties", "$insert_id"}, func(_ string, doc any) any { return []any{doc} }, true},
}

// mendDocument patches the JSON that a gateway rejected.
func (r *run) mendDocument(x *row) (*mended, string) {
	p, ok := protocols[x.protocol]
	if !ok {
		return nil, "events of " + x.protocol + " can only be sent by their producer"
	}
	if r.cfg.Gateway == "" && !r.cfg.DryRun {
		return nil, "it was rejected by a gateway: see -gateway"
	}
	v, err := decode([]byte(x.original))
	doc, ok := v.(map[string]any)
	if err != nil || !ok {
		return nil, "its bytes are no JSON object, or were cut"
	}
	doc, _ = merge(doc, r.cfg.Patch.changes).(map[string]any)
	message, why := messageID(doc, p.id, x.messageID)
	if why != "" {
		return nil, why
	}
	// Without an instant of its own it counts when it was received: then, and not
	// when it is sent again.
	if x.protocol == "segment" && doc["timestamp"] == nil && doc["originalTimestamp"] == nil {
		doc["timestamp"] = x.received.UTC().Format(time.RFC3339Nano)
	}
	return &mended{row: x, id: id{x.app, message}, to: toGateway, doc: doc}, ""
}

// messageID returns the id that doc has, or gives it the one that the gateway
// gave it when it rejected it.
func messageID(doc map[string]any, path []string, given string) (message, why string) {
	for _, key := range path[:len(path)-1] {
		next, ok := doc[key].(map[string]any)
		if doc[key] != nil && !ok {
			return "", key + " is no object"
		}
		if next == nil {
			next = map[string]any{}
			doc[key] = next
		}
		doc = next
	}
	last := path[len(path)-1]
	switch v := doc[last].(type) {
	case string:
		if v != "" {
			return v, ""
		}
	case json.Number:
		return v.String(), ""
	case nil:
	default:
		return "", "its message id is no text"
	}
	doc[last] = given
	return given, ""
}

// client sends to a gateway.
type client struct{ http http.Client }

const (
	requestTimeout = 30 * time.Second
	attempts       = 6
	maxReply       = 64 << 10
)

// send returns the reason for which the gateway rejected the event again, empty
// if it took it. An error is about the gateway.
func (c *client) send(ctx context.Context, cfg *Config, m *mended) (verdict string, err error) {
	p := protocols[m.row.protocol]
	body, err := encode(p.body(cfg.WriteKey.Reveal(), m.doc))
	if err != nil {
		return "", err
	}
	for attempt := 1; ; attempt++ {
		status, wait, reply, err := c.post(ctx, cfg, p, body)
		switch {
		case err == nil && status < 300:
			return refusal(reply), nil
		case err == nil && status != http.StatusTooManyRequests && status < 500:
			return "", fmt.Errorf("status %d: %s", status, reply)
		case attempt == attempts && err == nil:
			return "", fmt.Errorf("status %d after %d attempts: %s", status, attempt, reply)
		case attempt == attempts || ctx.Err() != nil:
			return "", err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

func (c *client) post(ctx context.Context, cfg *Config, p protocol, body []byte) (status int, wait time.Duration, reply []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	wait = time.Second
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(cfg.Gateway, "/")+p.path, bytes.NewReader(body))
	if err != nil {
		return 0, wait, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if p.basic {
		req.SetBasicAuth(cfg.WriteKey.Reveal(), "")
	}
	resp, err := c.http.Do(req)
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

// refusal reads why an event was rejected out of a reply that says so: Segment's
// and Mixpanel's do.
func refusal(reply []byte) string {
	var r struct {
		Rejected []struct{ Code, Field string }
		Failed   []struct{ Field, Message string } `json:"failed_records"`
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
	return ""
}

// show writes what would be sent.
func (r *run) show(m *mended) error {
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
