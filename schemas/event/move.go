package event

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ControlMove is the Control.Kind of a correction: its payload is Moves.
const ControlMove = "move"

// Attribution names values of the attribution columns of usage_hourly. As a
// match nil stands for any value, as a set for unchanged. The hour, the sums and
// the source partition are never part of it: a correction moves whole rows of
// its own partition.
type Attribution struct {
	AccountID *string `json:"account_id,omitempty"`
	ActorID   *string `json:"actor_id,omitempty"`
	ActorKind *string `json:"actor_kind,omitempty"`
	FeatureID *string `json:"feature_id,omitempty"`
	ModuleID  *string `json:"module_id,omitempty"`
	ProductID *string `json:"product_id,omitempty"`
	Role      *string `json:"role,omitempty"`
	Event     *string `json:"event,omitempty"`
}

// Move says that what its app counted so far in this partition under Match is
// to be counted under the same attribution with Set written over it.
type Move struct {
	Match Attribution `json:"match"`
	Set   Attribution `json:"set"`
}

// Moves is the payload of a ControlMove record. A row of the base rollup is
// moved by the first move that matches it and by no other.
type Moves struct {
	Moves []Move `json:"moves"`
}

// MaxMoves bounds a control record; more than that is several records.
const MaxMoves = 64

// Validate reports what would move everything or nothing.
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
