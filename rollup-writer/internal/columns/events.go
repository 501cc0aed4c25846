package columns

import "github.com/uptakehq/uptake/schemas/event"

// Events is a block of the table events.
type Events struct {
	block

	appID, kind, event                         dict
	messageID, userID, anonymousID, previousID text
	linkedUserID, actorID                      text
	actorKind                                  dict
	accountID                                  text
	accountSource                              dict
	parentAccountID                            text
	role, featureID, moduleID, productID       dict
	catalogVersion                             longs
	eventTime                                  micros
	timestamp, sentAt                          optionalMicros
	receivedAt                                 micros
	quantity                                   longs
	properties, traits                         object
	metric                                     text
	context, conflicts, sessionID              text
	protocol, library                          dict
	ip, userAgent                              text
	country, browser, os, deviceClass          dict
	referrer, source, medium, campaign         dict
	flags                                      dict
	rawOffset                                  longs
	topicID                                    dict
	partition                                  ints
	offset                                     longs
}

// NewEvents returns an empty block.
func NewEvents() *Events {
	c := &Events{}
	c.properties, c.traits = newObject(256), newObject(64)
	c.add("app_id", &c.appID)
	c.add("kind", &c.kind)
	c.add("event", &c.event)
	c.add("message_id", &c.messageID)
	c.add("user_id", &c.userID)
	c.add("anonymous_id", &c.anonymousID)
	c.add("previous_id", &c.previousID)
	c.add("linked_user_id", &c.linkedUserID)
	c.add("actor_id", &c.actorID)
	c.add("actor_kind", &c.actorKind)
	c.add("account_id", &c.accountID)
	c.add("account_source", &c.accountSource)
	c.add("parent_account_id", &c.parentAccountID)
	c.add("role", &c.role)
	c.add("feature_id", &c.featureID)
	c.add("module_id", &c.moduleID)
	c.add("product_id", &c.productID)
	c.add("catalog_version", &c.catalogVersion)
	c.add("event_time", &c.eventTime)
	c.add("timestamp", &c.timestamp)
	c.add("sent_at", &c.sentAt)
	c.add("received_at", &c.receivedAt)
	c.add("quantity", &c.quantity)
	c.add("properties", &c.properties)
	c.add("traits", &c.traits)
	c.add("metric", &c.metric)
	c.add("context", &c.context)
	c.add("conflicts", &c.conflicts)
	c.add("session_id", &c.sessionID)
	c.add("protocol", &c.protocol)
	c.add("library", &c.library)
	c.add("ip", &c.ip)
	c.add("user_agent", &c.userAgent)
	c.add("country", &c.country)
	c.add("browser", &c.browser)
	c.add("os", &c.os)
	c.add("device_class", &c.deviceClass)
	c.add("referrer", &c.referrer)
	c.add("utm_source", &c.source)
	c.add("utm_medium", &c.medium)
	c.add("utm_campaign", &c.campaign)
	c.add("flags", &c.flags)
	c.add("raw_offset", &c.rawOffset)
	c.add("source_topic_id", &c.topicID)
	c.add("source_partition", &c.partition)
	c.add("source_offset", &c.offset)
	return c
}

// EachApp calls fn with every app that rows are of, and how many.
func (c *Events) EachApp(fn func(app string, rows int)) { c.appID.each(fn) }

// Received returns when the rows' oldest and newest events were received, in
// microseconds since the epoch; 0 without rows.
func (c *Events) Received() (oldest, newest int64) { return c.receivedAt.bounds() }

// EachCounted calls fn for the rows that the base rollup counts, in order, with
// their event times in microseconds since the epoch. The strings of s belong to
// the block and are valid until Reset.
func (c *Events) EachCounted(fn func(app string, offset, at int64, s *Signed)) {
	user, anonymous, linked := reader{buf: c.userID.buf}, reader{buf: c.anonymousID.buf}, reader{buf: c.linkedUserID.buf}
	actor, account := reader{buf: c.actorID.buf}, reader{buf: c.accountID.buf}
	var s Signed
	for i := range c.offset.Rows() {
		userID, anonymousID, linkedID := user.next(), anonymous.next(), linked.next()
		s.ActorID, s.AccountID = actor.next(), account.next()
		if !event.IsUsage(c.kind.at(i)) {
			continue
		}
		// As the view usage_hourly_from_events says it.
		s.UserID, s.AnonymousID = userID, ""
		if userID == "" {
			s.UserID, s.AnonymousID = linkedID, anonymousID
		}
		s.AccountSource, s.ActorKind, s.Role, s.Event = c.accountSource.at(i), c.actorKind.at(i), c.role.at(i), c.event.at(i)
		s.FeatureID, s.ModuleID, s.ProductID = c.featureID.at(i), c.moduleID.at(i), c.productID.at(i)
		s.Hour, s.Events, s.Quantity = HourOf(c.eventTime.Row(i)), 1, c.quantity.Row(i)
		fn(c.appID.at(i), c.offset.Row(i), c.eventTime.Row(i), &s)
	}
}

// Place is what says where a row of events or of rejected events stands.
type Place struct {
	Offset     int64
	ReceivedAt int64 // microseconds since the epoch
}

// EachPlace calls fn for every row, in order.
func (c *Events) EachPlace(fn func(Place)) {
	for i, offset := range c.offset.ColInt64 {
		fn(Place{offset, c.receivedAt.Row(i)})
	}
}

// Pick returns a block of the rows that keep says, by their number.
func (c *Events) Pick(keep []bool) *Events {
	p := NewEvents()
	p.pick(&c.block, keep)
	return p
}

// Days are the UTC days on which the rows' events count, as seconds since the epoch.
func (c *Events) Days() map[int64]bool {
	days := map[int64]bool{}
	for _, at := range c.eventTime.ColInt64 {
		hour := int64(HourOf(at))
		days[hour-hour%86400] = true
	}
	return days
}

const microsPerHour = 3600 * 1_000_000

// HourOf is the start of the hour of an instant in microseconds, in seconds.
func HourOf(micros int64) uint32 {
	h := micros / microsPerHour
	if micros%microsPerHour < 0 {
		h--
	}
	return uint32(h * 3600)
}

// Append adds a row.
func (c *Events) Append(src Source, offset int64, e *event.EnrichedEvent) {
	c.appID.appendString(e.AppID)
	c.kind.appendString(e.Kind)
	c.event.appendString(e.Event)
	c.messageID.appendString(e.MessageID)
	c.userID.appendString(e.UserID)
	c.anonymousID.appendString(e.AnonymousID)
	c.previousID.appendString(e.PreviousID)
	c.linkedUserID.appendString(e.LinkedUserID)
	c.actorID.appendString(e.ActorID)
	c.actorKind.appendString(e.ActorKind)
	c.accountID.appendString(e.AccountID)
	c.accountSource.appendString(e.AccountSource)
	c.parentAccountID.appendString(e.ParentAccountID)
	c.role.appendString(e.Role)
	c.featureID.appendString(e.FeatureID)
	c.moduleID.appendString(e.ModuleID)
	c.productID.appendString(e.ProductID)
	c.catalogVersion.appendLong(e.CatalogVersion)
	c.eventTime.appendLong(e.EventTime)
	c.timestamp.appendLong(e.Timestamp)
	c.sentAt.appendLong(e.SentAt)
	c.receivedAt.appendLong(e.ReceivedAt)
	c.quantity.appendLong(e.Quantity)
	c.properties.appendJSON(e.Properties)
	c.traits.appendJSON(e.Traits)
	c.metric.appendBytes(e.Metric)
	c.context.appendBytes(e.Context)
	c.conflicts.appendBytes(e.Conflicts)
	c.sessionID.appendString(e.SessionID)
	c.protocol.appendString(e.Protocol)
	c.library.appendString(e.Library)
	c.ip.appendString(e.IP)
	c.userAgent.appendString(e.UserAgent)
	c.country.appendString(e.Country)
	c.browser.appendString(e.Browser)
	c.os.appendString(e.OS)
	c.deviceClass.appendString(e.DeviceClass)
	c.referrer.appendString(e.Referrer)
	c.source.appendString(e.UTMSource)
	c.medium.appendString(e.UTMMedium)
	c.campaign.appendString(e.UTMCampaign)
	c.flags.appendString(e.Flags)
	c.rawOffset.appendLong(e.RawOffset)
	c.topicID.appendString(src.TopicID)
	c.partition.Append(src.Partition)
	c.offset.appendLong(offset)
}
