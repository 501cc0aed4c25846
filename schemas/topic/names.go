package topic

import (
	"fmt"
	"strings"
)

// Names are the names of one installation in Kafka: its topics and consumer groups.
// All of them, and the transactional ids that are made of them, begin with the
// installation's prefix, so that several installations can share a cluster. Make it
// with NewNames.
type Names struct {
	// Prefix stands before every name; empty where an installation has the cluster to
	// itself.
	Prefix string

	// Topics.
	Raw             string
	Links           string
	Enriched        string
	Rejected        string
	Catalog         string
	Metadata        string
	EnricherState   string
	KnownIDs        string // hashes of ids that gateways have stored; see ingest-gateway/known
	Alerts          string // what alerts said; see rollup-writer/alert
	AlertState      string // what the evaluator and deliveries of alerts go on from
	Notes           string // what people write down beside the numbers; see package note
	Looks           string // who looked at whom in the console; see package note
	Verdicts        string // what enrichers decided about single events; see package verdict
	VerdictRequests string // for which apps they write that

	// Consumer groups.
	GroupEnricher     string
	GroupRollupWriter string
	GroupAlerts       string // who of it has the one partition of Alerts evaluates and delivers
}

// Unprefixed are the names of an installation without a prefix. Tests use it; the code
// of services and commands has the names of its settings, which a test ensures.
var Unprefixed = NewNames("")

// MaxPrefix is the largest number of bytes of a prefix. Kafka allows names of topics
// of up to 249 bytes.
const MaxPrefix = 200

// ValidatePrefix returns an error for a prefix that is longer than MaxPrefix or has
// characters that Kafka does not allow in names of topics: others than letters and
// digits of ASCII, ".", "_" and "-". The empty prefix is valid.
func ValidatePrefix(prefix string) error {
	if len(prefix) > MaxPrefix {
		return fmt.Errorf("kafka-prefix must have at most %d bytes (got %d)", MaxPrefix, len(prefix))
	}
	if strings.ContainsFunc(prefix, func(r rune) bool { return !allowed(r) }) {
		return fmt.Errorf("kafka-prefix may have only the characters that Kafka allows in names of topics: letters and digits of ASCII, \".\", \"_\" and \"-\" (got %q)", prefix)
	}
	return nil
}

func allowed(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
}

// NewNames returns the names of the installation with a valid prefix.
func NewNames(prefix string) *Names {
	return &Names{
		Prefix:          prefix,
		Raw:             prefix + "uptake.raw.v1",
		Links:           prefix + "uptake.links.v1",
		Enriched:        prefix + "uptake.enriched.v1",
		Rejected:        prefix + "uptake.rejected.v1",
		Catalog:         prefix + "uptake.catalog.v1",
		Metadata:        prefix + "uptake.metadata.v1",
		EnricherState:   prefix + "uptake.enricher-state.v1",
		KnownIDs:        prefix + "uptake.known-ids.v1",
		Alerts:          prefix + "uptake.alerts.v1",
		AlertState:      prefix + "uptake.alert-state.v1",
		Notes:           prefix + "uptake.notes.v1",
		Looks:           prefix + "uptake.looks.v1",
		Verdicts:        prefix + "uptake.verdicts.v1",
		VerdictRequests: prefix + "uptake.verdict-requests.v1",

		GroupEnricher:     prefix + BaseGroupEnricher,
		GroupRollupWriter: prefix + "uptake.rollup-writer.v1",
		GroupAlerts:       prefix + "uptake.alerts.v1",
	}
}

// BaseGroupEnricher is the enrichers' group without the prefix: the default of the
// setting that names another one.
const BaseGroupEnricher = "uptake.enricher.v1"

// Base returns a name without the prefix: what files that another installation may
// read call a topic. It returns a name that does not begin with the prefix as it is.
func (n *Names) Base(name string) string { return strings.TrimPrefix(name, n.Prefix) }
