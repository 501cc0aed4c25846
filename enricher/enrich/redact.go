package enrich

import (
	"time"

	"github.com/uptakehq/uptake/enricher/internal/client"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/privacy"
	"github.com/uptakehq/uptake/schemas/rawjson"
)

// privacyPoll is how often the privacy rules are checked for changes.
const privacyPoll = 5 * time.Second

// privacyRead logs that the privacy rules were reloaded, or why they were not.
func (s *Service) privacyRead(err error) {
	if err != nil {
		s.log.Error("privacy rules cannot be used", "file", s.cfg.PrivacyFile, "error", err)
		return
	}
	s.log.Info("privacy rules loaded", "file", s.cfg.PrivacyFile)
}

// redacted holds the redacted objects of the current event. It is valid until the next
// event.
type redacted struct {
	by *privacy.Redactor

	properties, traits, context, conflicts, unread, role, client, texts []byte

	campaign client.Reader
}

// roleTraits are the traits that a role may be read from: without what the rules drop. Nil
// without rules.
func (k *redacted) roleTraits(rules *privacy.Rules, traits []byte) []byte {
	if rules == nil || len(traits) == 0 {
		return nil
	}
	if k.by == nil {
		k.by = privacy.NewRedactor()
	}
	k.by.Begin(rules)
	k.role = k.by.Append(k.role[:0], privacy.Traits, traits)
	return k.role
}

// addUnread adds fields that were sent and not used, as JSON object text or empty, to
// the conflicts.
func (k *redacted) addUnread(e *event.EnrichedEvent, unread []byte) {
	if len(unread) == 0 {
		return
	}
	k.conflicts = append(k.conflicts[:0], e.Conflicts...)
	if n := len(k.conflicts); n > 0 {
		k.conflicts[n-1] = ','
		unread = unread[1:]
	}
	k.conflicts = append(k.conflicts, unread...)
	e.Conflicts = k.conflicts
}

// redact removes from an event what its app's privacy rules drop, mask or hash.
func (k *redacted) redact(rules *privacy.Rules, e *event.EnrichedEvent, unread []byte) {
	if rules == nil {
		k.addUnread(e, unread)
		return
	}
	if k.by == nil {
		k.by = privacy.NewRedactor()
	}
	k.by.Begin(rules)
	k.properties = k.by.Append(k.properties[:0], privacy.Properties, e.Properties)
	k.traits = k.by.Append(k.traits[:0], privacy.Traits, e.Traits)
	k.context = k.by.Append(k.context[:0], privacy.Context, e.Context)
	k.conflicts = k.by.AppendConflicts(k.conflicts[:0], e.Conflicts)
	e.Properties, e.Traits, e.Context, e.Conflicts = k.properties, k.traits, k.context, k.conflicts
	k.unread = k.by.AppendText(k.unread[:0], unread)
	k.addUnread(e, k.unread)
	e.IP, e.UserAgent = rules.IP(e.IP), rules.UserAgent(e.UserAgent)
	if e.SessionID != "" { // it was read from one of the two before the rules were applied
		e.SessionID = view(sessionID(k.context, k.properties))
	}
}

// clientProperties redacts the properties that the client is read from, with the rules
// of the last call of redact.
func (k *redacted) clientProperties(properties []byte) []byte {
	k.client = k.by.Append(k.client[:0], privacy.Properties, properties)
	return k.client
}

// redactCampaign redacts a campaign under the two names by which rules know its texts.
// Decoded from the parameters of a URL they show what no detector sees in the URL, such
// as a@b%2Eexample, and a rule about utm_source must hold for that parameter too.
func (k *redacted) redactCampaign(c *event.Client) {
	for _, as := range [...]struct {
		object                           string
		begin, source, medium, name, end string
	}{
		{privacy.Properties, "{", `"utm_source":`, `,"utm_medium":`, `,"utm_campaign":`, "}"},
		{privacy.Context, `{"campaign":{`, `"source":`, `,"medium":`, `,"name":`, "}}"},
	} {
		if c.UTMSource == "" && c.UTMMedium == "" && c.UTMCampaign == "" {
			return
		}
		doc := append(k.texts[:0], as.begin...)
		doc = rawjson.AppendQuoted(append(doc, as.source...), c.UTMSource)
		doc = rawjson.AppendQuoted(append(doc, as.medium...), c.UTMMedium)
		doc = rawjson.AppendQuoted(append(doc, as.name...), c.UTMCampaign)
		k.texts = append(doc, as.end...)
		sent := client.Sent{}
		text := k.by.Append(nil, as.object, k.texts)
		if as.object == privacy.Properties {
			sent.Properties = text
		} else {
			sent.Context = text
		}
		got := k.campaign.Read(&sent)
		c.UTMSource, c.UTMMedium, c.UTMCampaign = got.UTMSource, got.UTMMedium, got.UTMCampaign
	}
}
