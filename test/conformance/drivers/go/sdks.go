package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/posthog/posthog-go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"gopkg.in/segmentio/analytics-go.v3"
)

// segmentReport implements analytics.Callback.
type segmentReport struct{ *report }

func (r segmentReport) Success(analytics.Message) { r.messages.Done() }

func (r segmentReport) Failure(_ analytics.Message, err error) {
	r.fail(err)
	r.messages.Done()
}

func runSegment(s scenario, r *report) {
	transport := impatient()
	defer transport.CloseIdleConnections()
	const calls = 6
	c, err := analytics.NewWithConfig(s.Key, analytics.Config{
		Endpoint: s.URL, Transport: transport, Callback: segmentReport{r}, Logger: quiet{}, Interval: time.Hour,
		BatchSize: s.batchSize(calls), RetryAfter: soon,
	})
	if err != nil {
		r.fail(err)
		return
	}
	r.messages.Add(s.batchSize(calls))
	if s.Calls {
		r.fail(c.Enqueue(analytics.Track{
			UserId: "maria", Event: "Item Scanned", Timestamp: then, Properties: analytics.NewProperties().Set("sku", "4006"),
			Context: &analytics.Context{Extra: map[string]any{"groupId": "corner-shop"}},
		}))
		r.fail(c.Enqueue(analytics.Identify{UserId: "maria", AnonymousId: "anon-1", Traits: analytics.NewTraits().Set("plan", "pro")}))
		r.fail(c.Enqueue(analytics.Group{UserId: "maria", GroupId: "corner-shop", Traits: analytics.NewTraits().Set("seats", 3)}))
		r.fail(c.Enqueue(analytics.Page{UserId: "maria", Name: "Cart", Properties: analytics.NewProperties().SetPath("/cart")}))
		r.fail(c.Enqueue(analytics.Screen{AnonymousId: "anon-1", Name: "Home"}))
		r.fail(c.Enqueue(analytics.Alias{UserId: "maria", PreviousId: "maria-old"}))
	} else {
		for i := range s.N {
			r.fail(c.Enqueue(analytics.Track{UserId: fmt.Sprintf("u%d", i), Event: "Retried"}))
		}
	}
	r.messages.Wait() // closing ends its retries
	r.fail(c.Close())
}

// posthogReport implements posthog.Callback.
type posthogReport struct{ *report }

func (r posthogReport) Success(posthog.APIMessage) { r.messages.Done() }

func (r posthogReport) Failure(_ posthog.APIMessage, err error) {
	r.fail(err)
	r.messages.Done()
}

func runPostHog(s scenario, r *report) {
	transport := impatient()
	defer transport.CloseIdleConnections()
	const calls = 4
	c, err := posthog.NewWithConfig(s.Key, posthog.Config{
		Endpoint: s.URL, Transport: transport, Callback: posthogReport{r}, Logger: quiet{}, Interval: time.Hour,
		BatchSize: s.batchSize(calls), RetryAfter: soon,
	})
	if err != nil {
		r.fail(err)
		return
	}
	r.messages.Add(s.batchSize(calls))
	if s.Calls {
		r.fail(c.Enqueue(posthog.Capture{
			DistinctId: "maria", Event: "Item Scanned", Timestamp: then,
			Properties: posthog.NewProperties().Set("sku", "4006"), Groups: posthog.NewGroups().Set("company", "corner-shop"),
		}))
		r.fail(c.Enqueue(posthog.Identify{DistinctId: "maria", Properties: posthog.NewProperties().Set("plan", "pro")}))
		r.fail(c.Enqueue(posthog.GroupIdentify{Type: "company", Key: "corner-shop", Properties: posthog.NewProperties().Set("seats", 3)}))
		r.fail(c.Enqueue(posthog.Alias{DistinctId: "maria", Alias: "maria-old"}))
	} else {
		for i := range s.N {
			r.fail(c.Enqueue(posthog.Capture{DistinctId: fmt.Sprintf("u%d", i), Event: "Retried"}))
		}
	}
	r.messages.Wait()
	r.fail(c.Close())
}

func runCloudEvents(s scenario, r *report) {
	transport := impatient()
	defer transport.CloseIdleConnections()
	c, err := cloudevents.NewClientHTTP(
		cloudevents.WithTarget(s.URL), cehttp.WithRoundTripper(transport), cehttp.WithHeader("Authorization", "Bearer "+s.Key),
	)
	if err != nil {
		r.fail(err)
		return
	}
	ctx := cloudevents.ContextWithRetriesExponentialBackoff(context.Background(), 50*time.Millisecond, 5)
	newEvent := func(id, kind, user string) cloudevents.Event {
		e := cloudevents.NewEvent()
		e.SetID(id)
		e.SetSource("/pos/7")
		e.SetType(kind)
		e.SetSubject("corner shop")
		e.SetTime(then)
		e.SetExtension("userid", user)
		r.fail(e.SetData(cloudevents.ApplicationJSON, map[string]string{"sku": "4006"}))
		return e
	}
	send := func(ctx context.Context, e cloudevents.Event) {
		if result := c.Send(ctx, e); !cloudevents.IsACK(result) {
			r.fail(result)
		}
	}
	if s.Calls {
		send(cloudevents.WithEncodingBinary(ctx), newEvent("binary", "item.scanned", "maría"))
		send(cloudevents.WithEncodingStructured(ctx), newEvent("structured", "item.scanned", "maría"))
		req, err := cehttp.NewHTTPRequestFromEvents(ctx, s.URL, []cloudevents.Event{newEvent("b-1", "item.scanned", "maría"), newEvent("b-2", "item.scanned", "maría")})
		if err != nil {
			r.fail(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+s.Key)
		r.fail(post(req))
		return
	}
	for i := range s.N {
		send(ctx, newEvent(fmt.Sprint("t-", i), "Retried", fmt.Sprintf("u%d", i)))
	}
}

func post(req *http.Request) error {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusNoContent {
		return fmt.Errorf("got status %d, want %d", res.StatusCode, http.StatusNoContent)
	}
	return nil
}

func runOTLP(s scenario, r *report) {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {})) // ForceFlush returns them
	exporter, err := otlploghttp.New(ctx,
		otlploghttp.WithEndpointURL(s.URL+"/v1/logs"), otlploghttp.WithHeaders(map[string]string{"Authorization": "Bearer " + s.Key}),
		otlploghttp.WithCompression(otlploghttp.GzipCompression), otlploghttp.WithTimeout(4*time.Second),
		otlploghttp.WithRetry(otlploghttp.RetryConfig{Enabled: true, InitialInterval: 100 * time.Millisecond, MaxInterval: time.Second, MaxElapsedTime: 20 * time.Second}),
	)
	if err != nil {
		r.fail(err)
		return
	}
	// Nothing waits in a batch processor: what the exporter says of a batch is what the
	// application would log.
	records := &collect{}
	logger := sdklog.NewLoggerProvider(sdklog.WithProcessor(records)).Logger("scanner", log.WithInstrumentationVersion("1.0"))
	emit := func(name, user string, attributes ...attribute.KeyValue) {
		var record log.Record
		record.SetTimestamp(then)
		record.SetEventName(name)
		record.AddAttributes(attribute.String("user.id", user))
		record.AddAttributes(attributes...)
		logger.Emit(ctx, record)
	}
	if s.Calls {
		emit("item.scanned", "maria", attribute.String("account.id", "corner-shop"), attribute.String("sku", "4006"), attribute.Float64("price", 1.5), attribute.Bool("ok", true))
	} else {
		for i := range s.N {
			emit("Retried", fmt.Sprintf("u%d", i))
		}
	}
	r.fail(exporter.Export(ctx, records.all))
	r.fail(exporter.Shutdown(ctx))
}

// collect is a processor that keeps every record.
type collect struct{ all []sdklog.Record }

func (c *collect) OnEmit(_ context.Context, r *sdklog.Record) error {
	c.all = append(c.all, r.Clone())
	return nil
}

func (*collect) Enabled(context.Context, sdklog.EnabledParameters) bool { return true }

func (*collect) Shutdown(context.Context) error   { return nil }
func (*collect) ForceFlush(context.Context) error { return nil }
