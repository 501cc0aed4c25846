package identity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

const app = "dev"

// epoch is the start of an hour; times of the tests are minutes after it.
const epoch = 495_000 * hour

const minute = hour / 60

// row is the attribution of a row of usage_hourly, with the message in place of
// the event's name, so that every message can be followed.
type row struct {
	Account, Source  string
	Actor, ActorKind string
	UserID, AnonID   string
	Role             string
	Message          string
	Hour             event.Micros
	At               event.Micros // the event time
}

// base is the base rollup of a partition as the writer would keep it.
type base map[row]int64

// carryOut does what the writer does with a correction.
func (b base) carryOut(m event.Moves) {
	type change struct {
		from, to row
		n        int64
	}
	var changes []change
	for r, n := range b {
		for _, mv := range m.Moves {
			if matches(r, mv) {
				changes = append(changes, change{r, set(r, mv.Set), n})
				break
			}
		}
	}
	for _, c := range changes {
		b[c.from] -= c.n
		b[c.to] += c.n
	}
	for r, n := range b {
		if n == 0 {
			delete(b, r)
		}
	}
}

func matches(r row, m event.Move) bool {
	for _, f := range []struct {
		want *string
		got  string
	}{
		{m.Match.AccountID, r.Account},
		{m.Match.AccountSource, r.Source},
		{m.Match.ActorID, r.Actor},
		{m.Match.ActorKind, r.ActorKind},
		{m.Match.UserID, r.UserID},
		{m.Match.AnonymousID, r.AnonID},
		{m.Match.Role, r.Role},
	} {
		if f.want != nil && *f.want != f.got {
			return false
		}
	}
	at := r.Hour
	if m.Match.AnonymousID != nil {
		at = r.At
	}
	return (m.From == 0 || m.From <= at) && (m.To == 0 || at < m.To)
}

func set(r row, a event.Attribution) row {
	for _, f := range []struct {
		to   *string
		into *string
	}{
		{a.AccountID, &r.Account},
		{a.AccountSource, &r.Source},
		{a.ActorID, &r.Actor},
		{a.ActorKind, &r.ActorKind},
		{a.UserID, &r.UserID},
		{a.AnonymousID, &r.AnonID},
		{a.Role, &r.Role},
	} {
		if f.to != nil {
			*f.into = *f.to
		}
	}
	return r
}

// call is a raw event with the event time that it counts at.
type call struct {
	event.RawEvent
	at event.Micros
}

func (c call) String() string {
	s := fmt.Sprintf("%-8s m=%s t=%d", c.Kind, c.MessageID, (c.at-epoch)/minute)
	for _, f := range [][2]string{{"u", c.UserID}, {"a", c.AnonymousID}, {"prev", c.PreviousID}, {"acct", c.AccountID}} {
		if f[1] != "" {
			s += " " + f[0] + "=" + f[1]
		}
	}
	if len(c.Traits) > 0 {
		s += " " + string(c.Traits)
	}
	return s
}

// partition is one partition of raw, links, enriched and enricher-state, and the
// enricher that owns it.
type partition struct {
	id        int32
	raw       []call
	links     [][]byte // encoded
	rawAt     int
	linksAt   int
	state     *State
	changelog []Change
	base      base
	controls  map[string]bool
	stamps    map[string]Resolution // by message
}

// cluster runs enrichers in memory.
type cluster struct {
	t          testing.TB
	rnd        *rand.Rand
	cfg        Config
	codec      *event.Codec
	partitions []*partition
	trace      []string
	fanOut     int // most links that one record led to
}

func newCluster(t testing.TB, rnd *rand.Rand, n int32) *cluster {
	c := &cluster{t: t, rnd: rnd, cfg: DefaultConfig(n), codec: event.NewCodec()}
	for i := range n {
		c.partitions = append(c.partitions, &partition{
			id: i, state: New(c.cfg, i, c.codec, nil), base: base{}, controls: map[string]bool{}, stamps: map[string]Resolution{},
		})
	}
	return c
}

func (c *cluster) logf(format string, args ...any) {
	c.trace = append(c.trace, fmt.Sprintf(format, args...))
}

func (c *cluster) fatalf(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("%s\ntrace:\n%s", fmt.Sprintf(format, args...), strings.Join(c.trace, "\n"))
}

// send puts a call into its raw partition.
func (c *cluster) send(k call) {
	k.AppID = app
	p := topic.Partition(topic.RawKey(nil, app, k.UserID, k.AnonymousID, k.AccountID), c.cfg.Partitions)
	c.partitions[p].raw = append(c.partitions[p].raw, k)
}

// unlink puts an operator's order into the links of its partition.
func (c *cluster) unlink(kind, id, userID string, until event.Micros) {
	key := byte(topic.KeyUser)
	if kind == event.ActorAnonymous {
		key = topic.KeyAnonymous
	}
	p := topic.Partition(topic.Key(nil, app, key, id), c.cfg.Partitions)
	l := event.Link{
		Kind: event.LinkUnlink, AppID: app, ID: id, IDKind: kind, UserID: userID, Since: until,
		Call: event.CallOperator, RawPartition: -1, RawOffset: -1, Partition: -1,
	}
	c.partitions[p].links = append(c.partitions[p].links, c.codec.AppendLink(nil, &l))
}

// erase puts an order to forget a person into every partition of links.
func (c *cluster) erase(e event.Erase) {
	body, err := json.Marshal(e)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, p := range c.partitions {
		l := event.Link{
			Kind: event.LinkErase, AppID: app, IDKind: event.ActorUser, Profile: body,
			Call: event.CallOperator, RawPartition: -1, RawOffset: -1, Partition: -1,
		}
		p.links = append(p.links, c.codec.AppendLink(nil, &l))
	}
}

// pending returns the partitions that have something to read.
func (c *cluster) pending() []*partition {
	var list []*partition
	for _, p := range c.partitions {
		if p.rawAt < len(p.raw) || p.linksAt < len(p.links) {
			list = append(list, p)
		}
	}
	return list
}

// drain runs until everything was read.
func (c *cluster) drain() {
	for steps := 0; ; steps++ {
		list := c.pending()
		if len(list) == 0 {
			return
		}
		if steps > 100_000 {
			c.fatalf("links do not come to an end")
		}
		c.step(list[c.rnd.IntN(len(list))])
	}
}

// step runs one transaction of a partition, which may be aborted, and now and
// then starts its enricher anew from the changelog.
func (c *cluster) step(p *partition) {
	if c.rnd.IntN(40) == 0 {
		c.restart(p)
	}
	tx := p.state.Begin()
	rawAt, linksAt := p.rawAt, p.linksAt
	var outs []*Outputs
	type done struct {
		call *call
		res  Resolution
	}
	var dones []done
	var buf []byte
	for range 1 + c.rnd.IntN(3) {
		out := &Outputs{}
		hasRaw, hasLink := rawAt < len(p.raw), linksAt < len(p.links)
		switch {
		case hasRaw && (!hasLink || c.rnd.IntN(2) == 0):
			k := p.raw[rawAt]
			// As a decoded record: the strings lie in a buffer that is reused.
			buf = c.codec.AppendRaw(buf[:0], &k.RawEvent)
			var raw event.RawEvent
			if err := c.codec.DecodeRaw(buf, &raw); err != nil {
				c.fatalf("decode: %v", err)
			}
			if tx.Erased(&raw) {
				rawAt++
				continue
			}
			k.AnonymousID = strings.Clone(raw.AnonymousID)
			res, err := tx.Event(int64(rawAt), &raw, k.at, out)
			if err != nil {
				c.fatalf("event: %v", err)
			}
			dones = append(dones, done{&k, cloneResolution(res)})
			rawAt++
		case hasLink:
			buf = append(buf[:0], p.links[linksAt]...)
			var l event.Link
			if err := c.codec.DecodeLink(buf, &l); err != nil {
				c.fatalf("decode: %v", err)
			}
			if err := tx.Link(int64(linksAt), &l, out); err != nil {
				c.fatalf("link: %v", err)
			}
			dones = append(dones, done{})
			linksAt++
		default:
			continue
		}
		outs = append(outs, c.encode(out))
		for i := range buf {
			buf[i] = '#' // whoever kept a string of the record sees it
		}
		if c.rnd.IntN(8) == 0 {
			outs, dones = append(outs, c.flush(tx)), append(dones, done{})
		}
	}
	outs, dones = append(outs, c.flush(tx)), append(dones, done{})
	if c.rnd.IntN(6) == 0 {
		tx.Rollback()
		return
	}
	tx.Commit()
	p.rawAt, p.linksAt = rawAt, linksAt
	for i, out := range outs {
		c.commit(p, out)
		if d := dones[i]; d.call != nil {
			p.stamp(d.call, d.res)
		}
	}
}

func (c *cluster) flush(tx *Tx) *Outputs {
	out := &Outputs{}
	tx.Flush(out)
	return c.encode(out)
}

func cloneResolution(r Resolution) Resolution {
	for _, s := range []*string{&r.ActorID, &r.AccountID, &r.Role, &r.LinkedUserID, &r.ParentAccountID} {
		*s = strings.Clone(*s)
	}
	return r
}

// encode copies what aliases the record at hand.
func (c *cluster) encode(out *Outputs) *Outputs {
	for i := range out.Links {
		l := &out.Links[i]
		value := c.codec.AppendLink(nil, &l.Record)
		l.Record = event.Link{}
		if err := c.codec.DecodeLink(value, &l.Record); err != nil {
			c.fatalf("decode: %v", err)
		}
	}
	for i := range out.Controls {
		value := c.codec.AppendControl(nil, &out.Controls[i])
		if err := c.codec.DecodeControl(value, &out.Controls[i]); err != nil {
			c.fatalf("decode: %v", err)
		}
	}
	c.fanOut = max(c.fanOut, len(out.Links))
	return out
}

func (c *cluster) commit(p *partition, out *Outputs) {
	for _, l := range out.Links {
		if l.Partition == p.id {
			c.fatalf("a link of partition %d to itself: %+v", p.id, l.Record)
		}
		to := c.partitions[l.Partition]
		to.links = append(to.links, c.codec.AppendLink(nil, &l.Record))
	}
	p.changelog = append(p.changelog, out.Changes...)
	for _, ctl := range out.Controls {
		if p.controls[ctl.ControlID] {
			c.fatalf("control id %s twice", ctl.ControlID)
		}
		p.controls[ctl.ControlID] = true
		m, err := event.ParseMoves(ctl.Payload)
		if err != nil {
			c.fatalf("control: %v", err)
		}
		p.base.carryOut(m)
	}
}

func (p *partition) stamp(k *call, res Resolution) {
	p.stamps[k.MessageID] = res
	if !event.IsUsage(k.Kind) {
		return
	}
	p.base[stamped(k, res)]++
}

func stamped(k *call, res Resolution) row {
	r := row{
		Account: res.AccountID, Source: res.AccountSource, Actor: res.ActorID, ActorKind: res.ActorKind,
		UserID: k.UserID, Role: res.Role, Message: k.MessageID, Hour: hourOf(k.at), At: k.at,
	}
	if k.UserID == "" {
		r.UserID, r.AnonID = res.LinkedUserID, k.AnonymousID
	}
	return r
}

// restart makes the state of a partition anew from its changelog, whole or
// compacted, and holds it against what it was.
func (c *cluster) restart(p *partition) {
	log := p.changelog
	if c.rnd.IntN(2) == 0 {
		last := map[string]int{}
		for i, ch := range log {
			last[string(ch.Key)] = i
		}
		var compacted []Change
		for i, ch := range log {
			if last[string(ch.Key)] == i {
				compacted = append(compacted, ch)
			}
		}
		log = compacted
	}
	fresh := New(c.cfg, p.id, c.codec, nil)
	fresh.seeds = p.state.seeds // dump compares hashes
	for _, ch := range log {
		if err := fresh.Apply(ch.Key, ch.Value); err != nil {
			c.fatalf("apply: %v", err)
		}
	}
	if got, want := dump(fresh), dump(p.state); got != want {
		c.fatalf("state of partition %d after restore\ngot\n%s\nwant\n%s", p.id, got, want)
	}
	p.state = fresh
}

// dump lists what a state holds.
func dump(s *State) string {
	var lines []string
	s.ids.each(func(key, value []byte) bool {
		lines = append(lines, fmt.Sprintf("%q = %x", key, value))
		return true
	})
	s.known.each(func(p pair, first event.Micros) { lines = append(lines, fmt.Sprintf("known %x from %d", p, first)) })
	for app, sets := range s.erased {
		for _, set := range sets {
			for h := range set.hashes {
				lines = append(lines, fmt.Sprintf("erased %s %x %x", app, set.key, h))
			}
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// counted is what all partitions count, without what only unlink reads.
func (c *cluster) counted() map[string]row {
	got := map[string]row{}
	for _, p := range c.partitions {
		for r, n := range p.base {
			if _, twice := got[r.Message]; twice || n != 1 {
				c.fatalf("message %s is counted %d times, as %+v and %+v", r.Message, n, r, got[r.Message])
			}
			got[r.Message] = r
		}
	}
	return got
}

// compare holds what is counted against what should be.
func (c *cluster) compare(what string, want map[string]row) {
	c.t.Helper()
	got := c.counted()
	var diff []string
	for m, w := range want {
		if g, ok := got[m]; !ok || g != w {
			diff = append(diff, fmt.Sprintf("message %s\n got  %+v\n want %+v", m, g, w))
		}
	}
	for m, g := range got {
		if _, ok := want[m]; !ok {
			diff = append(diff, fmt.Sprintf("message %s is counted as %+v and should not be", m, g))
		}
	}
	if len(diff) > 0 {
		slices.Sort(diff)
		c.fatalf("%s:\n%s", what, strings.Join(diff, "\n"))
	}
}

func ids(prefix string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return list
}

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

func traits(role string) []byte {
	if role == "" {
		return nil
	}
	return []byte(`{"role":"` + role + `"}`)
}

func TestCarryOutMovesByTheFirstMatch(t *testing.T) {
	b := base{{Actor: "a", Message: "m", Hour: epoch}: 2}
	b.carryOut(event.Moves{Moves: []event.Move{
		{Match: event.Attribution{ActorID: text("a")}, From: epoch + hour, Set: event.Attribution{ActorID: text("x")}},
		{Match: event.Attribution{ActorID: text("a")}, To: epoch + hour, Set: event.Attribution{ActorID: text("b")}},
		{Match: event.Attribution{ActorID: text("a")}, Set: event.Attribution{ActorID: text("c")}},
	}})
	if want := (base{{Actor: "b", Message: "m", Hour: epoch}: 2}); len(b) != 1 || b[row{Actor: "b", Message: "m", Hour: epoch}] != 2 {
		t.Errorf("got %v, want %v", b, want)
	}
}

func TestTableKeepsWhatItIsGiven(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var tab table
	want := map[string][]byte{}
	var held [][2][]byte // a value that was handed out, and what it was
	for i := range 200_000 {
		key := []byte(fmt.Sprint(rnd.IntN(3000)))
		switch {
		case rnd.IntN(5) == 0:
			tab.remove(key)
			delete(want, string(key))
		default:
			value := bytes.Repeat([]byte{byte(rnd.IntN(256))}, 1+rnd.IntN(300))
			tab.set(key, value)
			want[string(key)] = value
		}
		probe := []byte(fmt.Sprint(rnd.IntN(3000)))
		got, ok := tab.get(probe)
		if w, has := want[string(probe)]; ok != has || !bytes.Equal(got, w) {
			t.Fatalf("step %d: get %s = %x, %v, want %x, %v", i, probe, got, ok, w, has)
		}
		if ok && i%1000 == 0 {
			held = append(held, [2][]byte{got, bytes.Clone(got)})
		}
	}
	if tab.used != len(want) {
		t.Errorf("used = %d, want %d", tab.used, len(want))
	}
	for _, h := range held {
		if !bytes.Equal(h[0], h[1]) {
			t.Fatal("a value that was handed out changed")
		}
	}
	if tab.size > 3*300*3000 && tab.size > 2*minCompact {
		t.Errorf("the table holds %d bytes for %d entries", tab.size, tab.used)
	}
}
