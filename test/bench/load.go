package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/uptakehq/uptake/schemas/event"
)

// The event that is sent is of the size and shape that a Segment SDK in a
// browser gives it, about 600 bytes. Eight digits at a fixed place make its
// message id unique.
const (
	eventHead = `{"type":"track","event":"Item Scanned","messageId":"bench-`
	eventTail = `","userId":"user-%06d","anonymousId":"7c1e3b2a-5a0e-4f3b-9d53-6a1f0c9e8b77","timestamp":"2026-11-01T12:34:56.789Z",` +
		`"context":{"groupId":"account-%04d","library":{"name":"@segment/analytics-node","version":"3.1.0"},"page":{"path":"/checkout","url":"https://pos.example/checkout","title":"Checkout"},"locale":"en-GB","timezone":"Europe/London"},` +
		`"properties":{"sku":"4006381333931","name":"Stabilo Boss","price":1.95,"currency":"EUR","quantity":2,"lane":7,"shop":"Main Street","discounted":false}}`
	digits = 10
)

// bodies makes request bodies whose message ids are unique over the run.
type bodies struct {
	text   []byte
	places []int // where each event's digits start
	batch  bool
}

func newBodies(events, seed int) *bodies {
	b := &bodies{batch: events > 1}
	if b.batch {
		b.text = append(b.text, `{"batch":[`...)
	}
	for i := range events {
		if i > 0 {
			b.text = append(b.text, ',')
		}
		b.text = append(b.text, eventHead...)
		b.places = append(b.places, len(b.text))
		b.text = append(b.text, "0000000000"...)
		b.text = fmt.Appendf(b.text, eventTail, (seed*events+i)%10_000, (seed*events+i)%500)
	}
	if b.batch {
		b.text = append(b.text, `],"sentAt":"2026-11-01T12:34:57.001Z"}`...)
	}
	return b
}

// next stamps the message ids from first on and returns the body, valid until
// the next call.
func (b *bodies) next(first int64) []byte {
	var num [20]byte
	for i, at := range b.places {
		n := strconv.AppendInt(num[:0], first+int64(i), 10)
		field := b.text[at : at+digits]
		for j := range field {
			field[j] = '0'
		}
		copy(field[digits-len(n):], n)
	}
	return b.text
}

// ids hands out message ids over all rounds of a run.
var nextID atomic.Int64

// drive sends requests to url over connections and returns the latencies. Every
// reply must be 200.
func drive(ctx context.Context, url, key string, requests, events, connections int) ([]time.Duration, error) {
	client := &fasthttp.Client{
		MaxConnsPerHost: connections, MaxIdleConnDuration: time.Minute, ReadTimeout: time.Minute, WriteTimeout: time.Minute,
		Dial: func(addr string) (net.Conn, error) { return net.DialTimeout("tcp", addr, 5*time.Second) },
	}
	defer client.CloseIdleConnections()
	path := "/v1/track"
	if events > 1 {
		path = "/v1/batch"
	}
	latencies := make([][]time.Duration, connections)
	errs := make([]error, connections)
	var left atomic.Int64
	left.Store(int64(requests))
	var wg sync.WaitGroup
	for c := range connections {
		wg.Go(func() {
			body := newBodies(events, c)
			var req fasthttp.Request
			var resp fasthttp.Response
			req.SetRequestURI(url + path)
			req.Header.SetMethod(fasthttp.MethodPost)
			req.Header.SetContentType("application/json")
			req.Header.Set("Authorization", key)
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				req.SetBodyRaw(body.next(nextID.Add(int64(events)) - int64(events)))
				start := time.Now()
				if err := client.Do(&req, &resp); err != nil {
					errs[c] = err
					return
				}
				latencies[c] = append(latencies[c], time.Since(start))
				if resp.StatusCode() != fasthttp.StatusOK {
					errs[c] = fmt.Errorf("reply %d: %.200s", resp.StatusCode(), resp.Body())
					return
				}
			}
		})
	}
	wg.Wait()
	var all []time.Duration
	for _, l := range latencies {
		all = append(all, l...)
	}
	return all, errors.Join(append(errs, ctx.Err())...)
}

// propertiesJSON returns an object with n properties of mixed types, n of them
// with the value varied by i.
func propertiesJSON(dst []byte, n, i int) []byte {
	dst = append(dst, '{')
	for p := range n {
		if p > 0 {
			dst = append(dst, ',')
		}
		switch p % 4 {
		case 0:
			dst = fmt.Appendf(dst, `"label %d":"value-%d"`, p, i%1000)
		case 1:
			dst = fmt.Appendf(dst, `"count.%d":%d`, p, i%50)
		case 2:
			dst = fmt.Appendf(dst, `"price_%d":%d.95`, p, i%100)
		default:
			dst = fmt.Appendf(dst, `"flag_%d":%t`, p, i%2 == 0)
		}
	}
	return append(dst, '}')
}

// features of the sample catalog, with the module and product of each.
var features = []struct{ event, feature, module, product string }{
	{"Item Scanned", "item_scanned", "billing", "mypos_sales"},
	{"Item Invoiced", "item_invoiced", "billing", "mypos_sales"},
	{"Item Bagged", "item_bagged", "billing", "mypos_sales"},
	{"Invoice Generated", "invoice_generated", "invoicing", "mypos_sales"},
	{"Payment Received", "payment_received", "payments", "mypos_commerce"},
	{"Refund Processed", "refund_processed", "payments", "mypos_commerce"},
}

// rawEvent is the i-th event of the enricher's load, received at now.
func rawEvent(i int64, properties []byte, now time.Time) event.RawEvent {
	received := now.UnixMicro()
	return event.RawEvent{
		AppID: "dev", Kind: event.KindTrack, Event: features[i%int64(len(features))].event,
		MessageID: fmt.Sprintf("bench-%012d", i), UserID: fmt.Sprintf("user-%07d", i%100_000),
		AccountID: fmt.Sprintf("account-%05d", i%5_000), Timestamp: received - 1_500_000, SentAt: received - 200_000,
		ReceivedAt: received, Quantity: 1, Properties: properties,
		Context:  []byte(`{"groupId":"a","library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"en-GB"}`),
		Protocol: "segment", Library: "@segment/analytics-node/3.1.0", IP: "192.0.2.0", UserAgent: "bench/1.0",
	}
}

// enrichedEvent is the i-th event of the writer's load.
func enrichedEvent(i int64, properties []byte, now time.Time) event.EnrichedEvent {
	raw := rawEvent(i, properties, now)
	f := features[i%int64(len(features))]
	return event.EnrichedEvent{
		AppID: raw.AppID, Kind: raw.Kind, Event: raw.Event, MessageID: raw.MessageID, UserID: raw.UserID,
		ActorID: raw.UserID, ActorKind: event.ActorUser, AccountID: raw.AccountID, AccountSource: event.AccountFromEvent,
		FeatureID: f.feature, ModuleID: f.module, ProductID: f.product, CatalogVersion: 1,
		EventTime: raw.Timestamp - (i%72)*3_600_000_000, Timestamp: raw.Timestamp, SentAt: raw.SentAt, ReceivedAt: raw.ReceivedAt,
		Quantity: 1, Properties: properties, Context: raw.Context, Protocol: raw.Protocol, Library: raw.Library,
		IP: raw.IP, UserAgent: raw.UserAgent, RawOffset: i,
	}
}
