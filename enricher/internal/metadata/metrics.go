package metadata

import "github.com/prometheus/client_golang/prometheus"

// metrics of an Agreement.
type metrics struct {
	keys       *prometheus.GaugeVec // app
	added      prometheus.Counter
	retries    prometheus.Counter
	unreadable prometheus.Counter
	wait       prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns, sub = "uptake", "enricher_metadata"
	m := &metrics{
		keys:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "keys", Help: "Key paths that have a type."}, []string{"app"}),
		added:      prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "keys_added_total", Help: "Key paths that this instance saw first."}),
		retries:    prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "retries_total", Help: "Repeated attempts to agree on keys, because another instance wrote first or brokers did not answer."}),
		unreadable: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "unreadable_total", Help: "Records of the metadata topic that could not be read."}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: ns, Subsystem: sub, Name: "agree_seconds", Help: "How long a partition waited until new keys were agreed on.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
		}),
	}
	if reg != nil {
		reg.MustRegister(m.keys, m.added, m.retries, m.unreadable, m.wait)
	}
	return m
}
