// Package importer sends exports of other products to a gateway: files with a JSON
// object on each line, one JSON array, or CSV with a header, plain, gzip or zip.
//
// It owns the reading of the file (objects.go, csv.go, archive.go), the little that makes an exported event one
// that the product's own SDK could have sent (formats.go), the sending with
// retries (send.go), and the state file that lets a later run go on where one
// ended (state.go). What an event means is the gateway's business: each export
// goes to the paths of its own source, so that history is mapped as live events
// are.
//
// An import may be run again, as a whole or from where it ended: events keep the
// message ids of the export, and those without get one of their line and its
// number in the file.
package importer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // for machines that have none

	"github.com/uptakehq/uptake/schemas/event"
)

// Config is an import's settings.
type Config struct {
	From    string // segment, posthog, mixpanel, amplitude or csv
	File    string // see package doc
	Gateway string // URL
	Key     string // write key
	State   string // state file; empty is File + ".import-state.json"

	// Map names the columns that fields of a CSV file are in, see mappable.
	Map map[string]string
	// Zone is the IANA name of the zone that the export's times are in; empty is UTC.
	Zone string
	// MaxAge is the enricher's time-max-age: an export with older events is refused,
	// unless History says that they count however old they are.
	MaxAge  time.Duration
	History bool

	BatchEvents  int
	BatchBytes   int
	MaxLineBytes int
	Progress     time.Duration // between lines of progress
	RetryMin     time.Duration // first pause before sending again
	RetryMax     time.Duration
	Timeout      time.Duration // of one request
}

// DefaultConfig fits a gateway with default limits.
func DefaultConfig() Config {
	return Config{
		Gateway: "http://127.0.0.1:8080", MaxAge: 5 * 365 * 24 * time.Hour, BatchEvents: 1000, BatchBytes: 4 << 20, MaxLineBytes: 4 << 20,
		Progress: 5 * time.Second, RetryMin: 500 * time.Millisecond, RetryMax: 30 * time.Second, Timeout: 60 * time.Second,
	}
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !slices.Contains(Sources(), c.From) {
		fault("from must be one of %s (got %q)", strings.Join(Sources(), ", "), c.From)
	}
	if c.File == "" {
		fault("a file must be named")
	}
	if u, err := url.Parse(c.Gateway); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		fault("gateway must be a URL with http or https (got %q)", c.Gateway)
	}
	if c.Key == "" {
		fault("key must be the app's write key")
	}
	for field := range c.Map {
		if c.From != "csv" || !slices.Contains(mappable, field) {
			fault("map is of fields of csv: %s (got %q of %s)", strings.Join(mappable, ", "), field, c.From)
		}
	}
	if c.From == "csv" && (c.Map["event"] == "" && c.Map["type"] == "" || c.Map["userId"]+c.Map["anonymousId"]+c.Map["groupId"] == "") {
		fault("map must name the columns of event and of userId, anonymousId or groupId (got %v)", c.Map)
	}
	if _, err := time.LoadLocation(c.Zone); err != nil || c.Zone == "Local" {
		fault("zone must be an IANA name like Europe/Vienna (got %q)", c.Zone)
	}
	if c.BatchEvents < 1 || c.BatchEvents > 100_000 {
		fault("batch-events must be 1 to 100000 (got %d)", c.BatchEvents)
	}
	if c.BatchBytes < 1024 || c.BatchBytes > 64<<20 {
		fault("batch-bytes must be 1024 to %d (got %d)", 64<<20, c.BatchBytes)
	}
	if c.MaxLineBytes < 1024 || c.MaxLineBytes > 64<<20 {
		fault("max-line-bytes must be 1024 to %d (got %d)", 64<<20, c.MaxLineBytes)
	}
	for _, d := range []struct {
		name string
		got  time.Duration
	}{{"max-age", c.MaxAge}, {"progress", c.Progress}, {"retry-min", c.RetryMin}, {"retry-max", c.RetryMax}, {"timeout", c.Timeout}} {
		if d.got <= 0 {
			fault("%s must be > 0 (got %s)", d.name, d.got)
		}
	}
	return errors.Join(errs...)
}

// Dependencies are what an import is given.
type Dependencies struct {
	Logger *slog.Logger
	Client *http.Client     // nil is one of its own
	Now    func() time.Time // nil is time.Now
}

// Result counts what became of a file's lines, over all runs.
type Result struct {
	Lines    int64 `json:"lines"`    // read
	Sent     int64 `json:"sent"`     // taken by the gateway
	Rejected int64 `json:"rejected"` // of these, by the gateway, which keeps them as rejected events; as far as the source's answers tell
	Skipped  int64 `json:"skipped"`  // no JSON object, or too large: not sent

	Unmatched int64 `json:"unmatched,omitempty"` // the export no longer has the id under which it was sent
	Ambiguous int64 `json:"ambiguous,omitempty"` // of a local time that was shown twice, at the end of daylight saving time

	FirstSkipped  string `json:"first_skipped,omitempty"` // why the first was
	FirstRejected string `json:"first_rejected,omitempty"`
}

// Run imports the file from where the state file says to its end, or until ctx
// ends; what was taken by then is in the state file.
func Run(ctx context.Context, cfg Config, deps Dependencies) (Result, error) {
	if err := cfg.Validate(); err != nil {
		return Result{}, err
	}
	if cfg.State == "" {
		cfg.State = cfg.File + ".import-state.json"
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	client := deps.Client
	if client == nil {
		client = &http.Client{Timeout: cfg.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		defer client.CloseIdleConnections()
	}
	file, size, err := open(&cfg)
	if err != nil {
		return Result{}, err
	}
	defer file.Close()
	st, err := loadState(cfg)
	if err != nil {
		return Result{}, err
	}
	im := &run{
		cfg: cfg, log: deps.Logger, now: deps.Now, size: size, state: st, persons: newPersons(),
		send: sender{cfg: cfg, client: client, log: deps.Logger},
	}
	im.format = formats[cfg.From](im.persons)
	if cfg.Zone != "" {
		im.row.zone, _ = time.LoadLocation(cfg.Zone) // Validate loaded it
	}
	if err := im.look(ctx); err != nil {
		return Result{}, err
	}
	return im.all(ctx, file)
}

// run is one run over a file.
type run struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	size    int64 // of the file as it lies on disk
	state   *state
	format  format
	send    sender
	row     row
	persons *persons
	least   event.Micros // events before it are too old

	batch   [][]byte
	bytes   int
	end     int64 // offset behind the last line that is in the batch or before
	line    int64 // its number
	sum     [sha256.Size]byte
	skipped int64 // lines skipped since the state was saved

	ambiguous int64 // events of ambiguous time since then
	unmatched int64
	claims    int // in the batch

	started, told time.Time
	before        int64 // lines of earlier runs
}

// export is a file of lines, unpacked.
type export struct {
	io.Reader
	file *os.File
	read *counter
}

// Close closes the file.
func (e *export) Close() error { return e.file.Close() }

// counter counts the bytes of the file that were read, for progress.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

func open(cfg *Config) (*export, int64, error) {
	f, err := os.Open(cfg.File)
	if err != nil {
		return nil, 0, fmt.Errorf("open export: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("open export: %w", err)
	}
	read := &counter{Reader: f}
	buffered := bufio.NewReaderSize(read, 1<<20)
	e := &export{file: f, read: read}
	if magic, _ := buffered.Peek(4); string(magic) == "PK\x03\x04" {
		e.Reader, err = newArchive(f, info.Size(), cfg)
	} else if e.Reader, err = unpack(buffered); err == nil {
		e.Reader, err = objects(e.Reader, cfg)
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("%s: %w", cfg.File, err)
	}
	return e, info.Size(), nil
}

func (r *run) all(ctx context.Context, file *export) (Result, error) {
	lines := newLines(file, r.cfg.MaxLineBytes)
	if r.state.Offset > 0 {
		same, err := lines.skip(r.state.Offset, r.state.Sum)
		switch {
		case err != nil:
			return r.state.Result, fmt.Errorf("read %s: %w", r.cfg.File, err)
		case !same && !r.state.Done:
			return r.state.Result, fmt.Errorf("%s changed since the run that %s is of, which did not reach its end; remove the state file to import it from its start", r.cfg.File, r.cfg.State)
		case !same:
			r.log.Info("another file under the name of one that was imported: from its start")
			*r.state = state{Version: r.state.Version, From: r.state.From, File: r.state.File, Gateway: r.state.Gateway}
			if err := file.Close(); err != nil {
				return r.state.Result, err
			}
			again, _, err := open(&r.cfg)
			if err != nil {
				return r.state.Result, err
			}
			defer again.Close()
			file, lines = again, newLines(again, r.cfg.MaxLineBytes)
		default:
			r.log.Info("going on where an earlier run ended", "lines", r.state.Lines, "sent", r.state.Sent)
		}
	}
	r.end, r.line, r.before, r.sum = r.state.Offset, r.state.Lines, r.state.Lines, lines.sum
	r.state.Done = false
	r.started = r.now()
	r.told = r.started
	for {
		text, n, err := lines.next()
		if n > 0 {
			if err := r.take(ctx, text, n); err != nil {
				return r.state.Result, err
			}
			r.sum = lines.sum
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return r.state.Result, fmt.Errorf("read %s: %w", r.cfg.File, err)
		}
		r.tell(file)
	}
	r.state.Done = true
	if err := r.flush(ctx); err != nil {
		return r.state.Result, err
	}
	r.log.Info("done", "lines", r.state.Lines, "sent", r.state.Sent, "rejected", r.state.Rejected, "skipped", r.state.Skipped,
		"seconds", r.now().Sub(r.started).Seconds())
	if n := r.state.Ambiguous; n > 0 {
		r.log.Warn("events of local times that were shown twice, when daylight saving time ended: they count at the first, flagged time_ambiguous", "events", n)
	}
	if n := r.state.Unmatched; n > 0 {
		r.log.Warn("events of which the export no longer has the id under which they were sent: those that also came live count twice", "events", n)
	}
	var unread []string
	if n := r.state.Skipped; n > 0 {
		unread = append(unread, fmt.Sprintf("%d of %d lines were skipped, the first: %s", n, r.state.Lines, r.state.FirstSkipped))
	}
	if n := r.state.Rejected; n > 0 {
		unread = append(unread, fmt.Sprintf("%d of %d events were rejected by the gateway, the first: %s", n, r.state.Sent, r.state.FirstRejected))
	}
	if len(unread) > 0 {
		return r.state.Result, fmt.Errorf("%w of %s: %s", ErrUnread, r.cfg.File, strings.Join(unread, "; "))
	}
	return r.state.Result, nil
}

// ErrUnread is the error of an import of which something was skipped or rejected.
var ErrUnread = errors.New("not everything was imported")

// take adds a line of n bytes to the batch, which is sent before when the line
// would be too much. text is nil of a line that is too long.
func (r *run) take(ctx context.Context, text []byte, n int) error {
	var ev []byte
	switch blank := bytes.TrimSpace(text); {
	case text == nil:
		r.skip(fmt.Errorf("longer than max-line-bytes, %d", r.cfg.MaxLineBytes))
	case len(blank) > 0:
		var err error
		r.row.begin()
		if ev, err = r.format.event(r.line+1, blank, &r.row); err != nil {
			r.skip(err)
		} else if err := r.tooOld(r.line+1, r.row.at); err != nil {
			return err
		}
	}
	if ev != nil && len(r.batch) > 0 && (len(r.batch) >= r.cfg.BatchEvents || r.bytes+len(ev) > r.cfg.BatchBytes) {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	r.end += int64(n)
	r.line++
	if ev != nil {
		r.batch = append(r.batch, ev)
		r.bytes += len(ev) + 1
		if r.row.claim != nil {
			r.batch = append(r.batch, r.row.claim)
			r.bytes += len(r.row.claim) + 1
			r.claims++
		}
		if r.row.ambiguous {
			r.ambiguous++
		}
		if r.row.unmatched {
			r.unmatched++
		}
	}
	return nil
}

func (r *run) skip(why error) {
	r.log.Warn("line skipped", "line", r.line+1, "error", why)
	r.first(fmt.Sprintf("line %d: %v", r.line+1, why))
	r.skipped++
}

func (r *run) first(why string) {
	if r.state.FirstSkipped == "" {
		r.state.FirstSkipped = why
	}
}

// flush sends the batch and saves how far the import is.
func (r *run) flush(ctx context.Context) error {
	if len(r.batch) > 0 {
		v, err := r.send.all(ctx, r.format, r.batch)
		if err != nil {
			return fmt.Errorf("send lines %d to %d: %w", r.state.Lines+1, r.line, err)
		}
		r.state.Sent += int64(len(r.batch) - r.claims - v.tooLarge)
		if v.tooLarge > 0 {
			r.first(fmt.Sprintf("too large for the gateway, between lines %d and %d", r.state.Lines+1, r.line))
		}
		r.skipped += int64(v.tooLarge)
		if r.state.FirstRejected == "" && v.first != "" {
			r.state.FirstRejected = fmt.Sprintf("between lines %d and %d, %s", r.state.Lines+1, r.line, v.first)
		}
		r.state.Rejected += int64(v.rejected)
		clear(r.batch)
		r.batch, r.bytes, r.claims = r.batch[:0], 0, 0
	}
	r.state.Offset, r.state.Lines, r.state.Sum = r.end, r.line, hex.EncodeToString(r.sum[:])
	r.state.Skipped += r.skipped
	r.state.Ambiguous += r.ambiguous
	r.state.Unmatched += r.unmatched
	r.skipped, r.ambiguous, r.unmatched = 0, 0, 0
	return r.state.save(r.cfg.State)
}

// tell logs the progress now and then.
func (r *run) tell(file *export) {
	now := r.now()
	if now.Sub(r.told) < r.cfg.Progress {
		return
	}
	r.told = now
	lines := r.state.Lines - r.before
	attrs := []any{"lines", r.state.Lines, "sent", r.state.Sent, "rejected", r.state.Rejected, "skipped", r.state.Skipped}
	if seconds := now.Sub(r.started).Seconds(); seconds > 0 {
		attrs = append(attrs, "lines_per_second", int64(float64(lines)/seconds))
	}
	if r.size > 0 {
		attrs = append(attrs, "percent", 100*file.read.n/r.size)
	}
	r.log.Info("importing", attrs...)
}

// lines reads lines of bounded length. sum is of all that were read: the hash of
// the sum before and of the line's hash.
type lines struct {
	sum     [sha256.Size]byte
	r       *bufio.Reader
	maximum int
	buf     []byte
}

func newLines(r io.Reader, maximum int) *lines {
	return &lines{r: bufio.NewReaderSize(r, 64<<10), maximum: maximum}
}

// skip moves over what an earlier run did, and reports whether it is the same as
// then.
func (l *lines) skip(offset int64, sum string) (same bool, err error) {
	for at := int64(0); at < offset; {
		_, n, err := l.next()
		at += int64(n)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if at > offset || (err != nil && at < offset) {
			return false, nil
		}
	}
	return hex.EncodeToString(l.sum[:]) == sum, nil
}

// next returns the next line and how many bytes it takes in the file. A line that
// is too long is nil. At the end it returns io.EOF, with a last line that has no
// newline or with none.
func (l *lines) next() ([]byte, int, error) {
	l.buf = l.buf[:0]
	n := 0
	h := sha256.New()
	defer func() {
		if n > 0 {
			h.Write(l.sum[:])
			h.Sum(l.sum[:0])
		}
	}()
	for {
		part, err := l.r.ReadSlice('\n')
		n += len(part)
		h.Write(part)
		if n <= l.maximum {
			l.buf = append(l.buf, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if n > l.maximum {
			return nil, n, err
		}
		return l.buf, n, err
	}
}
