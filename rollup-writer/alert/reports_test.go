package alert

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/note"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// postbox speaks enough SMTP to take mails.
func postbox(t *testing.T) (addr string, letters func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []string
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(conn)
			fmt.Fprint(conn, "220 hello\r\n")
			for {
				line, err := r.ReadString('\n')
				if err != nil || strings.HasPrefix(line, "QUIT") {
					break
				}
				if !strings.HasPrefix(line, "DATA") {
					fmt.Fprint(conn, "250 ok\r\n")
					continue
				}
				fmt.Fprint(conn, "354 go on\r\n")
				var text strings.Builder
				for line, err = r.ReadString('\n'); err == nil && line != ".\r\n"; line, err = r.ReadString('\n') {
					text.WriteString(line)
				}
				mu.Lock()
				got = append(got, text.String())
				mu.Unlock()
				fmt.Fprint(conn, "250 ok\r\n")
			}
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String(), func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(got) }
}

// reportBench is a bench with a mail server and a console.
type reportBench struct {
	*bench
	letters func() []string

	mu    sync.Mutex // covers what follows
	asked []string   // kind and id, with what they were asked for
	fails int        // how many answers are still errors
}

func newReportBench(t *testing.T) *reportBench {
	b := &reportBench{bench: newBench(t)}
	addr, letters := postbox(t)
	b.letters = letters
	console := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.asked = append(b.asked, strings.Join([]string{r.URL.Path, q.Get("app"), q.Get("kind"), q.Get("id"), q.Get("p"), q.Get("zone"), q.Get("until"), r.Header.Get("Authorization")}, " "))
		switch {
		case b.fails > 0:
			b.fails--
			w.WriteHeader(http.StatusBadGateway)
		case q.Get("id") == "deleted":
			w.WriteHeader(http.StatusNotFound)
		default:
			fmt.Fprint(w, `{"name":"Monday\r\nBcc: x@y.z","path":"/board?board=b1","period":"the 7 days to 19 Nov 2026","as_of":"2026-11-20T12:00:00Z","not_shown":1,"questions":[
				{"id":"q1","name":"Active","sentence":"2 people were active.","path":"/explore?show=active","columns":["day","people"],"rows":[["2026-11-19","2\tor 3"]],"more":6,"csv":"day,people\n2026-11-19,2\n"},
				{"id":"q2","name":"../Übel","sentence":"It takes longer than 20s.","path":"/explore?show=funnel"}]}`)
		}
	}))
	t.Cleanup(console.Close)
	file := filepath.Join(t.TempDir(), "targets.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, `allow: [127.0.0.1]
targets:
- {name: cs, kind: email, smtp: %[1]q, plain_smtp: true, from: Uptake <u@uptake.example>, to: [cs@shop.example], reports: true, apps: [dev], owners: [nobody]}
- {name: oncall, kind: email, smtp: %[1]q, plain_smtp: true, from: u@uptake.example, to: [oncall@shop.example], owners: [nobody]}
`, addr), 0o600); err != nil {
		t.Fatal(err)
	}
	b.cfg.Targets, b.cfg.ReportsURL, b.cfg.ReportsToken = file, console.URL, "a token of the console"
	return b
}

// schedule writes a note as the writer loads it.
func (b *reportBench) schedule(app, kind, id string, written time.Time, m *note.Mail) {
	b.t.Helper()
	n := note.Note{App: app, Kind: kind, ID: id, Written: written}
	if kind == note.KindBoard {
		n.Board = &note.Board{Name: "Monday", Mail: m}
	} else {
		n.Question = &note.Question{Name: "Active", Query: "show=active", Mail: m}
	}
	if err := n.Validate(); err != nil {
		b.t.Fatal(err)
	}
	if err := b.SQL.Exec(b.t.Context(), "INSERT INTO "+b.cfg.ClickHouse.Schema().Table("notes")+" (app_id, kind, id, value, author, removed, version, written_at) VALUES (?, ?, ?, ?, '', 0, ?, ?)",
		app, kind, id, string(n.Value()), uint64(written.Unix()), written); err != nil {
		b.t.Fatal(err)
	}
}

func (b *reportBench) awaitLetters(want int) []string {
	b.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); len(b.letters()) < want; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("%d mails, want %d", len(b.letters()), want)
		}
	}
	return b.letters()
}

// awaitMarks waits for the states of the reports by kind, id and target.
func (b *reportBench) awaitMarks(want map[string]string) {
	b.t.Helper()
	opts, err := b.cfg.Kafka.Options(b.Log, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := reader.New(opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	m := newMemory(r, b.cfg.Kafka.Names(), nil)
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if err := m.catchUp(b.t.Context()); err != nil {
			b.t.Fatal(err)
		}
		got := map[string]string{}
		for k, s := range m.reports {
			got[strings.Join(strings.Split(k, "\x00")[1:], " ")] = s.Due.Format(time.RFC3339) + " " + s.State
		}
		if fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// A board is mailed once for each time that it is due, with what the console says, also
// after a restart and after an answer of the console that is an error; what cannot be mailed
// is given up until the next time.
func TestReportsAreMailed(t *testing.T) {
	b := newReportBench(t)
	b.fails = 1
	before := now.AddDate(0, 0, -3)
	daily := func(to ...string) *note.Mail {
		return &note.Mail{Every: note.Daily, Hour: 8, Zone: "Europe/Vienna", Days: 7, To: to}
	}
	b.schedule("dev", note.KindBoard, "b1", before, daily("cs"))
	b.schedule("dev", note.KindBoard, "b2", before, nil)
	b.schedule("dev", note.KindBoard, "deleted", before, daily("cs"))
	b.schedule("dev", note.KindQuestion, "q1", before, &note.Mail{Every: note.Weekly, Weekday: 3, Hour: 23, Zone: "UTC", Days: 28, To: []string{"cs"}})
	b.schedule("dev", note.KindQuestion, "q2", now.Add(-time.Minute), daily("cs")) // after it was due
	b.schedule("dev", note.KindQuestion, "q3", before, daily("oncall"))            // takes no reports
	b.schedule("other", note.KindBoard, "b3", before, daily("cs"))                 // takes none of this app
	marks := map[string]string{
		"dev board b1 cs": "2026-11-20T07:00:00Z delivered", "dev board deleted cs": "2026-11-20T07:00:00Z dead", "dev question q1 cs": "2026-11-18T23:00:00Z delivered",
		"dev question q3 oncall": "2026-11-20T07:00:00Z dead", "other board b3 cs": "2026-11-20T07:00:00Z dead",
	}
	stop := b.start(nil)
	b.awaitMarks(marks)
	stop()
	letters := b.awaitLetters(2)
	i := slices.IndexFunc(letters, func(l string) bool {
		return strings.Contains(l, "=2019_Nov") || strings.Contains(l, "Subject: dev: Monday")
	})
	if i < 0 {
		t.Fatalf("got %q", letters)
	}
	letter, err := mail.ReadMessage(strings.NewReader(letters[i]))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(letter.Header.Get("Subject"))
	if want := "dev: Monday  Bcc: x@y.z, the 7 days to 19 Nov 2026"; err != nil || subject != want || letter.Header.Get("Bcc") != "" || letter.Header.Get("To") != "<cs@shop.example>" {
		t.Errorf("got %q, %v, %v, want %q", subject, err, letter.Header, want)
	}
	_, params, err := mime.ParseMediaType(letter.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(letter.Body, params["boundary"])
	text, err := parts.NextRawPart()
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Active\r\n======\r\n\r\n2 people were active.\r\n", "day         people\r\n2026-11-19  2 or 3\r\nand 6 more, in the file\r\n", "../Übel\r\n=======\r\n\r\nIt takes longer than 20s.\r\n",
		"/explore?show=active\r\n", "1 more questions are on the board.", "/board?board=b1\r\n",
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	file, err := parts.NextRawPart()
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, file))
	if err != nil || file.FileName() != "01-Active.csv" || string(data) != "day,people\n2026-11-19,2\n" {
		t.Errorf("attached %s %q, %v", file.FileName(), data, err)
	}
	if _, err := parts.NextRawPart(); !errors.Is(err, io.EOF) {
		t.Errorf("another part: %v", err)
	}
	b.mu.Lock()
	const asks = "/api/v1/report dev board b1 7d Europe/Vienna 2026-11-20 Bearer a token of the console"
	if !slices.Contains(b.asked, asks) {
		t.Errorf("asked %q", b.asked)
	}
	b.mu.Unlock()

	// A restart sends nothing again; a new schedule shows that it has looked.
	b.schedule("dev", note.KindQuestion, "q9", before, daily("cs"))
	marks["dev question q9 cs"] = "2026-11-20T07:00:00Z delivered"
	stop = b.start(nil)
	b.awaitMarks(marks)
	stop()
	if got := len(b.letters()); got != 3 {
		t.Errorf("%d mails, want 3", got)
	}
}

// A process that dies between the answer of the mail server and its mark sends the mail
// again, under the same Message-ID.
func TestReportIsSentAgainWithoutItsMark(t *testing.T) {
	b := newReportBench(t)
	b.schedule("dev", note.KindBoard, "b1", now.AddDate(0, 0, -3), &note.Mail{Every: note.Daily, Hour: 8, Zone: "UTC", Days: 1, To: []string{"cs"}})
	var once sync.Once
	stop := b.start(func(step string) (err error) {
		if step == "alerts.before-report-mark" {
			once.Do(func() { err = errors.New("died") })
		}
		return err
	})
	defer stop()
	b.awaitMarks(map[string]string{"dev board b1 cs": "2026-11-20T08:00:00Z delivered"})
	var ids []string
	for _, l := range b.awaitLetters(2) {
		letter, err := mail.ReadMessage(strings.NewReader(l))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, letter.Header.Get("Message-Id"))
	}
	if ids[0] != ids[1] || !strings.HasPrefix(ids[0], "<rep_") {
		t.Errorf("Message-IDs %q", ids)
	}
}
