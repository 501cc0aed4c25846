package deliver

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// Report is a mail that is sent on a schedule.
type Report struct {
	ID      string // the same at every attempt
	Subject string
	Text    string
	Files   []File // attached
}

// File is an attachment of comma-separated values.
type File struct {
	Name string
	Data []byte
}

// Reports returns the target of that name, or nil if it takes no reports about the app.
func (ts *Targets) Reports(name, app string) *Target {
	for i := range ts.Targets {
		if t := &ts.Targets[i]; t.Name == name && t.Reports && (len(t.Apps) == 0 || slices.Contains(t.Apps, app)) {
			return t
		}
	}
	return nil
}

// ReportNames are the names of the targets that take reports.
func (ts *Targets) ReportNames() []string {
	var names []string
	for i := range ts.Targets {
		if ts.Targets[i].Reports {
			names = append(names, ts.Targets[i].Name)
		}
	}
	return names
}

// SendReport makes one attempt.
func (ts *Targets) SendReport(ctx context.Context, t *Target, r *Report, now time.Time) error {
	letter, err := t.reportLetter(r, now)
	if err != nil {
		return &PermanentError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	return ts.hand(ctx, t, letter)
}

func (t *Target) reportLetter(r *Report, now time.Time) ([]byte, error) {
	var out, body bytes.Buffer
	if err := t.head(&out, r.ID, r.Subject, now); err != nil {
		return nil, err
	}
	parts := multipart.NewWriter(&body)
	fmt.Fprintf(&out, "Content-Type: multipart/mixed; boundary=%s\r\n\r\n", parts.Boundary())
	w, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"text/plain; charset=utf-8"}, "Content-Transfer-Encoding": {"quoted-printable"}})
	if err != nil {
		return nil, err
	}
	text := quotedprintable.NewWriter(w)
	for line := range strings.Lines(r.Text) {
		if _, err := text.Write([]byte(plain(strings.TrimRight(line, "\r\n")) + "\r\n")); err != nil {
			return nil, err
		}
	}
	if err := text.Close(); err != nil {
		return nil, err
	}
	for _, f := range r.Files {
		w, err := parts.CreatePart(textproto.MIMEHeader{
			"Content-Type": {"text/csv; charset=utf-8"}, "Content-Transfer-Encoding": {"base64"},
			"Content-Disposition": {mime.FormatMediaType("attachment", map[string]string{"filename": f.Name})},
		})
		if err != nil {
			return nil, err
		}
		for part := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(f.Data)), 76) {
			if _, err := w.Write(append(slices.Clone(part), "\r\n"...)); err != nil {
				return nil, err
			}
		}
	}
	if err := parts.Close(); err != nil {
		return nil, err
	}
	return append(out.Bytes(), body.Bytes()...), nil
}
