package gateway

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/textproto"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/event"
)

// BenchmarkDecode is from the bytes of a batch of 100 events to encoded records, in each
// protocol that has batches. The events have the same twelve properties.
func BenchmarkDecode(b *testing.B) {
	const n = 100
	properties := `{"sku":"4006381333931","price":12.5,"currency":"EUR","aisle":"B 12","loyal":true,"items":14,"note":"weighed at till","store":"Berlin-311","cashier":"c-77","voucher":false,"weight":0.75,"channel":"till"`
	list := func(open, sample, end string) []byte {
		return []byte(open + strings.Repeat(sample+",", n-1) + sample + end)
	}
	logs := list(`{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"pos"}},{"key":"account.id","value":{"stringValue":"acct-311"}},{"key":"telemetry.sdk.name","value":{"stringValue":"opentelemetry"}},{"key":"telemetry.sdk.version","value":{"stringValue":"2.12.1"}}]},"scopeLogs":[{"scope":{"name":"pos.events","version":"1.0"},"logRecords":[`,
		`{"timeUnixNano":"1772600767123456789","observedTimeUnixNano":"1772600767999000000","severityNumber":9,"severityText":"INFO","eventName":"item.scanned","attributes":`+otlpAttributes(b, properties+`,"user.id":"user-48213","session.id":"s-1771","log.record.uid":"7f3b2c1d-0a9b-4c8d-b7e6-f5a4b3c2d1e0"}`)+`,"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174"}`, `]}]}]}`)
	for _, p := range []struct {
		name, target string
		body         []byte
		header       []string
	}{
		{"segment", "/v1/batch?writeKey=k", list(`{"batch":[`, `{"type":"track","event":"Item Scanned","userId":"user-48213","messageId":"7f3b2c1d-0a9b-4c8d-b7e6-f5a4b3c2d1e0","timestamp":"2026-11-21T10:11:12.345Z","properties":`+properties+`},"context":{"groupId":"acct-311","library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"de-DE"}}`, `]}`), nil},
		{"posthog", "/batch/", list(`{"api_key":"k","batch":[`, `{"event":"Item Scanned","properties":`+properties+`,"$lib":"posthog-node","$lib_version":"5.70.0","$groups":{"company":"acct-311"}},"timestamp":"2026-11-21T10:11:12.345Z","distinct_id":"user-48213","uuid":"7f3b2c1d-0a9b-4c8d-b7e6-f5a4b3c2d1e0"}`, `],"sent_at":"2026-11-21T10:11:13.000Z"}`), nil},
		{"mixpanel", "/track?ip=1&verbose=0", list(`[`, `{"event":"Item Scanned","properties":`+properties+`,"distinct_id":"user-48213","$insert_id":"7f3b2c1d-0a9b-4c8d-b7e6-f5a4b3c2d1e0","company":"acct-311","time":1772600766890,"token":"k","mp_lib":"node","$lib_version":"0.24.0"}}`, `]`), []string{"Content-Type: application/json"}},
		{"amplitude", "/2/httpapi", list(`{"api_key":"k","events":[`, `{"user_id":"user-48213","event_type":"Item Scanned","time":1772600766890,"insert_id":"7f3b2c1d-0a9b-4c8d-b7e6-f5a4b3c2d1e0","groups":{"company":"acct-311"},"library":"amplitude-ts/2.1.0","event_properties":`+properties+`}}`, `]}`), nil},
		{"cloudevents", "/cloudevents", list(`[`, `{"specversion":"1.0","type":"item.scanned","source":"/pos/7","id":"7f3b2c1d-0a9b-4c8d-b7e6-f5a4b3c2d1e0","time":"2026-11-21T10:11:12.345Z","subject":"acct-311","userid":"user-48213","datacontenttype":"application/json","data":`+properties+`}}`, `]`), []string{"Authorization: Bearer k", "Content-Type: application/cloudevents-batch+json"}},
		{"moesif", "/v1/events/batch", list(`[`, `{"request":{"time":"2026-11-21T10:11:12.345Z","uri":"https://api.shop.example/v1/orders/4711","verb":"POST","headers":{"Accept":"*/*"}},"response":{"time":"2026-11-21T10:11:12.405Z","status":201},"user_id":"user-48213","company_id":"acct-311","transaction_id":"7f3b2c1d-0a9b-4c8d-b7e6-f5a4b3c2d1e0","metadata":`+properties+`}}`, `]`), []string{"X-Moesif-Application-Id: k"}},
		{"otlp-json", "/v1/logs", logs, []string{"Authorization: Bearer k", "Content-Type: application/json"}},
		{"otlp-protobuf", "/v1/logs", otlpProtobuf(b, logs), []string{"Authorization: Bearer k", "Content-Type: application/x-protobuf"}},
	} {
		b.Run(p.name, func(b *testing.B) {
			router, err := ingest.NewRouter(Protocols()...)
			if err != nil {
				b.Fatal(err)
			}
			app := &ingest.App{ID: "test", IPMode: ingest.IPFull}
			batch := ingest.NewBatch(event.NewCodec(), oneApp{app}, ingest.DefaultLimits())
			path, query, _ := strings.Cut(p.target, "?")
			var headers benchHeaders
			for _, line := range p.header {
				name, value, _ := strings.Cut(line, ": ")
				headers = append(headers, [2]string{textproto.CanonicalMIMEHeaderKey(name), value})
			}
			body := make([]byte, len(p.body))
			var r ingest.Request
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			start := cpuTime()
			for b.Loop() {
				copy(body, p.body) // protocols erase write keys in place
				r.Reset()
				r.Bound(ingest.DefaultLimits().Bodies(false))
				r.Method, r.Path, r.Query, r.Headers, r.Body, r.ReceivedAt = "POST", ingest.TrimPath(path), query, headers, body, 1
				bound := router.Find(r.Method, r.Path, nil).Select(&r)
				batch.Begin(&r, &bound)
				if err := bound.Route.Decode(&r, batch); err != nil || batch.Count(ingest.Accepted) != n {
					b.Fatal(err, batch.Len(), batch.Count(ingest.Accepted))
				}
			}
			spent := float64(cpuTime()-start) / float64(b.N)
			b.ReportMetric(spent/n, "cpu-ns/event")
			b.ReportMetric(spent/float64(len(body)), "cpu-ns/byte")
		})
	}
}

type oneApp struct{ app *ingest.App }

func (a oneApp) App(string) *ingest.App { return a.app }

type benchHeaders [][2]string

func (h benchHeaders) Get(name string) []byte {
	for _, f := range h {
		if f[0] == name {
			return []byte(f[1])
		}
	}
	return nil
}

func (h benchHeaders) Each(fn func(name, value []byte)) {
	for _, f := range h {
		fn([]byte(f[0]), []byte(f[1]))
	}
}

// otlpAttributes writes an object as OTLP's list of keys and values.
func otlpAttributes(tb testing.TB, object string) string {
	d := json.NewDecoder(strings.NewReader(object))
	var out strings.Builder
	token := func() json.Token {
		t, err := d.Token()
		if err != nil {
			tb.Fatal(err)
		}
		return t
	}
	for token(); d.More(); {
		key, value := token(), token()
		if out.Len() > 0 {
			out.WriteByte(',')
		}
		form := `{"stringValue":%q}`
		switch v := value.(type) {
		case bool:
			form = `{"boolValue":%t}`
		case float64:
			if form = `{"doubleValue":%v}`; v == math.Trunc(v) {
				form = `{"intValue":"%v"}`
			}
		}
		fmt.Fprintf(&out, `{"key":%q,"value":`+form+`}`, key, value)
	}
	return "[" + out.String() + "]"
}

// otlpProtobuf writes such a request as protobuf.
func otlpProtobuf(tb testing.TB, logs []byte) []byte {
	type value struct {
		StringValue *string
		IntValue    *string
		DoubleValue *float64
		BoolValue   *bool
	}
	type attributes []struct {
		Key   string
		Value value
	}
	var request struct {
		ResourceLogs []struct {
			Resource  struct{ Attributes attributes }
			ScopeLogs []struct {
				Scope      struct{ Name, Version string }
				LogRecords []struct {
					TimeUnixNano, ObservedTimeUnixNano uint64 `json:",string"`
					SeverityNumber                     uint64
					SeverityText, EventName            string
					Attributes                         attributes
				}
			}
		}
	}
	if err := json.Unmarshal(logs, &request); err != nil {
		tb.Fatal(err)
	}
	bytes := func(dst []byte, number uint64, text string) []byte {
		dst = binary.AppendUvarint(dst, number<<3|2)
		return append(binary.AppendUvarint(dst, uint64(len(text))), text...)
	}
	varint := func(dst []byte, number, v uint64) []byte {
		return binary.AppendUvarint(binary.AppendUvarint(dst, number<<3), v)
	}
	fixed := func(dst []byte, number, v uint64) []byte {
		return binary.LittleEndian.AppendUint64(binary.AppendUvarint(dst, number<<3|1), v)
	}
	list := func(dst []byte, number uint64, a attributes) []byte {
		for _, kv := range a {
			var v []byte
			switch {
			case kv.Value.StringValue != nil:
				v = bytes(nil, 1, *kv.Value.StringValue)
			case kv.Value.IntValue != nil:
				var n uint64
				if _, err := fmt.Sscan(*kv.Value.IntValue, &n); err != nil {
					tb.Fatal(err)
				}
				v = varint(nil, 3, n)
			case kv.Value.DoubleValue != nil:
				v = fixed(nil, 4, math.Float64bits(*kv.Value.DoubleValue))
			case *kv.Value.BoolValue:
				v = varint(nil, 2, 1)
			default:
				v = varint(nil, 2, 0)
			}
			dst = bytes(dst, number, string(bytes(bytes(nil, 1, kv.Key), 2, string(v))))
		}
		return dst
	}
	var out []byte
	for _, rl := range request.ResourceLogs {
		resource := bytes(nil, 1, string(list(nil, 1, rl.Resource.Attributes)))
		for _, sl := range rl.ScopeLogs {
			scope := bytes(nil, 1, string(bytes(bytes(nil, 1, sl.Scope.Name), 2, sl.Scope.Version)))
			for _, lr := range sl.LogRecords {
				record := varint(fixed(nil, 1, lr.TimeUnixNano), 2, lr.SeverityNumber)
				record = list(bytes(record, 3, lr.SeverityText), 6, lr.Attributes)
				record = bytes(bytes(fixed(record, 11, lr.ObservedTimeUnixNano), 12, lr.EventName), 9, "0123456789abcdef")
				scope = bytes(scope, 2, string(record))
			}
			resource = bytes(resource, 2, string(scope))
		}
		out = bytes(out, 1, string(resource))
	}
	return out
}
