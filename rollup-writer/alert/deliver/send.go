package deliver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/mail"
	"net/smtp"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/uptakehq/uptake/schemas/signal"
)

// PermanentError is an answer of a receiver that another attempt would not change.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap returns the answer.
func (e *PermanentError) Unwrap() error { return e.Err }

// maxAnswer bounds how much of an answer is read.
const maxAnswer = 64 << 10

// Send makes one attempt. It holds no state.
func (ts *Targets) Send(ctx context.Context, b Batch, now time.Time) error {
	for i := range ts.Targets {
		if t := &ts.Targets[i]; t.Name == b.Target {
			ctx, cancel := context.WithTimeout(ctx, t.Timeout)
			defer cancel()
			if t.Kind == KindEmail {
				return ts.mail(ctx, t, b, now)
			}
			return ts.post(ctx, t, b, now)
		}
	}
	return &PermanentError{fmt.Errorf("there is no target %s", b.Target)}
}

// Timeout of an attempt to reach a target; 0 if there is no such target.
func (ts *Targets) Timeout(target string) time.Duration {
	for i := range ts.Targets {
		if ts.Targets[i].Name == target {
			return ts.Targets[i].Timeout
		}
	}
	return 0
}

// Webhook is the body of a webhook in the form of Standard Webhooks.
type Webhook struct {
	Type      string         `json:"type"` // alert.firing
	Timestamp time.Time      `json:"timestamp"`
	Data      signal.Message `json:"data"`
}

func (t *Target) write(b Batch) ([]byte, error) {
	if t.Kind == KindSlack {
		return json.Marshal(map[string]string{"text": slackText(b)})
	}
	m := b.Messages[0]
	if t.body == nil {
		return json.Marshal(Webhook{"alert." + m.State, m.At, m})
	}
	filled, err := fill(t.body, &m)
	if err != nil {
		return nil, err
	}
	return json.Marshal(filled)
}

func (ts *Targets) post(ctx context.Context, t *Target, b Batch, now time.Time) error {
	u, err := t.address(ts)
	if err != nil {
		return err
	}
	body, err := t.write(b)
	if err != nil {
		return &PermanentError{err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return errors.New("make request: the URL is wrong") // the error holds the URL, which may be a secret
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "uptake-alerts")
	for name, file := range t.HeaderFiles {
		value, err := readSecret(file)
		if err != nil {
			return err
		}
		req.Header.Set(name, string(value))
	}
	if err := t.sign(req.Header, b.ID(), body, now); err != nil {
		return err
	}
	res, err := ts.client(t.Timeout).Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) { // its text has the URL
			err = ue.Err
		}
		return fmt.Errorf("post to target %s: %w", t.Name, err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
	return outcome(t.Name, res)
}

// outcome classifies an answer. Of the client errors only those that reject this
// request permanently are permanent.
func outcome(target string, res *http.Response) error {
	err := fmt.Errorf("target %s answered %d", target, res.StatusCode)
	switch {
	case res.StatusCode >= 200 && res.StatusCode < 300:
		return nil
	case res.StatusCode == http.StatusGone || res.StatusCode == http.StatusBadRequest || res.StatusCode == http.StatusUnprocessableEntity || res.StatusCode == http.StatusRequestEntityTooLarge:
		return &PermanentError{err}
	}
	return err
}

// sign adds the headers of Standard Webhooks
// (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
func (t *Target) sign(h http.Header, id string, body []byte, now time.Time) error {
	stamp := strconv.FormatInt(now.Unix(), 10)
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", stamp)
	var signatures []string
	for _, file := range t.SecretFiles {
		key, err := signingKey(file)
		if err != nil {
			return err
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + stamp + "."))
		mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if len(signatures) > 0 {
		h.Set("webhook-signature", strings.Join(signatures, " "))
	}
	return nil
}

// slackEscapes are the characters that begin Slack's control sequences.
var slackEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func slackText(b Batch) string {
	var out strings.Builder
	if len(b.Messages) > 1 {
		fmt.Fprintf(&out, "%d alerts for %s\n", len(b.Messages), slackEscapes.Replace(plain(b.Messages[0].Owner)))
	}
	for _, m := range b.Messages {
		out.WriteString(slackEscapes.Replace(plain(m.Line())) + "\n")
		if m.Playbook != "" && m.State == "firing" {
			out.WriteString(slackEscapes.Replace("Next: "+plain(m.Playbook)) + "\n")
		}
		if m.FeedbackURL != "" {
			out.WriteString("Useful or not? " + slackEscapes.Replace(plain(m.FeedbackURL)) + "\n")
		}
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// plain removes line breaks and control characters from a text, including those that
// change the direction of the following text.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// head writes the headers that every mail has.
func (t *Target) head(out io.Writer, id, subject string, now time.Time) error {
	subject = plain(subject)
	if r := []rune(subject); len(r) > 200 {
		subject = string(r[:200])
	}
	header := func(name, value string) { fmt.Fprintf(out, "%s: %s\r\n", name, value) }
	from, err := mail.ParseAddress(t.From)
	if err != nil {
		return err
	}
	var to []string
	for _, a := range t.To {
		parsed, err := mail.ParseAddress(a)
		if err != nil {
			return err
		}
		to = append(to, parsed.String())
	}
	header("From", from.String())
	header("To", strings.Join(to, ", "))
	header("Subject", mime.QEncoding.Encode("utf-8", subject))
	header("Date", now.UTC().Format(time.RFC1123Z))
	header("Message-ID", "<"+id+"@uptake.invalid>")
	header("MIME-Version", "1.0")
	header("Auto-Submitted", "auto-generated")
	return nil
}

// letter is the mail of a batch, in wire form.
func (t *Target) letter(b Batch, now time.Time) ([]byte, error) {
	subject := b.Messages[0].Line()
	if len(b.Messages) > 1 {
		subject = fmt.Sprintf("%d alerts for %s", len(b.Messages), b.Messages[0].Owner)
	}
	var out bytes.Buffer
	if err := t.head(&out, b.ID(), subject, now); err != nil {
		return nil, err
	}
	header := func(name, value string) { fmt.Fprintf(&out, "%s: %s\r\n", name, value) }
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	out.WriteString("\r\n")
	w := quotedprintable.NewWriter(&out)
	for _, m := range b.Messages {
		text := plain(m.Line()) + "\r\n"
		for _, line := range [][2]string{{"Next", m.Playbook}, {"Closed by", m.Closes}, {"Useful or not", m.FeedbackURL}} {
			if line[1] != "" {
				text += line[0] + ": " + plain(line[1]) + "\r\n"
			}
		}
		text += fmt.Sprintf("Alert %s, %s version %d, as of %s, owner %s\r\n\r\n", m.AlertID, m.Signal, m.Version, m.At.UTC().Format(time.RFC3339), plain(m.Owner))
		if _, err := io.WriteString(w, text); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}

func (ts *Targets) mail(ctx context.Context, t *Target, b Batch, now time.Time) error {
	letter, err := t.letter(b, now)
	if err != nil {
		return &PermanentError{err}
	}
	return ts.hand(ctx, t, letter)
}

// hand gives a mail to the target's server.
func (ts *Targets) hand(ctx context.Context, t *Target, letter []byte) error {
	host, _, err := net.SplitHostPort(t.SMTP)
	if err != nil {
		return err
	}
	if err := ts.allowedHost(host); err != nil {
		return err
	}
	conn, err := ts.dialer(t.Timeout).DialContext(ctx, "tcp", t.SMTP)
	if err != nil {
		return fmt.Errorf("mail to target %s: %w", t.Name, err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if err := t.converse(conn, host, letter); err != nil {
		return fmt.Errorf("mail to target %s: %w", t.Name, err)
	}
	return nil
}

func (t *Target) converse(conn net.Conn, host string, letter []byte) error {
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	if !t.PlainSMTP {
		if err := c.StartTLS(&tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}); err != nil {
			return fmt.Errorf("start TLS: %w", err)
		}
	}
	if t.Username != "" {
		password, err := readSecret(t.PasswordFile)
		if err != nil {
			return err
		}
		if err := c.Auth(smtp.PlainAuth("", t.Username, string(password), host)); err != nil {
			return errors.New("sign-in was refused") // the answer may repeat what was sent
		}
	}
	for i, a := range append([]string{t.From}, t.To...) {
		parsed, err := mail.ParseAddress(a)
		if err != nil {
			return err
		}
		give := c.Rcpt
		if i == 0 {
			give = c.Mail
		}
		if err := give(parsed.Address); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(letter); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // the mail is accepted
	return nil
}
