package enrich

import (
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/privacy"
)

// privacyPoll is how often the privacy rules are looked at.
const privacyPoll = 5 * time.Second

// privacyRead says that the privacy rules were read again.
func (s *Service) privacyRead(err error) {
	if err != nil {
		s.log.Error("privacy rules cannot be used", "file", s.cfg.PrivacyFile, "error", err)
		return
	}
	s.log.Info("privacy rules read", "file", s.cfg.PrivacyFile)
}

// redacted holds what may be kept of the event at hand. It is valid until the
// next event.
type redacted struct {
	by *privacy.Redactor

	properties, traits, context, conflicts []byte
}

// redact takes out of an event what its app's rules say must not be kept; an
// app without rules keeps all.
func (k *redacted) redact(rules *privacy.Rules, e *event.EnrichedEvent) {
	if rules == nil {
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
	e.IP, e.UserAgent = rules.IP(e.IP), rules.UserAgent(e.UserAgent)
}
