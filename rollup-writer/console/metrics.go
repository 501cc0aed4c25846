package console

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	requests  *prometheus.CounterVec
	asked     *prometheus.CounterVec
	seconds   prometheus.Histogram
	streams   prometheus.Gauge
	looksLost prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "uptake_console_requests_total", Help: "Pages answered, by page and status class."}, []string{"page", "status"}),
		asked:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "uptake_console_questions_total", Help: "Questions, by result: answered, cached, failed or refused (a bound was reached)."}, []string{"result"}),
		seconds:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "uptake_console_question_seconds", Help: "Time of one question to ClickHouse.", Buckets: []float64{.01, .03, .1, .3, 1, 3, 10, 30}}),
		streams:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "uptake_console_live_streams", Help: "Live views that are open."}),
		looksLost: prometheus.NewCounter(prometheus.CounterOpts{Name: "uptake_console_lost_looks_total", Help: "Records of who looked at whom that could not be written to the log; the console's log has them."}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.asked, m.seconds, m.streams, m.looksLost)
	}
	return m
}
