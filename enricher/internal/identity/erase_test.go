package identity

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
)

var eraseKey = bytes.Repeat([]byte{7}, event.EraseKeyBytes)

// leftover returns what names one of ids: a state, the changelog when it was
// compacted, or an actor that something counts for.
func (c *cluster) leftover(ids ...string) (list []string) {
	names := func(s string) bool {
		for _, id := range ids {
			if strings.Contains(s, id) {
				return true
			}
		}
		return false
	}
	for _, p := range c.partitions {
		p.state.ids.each(func(key, value []byte) bool {
			if names(string(key)) || names(string(value)) {
				list = append(list, fmt.Sprintf("state of %d: %q = %q", p.id, key, value))
			}
			return true
		})
		newest := map[string][]byte{}
		for _, ch := range p.changelog {
			newest[string(ch.Key)] = ch.Value
		}
		for key, value := range newest {
			if value != nil && (names(key) || names(string(value))) {
				list = append(list, fmt.Sprintf("changelog of %d: %q = %q", p.id, key, value))
			}
		}
		for r := range p.base {
			if names(r.Actor) || names(r.UserID) || names(r.AnonID) {
				list = append(list, fmt.Sprintf("base of %d: %+v", p.id, r))
			}
		}
	}
	return list
}

func (c *cluster) expectForgotten(ids ...string) {
	c.t.Helper()
	if list := c.leftover(ids...); len(list) > 0 {
		c.fatalf("left of %q:\n%s", ids, strings.Join(list, "\n"))
	}
}

func TestErasedPersonIsForgottenAndStaysSo(t *testing.T) {
	s := newScript(t, 4, nil)
	s.say(
		"track 0 a=gone-device id=m1",
		"identify 1 u=gone a=gone-device",
		"group 2 u=gone acct=acme role=admin",
		"alias 3 u=gone prev=gone-before",
		"track 4 u=gone-before id=m2",
		"track 5 a=gone-device acct=acme id=m3",
		"identify 6 u=other a=shared",
		"identify 7 u=gone a=shared",
		"track 8 a=shared id=m4",
		"track 9 u=other id=m5",
		"identify 10 u=boss a=boss-device", "alias 11 u=boss prev=other",
	)
	order := event.Erase{
		Key: eraseKey, Users: []string{"gone", "gone-before"}, Anonymous: []string{"gone-device", "gone-before"},
		Known: []event.KnownPair{{UserID: "gone", AnonymousID: "gone-device"}, {UserID: "gone", AnonymousID: "gone-before"}, {UserID: "gone", AnonymousID: "shared"}},
	}
	s.erase(order)
	s.drain()
	s.expectForgotten("gone")
	s.expect("m1  acme", "m2  acme", "m3  acme", "m4  acme", "m5 boss -")

	// Whatever still arrives is dropped, and nothing is learnt from it.
	s.say(
		"track 20 u=gone id=late1",
		"track 0 a=gone-device id=late2",
		"identify 21 u=gone a=new-device",
		"alias 22 u=boss prev=gone",
		"alias 22 u=gone prev=boss",
		"alias 22 u=boss prev=gone-device",
		"group 23 u=gone acct=acme",
		"track 24 u=boss a=gone-device id=m6", // somebody else on that device: without it
		"track 25 a=shared id=m7",
		"track 26 a=gone-device id=late3",
	)
	for _, p := range s.partitions {
		s.restart(p)
	}
	s.say("track 27 u=gone-before id=late4")
	s.expectForgotten("gone", "late")
	s.expect("m6 boss -", "m7 boss -")
	if n := len(s.counted()); n != 7 {
		s.fatalf("%d messages are counted, want 7", n)
	}

	// A second order finds nothing to do, and does no harm.
	s.erase(order)
	s.drain()
	s.expectForgotten("gone", "late")
	s.expect("m5 boss -", "m6 boss -", "m7 boss -")
}

func TestEraseMovesWhatItNames(t *testing.T) {
	s := newScript(t, 3, nil)
	// What the first alias moved stays with the first root (rule 4).
	s.say("track 0 u=gone id=m1", "alias 1 u=stays prev=gone", "alias 2 u=root prev=gone", "track 3 u=gone id=m2", "track 3 u=stays id=m3")
	s.expect("m1 stays -", "m2 root -", "m3 stays -")
	s.erase(event.Erase{
		Key: eraseKey, Users: []string{"gone", "root"}, Anonymous: []string{"gone"},
		Known:   []event.KnownPair{{UserID: "root", AnonymousID: "gone"}, {UserID: "stays", AnonymousID: "gone"}},
		Counted: []event.Attribution{{ActorID: text("stays"), ActorKind: kindUser, UserID: text("gone")}},
	})
	s.drain()
	s.expectForgotten("gone", "root")
	s.expect("m1  -", "m2  -", "m3 stays -")
}

// TestEraseInAnyOrder erases one of several people while everything else goes
// on, and again when all has arrived, as the command does.
func TestEraseInAnyOrder(t *testing.T) {
	from, to := runs(300)
	for seed := from; seed < to; seed++ {
		rnd := rand.New(rand.NewPCG(seed, 17))
		c := newCluster(t, rnd, 1+rnd.Int32N(5))
		c.logf("IDENTITY_SEED=%d, %d partitions", seed, c.cfg.Partitions)
		users, anons := append(ids("gone", 3), ids("kept", 3)...), append(ids("device-gone", 3), ids("device-kept", 3)...)
		order := event.Erase{Key: eraseKey, Users: users[:3], Anonymous: anons[:3:3]}
		for _, u := range users[:3] {
			for _, a := range append(anons[:6:6], users[:3]...) {
				order.Known = append(order.Known, event.KnownPair{UserID: u, AnonymousID: a})
			}
		}
		order.Anonymous = append(order.Anonymous, users[:3]...)
		usage := map[string]call{}
		for n := range 40 + rnd.IntN(60) {
			// Those who go and those who stay share a device now and then, and
			// neither becomes the other.
			side := 3 * rnd.IntN(2)
			u, a := pick(rnd, users[side:side+3]), pick(rnd, anons[side:side+3])
			if rnd.IntN(8) == 0 {
				a = anons[5]
			}
			k := call{at: epoch + event.Micros(rnd.IntN(360))*minute}
			k.MessageID = fmt.Sprintf("m%d", n)
			switch rnd.IntN(8) {
			case 0, 1:
				k.Kind, k.UserID, k.AnonymousID = event.KindIdentify, u, a
			case 2:
				k.Kind, k.UserID, k.PreviousID = event.KindAlias, u, pick(rnd, users[side:side+3])
			case 3:
				k.Kind, k.UserID, k.AccountID = event.KindGroup, u, pick(rnd, []string{"acct0", "acct1"})
				k.Traits = traits(pick(rnd, []string{"", "admin"}))
			default:
				k.Kind = event.KindTrack
				if rnd.IntN(2) == 0 {
					k.UserID = u
				} else {
					k.AnonymousID = a
				}
				if rnd.IntN(3) == 0 {
					k.AccountID = "named"
				}
				usage[k.MessageID] = k
			}
			c.logf("%s", k)
			c.send(k)
			if rnd.IntN(40) == 0 {
				c.logf("erase")
				c.erase(order)
			}
			for rnd.IntN(3) > 0 {
				if list := c.pending(); len(list) > 0 {
					c.step(pick(rnd, list))
				}
			}
		}
		c.drain()
		c.erase(order)
		c.drain()
		c.expectForgotten("gone")
		counted := c.counted()
		for m, k := range usage {
			gone := strings.HasPrefix(k.UserID, "gone") || (k.UserID == "" && strings.HasPrefix(k.AnonymousID, "device-gone"))
			r, is := counted[m]
			if !gone && !is {
				c.fatalf("message %s of somebody else is not counted", m)
			}
			if gone && is && (r.ActorKind != event.ActorErased || r.Actor != "") {
				c.fatalf("message %s of the erased counts for %+v", m, r)
			}
			if is && k.AccountID != "" && r.Account != k.AccountID {
				c.fatalf("message %s named %s and counts for %+v", m, k.AccountID, r)
			}
		}
		for _, p := range c.partitions {
			c.restart(p)
		}
	}
}
