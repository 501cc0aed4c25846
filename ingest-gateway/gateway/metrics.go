package gateway

import (
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// outcomes names the states of items in metrics.
var outcomes = [ingest.Unstored + 1]string{
	ingest.Accepted: "accepted", ingest.Rejected: "rejected", ingest.Ignored: "ignored", ingest.Unstored: "unstored",
}

// noProtocol labels requests that match no route.
const noProtocol = "none"

// unbound is the Bound of requests that match no route.
var unbound = ingest.Bound{Protocol: noProtocol}

type metrics struct {
	requests     *prometheus.CounterVec   // protocol, status
	faults       *prometheus.CounterVec   // protocol, kind
	seconds      *prometheus.HistogramVec // protocol
	wireBytes    *prometheus.CounterVec   // protocol
	bodyBytes    *prometheus.CounterVec   // protocol
	events       *prometheus.CounterVec   // app, outcome
	rejected     *prometheus.CounterVec   // app, code
	optedOut     *prometheus.CounterVec   // app
	limited      *prometheus.CounterVec   // setting
	ackSeconds   prometheus.Histogram
	newest       prometheus.Gauge
	stalls       prometheus.Counter
	records      *prometheus.CounterVec // topic, result
	late         *prometheus.CounterVec // result
	acceptedEver atomic.Int64           // for the log

	acked, failed         [2]prometheus.Counter // records, by topic: raw, rejected
	lateStored, lateFails prometheus.Counter

	protocols sync.Map // protocol name to *protocolMetrics
}

// protocolMetrics are the counters of one protocol, looked up once.
type protocolMetrics struct {
	name                 string
	seconds              prometheus.Observer
	wireBytes, bodyBytes prometheus.Counter
	ok                   prometheus.Counter // requests with status 200
}

func newMetrics(reg prometheus.Registerer) *metrics {
	name := func(s string) string { return "uptake_gateway_" + s }
	counterVec := func(n, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name(n), Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	seconds := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	m := &metrics{
		requests:  counterVec("requests_total", "Requests answered, by protocol and status.", "protocol", "status"),
		faults:    counterVec("faults_total", "Requests that failed as a whole, by protocol and kind.", "protocol", "kind"),
		wireBytes: counterVec("request_bytes_total", "Bytes of request bodies as received, before unpacking.", "protocol"),
		bodyBytes: counterVec("body_bytes_total", "Bytes of request bodies after unpacking.", "protocol"),
		events:    counterVec("events_total", "Events by app and outcome: accepted, rejected, ignored, unstored. The sum is all events received.", "app", "outcome"),
		rejected:  counterVec("rejected_total", "Rejected events by app and reason code, including those whose record in rejected was not acked.", "app", "code"),
		optedOut:  counterVec("opted_out_total", "Ignored events of users and accounts who opted out, by app.", "app"),
		limited:   counterVec("limited_total", "Requests and connections refused because a setting's bound was reached, by setting.", "setting"),
		records:   counterVec("records_total", "Records handed to the Kafka client, by topic and result: acked or failed.", "topic", "result"),
		late:      counterVec("late_records_total", "Records whose result arrived after their request was answered, by result.", "result"),
		stalls:    prometheus.NewCounter(prometheus.CounterOpts{Name: name("stalls_total"), Help: "Kafka clients replaced because records were in flight and none was acked."}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name("request_seconds"), Help: "Time from the end of a request's header to its reply, by protocol.", Buckets: seconds,
		}, []string{"protocol"}),
		ackSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name("ack_seconds"), Help: "Time from handing a request's records to the Kafka client to the last ack.", Buckets: seconds,
		}),
		newest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: name("newest_accepted_timestamp_seconds"), Help: "Unix time of receipt of the newest request with accepted events.",
		}),
	}
	reg.MustRegister(m.seconds, m.ackSeconds, m.newest, m.stalls)
	for i, t := range []string{"raw", "rejected"} {
		m.acked[i], m.failed[i] = m.records.WithLabelValues(t, "acked"), m.records.WithLabelValues(t, "failed")
	}
	m.lateStored, m.lateFails = m.late.WithLabelValues("acked"), m.late.WithLabelValues("failed")
	for _, s := range []string{
		ingest.SettingMaxCompressedBytes, ingest.SettingMaxBodyBytes, ingest.SettingMaxImportBytes, ingest.SettingMaxBatchEvents, settingMaxInflightBytes,
		settingMaxInflightEvents, settingMaxHeaderBytes, settingReadTimeout, settingAckTimeout, settingRate, settingQuota,
		settingMaxConnections, settingMinRequestRate, settingMaxAddressShare, settingMaxUnauthenticatedShare,
	} {
		m.limited.WithLabelValues(s)
	}
	return m
}

// observe registers the metrics that are read from the gateway's state.
func (m *metrics) observe(g *Gateway, reg prometheus.Registerer) {
	gauge := func(n, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "uptake_gateway_" + n, Help: help}, f))
	}
	gauge("inflight_bytes", "Bytes of bodies and records that are not yet answered or acked.", func() float64 { return float64(g.bytes.used.Load()) })
	gauge("inflight_events", "Records that are not yet acked.", func() float64 { return float64(g.producer.inflight.used.Load()) })
	gauge("inflight_bytes_limit", "The bound on inflight_bytes, max-inflight-bytes.", func() float64 { return float64(g.bytes.limit) })
	gauge("inflight_events_limit", "The bound on inflight_events, max-inflight-events.", func() float64 { return float64(g.producer.inflight.limit) })
	gauge("unauthenticated_bytes", "Part of inflight_bytes: bodies whose write key has not been read yet.", func() float64 { return float64(g.unauthenticated.used.Load()) })
	gauge("unauthenticated_bytes_limit", "The bound on unauthenticated_bytes, a share of max-inflight-bytes.", func() float64 { return float64(g.unauthenticated.limit) })
	gauge("address_bytes", "Part of inflight_bytes: the client address that holds the most.", func() float64 { return float64(g.addresses.largest()) })
	gauge("address_bytes_limit", "The bound on address_bytes, a share of max-inflight-bytes.", func() float64 { return float64(g.addresses.limit) })
	gauge("connections", "Open connections.", func() float64 { return float64(g.server.connections()) })
	gauge("geo_database_timestamp_seconds", "Unix time at which the database of countries in force was made; 0 without one.", func() float64 {
		if built := g.geo.Built(); !built.IsZero() {
			return float64(built.Unix())
		}
		return 0
	})
	gauge("kafka_ready", "1 while the topics are known and the last records were acked.", func() float64 {
		if g.producer.ready() != nil {
			return 0
		}
		return 1
	})
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "uptake_gateway_connections_refused_total", Help: "Connections refused because of max-connections or max-address-share.",
	}, func() float64 { return float64(g.server.refused()) }))
}

func (m *metrics) protocol(name string) *protocolMetrics {
	if v, ok := m.protocols.Load(name); ok {
		return v.(*protocolMetrics)
	}
	v, _ := m.protocols.LoadOrStore(name, &protocolMetrics{
		name:      name,
		seconds:   m.seconds.WithLabelValues(name),
		wireBytes: m.wireBytes.WithLabelValues(name),
		bodyBytes: m.bodyBytes.WithLabelValues(name),
		ok:        m.requests.WithLabelValues(name, "200"),
	})
	return v.(*protocolMetrics)
}

// answered counts a reply.
func (m *metrics) answered(p *protocolMetrics, status int, fault *ingest.Fault) {
	if status == 200 {
		p.ok.Inc()
	} else {
		m.requests.WithLabelValues(p.name, strconv.Itoa(status)).Inc()
	}
	if fault != nil {
		m.faults.WithLabelValues(p.name, fault.Kind.String()).Inc()
		if fault.Setting != "" {
			m.limited.WithLabelValues(fault.Setting).Inc()
		}
	}
}

// count adds a batch's items to its app's counters.
func (m *metrics) count(t *meter, b *ingest.Batch) {
	for s := range t.events {
		if n := b.Count(ingest.State(s)); n > 0 {
			t.events[s].Add(float64(n))
			if ingest.State(s) == ingest.Accepted {
				m.acceptedEver.Add(int64(n))
			}
		}
	}
	if n := b.OptedOut(); n > 0 {
		t.opted.Add(float64(n))
	}
	b.EachRejected(func(code string) {
		if c, ok := t.codes[code]; ok {
			c.Inc()
		} else {
			t.codes[ingest.CodeBadEvent].Inc()
		}
	})
}
