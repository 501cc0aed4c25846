package keys

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	apps, keys, stale prometheus.Gauge
	reloads           *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		apps: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "uptake_gateway_apps", Help: "Apps of the key file in force.",
		}),
		keys: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "uptake_gateway_keys", Help: "Write keys of the key file in force.",
		}),
		stale: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "uptake_gateway_keys_stale", Help: "1 while the key file cannot be used and an older one is in force.",
		}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "uptake_gateway_key_reloads_total", Help: "Changed key files by result: used or refused.",
		}, []string{"result"}),
	}
	reg.MustRegister(m.apps, m.keys, m.stale, m.reloads)
	for _, result := range []string{"used", "refused"} {
		m.reloads.WithLabelValues(result)
	}
	return m
}
