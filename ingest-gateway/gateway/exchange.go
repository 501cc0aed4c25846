package gateway

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/body"
	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
)

// exchange is one request and its reply, with every buffer that they need. It is reused
// once the reply is written and every record has its result, whichever comes last.
type exchange struct {
	gateway *Gateway
	request ingest.Request
	batch   *ingest.Batch
	reply   ingest.Reply
	flight  *flight
	timer   *time.Timer

	wire      []byte // body as it came
	unpacked  []byte
	key       [256]byte // scratch of Router.Find
	headers   headers
	keyHeader string // field that the protocol's clients send the key in, or ""
	received  time.Time
	held      hold
	whole     bool // the body was read to its end
	broken    bool // a panic occurred: the exchange is not reused
}

func (g *Gateway) newExchange() *exchange {
	x := &exchange{gateway: g, batch: ingest.NewBatch(g.codec, g.keys, g.cfg.Limits)}
	x.held.bounds = &g.bounds
	x.batch.Reserve(x.held.reserve)
	x.batch.Privacy(g.privacy.Policy)
	x.batch.Countries(g.geo.Country)
	x.flight = newFlight(x)
	x.timer = time.NewTimer(time.Hour)
	x.timer.Stop()
	return x
}

func (g *Gateway) acquire() *exchange {
	x := g.exchanges.Get().(*exchange)
	x.request.Reset()
	x.reply.Reset()
	x.received = g.now()
	x.whole = false
	x.flight.records = x.flight.records[:0]
	x.flight.failures.Store(0)
	return x
}

// release returns the exchange to the pool once the reply is written. If records have
// no result yet, the last result returns it.
func (x *exchange) release() {
	x.request.Headers = nil
	x.headers.h = nil
	if len(x.flight.records) == 0 {
		x.recycle()
		return
	}
	x.flight.answered.Store(true)
	if x.flight.refs.Add(-1) == 0 {
		x.recycle()
	}
}

// keepBytes bounds the buffers that an idle exchange keeps.
const keepBytes = 256 << 10

func (x *exchange) recycle() {
	g := x.gateway
	x.held.release()
	select {
	case <-x.flight.done:
	default:
	}
	n, slab := x.batch.Records()
	if failed := x.flight.failures.Load() > 0; failed || x.broken || n > 4096 || slab > keepBytes || cap(x.wire) > keepBytes || cap(x.unpacked) > keepBytes || cap(x.reply.Body) > keepBytes {
		// Large buffers are left to the garbage collector. So is everything of an
		// exchange whose records failed: the client library may still be writing a
		// request from these buffers to a connection.
		return
	}
	g.exchanges.Put(x)
}

// readBody reads and unpacks the body. length is the declared Content-Length, negative
// if there is none.
func (x *exchange) readBody(src io.Reader, length int, contentEncoding string) *ingest.Fault {
	bodies := x.request.Bodies()
	if length > bodies.Most() {
		return bodies.TooLarge(fmt.Sprintf("body of %d bytes", length))
	}
	short := length >= 0 && length <= readStep
	x.held.begin(short || x.carriesKey())
	wire, err := x.readAll(x.wire[:0], src, length, bodies)
	x.wire = wire
	if err != nil {
		return ingest.AsFault(err)
	}
	e := body.Detect(wire, contentEncoding)
	switch {
	case e == body.Plain && len(wire) > bodies.Text:
		return bodies.TooLarge(fmt.Sprintf("body of %d bytes", len(wire)))
	case e == body.Plain:
		x.request.Body = body.TrimMark(wire)
		return nil
	case len(wire) > bodies.Packed:
		return bodies.TooLargePacked(fmt.Sprintf("packed body of %d bytes", len(wire)))
	}
	if short { // on the wire; it may be long once unpacked
		x.held.begin(x.carriesKey())
	}
	x.unpacked, err = x.gateway.unpacker.Unpack(x.unpacked[:0], wire, e, bodies.Text, x.held.reserve)
	switch {
	case errors.Is(err, body.ErrTooLarge):
		return bodies.TooLarge("body larger after unpacking")
	case err != nil:
		return ingest.AsFault(err)
	}
	x.request.Body = body.TrimMark(x.unpacked)
	return nil
}

// carriesKey reports whether the request names a known write key outside its body.
func (x *exchange) carriesKey() bool {
	r, table := &x.request, x.gateway.keys.Table()
	user, password := r.Basic()
	for _, key := range [...]string{user, password, r.Bearer(), r.Header(x.keyHeader), r.Header("X-Api-Key"), r.QueryValue("writeKey"), r.QueryValue("api_key"), r.QueryValue("token")} {
		if key == "" {
			continue
		}
		if app := table.App(key); app != nil && !app.Key.Expired(r.ReceivedAt) {
			return true
		}
	}
	return false
}

// drop discards a body that will not be used, before the rest of it is read.
func (x *exchange) drop() {
	x.held.release()
	if cap(x.wire) > keepBytes {
		x.wire = nil
	}
}

// errShort: the client closed the connection before sending Content-Length bytes.
var errShort = errors.New("the body ended before its Content-Length")

// readStep is the size of the first reservation for a body, in bytes. The HTTP server
// has already read as much before a request gets here.
const readStep = 8 << 10

// readAll reads a body to its end, or until it is past its bounds. It reserves no more
// than readStep and then twice what has arrived, whatever length the client
// declared, so that a client holds memory only by sending.
func (x *exchange) readAll(dst []byte, src io.Reader, length int, bodies ingest.Bodies) ([]byte, error) {
	for reserved := 0; ; {
		switch {
		case len(dst) == length:
			x.whole = true
			return dst, nil
		case len(dst) == reserved:
			step := max(reserved, readStep)
			if length >= 0 {
				step = min(step, length-reserved)
			}
			if err := x.held.reserve(step); err != nil {
				return dst, err
			}
			reserved += step
			if cap(dst) < reserved {
				dst = append(make([]byte, 0, reserved), dst...)
			}
		}
		n, err := src.Read(dst[len(dst):reserved])
		dst = dst[:len(dst)+n]
		slow := tooSlow(err, &x.gateway.cfg)
		switch {
		case len(dst) > bodies.Most():
			return dst, bodies.TooLarge("body too large")
		case err == io.EOF && length >= 0 && len(dst) < length:
			return dst, errShort
		case err == io.EOF:
			x.whole = true
			return dst, nil
		case slow != nil:
			return dst, slow
		case err != nil:
			return dst, fmt.Errorf("read body: %w", err)
		}
	}
}

// process produces the reply of a request, in x.reply. Its body was read, unless fault
// gives the reason why not.
func (x *exchange) process(candidates ingest.Candidates, fault *ingest.Fault) {
	g := x.gateway
	bound := candidates.Select(&x.request)
	pm := g.metrics.protocol(bound.Protocol)
	b := x.batch
	b.Begin(&x.request, &bound)
	if fault == nil {
		fault = ingest.AsFault(bound.Route.Decode(&x.request, b))
	}
	x.held.authenticated()
	if fault == nil {
		fault = b.Finish()
	}
	var m *meter
	if app := b.App(); app != nil {
		m = g.meters.of(app)
		if fault == nil && b.Len() > 0 {
			fault = g.meters.take(app, b.Len(), x.received)
		}
	}
	taken := fault == nil
	failpoint.Reach("gateway.decoded")
	if n, _ := b.Records(); fault == nil && n > 0 {
		fault = x.produce(n)
	} else if fault != nil {
		b.FailAll()
	}
	if m != nil {
		if b.Count(ingest.Accepted) > 0 {
			g.metrics.newest.Set(float64(x.request.ReceivedAt) / 1e6)
		}
		if taken && fault != nil {
			g.meters.give(b.App(), b.Count(ingest.Unstored))
		}
		g.metrics.count(m, b)
	}
	failpoint.Reach("gateway.before-answer")
	bound.Route.Answer(&x.request, b, fault, &x.reply)
	if fault != nil {
		x.reply.RetryAfter(fault.RetryAfter)
	}
	g.metrics.answered(pm, x.reply.Code(), fault)
	pm.wireBytes.Add(float64(len(x.wire)))
	pm.bodyBytes.Add(float64(len(x.request.Body)))
	pm.seconds.Observe(g.now().Sub(x.received).Seconds())
}

// produce writes the batch's records and waits until every one is acked. Otherwise it
// marks the items that are not known to be stored and returns the fault.
func (x *exchange) produce(n int) *ingest.Fault {
	g, p, b := x.gateway, x.gateway.producer, x.batch
	refuse := func(f *ingest.Fault) *ingest.Fault {
		b.FailAll()
		return f
	}
	if p.partitions.Load() == nil {
		return refuse(&ingest.Fault{Kind: ingest.Unavailable, RetryAfter: retryKafka, Detail: "Kafka is not reachable yet"})
	}
	if !p.inflight.take(int64(n)) {
		return refuse(&ingest.Fault{
			Kind: ingest.Overloaded, Setting: settingMaxInflightEvents, RetryAfter: 1,
			Detail: fmt.Sprintf("more than %d records are waiting for their acks", p.inflight.limit),
		})
	}
	p.start(x.flight, b, n, x.received)
	if g.crowd.join(x.received) {
		p.hurry()
	}
	defer g.crowd.leave()
	failpoint.Reach("gateway.produced")
	x.timer.Reset(g.cfg.AckTimeout)
	defer x.timer.Stop()
	kind, retry := ingest.Unavailable, retryKafka
	select {
	case <-x.flight.done:
		g.metrics.ackSeconds.Observe(g.now().Sub(x.flight.started).Seconds())
		failpoint.Reach("gateway.acked")
		if x.flight.failures.Load() == 0 {
			return nil
		}
	case <-x.timer.C:
	case <-g.killed:
		kind, retry = ingest.Stopping, 1
	}
	failed, pending := x.flight.settle(b)
	if failed+pending == 0 {
		return nil // the last ack arrived just as the deadline passed
	}
	fault := &ingest.Fault{Kind: kind, RetryAfter: retry}
	if failure := x.flight.failure.Load(); failure != nil {
		p.suspect(*failure)
		fault.Detail = fmt.Sprintf("%d of %d records were refused: %s", failed, n, reason(*failure))
	}
	if pending > 0 {
		fault.Setting = settingAckTimeout
		fault.Detail = fmt.Sprintf("%d of %d records were not acked within %s", failed+pending, n, g.cfg.AckTimeout)
		if kind == ingest.Unavailable {
			p.suspect(fault)
		}
	}
	return fault
}

// retryKafka is the Retry-After, in seconds, when Kafka did not take the records: about
// as long as the election of a leader takes.
const retryKafka = 5

// receivedAt is the time of receipt that the request and all its records carry.
func (x *exchange) receivedAt() event.Micros { return event.FromTime(x.received) }
