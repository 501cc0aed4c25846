package identity

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// script runs calls one after the other on several partitions.
type script struct {
	*cluster
	n int
}

func newScript(t *testing.T, partitions int32, change func(*Config)) *script {
	c := newCluster(t, rand.New(rand.NewPCG(1, 2)), partitions)
	if change != nil {
		change(&c.cfg)
		if err := c.cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		for _, p := range c.partitions {
			p.state = New(c.cfg, p.id, c.codec, nil)
		}
	}
	return &script{cluster: c}
}

// say sends calls, minutes after the epoch, and waits until all is known
// everywhere. A call is "kind minute u=.. a=.. acct=.. prev=.. role=..".
func (s *script) say(calls ...string) {
	s.t.Helper()
	for _, text := range calls {
		s.send(s.parse(text))
		s.drain()
	}
}

func (s *script) parse(text string) call {
	s.n++
	k := call{}
	k.MessageID = fmt.Sprintf("m%d", s.n)
	fields := strings.Fields(text)
	k.Kind = fields[0]
	var at int64
	if _, err := fmt.Sscan(fields[1], &at); err != nil {
		s.t.Fatal(text)
	}
	k.at = epoch + at*minute
	for _, f := range fields[2:] {
		name, v, _ := strings.Cut(f, "=")
		switch name {
		case "u":
			k.UserID = v
		case "a":
			k.AnonymousID = v
		case "acct":
			k.AccountID = v
		case "prev":
			k.PreviousID = v
		case "role":
			k.Traits = traits(v)
		case "id":
			k.MessageID = v
		case "us": // microseconds more
			us, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				s.t.Fatal(text)
			}
			k.at += us
		default:
			s.t.Fatalf("%s: unknown field %s", text, name)
		}
	}
	s.logf("%s", k)
	return k
}

// expect holds what the messages count for: "id actor account/role", with - for
// none and ? before an anonymous actor.
func (s *script) expect(want ...string) {
	s.t.Helper()
	counted := s.counted()
	var got []string
	for _, w := range want {
		id := strings.Fields(w)[0]
		r, ok := counted[id]
		if !ok {
			got = append(got, id+" is not counted")
			continue
		}
		actor, account := r.Actor, r.Account
		if r.ActorKind == event.ActorAnonymous {
			actor = "?" + actor
		}
		if account == "" {
			account = "-"
		}
		if r.Role != "" {
			account += "/" + r.Role
		}
		got = append(got, fmt.Sprintf("%s %s %s", id, actor, account))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.fatalf("got  %q\nwant %q", got, want)
	}
}

func (s *script) order(kind, id, user string, until int64) {
	u := event.Micros(math.MaxInt64)
	if until >= 0 {
		u = epoch + until*minute
	}
	s.unlink(kind, id, user, u)
	s.drain()
}

func TestVisitorBecomesKnown(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say(
		"track 1 id=before a=a1",
		"track 2 id=named a=a1 acct=other",
		"group 3 u=u1 acct=acct1 role=admin",
		"identify 4 u=u1 a=a1",
		"track 5 id=after a=a1",
		"track 6 id=both u=u1 a=a2", // says that a2 is u1, too
		"track 7 id=second a=a2",
		"track 0 id=late a=a1",
	)
	s.expect("before u1 acct1/admin", "named u1 other", "after u1 acct1/admin", "both u1 acct1/admin", "second u1 acct1/admin", "late u1 acct1/admin")
}

func TestLinkArrivesLongAfterOnAnotherPartitionAndTwice(t *testing.T) {
	s := newScript(t, 4, nil)
	for n := range 200 {
		s.say(fmt.Sprintf("track %d id=e%d a=a1", n, n))
	}
	s.say("identify 300 u=u1 a=a1", "identify 300 u=u1 a=a1", "identify 200 u=u1 a=a1")
	for n := range 200 {
		s.expect(fmt.Sprintf("e%d u1 -", n))
	}
	controls := 0
	for _, p := range s.partitions {
		controls += len(p.controls)
	}
	if controls != 1 {
		t.Errorf("%d corrections were ordered, want 1", controls)
	}
}

func TestSharedDevice(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say(
		"track 1 id=before a=kiosk",
		"identify 10 u=u1 a=kiosk",
		"track 11 id=first a=kiosk",
		"identify 20 u=u2 a=kiosk",
		"track 21 id=second a=kiosk",
		"identify 30 u=u1 a=kiosk",
		"track 31 id=again a=kiosk",
		"track 22 id=late a=kiosk",  // u2 had it then
		"track 5 id=oldest a=kiosk", // from before the first link
	)
	s.expect("before u1 -", "first u1 -", "second u2 -", "again u1 -", "late u2 -", "oldest u1 -")
}

// Calls of a shared device that arrive in whatever order, over several partitions,
// end as they do one by one in the order of their times.
func TestSharedDeviceInWhateverOrder(t *testing.T) {
	for _, tc := range []struct {
		name  string
		calls []string
		want  []string
	}{
		{"two users, in one file", []string{
			"track -30 id=before a=till", "identify 0 u=b a=till", "track 30 id=first a=till", "identify 1440 u=c a=till", "track 1470 id=second a=till",
		}, []string{"before b -", "first b -", "second c -"}},
		{"three users within an hour", []string{
			"track 1 id=t0 a=till", "identify 5 u=b a=till", "track 6 id=t1 a=till", "identify 10 u=c a=till", "track 11 id=t2 a=till",
			"identify 15 u=d a=till", "track 16 id=t3 a=till",
		}, []string{"t0 b -", "t1 b -", "t2 c -", "t3 d -"}},
		{"at the very instant, and a moment beside it", []string{
			"identify 5 u=b a=till", "track 10 id=before us=-1 a=till", "identify 10 u=c a=till", "track 10 id=at a=till", "track 10 id=after us=100000 a=till",
			"track 5 id=first a=till",
		}, []string{"first b -", "before b -", "at c -", "after c -"}},
		{"two links of one instant", []string{
			"track 4 id=before a=till", "identify 5 u=c a=till", "identify 5 u=b a=till", "track 5 id=at a=till", "track 6 id=after a=till", "identify 7 u=b a=till", "track 7 id=end a=till",
		}, []string{"before b -", "at c -", "after c -", "end b -"}},
		{"a link that comes days late", []string{
			"identify 5 u=b a=till", "track 6 id=t1 a=till", "track 4330 id=t2 a=till", "identify 4325 u=c a=till", "track 4320 id=t3 a=till",
		}, []string{"t1 b -", "t2 c -", "t3 b -"}},
		{"back and forth", []string{
			"identify 1 u=b a=till", "track 2 id=t1 a=till", "identify 3 u=c a=till", "track 4 id=t2 a=till", "identify 5 u=b a=till", "track 6 id=t3 a=till",
			"identify 7 u=c a=till", "track 8 id=t4 a=till", "identify 9 u=c a=till", "identify 11 u=b a=till", "track 12 id=t5 a=till",
		}, []string{"t1 b -", "t2 c -", "t3 b -", "t4 c -", "t5 b -"}},
		{"usage that names both", []string{
			"track 1 id=t0 a=till", "track 2 u=b a=till", "identify 5 u=c a=till", "track 6 id=t1 a=till", "track 7 u=b a=till", "track 8 id=t2 a=till",
		}, []string{"t0 b -", "t1 c -", "t2 c -"}},
		{"accounts of their users", []string{
			"group 0 u=b acct=x role=clerk", "group 0 u=c acct=y role=boss", "track 1 id=t0 a=till", "identify 5 u=b a=till", "track 6 id=named a=till acct=y",
			"identify 7 u=c a=till", "track 8 id=t1 a=till", "track 8 id=named2 a=till acct=y",
		}, []string{"t0 b x/clerk", "named b y", "t1 c y/boss", "named2 c y/boss"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			orders := 200
			if testing.Short() {
				orders = 20
			}
			for n := range orders {
				s := newScript(t, 1+int32(n%4), nil)
				s.rnd = rand.New(rand.NewPCG(uint64(n), 3))
				calls := make([]call, len(tc.calls))
				for i, text := range tc.calls {
					calls[i] = s.parse(text)
				}
				if n > 0 {
					s.rnd.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
				}
				for _, k := range calls {
					s.send(k)
					if s.rnd.IntN(2) == 0 {
						s.step(pick(s.rnd, s.pending()))
					}
				}
				s.drain()
				s.expect(tc.want...)
			}
		})
	}
}

// A claim that says what is in force already is remembered only as an instant, and
// of these only as many as of links.
func TestLinksSaidAgainAreBounded(t *testing.T) {
	s := newScript(t, 1, func(c *Config) { c.MaxLinks = 4 })
	for n := range 20 {
		s.say(fmt.Sprintf("identify %d u=b a=till", 10*n))
	}
	var a anonymous
	s.partitions[0].state.ids.each(func(key, value []byte) bool {
		if string(key) == string(topic.Key(nil, app, topic.KeyAnonymous, "till")) {
			a.read(value)
		}
		return true
	})
	if len(a.Links) != 1 || len(a.Again) != 4 || a.Thinned != epoch+150*minute {
		t.Fatalf("got %+v, want one link, said again at the four latest instants", a)
	}
	s.say("track 172 id=t a=till", "identify 171 u=c a=till", "track 175 id=u a=till", "track 181 id=v a=till")
	s.expect("t c -", "u c -", "v b -")
}

func TestAliases(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say(
		"track 1 id=x u=x", "track 1 id=y u=y", "track 1 id=z u=z", "track 1 id=a a=a1",
		"identify 2 u=x a=a1", // linked to a user who is aliased to a third
		"alias 3 prev=x u=y",
		"alias 4 prev=y u=z",
		"track 5 id=x2 u=x", "track 5 id=a2 a=a1",
		"group 6 u=x acct=acct1 role=admin", // is z's as well
		"track 7 id=z2 u=z",
	)
	s.expect("x z acct1/admin", "y z acct1/admin", "z z acct1/admin", "a z acct1/admin", "x2 z acct1/admin", "a2 z acct1/admin", "z2 z acct1/admin")
}

// What was counted for a user of the name of an anonymous id moves with the claim on
// that id, whatever arrives first, unless the user was identified.
func TestNamesakes(t *testing.T) {
	// As PostHog's decoder makes an $identify with $anon_distinct_id: two events.
	identify := func(minute int, user, anonymous string) []string {
		return []string{fmt.Sprintf("identify %d u=%s a=%s", minute, user, anonymous), fmt.Sprintf("alias %d u=%s a=%s prev=%s", minute, user, anonymous, anonymous)}
	}
	for _, tc := range []struct {
		name  string
		calls []string
		want  []string
		order bool // matters
	}{
		{
			"taken for a user", slices.Concat([]string{"track 1 id=before u=plain", "track 1 id=visitor a=plain"}, identify(2, "ana", "plain"), []string{"track 3 id=late u=plain", "track 3 id=after u=ana"}),
			[]string{"before ana -", "visitor ana -", "late ana -", "after ana -"},
			false,
		},
		{
			"their account", slices.Concat([]string{"group 0 u=ana acct=x", "track 1 id=before u=plain"}, identify(2, "ana", "plain")),
			[]string{"before ana x"},
			false,
		},
		{
			"two visitors of one user", slices.Concat([]string{"track 1 id=one u=p1", "track 1 id=two u=p2"}, identify(2, "ana", "p1"), identify(4, "ana", "p2")),
			[]string{"one ana -", "two ana -"},
			false,
		},
		{
			"without a reset between two people", slices.Concat([]string{"track 1 id=before u=plain"}, identify(2, "ana", "plain"), []string{"track 3 id=hers u=ana"}, identify(4, "ben", "ana"), []string{"track 5 id=his u=ben", "track 6 id=again u=ana"}),
			[]string{"before ana -", "hers ana -", "his ben -", "again ana -"},
			true,
		},
		{
			"of somebody else already", slices.Concat([]string{"track 1 id=before u=plain"}, identify(2, "ana", "plain"), identify(4, "ben", "plain"), []string{"track 5 id=late u=plain"}),
			[]string{"before ana -", "late ana -"},
			true,
		},
		{
			"then identified itself", slices.Concat([]string{"track 1 id=before u=plain"}, identify(2, "ana", "plain"), identify(3, "plain", "p2"), []string{"track 4 id=visitor u=p2"}),
			[]string{"before ana -", "visitor ana -"},
			true,
		},
		{
			"an explicit alias of an identified user", slices.Concat(identify(2, "ana", "plain"), []string{"track 3 id=hers u=ana", "alias 4 prev=ana u=ben"}),
			[]string{"hers ben -"},
			false,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for n := range 40 {
				s := newScript(t, 1+int32(n%4), nil)
				s.rnd = rand.New(rand.NewPCG(uint64(n), 4))
				var calls []call
				for _, text := range tc.calls {
					calls = append(calls, s.parse(text))
				}
				if n > 3 && !tc.order {
					s.rnd.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
				}
				for _, k := range calls {
					s.send(k)
					if tc.order {
						s.drain()
					} else if s.rnd.IntN(2) == 0 {
						s.step(pick(s.rnd, s.pending()))
					}
				}
				s.drain()
				s.expect(tc.want...)
			}
		})
	}
}

// A namesake that is refused is reported as an alias that does not count, once for
// each later call.
func TestRefusedNamesakeIsReported(t *testing.T) {
	tx := New(DefaultConfig(1), 0, event.NewCodec(), nil).Begin()
	var reasons []event.Reason
	for i, text := range []string{"identify 1 ana d1", "alias 4 ben ana", "alias 4 ben ana", "alias 3 ben ana", "alias 6 ben ana"} {
		var kind, user, other string
		var at int64
		if _, err := fmt.Sscan(text, &kind, &at, &user, &other); err != nil {
			t.Fatal(err)
		}
		raw := event.RawEvent{AppID: app, Kind: kind, UserID: user, AnonymousID: other}
		if kind == event.KindAlias {
			raw.PreviousID = other
		}
		out := &Outputs{}
		if _, err := tx.Event(int64(i), &raw, epoch+at*minute, out); err != nil {
			t.Fatal(err)
		}
		tx.Flush(out)
		for _, c := range out.Controls {
			if m, err := event.ParseMoves(c.Payload); err != nil {
				t.Fatal(err)
			} else if m.Reason != nil {
				reasons = append(reasons, *m.Reason)
			}
		}
	}
	refused := func(at int64) event.Reason {
		return event.Reason{Kind: event.ReasonUnlink, IDKind: event.ActorUser, ID: "ana", UserID: "ben", Until: epoch + at*minute}
	}
	if !slices.Equal(reasons, []event.Reason{refused(4), refused(6)}) {
		t.Errorf("got %+v", reasons)
	}
}

func TestAliasOfAnAnonymousID(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say("track 1 id=before a=visitor", "alias 2 prev=visitor u=u1", "track 3 id=after a=visitor")
	s.expect("before u1 -", "after u1 -")
}

func TestCycleOfAliases(t *testing.T) {
	for name, order := range map[string][]string{
		"in order":  {"alias 1 prev=x u=y", "alias 2 prev=y u=z", "alias 3 prev=z u=x"},
		"last link": {"alias 3 prev=z u=x", "alias 2 prev=y u=z", "alias 1 prev=x u=y"},
		"mixed":     {"alias 2 prev=y u=z", "alias 3 prev=z u=x", "alias 1 prev=x u=y"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, 4, nil)
			s.say("track 1 id=x u=x", "track 1 id=y u=y", "track 1 id=z u=z")
			s.say(order...)
			s.say("track 5 id=x2 u=x")
			s.expect("x z -", "y z -", "z z -", "x2 z -") // z → x was said last
		})
	}
	s := newScript(t, 2, nil)
	s.say("track 1 id=x u=x", "alias 2 prev=x u=x", "track 3 id=x2 u=x")
	s.expect("x x -", "x2 x -")
}

func TestSecondAliasCountsFromThereOn(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say("track 1 id=one u=x", "alias 2 prev=x u=y", "track 3 id=two u=x", "alias 4 prev=x u=z", "track 5 id=three u=x")
	s.expect("one y -", "two y -", "three z -")
}

func TestMembershipsByEventTime(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say(
		"track 1 id=before u=u1",
		"group 60 u=u1 acct=acct1 role=clerk",
		"group 120 u=u1 acct=acct2 role=admin",
		"track 61 id=in1 u=u1",
		"track 121 id=in2 u=u1",
		"track 119 id=late1 u=u1",
		"track 130 id=named u=u1 acct=acct1", // a role of the membership that it names
		"group 125 u=u1 acct=acct1 role=owner",
		"track 131 id=named2 u=u1 acct=acct1",
		"track 122 id=notmoved u=u1",
		"track 2 id=first u=u1",
	)
	s.expect("before u1 acct1/clerk", "in1 u1 acct1/clerk", "in2 u1 acct2/admin", "late1 u1 acct1/clerk",
		"named u1 acct1/clerk", "named2 u1 acct1/owner", "notmoved u1 acct2/admin", "first u1 acct1/clerk")
}

// Of two memberships of the same instant the one with the greater account is in
// force from then on, and of one account the greater role, whichever was said
// first; before the first instant the lesser are.
func TestMembershipsOfTheSameInstant(t *testing.T) {
	accounts := []string{"group 60 u=u1 acct=acme role=z", "group 60 u=u1 acct=beta role=a"}
	roles := []string{"group 60 u=u1 acct=acme role=clerk", "group 60 u=u1 acct=acme role=admin"}
	for _, tc := range []struct{ first, second, before, after string }{
		{accounts[0], accounts[1], "acme/z", "beta/a"},
		{accounts[1], accounts[0], "acme/z", "beta/a"},
		{roles[0], roles[1], "acme/admin", "acme/clerk"},
		{roles[1], roles[0], "acme/admin", "acme/clerk"},
	} {
		s := newScript(t, 4, nil)
		s.say(tc.first, tc.second, "track 59 id=before u=u1", "track 60 id=then u=u1", "track 61 id=after u=u1")
		s.expect("before u1 "+tc.before, "then u1 "+tc.after, "after u1 "+tc.after)
	}
}

// What an anonymous id did over months goes to the accounts that its user was
// in then, by the hour.
func TestMovedHistoryIsDatedByItsHours(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say(
		"track 10 id=h0 a=a1", "track 70 id=h1 a=a1", "track 130 id=h2 a=a1", "track 190 id=h3 a=a1",
		"group 65 u=u1 acct=acct1 role=clerk",
		"group 150 u=u1 acct=acct2",
		"identify 200 u=u1 a=a1",
	)
	// acct2 began within hour 2, whose start was acct1's.
	s.expect("h0 u1 acct1/clerk", "h1 u1 acct1/clerk", "h2 u1 acct1/clerk", "h3 u1 acct2")
}

func TestRoleOfTheUserWhereAMembershipNamesNone(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say(
		"track 1 id=before u=maria acct=shop",
		"identify 2 u=maria role=cashier",
		"group 3 u=maria acct=shop",
		"track 4 id=after u=maria acct=shop",
		"track 5 id=elsewhere u=maria acct=other",
	)
	s.expect("before maria shop/cashier", "after maria shop/cashier", "elsewhere maria other/cashier")
}

func TestUnlinkGivesBackWhatTheLinkMovedAndNothingElse(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say(
		"group 1 u=u1 acct=acct1 role=admin",
		"track 2 id=own u=u1",
		"track 2 id=anon a=a1", "track 3 id=named a=a1 acct=acct1", "track 3 id=other a=a2",
		"identify 4 u=u1 a=a1", "identify 4 u=u1 a=a2",
		"track 5 id=after a=a1",
		"alias 6 prev=u1 u=u9", // other moves since
		"group 7 u=u9 acct=acct9",
		"track 8 id=last a=a1",
	)
	s.expect("own u9 acct1/admin", "anon u9 acct1/admin", "named u9 acct1/admin", "other u9 acct1/admin", "after u9 acct1/admin", "last u9 acct9")
	s.order(event.ActorAnonymous, "a1", "u1", -1)
	s.say("track 9 id=now a=a1", "identify 10 u=u1 a=a1", "track 11 id=still a=a1")
	s.expect("own u9 acct1/admin", "anon ?a1 -", "named ?a1 acct1", "other u9 acct1/admin", "after ?a1 -", "last ?a1 -", "now ?a1 -", "still ?a1 -")
}

func TestUnlinkUpToATimeLetsALaterCallLinkAgain(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say("track 1 id=one a=a1", "identify 4 u=u1 a=a1")
	s.order(event.ActorAnonymous, "a1", "u1", 10)
	s.expect("one ?a1 -")
	s.say("identify 4 u=u1 a=a1") // the same once more
	s.expect("one ?a1 -")
	s.say("identify 20 u=u1 a=a1")
	s.expect("one u1 -")
}

func TestUnlinkOnASharedDevice(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say(
		"track 1 id=before a=kiosk",
		"identify 10 u=u1 a=kiosk", "track 70 id=u1 a=kiosk",
		"identify 80 u=wrong a=kiosk", "track 90 id=wrong a=kiosk",
		"identify 100 u=u2 a=kiosk", "track 110 id=u2 a=kiosk",
	)
	s.order(event.ActorAnonymous, "kiosk", "wrong", -1)
	s.expect("before u1 -", "u1 u1 -", "wrong u1 -", "u2 u2 -")
	s.order(event.ActorAnonymous, "kiosk", "u1", -1)
	s.expect("before u2 -", "u1 u2 -", "wrong u2 -", "u2 u2 -")
	s.order(event.ActorAnonymous, "kiosk", "u2", -1)
	s.expect("before ?kiosk -", "u1 ?kiosk -", "wrong ?kiosk -", "u2 ?kiosk -")
}

func TestUnlinkOfAnAlias(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say(
		"group 1 u=y acct=accty role=admin",
		"track 1 id=x u=x", "track 1 id=y u=y", "track 1 id=a a=a1", "identify 2 u=x a=a1",
		"alias 3 prev=x u=y",
		"track 4 id=x2 u=x", "track 4 id=a2 a=a1", "track 4 id=named u=x acct=accty",
	)
	s.expect("x y accty/admin", "y y accty/admin", "a y accty/admin", "x2 y accty/admin", "a2 y accty/admin", "named y accty/admin")
	s.order(event.ActorUser, "x", "y", -1)
	s.say("track 5 id=x3 u=x", "track 5 id=a3 a=a1")
	s.expect("x x -", "y y accty/admin", "a x -", "x2 x -", "a2 x -", "named x accty", "x3 x -", "a3 x -")
}

// Ten thousand anonymous ids of one user cost a record for each, once, and what
// the user learns costs a record for each partition.
func TestTenThousandAnonymousIDs(t *testing.T) {
	const n, partitions = 10_000, 12
	s := newScript(t, partitions, nil)
	for i := range n {
		s.send(s.parse(fmt.Sprintf("track 1 id=e%d a=a%d", i, i)))
	}
	for i := range n {
		s.send(s.parse(fmt.Sprintf("identify 2 u=u1 a=a%d", i)))
	}
	s.drain()
	s.trace = nil
	s.fanOut = 0
	before := s.linkRecords()
	s.say("group 3 u=u1 acct=acct1 role=admin")
	if got := s.linkRecords() - before; got > partitions {
		t.Errorf("a membership took %d link records, want %d at most", got, partitions)
	}
	before = s.linkRecords()
	s.say("alias 4 prev=u1 u=u2")
	// The alias and its claim; its profile to and from each partition; the
	// membership that u2 has now, to each.
	if got := s.linkRecords() - before; got > 4*partitions+2 {
		t.Errorf("an alias took %d link records, want %d at most", got, 4*partitions+2)
	}
	if s.fanOut > partitions+1 {
		t.Errorf("one record led to %d links, want %d at most", s.fanOut, partitions+1)
	}
	for i := range n {
		s.expect(fmt.Sprintf("e%d u2 acct1/admin", i))
		if i > 100 {
			break
		}
	}
	for m, r := range s.counted() {
		if r.Actor != "u2" || r.Account != "acct1" {
			t.Fatalf("%s counts for %+v", m, r)
		}
	}
	home := s.partitions[topic.Partition(topic.Key(nil, app, topic.KeyUser, "u1"), partitions)]
	tx := home.state.Begin()
	if b, _ := tx.get(app, topic.KeyUser, "u1"); len(b) > 256 {
		t.Errorf("the record of a user with %d anonymous ids has %d bytes", n, len(b))
	}
}

func (c *cluster) linkRecords() int {
	n := 0
	for _, p := range c.partitions {
		n += len(p.links)
	}
	return n
}

// What a bound leaves out is counted and flagged, and the event is kept.
func TestBounds(t *testing.T) {
	long := strings.Repeat("x", 2000)
	for name, tc := range map[string]struct {
		bound  string
		change func(*Config)
		calls  []string
		flag   string // of the last call
		expect []string
	}{
		"links of an anonymous id": {
			boundLinks, func(c *Config) { c.MaxLinks = 2 },
			[]string{
				"identify 10 u=u1 a=k", "identify 20 u=u2 a=k", "identify 30 u=u3 a=k",
				"track 25 id=second a=k", "track 35 id=third a=k", "track 15 id=forgotten a=k",
			},
			FlagForgotten,
			[]string{"second u2 -", "third u3 -", "forgotten u2 -"},
		},
		"anonymous ids of a user": {
			boundAnonymous, func(c *Config) { c.MaxAnonymous = 2 },
			[]string{
				"track 1 id=three a=a3", "identify 10 u=u1 a=a1", "identify 20 u=u1 a=a2",
				"track 30 id=over u=u1 a=a3",
			},
			FlagLimit,
			[]string{"three ?a3 -", "over u1 -"},
		},
		"memberships of a user": {
			boundMemberships, func(c *Config) { c.MaxMemberships = 2 },
			[]string{
				"group 10 u=u1 acct=c1", "group 20 u=u1 acct=c2", "group 30 u=u1 acct=c3",
				"track 25 id=second u=u1", "track 35 id=third u=u1", "track 15 id=forgotten u=u1",
			},
			FlagForgotten,
			[]string{"second u1 c2", "third u1 c3", "forgotten u1 c2"},
		},
		"a chain of aliases": {
			boundAliasDepth, func(c *Config) { c.MaxAliasDepth = 2 },
			[]string{
				"alias 1 prev=u1 u=u2", "alias 2 prev=u2 u=u3", "track 3 id=fits u=u1",
				"alias 4 prev=u3 u=u4", "track 5 id=near u=u2", "track 6 id=far u=u1",
			},
			FlagLimit,
			[]string{"fits u4 -", "near u4 -", "far u3 -"},
		},
		"the bytes of an id": {
			boundIDBytes, nil,
			[]string{"track 1 id=a a=a1", "track 2 id=long u=" + long + " a=a1"},
			FlagLimit,
			[]string{"a ?a1 -", "long " + long + " -"},
		},
		"the state": {
			boundStateBytes, nil,
			[]string{"track 1 id=a a=a1", "track 2 id=full u=u1 a=a1"},
			FlagLimit,
			[]string{"a ?a1 -", "full u1 -"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, 1, tc.change)
			p := s.partitions[0]
			if tc.bound == boundStateBytes {
				s.cfg.MaxStateBytes = 0 // as if it were full
				p.state = New(s.cfg, 0, s.codec, nil)
			}
			m := p.state.metrics
			for _, text := range tc.calls {
				k := s.parse(text)
				k.AppID = app
				tx := p.state.Begin()
				out := &Outputs{}
				res, err := tx.Event(int64(s.n), &k.RawEvent, k.at, out)
				if err != nil {
					t.Fatal(err)
				}
				s.commit(p, out)
				p.stamp(&k, res)
				flushed := s.flush(tx)
				tx.Commit()
				s.commit(p, flushed)
			}
			if got := p.stamps[strings.TrimPrefix(lastID(tc.calls), "id=")].Flags; got != tc.flag {
				t.Errorf("flags of the last event: got %q, want %q", got, tc.flag)
			}
			if got := testutil.ToFloat64(m.limits.WithLabelValues(tc.bound)); got == 0 {
				t.Errorf("nothing was counted under %s", tc.bound)
			}
			s.expect(tc.expect...)
		})
	}
}

func lastID(calls []string) string {
	for _, f := range strings.Fields(calls[len(calls)-1]) {
		if strings.HasPrefix(f, "id=") {
			return f
		}
	}
	return ""
}

// A user with more accounts than a control record has moves is moved by several,
// each row once.
func TestMovesOfManyMemberships(t *testing.T) {
	s := newScript(t, 2, nil)
	const n = 60
	for i := range n {
		s.say(
			fmt.Sprintf("track %d id=a%d a=a1", i*60+30, i),
			fmt.Sprintf("track %d id=n%d a=a1 acct=c%d", i*60+31, i, i),
			fmt.Sprintf("group %d u=u1 acct=c%d role=r%d", i*60, i, i),
		)
	}
	s.say("identify 9000 u=u1 a=a1")
	home := s.partitions[topic.Partition(topic.Key(nil, app, topic.KeyAnonymous, "a1"), 2)]
	if len(home.controls) < 2 {
		t.Errorf("%d control records, want several", len(home.controls))
	}
	for i := range n {
		s.expect(fmt.Sprintf("a%d u1 c%d/r%d", i, i, i), fmt.Sprintf("n%d u1 c%d/r%d", i, i, i))
	}
}

func TestParentAccount(t *testing.T) {
	st := New(DefaultConfig(1), 0, event.NewCodec(), nil)
	for traits, want := range map[string]string{
		`{"name":"Shop","parent_account_id":"chain"}`: "chain",
		`{"parentGroupId":42}`:                        "42",
		`{"parent_account_id":null}`:                  "",
		`{"parent_account_id":{"id":"chain"}}`:        "",
		``:                                            "",
		`not JSON parent_account_id`:                  "",
	} {
		raw := event.RawEvent{AppID: app, Kind: event.KindGroup, MessageID: "m", AccountID: "shop", Traits: []byte(traits)}
		tx := st.Begin()
		res, err := tx.Event(0, &raw, epoch, &Outputs{})
		if err != nil {
			t.Fatal(err)
		}
		tx.Rollback()
		if res.ParentAccountID != want || res.ActorKind != event.ActorAccount {
			t.Errorf("%s: got %q of a %s, want %q", traits, res.ParentAccountID, res.ActorKind, want)
		}
	}
}

func TestControlIDsAreOfTheirSource(t *testing.T) {
	run := func(offset int64, received event.Micros) string {
		st := New(DefaultConfig(1), 0, event.NewCodec(), nil)
		tx := st.Begin()
		defer tx.Rollback()
		raw := event.RawEvent{AppID: app, Kind: event.KindIdentify, MessageID: "m", UserID: "u1", AnonymousID: "a1", ReceivedAt: received}
		out := &Outputs{}
		if _, err := tx.Event(offset, &raw, epoch, out); err != nil {
			t.Fatal(err)
		}
		tx.Flush(out)
		if len(out.Controls) != 1 || out.Controls[0].CreatedAt != received {
			t.Fatalf("controls %+v", out.Controls)
		}
		return out.Controls[0].ControlID
	}
	if a, b := run(7, 5), run(7, 5); a != b {
		t.Errorf("the same record gave %s and %s", a, b)
	}
	if a, b, c := run(7, 5), run(8, 5), run(7, 6); a == b || a == c {
		t.Errorf("other records gave %s, %s and %s", a, b, c)
	}
}

// The orders of a transaction share control records, but never so that one row
// would have to be moved twice by one.
func TestOrdersShareControlRecords(t *testing.T) {
	st := New(DefaultConfig(1), 0, event.NewCodec(), nil)
	tx := st.Begin()
	controls := func(calls ...event.RawEvent) int {
		n := 0
		for i := range calls {
			calls[i].AppID = app
			out := &Outputs{}
			if _, err := tx.Event(int64(i), &calls[i], epoch, out); err != nil {
				t.Fatal(err)
			}
			n += len(out.Controls)
		}
		out := &Outputs{}
		tx.Flush(out)
		return n + len(out.Controls)
	}
	claim := func(a, u string) event.RawEvent {
		return event.RawEvent{Kind: event.KindIdentify, UserID: u, AnonymousID: a}
	}
	var many []event.RawEvent
	for i := range 100 {
		many = append(many, claim(fmt.Sprint("a", i), fmt.Sprint("u", i%7)))
	}
	if got := controls(many...); got != 2 {
		t.Errorf("100 claims took %d control records, want 2", got)
	}
	// What came to u0 by the claim moves on: it must be in u0's rows by then.
	if got := controls(claim("b", "u0"), event.RawEvent{Kind: event.KindAlias, UserID: "u1", PreviousID: "u0"}); got != 2 {
		t.Errorf("a claim and an alias took %d control records, want 2", got)
	}
	tx.Rollback()
	defer func() {
		if recover() == nil {
			t.Error("Commit took a transaction with orders that wait")
		}
	}()
	tx = st.Begin()
	raw := claim("c", "u")
	if _, err := tx.Event(0, &raw, epoch, &Outputs{}); err != nil {
		t.Fatal(err)
	}
	tx.Commit()
}

func TestConfigNamesAllFaults(t *testing.T) {
	c := Config{}
	err := c.Validate()
	for _, name := range []string{"partitions", "identity-max-links", "identity-max-anonymous", "identity-max-memberships", "identity-max-alias-depth", "identity-max-id-bytes", "identity-max-state-bytes"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
	d := DefaultConfig(4)
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
}

// While a cycle holds, its users are one person and share memberships; when all
// of it is undone, in whatever order, each has what was said of itself.
func TestUndoneCycleLeavesNoMemberships(t *testing.T) {
	for partitions := range int32(5) {
		for n := 2; n <= 4; n++ {
			users := ids("u", n)
			for first := range n {
				for step := 1; step < n; step++ {
					s := newScript(t, partitions+1, nil)
					for i, u := range users {
						s.say(fmt.Sprintf("group %d u=%s acct=acct%d role=role%d", i, u, i, i))
					}
					for i, u := range users {
						s.say(fmt.Sprintf("alias %d u=%s prev=%s", 10+i, users[(i+1)%n], u))
					}
					for i := range n {
						s.say(fmt.Sprintf("track %d u=%s id=during%d", 100, users[i], i))
					}
					undone := map[int]bool{}
					for i := 0; len(undone) < n; i++ {
						k := (first + i*step) % n
						for undone[k] {
							k = (k + 1) % n
						}
						undone[k] = true
						s.logf("%d partitions: undo %s to %s", partitions+1, users[k], users[(k+1)%n])
						s.order(event.ActorUser, users[k], users[(k+1)%n], 1000)
						s.order(event.ActorAnonymous, users[k], users[(k+1)%n], 1000)
					}
					var want []string
					for i, u := range users {
						s.say(fmt.Sprintf("track %d u=%s id=after%d", 120, u, i))
						want = append(want, fmt.Sprintf("during%d %s acct%d/role%d", i, u, i, i), fmt.Sprintf("after%d %s acct%d/role%d", i, u, i, i))
					}
					s.expect(want...)
				}
			}
		}
	}
}
