// Package identity resolves identities: it owns the identity state of a partition,
// decides for each event whom it counts for, and orders the corrections of earlier
// counts when something new is learnt.
//
// A State belongs to one partition and to the one goroutine that owns it. It
// learns from two streams, the raw records of its partition and the link
// records that other partitions (or this one) sent to it, and its outputs are
// links, control records and changes of its own state. The caller carries all
// of them in the Kafka transaction that commits the inputs' offsets, so that
// nothing is learnt twice and nothing is lost. The package reads and writes no
// topic itself, starts no goroutine and reads no clock.
//
// # Use
//
//	st := identity.New(cfg, partition, codec, metrics)
//	for each record of enricher-state: st.Apply(key, value)   // restore
//	tx := st.Begin()
//	for each record of raw and links, in any interleaving:
//		out.Reset()
//		res, err := tx.Event(offset, raw, eventTime, out)  // or tx.Link(offset, link, out)
//		produce out.Controls to enriched p, then the event as res says
//		produce out.Links, each to its own Partition, and out.Changes to enricher-state p
//	tx.Flush(out), at least once before the end, and produce as above
//	tx.Commit() or tx.Rollback()
//
// Only one Tx may be open at a time. Its changes are visible to its own later calls,
// and to nobody else until Commit. If a bound of rule 9 is reached, that is counted and
// flagged, nothing more is learnt, and the event is kept. The only error of Event and
// Link is a WorkError: nothing was learnt from the record then.
//
// # Terms
//
// The home of an id is the partition of its key (topic.Key of kind user or anonymous).
// A user's home holds the user's profile: its alias and its memberships. Every
// partition that counts events for a user has a copy of the profile; the home keeps a
// list of these partitions (subscribers) and sends each a new version. So a change
// costs one record per partition, never one per anonymous id, however many the user
// has.
//
// The root of a user is found by following aliases, from profile to profile; it
// is the actor that the user's events count for.
//
// # Rules
//
// 1. An event that names a user counts for the root of that user; one that
// names an anonymous id alone, for the root of the user that it is linked to at
// the event's time, else for the anonymous id; one that names neither, for the
// account itself. Only track, page, screen and api_call count.
//
//  2. A call that names both an anonymous id and a user claims that the id belongs to the user
//     from the call's event time on. Every identify call makes a claim, and so does the earliest
//     call of a pair, by event time, whatever it is. The claim goes to the home of the anonymous
//     id. An event that names both counts for the user, regardless of the timeline below.
//
//  3. Links of an anonymous id form a timeline by event time (at equal times the greater
//     user id comes later). An event counts for the link in force at its time; one from
//     before the first link counts for the first link. The timeline, and so what every
//     event counts for, is a function of the calls and their event times, in any order
//     of arrival: a link that changes the timeline moves what was counted for the
//     anonymous id, or for another user through it, from its instant to that of the next
//     link (for the first link, from the beginning), and nothing else. A link equal to
//     the one in force at its time changes nothing until a link of another user from
//     before it arrives. What counts for a user by an alias that another alias has
//     replaced (rule 4) stays. If events has lost rows of the hour in which a link
//     begins, the writer leaves the whole hour with the earlier link.
//
//  4. alias(previous → user) makes user the alias of previous, and also claims previous as an
//     anonymous id, since the call does not say which of the two it is. Everything counted for
//     previous is moved to the root of user, and later events count for that root. A user has
//     one alias: of several, the one with the latest event time (if equal, the greater user id);
//     what an earlier one moved stays. In a cycle of aliases the one with the latest event time
//     (of equal ones that of the greatest source id) is not in force, so its source is the root
//     of all of them; every partition finds the same one, in any order of arrival. An alias to
//     itself is ignored. A chain longer than MaxAliasDepth ends there.
//
//     An alias call that names previous as its anonymous id too (a namesake) says that
//     previous was an anonymous id, of a protocol with one namespace of ids (PostHog's
//     $identify), in which events may have counted for a user of that name. It is an
//     alias, unless by its arrival previous was itself identified (an identify or alias
//     call named it as the user of another id) or has become another user. Then it is
//     refused; the claim on the anonymous id holds.
//
//  5. A group call that names a user and an account, and an identify call that names an account,
//     make the user a member of it from the event's time on, with the role in the configured
//     trait. A role in an identify call without an account is the user's role for memberships
//     without one. A call equal to what is in force at its time changes nothing. Memberships of
//     an aliased user are also memberships of the alias.
//
//  6. An event keeps the account that it names. Otherwise it counts for the account of
//     the latest membership in force at its time, of those known here by then; before
//     the first membership, for the first. Memberships of the same instant are in the
//     order of the bytes of account, role and the user that the call named, whatever
//     arrived first: the greatest is the latest, the least the first. The role is
//     determined in the same way, from the memberships in the event's account. What was counted without an account before any
//     membership was known here is moved to the accounts in force at the start of its
//     hour (before the first membership, to the first), and what was counted with an
//     account but without a role gets the role in force. Later memberships move nothing.
//
//  7. What links of anonymous ids move, and orders that undo them (rules 3 and 8), is
//     moved by the instant of each event, to the account and role in force then. All
//     other moves are by the hour, since rows of the base rollup have hours and not
//     minutes: such a move decides by the start of the hour, whereas the attribution of
//     an arriving event decides by its microsecond.
//
//  8. unlink(anonymous → user) and unlink(previous → user) undo a link as if it had
//     never existed, for all calls with an event time up to the order's time; a later
//     call links again. What counted through the link (the rows' anonymous_id and
//     user_id show it) goes back to the anonymous id or, on a shared device, to the user
//     whose link was in force before it, else after it. In the same way, what an alias
//     moved goes back to the previous user, and memberships that came with the alias are
//     removed. Accounts that came from a membership are decided again for what goes back
//     (rule 6); those that an event named stay. A pair that was undone does not count as
//     new: only an identify or alias call links it again. Two users that an alias in the
//     opposite direction still makes one person keep what they share until that alias is
//     undone too.
//
//  9. Bounds, each counted in a metric and flagged on the event: MaxLinks of an
//     anonymous id, and as many repetitions of links (the oldest is dropped), MaxMemberships of a user (the oldest is
//     dropped), MaxAnonymous ids of a user (further ones are not linked and stay
//     anonymous), MaxAliasDepth, MaxStateBytes of a partition (nothing new is learnt,
//     known ids keep working), MaxIDBytes of an id that can be linked.
//
//  10. erase(users, anonymous ids) erases a person: their earlier events count for an
//     actor of kind erased, without an id or a role, in the same accounts; their state is
//     deleted; and from then on every event of one of the users, every event with only
//     one of the anonymous ids, and every alias call with one of them as its previous
//     id is dropped, whenever it was sent. An event of another user that names one of
//     the anonymous ids is kept without it. Links in transit are refused. An anonymous
//     id that also belonged to others is not erased; what was counted through it for
//     the user is. Erased ids are remembered as keyed hashes.
package identity

import (
	"errors"
	"fmt"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// Config bounds the state of a partition, and names the traits to read.
type Config struct {
	// Partitions of raw, links, enriched and enricher-state.
	Partitions int32

	// RoleTraits and ParentTraits name the traits that hold a member's role and an
	// account's parent: the first one present counts.
	RoleTraits   []string
	ParentTraits []string

	// InventingLibraries are prefixes of library names, with version, that generate an
	// anonymous id for each message, see Tx.Invented.
	InventingLibraries []string

	MaxLinks       int   // links kept of an anonymous id
	MaxAnonymous   int   // anonymous ids linked to a user
	MaxMemberships int   // memberships kept of a user
	MaxAliasDepth  int   // aliases followed from a user
	MaxIDBytes     int   // of an id that can be linked
	MaxStateBytes  int64 // of the state of a partition in memory

	// Bounds on what one record may cause, see WorkError. Orders of operators have
	// none.
	MaxRecordBytes int64 // of state read and of outputs
	MaxRecordMoves int64 // ordered in control records
	MaxRecordSteps int64 // slots of tables and memberships looked at

	// MaxOutputBytes bounds every output; 0: no bound. It must allow MaxMoves moves
	// with the longest ids.
	MaxOutputBytes int64
}

// DefaultConfig returns the settings for topics of that many partitions.
func DefaultConfig(partitions int32) Config {
	return Config{
		Partitions:         partitions,
		RoleTraits:         []string{"role"},
		ParentTraits:       []string{"parent_account_id", "parentAccountId", "parentGroupId"},
		InventingLibraries: []string{"analytics-go/4."},

		MaxLinks:       32,
		MaxAnonymous:   100_000,
		MaxMemberships: 64,
		MaxAliasDepth:  32,
		MaxIDBytes:     1024,
		MaxStateBytes:  4 << 30,
		MaxRecordBytes: 64 << 20,
		MaxRecordMoves: 1 << 16,
		MaxRecordSteps: 1 << 24,
	}
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(c.Partitions < 1, "identity: partitions must be > 0 (got %d)", c.Partitions)
	fault(c.MaxLinks < 1 || c.MaxLinks > 256, "identity-max-links must be 1 to 256 (got %d)", c.MaxLinks)
	fault(c.MaxAnonymous < 1, "identity-max-anonymous must be > 0 (got %d)", c.MaxAnonymous)
	fault(c.MaxMemberships < 1 || c.MaxMemberships > 256, "identity-max-memberships must be 1 to 256 (got %d)", c.MaxMemberships)
	fault(c.MaxAliasDepth < 1 || c.MaxAliasDepth > maxDepth, "identity-max-alias-depth must be 1 to %d (got %d)", maxDepth, c.MaxAliasDepth)
	fault(c.MaxIDBytes < 1 || c.MaxIDBytes > 4096, "identity-max-id-bytes must be 1 to 4096 (got %d)", c.MaxIDBytes)
	fault(c.MaxStateBytes < 1<<20, "identity-max-state-bytes must be at least 1 MiB (got %d)", c.MaxStateBytes)
	fault(c.MaxRecordBytes < 1<<20, "identity-max-record-bytes must be at least 1 MiB (got %d)", c.MaxRecordBytes)
	fault(c.MaxRecordMoves < 1<<10, "identity-max-record-moves must be at least 1024 (got %d)", c.MaxRecordMoves)
	fault(c.MaxRecordSteps < 1<<16, "identity-max-record-steps must be at least 65536 (got %d)", c.MaxRecordSteps)
	return errors.Join(errs...)
}

// maxDepth is the most aliases that MaxAliasDepth can allow.
const maxDepth = 64

// Resolution is the attribution of an event: fields of EnrichedEvent. Its strings point
// into the event or the state, and are valid as long as the event's.
type Resolution struct {
	ActorID         string
	ActorKind       string
	AccountID       string
	AccountSource   string
	Role            string
	LinkedUserID    string
	ParentAccountID string
	Flags           string // comma-separated words for EnrichedEvent.Flags; nearly always empty
}

// Flags of Resolution.Flags.
const (
	// FlagLimit: because of a bound of rule 9, something in the event was not learnt.
	FlagLimit = "identity_limit"
	// FlagForgotten: what was in force at the event's time had been dropped because of
	// a bound, so the next one was used.
	FlagForgotten = "identity_forgotten"
	// FlagSelfAlias: an alias call names the same id twice.
	FlagSelfAlias = "alias_to_itself"
)

// Link is a record for the links topic.
type Link struct {
	// Partition to produce it to. It is not always that of Key: profiles go to every
	// partition that counts events for the user.
	Partition int32
	Key       []byte
	Record    event.Link
}

// Change is a record for the partition of enricher-state with the State's number. A nil
// Value is a tombstone.
type Change struct {
	Key   []byte
	Value []byte
}

// Outputs are the outputs of a record. Strings may point into the record: encode them
// while it is unchanged.
type Outputs struct {
	// Controls go to enriched, in this order, before the event itself. Their ids and
	// times are functions of the record and its offset. Most are held back until Flush.
	Controls []event.Control
	Links    []Link
	Changes  []Change
}

// Reset empties o and keeps its memory.
func (o *Outputs) Reset() {
	clear(o.Controls)
	clear(o.Links)
	clear(o.Changes)
	o.Controls, o.Links, o.Changes = o.Controls[:0], o.Links[:0], o.Changes[:0]
}

// hour in microseconds.
const hour = event.Micros(time.Hour / time.Microsecond)
