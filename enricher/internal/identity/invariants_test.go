package identity

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// check holds what must be true whenever all links have arrived, whatever was
// said and in whatever order it came.
func (c *cluster) check(sent map[string]call) {
	c.t.Helper()
	counted := c.counted()
	for m, k := range sent {
		r, ok := counted[m]
		if !ok {
			c.fatalf("message %s is not counted", m)
		}
		if k.AccountID != "" && (r.Account != k.AccountID || r.Source != event.AccountFromEvent) {
			c.fatalf("message %s named %s and counts for %+v", m, k.AccountID, r)
		}
		if k.UserID != "" && r.UserID != k.UserID {
			c.fatalf("message %s named %s and counts for %+v", m, k.UserID, r)
		}
	}
	for _, p := range c.partitions {
		tx := p.state.Begin()
		prefix := string(topic.Key(nil, app, topic.KeyUser, ""))
		p.state.ids.each(func(key, value []byte) bool {
			id, isUser := strings.CutPrefix(string(key), prefix)
			if !isUser {
				return true
			}
			home := c.partitions[topic.Partition(key, c.cfg.Partitions)]
			if home == p {
				return true
			}
			var got, want user
			got.read(value)
			homeTx := home.state.Begin()
			want, _ = homeTx.user(app, id)
			if !got.Follows || got.Version != want.Version || !reflect.DeepEqual(got.profile, want.profile) {
				c.fatalf("partition %d has of user %s\n%+v\nits home %d\n%+v", p.id, id, got, home.id, want)
			}
			return true
		})
		for r := range p.base {
			switch r.ActorKind {
			case event.ActorAnonymous:
				if a, _ := tx.anonymous(app, r.Actor); len(a.Links) > 0 {
					c.fatalf("%+v is linked to %+v", r, a.Links)
				}
			case event.ActorUser:
				way := wayOf(r.Actor, func(id string) alias {
					u, _ := tx.user(app, id)
					return alias{UserID: u.Alias, First: u.AliasFirst}
				})
				if root := way[len(way)-1]; root != r.Actor {
					c.fatalf("%+v counts for a user whose root is %s", r, root)
				}
				of, _ := tx.user(app, r.Actor)
				if i := slices.IndexFunc(of.Memberships, func(m membership) bool { return m.AccountID != "" }); i >= 0 && r.Source == event.AccountNone {
					c.fatalf("%+v has no account, and its user is in %s", r, of.Memberships[i].AccountID)
				}
			}
		}
	}
}

// TestInvariantsInAnyOrder says anything at all and reads it in any order.
func TestInvariantsInAnyOrder(t *testing.T) {
	from, to := runs(2000)
	for seed := from; seed < to; seed++ {
		rnd := rand.New(rand.NewPCG(seed, 13))
		users, anons := ids("u", 2+rnd.IntN(5)), ids("a", 1+rnd.IntN(5))
		accounts, roles := ids("acct", 1+rnd.IntN(3)), []string{"", "admin", "clerk"}
		c := newCluster(t, rnd, 1+rnd.Int32N(5))
		c.logf("IDENTITY_SEED=%d, %d partitions", seed, c.cfg.Partitions)
		sent := map[string]call{}
		for n := range 20 + rnd.IntN(60) {
			k := call{at: epoch + event.Micros(rnd.IntN(360))*minute}
			k.MessageID = fmt.Sprintf("m%d", n)
			switch d := rnd.IntN(20); {
			case d < 4:
				k.Kind, k.UserID, k.AnonymousID = event.KindIdentify, pick(rnd, users), pick(rnd, anons)
				k.Traits = traits(pick(rnd, roles))
			case d < 6:
				k.Kind, k.UserID, k.PreviousID = event.KindAlias, pick(rnd, users), pick(rnd, append(anons, users...))
			case d < 8:
				k.Kind, k.UserID, k.AccountID = event.KindGroup, pick(rnd, users), pick(rnd, accounts)
				k.Traits = traits(pick(rnd, roles))
			case d < 9:
				if rnd.IntN(2) == 0 {
					c.unlink(event.ActorAnonymous, pick(rnd, anons), pick(rnd, users), math.MaxInt64)
				} else {
					c.unlink(event.ActorUser, pick(rnd, users), pick(rnd, users), k.at)
				}
				c.logf("unlink")
				continue
			default:
				k.Kind = event.KindTrack
				if rnd.IntN(2) == 0 {
					k.UserID = pick(rnd, users)
				}
				if k.UserID == "" || rnd.IntN(4) == 0 {
					k.AnonymousID = pick(rnd, anons)
				}
				if rnd.IntN(4) == 0 {
					k.AccountID = pick(rnd, accounts)
				}
				sent[k.MessageID] = k
			}
			c.logf("%s", k)
			c.send(k)
			for rnd.IntN(3) > 0 {
				if list := c.pending(); len(list) > 0 {
					c.step(pick(rnd, list))
				}
			}
		}
		c.drain()
		c.check(sent)
	}
}
