package event

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ControlMove is the Control.Kind of a correction: its payload is Moves.
const ControlMove = "move"

// Attribution names values of the attribution columns of usage_hourly. As a
// match nil stands for any value, as a set for unchanged. The sums and the
// source partition are never part of it: a correction moves whole rows of its
// own partition.
//
// AccountSource, UserID and AnonymousID say how the row came to its account and
// its actor, so that what a wrong link moved can be told from what was counted
// for the same actor all along, and go back:
//   - AccountSource is EnrichedEvent.AccountSource;
//   - AnonymousID is the anonymous id of events that named no user, else empty;
//   - UserID is the user that the event named, or that its anonymous id is
//     linked to (EnrichedEvent.LinkedUserID), before aliases; else empty.
type Attribution struct {
	AccountID     *string `json:"account_id,omitempty"`
	AccountSource *string `json:"account_source,omitempty"`
	ActorID       *string `json:"actor_id,omitempty"`
	ActorKind     *string `json:"actor_kind,omitempty"`
	UserID        *string `json:"user_id,omitempty"`
	AnonymousID   *string `json:"anonymous_id,omitempty"`
	FeatureID     *string `json:"feature_id,omitempty"`
	ModuleID      *string `json:"module_id,omitempty"`
	ProductID     *string `json:"product_id,omitempty"`
	Role          *string `json:"role,omitempty"`
	Event         *string `json:"event,omitempty"`
}

// Move says that what its app counted so far in this partition under Match is
// to be counted under the same attribution with Set written over it. From and
// To narrow Match; 0 is open. Of a move that names an anonymous id they are
// instants: it moves events with From <= event time < To. Where the event times of
// an hour are not known any more, and for all other moves, the start of the hour
// decides: rows with From <= start of their hour < To are moved.
type Move struct {
	Match Attribution `json:"match"`
	From  Micros      `json:"from,omitempty"`
	To    Micros      `json:"to,omitempty"`
	Set   Attribution `json:"set"`
}

// Moves is the payload of a ControlMove record. A row of the base rollup is
// moved by the first move that matches it and by no other.
type Moves struct {
	Moves []Move `json:"moves"`
	// Reason is what people are to be told of the correction; nil is nothing.
	Reason *Reason `json:"reason,omitempty"`
}

// ReasonUnlink is the Reason.Kind of what an operator undid.
const ReasonUnlink = "unlink"

// Reason says why rows are moved: an id does not belong to a user by what was
// said up to an instant.
type Reason struct {
	Kind   string `json:"kind"`
	IDKind string `json:"id_kind"` // ActorAnonymous or ActorUser
	ID     string `json:"id"`
	UserID string `json:"user_id"`
	Until  Micros `json:"until"`
}

// MaxMoves bounds a control record; more than that is several records.
const MaxMoves = 64

// ByInstant reports whether From and To are compared with the event time rather
// than with the start of its hour.
func (m *Move) ByInstant() bool { return m.Match.AnonymousID != nil && *m.Match.AnonymousID != "" }

// Validate reports what would move everything or nothing, or to another anonymous
// id: that of a row can only be taken away.
func (m Moves) Validate() error {
	if len(m.Moves) == 0 || len(m.Moves) > MaxMoves {
		return fmt.Errorf("moves must hold 1 to %d (got %d)", MaxMoves, len(m.Moves))
	}
	for i, mv := range m.Moves {
		if mv.Match == (Attribution{}) {
			return fmt.Errorf("moves[%d].match is empty", i)
		}
		if mv.Set == (Attribution{}) {
			return fmt.Errorf("moves[%d].set is empty", i)
		}
		if a := mv.Set.AnonymousID; a != nil && *a != "" {
			return fmt.Errorf("moves[%d].set names an anonymous id", i) // what an event named cannot become another
		}
		if mv.From != 0 && mv.To != 0 && mv.From >= mv.To {
			return fmt.Errorf("moves[%d] is from %d to %d", i, mv.From, mv.To)
		}
	}
	return nil
}

// Payload returns m as a Control payload.
func (m Moves) Payload() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return json.Marshal(m)
}

// ParseMoves reads a Control payload.
func ParseMoves(payload []byte) (Moves, error) {
	var m Moves
	if err := json.Unmarshal(payload, &m); err != nil {
		return Moves{}, fmt.Errorf("control payload: %w", err)
	}
	if err := m.Validate(); err != nil {
		return Moves{}, errors.Join(errors.New("control payload"), err)
	}
	return m, nil
}
