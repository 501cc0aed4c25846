package event

import "time"

// A file of `rollup-writer identity export`, which `enricher identity import` reads: JSON
// lines, gzipped. The first is a KnownHeader, the others are KnownCalls in order of At; the
// last has End, the number of calls.

// KnownVersion is that of the format.
const KnownVersion = 1

// KnownHeader begins a file.
type KnownHeader struct {
	Version  int       `json:"uptake_identities"`
	MadeAt   time.Time `json:"made_at"`
	Personal string    `json:"personal_data"`
}

// Values of KnownCall.Kind beside KindIdentify, KindGroup and KindAlias.
const (
	KnownUnlink = "unlink" // an operator's: ID does not belong to UserID by what was said up to At
	KnownErased = "erased" // persons who were erased
)

// KnownKinds are all.
var KnownKinds = []string{KindIdentify, KindGroup, KindAlias, KnownUnlink, KnownErased}

// KnownCall is a call from which identities were learnt, or an operator's order.
type KnownCall struct {
	AppID       string     `json:"app,omitempty"`
	Kind        string     `json:"kind,omitempty"`
	At          time.Time  `json:"at,omitzero"`
	UserID      string     `json:"user_id,omitempty"`
	AnonymousID string     `json:"anonymous_id,omitempty"`
	PreviousID  string     `json:"previous_id,omitempty"`
	AccountID   string     `json:"account_id,omitempty"`
	Role        string     `json:"role,omitempty"`
	IDKind      string     `json:"id_kind,omitempty"`
	ID          string     `json:"id,omitempty"`
	Erased      *ErasedIDs `json:"erased,omitempty"`
	End         *int64     `json:"end,omitempty"`
}
