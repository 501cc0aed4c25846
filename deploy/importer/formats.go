package importer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// format knows one source's export and the gateway's paths for it.
type format interface {
	// event makes the event of a line one that the source's SDKs could send, and
	// reads into c when it happened. The result is kept.
	event(line int64, text []byte, c *row) ([]byte, error)
	// envelope is the body of a request with the events.
	envelope(events [][]byte) []byte
	path() string
	authorize(req *http.Request, key string)
	// answer reads whether the gateway says that every event is stored or rejected,
	// and how many were rejected, as far as it says.
	answer(status int, reply []byte) (v verdict, taken bool)
}

// verdict is what the gateway says of the events of a request.
type verdict struct {
	rejected int
	first    string // why the first of them was
	tooLarge int    // that it takes in no request
}

func (v *verdict) add(w verdict) {
	if v.first == "" {
		v.first = w.first
	}
	v.rejected += w.rejected
	v.tooLarge += w.tooLarge
}

// reject counts an event that was rejected, given its id if it is known.
func (v *verdict) reject(id, why string) {
	if v.first == "" {
		if v.first = why; id != "" {
			v.first = fmt.Sprintf("event %q: %s", id, why)
		}
	}
	v.rejected++
}

var formats = map[string]func(*persons) format{
	"segment":   func(*persons) format { return segment{} },
	"csv":       func(*persons) format { return segment{} },
	"posthog":   func(p *persons) format { return posthog{p} },
	"mixpanel":  func(*persons) format { return mixpanel{} },
	"amplitude": func(p *persons) format { return &amplitude{said: map[string]uint64{}, persons: p} },
}

// Sources lists whose exports can be imported.
func Sources() []string { return slices.Sorted(maps.Keys(formats)) }

// fields are those of a line's object. Names count with their case.
type fields map[string]json.RawMessage

func read(text []byte) (fields, error) {
	var f fields
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if f == nil {
		return nil, errors.New("not a JSON object: null")
	}
	if why, ok := f[unreadable]; ok {
		var text string
		_ = json.Unmarshal(why, &text) // readCSV wrote it
		return nil, errors.New(text)
	}
	return f, nil
}

// unreadable is the field of a line that stands for a row of CSV that cannot be read,
// with the reason. No export has a field of this name.
const unreadable = "\x00unreadable"

// text returns a string, or a number as it is written; "" for anything else.
func (f fields) text(name string) string {
	raw := f[name]
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil {
		return n.String()
	}
	return ""
}

func (f fields) setText(name, value string) {
	f[name], _ = json.Marshal(value) // a string never fails
}

// rename moves a field where there is none of the new name.
func (f fields) rename(from, to string) {
	if v, ok := f[from]; ok {
		delete(f, from)
		if _, taken := f[to]; !taken {
			f[to] = v
		}
	}
}

// unquote replaces a field that holds JSON as text by that JSON: warehouses write
// objects so.
func (f fields) unquote(name string) {
	var s string
	if json.Unmarshal(f[name], &s) != nil {
		return
	}
	if s = strings.TrimSpace(s); json.Valid([]byte(s)) && strings.HasPrefix(s, "{") {
		f[name] = json.RawMessage(s)
	}
}

func (f fields) write() ([]byte, error) { return json.Marshal(f) }

// idOf is the message id of a line whose event has none: the same whenever the
// same file is imported.
func idOf(line int64, text []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d\n", line)
	h.Write(text)
	return "import-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// list writes an array of the events.
func list(dst []byte, events [][]byte) []byte {
	dst = append(dst, '[')
	for i, e := range events {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, e...)
	}
	return append(dst, ']')
}

// segment imports raw messages as Segment and RudderStack archive them.
type segment struct{}

func (segment) event(line int64, text []byte, c *row) ([]byte, error) {
	f, err := read(text)
	if err != nil {
		return nil, err
	}
	if f.text("messageId") == "" {
		f.setText("messageId", idOf(line, text))
	}
	if f.text("type") == "" {
		return nil, errors.New("no type")
	}
	delete(f, "writeKey") // of the product that exported
	c.read(f, false, "timestamp", "originalTimestamp", "sentAt", "receivedAt")
	c.mark(f)
	return f.write()
}

func (segment) envelope(events [][]byte) []byte {
	return append(list([]byte(`{"batch":`), events), '}')
}

func (segment) path() string { return "/segment/v1/import" }

func (segment) authorize(req *http.Request, key string) { req.SetBasicAuth(key, "") }

func (segment) answer(status int, reply []byte) (v verdict, taken bool) {
	var r struct {
		Rejected []struct {
			ID     string `json:"message_id"`
			Code   string `json:"code"`
			Field  string `json:"field"`
			Detail string `json:"detail"`
		} `json:"rejected"`
	}
	taken = status == http.StatusOK && json.Unmarshal(reply, &r) == nil
	for _, e := range r.Rejected {
		v.reject(e.ID, strings.TrimSpace(e.Code+" "+e.Field)+": "+e.Detail)
	}
	return v, taken
}

// posthog imports events as PostHog's batch exports write them.
type posthog struct{ persons *persons }

func (ph posthog) event(line int64, text []byte, c *row) ([]byte, error) {
	f, err := read(text)
	if err != nil {
		return nil, err
	}
	if f.text("event") == "" {
		return nil, errors.New("no event")
	}
	if f.text("uuid") == "" {
		f.setText("uuid", idOf(line, text))
	}
	f.unquote("properties")
	f.rename("set", "$set")
	f.rename("set_once", "$set_once")
	for _, name := range []string{"$set", "$set_once"} {
		f.unquote(name)
		if !bytes.HasPrefix(bytes.TrimSpace(f[name]), []byte("{")) {
			delete(f, name)
		}
	}
	c.read(f, false, "timestamp")
	ph.persons.posthog(f, c)
	// What the person was when the export was made is no part of the event.
	for _, name := range []string{"person", "person_id", "person_properties", "team_id", "elements"} {
		delete(f, name)
	}
	c.mark(f)
	return f.write()
}

func (posthog) envelope(events [][]byte) []byte {
	return append(list([]byte(`{"historical_migration":true,"batch":`), events), '}')
}

func (posthog) path() string { return "/posthog/i/v1/analytics/events" }

func (posthog) authorize(req *http.Request, key string) {
	req.Header.Set("Authorization", "Bearer "+key)
}

func (posthog) answer(status int, reply []byte) (v verdict, taken bool) {
	var r struct {
		Results map[string]struct {
			Result  string `json:"result"`
			Details string `json:"details"`
		} `json:"results"`
	}
	taken = status == http.StatusOK && json.Unmarshal(reply, &r) == nil
	for _, id := range slices.Sorted(maps.Keys(r.Results)) {
		if e := r.Results[id]; e.Result == "drop" {
			v.reject(id, e.Details)
		}
	}
	return v, taken
}

// mixpanel imports what its raw export API gives.
type mixpanel struct{}

func (mixpanel) event(line int64, text []byte, c *row) ([]byte, error) {
	f, err := read(text)
	if err != nil {
		return nil, err
	}
	if f.text("event") == "" {
		return nil, errors.New("no event")
	}
	f.unquote("properties")
	p, err := read(f["properties"])
	if err != nil {
		return nil, fmt.Errorf("properties: %w", err)
	}
	if p.text("$insert_id") == "" {
		p.setText("$insert_id", idOf(line, text))
	}
	delete(p, "token")
	c.read(p, true, "time")
	// The gateway keys it by the id before identity. Of a device that does not say so,
	// and not whether somebody was logged in, it may have been either.
	id, device := p.text("distinct_id"), p.text("$device_id")
	c.unmatched = device != "" && p.text("$user_id") == "" && p.text("$distinct_id_before_identity") == "" &&
		id != device && !strings.HasPrefix(id, "$device:") && !strings.HasPrefix(f.text("event"), "$")
	c.mark(f)
	if f["properties"], err = p.write(); err != nil {
		return nil, err
	}
	return f.write()
}

func (mixpanel) envelope(events [][]byte) []byte { return list(nil, events) }

func (mixpanel) path() string { return "/mixpanel/import?strict=1" }

func (mixpanel) authorize(req *http.Request, key string) { req.SetBasicAuth(key, "") }

// answer knows partial success, which is 400 with the number that was taken.
func (mixpanel) answer(status int, reply []byte) (v verdict, taken bool) {
	var r struct {
		Imported *int `json:"num_records_imported"`
		Failed   []struct {
			ID      string `json:"insert_id"`
			Field   string `json:"field"`
			Message string `json:"message"`
		} `json:"failed_records"`
	}
	if json.Unmarshal(reply, &r) != nil || r.Imported == nil {
		return v, false
	}
	for _, e := range r.Failed {
		v.reject(e.ID, strings.TrimPrefix(e.Field+": "+e.Message, ": "))
	}
	return v, status == http.StatusOK || status == http.StatusBadRequest && v.rejected > 0
}

// amplitude imports what its export API gives.
type amplitude struct {
	// said is what was last said of whom: exports repeat all of a user's
	// properties on every event, and what changes is what is worth saying.
	said    map[string]uint64
	persons *persons
}

// maxSaid bounds the memory of it. When it is full it is forgotten, and said
// once more.
const maxSaid = 200_000

func (a *amplitude) event(line int64, text []byte, c *row) ([]byte, error) {
	f, err := read(text)
	if err != nil {
		return nil, err
	}
	if f.text("event_type") == "" {
		return nil, errors.New("no event_type")
	}
	f.rename("$insert_id", "insert_id")
	if f.text("insert_id") == "" {
		if id := f.text("uuid"); id != "" {
			f.setText("insert_id", id)
		} else {
			f.setText("insert_id", idOf(line, text))
		}
	}
	if err := f.amplitudeTime(c); err != nil {
		return nil, err
	}
	c.mark(f)
	f.rename("ip_address", "ip")
	for _, name := range []string{"event_properties", "user_properties", "group_properties", "groups"} {
		f.unquote(name)
	}
	for name, v := range f {
		if string(v) == "null" {
			delete(f, name)
		}
	}
	a.persons.amplitude(f, c)
	if event := f.text("event_type"); event != "$identify" && a.knows(f) {
		delete(f, "user_properties")
	}
	return f.write()
}

// amplitudeTime makes the instants of an export those of the API. Exports have
// them in UTC, without saying so.
func (f fields) amplitudeTime(c *row) error {
	if _, ok := f["time"]; ok {
		c.read(f, false, "time")
		return nil
	}
	if f.text("event_time") == "" {
		return nil
	}
	if c.read(f, false, "event_time"); c.at == 0 {
		return fmt.Errorf("event_time: not an instant: %q", f.text("event_time"))
	}
	f["time"] = json.RawMessage(strconv.FormatInt(c.at/1000, 10))
	delete(f, "event_time")
	return nil
}

// knows reports whether the user's properties are what they were, and remembers
// them.
func (a *amplitude) knows(f fields) bool {
	props := f["user_properties"]
	if len(props) == 0 || string(props) == "{}" {
		return true
	}
	who := f.text("user_id")
	if who == "" {
		who = "device " + f.text("device_id")
	}
	h := fnv.New64a()
	h.Write(props)
	sum := h.Sum64()
	if last, ok := a.said[who]; ok && last == sum {
		return true
	}
	if len(a.said) >= maxSaid {
		clear(a.said)
	}
	a.said[who] = sum
	return false
}

func (*amplitude) envelope(events [][]byte) []byte {
	return append(list([]byte(`{"events":`), events), '}')
}

func (*amplitude) path() string { return "/amplitude/batch" }

func (*amplitude) authorize(req *http.Request, key string) {
	req.Header.Set("Authorization", "Bearer "+key)
}

// answer reads the indexes of events that were put aside, which a 400 lists: the
// others are stored, since all have an insert id.
func (*amplitude) answer(status int, reply []byte) (v verdict, taken bool) {
	if status != http.StatusBadRequest {
		return v, status == http.StatusOK
	}
	var r struct {
		Error   string           `json:"error"`
		Fields  map[string][]int `json:"events_with_invalid_fields"`
		Missing map[string][]int `json:"events_with_missing_fields"`
		Lengths map[string][]int `json:"events_with_invalid_id_lengths"`
	}
	if json.Unmarshal(reply, &r) != nil {
		return v, false
	}
	for _, byField := range []map[string][]int{r.Fields, r.Missing, r.Lengths} {
		for _, indexes := range byField {
			for range indexes {
				v.reject("", r.Error)
			}
		}
	}
	return v, v.rejected > 0
}
