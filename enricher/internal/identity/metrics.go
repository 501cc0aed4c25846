package identity

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the States of one process do.
type Metrics struct {
	links    *prometheus.CounterVec
	orders   *prometheus.CounterVec
	controls prometheus.Counter
	limits   *prometheus.CounterVec
	refused  *prometheus.CounterVec
	unknown  prometheus.Counter
}

// Values of the label bound of uptake_enricher_identity_limited_total.
const (
	boundLinks       = "max_links"
	boundAnonymous   = "max_anonymous"
	boundMemberships = "max_memberships"
	boundAliasDepth  = "max_alias_depth"
	boundIDBytes     = "max_id_bytes"
	boundStateBytes  = "max_state_bytes"
	boundAliases     = "max_aliases"
)

// NewMetrics registers the metrics with reg, which may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		links: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "uptake_enricher_identity_links_total",
			Help: "Link records taken in, by kind.",
		}, []string{"kind"}),
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "uptake_enricher_identity_corrections_total",
			Help: "Corrections ordered, by cause.",
		}, []string{"cause"}),
		controls: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "uptake_enricher_identity_control_records_total",
			Help: "Control records that contain corrections.",
		}),
		limits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "uptake_enricher_identity_limited_total",
			Help: "Facts not learnt, or dropped, because of a bound.",
		}, []string{"bound"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "uptake_enricher_identity_refused_total",
			Help: "Links ignored: undone by an operator, of an erased person, of an id to itself, or of an identified user to another one.",
		}, []string{"reason"}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "uptake_enricher_identity_unknown_records_total",
			Help: "Records of links or enricher-state whose kind this version does not know.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.links, m.orders, m.controls, m.limits, m.refused, m.unknown)
	}
	return m
}
