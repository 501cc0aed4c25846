package alert

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/alert/deliver"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/note"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// Reports are saved questions and boards of the console that are mailed on a schedule. The
// schedules are notes; what a mail says is asked of the console, so that its numbers are
// those of the pages. A mark in the state says which mail was the last: it is written after
// the mail server has accepted the mail, so a mail may be sent twice, under one Message-ID,
// and none is left out.

const (
	reportTimeout = 2 * time.Minute // of the console
	largestReport = 16 << 20        // bytes of its answer

	reportsName = "scheduled mails" // of the attempts
)

// sent is the last report of a schedule to a target.
type sent struct {
	Due   time.Time `json:"due"`
	State string    `json:"state"` // markDelivered or markDead
	At    time.Time `json:"at"`
	Error string    `json:"error,omitempty"`
}

// schedule is a board or a question that is mailed.
type schedule struct {
	app, kind, id, name string
	mail                note.Mail
	written             time.Time
}

// schedules reads all of them. One that this release cannot read is reported, and left out.
func (s *Service) schedules(ctx context.Context) ([]schedule, error) {
	var list []schedule
	type row struct {
		schedule
		text string
	}
	err := tables.Each(ctx, s.store.conn, func(r *row) []any { return []any{&r.app, &r.kind, &r.id, &r.name, &r.text, &r.written} }, func(r *row) {
		if err := json.Unmarshal([]byte(r.text), &r.mail); err != nil {
			s.log.Error("a schedule of mails cannot be read", "app", r.app, "kind", r.kind, "id", r.id, "error", err)
			return
		}
		list = append(list, r.schedule)
	}, `SELECT app_id, '`+note.KindBoard+`' AS kind, id, name, mail, written_at FROM boards WHERE mail != ''
		UNION ALL SELECT app_id, '`+note.KindQuestion+`' AS kind, id, name, mail, written_at FROM saved_questions WHERE mail != ''`)
	if err != nil {
		return nil, fmt.Errorf("read schedules of mails: %w", err)
	}
	return list, nil
}

// report is one mail that is due.
type report struct {
	schedule
	due    time.Time
	target string
}

func (r *report) key() string {
	return signal.Key(signal.KeyReport, r.app, r.kind, r.id, r.target)
}

// messageID is the same at each attempt.
func (r *report) messageID() string {
	h := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %d", r.app, r.kind, r.id, r.target, r.due.Unix()))
	return "rep_" + hex.EncodeToString(h[:12])
}

// tries are the attempts at a report.
type tries struct {
	due   time.Time
	first time.Time
	next  time.Time
	pause backoff.Backoff
}

// reported is the result of an attempt.
type reported struct {
	report
	err error
}

// reporter sends the reports that are due, one at a time: the console answers the questions
// of one while nobody waits for it.
type reporter struct {
	s       *Service
	list    []schedule
	read    time.Time // when list was read
	tries   map[string]*tries
	results chan reported
	running bool
}

func newReporter(s *Service) *reporter {
	return &reporter{s: s, tries: map[string]*tries{}, results: make(chan reported, 1)}
}

// start reads the schedules once in an interval, and starts the attempt that is due.
func (p *reporter) start(ctx context.Context, now time.Time) error {
	if p.s.cfg.ReportsURL == "" || p.running {
		return nil
	}
	if now.Sub(p.read) >= p.s.cfg.Interval {
		list, err := p.s.schedules(ctx)
		if err != nil {
			return err
		}
		p.list, p.read = list, now
	}
	for _, sch := range p.list {
		due, err := sch.mail.Due(now)
		if err != nil {
			continue // the zone is not known here; the console refuses such
		}
		for _, target := range sch.mail.To {
			r := report{sch, due, target}
			if p.due(&r, now) {
				p.running = true
				p.s.progress.began(reportsName, time.Now().Add(reportTimeout+time.Minute)) // targets have at most a minute
				go func() {                                                                // ends with the attempt, for which drain waits
					err := p.s.mailReport(ctx, &r, now)
					if after := p.s.hit("alerts.after-report"); err == nil {
						err = after
					}
					p.results <- reported{r, err}
				}()
				return nil
			}
		}
	}
	return nil
}

// due reports whether a report is to be sent now.
func (p *reporter) due(r *report, now time.Time) bool {
	last, begun := p.s.memory.reports[r.key()]
	if begun && !last.Due.Before(r.due) || !begun && r.written.After(r.due) {
		return false
	}
	if t := p.s.targets.Reports(r.target, r.app); t != nil && t.QuietAt(now) {
		return false
	}
	t := p.tries[r.key()]
	if t == nil || !t.due.Equal(r.due) {
		t = &tries{due: r.due, first: now, pause: backoff.Backoff{Min: 5 * time.Second, Max: time.Hour}}
		p.tries[r.key()] = t
	}
	return !now.Before(t.next)
}

// finish marks a report that was sent, or given up.
func (p *reporter) finish(ctx context.Context, r reported) error {
	p.running = false
	p.s.progress.ended(reportsName)
	s, now := p.s, p.s.now()
	t := p.tries[r.key()]
	m := sent{Due: r.due.UTC(), State: markDelivered, At: now.UTC()}
	target := s.targets.Reports(r.target, r.app)
	var permanent *deliver.PermanentError
	switch {
	case r.err == nil:
		s.metrics.attempts.WithLabelValues(r.target, "delivered").Inc()
	case errors.As(r.err, &permanent) || now.Sub(t.first) >= target.GiveUp:
		s.metrics.attempts.WithLabelValues(r.target, "failed").Inc()
		s.metrics.dead.WithLabelValues(r.target).Inc()
		s.log.Error("a report is given up until it is due again", "app", r.app, "kind", r.kind, "id", r.id, "name", r.name, "target", r.target, "due", r.due, "error", r.err)
		m.State, m.Error = markDead, r.err.Error()
	default:
		s.metrics.attempts.WithLabelValues(r.target, "failed").Inc()
		t.next = now.Add(t.pause.Next())
		s.log.Warn("a report was not sent; it is tried again", "app", r.app, "kind", r.kind, "id", r.id, "target", r.target, "due", r.due, "next", t.next, "error", r.err)
		return nil
	}
	delete(p.tries, r.key())
	if err := s.hit("alerts.before-report-mark"); err != nil {
		return err
	}
	rec := stateRecord(s.names, r.key(), m)
	if err := s.producer.ProduceSync(ctx, rec).FirstErr(); err != nil {
		return fmt.Errorf("write reports: %w", err)
	}
	s.memory.reports[r.key()] = m
	return nil
}

// drain waits for the attempt in progress, which was cancelled. One that does not end is
// abandoned, and made again by whoever evaluates next.
func (p *reporter) drain(ctx context.Context) error {
	if !p.running {
		return nil
	}
	p.s.progress.enter("wait for a mail to end")
	ctx, cancel := context.WithTimeout(ctx, drainWait)
	defer cancel()
	select {
	case r := <-p.results:
		return p.finish(ctx, r)
	case <-ctx.Done():
		return errors.New("an attempt to mail a report did not end when it was cancelled")
	}
}

// takeReport applies a record of the state.
func (m *memory) takeReport(rec *kgo.Record) error {
	var r sent
	if err := json.Unmarshal(rec.Value, &r); err != nil {
		return err
	}
	m.reports[string(rec.Key)] = r
	return nil
}

// answer is what the console says to a report.
type answer struct {
	Name      string `json:"name"`
	Path      string `json:"path"`
	Period    string `json:"period"`
	AsOf      string `json:"as_of"`
	NotShown  int    `json:"not_shown"`
	Questions []struct {
		ID       string     `json:"id"`
		Name     string     `json:"name"`
		Sentence string     `json:"sentence"`
		Path     string     `json:"path"`
		Columns  []string   `json:"columns"`
		Rows     [][]string `json:"rows"`
		More     int        `json:"more"`
		CSV      string     `json:"csv"`
	} `json:"questions"`
}

// mailReport makes one attempt.
func (s *Service) mailReport(ctx context.Context, r *report, now time.Time) error {
	target := s.targets.Reports(r.target, r.app)
	if target == nil {
		return &deliver.PermanentError{Err: fmt.Errorf("no mail target %s with reports: true takes reports of app %s", r.target, r.app)}
	}
	a, err := s.askReport(ctx, r)
	if err != nil {
		return err
	}
	return s.targets.SendReport(ctx, target, s.letter(r, a), now)
}

// askReport asks the console what a report says.
func (s *Service) askReport(ctx context.Context, r *report) (*answer, error) {
	zone, err := time.LoadLocation(r.mail.Zone)
	if err != nil {
		return nil, err
	}
	q := url.Values{
		"app": {r.app}, "kind": {r.kind}, "id": {r.id}, "zone": {r.mail.Zone}, "p": {fmt.Sprintf("%dd", r.mail.Days)},
		"until": {r.due.In(zone).Format(time.DateOnly)}, // the days before it
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(s.cfg.ReportsURL, "/")+"/api/v1/report?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.cfg.ReportsToken.Reveal())
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the console: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, largestReport+1))
	if err != nil {
		return nil, fmt.Errorf("ask the console: %w", err)
	}
	if len(body) > largestReport {
		return nil, &deliver.PermanentError{Err: fmt.Errorf("the console's answer has more than %d bytes", largestReport)}
	}
	if res.StatusCode != http.StatusOK {
		err := fmt.Errorf("the console answered %d: %.300s", res.StatusCode, body)
		if res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusBadRequest { // it was deleted, or cannot be asked
			return nil, &deliver.PermanentError{Err: err}
		}
		return nil, err
	}
	a := &answer{}
	if err := json.Unmarshal(body, a); err != nil {
		return nil, fmt.Errorf("the console's answer: %w", err)
	}
	return a, nil
}

// letter is the mail with a console's answer.
func (s *Service) letter(r *report, a *answer) *deliver.Report {
	base := strings.TrimSuffix(s.cfg.ConsoleURL, "/")
	if base == "" {
		base = strings.TrimSuffix(s.cfg.ReportsURL, "/")
	}
	out := &deliver.Report{ID: r.messageID(), Subject: fmt.Sprintf("%s: %s, %s", r.app, a.Name, a.Period)}
	var b strings.Builder
	for _, q := range a.Questions {
		fmt.Fprintf(&b, "%s\n%s\n\n%s\n\n", q.Name, strings.Repeat("=", utf8.RuneCountInString(q.Name)), q.Sentence)
		if len(q.Rows) > 0 {
			t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
			for _, row := range append([][]string{q.Columns}, q.Rows...) {
				cells := make([]string, len(row))
				for i, c := range row {
					cells[i] = strings.Join(strings.Fields(c), " ") // no tabs or line ends of theirs
				}
				fmt.Fprintln(t, strings.Join(cells, "\t"))
			}
			_ = t.Flush() // into memory
			if q.More > 0 {
				fmt.Fprintf(&b, "and %d more, in the file\n", q.More)
			}
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s%s\n\n", base, q.Path)
		if q.CSV != "" {
			out.Files = append(out.Files, deliver.File{Name: fmt.Sprintf("%02d-%s.csv", len(out.Files)+1, fileName(q.Name)), Data: []byte(q.CSV)})
		}
	}
	if len(a.Questions) == 0 {
		b.WriteString("Nothing is on this board.\n\n")
	}
	if a.NotShown > 0 {
		fmt.Fprintf(&b, "%d more questions are on the board.\n\n", a.NotShown)
	}
	fmt.Fprintf(&b, "As of %s. This mail is sent by a schedule that is changed at\n%s%s\n", a.AsOf, base, a.Path)
	out.Text = b.String()
	return out
}

// fileName is a name without characters that have a meaning in paths.
func fileName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
	return strings.Trim(name[:min(len(name), 40)], "-")
}
