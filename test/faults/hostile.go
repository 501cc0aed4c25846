package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/collide"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

// Hostile senders send what no client of ours would, with the write key of the
// honest producer, which a page shows to everybody, or with none. The recount of
// the round says whether honest events suffered, and sides whether they waited.

const (
	// calm is the time before an attack in which honest events are timed without it.
	calm = 2 * time.Second
	// aftermath is how long after an attack honest events are timed as beside it:
	// its records are still being processed.
	aftermath = time.Second
	// hostileIP is another address than the honest producer's, whose share of the
	// gateway would otherwise be the attacker's too. (Linux answers on all of 127/8.)
	hostileIP = "127.0.0.66"
)

// hostile makes a kind of an attack.
func hostile(attack func(context.Context, *env, *fault) (string, error)) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		wait(ctx, calm)
		end := e.traffic.beside.begin(f.kind.name)
		defer end()
		note, err := attack(ctx, e, f)
		wait(ctx, aftermath)
		return note, err
	}
}

// crafted are ids that collide under XXH64 without a seed, with those of all
// attacks before in the same run, so that tables without a seed become slower with
// every attack.
type crafted struct {
	mu   sync.Mutex // covers next
	next func() (string, bool)
}

func newCrafted(prefix string) *crafted {
	next, _ := iter.Pull(collide.XXH64Seq(prefix)) // it ends with the process
	return &crafted{next: next}
}

func (c *crafted) take(n int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, n)
	for i := range ids {
		ids[i], _ = c.next()
	}
	return ids
}

// sent is what hostile senders have sent in a round and gateways have answered.
// Their events are found by a mark that is part of an id of each.
type sent struct {
	mark     string
	events   int64 // in requests that went out
	accepted int64 // of them, by the answers
}

// hostileEvent is one event in the format of /v1/batch.
type hostileEvent map[string]any

// MarshalJSON writes the message id first: what is rejected may be kept in part, and
// has to be found by it.
func (h hostileEvent) MarshalJSON() ([]byte, error) {
	id, err := json.Marshal(h["messageId"])
	if err != nil {
		return nil, err
	}
	rest := maps.Clone(map[string]any(h))
	delete(rest, "messageId")
	text, err := json.Marshal(rest)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"messageId":%s,%s`, id, text[1:]), nil
}

// mark returns a text by which the events of an attack are found.
func (e *env) mark() *sent {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.marks++
	s := &sent{mark: fmt.Sprintf("hostile-%d-%05d-", e.cfg.Seed%1000, e.marks)}
	e.sent = append(e.sent, s)
	return s
}

// gateways are the addresses of the gateways themselves, past proxies, which would
// hide the sender's address.
func (e *env) gateways() []string {
	var addrs []string
	for _, m := range e.members[stack.Gateway] {
		switch m := m.(type) {
		case *instance:
			addrs = append(addrs, m.front.Target())
		case outside:
			addrs = append(addrs, m.Addr)
		}
	}
	return addrs
}

func hostileDialer() *net.Dialer {
	return &net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(hostileIP)}}
}

// send sends events in batches, each once: a hostile sender does not try again.
func (e *env) send(ctx context.Context, f *fault, s *sent, events []hostileEvent, batch int) error {
	transport := &http.Transport{DialContext: hostileDialer().DialContext}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 15 * time.Second}
	addrs := e.gateways()
	for part := range slices.Chunk(events, batch) {
		body, err := json.Marshal(map[string]any{"batch": part})
		if err != nil {
			return fmt.Errorf("encode a hostile batch: %w", err)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addrs[f.rng.IntN(len(addrs))]+"/v1/batch", bytes.NewReader(body))
		if err != nil {
			return fmt.Errorf("hostile batch: %w", err)
		}
		req.SetBasicAuth(stack.WriteKeyOf(e.app), "")
		req.Header.Set("Content-Type", "application/json")
		rejected, ok := answer(client, req)
		e.mu.Lock()
		s.events += int64(len(part))
		if ok {
			s.accepted += int64(len(part) - rejected)
		}
		e.mu.Unlock()
	}
	return nil
}

// answer returns how many events of a batch were rejected; false where the batch
// was not acked, or that is not known.
func answer(client *http.Client, req *http.Request) (rejected int, acked bool) {
	res, err := client.Do(req)
	if err != nil {
		return 0, false // the gateway may be one that another fault has killed
	}
	defer res.Body.Close()
	var ack struct {
		Rejected []loadgen.Verdict `json:"rejected"`
	}
	if err := json.NewDecoder(res.Body).Decode(&ack); err != nil || res.StatusCode != http.StatusOK {
		return 0, false
	}
	return len(ack.Rejected), true
}

// collidingIDs sends anonymous ids and message ids that collide under a hash
// without a seed.
func collidingIDs(ctx context.Context, e *env, f *fault) (string, error) {
	const n = 1500
	s := e.mark()
	var events []hostileEvent
	for i, a := range e.anonymousIDs.take(n) {
		events = append(events, hostileEvent{"type": "identify", "messageId": fmt.Sprintf("%si%d", s.mark, i), "anonymousId": a, "userId": fmt.Sprintf("%su%d", s.mark, i%100)})
	}
	for i, m := range e.messageIDs.take(n) {
		events = append(events, hostileEvent{"type": "track", "event": s.mark, "messageId": m, "userId": fmt.Sprintf("%su%d", s.mark, i%100)})
	}
	return fmt.Sprintf("%d events", len(events)), e.send(ctx, f, s, events, 250)
}

// metadataKeys sends events each of which has hundreds of keys that no other has.
func metadataKeys(ctx context.Context, e *env, f *fault) (string, error) {
	const n, keys = 60, 150
	s := e.mark()
	var events []hostileEvent
	for i := range n {
		props := map[string]any{}
		for range keys {
			props[fmt.Sprintf("k%x", f.rng.Uint64())] = i
		}
		events = append(events, hostileEvent{"type": "track", "event": "Hostile", "messageId": fmt.Sprintf("%s%d", s.mark, i), "userId": s.mark + "u", "properties": props})
	}
	return fmt.Sprintf("%d events of %d new keys", n, keys), e.send(ctx, f, s, events, 20)
}

// odd are ids that have troubled somebody's parser, store or page.
var odd = []string{
	"null", "undefined", "[object Object]", "0", "-1", "NaN", "true", "{}", " ", "\t\n", "\x00", "\x00\x01\x02", "\x7f",
	"'; DROP TABLE events; --", `\`, `"`, "%s%n", "../../etc/passwd", "<script>alert(1)</script>", "${jndi:ldap://x}",
	"\u202eevil", "\u200b", "\ufeff", "e\u0301", "\U0001F469\u200D\U0001F4BB", "\ufffd", strings.Repeat("\U0001F600", 60), strings.Repeat("\u0301", 80),
}

// oddIDs sends ids that are odd, as long as allowed, or longer by far.
func oddIDs(ctx context.Context, e *env, f *fault) (string, error) {
	s := e.mark()
	var events []hostileEvent
	add := func(ev hostileEvent) {
		ev["messageId"] = fmt.Sprintf("%s%d", s.mark, len(events))
		events = append(events, ev)
	}
	ids := slices.Clone(odd)
	for _, n := range []int{200, 255, 256, 257, 1024, 4096, 30_000} {
		ids = append(ids, strings.Repeat("g", n), strings.Repeat("\u00e4", n/2), strings.Repeat("\x01", n))
	}
	for _, id := range ids {
		other := ids[f.rng.IntN(len(ids))]
		add(hostileEvent{"type": "track", "event": "Hostile", "userId": id})
		add(hostileEvent{"type": "track", "event": id, "anonymousId": id, "context": map[string]any{"groupId": other}})
		add(hostileEvent{"type": "identify", "userId": s.mark + id, "anonymousId": other})
		add(hostileEvent{"type": "group", "userId": s.mark + "u", "groupId": id})
		add(hostileEvent{"type": "alias", "userId": s.mark + "u", "previousId": s.mark + id})
	}
	return fmt.Sprintf("%d events", len(events)), e.send(ctx, f, s, events, 40)
}

// idleSockets holds connections without a key: bodies that are declared and
// trickle, headers that never end, silence, and bodies that are sent in full.
func idleSockets(ctx context.Context, e *env, f *fault) (string, error) {
	const sockets = 160
	addrs := e.gateways()
	lasts := between(f.rng, 3*time.Second, 7*time.Second)
	ctx, cancel := context.WithTimeout(ctx, lasts)
	defer cancel()
	var held, failed int
	var mu sync.Mutex // covers both
	var wg sync.WaitGroup
	for i := range sockets {
		wg.Go(func() { // ends with ctx
			c, err := hostileDialer().DialContext(ctx, "tcp", addrs[i%len(addrs)])
			mu.Lock()
			if err != nil {
				failed++
			} else {
				held++
			}
			mu.Unlock()
			if err == nil {
				hog(ctx, c, i)
			}
		})
	}
	wg.Wait()
	note := fmt.Sprintf("%d sockets for %s, %d not connected", held, lasts, failed)
	if held == 0 {
		return note, errMissed
	}
	return note, nil
}

const declares = "POST /v1/batch HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\nContent-Length: 8388608\r\n\r\n"

// hog keeps a connection busy until ctx ends or the gateway ends it.
func hog(ctx context.Context, c net.Conn, i int) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	begin, drop, every := declares, bytes.Repeat([]byte(" "), 2000), 100*time.Millisecond // 20 kB/s
	switch {
	case i%40 == 0:
		drop, every = bytes.Repeat([]byte(" "), 64<<10), 0 // as fast as it goes
	case i%4 == 1:
		begin, drop, every = "POST /v1/batch HTTP/1.1\r\nHost: gateway\r\n", []byte("X: y\r\n"), 500*time.Millisecond
	case i%4 == 2:
		begin, drop = "", nil
	case i%4 == 3:
		drop = nil
	}
	if _, err := io.WriteString(c, begin); err != nil {
		return
	}
	if drop == nil {
		_, _ = io.Copy(io.Discard, c) // until either side closes it
		return
	}
	for sent := 0; sent < 8<<20; sent += len(drop) {
		if _, err := c.Write(drop); err != nil {
			return
		}
		wait(ctx, every)
	}
}

// headBytes are those of a record of ours before its content.
const headBytes = 10

// poisonIn writes records that no release can have written straight into a topic
// that the writers read.
func poisonIn(name string) func(context.Context, *env, *fault) (string, error) {
	return func(ctx context.Context, e *env, f *fault) (string, error) {
		n := 1 + f.rng.IntN(20)
		codec := event.NewCodec()
		heads := [][]byte{
			nil, codec.AppendEnriched(nil, &event.EnrichedEvent{})[:headBytes], codec.AppendRejected(nil, &event.Rejected{})[:headBytes],
			codec.AppendRaw(nil, &event.RawEvent{}),
		}
		partitions := e.layout.Partitions
		if name == topic.Unprefixed.Rejected {
			partitions = e.layout.RejectedPartitions
		}
		for range n {
			// No number begins so: a text alone can, by chance, be a record.
			value := append(slices.Clone(heads[f.rng.IntN(len(heads))]), bytes.Repeat([]byte{0xFF}, 11)...)
			value = fmt.Appendf(value, "poison %s%d %s", e.prefix, f.rng.Uint64(), strings.Repeat("z", f.rng.IntN(2000)))
			rec := &kgo.Record{Topic: name, Partition: int32(f.rng.IntN(int(partitions))), Value: value}
			if err := e.producer.ProduceSync(ctx, rec).FirstErr(); err != nil {
				return "", fmt.Errorf("produce a poison record: %w", err)
			}
			e.mu.Lock()
			e.aside = append(e.aside, poisoned{"undecodable", string(value)})
			e.mu.Unlock()
		}
		return fmt.Sprintf("%d records", n), nil
	}
}

// compareHostile holds what hostile senders were answered against what is stored:
// their events are valid, or are rejected with a reason, and each counts once as
// anybody's. It returns how many are stored and rejected.
func (e *env) compareHostile(ctx context.Context) (d loadgen.TableDiff, stored, rejected int64, err error) {
	d = loadgen.TableDiff{Table: "hostile events"}
	e.mu.Lock()
	all := slices.Clone(e.sent)
	e.mu.Unlock()
	for _, s := range all {
		var rows, ids, refused, late uint64
		if err := e.stack.Conn.QueryRow(ctx, "SELECT count(), uniqExact(message_id) FROM "+stack.Database+".events WHERE app_id = ? AND (startsWith(message_id, ?) OR startsWith(user_id, ?))",
			e.app, s.mark, s.mark).Scan(&rows, &ids); err != nil {
			return d, 0, 0, fmt.Errorf("count hostile events: %w", err)
		}
		if err := e.stack.Conn.QueryRow(ctx, "SELECT countIf(stage = 'gateway'), countIf(stage = 'enricher') FROM "+stack.Database+".rejected_events WHERE app_id = ? AND position(original, ?) > 0",
			e.app, s.mark).Scan(&refused, &late); err != nil {
			return d, 0, 0, fmt.Errorf("count hostile events: %w", err)
		}
		d.Cells++
		stored += int64(rows)
		rejected += int64(refused + late)
		if got := int64(rows + late); rows != ids || got < s.accepted || got+int64(refused) > s.events {
			d.Wrong++
			d.Lost += max(0, s.accepted-got)
			d.Doubled += int64(rows - ids)
			d.First = append(d.First, loadgen.CellDiff{
				Key: s.mark, Got: fmt.Sprintf("%d rows of %d ids, %d rejected by gateways and %d later", rows, ids, refused, late),
				Want: fmt.Sprintf("%d accepted of %d sent", s.accepted, s.events),
			})
		}
	}
	return d, stored, rejected, nil
}

// sides are the times of honest events, beside each kind of attack and beside none.
type sides struct {
	mu    sync.Mutex // covers all below
	spans []span
	acks  []sample
	shows []sample
}

// span is an attack.
type span struct {
	kind     string
	from, to time.Time // to is zero while it lasts
}

// sample is how long a producer waited for something that began at an instant.
type sample struct {
	at   time.Time
	took time.Duration
}

// begin begins an attack; the returned function ends it.
func (b *sides) begin(kind string) (end func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.spans)
	b.spans = append(b.spans, span{kind: kind, from: time.Now()})
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.spans[n].to = time.Now()
	}
}

// acked takes in that a request that was first sent at began is acked.
func (b *sides) acked(began time.Time) {
	took := time.Since(began)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.acks = append(b.acks, sample{began, took})
}

// shown takes in that n more events are in ClickHouse. Those that have been acked
// for longest are taken to be them: it is a queue.
func (b *sides) shown(acked []time.Time, from, to int) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range acked[min(from, len(acked)):min(to, len(acked))] {
		b.shows = append(b.shows, sample{at, now.Sub(at)})
	}
}

// Beside are the times of honest events in a run beside one kind of attack, and
// those beside none.
type Beside struct{ Acks, Shows, CalmAcks, CalmShows []time.Duration }

// sum adds what was timed to those by kind.
func (b *sides) sum(by map[string]*Beside) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kinds := map[string]bool{}
	for _, s := range b.spans {
		kinds[s.kind] = true
		if by[s.kind] == nil {
			by[s.kind] = &Beside{}
		}
	}
	during := func(s sample, kind string) bool {
		return slices.ContainsFunc(b.spans, func(a span) bool {
			return (kind == "" || a.kind == kind) && s.at.Add(s.took).After(a.from) && (a.to.IsZero() || s.at.Before(a.to))
		})
	}
	put := func(list []sample, beside, calm func(*Beside) *[]time.Duration) {
		for _, s := range list {
			quiet := !during(s, "")
			for kind := range kinds {
				switch to := by[kind]; {
				case quiet:
					*calm(to) = append(*calm(to), s.took)
				case during(s, kind):
					*beside(to) = append(*beside(to), s.took)
				}
			}
		}
	}
	put(b.acks, func(x *Beside) *[]time.Duration { return &x.Acks }, func(x *Beside) *[]time.Duration { return &x.CalmAcks })
	put(b.shows, func(x *Beside) *[]time.Duration { return &x.Shows }, func(x *Beside) *[]time.Duration { return &x.CalmShows })
}

// P99 are the 99th percentiles, in milliseconds.
func (x *Beside) P99() P99 {
	at := func(list []time.Duration) int64 {
		if len(list) == 0 {
			return 0
		}
		sorted := slices.Sorted(slices.Values(list))
		return sorted[int(0.99*float64(len(sorted)-1)+0.5)].Milliseconds()
	}
	return P99{Ack: at(x.Acks), CalmAck: at(x.CalmAcks), Shown: at(x.Shows), CalmShown: at(x.CalmShows)}
}

// P99 are times of honest events, in milliseconds: until a request was acked and
// until an acked event was in ClickHouse, beside an attack and without one.
type P99 struct{ Ack, CalmAck, Shown, CalmShown int64 }

// ratio says how much longer the 99th percentile became.
func ratio(with, without int64) string {
	if with == 0 || without == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", float64(with)/float64(without))
}
