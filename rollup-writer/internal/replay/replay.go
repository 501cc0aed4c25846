// Package replay sends rejected events through again, repaired by a patch, with the
// message ids that they had. `rollup-writer replay-rejected` is the command.
//
// It owns which rejected events are selected, how they are patched, where they
// are sent, and the table replayed_events, which says what was sent. What an
// enricher rejected is a raw record and goes into raw again; what a gateway
// rejected is the producer's own JSON and goes to a gateway, by the protocol that
// it came by. Either way it is a new event to all that follows: it is accepted
// once more, and what is still wrong with it is rejected again.
//
// # Twice
//
// An event is not sent when replayed_events says that it was, or when events has
// its message id. What is on its way to events meanwhile the enrichers drop as a
// duplicate, within their dedup window by the time of receipt, which is kept.
// The mark is written after the ack: a run that dies in between sends again what
// it sent last. Only an event that was received longer ago than the window can
// count twice by that, and only if the next run comes before it is in events.
package replay

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// Config says what to send, changed how, and to where.
type Config struct {
	Where    string
	Patch    Patch
	Limit    int
	DryRun   bool
	Gateway  string // URL
	WriteKey setting.Secret
}

// DefaultConfig selects nothing.
func DefaultConfig() Config { return Config{Limit: 10_000} }

// Flags binds the config to flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	set.StringVar(&c.Where, "where", c.Where, "SQL `condition` over the columns of rejected_events, such as \"app_id = 'shop' AND code = 'bad_timestamp'\"")
	set.Var(&c.Patch, "patch", "`change` of each event: path=value, or a JSON object that is merged into it, where null removes; a value may be parse, trim, lower or first of its own fields; may be given more than once")
	set.IntVar(&c.Limit, "limit", c.Limit, "send at most this many events, those that were received first")
	set.BoolVar(&c.DryRun, "dry-run", c.DryRun, "show what would be sent, a line of JSON each, and send nothing")
	set.StringVar(&c.Gateway, "gateway", c.Gateway, "`URL` of a gateway, for events that a gateway rejected")
	set.Var(&c.WriteKey, "write-key", "a write `key` of the app, or file:PATH, for events that a gateway rejected")
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	if strings.TrimSpace(c.Where) == "" {
		errs = append(errs, errors.New("where must say which rejected events to send; 1 is all of them"))
	}
	if c.Limit < 1 {
		errs = append(errs, fmt.Errorf("limit must be > 0 (got %d)", c.Limit))
	}
	if c.Gateway != "" {
		if u, err := url.Parse(c.Gateway); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("gateway must be a URL like http://127.0.0.1:8080 (got %q)", c.Gateway))
		}
		if c.WriteKey == "" {
			errs = append(errs, errors.New("write-key must be given with gateway"))
		}
	}
	return errors.Join(errs...)
}

// Raw puts records into the raw topic.
type Raw interface {
	// Send returns when all records are acked.
	Send(ctx context.Context, events []*event.RawEvent) error
}

// row is one of rejected_events.
type row struct {
	app, stage, code, messageID, protocol string
	route, envelope                       string

	received time.Time
	original string
	place    place
}

// place is where a rejected event lies in the log.
type place struct {
	topicID   string
	partition int32
	offset    int64
}

// Report says what was done.
type Report struct {
	Selected int            `json:"selected"`
	Sent     map[string]int `json:"sent"`    // by where to: raw or gateway; in a dry run what would be
	Skipped  map[string]int `json:"skipped"` // by why
	More     bool           `json:"more"`    // limit was reached
	DryRun   bool           `json:"dry_run"`
}

// Run sends what cfg, which is valid, selects. Lines of a dry run go to out.
// The report is of what was done also when there is an error.
func Run(ctx context.Context, conn driver.Conn, schema tables.Schema, codec *event.Codec, raw Raw, cfg Config, out io.Writer) (*Report, error) {
	r := &run{
		conn: conn, schema: schema, codec: codec, raw: raw, cfg: cfg, out: out,
		seen:   map[id]bool{},
		report: &Report{Sent: map[string]int{}, Skipped: map[string]int{}, DryRun: cfg.DryRun},
	}
	return r.report, r.pages(ctx)
}

type id struct{ app, message string }

type run struct {
	conn   driver.Conn
	schema tables.Schema
	codec  *event.Codec
	raw    Raw
	cfg    Config
	out    io.Writer

	gateway client
	seen    map[id]bool // in this run
	report  *Report
}

// pageRows bounds what is in memory and what goes again when a run dies: marks
// are written once for each page.
const pageRows = 200

// readonly forbids the condition to do more than to select.
var readonly = clickhousego.Settings{"readonly": 2}

func (r *run) pages(ctx context.Context) error {
	var last *row
	for left := r.cfg.Limit; ; {
		rows, err := r.page(ctx, last, min(pageRows, left+1))
		if err != nil {
			return err
		}
		more := len(rows) == pageRows
		if len(rows) > left {
			rows, more, r.report.More = rows[:left], false, true
		}
		if len(rows) == 0 {
			return nil
		}
		left -= len(rows)
		last = &rows[len(rows)-1]
		r.report.Selected += len(rows)
		if err := r.send(ctx, rows); err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
}

// page selects rows in the order of their receipt, behind last.
func (r *run) page(ctx context.Context, last *row, n int) ([]row, error) {
	ctx = clickhousego.Context(ctx, clickhousego.WithSettings(readonly))
	behind, args := "1", []any(nil)
	if last != nil {
		behind = "(toUnixTimestamp64Micro(received_at), toString(source_topic_id), source_partition, source_offset) > (?, ?, ?, ?)"
		args = []any{last.received.UnixMicro(), last.place.topicID, last.place.partition, last.place.offset}
	}
	// Records of links are no events. A condition that ends in a comment does
	// not reach the next line.
	list, err := tables.Collect(ctx, r.conn, func(x *row) []any {
		return []any{&x.app, &x.stage, &x.code, &x.messageID, &x.protocol, &x.received, &x.original, &x.route, &x.envelope, &x.place.topicID, &x.place.partition, &x.place.offset}
	}, `SELECT toString(app_id), toString(stage), toString(code), message_id, toString(protocol), received_at, original, toString(route), envelope,
	toString(source_topic_id) AS topic_id, source_partition, source_offset
FROM `+r.schema.Table("rejected_events")+` WHERE (`+r.cfg.Where+`
) AND NOT (stage = 'enricher' AND field = 'links') AND `+behind+`
ORDER BY received_at, topic_id, source_partition, source_offset LIMIT `+fmt.Sprint(n), args...)
	if err != nil {
		return nil, fmt.Errorf("select from rejected_events: %w", err)
	}
	return list, nil
}

// repaired is a rejected event that is ready to be sent.
type repaired struct {
	row *row
	id  id
	to  string
	raw *event.RawEvent // to raw
	doc map[string]any  // to the gateway, and for people

	route    route // of the gateway
	envelope map[string]any
}

// Where an event goes.
const (
	toRaw     = "raw"
	toGateway = "gateway"
)

func (r *run) send(ctx context.Context, rows []row) error {
	replayed, err := r.replayed(ctx, rows)
	if err != nil {
		return err
	}
	var ready []*repaired
	for i := range rows {
		x := &rows[i]
		if replayed[x.place] {
			r.skip("sent before")
			continue
		}
		m, why := r.repair(x)
		if why != "" {
			r.skip(why)
			continue
		}
		if r.seen[m.id] {
			r.skip("the same message id again")
			continue
		}
		r.seen[m.id] = true
		ready = append(ready, m)
	}
	stored, err := r.stored(ctx, ready)
	if err != nil {
		return err
	}
	ready = slices.DeleteFunc(ready, func(m *repaired) bool {
		if stored[m.id] {
			r.skip("events has its message id")
		}
		return stored[m.id]
	})
	if r.cfg.DryRun {
		for _, m := range ready {
			if err := r.show(m); err != nil {
				return err
			}
			r.report.Sent[m.to]++
		}
		return nil
	}
	return r.deliver(ctx, ready)
}

func (r *run) skip(why string) { r.report.Skipped[why]++ }

// repair patches a rejected event, or says why it cannot be sent.
func (r *run) repair(x *row) (*repaired, string) {
	if x.stage == event.StageEnricher {
		return r.repairRaw(x)
	}
	return r.repairDocument(x)
}

func (r *run) deliver(ctx context.Context, ready []*repaired) error {
	var done []*repaired
	var raws []*event.RawEvent
	for _, m := range ready {
		if m.to == toRaw {
			raws = append(raws, m.raw)
			done = append(done, m)
		}
	}
	if len(raws) > 0 {
		if err := r.raw.Send(ctx, raws); err != nil {
			return err
		}
	}
	var fault error
	for _, m := range ready {
		if m.to != toGateway {
			continue
		}
		verdict, err := r.gateway.send(ctx, &r.cfg, m)
		if err != nil {
			fault = fmt.Errorf("send message %s to the gateway: %w", m.id.message, err)
			break
		}
		if verdict != "" {
			r.skip("rejected again by the gateway: " + verdict)
			continue
		}
		done = append(done, m)
	}
	// What was acked is marked, also when something after it failed.
	if err := r.mark(ctx, done); err != nil {
		return errors.Join(fault, err)
	}
	for _, m := range done {
		r.report.Sent[m.to]++
	}
	return fault
}

// replayed are those of rows that were sent before.
func (r *run) replayed(ctx context.Context, rows []row) (map[place]bool, error) {
	offsets := make([]int64, len(rows))
	for i := range rows {
		offsets[i] = rows[i].place.offset
	}
	set := map[place]bool{}
	err := tables.Each(ctx, r.conn, func(p *place) []any { return []any{&p.topicID, &p.partition, &p.offset} }, func(p *place) { set[*p] = true },
		"SELECT toString(source_topic_id), source_partition, source_offset FROM "+r.schema.Table("replayed_events")+" WHERE source_offset IN (?)", offsets)
	if err != nil {
		return nil, fmt.Errorf("read replayed_events: %w", err)
	}
	return set, nil
}

// stored are the ids that events has.
func (r *run) stored(ctx context.Context, ready []*repaired) (map[id]bool, error) {
	byApp := map[string][]string{}
	for _, m := range ready {
		byApp[m.id.app] = append(byApp[m.id.app], m.id.message)
	}
	set := map[id]bool{}
	for app, messages := range byApp {
		stored, err := tables.CollectColumn[string](ctx, r.conn, "SELECT DISTINCT message_id FROM "+r.schema.Table("events")+" WHERE app_id = ? AND message_id IN (?)", app, messages)
		if err != nil {
			return nil, fmt.Errorf("look for message ids in events: %w", err)
		}
		for _, message := range stored {
			set[id{app, message}] = true
		}
	}
	return set, nil
}

// mark notes what was sent.
func (r *run) mark(ctx context.Context, done []*repaired) error {
	if len(done) == 0 {
		return nil
	}
	// What was sent must be marked, also when the command is being stopped.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	batch, err := r.conn.PrepareBatch(ctx, "INSERT INTO "+r.schema.Local("replayed_events")+
		" (app_id, replayed_at, sent_to, changed, source_topic_id, source_partition, source_offset)")
	if err != nil {
		return fmt.Errorf("mark what was sent: %w", err)
	}
	now := time.Now().UTC()
	for _, m := range done {
		if err := batch.Append(m.id.app, now, m.to, r.cfg.Patch.String(), m.row.place.topicID, m.row.place.partition, m.row.place.offset); err != nil {
			return fmt.Errorf("mark what was sent: %w", err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("mark what was sent: %w", err)
	}
	return nil
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	verb := "sent"
	if r.DryRun {
		verb = "would be sent"
	}
	fmt.Fprintf(&b, "selected %d\n", r.Selected)
	for _, to := range []string{toRaw, toGateway} {
		if n := r.Sent[to]; n > 0 {
			fmt.Fprintf(&b, "%s to %s: %d\n", verb, to, n)
		}
	}
	for _, why := range slices.Sorted(maps.Keys(r.Skipped)) {
		fmt.Fprintf(&b, "skipped: %d: %s\n", r.Skipped[why], why)
	}
	if r.More {
		b.WriteString("there are more: see -limit\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
