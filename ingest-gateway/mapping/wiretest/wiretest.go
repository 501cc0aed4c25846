// Package wiretest runs recorded requests through a protocol and compares the
// replies and what would be stored with golden text.
//
// A case is a file testdata/wire/NAME.txt: a comment, then sections that start
// with a line "-- name --":
//
//	-- app --        settings of the app, "account-keys: a, b", "quantity-key: n", "ip: none"
//	-- request --    "METHOD target", then header fields; may come several times
//	-- body --       the body; words after "body" wrap it in turn: gzip, zstd, zlib,
//	                 base64, form (data=, percent-encoded), rawform (data=, as it is), hex
//	-- fault --      a kind of ingest.Fault that hits the request after decoding
//	-- reply --      status, content type and body
//	-- stored --     the records that Kafka would get
//
// The last two follow each request and are written anew by go test -update.
package wiretest

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
	"github.com/uptakehq/uptake/schemas/event"
)

var update = flag.Bool("update", false, "write the golden text of wire tests anew")

// section is one part of a case.
type section struct {
	name string // "body gzip"
	text string
}

func parse(t testing.TB, data string) (comment string, sections []section) {
	t.Helper()
	var current *strings.Builder
	var head strings.Builder
	current = &head
	var texts []*strings.Builder
	for line := range strings.Lines(data) {
		trimmed := strings.TrimSuffix(line, "\n")
		name, ok := strings.CutPrefix(trimmed, "-- ")
		if name, ok2 := strings.CutSuffix(name, " --"); ok && ok2 {
			current = &strings.Builder{}
			texts = append(texts, current)
			sections = append(sections, section{name: name})
			continue
		}
		current.WriteString(line)
	}
	for i := range sections {
		sections[i].text = texts[i].String()
	}
	return head.String(), sections
}

// request is one request of a case.
type request struct {
	method, target string
	header         []string
	body           []byte
	fault          *ingest.Fault
}

// Run runs every case below testdata/wire against the protocols.
func Run(t *testing.T, protocols func() []ingest.Protocol) {
	files := caseFiles(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runCase(t, string(data), protocols())
			if got == string(data) {
				return
			}
			if !*update {
				t.Errorf("%s: got\n%s\nwant\n%s", file, got, data)
				return
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func caseFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/wire/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases below testdata/wire (%v)", err)
	}
	return files
}

// runCase returns the case as its file should be.
func runCase(t *testing.T, data string, protocols []ingest.Protocol) string {
	t.Helper()
	comment, sections := parse(t, data)
	var out strings.Builder
	out.WriteString(comment)
	g := ingesttest.New(t, protocols...)
	for i := 0; i < len(sections); {
		s := sections[i]
		switch s.name {
		case "app":
			setApp(t, g, s.text)
			fmt.Fprintf(&out, "-- app --\n%s", s.text)
			i++
		case "request":
			req, n := readRequest(t, sections[i:])
			for _, part := range sections[i : i+n] {
				fmt.Fprintf(&out, "-- %s --\n%s", part.name, part.text)
			}
			g.Fault = req.fault
			res := g.Do(req.method, req.target, req.body, req.header...)
			fmt.Fprintf(&out, "-- reply --\n%s-- stored --\n%s", reply(res), Stored(res))
			i += n
		case "reply", "stored":
			i++
		default:
			t.Fatalf("section %q is not known here", s.name)
		}
	}
	return out.String()
}

func setApp(t testing.TB, g *ingesttest.Gateway, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "account-keys":
			for _, k := range strings.Split(value, ",") {
				g.App.AccountKeys = append(g.App.AccountKeys, strings.TrimSpace(k))
			}
		case "quantity-key":
			g.App.QuantityKey = value
		case "ip":
			g.App.IPMode = map[string]ingest.IPMode{"none": ingest.IPNone, "truncated": ingest.IPTruncated, "full": ingest.IPFull}[value]
		default:
			t.Fatalf("app setting %q is not known here", name)
		}
	}
}

// readRequest returns a request and how many sections it took.
func readRequest(t testing.TB, sections []section) (request, int) {
	t.Helper()
	var req request
	lines := strings.Split(strings.TrimSpace(sections[0].text), "\n")
	req.method, req.target, _ = strings.Cut(lines[0], " ")
	req.header = lines[1:]
	n := 1
	for ; n < len(sections); n++ {
		name, words, _ := strings.Cut(sections[n].name, " ")
		switch name {
		case "body":
			req.body = wrap(t, sections[n].text, strings.Fields(words))
			continue
		case "fault":
			req.fault = faultOf(t, strings.TrimSpace(sections[n].text))
			continue
		}
		break
	}
	return req, n
}

func faultOf(t testing.TB, name string) *ingest.Fault {
	t.Helper()
	for k := ingest.BadKey; k <= ingest.Broken; k++ {
		if k.String() == name {
			f := &ingest.Fault{Kind: k, Detail: "as the test asks"}
			if k.Retryable() {
				f.RetryAfter = 1
			}
			return f
		}
	}
	t.Fatalf("no fault is called %q", name)
	return nil
}

func wrap(t testing.TB, text string, words []string) []byte {
	t.Helper()
	b := []byte(strings.TrimSuffix(text, "\n"))
	for _, word := range words {
		var buf bytes.Buffer
		pack := func(w io.WriteCloser) {
			if _, err := w.Write(b); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		switch word {
		case "gzip":
			pack(gzip.NewWriter(&buf))
		case "zlib":
			pack(zlib.NewWriter(&buf))
		case "zstd":
			w, err := zstd.NewWriter(&buf)
			if err != nil {
				t.Fatal(err)
			}
			pack(w)
		case "base64":
			buf.WriteString(base64.StdEncoding.EncodeToString(b))
		case "form":
			buf.WriteString("data=" + url.QueryEscape(string(b)))
		case "rawform":
			buf.WriteString("data=" + string(b))
		case "hex":
			raw, err := hex.DecodeString(strings.Join(strings.Fields(string(b)), ""))
			if err != nil {
				t.Fatal(err)
			}
			buf.Write(raw)
		default:
			if strings.HasPrefix(word, "&") { // further fields of the form
				buf.WriteString(string(b) + word)
				break
			}
			if strings.HasSuffix(word, "&") {
				buf.WriteString(word + string(b))
				break
			}
			t.Fatalf("a body cannot be wrapped in %q", word)
		}
		b = buf.Bytes()
	}
	return b
}

func reply(res ingesttest.Result) string {
	text := fmt.Sprintf("%d %s\n", res.Status, res.Header.Get("Content-Type"))
	if res.Body == "" {
		return text
	}
	body := res.Body
	for _, c := range body {
		if c < ' ' && c != '\n' {
			return text + "hex " + hex.EncodeToString([]byte(body)) + "\n"
		}
	}
	return text + strings.TrimSuffix(body, "\n") + "\n"
}

// Stored writes what a request stored, a block of lines for each record.
func Stored(res ingesttest.Result) string {
	var out strings.Builder
	for _, e := range res.Events {
		fmt.Fprintf(&out, "%s %q", e.Kind, e.Event)
		for _, f := range []struct{ name, value string }{
			{"id", id(e.MessageID)},
			{"user", e.UserID},
			{"anonymous", e.AnonymousID},
			{"previous", e.PreviousID},
			{"account", e.AccountID},
			{"at", instant(e.Timestamp)},
			{"sent", instant(e.SentAt)},
			{"unread", string(e.Unread)},
			{"library", e.Library},
			{"ip", unlessDefault(e.IP, "203.0.113.77")},
			{"agent", unlessDefault(e.UserAgent, "ingesttest/1")},
		} {
			if f.value != "" {
				fmt.Fprintf(&out, " %s=%s", f.name, f.value)
			}
		}
		if e.Quantity != 1 {
			fmt.Fprintf(&out, " quantity=%d", e.Quantity)
		}
		out.WriteString("\n")
		for _, f := range []struct {
			name  string
			value []byte
		}{{"properties", e.Properties}, {"traits", e.Traits}, {"context", e.Context}} {
			if len(f.value) > 0 {
				fmt.Fprintf(&out, "  %s %s\n", f.name, f.value)
			}
		}
	}
	for _, r := range res.Rejected {
		fmt.Fprintf(&out, "rejected %s %q id=%s: %s\n  %s\n", r.Code, r.Field, id(r.MessageID), r.Detail, r.Original)
	}
	return out.String()
}

// id writes ids that the gateway made as what they are.
func id(s string) string {
	ms := fmt.Sprintf("%012x", ingesttest.ReceivedAt.UnixMilli())
	if prefix := ms[:8] + "-" + ms[8:]; strings.HasPrefix(s, prefix) {
		if len(s) > 36 {
			return "(new)" + s[36:]
		}
		return "(new)"
	}
	return s
}

func instant(us event.Micros) string {
	if us == 0 {
		return ""
	}
	return event.ToTime(us).Format(time.RFC3339Nano)
}

func unlessDefault(s, standard string) string {
	switch s {
	case standard:
		return ""
	case "":
		return "(none)"
	}
	return s
}

// Fuzz throws bodies at the protocols, with the requests of the cases as seeds,
// and expects an answer that is neither a panic nor a fault of the gateway, and
// records that are right whatever came in.
func Fuzz(f *testing.F, protocols func() []ingest.Protocol) {
	type shape struct {
		method, target string
		header         []string
	}
	var shapes []shape
	for _, file := range caseFiles(f) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		_, sections := parse(f, string(data))
		for i := range sections {
			if sections[i].name == "request" {
				req, _ := readRequest(f, sections[i:])
				f.Add(uint8(len(shapes)), req.body)
				shapes = append(shapes, shape{req.method, req.target, req.header})
			}
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, body []byte) {
		s := shapes[int(i)%len(shapes)]
		g := ingesttest.New(t, protocols()...)
		g.Limits.MaxBodyBytes = 1 << 20
		res := g.Do(s.method, s.target, body, s.header...)
		if res.Status >= 500 || res.Status < 200 {
			t.Errorf("%s %s: got status %d %s", s.method, s.target, res.Status, res.Body)
		}
		for _, e := range res.Events {
			if e.MessageID == "" || e.AppID != g.App.ID || e.Quantity < 1 {
				t.Errorf("%s %s: got event %+v", s.method, s.target, e)
			}
		}
		if res.Fault != nil && len(res.Events)+len(res.Rejected) > 0 {
			t.Errorf("%s %s: got %d events with fault %v", s.method, s.target, len(res.Events), res.Fault)
		}
		// A second run sees the same: nothing hangs over from one to the next.
		again := g.Do(s.method, s.target, body, s.header...)
		if got, want := Stored(again), Stored(res); got != want && res.Status == again.Status {
			t.Errorf("%s %s: a second time got\n%s\nwant\n%s", s.method, s.target, got, want)
		}
	})
}
