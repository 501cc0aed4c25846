package identitycli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/uptakehq/uptake/enricher/internal/identity"
	"github.com/uptakehq/uptake/schemas/event"
)

// Knowledge is what the home partition of an id knows about it.
type Knowledge struct {
	Kind      string        `json:"kind"` // anonymous or user
	ID        string        `json:"id"`
	Partition int32         `json:"partition"`
	Known     bool          `json:"known"`
	Links     []Fact        `json:"links,omitempty"`     // of an anonymous id: its users, oldest first
	Aliases   []Fact        `json:"aliases,omitempty"`   // of a user: its aliases
	InForce   string        `json:"alias,omitempty"`     // the alias in force
	Accounts  []Fact        `json:"accounts,omitempty"`  // of a user, the oldest first
	Anonymous []Fact        `json:"anonymous,omitempty"` // of a user: anonymous ids seen with it
	Undone    []UndoneOrder `json:"undone,omitempty"`
	Hear      []int32       `json:"subscribers,omitempty"` // partitions that count for the user
}

// Fact is a statement of a call, with the call.
type Fact struct {
	ID    string `json:"id,omitempty"` // a user, an account or an anonymous id
	Role  string `json:"role,omitempty"`
	Via   string `json:"via,omitempty"` // the user that the call named, if another
	Since string `json:"since"`         // event time
	Call  string `json:"call,omitempty"`

	MessageID  string `json:"message_id,omitempty"`
	ReceivedAt string `json:"received_at,omitempty"`
	Raw        string `json:"raw,omitempty"` // partition/offset of the raw record

	since event.Micros
}

// UndoneOrder is an operator's order.
type UndoneOrder struct {
	UserID string `json:"user_id"`
	Until  string `json:"until"`
}

// linkedTo reports whether there is a link to a user that an order would undo.
func (k *Knowledge) linkedTo(userID string, until event.Micros) bool {
	is := func(f Fact) bool { return f.ID == userID && f.since <= until }
	return slices.ContainsFunc(k.Links, is) || slices.ContainsFunc(k.Aliases, is)
}

// known reads what is known about an id.
func (c *client) known(ctx context.Context, who id) (*Knowledge, error) {
	k := &Knowledge{Kind: who.kind, ID: who.id, Partition: identity.Home(c.app, who.kind, who.id, c.partitions)}
	list, err := c.read(ctx, k.Partition, func(r *identity.Record) bool {
		if r.ID != who.id {
			return false
		}
		switch r.Kind {
		case event.StateWhy:
			return (r.Relation == "claim") == (who.kind == event.ActorAnonymous)
		case event.StateKnown, event.StateUser:
			return who.kind == event.ActorUser
		case event.StateAnonymous:
			return who.kind == event.ActorAnonymous
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	type said struct {
		relation, other string
		since           event.Micros
	}
	why := map[said]*identity.Record{}
	for i := range list {
		if r := &list[i]; r.Kind == event.StateWhy {
			why[said{r.Relation, r.Other, r.Since}] = r
		}
	}
	fact := func(relation, other string, since event.Micros) Fact {
		f := Fact{ID: other, Since: at(since), since: since}
		if r := why[said{relation, other, since}]; r != nil {
			f.because(r)
		}
		return f
	}
	for i := range list {
		r := &list[i]
		switch r.Kind {
		case event.StateAnonymous, event.StateUser:
			k.Known = true
			for _, l := range r.Links {
				k.Links = append(k.Links, fact("claim", l.UserID, l.Since))
			}
			k.InForce = r.Alias
			for _, a := range r.Aliases {
				k.Aliases = append(k.Aliases, fact("alias", a.UserID, a.First))
			}
			for _, m := range r.Memberships {
				f := fact("membership", m.AccountID, m.Since)
				f.Role, f.Via = m.Role, m.Via
				k.Accounts = append(k.Accounts, f)
			}
			for _, u := range r.Undone {
				k.Undone = append(k.Undone, UndoneOrder{u.UserID, at(u.Until)})
			}
			k.Hear = r.Subscribers
		case event.StateKnown:
			f := Fact{ID: r.Other, Since: at(r.Since), since: r.Since}
			f.because(r)
			k.Anonymous = append(k.Anonymous, f)
		}
	}
	slices.SortStableFunc(k.Anonymous, func(a, b Fact) int { return cmp.Compare(a.since, b.since) })
	return k, nil
}

func (f *Fact) because(r *identity.Record) {
	f.Call, f.MessageID = r.Call, r.MessageID
	if r.RecordedAt != 0 {
		f.ReceivedAt = at(r.RecordedAt)
	}
	if r.RawOffset >= 0 {
		f.Raw = fmt.Sprintf("%d/%d", r.RawPartition, r.RawOffset)
	}
}

// Answer is what show says.
type Answer struct {
	App string `json:"app"`
	// IDs are the id that was asked for, and those it leads to.
	IDs []*Knowledge `json:"ids"`
	// CountsFor is the user that events of the id count for at present.
	CountsFor string `json:"counts_for"`
}

// maxShown bounds how far show follows links and aliases.
const maxShown = 64

// show prints what is known about an id and about the ids it leads to.
func (c *client) show(ctx context.Context, who id) error {
	a := Answer{App: c.app, CountsFor: who.id}
	seen := map[id]bool{}
	for next := who; next.id != "" && !seen[next] && len(a.IDs) < maxShown; {
		seen[next] = true
		k, err := c.known(ctx, next)
		if err != nil {
			return err
		}
		a.IDs = append(a.IDs, k)
		next = id{event.ActorUser, k.InForce}
		if n := len(k.Links); n > 0 {
			next.id = k.Links[n-1].ID
		}
	}
	a.CountsFor = root(a.IDs)
	if c.json {
		enc := json.NewEncoder(c.out)
		enc.SetIndent("", "  ")
		return enc.Encode(a)
	}
	return a.print(c.out)
}

// root returns whom the last of ids counts for: in a cycle of aliases, the user whose
// alias was made last.
func root(ids []*Knowledge) string {
	last := ids[len(ids)-1]
	if last.InForce == "" {
		return last.ID
	}
	start := slices.IndexFunc(ids, func(k *Knowledge) bool { return k.Kind == event.ActorUser && k.ID == last.InForce })
	if start < 0 {
		return last.InForce // the chain is longer than show follows
	}
	best, first := last, event.Micros(0)
	for _, k := range ids[start:] {
		i := slices.IndexFunc(k.Aliases, func(f Fact) bool { return f.ID == k.InForce })
		if i < 0 {
			continue
		}
		if f := k.Aliases[i].since; f > first || (f == first && k.ID > best.ID) {
			best, first = k, f
		}
	}
	return best.ID
}

// maxListed bounds how many anonymous ids of a user are printed.
const maxListed = 50

func (a *Answer) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for i, k := range a.IDs {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s of app %q (partition %d)\n", id{k.Kind, k.ID}, a.App, k.Partition)
		if !k.Known && len(k.Anonymous) == 0 {
			fmt.Fprintln(w, "  nothing is known: it counts for itself")
		}
		printFacts(w, "linked to user", k.Links)
		printFacts(w, "became user", k.Aliases)
		if len(k.Aliases) > 1 {
			fmt.Fprintf(w, "  counts for\t%s\tby the latest alias\n", k.InForce)
		}
		printFacts(w, "member of", k.Accounts)
		if n := len(k.Anonymous); n > 0 {
			fmt.Fprintf(w, "  anonymous ids\t%d\n", n)
			printFacts(w, "seen with", k.Anonymous[:min(n, maxListed)])
			if n > maxListed {
				fmt.Fprintf(w, "  and\t%d more (-json lists all)\n", n-maxListed)
			}
		}
		for _, u := range k.Undone {
			fmt.Fprintf(w, "  not user\t%s\tundone by an operator, for calls up to %s\n", u.UserID, u.Until)
		}
	}
	if a.IDs[0].Known {
		fmt.Fprintf(w, "\nevents of %s count for user %q now\n", id{a.IDs[0].Kind, a.IDs[0].ID}, a.CountsFor)
	}
	return w.Flush()
}

func printFacts(w io.Writer, what string, facts []Fact) {
	for _, f := range facts {
		name := f.ID
		if name == "" {
			name = "any account"
		}
		if f.Role != "" {
			name += " as " + f.Role
		}
		if f.Via != "" {
			name += " by user " + f.Via
		}
		why := []string{"since " + f.Since}
		if f.Call != "" {
			why = append(why, fmt.Sprintf("by %s %s", f.Call, f.MessageID))
		}
		if f.ReceivedAt != "" {
			why = append(why, "received "+f.ReceivedAt)
		}
		if f.Raw != "" {
			why = append(why, "raw "+f.Raw)
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", what, name, strings.Join(why, ", "))
	}
}
