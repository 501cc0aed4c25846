package deliver

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/signal"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC) // a Wednesday

func message(id string) signal.Message {
	return signal.Message{
		ID: id, AlertID: "al_1", App: "dev", Signal: "silent", Version: 2, State: "firing", Level: "account", Subject: "acme", Severity: "critical", Owner: "cs",
		At: noon, Reason: "0 events in 7d", Title: "Gone silent", Playbook: "Call.", Closes: "They are back.",
	}
}

// file writes a file of the test and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func load(t *testing.T, text string) *Targets {
	t.Helper()
	ts, err := LoadTargets(file(t, "targets.yaml", text))
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

// receiver answers with the statuses in turn, the last one forever, and keeps what
// it was sent.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex // covers what follows
	requests []*http.Request
	bodies   [][]byte
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *receiver {
	t.Helper()
	rec := &receiver{}
	rec.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rec.mu.Lock()
		rec.requests, rec.bodies = append(rec.requests, r), append(rec.bodies, body)
		n := len(rec.requests)
		rec.mu.Unlock()
		answer(n, w, r)
	}))
	t.Cleanup(rec.Close)
	return rec
}

func TestWebhookIsSignedWithAllKeys(t *testing.T) {
	rec := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	keys := [][]byte{[]byte(strings.Repeat("a", 24)), []byte(strings.Repeat("b", 32))}
	var files []string
	for i, k := range keys {
		files = append(files, file(t, fmt.Sprint("key", i), "whsec_"+base64.StdEncoding.EncodeToString(k)+"\n"))
	}
	ts := load(t, fmt.Sprintf("allow: [127.0.0.1]\ntargets:\n- {name: cs, kind: webhook, url: %q, secret_files: [%s], header_files: {Authorization: %s}}\n",
		rec.URL+"/hook", strings.Join(files, ", "), file(t, "auth", "Bearer x")))
	if err := ts.Send(t.Context(), Batch{Target: "cs", Messages: []signal.Message{message("msg_1")}}, noon); err != nil {
		t.Fatal(err)
	}
	r, body := rec.requests[0], rec.bodies[0]
	if got, want := []string{r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), r.Header.Get("Authorization")}, []string{"msg_1", "1772625600", "Bearer x"}; !slices.Equal(got, want) {
		t.Errorf("headers: got %q, want %q", got, want)
	}
	var want []string
	for _, k := range keys {
		mac := hmac.New(sha256.New, k)
		mac.Write([]byte("msg_1.1772625600." + string(body)))
		want = append(want, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if got := r.Header.Get("webhook-signature"); got != strings.Join(want, " ") {
		t.Errorf("signature: got %q, want %q", got, want)
	}
	var got Webhook
	if err := json.Unmarshal(body, &got); err != nil || got.Type != "alert.firing" || got.Data != message("msg_1") {
		t.Errorf("body: got %s, %v", body, err)
	}
}

func TestBodiesOfTicketsKeepTheirShape(t *testing.T) {
	rec := newReceiver(t, func(int, http.ResponseWriter, *http.Request) {})
	body := file(t, "body.json", `{"fields": {"summary": "{{.Title}} at {{.Subject}}", "labels": ["uptake", "{{.Signal}}"], "priority": 2}}`)
	ts := load(t, fmt.Sprintf("allow: [127.0.0.0/8]\ntargets:\n- {name: jira, kind: webhook, url: %q, body_file: %s}\n", rec.URL, body))
	m := message("m")
	m.Subject = `acme", "priority": 1, "x": "{{.Title}}`
	if err := ts.Send(t.Context(), Batch{Target: "jira", Messages: []signal.Message{m}}, noon); err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(rec.bodies[0], &got); err != nil {
		t.Fatal(err)
	}
	want = map[string]any{"fields": map[string]any{"summary": "Gone silent at " + m.Subject, "labels": []any{"uptake", "silent"}, "priority": 2.0}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, bad := range []string{`{"a": "{{readFile \"/etc/passwd\"}}"}`, `{"a": "{{.Nothing}}"}`, `{"a": "{{.At.UnmarshalText}}"}`, `{`} {
		if _, err := LoadTargets(file(t, "t.yaml", fmt.Sprintf("allow: [127.0.0.1]\ntargets:\n- {name: j, kind: webhook, url: %q, body_file: %s}\n", rec.URL, file(t, "b", bad)))); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestSlackTextHasNoControlSequences(t *testing.T) {
	rec := newReceiver(t, func(int, http.ResponseWriter, *http.Request) {})
	ts := load(t, fmt.Sprintf("allow: [127.0.0.1]\ntargets:\n- {name: s, kind: slack, url_file: %s}\n", file(t, "url", rec.URL+"/secret\n")))
	m := message("m")
	m.Subject = "<!channel> & <https://evil.example|acme>\n\u202efine"
	m.FeedbackURL = "http://c.example/feedback?link=a.b"
	if err := ts.Send(t.Context(), Batch{Target: "s", Messages: []signal.Message{m}}, noon); err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(rec.bodies[0], &got); err != nil {
		t.Fatal(err)
	}
	want := "[FIRING] Gone silent: account &lt;!channel&gt; &amp; &lt;https://evil.example|acme&gt;  fine: 0 events in 7d\nNext: Call.\nUseful or not? http://c.example/feedback?link=a.b"
	if got["text"] != want {
		t.Errorf("got %q, want %q", got["text"], want)
	}
}

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
				mu.Lock()
				got = append(got, line)
				mu.Unlock()
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

func TestMailHeadersCannotBeAddedTo(t *testing.T) {
	addr, letters := postbox(t)
	ts := load(t, fmt.Sprintf("allow: [127.0.0.1]\ntargets:\n- {name: m, kind: email, smtp: %q, plain_smtp: true, from: Uptake <u@uptake.example>, to: [cs@shop.example]}\n", addr))
	m := message("m1")
	m.Subject = "acme\r\nBcc: all@shop.example\r\n\r\n.\r\nüber"
	m.Owner = "cs\nX: y"
	if err := ts.Send(t.Context(), Batch{Target: "m", Messages: []signal.Message{m}}, noon); err != nil {
		t.Fatal(err)
	}
	got := letters()
	if slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "RCPT") && !strings.Contains(l, "<cs@shop.example>") }) {
		t.Errorf("recipients: %q", got)
	}
	letter, err := mail.ReadMessage(strings.NewReader(got[len(got)-1]))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(letter.Header.Get("Subject"))
	if want := "[FIRING] Gone silent: account acme  Bcc: all@shop.example    .  über: 0 events in 7d"; err != nil || subject != want {
		t.Errorf("subject: got %q, %v, want %q", subject, err, want)
	}
	if len(letter.Header) != 9 || letter.Header.Get("Bcc") != "" || letter.Header.Get("Message-Id") != "<m1@uptake.invalid>" {
		t.Errorf("headers: %v", letter.Header)
	}
}

func TestWhatMayBeDialled(t *testing.T) {
	for ip, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "::ffff:8.8.8.8": true,
		"127.0.0.1": false, "::1": false, "::ffff:127.0.0.1": false, "0.0.0.0": false, "::": false,
		"10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "fd00::1": false, "::ffff:10.0.0.1": false,
		"169.254.169.254": false, "::ffff:169.254.169.254": false, "fe80::1%eth0": false, "fd00:ec2::254": false, "100.100.100.200": false,
		"64:ff9b::a9fe:a9fe": false, "2002:a9fe:a9fe::1": false, "::a9fe:a9fe": false, "224.0.0.1": false, "255.255.255.255": false, "192.0.0.192": false,
	} {
		if got := public(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: got %v, want %v", ip, got, want)
		}
	}
	for text, want := range map[string]string{
		"targets: [{name: a, kind: webhook, url: 'https://hooks.example/x'}]":                                                       "host hooks.example is not in allow",
		"targets: [{name: a, kind: webhook, url: 'https://169.254.169.254/latest'}]":                                                "in no network of allow",
		"allow: [hooks.example]\ntargets: [{name: a, kind: webhook, url: 'http://hooks.example/x'}]":                                "url must be https",
		"allow: [hooks.example]\ntargets: [{name: a, kind: webhook, url: 'https://u:p@hooks.example'}]":                             "without a user",
		"allow: [mx.example]\ntargets: [{name: a, kind: email, smtp: 'mx.example:25', from: a@b.c, to: [a@b.c], plain_smtp: true}]": "plain_smtp is for an address",

		"targets: [{name: a, kind: pigeon}]":           "kind must be webhook, slack or email",
		"targets: [{nome: a}]":                         `line 1, column 12: targets[0].nome: unknown field "nome"; there are apps,`,
		"targets:\n- {name: a,\n  max_per_hour: many}": `line 3, column 17: targets[0].max_per_hour: must be a whole number (got "many")`,
		"targets:\n- {name: a, timeout: 5}":            "must be a duration such as 10m",
		"allow: [h.example]\ntargets: [{name: a, kind: slack, url: 'https://h.example', quiet: {zone: Nowhere, from: '20:00', to: '07:00'}}]": "quiet.zone must be",
	} {
		if _, err := LoadTargets(file(t, "t.yaml", text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// A name that is allowed and resolves to this machine is refused when it is dialled,
// whatever proxy the environment names; and a redirect is an error.
func TestDialledAddressCounts(t *testing.T) {
	proxied := newReceiver(t, func(int, http.ResponseWriter, *http.Request) {})
	t.Setenv("HTTP_PROXY", proxied.URL)
	t.Setenv("HTTPS_PROXY", proxied.URL)
	ts := load(t, "allow: [localhost]\ntargets: [{name: a, kind: webhook, url: 'https://localhost:1/x'}]")
	if err := ts.Send(t.Context(), Batch{Target: "a", Messages: []signal.Message{message("m")}}, noon); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want %v", err, ErrRefused)
	}
	there := newReceiver(t, func(int, http.ResponseWriter, *http.Request) {})
	from := newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, there.URL, http.StatusTemporaryRedirect)
	})
	ts = load(t, fmt.Sprintf("allow: [127.0.0.1]\ntargets: [{name: a, kind: webhook, url: %q}]", from.URL))
	err := ts.Send(t.Context(), Batch{Target: "a", Messages: []signal.Message{message("m")}}, noon)
	if err == nil || !strings.Contains(err.Error(), "answered 307") {
		t.Errorf("redirect: got %v", err)
	}
	if len(proxied.requests)+len(there.requests) > 0 || len(from.requests) != 1 {
		t.Errorf("requests: proxy %d, target of the redirect %d, receiver %d", len(proxied.requests), len(there.requests), len(from.requests))
	}
}

// A secret in an error would be logged.
func TestErrorsHoldNoSecrets(t *testing.T) {
	ts := load(t, fmt.Sprintf("allow: [127.0.0.1]\ntargets: [{name: s, kind: slack, url_file: %s}]", file(t, "url", "http://127.0.0.1:1/services/TOPSECRET")))
	err := ts.Send(t.Context(), Batch{Target: "s", Messages: []signal.Message{message("m")}}, noon)
	if err == nil || strings.Contains(err.Error(), "TOPSECRET") {
		t.Errorf("got %v", err)
	}
	bad := file(t, "key", "TOPSECRET")
	ts = load(t, fmt.Sprintf("allow: [127.0.0.1]\ntargets: [{name: s, kind: webhook, url: 'http://127.0.0.1:1', secret_files: [%s]}]", bad))
	if err := ts.Send(t.Context(), Batch{Target: "s", Messages: []signal.Message{message("m")}}, noon); err == nil || strings.Contains(err.Error(), "TOPSECRET") {
		t.Errorf("got %v", err)
	}
}

// TestReceiverThatFailsHangsAndAnswersTwice sends to a receiver that does, until all
// is delivered, under the same id at each attempt.
func TestReceiverThatFailsHangsAndAnswersTwice(t *testing.T) {
	released := make(chan struct{})
	rec := newReceiver(t, func(n int, w http.ResponseWriter, r *http.Request) {
		switch n {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2: // hangs
			select {
			case <-released:
			case <-r.Context().Done():
			}
		case 3: // takes it, and dies before the answer
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		}
	})
	defer close(released)
	ts := load(t, fmt.Sprintf("allow: [127.0.0.1]\ntargets: [{name: a, kind: webhook, url: %q, timeout: 200ms}]", rec.URL))
	q := NewQueue(&ts.Targets[0])
	now := noon
	q.Put(message("m1"), now)
	q.Put(message("m1"), now)
	attempts := 0
	for ; q.Len() > 0 && attempts < 10; now = now.Add(time.Second) {
		b, ok := q.Next(now)
		if !ok {
			continue
		}
		attempts++
		_, dead := q.Done(b, ts.Send(context.Background(), b, now), now)
		if len(dead) > 0 {
			t.Fatalf("dead: %v", dead)
		}
	}
	if attempts != 4 || len(rec.requests) != 4 {
		t.Errorf("got %d attempts, %d requests, want 4", attempts, len(rec.requests))
	}
	for _, r := range rec.requests {
		if got := r.Header.Get("webhook-id"); got != "m1" {
			t.Errorf("id: got %q", got)
		}
	}
}

func TestQuietHoursHoldAndThenDigest(t *testing.T) {
	ts := load(t, "allow: [127.0.0.1]\ntargets: [{name: a, kind: slack, url: 'http://127.0.0.1:1', quiet: {zone: Asia/Kathmandu, from: '20:00', to: '07:00', days: [sat]}}]")
	q := NewQueue(&ts.Targets[0])
	night := time.Date(2026, 3, 6, 14, 16, 0, 0, time.UTC) // Friday, 20:01 in Kathmandu; Saturday is quiet, too
	other := message("m3")
	other.Owner = "payments"
	for _, m := range []signal.Message{message("m1"), message("m2"), other} {
		q.Put(m, night)
	}
	at := night
	for ; ; at = at.Add(time.Minute) {
		if _, ok := q.Next(at); ok {
			break
		}
	}
	if want := time.Date(2026, 3, 8, 1, 15, 0, 0, time.UTC); !at.Equal(want) { // Sunday, 07:00 in Kathmandu
		t.Errorf("first delivery at %s, want %s", at, want)
	}
	q = NewQueue(&ts.Targets[0])
	for _, m := range []signal.Message{message("m1"), other, message("m2")} {
		q.Put(m, night)
	}
	var got []string
	for range 2 {
		b, _ := q.Next(at)
		got = append(got, fmt.Sprint(len(b.Messages), " ", b.Messages[0].Owner))
		q.Done(b, nil, at)
	}
	if want := []string{"2 cs", "1 payments"}; !slices.Equal(got, want) {
		t.Errorf("batches: got %q, want %q", got, want)
	}
}

func TestRateBackoffAndDeadLetters(t *testing.T) {
	ts := load(t, "allow: [127.0.0.1]\ntargets: [{name: a, kind: webhook, url: 'http://127.0.0.1:1', max_per_hour: 3, give_up: 2h}]")
	q := NewQueue(&ts.Targets[0])
	for i := range 5 {
		q.Put(message(fmt.Sprint("m", i)), noon)
	}
	sent := map[string][]time.Duration{}
	var dead []string
	for now := noon; now.Before(noon.Add(6 * time.Hour)); now = now.Add(time.Second) {
		b, ok := q.Next(now)
		if !ok {
			continue
		}
		id := b.Messages[0].ID
		sent[id] = append(sent[id], now.Sub(noon))
		var err error
		switch id {
		case "m0":
			err = errors.New("refused")
		case "m1":
			err = &PermanentError{errors.New("gone")}
		}
		_, gone := q.Done(b, err, now)
		for _, m := range gone {
			dead = append(dead, m.ID)
		}
	}
	if !slices.Equal(dead, []string{"m1", "m0"}) || q.Len() != 0 {
		t.Errorf("dead: got %q, %d left", dead, q.Len())
	}
	if len(sent["m1"]) != 1 || len(sent["m0"]) < 3 || sent["m0"][1] < minPause {
		t.Errorf("attempts: %v", sent)
	}
	perHour := map[int]int{}
	for _, at := range sent {
		for _, d := range at {
			perHour[int(d/time.Hour)]++
		}
	}
	for h, n := range perHour {
		if n > 3 {
			t.Errorf("hour %d: %d requests", h, n)
		}
	}
}

func TestWhoWantsWhat(t *testing.T) {
	no := false
	m := message("m")
	for i, c := range []struct {
		target   Target
		audience []string
		want     bool
	}{
		{Target{Name: "a"}, nil, true},
		{Target{Name: "a", Default: &no}, nil, false},
		{Target{Name: "a", Default: &no}, []string{"a"}, true},
		{Target{Name: "a"}, []string{"b"}, false},
		{Target{Name: "a", Owners: []string{"x"}}, nil, false},
		{Target{Name: "a", MinSeverity: "critical"}, nil, true},
	} {
		if got := c.target.Wants(&m, c.audience); got != c.want {
			t.Errorf("%d: got %v", i, got)
		}
	}
	m.Severity = "info"
	if (&Target{Name: "a", MinSeverity: "warning"}).Wants(&m, nil) {
		t.Error("too mild a message was wanted")
	}
}
