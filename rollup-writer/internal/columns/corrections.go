package columns

import "github.com/uptakehq/uptake/schemas/event"

// Attribution is what a row of the base rollup is counted for.
type Attribution struct {
	AccountID, AccountSource       string
	ActorID, ActorKind             string
	UserID, AnonymousID            string
	FeatureID, ModuleID, ProductID string
	Role, Event                    string
}

// AttributionColumn is one column of an attribution.
type AttributionColumn struct {
	Name           string
	LowCardinality bool
	Of             func(*Attribution) *string       // its place in a row
	Named          func(*event.Attribution) *string // its value in a move; nil: not named
}

// AttributionColumns are those of Attribution, in the order of tables.Attribution.
var AttributionColumns = []AttributionColumn{
	{"account_id", false, func(a *Attribution) *string { return &a.AccountID }, func(a *event.Attribution) *string { return a.AccountID }},
	{"account_source", true, func(a *Attribution) *string { return &a.AccountSource }, func(a *event.Attribution) *string { return a.AccountSource }},
	{"actor_id", false, func(a *Attribution) *string { return &a.ActorID }, func(a *event.Attribution) *string { return a.ActorID }},
	{"actor_kind", true, func(a *Attribution) *string { return &a.ActorKind }, func(a *event.Attribution) *string { return a.ActorKind }},
	{"user_id", false, func(a *Attribution) *string { return &a.UserID }, func(a *event.Attribution) *string { return a.UserID }},
	{"anonymous_id", false, func(a *Attribution) *string { return &a.AnonymousID }, func(a *event.Attribution) *string { return a.AnonymousID }},
	{"feature_id", true, func(a *Attribution) *string { return &a.FeatureID }, func(a *event.Attribution) *string { return a.FeatureID }},
	{"module_id", true, func(a *Attribution) *string { return &a.ModuleID }, func(a *event.Attribution) *string { return a.ModuleID }},
	{"product_id", true, func(a *Attribution) *string { return &a.ProductID }, func(a *event.Attribution) *string { return a.ProductID }},
	{"role", true, func(a *Attribution) *string { return &a.Role }, func(a *event.Attribution) *string { return a.Role }},
	{"event", true, func(a *Attribution) *string { return &a.Event }, func(a *event.Attribution) *string { return a.Event }},
}

// Signed is a row of a correction.
type Signed struct {
	Attribution
	Hour             uint32 // seconds since the epoch
	Events, Quantity int64
}

// Control is what the rows of a correction say of the record that ordered it.
type Control struct {
	Source
	AppID       string
	Offset      int64
	ID, Kind    string
	Reason      string // JSON text for people; of a plan's row with chunk 0
	CorrectedAt int64  // milliseconds since the epoch
}

// Corrections is a block of the table corrections, or with chunk and row one of
// correction_plans.
type Corrections struct {
	block

	appID                  dict
	accountID              text
	accountSource          dict
	actorID                text
	actorKind              dict
	userID, anonymousID    text
	featureID, moduleID    dict
	productID, role, event dict
	hour                   seconds
	partition              ints
	events, quantity       longs
	topicID                dict
	offset                 longs
	controlID              text
	controlKind            dict
	correctedAt            millis
	planned                bool
	chunk, row             counts
	reason                 text
}

// NewCorrections returns an empty block of corrections.
func NewCorrections() *Corrections { return newCorrections(false) }

// NewPlan returns an empty block of correction_plans.
func NewPlan() *Corrections { return newCorrections(true) }

func newCorrections(planned bool) *Corrections {
	c := &Corrections{planned: planned}
	c.add("app_id", &c.appID)
	c.add("account_id", &c.accountID)
	c.add("account_source", &c.accountSource)
	c.add("actor_id", &c.actorID)
	c.add("actor_kind", &c.actorKind)
	c.add("user_id", &c.userID)
	c.add("anonymous_id", &c.anonymousID)
	c.add("feature_id", &c.featureID)
	c.add("module_id", &c.moduleID)
	c.add("product_id", &c.productID)
	c.add("role", &c.role)
	c.add("event", &c.event)
	c.add("hour", &c.hour)
	c.add("source_partition", &c.partition)
	c.add("events", &c.events)
	c.add("quantity", &c.quantity)
	c.add("source_topic_id", &c.topicID)
	c.add("source_offset", &c.offset)
	c.add("control_id", &c.controlID)
	c.add("control_kind", &c.controlKind)
	c.add("corrected_at", &c.correctedAt)
	if planned {
		c.add("chunk", &c.chunk)
		c.add("row", &c.row)
		c.add("reason", &c.reason)
	}
	return c
}

// Append adds a row. chunk and row are of a plan only.
func (c *Corrections) Append(ctl *Control, s *Signed, chunk, row uint32) {
	c.appID.appendString(ctl.AppID)
	c.accountID.appendString(s.AccountID)
	c.accountSource.appendString(s.AccountSource)
	c.actorID.appendString(s.ActorID)
	c.actorKind.appendString(s.ActorKind)
	c.userID.appendString(s.UserID)
	c.anonymousID.appendString(s.AnonymousID)
	c.featureID.appendString(s.FeatureID)
	c.moduleID.appendString(s.ModuleID)
	c.productID.appendString(s.ProductID)
	c.role.appendString(s.Role)
	c.event.appendString(s.Event)
	c.hour.Append(s.Hour)
	c.partition.Append(ctl.Partition)
	c.events.appendLong(s.Events)
	c.quantity.appendLong(s.Quantity)
	c.topicID.appendString(ctl.TopicID)
	c.offset.appendLong(ctl.Offset)
	c.controlID.appendString(ctl.ID)
	c.controlKind.appendString(ctl.Kind)
	c.correctedAt.appendLong(ctl.CorrectedAt)
	if c.planned {
		c.chunk.Append(chunk)
		c.row.Append(row)
		if chunk == 0 {
			c.reason.appendString(ctl.Reason)
		} else {
			c.reason.appendString("")
		}
	}
}
