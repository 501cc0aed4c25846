package identity

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/enrich"
	"github.com/uptakehq/uptake/ingest-gateway/amplitude"
	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
	"github.com/uptakehq/uptake/ingest-gateway/mixpanel"
	"github.com/uptakehq/uptake/ingest-gateway/posthog"
	"github.com/uptakehq/uptake/ingest-gateway/segment"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
	"github.com/uptakehq/uptake/test/harness/kafka"
)

// Random senders of each protocol, as its SDKs write, with ids that repeat in the ways
// that the protocol allows, go through the gateway's decoders and an enricher that is
// stopped and killed meanwhile. What each message counts for in the end is held against
// what the protocol means by "the same message" and "the same person" (sender), which
// knows nothing of partitions, keys or moves.

// sender is a few people who use one product through one kind of SDK.
type sender struct {
	*rand.Rand
	prefix  string
	users   []string
	devices []string          // ids of visitors
	owner   map[string]string // of ids that become one user for ever
	said    map[string][]said // of ids that pass from user to user
	counted map[string]usage  // by label, the name of the event
	sent    []message
	n       int
}

// usage is what one message counts for: a user, else whoever a visitor's id belongs to.
type usage struct {
	user, visitor string
	at            int64
}

// message is one message in the form of its protocol.
type message struct {
	style *style
	text  string
}

// style is a way to send.
type style struct {
	target        string
	before, after string // of messages, separated by commas
	// next says something, and returns the JSON of the message.
	next func(s *sender) any
}

type object = map[string]any

// received is when all of it is received; everything happened in the hours before.
var received = ingesttest.ReceivedAt

// when draws an instant, often one that was drawn before.
func (s *sender) when() time.Time {
	at := received.Add(-time.Duration(1+s.IntN(300)) * time.Minute).Truncate(time.Minute)
	return at.Add(time.Duration(s.IntN(3)-1) * time.Millisecond)
}

func (s *sender) id(what string) string {
	s.n++
	return fmt.Sprintf("%s%s%d", s.prefix, what, s.n)
}

// count notes that a message counts, and returns its label.
func (s *sender) count(user, visitor string, at time.Time) string {
	label := s.id("e")
	s.counted[label] = usage{user, visitor, at.UnixMicro()}
	if user != "" && visitor != "" {
		s.claim(visitor, user, at, false)
	}
	return label
}

func (s *sender) claim(visitor, user string, at time.Time, always bool) {
	s.said[visitor] = append(s.said[visitor], said{at.UnixMicro(), user, always})
}

// whose is who an id became, for ids that become one user for ever.
func (s *sender) whose(id string) string {
	if s.owner[id] != "" {
		return s.owner[id]
	}
	return id
}

// want is whom every message counts for in the end, as kind and id.
func (s *sender) want() map[string]string {
	w := &world{said: s.said}
	want := map[string]string{}
	for label, u := range s.counted {
		user := u.user
		if user == "" {
			user = w.userOf(u.visitor, u.at)
		}
		if user == "" {
			want[label] = "anonymous " + u.visitor
			continue
		}
		want[label] = "user " + s.whose(user)
	}
	return want
}

func iso(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

// older returns an id of a user from before, which becomes that user by an alias.
func (s *sender) older(user string) string {
	id := user + "-old"
	s.owner[id] = user
	return id
}

// segmentStyle: a message is known by its id and the id that it is keyed by.
var segmentStyle = &style{target: "/v1/batch", before: `{"batch":[`, after: `]}`, next: func(s *sender) any {
	user, device, at := pick(s.Rand, s.users), pick(s.Rand, s.devices), s.when()
	m := object{"messageId": s.id("m"), "timestamp": iso(at)}
	switch s.IntN(6) {
	case 0:
		m["type"], m["userId"], m["anonymousId"] = "identify", user, device
		s.claim(device, user, at, true)
	case 1:
		if s.IntN(2) == 0 {
			m["type"], m["userId"], m["previousId"] = "alias", user, s.older(user)
			break
		}
		m["type"], m["userId"] = "track", user+"-old"
		m["event"] = s.count(user+"-old", "", at)
	case 2: // the same message id for everybody, as a sender with a constant has it
		for _, u := range s.users {
			s.send(object{"type": "track", "userId": u, "messageId": s.prefix + "same" + fmt.Sprint(s.n), "timestamp": iso(at), "event": s.count(u, "", at)})
		}
		m["type"], m["anonymousId"] = "track", device
		m["messageId"] = s.prefix + "same" + fmt.Sprint(s.n-len(s.users))
		m["event"] = s.count("", device, at)
	case 3:
		m["type"], m["userId"], m["anonymousId"] = "track", user, device
		m["event"] = s.count(user, device, at)
	case 4:
		m["type"], m["userId"] = "track", user
		m["event"] = s.count(user, "", at)
	default:
		m["type"], m["anonymousId"] = "track", device
		m["event"] = s.count("", device, at)
	}
	return m
}}

// posthogStyle: SDKs that say of each distinct_id whether somebody was identified.
var posthogStyle = &style{target: "/batch", before: `{"api_key":"` + ingesttest.Key + `","batch":[`, after: `]}`, next: func(s *sender) any {
	user, device, at := pick(s.Rand, s.users), pick(s.Rand, s.devices), s.when()
	p := object{"$device_id": device}
	m := object{"uuid": s.id("m"), "timestamp": iso(at), "properties": p}
	switch s.IntN(4) {
	case 0:
		m["event"], m["distinct_id"], p["$anon_distinct_id"] = "$identify", user, device
		s.claim(device, user, at, true)
	case 1:
		m["distinct_id"], p["$is_identified"] = user, true
		m["event"] = s.count(user, device, at)
	default:
		m["distinct_id"], p["$is_identified"] = device, false
		m["event"] = s.count("", device, at)
	}
	return m
}}

// plainStyle: SDKs of PostHog that do not say it. The ids of visitors and of users are of
// one namespace, an id belongs to the first who is identified with it, and the alias
// call takes its two ids in an order that depends on the library.
var plainStyle = &style{target: "/batch", before: `{"api_key":"` + ingesttest.Key + `","batch":[`, after: `]}`, next: func(s *sender) any {
	visitor, at := pick(s.Rand, s.devices), s.when()
	user := s.users[slices.Index(s.devices, visitor)%len(s.users)] // for ever
	p := object{}
	m := object{"uuid": s.id("m"), "timestamp": iso(at), "properties": p}
	switch s.IntN(5) {
	case 0:
		m["event"], m["distinct_id"], p["$anon_distinct_id"] = "$identify", user, visitor
		s.owner[visitor] = user
	case 1:
		m["event"], p["$lib"] = "$create_alias", pick(s.Rand, []string{"posthog-node", "posthog-python", "posthog-rs"})
		m["distinct_id"], p["alias"] = user, s.older(user)
		if p["$lib"] != "posthog-node" {
			m["distinct_id"], p["alias"] = p["alias"], m["distinct_id"]
		}
	case 2:
		m["distinct_id"] = pick(s.Rand, []string{user, user + "-old"})
		m["event"] = s.count(m["distinct_id"].(string), "", at)
	default:
		m["distinct_id"] = visitor
		m["event"] = s.count(visitor, "", at)
	}
	return m
}}

// mixpanelStyle: a message is known by event, distinct_id, time in seconds and insert id
// together.
var mixpanelStyle = &style{target: "/track", before: `[`, after: `]`, next: func(s *sender) any {
	user, device, at := pick(s.Rand, s.users), pick(s.Rand, s.devices), s.when()
	p := object{"token": ingesttest.Key, "time": float64(at.UnixMilli()) / 1000, "$insert_id": s.id("m"), "$device_id": device}
	m := object{"properties": p}
	switch s.IntN(5) {
	case 0:
		m["event"], p["distinct_id"], p["$user_id"], p["$anon_distinct_id"] = "$identify", user, user, "$device:"+device
		s.claim(device, user, at, true)
	case 1:
		p["distinct_id"], p["$user_id"] = user, user
		m["event"] = s.count(user, device, at)
	case 2: // one insert id for several events
		p["distinct_id"] = "$device:" + device
		s.send(object{"event": s.count("", device, at), "properties": p})
		m["event"] = s.count("", device, at)
	case 3: // of a server, which knows no device until somebody logs in
		guest := s.prefix + "guest-" + user
		delete(p, "$device_id")
		if s.owner[guest] = user; s.IntN(2) == 0 {
			m["event"], p["distinct_id"], p["$identified_id"], p["$anon_id"] = "$identify", user, user, guest
			break
		}
		s.send(object{"event": "$identify", "properties": object{
			"token": ingesttest.Key, "time": p["time"], "$insert_id": s.id("m"), "distinct_id": user, "$identified_id": user, "$anon_id": guest,
		}})
		p["distinct_id"] = guest
		m["event"] = s.count(guest, "", at)
	default:
		p["distinct_id"] = "$device:" + device
		m["event"] = s.count("", device, at)
	}
	return m
}}

// amplitudeStyle: a message is known by its insert id with the user, else the device.
var amplitudeStyle = &style{target: "/2/httpapi", before: `{"api_key":"` + ingesttest.Key + `","events":[`, after: `]}`, next: func(s *sender) any {
	user, device, at := pick(s.Rand, s.users), pick(s.Rand, s.devices), s.when()
	m := object{"insert_id": s.id("m"), "device_id": device, "time": at.UnixMilli()}
	switch s.IntN(5) {
	case 0:
		m["event_type"], m["user_id"] = "$identify", user
		m["user_properties"] = object{"$set": object{"plan": "pro"}}
		s.claim(device, user, at, true)
	case 1: // the same insert id on each of somebody's devices and of somebody else
		for _, d := range s.devices[1:] {
			s.send(object{"insert_id": m["insert_id"], "device_id": d, "time": at.UnixMilli(), "event_type": s.count("", d, at)})
		}
		m["user_id"] = user
		m["event_type"] = s.count(user, device, at)
	case 2:
		m["user_id"] = user
		m["event_type"] = s.count(user, device, at)
	default:
		m["event_type"] = s.count("", device, at)
	}
	return m
}}

var styles = []*style{segmentStyle, posthogStyle, plainStyle, mixpanelStyle, amplitudeStyle}

// send adds a message.
func (s *sender) send(m any) {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // cannot happen: only texts and numbers are encoded
	}
	s.sent = append(s.sent, message{text: string(text)})
}

func newSender(r *rand.Rand, prefix string, st *style, messages int) *sender {
	s := &sender{Rand: r, prefix: prefix, owner: map[string]string{}, said: map[string][]said{}, counted: map[string]usage{}}
	for i := range 2 + r.IntN(2) {
		s.users = append(s.users, fmt.Sprintf("%suser%d", prefix, i))
	}
	for i := range 2 + r.IntN(2) {
		s.devices = append(s.devices, fmt.Sprintf("%sdevice%d", prefix, i))
	}
	for range messages {
		s.send(st.next(s))
	}
	for i := range s.sent {
		s.sent[i].style = st
	}
	return s
}

// requests are the messages in random order and batches, some batches sent again.
func (s *sender) requests() (list [][]message) {
	rest := slices.Clone(s.sent)
	s.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	for len(rest) > 0 {
		n := min(len(rest), 1+s.IntN(4))
		list = append(list, rest[:n])
		if s.IntN(4) == 0 {
			list = append(list, rest[:n])
		}
		rest = rest[n:]
	}
	return list
}

func TestSameMessageSamePerson(t *testing.T) {
	senders, messages := 40, 25 // of each style
	if testing.Short() {
		senders = 10
	}
	if longtest.Enabled() {
		senders = 1000
	}
	seed := setting("IDENTITY_SEED", uint64(time.Now().UnixNano()))
	t.Logf("IDENTITY_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 3))
	var requests [][]message
	want := map[string]string{}
	for i := range senders {
		for k, st := range styles {
			s := newSender(rnd, fmt.Sprintf("s%d-%d-", i, k), st, messages)
			requests = append(requests, s.requests()...)
			for label, whom := range s.want() {
				want[label] = whom
			}
		}
	}
	rnd.Shuffle(len(requests), func(i, j int) { requests[i], requests[j] = requests[j], requests[i] })

	log := kafka.FakeForTest(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(log.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := topic.Unprefixed.Ensure(ctx, kadm.NewClient(cl), topic.SingleLayout()); err != nil {
		t.Fatal(err)
	}
	g := ingesttest.New(t, segment.New(), posthog.Protocol{}, mixpanel.Protocol{}, amplitude.Protocol{})
	dir := t.TempDir()
	const lives = 4
	for life := range lives {
		end := startEnricher(t, log, dir)
		for _, r := range requests[len(requests)*life/lives : len(requests)*(life+1)/lives] {
			if err := cl.ProduceSync(ctx, decoded(t, g, r)...).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if life < lives-1 {
			end(life%2 == 0)
		}
	}
	// Links lead to links and no offset tells that the last is carried out: it is wrong
	// when nothing has changed for long.
	last, since := -1, time.Now()
	for {
		diff := wrong(whom(ctx, t, log), want)
		if len(diff) == 0 && done(ctx, cl) == nil {
			break
		}
		if len(diff) != last {
			last, since = len(diff), time.Now()
		}
		if ctx.Err() != nil || time.Since(since) > 30*time.Second {
			t.Fatalf("%d of %d messages are wrong, raw: %v\n%s", len(diff), len(want), done(ctx, cl), strings.Join(diff[:min(len(diff), 20)], "\n"))
		}
		time.Sleep(50 * time.Millisecond) // paces the looks
	}
	t.Logf("%d messages of %d senders in %d requests", len(want), senders*len(styles), len(requests))
}

// done returns nil when the enricher has carried out everything in raw.
func done(ctx context.Context, cl *kgo.Client) error {
	admin := kadm.NewClient(cl)
	ends, err := admin.ListEndOffsets(ctx, topic.Unprefixed.Raw)
	if err != nil {
		return err
	}
	offsets, err := admin.FetchOffsets(ctx, topic.Unprefixed.GroupEnricher)
	if err != nil {
		return err
	}
	ends.Each(func(o kadm.ListedOffset) {
		if at, ok := offsets.Lookup(o.Topic, o.Partition); o.Offset > 0 && (!ok || at.At < o.Offset) {
			err = fmt.Errorf("%s/%d: %d of %d is carried out", o.Topic, o.Partition, at.At, o.Offset)
		}
	})
	return err
}

// decoded are the records that the gateway makes of a request.
func decoded(t *testing.T, g *ingesttest.Gateway, list []message) (records []*kgo.Record) {
	t.Helper()
	var texts []string
	for _, m := range list {
		texts = append(texts, m.text)
	}
	st := list[0].style
	res := g.Do(http.MethodPost, st.target, []byte(st.before+strings.Join(texts, ",")+st.after), "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(ingesttest.Key+":")))
	if res.Status != http.StatusOK || len(res.Rejected) > 0 || len(res.Events) < len(list) {
		t.Fatalf("%s: got %d %s, %d events, rejected %+v", strings.Join(texts, ","), res.Status, res.Body, len(res.Events), res.Rejected)
	}
	codec := event.NewCodec()
	for i := range res.Events {
		key := []byte(res.Keys[i])
		records = append(records, &kgo.Record{Topic: topic.Unprefixed.Raw, Partition: topic.Partition(key, topic.SingleLayout().Partitions), Key: key, Value: codec.AppendRaw(nil, &res.Events[i])})
	}
	return records
}

// startEnricher runs an enricher in this process; end stops or kills it.
func startEnricher(t *testing.T, log kafka.Log, dir string) (end func(kill bool)) {
	t.Helper()
	cfg := enrich.DefaultConfig()
	cfg.Kafka.Brokers = log.Addrs()
	cfg.DataDir, cfg.InstanceID = dir, "one"
	cfg.CommitInterval = 20 * time.Millisecond
	s, err := enrich.New(cfg, enrich.Dependencies{Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	killing, kill := context.WithCancelCause(context.Background())
	stopping, stop := context.WithCancel(killing)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(process.Signals{Stop: stopping, Kill: killing}) }() // ends by end, at the latest at the test's
	over := false
	end = func(killed bool) {
		if over {
			return
		}
		over = true
		if killed {
			kill(errors.New("killed"))
		}
		stop()
		if err := <-ended; err != nil && !killed {
			t.Errorf("the enricher ended with %v", err)
		}
	}
	t.Cleanup(func() { end(true) })
	return end
}

// whom returns what each label counts for: the events in enriched, with the moves
// behind them carried out one by one.
func whom(ctx context.Context, t *testing.T, log kafka.Log) map[string][]string {
	t.Helper()
	r, err := reader.New(kgo.SeedBrokers(log.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	codec := event.NewCodec()
	got, seen := map[string][]string{}, map[string]bool{}
	for p := range topic.SingleLayout().Partitions {
		var rows []*row
		by := map[string][]*row{} // by actor
		b, err := r.Bounds(ctx, topic.Unprefixed.Enriched, p)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Read(ctx, topic.Unprefixed.Enriched, p, b.Start, b.End, func(rec *kgo.Record) error {
			typ, err := codec.Type(rec.Value)
			if err != nil {
				return err
			}
			switch typ {
			case event.TypeEnriched:
				var e event.EnrichedEvent
				if err := codec.DecodeEnriched(rec.Value, &e); err != nil {
					return err
				}
				// The audit compares by the same tuple: none may be there twice.
				if m := string(e.Message().AppendTo([]byte(e.AppID + "/"))); seen[m] {
					t.Errorf("stored twice: %q", m)
				} else {
					seen[m] = true
				}
				if e.Kind == event.KindTrack {
					w := newRow(&e)
					rows = append(rows, w)
					by[w.actor] = append(by[w.actor], w)
				}
			case event.TypeControl:
				var c event.Control
				if err := codec.DecodeControl(rec.Value, &c); err != nil || c.Kind != event.ControlMove {
					return err
				}
				m, err := event.ParseMoves(c.Payload)
				if err != nil {
					return err
				}
				carryOut(by, m.Moves)
			}
			return nil
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range rows {
			got[w.label] = append(got[w.label], w.kind+" "+w.actor)
		}
	}
	return got
}

// row is what an event counts for.
type row struct {
	label, actor, kind, user, anonymous, source string
	at                                          int64
}

func newRow(e *event.EnrichedEvent) *row {
	w := &row{label: strings.Clone(e.Event), actor: strings.Clone(e.ActorID), kind: strings.Clone(e.ActorKind), user: strings.Clone(e.UserID), source: strings.Clone(e.AccountSource), at: e.EventTime}
	if e.UserID == "" {
		w.user, w.anonymous = strings.Clone(e.LinkedUserID), strings.Clone(e.AnonymousID)
	}
	return w
}

// carryOut moves each row by the first of the moves that matches it. All moves of
// identity name an actor.
func carryOut(by map[string][]*row, moves []event.Move) {
	moved := map[*row]bool{}
	for _, m := range moves {
		if m.Match.ActorID == nil {
			for actor := range by {
				one := m
				one.Match.ActorID = &actor
				carryOutOne(by, &one, moved)
			}
			continue
		}
		carryOutOne(by, &m, moved)
	}
}

func carryOutOne(by map[string][]*row, m *event.Move, moved map[*row]bool) {
	is := func(want *string, got string) bool { return want == nil || *want == got }
	for _, w := range slices.Clone(by[*m.Match.ActorID]) {
		at := w.at
		if m.Match.AnonymousID == nil || *m.Match.AnonymousID == "" {
			at -= at % time.Hour.Microseconds()
		}
		if moved[w] || !is(m.Match.ActorID, w.actor) || !is(m.Match.ActorKind, w.kind) || !is(m.Match.UserID, w.user) || !is(m.Match.AnonymousID, w.anonymous) ||
			!is(m.Match.AccountSource, w.source) || (m.From != 0 && at < m.From) || (m.To != 0 && at >= m.To) {
			continue
		}
		moved[w] = true
		if m.Set.ActorID != nil && *m.Set.ActorID != w.actor {
			by[w.actor] = slices.DeleteFunc(by[w.actor], func(o *row) bool { return o == w })
			w.actor = *m.Set.ActorID
			by[w.actor] = append(by[w.actor], w)
		}
		for _, f := range []struct {
			to   *string
			into *string
		}{{m.Set.ActorKind, &w.kind}, {m.Set.UserID, &w.user}, {m.Set.AnonymousID, &w.anonymous}, {m.Set.AccountSource, &w.source}} {
			if f.to != nil {
				*f.into = *f.to
			}
		}
	}
}

// wrong lists the messages that do not count once, for whom they should.
func wrong(got map[string][]string, want map[string]string) (diff []string) {
	for label, w := range want {
		if g := got[label]; len(g) != 1 || g[0] != w {
			diff = append(diff, fmt.Sprintf("%s: got %q, want %q", label, g, w))
		}
	}
	for label, g := range got {
		if _, ok := want[label]; !ok {
			diff = append(diff, fmt.Sprintf("%s: got %q, want nothing", label, g))
		}
	}
	slices.SortFunc(diff, cmp.Compare)
	return diff
}
