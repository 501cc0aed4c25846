// Package identity knows who is who: it owns the identity state of a partition,
// says of each event whom it counts for, and orders the corrections that make
// history right when something new is learnt.
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
// Only one Tx is open at a time. What a Tx did is seen by its own later calls and
// by nobody else until Commit. What a record asks beyond a bound of rule 9 is
// counted, flagged and left undone, and the event is kept. The only error of
// Event and Link is a WorkError: nothing was learnt from the record then.
//
// # Words
//
// The home of an id is the partition of its key (topic.Key of kind user or
// anonymous). A user's home holds the user's profile: whom it is aliased to and
// its memberships. Every partition that counts something for a user has a copy
// of the profile; the home knows these partitions (subscribers) and sends each
// a new version. So one change costs one record for each partition, never one
// for each anonymous id, whether the user has one of them or ten thousand.
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
// 2. A call that names both an anonymous id and a user says that the one belongs
// to the other from the call's event time on (a claim). An identify call says
// it each time, another call when the pair is new to the user's home. The claim
// goes to the home of the anonymous id. An event that names both counts for the
// user whatever the timeline below says.
//
// 3. Links of an anonymous id form a timeline by event time. An event counts for
// the link in force at its time, one from before the first link for the first.
// What was counted for the anonymous id before any link was known here is moved,
// whole, to the user of the first link that arrives. After that a link moves
// nothing: on a shared device each user keeps what they were counted for, and
// the latest link counts from its time on, also for events that arrive late.
// A link that says what is in force at its time already changes nothing.
//
// 4. alias(previous → user) makes user the alias of previous, and claims
// previous as an anonymous id too, since nobody says which of the two it is.
// What was counted for previous is moved to the root of user, and so is what
// comes. A user has one alias: of several the one with the latest event time
// (of equal ones the greater user id); what was moved by an earlier one stays.
// In a cycle of aliases the one with the latest event time (of equal ones that
// of the greatest source id) is not in force, so its source is the root of all
// of them; every partition finds the same one, in whatever order they came.
// An alias to itself is ignored. A chain longer than MaxAliasDepth ends there.
//
// 5. A group call that names a user and an account, and an identify call that
// names an account, make the user a member of it from the event's time on, with
// the role that the configured trait names. A role in an identify call without
// account is the user's role wherever a membership names none. A call that says
// what is in force at its time already changes nothing. Memberships of a user
// who is aliased are memberships of the user it is aliased to as well.
//
// 6. An event keeps the account that it names. Else it counts for the account
// whose membership was latest in force at its time, of those known here then;
// before the first one, for the first. Its role is the one in force in its
// account in the same way. What was counted without account before any
// membership was known here is moved to the accounts that were in force when its
// hour began (before the first one, to the first), and what was counted with an
// account named, and without role, gets the role that was. Later memberships
// move nothing.
//
// 7. Whatever moves, moves by the hour: rows of the base rollup know their hour
// and not their minute. So a move decides by the start of the hour, where the
// stamp of an event decides by its microsecond.
//
// 8. unlink(anonymous → user) and unlink(previous → user) undo a link as if it
// had never been, for everything said with an event time up to the order's
// time; what is said with a later one links again. What counted through the
// link, which is what the rows' anonymous_id and user_id name, goes back to the
// anonymous id, or, on a shared device, to the user whose link was in force
// before it, else after it; the same way what an alias moved goes back to the
// previous user, and memberships that came with the alias go. Accounts that came
// by membership are decided anew for what goes back (rule 6); those that an
// event named stay. A pair that was undone is not new: only an identify or alias
// call links it again. Two that an alias the other way round makes one person
// all the same keep what they share until that is undone, too.
//
// 9. Bounds, each counted in a metric and flagged on the event at hand:
// MaxLinks of an anonymous id (the oldest leaves), MaxMemberships of a user (the
// oldest leaves), MaxAnonymous ids of a user (more are not linked and stay
// anonymous), MaxAliasDepth, MaxStateBytes of a partition (nothing new is
// learnt, what is known goes on), MaxIDBytes of an id that can be linked.
//
// 10. erase(users, anonymous ids) erases a person: what was counted for them
// counts for an actor without a name (of kind erased) in the same accounts, what
// is known of them is withdrawn, and from there on every event of one of the
// users, of one of the anonymous ids alone, and every alias call that names one
// of either as its previous id is dropped, whenever it was sent. An event of
// another user that names one of the anonymous ids is kept without it. Links
// that were on their way are refused. An anonymous id that was others' too is
// not erased; what was counted through it for the user is. That the ids were
// erased is remembered by keyed hashes.
package identity

import (
	"errors"
	"fmt"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// Config bounds the state of a partition, and says what calls mean.
type Config struct {
	// Partitions of raw, links, enriched and enricher-state.
	Partitions int32

	// RoleTraits and ParentTraits name the traits that hold a member's role and
	// an account's parent: of several the first that is there.
	RoleTraits   []string
	ParentTraits []string

	// InventingLibraries are beginnings of library names, with version, that make
	// up an anonymous id for each message, see Tx.Invented.
	InventingLibraries []string

	MaxLinks       int   // links kept of an anonymous id
	MaxAnonymous   int   // anonymous ids linked to a user
	MaxMemberships int   // memberships kept of a user
	MaxAliasDepth  int   // aliases followed from a user
	MaxIDBytes     int   // of an id that can be linked
	MaxStateBytes  int64 // of the state of a partition in memory

	// What one record may ask for, see WorkError. Orders of operators are free.
	MaxRecordBytes int64 // of state read and of outputs
	MaxRecordMoves int64 // ordered in control records
	MaxRecordSteps int64 // slots of tables and memberships looked at

	// MaxOutputBytes bounds every output; 0: none does. It must hold MaxMoves
	// moves with the longest ids.
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

// Resolution is whom an event counts for: fields of EnrichedEvent. Its strings
// alias the event or the state, and stay valid as long as the event's do.
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

// Words of Resolution.Flags.
const (
	// FlagLimit says that a bound of rule 9 left something that the event says
	// unlearnt.
	FlagLimit = "identity_limit"
	// FlagForgotten says that what was in force at the event's time was dropped
	// for a bound, so that what came next was taken.
	FlagForgotten = "identity_forgotten"
	// FlagSelfAlias says that an alias call names one id twice.
	FlagSelfAlias = "alias_to_itself"
)

// Link is a record for the links topic.
type Link struct {
	// Partition to produce it to. It is not always that of Key: profiles go to
	// every partition that counts something for the user.
	Partition int32
	Key       []byte
	Record    event.Link
}

// Change is a record for the partition of enricher-state that has the State's
// number. A nil Value is a tombstone.
type Change struct {
	Key   []byte
	Value []byte
}

// Outputs is what a record leads to. Strings may alias the record handed in:
// encode them while it is unchanged.
type Outputs struct {
	// Controls go to enriched, in this order, before the event itself. Their ids
	// and times are functions of the record and its offset. Most wait for Flush.
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
