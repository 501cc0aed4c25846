package columns

import (
	"github.com/ClickHouse/ch-go/proto"

	"github.com/uptakehq/uptake/schemas/event"
)

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
	Part             Part
	Events, Quantity int64
}

// Part is a part of an hour, from an instant to before another one, in microseconds
// since the epoch. The zero value is the whole hour.
type Part struct{ From, To int64 }

// Has reports whether an instant of the hour is in the part.
func (p Part) Has(at int64) bool { return p.To == 0 || (p.From <= at && at < p.To) }

// Control is what the rows of a correction say of the record that ordered it and
// of the block that it stands in.
type Control struct {
	Source
	AppID       string
	Offset      int64
	ID, Kind    string
	Block       int64 // offset with which the block begins
	CorrectedAt int64 // milliseconds since the epoch; one for all rows of a block
}

// Plan is the head of a plan.
type Plan struct {
	ID     uint64 // of the attempt whose chunks are the plan's
	End    int64  // offset behind the block
	Chunks []Chunk
}

// Chunk is what a chunk of a plan must hold.
type Chunk struct {
	Rows             uint32
	Events, Quantity int64 // of the rows that give
}

// Corrections is a block of the table corrections, or with the columns of planned
// one of correction_plans.
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
	partFrom, partTo       micros
	partition              ints
	events, quantity       longs
	topicID                dict
	offset                 longs
	controlID              text
	controlKind            dict
	correctedAt            millis
	blockStart             longs
	row                    counts
	planned                *planned
}

// planned are the columns that correction_plans has besides.
type planned struct {
	plan           proto.ColUInt64
	chunk          counts
	reason         text
	end            longs
	rows           *proto.ColArr[uint32]
	events, amount *proto.ColArr[int64]
}

// NewCorrections returns an empty block of corrections.
func NewCorrections() *Corrections {
	c := &Corrections{}
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
	c.add("part_from", &c.partFrom)
	c.add("part_to", &c.partTo)
	c.add("source_partition", &c.partition)
	c.add("events", &c.events)
	c.add("quantity", &c.quantity)
	c.add("source_topic_id", &c.topicID)
	c.add("source_offset", &c.offset)
	c.add("control_id", &c.controlID)
	c.add("control_kind", &c.controlKind)
	c.add("corrected_at", &c.correctedAt)
	c.add("block", &c.blockStart)
	c.add("row", &c.row)
	return c
}

// NewPlan returns an empty block of correction_plans.
func NewPlan() *Corrections {
	c := NewCorrections()
	p := &planned{rows: proto.NewArrUInt32(), events: proto.NewArrInt64(), amount: proto.NewArrInt64()}
	c.planned = p
	c.add("plan", &p.plan)
	c.add("chunk", &p.chunk)
	c.add("reason", &p.reason)
	c.add("block_end", &p.end)
	c.add("chunk_rows", p.rows)
	c.add("chunk_events", p.events)
	c.add("chunk_quantity", p.amount)
	return c
}

// Append adds a row of a correction: number row of its plan.
func (c *Corrections) Append(ctl *Control, s *Signed, row uint32) {
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
	c.partFrom.appendLong(s.Part.From)
	c.partTo.appendLong(s.Part.To)
	c.partition.Append(ctl.Partition)
	c.events.appendLong(s.Events)
	c.quantity.appendLong(s.Quantity)
	c.topicID.appendString(ctl.TopicID)
	c.offset.appendLong(ctl.Offset)
	c.controlID.appendString(ctl.ID)
	c.controlKind.appendString(ctl.Kind)
	c.correctedAt.appendLong(ctl.CorrectedAt)
	c.blockStart.appendLong(ctl.Block)
	c.row.Append(row)
}

// AppendPlanned adds a row of a chunk of a plan.
func (c *Corrections) AppendPlanned(ctl *Control, s *Signed, plan uint64, chunk, row uint32) {
	c.Append(ctl, s, row)
	c.planned.append(plan, chunk, "", 0, nil)
}

// AppendReason adds the text that tells people of a control record.
func (c *Corrections) AppendReason(ctl *Control, plan uint64, reason string) {
	c.Append(ctl, &Signed{}, 0)
	c.planned.append(plan, 0, reason, 0, nil)
}

// AppendHead adds the head of a plan, the row of chunk 0 that has a block_end.
func (c *Corrections) AppendHead(ctl *Control, p *Plan) {
	c.Append(ctl, &Signed{}, 0)
	c.planned.append(p.ID, 0, "", p.End, p.Chunks)
}

func (p *planned) append(plan uint64, chunk uint32, reason string, end int64, chunks []Chunk) {
	p.plan.Append(plan)
	p.chunk.Append(chunk)
	p.reason.appendString(reason)
	p.end.appendLong(end)
	rows, events, quantity := make([]uint32, len(chunks)), make([]int64, len(chunks)), make([]int64, len(chunks))
	for i, c := range chunks {
		rows[i], events[i], quantity[i] = c.Rows, c.Events, c.Quantity
	}
	p.rows.Append(rows)
	p.events.Append(events)
	p.amount.Append(quantity)
}
