package importer

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/longtest"
)

// messages returns what raw holds by what tells messages apart: usage as "key
// message", and what ties visitors to users as "visitor is user".
func (g *target) messages(t *testing.T) (usage, claims []string) {
	t.Helper()
	g.each(t, func(key []byte, e *event.RawEvent) {
		if event.IsUsage(e.Kind) {
			usage = append(usage, fmt.Sprintf("%q %q", key, e.Message().AppendTo(nil)))
		}
		if e.UserID != "" && e.AnonymousID != "" {
			claims = append(claims, e.AnonymousID+" is "+e.UserID)
		}
	})
	slices.Sort(usage)
	slices.Sort(claims)
	return usage, claims
}

// TestLiveAndExport: what came live and comes again from an export is the same
// message, also where the source gave it to another person since; and whose it was is
// known after it.
func TestLiveAndExport(t *testing.T) {
	for _, tc := range []struct {
		from, path, live, export string
		claims                   string // of the export
		unmatched                int64
	}{
		{
			from: "mixpanel", path: "/track",
			live: `[{"event":"e","properties":{"token":"KEY","distinct_id":"$device:d1","$device_id":"d1","time":1767323045678,"$insert_id":"i1"}},
{"event":"e","properties":{"token":"KEY","distinct_id":"ana","$user_id":"ana","$device_id":"d1","time":1767323046,"$insert_id":"i2"}},
{"event":"e","properties":{"token":"KEY","distinct_id":"d2","$device_id":"d2","time":1767323047,"$insert_id":"i3"}},
{"event":"e","properties":{"token":"KEY","distinct_id":"server-1","time":1767323048,"$insert_id":"i4"}}]`,
			export: `{"event":"e","properties":{"distinct_id":"ana","$distinct_id_before_identity":"$device:d1","$device_id":"d1","time":1767323045,"$insert_id":"i1"}}
{"event":"e","properties":{"distinct_id":"ana","$user_id":"ana","$device_id":"d1","time":1767323046,"$insert_id":"i2"}}
{"event":"e","properties":{"distinct_id":"ben","$distinct_id_before_identity":"d2","$device_id":"d2","time":1767323047,"$insert_id":"i3"}}
{"event":"e","properties":{"distinct_id":"eva","$distinct_id_before_identity":"server-1","time":1767323048,"$insert_id":"i4"}}`,
			claims: "d1 is ana, d2 is ben, server-1 is eva",
		},
		{
			from: "mixpanel", export: `{"event":"e","properties":{"distinct_id":"ana","$device_id":"d1","time":1767323045,"$insert_id":"i1"}}`, unmatched: 1,
		},
		{
			from: "amplitude", path: "/2/httpapi",
			live: `{"api_key":"KEY","events":[{"event_type":"e","device_id":"device-1","time":1767323045678,"insert_id":"i1"},
{"event_type":"e","device_id":"device-1","user_id":"anna1","time":1767323046000,"insert_id":"i2"},
{"event_type":"e","device_id":"device-2","time":1767323047000,"insert_id":"i3"},
{"event_type":"e","device_id":"device-3","time":1767323047000,"insert_id":"i4"}]}`,
			export: `{"event_type":"e","device_id":"device-1","user_id":null,"amplitude_id":7,"event_time":"2026-01-02 03:04:05.678000","$insert_id":"i1"}
{"event_type":"e","device_id":"device-1","user_id":"anna1","amplitude_id":7,"event_time":"2026-01-02 03:04:06.000000","$insert_id":"i2"}
{"event_type":"e","device_id":"device-2","amplitude_id":7,"event_time":"2026-01-02 03:04:07.000000","$insert_id":"i3"}
{"event_type":"e","device_id":"device-3","amplitude_id":8,"event_time":"2026-01-02 03:04:07.000000","$insert_id":"i4"}`,
			claims: "device-1 is anna1, device-2 is anna1",
		},
		{
			from: "posthog", path: "/batch",
			live: `{"api_key":"KEY","batch":[{"event":"e","uuid":"i1","distinct_id":"anon-1","timestamp":"2026-01-02T03:04:05.678Z","properties":{"$is_identified":false,"$device_id":"anon-1"}},
{"event":"e","uuid":"i2","distinct_id":"ana","timestamp":"2026-01-02T03:04:06Z","properties":{"$is_identified":true,"$device_id":"anon-1"}},
{"event":"e","uuid":"i3","distinct_id":"anon-2","timestamp":"2026-01-02T03:04:07Z","properties":{"$device_id":"anon-2"}},
{"event":"e","uuid":"i4","distinct_id":"anon-3","timestamp":"2026-01-02T03:04:07Z","properties":{"$device_id":"anon-3"}}]}`,
			export: `{"event":"e","uuid":"i1","distinct_id":"anon-1","person_id":"p1","timestamp":"2026-01-02 03:04:05.678000+00:00","properties":{"$is_identified":false,"$device_id":"anon-1"}}
{"event":"$identify","uuid":"i9","distinct_id":"ana","person_id":"p1","timestamp":"2026-01-02 03:04:05.900+00:00","properties":{"$anon_distinct_id":"anon-1"}}
{"event":"e","uuid":"i2","distinct_id":"ana","person_id":"p1","timestamp":"2026-01-02 03:04:06+00:00","properties":{"$is_identified":true,"$device_id":"anon-1"}}
{"event":"e","uuid":"i3","distinct_id":"anon-2","person_id":"p1","timestamp":"2026-01-02 03:04:07+00:00","properties":"{\"$device_id\":\"anon-2\"}"}
{"event":"e","uuid":"i4","distinct_id":"anon-3","person_id":"p3","timestamp":"2026-01-02 03:04:07+00:00","properties":"{\"$device_id\":\"anon-3\"}"}`,
			claims: "anon-1 is ana, anon-2 is ana",
		},
		{
			from: "posthog", export: `{"event":"e","uuid":"i1","person_id":"p1","timestamp":"2026-01-02 03:04:07+00:00","properties":{}}`, unmatched: 1,
		},
	} {
		g := newTarget(t)
		if tc.live != "" {
			g.post(t, "/"+tc.from+tc.path, strings.ReplaceAll(tc.live, "KEY", testKey))
		}
		live, _ := g.messages(t)
		result, err := Run(t.Context(), config(t, tc.from, g.url, tc.export), quiet())
		if err != nil || result.Unmatched != tc.unmatched || result.Sent != result.Lines {
			t.Errorf("%s: got %+v, %v, want %d unmatched", tc.from, result, err, tc.unmatched)
		}
		if tc.unmatched > 0 {
			continue
		}
		usage, claims := g.messages(t)
		if len(live) == 0 || len(usage) != 2*len(live) || !slices.Equal(slices.Compact(usage), live) {
			t.Errorf("%s: live\n%s\nwith the export\n%s", tc.from, strings.Join(live, "\n"), strings.Join(usage, "\n"))
		}
		if got := strings.Join(slices.Compact(claims), ", "); tc.claims != "" && !strings.Contains(got, tc.claims) {
			t.Errorf("%s: got the claims %s, want %s", tc.from, got, tc.claims)
		}
	}
}

// person is somebody of a random source, with the visitor's ids that the source gave to
// them in the end.
type person struct{ user, device, guest string }

// TestLiveAndExportOfRandomPeople: whatever is sent live and whomever the source gives
// it to afterwards, the export adds no message, and says of each visitor whose it was.
func TestLiveAndExportOfRandomPeople(t *testing.T) {
	people, events := 30, 400
	if longtest.Enabled() {
		people, events = 1500, 20_000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	// fields are those of an event live and in the export. The claims are the pairs of
	// ids that one of the two names or implies.
	type fields = map[string]any
	type write func(r *rand.Rand, p person, n int, at time.Time) (live, export fields, claims []string)
	known := func(p person) string { return p.device + " is " + p.user }
	for _, source := range []struct {
		from, path, before, after string
		write                     write
	}{
		{"mixpanel", "/track", "[", "]", func(r *rand.Rand, p person, n int, at time.Time) (fields, fields, []string) {
			name := fmt.Sprint("e", n)
			one := fields{"token": testKey, "time": at.UnixMilli(), "$insert_id": fmt.Sprint("i", n/3)} // of several events
			two := fields{"time": at.Unix(), "$insert_id": one["$insert_id"], "distinct_id": p.user}
			live, export := fields{"event": name, "properties": one}, fields{"event": name, "properties": two}
			switch r.IntN(3) {
			case 0:
				one["distinct_id"], one["$user_id"], one["$device_id"] = p.user, p.user, p.device
				two["$user_id"], two["$device_id"] = p.user, p.device
				return live, export, []string{known(p)}
			case 1:
				one["distinct_id"], one["$device_id"] = "$device:"+p.device, p.device
				two["$distinct_id_before_identity"], two["$device_id"] = one["distinct_id"], p.device
				return live, export, []string{known(p)}
			}
			one["distinct_id"], two["$distinct_id_before_identity"] = p.guest, p.guest
			return live, export, []string{p.guest + " is " + p.user}
		}},
		{"amplitude", "/2/httpapi", `{"api_key":"` + testKey + `","events":[`, "]}", func(r *rand.Rand, p person, n int, at time.Time) (fields, fields, []string) {
			one := fields{"event_type": "e", "device_id": p.device, "time": at.UnixMilli(), "insert_id": fmt.Sprint("i", n)}
			two := fields{"event_type": "e", "device_id": p.device, "event_time": at.Format("2006-01-02 15:04:05.000000"), "$insert_id": one["insert_id"], "amplitude_id": p.user}
			if r.IntN(2) == 0 {
				one["user_id"], two["user_id"] = p.user, p.user
				return one, two, []string{known(p)}
			}
			two["user_id"] = nil
			return one, two, nil // known if another event of the export has the user
		}},
		{"posthog", "/batch", `{"api_key":"` + testKey + `","batch":[`, "]}", func(r *rand.Rand, p person, n int, at time.Time) (fields, fields, []string) {
			props := fields{"$device_id": p.device, "$is_identified": false}
			one := fields{"event": "e", "uuid": fmt.Sprint("i", n), "distinct_id": p.device, "timestamp": at.Format(time.RFC3339Nano), "properties": props}
			two := maps.Clone(one)
			two["person_id"], two["timestamp"] = p.user+"-person", at.Format("2006-01-02 15:04:05.000000+00:00")
			if r.IntN(2) == 0 {
				props["$is_identified"] = true
				one["distinct_id"], two["distinct_id"] = p.user, p.user
				return one, two, []string{known(p)}
			}
			return one, two, nil
		}},
	} {
		r := rand.New(rand.NewPCG(seed, uint64(len(source.from))))
		var live, export []string
		want := map[string]bool{}
		start := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
		for n := range events {
			i := r.IntN(people)
			one, two, claims := source.write(r, person{fmt.Sprint("user-", i), fmt.Sprint("device-", i), fmt.Sprint("guest-", i)}, n, start.Add(time.Duration(r.IntN(7_200_000))*time.Millisecond))
			for _, f := range []struct {
				fields fields
				into   *[]string
			}{{one, &live}, {two, &export}} {
				text, err := json.Marshal(f.fields)
				if err != nil {
					t.Fatal(err)
				}
				*f.into = append(*f.into, string(text))
			}
			for _, c := range claims {
				want[c] = true
			}
		}
		r.Shuffle(len(export), func(i, j int) { export[i], export[j] = export[j], export[i] })
		g := newTarget(t)
		for list := range slices.Chunk(live, 50) {
			g.post(t, "/"+source.from+source.path, source.before+strings.Join(list, ",")+source.after)
		}
		before, _ := g.messages(t)
		before = slices.Compact(before) // a batch may have been sent twice while Kafka was not reachable
		result, err := Run(t.Context(), config(t, source.from, g.url, strings.Join(export, "\n")), quiet())
		if err != nil || result.Unmatched != 0 || result.Sent != int64(events) {
			t.Fatalf("%s: got %+v, %v", source.from, result, err)
		}
		usage, claims := g.messages(t)
		if all := slices.Compact(usage); len(before) != events || !slices.Equal(all, before) {
			t.Errorf("%s: %d different messages live, %d with the export", source.from, len(before), len(all))
		}
		if got, want := slices.Compact(claims), slices.Sorted(maps.Keys(want)); !slices.Equal(got, want) {
			t.Errorf("%s: got the claims\n%s\nwant\n%s", source.from, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// post sends a body until the gateway's Kafka is reachable.
func (g *target) post(t *testing.T, path, body string) {
	t.Helper()
	for status := http.StatusServiceUnavailable; status != http.StatusOK; {
		res, err := http.Post(g.url+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if status = res.StatusCode; status != http.StatusOK && status != http.StatusServiceUnavailable {
			t.Fatalf("%s: %d %s", path, status, said)
		}
	}
}
