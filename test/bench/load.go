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
	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// The event that is sent is of the size and shape that a Segment SDK in a
// browser gives it, about 600 bytes. Eight digits at a fixed place make its
// message id unique.
const (
	eventHead = `{"type":"track","event":"Item Scanned","messageId":"bench-`
	eventTail = `","userId":"user-%06d","timestamp":"2026-11-01T12:34:56.789Z",` +
		`"context":{"groupId":"account-%04d","library":{"name":"@segment/analytics-node","version":"3.1.0"},"page":{"path":"/checkout","url":"https://pos.example/checkout","title":"Checkout"},"locale":"en-GB","timezone":"Europe/London","device":{"id":"7c1e3b2a-5a0e-4f3b-9d53-6a1f0c9e8b77"}},` +
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

// driver sends requests to a gateway, or to what stands for one.
type driver struct {
	url           string
	authorization string
	events        int // per request
	connections   int
	rate          float64 // events per second; 0: a connection's next request follows its reply
	shed          func(status int, retryAfter []byte) error
	accepted      func(first int64)                    // message ids of a request that was answered with 200; calls come together
	body          func(dst []byte, first int64) []byte // of a request; nil: of bodies
}

// run sends requests and returns the latencies of those that were answered with
// 200, which every one must be unless shed takes others.
func (d driver) run(ctx context.Context, requests int) ([]time.Duration, error) {
	client := &fasthttp.Client{
		MaxConnsPerHost: d.connections, MaxIdleConnDuration: time.Minute, ReadTimeout: time.Minute, WriteTimeout: time.Minute,
		Dial: func(addr string) (net.Conn, error) { return net.DialTimeout("tcp", addr, 5*time.Second) },
	}
	defer client.CloseIdleConnections()
	path := "/v1/track"
	if d.events > 1 {
		path = "/v1/batch"
	}
	latencies := make([][]time.Duration, d.connections)
	errs := make([]error, d.connections)
	var next atomic.Int64
	begin := time.Now()
	var wg sync.WaitGroup
	for c := range d.connections {
		wg.Go(func() {
			body := newBodies(d.events, c)
			var own []byte
			var req fasthttp.Request
			var resp fasthttp.Response
			req.SetRequestURI(d.url + path)
			req.Header.SetMethod(fasthttp.MethodPost)
			req.Header.SetContentType("application/json")
			req.Header.Set("Authorization", d.authorization)
			for n := next.Add(1) - 1; n < int64(requests) && ctx.Err() == nil; n = next.Add(1) - 1 {
				if d.rate > 0 {
					due := begin.Add(time.Duration(float64(n) * float64(d.events) / d.rate * float64(time.Second)))
					if backoff.Sleep(ctx, time.Until(due)) != nil {
						return
					}
				}
				first := nextID.Add(int64(d.events)) - int64(d.events)
				if d.body != nil {
					own = d.body(own[:0], first)
					req.SetBodyRaw(own)
				} else {
					req.SetBodyRaw(body.next(first))
				}
				start := time.Now()
				if err := client.Do(&req, &resp); err != nil {
					errs[c] = err
					return
				}
				took := time.Since(start)
				status := resp.StatusCode()
				if status == fasthttp.StatusOK {
					latencies[c] = append(latencies[c], took)
					if d.accepted != nil {
						d.accepted(first)
					}
					continue
				}
				err := fmt.Errorf("reply %d: %.200s", status, resp.Body())
				if d.shed != nil {
					err = d.shed(status, resp.Header.Peek("Retry-After"))
				}
				if err != nil {
					errs[c] = err
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

// propertiesJSON returns an object with n properties of mixed types, whose values
// vary with i. Their names are of keys different ones.
func propertiesJSON(dst []byte, n, keys int, i int64) []byte {
	dst = append(dst, '{')
	for p := range int64(n) {
		if p > 0 {
			dst = append(dst, ',')
		}
		key := p
		if keys > n { // another run of n of them for each event
			key = (i*int64(n) + p) % int64(keys)
		}
		switch key % 4 {
		case 0:
			dst = fmt.Appendf(dst, `"label %d":"value-%d"`, key, i%1000)
		case 1:
			dst = fmt.Appendf(dst, `"count.%d":%d`, key, i%50)
		case 2:
			dst = fmt.Appendf(dst, `"price_%d":%d.95`, key, i%100)
		default:
			dst = fmt.Appendf(dst, `"flag_%d":%t`, key, i%2 == 0)
		}
	}
	return append(dst, '}')
}

// userOf and anonymousOf are the ids of a known identity.
func userOf(i int64, cfg Config) string { return fmt.Sprintf("user-%08d", i%identities(cfg)) }

func anonymousOf(i int64, cfg Config) string {
	return fmt.Sprintf("7c1e3b2a-5a0e-4f3b-9d53-6a%010d", i%identities(cfg))
}

func identities(cfg Config) int64 { return int64(max(cfg.KnownIdentities, 1000)) }

// mix scatters a number evenly over the positive ones (the finalizer of
// splitmix64).
func mix(i int64) int64 {
	z := uint64(i) * 0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return int64((z ^ z>>31) >> 1)
}

// rawEvent is the i-th event of a load, received at now, by name and of a user.
func rawEvent(i, user int64, properties []byte, now time.Time, cfg Config) event.RawEvent {
	received := now.UnixMicro()
	return event.RawEvent{
		AppID: benchApp, Kind: event.KindTrack, Event: featureOf(0, cfg).event,
		MessageID: fmt.Sprintf("bench-%012d", i), UserID: userOf(user, cfg),
		AccountID: fmt.Sprintf("account-%05d", user%int64(cfg.Accounts)), Timestamp: received - 1_500_000, SentAt: received - 200_000,
		ReceivedAt: received, Quantity: 1, Properties: properties,
		Context:  []byte(`{"groupId":"a","library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"en-GB"}`),
		Protocol: "segment", Library: "@segment/analytics-node/3.1.0", IP: "192.0.2.0", UserAgent: "bench/1.0",
	}
}

// loadEvent is the i-th event of a load: a user's use of a feature, and in one of
// four events under an anonymous id that is known to be the user's.
func loadEvent(i, user int64, f feature, now time.Time, cfg Config) event.RawEvent {
	properties := propertiesJSON(nil, cfg.Properties, cfg.Keys, i)
	if f.property != "" {
		properties = fmt.Appendf(nil, `{"%s":"%s",%s`, f.property, f.value, propertiesJSON(nil, max(cfg.Properties-1, 1), cfg.Keys, i)[1:])
	}
	e := rawEvent(i, user, properties, now, cfg)
	e.Kind, e.Event = f.kind, f.event
	if i%4 == 3 {
		e.UserID, e.AnonymousID = "", anonymousOf(user, cfg)
	}
	return e
}

// anyEvent is the i-th event of the enricher's load: any user, any feature, which
// is harder on its state than traffic is.
func anyEvent(i int64, now time.Time, cfg Config) event.RawEvent {
	return loadEvent(i, mix(i), featureOf(int(mix(^i)%int64(cfg.Features)), cfg), now, cfg)
}

// Of the writer's load: so many users are there at once, each for so many
// events, of so many features. How many rows the rollups get from a block hangs
// on these.
const (
	presentUsers   = 2_000
	sessionEvents  = 20
	sessionFeature = 8
)

// enrichedEvent is the i-th event of the writer's load: users come in sessions,
// and one event in twenty is late, by up to three days.
func enrichedEvent(i int64, now time.Time, cfg Config) event.EnrichedEvent {
	user := i/(presentUsers*sessionEvents)*presentUsers + mix(i)%presentUsers
	f := featureOf(int((mix(user)+mix(^i)%sessionFeature)%int64(cfg.Features)), cfg)
	raw := loadEvent(i, user, f, now, cfg)
	actor, linked := raw.UserID, ""
	if actor == "" {
		actor = userOf(user, cfg)
		linked = actor
	}
	at := raw.Timestamp
	if i%20 == 0 {
		at -= mix(i) % 72 * 3_600_000_000
	}
	return event.EnrichedEvent{
		AppID: raw.AppID, Kind: raw.Kind, Event: raw.Event, MessageID: raw.MessageID, UserID: raw.UserID, AnonymousID: raw.AnonymousID, LinkedUserID: linked,
		ActorID: actor, ActorKind: event.ActorUser, AccountID: raw.AccountID, AccountSource: event.AccountFromEvent,
		FeatureID: f.id, ModuleID: f.module, ProductID: f.product, CatalogVersion: 1,
		EventTime: at, Timestamp: raw.Timestamp, SentAt: raw.SentAt, ReceivedAt: raw.ReceivedAt,
		Quantity: 1, Properties: raw.Properties, Context: raw.Context, Protocol: raw.Protocol, Library: raw.Library,
		IP: raw.IP, UserAgent: raw.UserAgent, RawOffset: i,
	}
}
